//! What the ring engine asks of a ring, so that it runs over the kernel's and over a simulated one.
//!
//! Dispatch is static: over [`Ring`] nothing is paid for it.

use std::os::fd::BorrowedFd;

use super::{Buffer, BufferAccount, Completion, Name, Ring, RingCounters, RingError, Tag, Wait};
use crate::outgoing::Outgoing;

/// The server's side of a ring; every method is that of [`Ring`] with the same name.
pub trait RingFace {
    /// Received bytes on loan.
    type Buffer;

    /// [`Ring::counters`].
    fn counters(&self) -> RingCounters;
    /// [`Ring::buffers_held`].
    fn buffers_held(&self) -> u32;
    /// [`Ring::buffer_account`].
    fn buffer_account(&mut self) -> Option<BufferAccount>;
    /// [`Ring::signal_by`].
    ///
    /// # Errors
    /// If the kernel refuses.
    fn signal_by(&self, eventfd: BorrowedFd<'_>) -> Result<(), RingError>;
    /// [`Ring::accept`].
    fn accept(&mut self, listener: BorrowedFd<'_>, tag: Tag);
    /// [`Ring::receive_multishot`].
    fn receive_multishot(&mut self, slot: u32, tag: Tag);
    /// [`Ring::poll_multishot`].
    fn poll_multishot(&mut self, slot: u32, tag: Tag);
    /// [`Ring::receive_once`].
    fn receive_once(&mut self, slot: u32, tag: Tag);
    /// [`Ring::send`].
    fn send(&mut self, slot: u32, outgoing: Outgoing, tag: Tag);
    /// [`Ring::cancel_send`].
    fn cancel_send(&mut self, target: Tag, tag: Tag);
    /// [`Ring::close`].
    fn close(&mut self, slot: u32, tag: Tag);
    /// [`Ring::cancel`].
    fn cancel(&mut self, target: Tag, tag: Tag);
    /// [`Ring::peer_name`].
    fn peer_name(&mut self, slot: u32, ipv6: bool, tag: Tag);
    /// [`Ring::take_peer_name`].
    fn take_peer_name(&mut self, completion: &Completion<Self::Buffer>) -> Option<Box<Name>>;
    /// [`Ring::read_wake`].
    fn read_wake(&mut self, eventfd: BorrowedFd<'_>, tag: Tag);
    /// [`Ring::has_submissions`].
    fn has_submissions(&mut self) -> bool;
    /// [`Ring::has_deferred`].
    fn has_deferred(&mut self) -> bool;
    /// [`Ring::has_completions`].
    fn has_completions(&mut self) -> bool;
    /// [`Ring::enter`].
    ///
    /// # Errors
    /// If the ring as a whole has failed.
    fn enter(&mut self, wait: Wait) -> Result<(), RingError>;
    /// [`Ring::collect`].
    fn collect(&mut self, batch: &mut Vec<Completion<Self::Buffer>>, limit: usize) -> bool;
    /// [`Ring::bytes`].
    fn bytes<'a>(&'a self, buffer: &'a Self::Buffer) -> &'a [u8];
    /// [`Ring::release`].
    fn release(&mut self, buffer: Self::Buffer);
}

/// Hands each method on to the one of the same name.
macro_rules! delegate {
    ($(fn $name:ident(&mut self $(, $arg:ident: $type:ty)*) $(-> $result:ty)?;)+) => {
        $(#[inline]
        fn $name(&mut self $(, $arg: $type)*) $(-> $result)? {
            Ring::$name(self $(, $arg)*)
        })+
    };
}

impl RingFace for Ring {
    type Buffer = Buffer;

    fn counters(&self) -> RingCounters {
        Ring::counters(self)
    }

    fn buffers_held(&self) -> u32 {
        Ring::buffers_held(self)
    }

    fn signal_by(&self, eventfd: BorrowedFd<'_>) -> Result<(), RingError> {
        Ring::signal_by(self, eventfd)
    }

    #[inline]
    fn bytes<'a>(&'a self, buffer: &'a Buffer) -> &'a [u8] {
        Ring::bytes(self, buffer)
    }

    delegate! {
        fn buffer_account(&mut self) -> Option<BufferAccount>;
        fn accept(&mut self, listener: BorrowedFd<'_>, tag: Tag);
        fn receive_multishot(&mut self, slot: u32, tag: Tag);
        fn poll_multishot(&mut self, slot: u32, tag: Tag);
        fn receive_once(&mut self, slot: u32, tag: Tag);
        fn send(&mut self, slot: u32, outgoing: Outgoing, tag: Tag);
        fn cancel_send(&mut self, target: Tag, tag: Tag);
        fn close(&mut self, slot: u32, tag: Tag);
        fn cancel(&mut self, target: Tag, tag: Tag);
        fn peer_name(&mut self, slot: u32, ipv6: bool, tag: Tag);
        fn take_peer_name(&mut self, completion: &Completion) -> Option<Box<Name>>;
        fn read_wake(&mut self, eventfd: BorrowedFd<'_>, tag: Tag);
        fn has_submissions(&mut self) -> bool;
        fn has_deferred(&mut self) -> bool;
        fn has_completions(&mut self) -> bool;
        fn enter(&mut self, wait: Wait) -> Result<(), RingError>;
        fn collect(&mut self, batch: &mut Vec<Completion>, limit: usize) -> bool;
        fn release(&mut self, buffer: Buffer);
    }
}
