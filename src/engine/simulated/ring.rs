//! A ring of the simulated kernel, as the engine sees it.

use std::cell::RefCell;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use super::kernel::{Kernel, Request};
use crate::outgoing::Outgoing;
use crate::ring::{Completion, Name, RingCounters, RingError, RingFace, Tag, Wait};

/// Bytes on loan from the simulated kernel.
#[derive(Debug)]
pub(super) struct Loan(pub(super) Vec<u8>);

/// One ring of a group.
pub(super) struct SimulatedRing {
    pub(super) kernel: Rc<RefCell<Kernel>>,
    pub(super) number: usize,
}

impl SimulatedRing {
    fn push(&mut self, request: Request) {
        self.kernel.borrow_mut().push(self.number, request);
    }
}

impl RingFace for SimulatedRing {
    type Buffer = Loan;

    fn counters(&self) -> RingCounters {
        self.kernel.borrow().rings[self.number].counters
    }

    fn buffers_held(&self) -> u32 {
        self.kernel.borrow().rings[self.number].held
    }

    fn signal_by(&self, _eventfd: BorrowedFd<'_>) -> Result<(), RingError> {
        Ok(())
    }

    fn accept_multishot(&mut self, _listener: BorrowedFd<'_>, tag: Tag) {
        self.push(Request::Accept { tag });
    }

    fn receive_multishot(&mut self, slot: u32, tag: Tag) {
        self.push(Request::Arm { slot, tag });
    }

    fn poll_multishot(&mut self, slot: u32, tag: Tag) {
        self.push(Request::Arm { slot, tag });
    }

    fn receive_once(&mut self, slot: u32, tag: Tag) {
        self.push(Request::ReceiveOnce { slot, tag });
    }

    fn send(&mut self, slot: u32, outgoing: Outgoing, tag: Tag) {
        self.push(Request::Send { slot, outgoing, tag });
    }

    fn cancel_send(&mut self, target: Tag, tag: Tag) {
        self.push(Request::Cancel { target, tag });
    }

    fn close(&mut self, slot: u32, tag: Tag) {
        self.push(Request::Close { slot, tag });
    }

    fn cancel(&mut self, target: Tag, tag: Tag) {
        self.push(Request::Cancel { target, tag });
    }

    fn peer_name(&mut self, _slot: u32, _ipv6: bool, tag: Tag) {
        self.kernel.borrow_mut().violated(format!("{tag:?}: nobody needs to know the peer"));
    }

    fn take_peer_name(&mut self, _completion: &Completion<Loan>) -> Option<Box<Name>> {
        None
    }

    fn read_wake(&mut self, _eventfd: BorrowedFd<'_>, tag: Tag) {
        self.push(Request::Wake { tag });
    }

    fn has_submissions(&mut self) -> bool {
        !self.kernel.borrow().rings[self.number].queued.is_empty()
    }

    fn has_deferred(&mut self) -> bool {
        self.kernel.borrow().has_deferred(self.number)
    }

    fn has_completions(&mut self) -> bool {
        !self.kernel.borrow().rings[self.number].ready.is_empty()
    }

    fn enter(&mut self, wait: Wait) -> Result<(), RingError> {
        self.kernel.borrow_mut().enter(self.number, wait);
        Ok(())
    }

    fn collect(&mut self, batch: &mut Vec<Completion<Loan>>, limit: usize) -> bool {
        self.kernel.borrow_mut().collect(self.number, batch, limit)
    }

    fn bytes<'a>(&'a self, buffer: &'a Loan) -> &'a [u8] {
        &buffer.0
    }

    fn release(&mut self, buffer: Loan) {
        drop(buffer);
        self.kernel.borrow_mut().release(self.number);
    }
}
