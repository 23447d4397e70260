//! One ring of a group, with its listeners and the account of its slots.
//!
//! A ring's table can hold RLIMIT_NOFILE descriptors, so a shard that is to hold more has several
//! rings. Each has SO_REUSEPORT listeners of its own: several rings on one listener would leave
//! all connections to the first.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use socket2::SockRef;

use crate::engine::{EngineCounters, Tuning};
use crate::limits::{
    ACCEPT_PAUSE, ACCEPTS_PER_TURN, QUIET_ENTERS_MAX, SLOT_HEADROOM_DIVISOR, SUBMISSION_ENTRIES,
};
use crate::mutants::{Mutant, is};
use crate::protocol::Protocol;
use crate::ring::{BufferAccount, Op, Ring, RingConfig, RingError, RingFace, RingRole, Tag};
use crate::session::SessionKey;
use crate::socket::Listener;
use crate::time::Timestamp;

/// The tag index of the close of a connection that never became a session.
pub(super) const NOBODY: u32 = u32::MAX;

/// A ring of the group.
pub(super) struct Member<R = Ring> {
    pub(super) ring: R,
    listeners: Vec<Accepting>,
    /// `Tuning::accepts_per_turn`.
    accepts: u32,
    slots: u32,
    slots_used: u32,
    /// Receives that found no buffer; armed again when the buffers are back.
    pub(super) starved: VecDeque<SessionKey>,
    /// Connections of which there is more to read, in the next turn: they send faster than they
    /// are read, and must not keep time from passing for the others.
    pub(super) put_off: Vec<SessionKey>,
    /// So much was read in this turn that whoever has more is put off.
    pub(super) tired: bool,
    /// Everything that had arrived on this ring before has been handled.
    pub(super) heard_until: Timestamp,
    resume_at: Option<Timestamp>,
    accepting: bool,
    /// Operations that have not had their last completion: counted where the state of a connection
    /// or a listener changes, not where the ring counts.
    in_flight: u64,
    /// Where the buffers were when it could be told last.
    buffers: BufferAccount,
    /// Receives of what is there now are queued: they are not to wait for the next sleep.
    pub(super) hasty: bool,
    /// So many enters in a row have brought nothing.
    pub(super) quiet: u32,
}

struct Accepting {
    protocol: Protocol,
    /// Until accepting has ended for good: whoever comes then is refused by the kernel.
    socket: Option<OwnedFd>,
    ipv6: bool,
    /// A bit for each accept that is armed: its number is the generation of its tag.
    armed: AcceptsArmed,
}

/// One bit for each of `Tuning::accepts_per_turn`.
type AcceptsArmed = u64;
const _: () = assert!(ACCEPTS_PER_TURN <= AcceptsArmed::BITS);

impl Accepting {
    fn new(Listener { protocol, socket }: Listener) -> Accepting {
        let address = SockRef::from(&socket).local_addr();
        let ipv6 = address.is_ok_and(|address| address.is_ipv6());
        Accepting { protocol, socket: Some(socket), ipv6, armed: 0 }
    }
}

/// A ring of the kernel's, as `tuning` has it.
///
/// # Errors
/// If the kernel refuses, with the cure.
pub(super) fn server_ring(role: RingRole, tuning: &Tuning) -> Result<Ring, RingError> {
    Ring::new(&RingConfig {
        role,
        slots: tuning.slots,
        submission_entries: SUBMISSION_ENTRIES.min(tuning.completion_entries / 2),
        completion_entries: tuning.completion_entries,
        buffers: tuning.buffers,
        buffer_bytes: tuning.buffer_bytes,
    })
}

impl<R: RingFace> Member<R> {
    pub(super) fn new(ring: R, listeners: Vec<Listener>, tuning: &Tuning) -> Member<R> {
        let listeners = listeners.into_iter().map(Accepting::new).collect();
        Member {
            ring,
            listeners,
            accepts: tuning.accepts_per_turn.clamp(1, ACCEPTS_PER_TURN),
            slots: tuning.slots,
            slots_used: 0,
            starved: VecDeque::new(),
            put_off: Vec::new(),
            tired: false,
            heard_until: Timestamp::ZERO,
            resume_at: None,
            accepting: true,
            in_flight: 0,
            buffers: BufferAccount::default(),
            hasty: false,
            quiet: 0,
        }
    }

    /// Has the kernel tell from where the connection in `slot` comes that `listener` has accepted.
    pub(super) fn ask_peer_name(&mut self, slot: u32, listener: u32) {
        let ipv6 = self.listeners.get(listener as usize).is_some_and(|accepting| accepting.ipv6);
        self.ring.peer_name(slot, ipv6, Tag::new(Op::PeerName, listener, slot));
        self.begun();
        self.hasty = true;
    }

    /// Whether the kernel has put something off until an enter. If the last one brought nothing, it
    /// has mostly only forgotten to take that back (it raises the flag while it runs what is
    /// deferred, and runs that too), and what comes after this rings the bell. But one enter runs
    /// no more than so much, and that may all have come to nothing: before a sweep it is asked
    /// again.
    pub(super) fn has_deferred(&mut self, sweep_due: bool) -> bool {
        let enough = if sweep_due { QUIET_ENTERS_MAX } else { 1 };
        self.quiet < enough && self.ring.has_deferred()
    }

    /// An operation was queued.
    pub(super) fn begun(&mut self) {
        self.in_flight += 1;
    }

    /// An operation has had its last completion.
    pub(super) fn ended(&mut self) {
        self.in_flight = self.in_flight.wrapping_sub(1);
    }

    /// Operations that have not had their last completion.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Where the buffers are, or were when it could be told last.
    pub(super) fn count_buffers(&mut self) -> BufferAccount {
        match self.ring.buffer_account() {
            Some(account) => self.buffers = account,
            None if self.buffers.total == 0 => self.buffers.held = self.ring.buffers_held(),
            None => {}
        }
        self.buffers
    }

    /// Queues a cancellation.
    pub(super) fn cancel(&mut self, target: Tag, tag: Tag) {
        self.ring.cancel(target, tag);
        if !is(Mutant::CancelNotNoted) {
            self.begun();
        }
    }

    /// Queues the cancellation of a send.
    pub(super) fn cancel_send(&mut self, target: Tag, tag: Tag) {
        self.ring.cancel_send(target, tag);
        self.begun();
    }

    /// Queues the close of a slot.
    pub(super) fn close(&mut self, slot: u32, tag: Tag) {
        self.ring.close(slot, tag);
        self.begun();
    }

    /// Arms all accepts that should be armed and are not.
    ///
    /// Each is of one connection: a multishot accept goes on within one call of the kernel's until
    /// nobody waits or the completion queue is full, and a storm of connects would make a turn last
    /// as long as all rings' queues are.
    pub(super) fn arm_listeners(&mut self) {
        if !self.accepting || self.resume_at.is_some() {
            return;
        }
        for (index, accepting) in self.listeners.iter_mut().enumerate() {
            let Some(socket) = &accepting.socket else { continue };
            for number in (0..self.accepts).filter(|number| accepting.armed >> number & 1 == 0) {
                let tag = Tag::new(Op::Accept, number, index as u32);
                self.ring.accept(socket.as_fd(), tag);
                self.in_flight += 1;
            }
            accepting.armed = AcceptsArmed::MAX >> (AcceptsArmed::BITS - self.accepts);
        }
    }

    /// What is spoken on a listener.
    pub(super) fn protocol(&self, listener: u32) -> Protocol {
        self.listeners[listener as usize].protocol
    }

    /// A slot was taken. A full table would make the kernel accept clients only to drop them, so
    /// accepting stops a little before.
    pub(super) fn slot_taken(&mut self, now: Timestamp, counters: &mut EngineCounters) {
        self.slots_used += 1;
        if self.is_nearly_full() {
            self.pause_accepting(now, counters);
        }
    }

    /// A slot is free again.
    pub(super) fn slot_freed(&mut self) {
        self.slots_used -= 1;
        self.ended();
    }

    /// An accept has ended.
    pub(super) fn accept_ended(&mut self, tag: Tag) {
        if let Some(listener) = self.listeners.get_mut(tag.index as usize) {
            let before = listener.armed;
            listener.armed &= !(1 << tag.generation);
            self.in_flight = self.in_flight.wrapping_sub(u64::from(before != listener.armed));
            if !self.accepting && listener.armed == 0 {
                listener.socket = None;
            }
        }
    }

    /// Stops accepting for a while.
    pub(super) fn pause_accepting(&mut self, now: Timestamp, counters: &mut EngineCounters) {
        if is(Mutant::FullTableNotPaused) {
            return;
        }
        if self.resume_at.is_none() {
            counters.accepts_paused += 1;
            self.cancel_accepts();
        }
        self.resume_at = Some(now + ACCEPT_PAUSE);
    }

    fn is_nearly_full(&self) -> bool {
        self.slots_used + self.slots / SLOT_HEADROOM_DIVISOR + 1 >= self.slots
    }

    /// Goes on accepting if the pause is over and there are free slots.
    pub(super) fn resume_accepting(&mut self, now: Timestamp) {
        if self.resume_at.is_none_or(|at| at > now) {
            return;
        }
        if !self.is_nearly_full() {
            self.resume_at = None;
            self.arm_listeners();
        }
    }

    /// Accepts nobody any more.
    pub(super) fn stop_accepting(&mut self) {
        if self.accepting {
            self.accepting = false;
            self.cancel_accepts();
            for listener in self.listeners.iter_mut().filter(|listener| listener.armed == 0) {
                listener.socket = None;
            }
        }
    }

    /// Whether any accept is still armed.
    pub(super) fn is_accepting(&self) -> bool {
        self.listeners.iter().any(|listener| listener.armed != 0)
    }

    /// Whether every slot is free.
    pub(super) fn is_empty(&self) -> bool {
        self.slots_used == 0
    }

    fn cancel_accepts(&mut self) {
        for index in 0..self.listeners.len() {
            let armed = self.listeners[index].armed;
            for number in (0..self.accepts).filter(|number| armed >> number & 1 == 1) {
                let tag = Tag::new(Op::Accept, number, index as u32);
                self.cancel(tag, tag.with_op(Op::Cancel));
            }
        }
    }
}
