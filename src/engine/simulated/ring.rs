//! A simulated ring: what the engine holds in place of the kernel's.

use std::cell::RefCell;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use super::kernel::{Sqe, Whereabouts};
use super::world::World;
use crate::outgoing::Outgoing;
use crate::ring::{BufferAccount, Completion, Name, RingCounters, RingError, RingFace, Tag, Wait};

/// One ring of a [`World`].
pub(super) struct SimulatedRing {
    world: Rc<RefCell<World>>,
    number: usize,
}

/// Received bytes on loan.
#[derive(Debug)]
pub(super) struct Loan {
    id: u16,
    bytes: Vec<u8>,
}

impl SimulatedRing {
    pub(super) fn new(world: &Rc<RefCell<World>>, number: usize) -> SimulatedRing {
        SimulatedRing { world: Rc::clone(world), number }
    }

    fn push(&self, sqe: Sqe) {
        self.world.borrow_mut().push(self.number, sqe);
    }
}

impl RingFace for SimulatedRing {
    type Buffer = Loan;

    fn counters(&self) -> RingCounters {
        self.world.borrow().rings[self.number].counters
    }

    fn buffers_held(&self) -> u32 {
        self.world.borrow().rings[self.number].held
    }

    fn buffer_account(&mut self) -> Option<BufferAccount> {
        self.world.borrow().rings[self.number].buffer_account()
    }

    fn signal_by(&self, _: BorrowedFd<'_>) -> Result<(), RingError> {
        self.world.borrow_mut().rings[self.number].signals_bell = true;
        Ok(())
    }

    fn accept(&mut self, _: BorrowedFd<'_>, tag: Tag) {
        self.push(Sqe::Accept { tag });
    }

    fn receive_multishot(&mut self, slot: u32, tag: Tag) {
        self.push(Sqe::Receive { slot, tag });
    }

    fn poll_multishot(&mut self, slot: u32, tag: Tag) {
        self.push(Sqe::Poll { slot, tag });
    }

    fn receive_once(&mut self, slot: u32, tag: Tag) {
        self.push(Sqe::ReceiveOnce { slot, tag });
    }

    fn send(&mut self, slot: u32, outgoing: Outgoing, tag: Tag) {
        self.push(Sqe::Send { slot, tag, outgoing });
    }

    fn cancel_send(&mut self, target: Tag, tag: Tag) {
        self.push(Sqe::Cancel { target, tag });
    }

    fn close(&mut self, slot: u32, tag: Tag) {
        self.push(Sqe::Close { slot, tag });
    }

    fn cancel(&mut self, target: Tag, tag: Tag) {
        self.push(Sqe::Cancel { target, tag });
    }

    fn peer_name(&mut self, slot: u32, _: bool, tag: Tag) {
        self.push(Sqe::PeerName { slot, tag });
    }

    fn take_peer_name(&mut self, completion: &Completion<Loan>) -> Option<Box<Name>> {
        let world = self.world.borrow();
        let peer = world.rings[self.number].slots[completion.tag.index as usize].peer?;
        let home = world.peers[peer].home.filter(|_| completion.result > 0)?;
        Some(Box::new(home.name))
    }

    fn read_wake(&mut self, _: BorrowedFd<'_>, tag: Tag) {
        self.push(Sqe::ReadWake { tag });
    }

    fn has_submissions(&mut self) -> bool {
        !self.world.borrow().rings[self.number].submissions.is_empty()
    }

    fn has_deferred(&mut self) -> bool {
        let ring = &self.world.borrow().rings[self.number];
        ring.stale_flag || !ring.ready.is_empty() || !ring.overflow.is_empty()
    }

    fn has_completions(&mut self) -> bool {
        !self.world.borrow().rings[self.number].completions.is_empty()
    }

    fn enter(&mut self, wait: Wait) -> Result<(), RingError> {
        self.world.borrow_mut().enter(self.number, wait);
        Ok(())
    }

    fn collect(&mut self, batch: &mut Vec<Completion<Loan>>, limit: usize) -> bool {
        let mut world = self.world.borrow_mut();
        world.begin_collecting();
        for _ in 0..limit {
            let Some(cqe) = world.collect_one(self.number) else { break };
            let buffer = cqe.buffer.map(|(id, bytes)| Loan { id, bytes });
            // As the real ring does it: static bytes do not come back.
            let outgoing = cqe.outgoing.filter(|sent| !matches!(sent, Outgoing::Static(_)));
            let (tag, result, more) = (cqe.tag, cqe.result, cqe.more);
            batch.push(Completion { tag, result, more, buffer, outgoing });
        }
        !world.rings[self.number].completions.is_empty()
    }

    fn bytes<'a>(&'a self, buffer: &'a Loan) -> &'a [u8] {
        &buffer.bytes
    }

    fn release(&mut self, Loan { id, bytes }: Loan) {
        let mut world = self.world.borrow_mut();
        world.give_back_bytes(bytes);
        let ring = &mut world.rings[self.number];
        let place = &mut ring.buffers[usize::from(id)];
        let before = std::mem::replace(place, Whereabouts::Released);
        ring.held -= u32::from(before == Whereabouts::Held);
        ring.has_released = true;
        if before != Whereabouts::Held {
            world.violate(format!("buffer {id} was given back while {before:?}"));
        }
    }
}
