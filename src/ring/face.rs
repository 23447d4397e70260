//! What the ring engine asks of a ring: the face behind which [`Ring`] has the kernel, and a
//! simulation has none. The engine is generic over it, so a call costs nothing more.

use std::os::fd::BorrowedFd;

use super::{Buffer, Completion, Ring, RingCounters, RingError, Tag, Wait};
use crate::outgoing::Outgoing;

/// A ring, as the engine sees it. What each call promises stands at the method of [`Ring`] that has
/// the same name.
pub trait RingFace {
    /// [`Ring::counters`].
    fn counters(&self) -> RingCounters;
    /// [`Ring::buffers_held`].
    fn buffers_held(&self) -> u32;
    /// [`Ring::signal_by`].
    ///
    /// # Errors
    /// If the kernel refuses.
    fn signal_by(&self, eventfd: BorrowedFd<'_>) -> Result<(), RingError>;
    /// [`Ring::accept_multishot`].
    fn accept_multishot(&mut self, listener: BorrowedFd<'_>, tag: Tag);
    /// [`Ring::receive_multishot`].
    fn receive_multishot(&mut self, slot: u32, tag: Tag);
    /// [`Ring::poll_multishot`].
    fn poll_multishot(&mut self, slot: u32, tag: Tag);
    /// [`Ring::receive_once`].
    fn receive_once(&mut self, slot: u32, tag: Tag);
    /// [`Ring::send`].
    ///
    /// # Panics
    /// If a send of the same index is in flight.
    fn send(&mut self, slot: u32, outgoing: Outgoing, tag: Tag);
    /// [`Ring::cancel_send`].
    fn cancel_send(&mut self, target: Tag, tag: Tag);
    /// [`Ring::close`].
    fn close(&mut self, slot: u32, tag: Tag);
    /// [`Ring::cancel`].
    fn cancel(&mut self, target: Tag, tag: Tag);
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
    fn collect(&mut self, batch: &mut Vec<Completion>, limit: usize) -> bool;
    /// [`Ring::bytes`].
    fn bytes(&self, buffer: &Buffer) -> &[u8];
    /// [`Ring::release`].
    fn release(&mut self, buffer: Buffer);
}

/// Has a trait's methods call the type's own of the same names.
macro_rules! forward {
    ($(
        $name:ident($self:ident: $receiver:ty $(, $argument:ident: $type:ty)*) $(-> $result:ty)?;
    )+) => {
        $(fn $name($self: $receiver $(, $argument: $type)*) $(-> $result)? {
            Ring::$name($self $(, $argument)*)
        })+
    };
}

impl RingFace for Ring {
    forward! {
        counters(self: &Self) -> RingCounters;
        buffers_held(self: &Self) -> u32;
        signal_by(self: &Self, eventfd: BorrowedFd<'_>) -> Result<(), RingError>;
        accept_multishot(self: &mut Self, listener: BorrowedFd<'_>, tag: Tag);
        receive_multishot(self: &mut Self, slot: u32, tag: Tag);
        poll_multishot(self: &mut Self, slot: u32, tag: Tag);
        receive_once(self: &mut Self, slot: u32, tag: Tag);
        send(self: &mut Self, slot: u32, outgoing: Outgoing, tag: Tag);
        cancel_send(self: &mut Self, target: Tag, tag: Tag);
        close(self: &mut Self, slot: u32, tag: Tag);
        cancel(self: &mut Self, target: Tag, tag: Tag);
        read_wake(self: &mut Self, eventfd: BorrowedFd<'_>, tag: Tag);
        has_submissions(self: &mut Self) -> bool;
        has_deferred(self: &mut Self) -> bool;
        has_completions(self: &mut Self) -> bool;
        enter(self: &mut Self, wait: Wait) -> Result<(), RingError>;
        collect(self: &mut Self, batch: &mut Vec<Completion>, limit: usize) -> bool;
        bytes(self: &Self, buffer: &Buffer) -> &[u8];
        release(self: &mut Self, buffer: Buffer);
    }
}
