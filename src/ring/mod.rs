//! The ring layer: io_uring behind a safe face, for the server's engine and the load generator.
//!
//! It knows descriptors, buffers and completions, and nothing of sessions or protocols. Beside it
//! `unsafe` stands in `sys`, `vectors` and the sweeper's vector loads only.
//!
//! Invariants:
//! - every operation that was queued completes exactly once without [`Completion::more`], except
//!   the silent links of a connect chain;
//! - bytes handed to [`Ring::send`] live until their completion has been collected;
//! - nothing that was queued is lost when the submission queue is full.
//!
//! Cost: one `io_uring_enter` submits everything queued and collects what is there.
//! Source: `io_uring_enter(2)`, `io_uring_setup(2)`, Linux 6.1 and later.
#![expect(unsafe_code, reason = "the kernel's interface is memory shared with it")]

mod buffers;
mod connect;
mod error;
mod face;
mod peer_name;
mod restrictions;
mod setup;
mod tag;
#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use self::buffers::BufferRing;
pub use self::buffers::{Buffer, BufferAccount};
use self::connect::AddressArena;
pub use self::error::{KERNEL_NEEDED, RingError};
pub use self::face::RingFace;
pub use self::peer_name::Name;
use self::peer_name::PeerNames;
pub use self::setup::{RingConfig, RingRole, probe_asking_server, probe_client, probe_server};
pub use self::tag::{Op, Tag};
use crate::counters::counters;
use crate::limits::SENDS_IN_FLIGHT_KEPT;
use crate::outgoing::Outgoing;

/// Something that the kernel reports.
#[derive(Debug)]
pub struct Completion<B = Buffer> {
    /// Which operation, and whose.
    pub tag: Tag,
    /// What the system call would have returned: a count or slot, or a negated errno.
    pub result: i32,
    /// Whether the operation goes on (multishot). If not, this was its last word.
    pub more: bool,
    /// The bytes that arrived; give it back with [`Ring::release`].
    pub buffer: Option<B>,
    /// The bytes of a [`Ring::send`], back from the kernel, with the cursor where it was.
    pub outgoing: Option<Outgoing>,
}

/// How long [`Ring::enter`] may sleep.
#[derive(Clone, Copy, Debug)]
pub enum Wait {
    /// Submit, collect what is there, return.
    No,
    /// Return when `completions` are there; after `min` one is enough (where the kernel has
    /// IORING_FEAT_MIN_TIMEOUT, Linux 6.12); after `max` in any case.
    For {
        /// How many completions make it worth returning at once.
        completions: u32,
        /// Until then, wait for all of `completions`.
        min: Duration,
        /// The longest sleep.
        max: Duration,
    },
}

counters! {
    /// What a ring has done so far.
    RingCounters {
        /// System calls.
        enters: sum,
        /// Operations queued, except the silent links of connect chains.
        submissions: sum,
        /// Operations that have ended.
        terminal_completions: sum,
        /// Completions in all, multishot ones included.
        completions: sum,
        /// Times that the completion queue was found to have overflowed (nothing is lost by it).
        completion_overflows: sum,
        /// Completions whose user data we never wrote; must stay 0.
        unknown_completions: sum,
    }
}

/// An io_uring instance with its direct-descriptor table, its buffers and its bytes in flight.
pub struct Ring {
    // Field order is drop order: the instance goes before the memory it was told of.
    io: IoUring,
    buffers: Option<BufferRing>,
    in_flight: HashMap<u32, Outgoing>,
    backlog: VecDeque<squeue::Entry>,
    addresses: AddressArena,
    peer_names: PeerNames,
    wake_count: Box<u64>,
    has_min_wait: bool,
    counters: RingCounters,
}

impl Ring {
    /// Makes a ring, to be used by this thread only.
    ///
    /// # Errors
    /// If the kernel refuses, with the cure.
    pub fn new(config: &RingConfig) -> Result<Ring, RingError> {
        let (io, buffers) = setup::create(config)?;
        let has_min_wait = io.params().is_feature_min_timeout();
        Ok(Ring {
            io,
            buffers,
            in_flight: HashMap::new(),
            backlog: VecDeque::new(),
            addresses: AddressArena::new(),
            peer_names: PeerNames::default(),
            wake_count: Box::new(0),
            has_min_wait,
            counters: RingCounters::default(),
        })
    }

    /// What this ring has done so far.
    pub fn counters(&self) -> RingCounters {
        self.counters
    }

    /// How many provided buffers are held by us rather than free for the kernel.
    pub fn buffers_held(&self) -> u32 {
        self.buffers.as_ref().map_or(0, BufferRing::held)
    }

    /// Where the provided buffers are; `None` if completions that wait may have brought some, or if
    /// the kernel does not tell (before 6.8). The kernel takes buffers only within an `enter`
    /// (DEFER_TASKRUN runs nothing at other times): what is counted between two is one moment.
    pub fn buffer_account(&mut self) -> Option<BufferAccount> {
        if self.has_completions() || self.io.submission().cq_overflow() {
            return None;
        }
        self.buffers.as_ref()?.account(self.io.as_raw_fd())
    }

    /// Makes the kernel signal `eventfd` when this ring has something to collect.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn signal_by(&self, eventfd: BorrowedFd<'_>) -> Result<(), RingError> {
        self.io
            .submitter()
            .register_eventfd(eventfd.as_raw_fd())
            .map_err(RingError::call("registering an eventfd"))
    }

    /// Queues an accept of one connection of `listener` into a slot that the kernel picks.
    pub fn accept(&mut self, listener: BorrowedFd<'_>, tag: Tag) {
        let listener = Fd(listener.as_raw_fd());
        let entry = opcode::Accept::new(listener, std::ptr::null_mut(), std::ptr::null_mut())
            .file_index(Some(DestinationSlot::auto_target()))
            .build();
        self.push(entry, tag);
    }

    /// Queues a multishot receive on `slot`.
    pub fn receive_multishot(&mut self, slot: u32, tag: Tag) {
        self.push(opcode::RecvMulti::new(Fixed(slot), BufferRing::GROUP).build(), tag);
    }

    /// Queues a multishot poll of `slot`: a completion whenever bytes, an end or a failure come.
    pub fn poll_multishot(&mut self, slot: u32, tag: Tag) {
        let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
        self.push(opcode::PollAdd::new(Fixed(slot), events).multi(true).build(), tag);
    }

    /// Queues a receive of what is there when it is submitted: it never waits, and completes with
    /// -EAGAIN if nothing is there.
    pub fn receive_once(&mut self, slot: u32, tag: Tag) {
        let entry = opcode::Recv::new(Fixed(slot), std::ptr::null_mut(), 0)
            .buf_group(BufferRing::GROUP)
            .flags(libc::MSG_DONTWAIT)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(entry, tag);
    }

    /// Queues a send on `slot`: one at a time for each `tag.index`. The completion brings
    /// `outgoing` back, its cursor not moved, unless it was static.
    ///
    /// # Panics
    /// If a send of the same index is in flight: the kernel would lose the bytes it reads.
    pub fn send(&mut self, slot: u32, outgoing: Outgoing, tag: Tag) {
        debug_assert_eq!(tag.op, Op::Send);
        if let Outgoing::Static(bytes) = outgoing {
            // So short that the kernel may as well see to it that all of it goes.
            self.push(send_entry(slot, bytes, libc::MSG_WAITALL), tag);
            return;
        }
        let entry = send_entry(slot, outgoing.as_bytes(), 0);
        match self.in_flight.entry(tag.index) {
            Entry::Vacant(place) => place.insert(outgoing),
            Entry::Occupied(_) => panic!("one send at a time for {tag:?}"),
        };
        self.push(entry, tag.with_op(Op::SendOwned));
    }

    /// Queues the cancellation of the send that was tagged `target`.
    pub fn cancel_send(&mut self, target: Tag, tag: Tag) {
        let owned = self.in_flight.contains_key(&target.index);
        self.cancel(if owned { target.with_op(Op::SendOwned) } else { target }, tag);
    }

    /// Queues the close of `slot`, which is free for reuse when that has completed. No operation
    /// may be in flight on it.
    pub fn close(&mut self, slot: u32, tag: Tag) {
        self.push(opcode::Close::new(Fixed(slot)).build(), tag);
    }

    /// Queues the cancellation of the operation that was tagged `target`.
    pub fn cancel(&mut self, target: Tag, tag: Tag) {
        let by = CancelBuilder::user_data(target.to_bits());
        self.push(opcode::AsyncCancel2::new(by).build(), tag);
    }

    /// Queues a read of an eventfd that other threads and rings signal to wake this one. One at a
    /// time.
    pub fn read_wake(&mut self, eventfd: BorrowedFd<'_>, tag: Tag) {
        let count: *mut u64 = &mut *self.wake_count;
        let entry = opcode::Read::new(Fd(eventfd.as_raw_fd()), count.cast(), 8).build();
        self.push(entry, tag);
    }

    /// Whether something is queued that the kernel has not seen.
    pub fn has_submissions(&mut self) -> bool {
        !self.backlog.is_empty() || !self.io.submission().is_empty()
    }

    /// Whether the kernel has something for us that only an `enter` brings into the queue.
    pub fn has_deferred(&mut self) -> bool {
        let queue = self.io.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Whether completions are in the queue.
    pub fn has_completions(&mut self) -> bool {
        !self.io.completion().is_empty()
    }

    /// Submits what is queued and lets the kernel post completions; sleeps as `wait` says. Released
    /// buffers become the kernel's.
    ///
    /// # Errors
    /// If the ring as a whole has failed. Time-outs and signals are not errors.
    pub fn enter(&mut self, wait: Wait) -> Result<(), RingError> {
        self.publish_buffers();
        self.refill();
        if self.io.submission().cq_overflow() {
            self.counters.completion_overflows += 1;
        }
        self.counters.enters += 1;
        let outcome = match wait {
            Wait::No => self.io.submit(),
            Wait::For { .. } if !self.backlog.is_empty() => self.io.submit(),
            Wait::For { completions, min, max } => self.wait(completions, min, max),
        };
        self.after_submit(outcome)
    }

    fn wait(&mut self, completions: u32, min: Duration, max: Duration) -> io::Result<usize> {
        let limit = Timespec::new().sec(max.as_secs()).nsec(max.subsec_nanos());
        let mut arguments = SubmitArgs::new().timespec(&limit);
        let mut want = completions.max(1);
        if self.has_min_wait && min < max && !min.is_zero() {
            arguments = arguments.min_wait_usec(min.as_micros() as u32);
        } else {
            want = 1;
        }
        self.io.submitter().submit_with_args(want as usize, &arguments)
    }

    /// Moves up to `limit` completions into `batch`; whether there may be more.
    pub fn collect(&mut self, batch: &mut Vec<Completion>, limit: usize) -> bool {
        let Ring { io, buffers, in_flight, counters, .. } = self;
        let mut queue = io.completion();
        for entry in queue.by_ref().take(limit) {
            counters.completions += 1;
            let more = cqueue::more(entry.flags());
            let Some(tag) = Tag::from_bits(entry.user_data()) else {
                counters.unknown_completions += 1;
                continue;
            };
            counters.terminal_completions += u64::from(!more);
            let buffer = match (cqueue::buffer_select(entry.flags()), &mut *buffers) {
                (Some(id), Some(ring)) => Some(ring.hold(id, entry.result().max(0) as u32)),
                _ => None,
            };
            let (tag, outgoing) = match tag.op {
                Op::SendOwned => (tag.with_op(Op::Send), in_flight.remove(&tag.index)),
                _ => (tag, None),
            };
            batch.push(Completion { tag, result: entry.result(), more, buffer, outgoing });
        }
        if in_flight.is_empty() && in_flight.capacity() > SENDS_IN_FLIGHT_KEPT {
            *in_flight = HashMap::new();
        }
        !queue.is_empty()
    }

    /// The bytes in a buffer that a completion brought.
    pub fn bytes(&self, buffer: &Buffer) -> &[u8] {
        self.buffers.as_ref().map_or(&[], |ring| ring.bytes(buffer))
    }

    /// Gives a buffer back; the kernel sees it at the next `enter`.
    pub fn release(&mut self, buffer: Buffer) {
        if let Some(ring) = &mut self.buffers {
            ring.release(buffer);
        }
    }

    /// Queues one operation, submitting to make room where there is none.
    fn push(&mut self, entry: squeue::Entry, tag: Tag) {
        self.counters.submissions += 1;
        self.push_raw(entry.user_data(tag.to_bits()));
    }

    fn push_raw(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() {
            if self.io.submission().is_full() {
                self.publish_buffers();
                let outcome = self.io.submit();
                self.counters.enters += 1;
                // A failure here shows again, and is reported, at the next `enter`.
                let _ = self.after_submit(outcome);
            }
            // SAFETY: what the entry points to is static, or owned by `self` until the completion
            // (bytes in flight, the wake count, names of peers), or until the submission
            // (addresses).
            if unsafe { self.io.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    /// Lets the kernel have the buffers that were released.
    fn publish_buffers(&self) {
        if let Some(buffers) = &self.buffers {
            buffers.publish();
        }
    }

    /// Moves entries that found the queue full into it, in order.
    fn refill(&mut self) {
        let mut queue = self.io.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: as in `push_raw`.
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
    }

    fn after_submit(&mut self, outcome: io::Result<usize>) -> Result<(), RingError> {
        if self.backlog.is_empty() && self.io.submission().is_empty() {
            self.addresses.clear();
        }
        match outcome {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // A time-out, a signal, a kernel short of memory or of room in the completion
                // queue: what was not taken is still queued.
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(RingError::Call { what: "io_uring_enter", source: error }),
            },
        }
    }
}

impl Drop for Ring {
    /// Ends what is in flight before the memory goes that the kernel was told of. Closing the
    /// instance alone would not do: the kernel ends its requests some time after that.
    fn drop(&mut self) {
        let limit = Timespec::new().sec(1);
        let cancelled = self.io.submitter().register_sync_cancel(Some(limit), CancelBuilder::any());
        let idle = match cancelled {
            Ok(()) => true,
            Err(error) => error.raw_os_error() == Some(libc::ENOENT),
        };
        if !idle {
            // Better lost than written to by a late request.
            std::mem::forget(self.buffers.take());
            std::mem::forget(std::mem::take(&mut self.in_flight));
            std::mem::forget(std::mem::take(&mut self.peer_names));
            std::mem::forget(std::mem::take(&mut self.wake_count));
        }
    }
}

/// MSG_NOSIGNAL spares us SIGPIPE. With MSG_WAITALL the kernel itself goes on after a short send;
/// without it a peer that takes a little at a time is seen to take something.
fn send_entry(slot: u32, bytes: &[u8], flags: i32) -> squeue::Entry {
    opcode::Send::new(Fixed(slot), bytes.as_ptr(), bytes.len() as u32)
        .flags(libc::MSG_NOSIGNAL | flags)
        .build()
}
