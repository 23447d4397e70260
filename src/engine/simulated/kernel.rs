//! The simulated kernel: a group of rings over connections that exist only here, in virtual time.
//!
//! Like the real one it posts completions only when it is entered, says so beforehand by the flag
//! of deferred work, ends multishot requests when it likes, and lets its buffers run out. It notes
//! each breach of the engine's duties.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use super::Faults;
use super::oracle::Account;
use super::peers::{Event, Peer};
use super::random::Random;
use super::ring::Loan;
use crate::engine::Tuning;
use crate::outgoing::Outgoing;
use crate::ring::{Completion, Op, RingCounters, Tag, Wait};
use crate::shard::{CloseReason, Policy};
use crate::time::Timestamp;

/// The tag index of the close of a connection that never became a session.
const NOBODY: u32 = u32::MAX;

/// What the engine asks for.
pub(super) enum Request {
    Accept { tag: Tag },
    Arm { slot: u32, tag: Tag },
    ReceiveOnce { slot: u32, tag: Tag },
    Send { slot: u32, outgoing: Outgoing, tag: Tag },
    Cancel { target: Tag, tag: Tag },
    Close { slot: u32, tag: Tag },
    Wake { tag: Tag },
}

/// A send that the kernel has not finished.
pub(super) struct Sending {
    pub(super) tag: Tag,
    pub(super) outgoing: Outgoing,
    pub(super) sent: usize,
    pub(super) since: Timestamp,
    /// When a sweep had surely seen it first.
    pub(super) seen_at: Option<Timestamp>,
}

impl Sending {
    /// Whether it should have been given up as stalled before the turn that began at `turn`.
    /// Replies to heartbeats alone need not be: their senders are judged by their silence.
    fn is_overdue(&mut self, policy: &Policy, turn: Timestamp, now: Timestamp) -> bool {
        let tick = policy.tick;
        if matches!(self.outgoing, Outgoing::Static(_))
            || tick.current(turn) <= tick.current(self.since)
        {
            return false;
        }
        let seen_at = *self.seen_at.get_or_insert(now);
        tick.deadline(seen_at + policy.stall_timeout) <= tick.current(turn)
    }
}

/// A TCP connection, from its SYN on.
pub(super) struct Link {
    pub(super) peer: usize,
    pub(super) ring: usize,
    pub(super) slot: Option<u32>,
    /// Generation and index of its session.
    key: Option<(u32, u32)>,
    pub(super) inbox: VecDeque<u8>,
    pub(super) fin: bool,
    pub(super) rst: bool,
    /// Bytes that the peer's side still takes.
    pub(super) room: usize,
    /// For this moment it takes none.
    pub(super) choked: bool,
    pub(super) armed: Option<Tag>,
    /// Something has changed that the ring has not looked at.
    pub(super) dirty: bool,
    pub(super) sending: Option<Sending>,
    /// Receives that are queued or completed and not collected.
    pub(super) reading: u32,
    /// Sends that are queued or completed and not collected.
    pub(super) writing: u32,
    pub(super) closed: bool,
    pub(super) account: Account,
}

/// One ring.
#[derive(Default)]
pub(super) struct RingState {
    pub(super) queued: VecDeque<Request>,
    pub(super) ready: VecDeque<(usize, Completion<Loan>)>,
    pub(super) counters: RingCounters,
    pub(super) held: u32,
    pub(super) lent: u32,
    pub(super) slots: Vec<Option<usize>>,
    pub(super) accept: Option<Tag>,
    pub(super) backlog: VecDeque<usize>,
    pub(super) dirty: Vec<usize>,
    pub(super) wake: Option<Tag>,
    flag_stuck: bool,
    alive: BTreeSet<u64>,
}

/// No connection.
pub(super) const NONE: usize = usize::MAX;

/// The kernel, and the world behind it.
pub(super) struct Kernel {
    pub(super) random: Random,
    clock: &'static AtomicU64,
    pub(super) tuning: Tuning,
    pub(super) policy: Policy,
    pub(super) rings: Vec<RingState>,
    pub(super) links: Vec<Link>,
    pub(super) peers: Vec<Peer>,
    pub(super) events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    pub(super) sequence: u64,
    pub(super) bell: bool,
    pub(super) stopping: bool,
    /// Faults are injected.
    pub(super) stormy: bool,
    pub(super) partitioned: bool,
    /// When the present turn began: the first enter of it has come back then.
    turn: Option<Timestamp>,
    last_turn: Timestamp,
    pub(super) trace: u64,
    pub(super) faults: Faults,
    pub(super) violations: Vec<String>,
    /// For each reason: how often it was the only one allowed, and how often one among others.
    pub(super) reasons: Vec<(u64, u64)>,
}

impl Kernel {
    /// The server is going to be told to stop.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        for link in &mut self.links {
            link.account.parting = true;
        }
    }

    pub(super) fn new(
        random: Random,
        clock: &'static AtomicU64,
        rings: usize,
        tuning: Tuning,
        policy: Policy,
    ) -> Kernel {
        let ring =
            || RingState { slots: vec![None; tuning.slots as usize], ..RingState::default() };
        Kernel {
            random,
            clock,
            tuning,
            policy,
            rings: (0..rings).map(|_| ring()).collect(),
            links: Vec::new(),
            peers: Vec::new(),
            events: BinaryHeap::new(),
            sequence: 0,
            bell: false,
            stopping: false,
            stormy: true,
            partitioned: false,
            turn: None,
            last_turn: Timestamp::ZERO,
            trace: 0,
            faults: Faults::default(),
            violations: Vec::new(),
            reasons: vec![(0, 0); CloseReason::COUNT],
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.clock.load(Ordering::Relaxed))
    }

    pub(super) fn violated(&mut self, what: impl AsRef<str>) {
        let at = self.now().as_micros();
        self.violations.push(format!("{at} us: {}", what.as_ref()));
    }

    pub(super) fn chance(&mut self, per_mille: u64) -> bool {
        self.stormy && self.random.per_mille(per_mille)
    }

    /// A new connection, which waits to be accepted.
    pub(super) fn connect(&mut self, peer: usize, room: usize) -> usize {
        let ring = self.random.below(self.rings.len() as u64) as usize;
        let link = self.links.len();
        self.links.push(Link {
            peer,
            ring,
            slot: None,
            key: None,
            inbox: VecDeque::new(),
            fin: false,
            rst: false,
            room,
            choked: false,
            armed: None,
            dirty: false,
            sending: None,
            reading: 0,
            writing: 0,
            closed: false,
            account: Account::default(),
        });
        self.rings[ring].backlog.push_back(link);
        self.bell |= ring != 0;
        link
    }

    /// Something has happened to a connection that its ring will want to know.
    pub(super) fn touch(&mut self, link: usize) {
        let Link { ring, dirty, slot, .. } = &mut self.links[link];
        if slot.is_some() && !*dirty {
            *dirty = true;
            self.bell |= *ring != 0;
            self.rings[*ring].dirty.push(link);
        }
    }

    pub(super) fn ring_bell(&mut self) {
        self.bell = true;
    }

    pub(super) fn begin_turn(&mut self) {
        self.last_turn = self.turn.take().unwrap_or(self.last_turn);
    }

    pub(super) fn push(&mut self, ring: usize, request: Request) {
        let now = self.now();
        self.rings[ring].counters.submissions += 1;
        let (tag, slot) = match &request {
            Request::Accept { tag } | Request::Wake { tag } => (*tag, None),
            Request::Arm { slot, tag }
            | Request::ReceiveOnce { slot, tag }
            | Request::Send { slot, tag, .. }
            | Request::Close { slot, tag } => (*tag, Some(*slot)),
            Request::Cancel { target, tag } => {
                if let Some(link) = self.session(ring, *target) {
                    self.give_up(link, now);
                }
                (*tag, None)
            }
        };
        let anonymous = tag.op == Op::Cancel || tag.index == NOBODY;
        if !anonymous && !self.rings[ring].alive.insert(tag.to_bits()) {
            self.violated(format!("{tag:?} is alive already"));
        }
        match slot.map(|slot| self.rings[ring].slots.get(slot as usize).copied().flatten()) {
            Some(None) => self.violated(format!("{tag:?} on a slot that is not open")),
            Some(Some(link)) if tag.op == Op::Close => {
                if tag.index == NOBODY {
                    self.links[link].account.given_up = true;
                } else {
                    self.give_up(link, now);
                }
            }
            Some(Some(link)) if matches!(tag.op, Op::Receive | Op::Poll) => {
                self.links[link].key = Some((tag.generation, tag.index));
            }
            Some(Some(link)) if tag.op == Op::ReceiveOnce => self.links[link].reading += 1,
            Some(Some(link)) if tag.op == Op::Send => {
                self.links[link].writing += 1;
                if self.links[link].writing > 1 {
                    self.violated(format!("{tag:?}: two sends in flight"));
                }
            }
            _ => {}
        }
        self.rings[ring].queued.push_back(request);
    }

    /// The connection of the session that a tag speaks of.
    fn session(&self, ring: usize, tag: Tag) -> Option<usize> {
        let key = Some((tag.generation, tag.index)).filter(|_| tag.op != Op::Accept);
        let links = self.rings[ring].slots.iter().flatten().copied();
        links.into_iter().find(|&link| key.is_some() && self.links[link].key == key)
    }

    /// The connection on which an operation is in flight.
    pub(super) fn owner(&self, ring: usize, target: Tag) -> Option<usize> {
        self.rings[ring].slots.iter().flatten().copied().find(|&link| {
            let link = &self.links[link];
            link.armed == Some(target)
                || link.sending.as_ref().is_some_and(|sending| sending.tag == target)
        })
    }

    /// The engine has decided to close: was it right?
    fn give_up(&mut self, link: usize, now: Timestamp) {
        let Link { account, sending, .. } = &mut self.links[link];
        if account.given_up || account.opened_at.is_none() {
            return;
        }
        account.given_up = true;
        let since = sending.as_ref().map(|sending| sending.since);
        let allowed = account.may_close(&self.policy, since, self.stopping, now);
        if allowed.is_empty() {
            let text =
                format!("connection {link} closed for no reason, sending {since:?}: {account:?}");
            self.violated(text);
        }
        for reason in &allowed {
            let (only, among) = &mut self.reasons[*reason as usize];
            *only += u64::from(allowed.len() == 1);
            *among += 1;
        }
    }

    /// Notes each reason that was counted more or less often than it may have been.
    pub(super) fn explain(&mut self, closed: &[u64; CloseReason::COUNT]) {
        for (reason, count) in CloseReason::ALL.iter().zip(closed) {
            let (only, among) = self.reasons[*reason as usize];
            if *count < only || *count > among {
                self.violated(format!("{reason:?}: {count}, not {only} to {among}"));
            }
        }
    }

    pub(super) fn has_deferred(&self, ring: usize) -> bool {
        let state = &self.rings[ring];
        let accepts = state.accept.is_some() && !state.backlog.is_empty();
        let wakes = ring == 0 && self.bell && state.wake.is_some();
        state.flag_stuck || accepts || wakes || !state.dirty.is_empty()
    }

    pub(super) fn enter(&mut self, ring: usize, wait: Wait) {
        self.rings[ring].counters.enters += 1;
        self.rings[ring].lent = self.rings[ring].held;
        while let Some(request) = self.rings[ring].queued.pop_front() {
            self.execute(ring, request);
        }
        if let Wait::For { .. } = wait {
            self.judge_the_idle();
        }
        let mut passes_us = self.random.between(1, 20);
        if self.chance(2) {
            self.faults.stalls += 1;
            passes_us += self.random.between(1_000, 9_000_000);
        }
        self.pass_until(self.now() + std::time::Duration::from_micros(passes_us));
        self.run_deferred(ring);
        if let Wait::For { max, .. } = wait {
            self.sleep(ring, self.now() + max);
        }
        self.rings[ring].flag_stuck = self.chance(20);
        self.turn.get_or_insert(Timestamp::from_nanos(self.clock.load(Ordering::Relaxed)));
    }

    fn judge_the_idle(&mut self) {
        let (turn, now) = (self.last_turn, self.now());
        for number in 0..self.links.len() {
            let Link { account, sending, writing, closed, reading, dirty, ring, .. } =
                &mut self.links[number];
            if *closed || account.given_up {
                continue;
            }
            let announced = *dirty
                || *reading > 0
                || self.rings[*ring].ready.iter().any(|(link, _)| *link == number);
            let what = account.left_undone(&self.policy, *writing > 0, announced, turn);
            let stalled =
                sending.as_mut().is_some_and(|sending| sending.is_overdue(&self.policy, turn, now));
            if let Some(what) = what.or(stalled.then_some("stalled and not closed")) {
                let text = format!("connection {number}: {what} (turn {turn:?}): {account:?}");
                account.given_up = true;
                self.violated(text);
            }
        }
    }

    fn sleep(&mut self, ring: usize, until: Timestamp) {
        while self.rings[ring].ready.is_empty() {
            match self.events.peek() {
                Some(Reverse((at, _, _))) if *at <= until.as_nanos() => {
                    let at = Timestamp::from_nanos(*at);
                    self.pass_until(at);
                    self.run_deferred(ring);
                }
                _ => {
                    self.pass_until(until);
                    self.run_deferred(ring);
                    return;
                }
            }
        }
    }

    /// Lets time pass, and happen what happens meanwhile.
    fn pass_until(&mut self, until: Timestamp) {
        while let Some(Reverse((at, _, _))) = self.events.peek() {
            if *at > until.as_nanos() {
                break;
            }
            let Some(Reverse((at, _, event))) = self.events.pop() else { break };
            self.clock.store(at.max(self.now().as_nanos()), Ordering::Relaxed);
            self.happen(event);
        }
        self.clock.store(until.as_nanos().max(self.now().as_nanos()), Ordering::Relaxed);
    }

    pub(super) fn post(&mut self, ring: usize, link: usize, tag: Tag, result: i32, more: bool) {
        let completion = Completion { tag, result, more, buffer: None, outgoing: None };
        self.rings[ring].ready.push_back((link, completion));
    }

    pub(super) fn release(&mut self, ring: usize) {
        self.rings[ring].held -= 1;
    }

    pub(super) fn collect(
        &mut self,
        ring: usize,
        batch: &mut Vec<Completion<Loan>>,
        limit: usize,
    ) -> bool {
        for _ in 0..limit {
            let Some((link, completion)) = self.rings[ring].ready.pop_front() else { return false };
            let now = self.now();
            let Completion { tag, result, more, .. } = completion;
            for value in [tag.to_bits(), result as u64, u64::from(more), now.as_nanos()] {
                self.trace = (self.trace ^ value).wrapping_mul(0x0000_0100_0000_01b3);
            }
            let counters = &mut self.rings[ring].counters;
            counters.completions += 1;
            counters.terminal_completions += u64::from(!more);
            if !more {
                self.rings[ring].alive.remove(&tag.to_bits());
            }
            if link != NONE {
                self.told(link, &completion, now);
            }
            batch.push(completion);
        }
        !self.rings[ring].ready.is_empty()
    }

    /// The engine hears of a connection.
    fn told(&mut self, link: usize, completion: &Completion<Loan>, now: Timestamp) {
        let Link { account, reading, writing, .. } = &mut self.links[link];
        match completion.tag.op {
            Op::Accept if completion.result >= 0 => account.opened_at = Some(now),
            Op::Receive | Op::ReceiveOnce => {
                *reading -= u32::from(completion.tag.op == Op::ReceiveOnce);
                match (&completion.buffer, completion.result) {
                    (Some(Loan(bytes)), _) => account.read(bytes, &self.policy, now),
                    (None, 0) => account.ended_at = account.ended_at.or(Some(now)),
                    (None, error) => account.failed |= error == -libc::ECONNRESET,
                }
            }
            Op::Send => {
                *writing -= 1;
                account.heard_sent(completion.result);
            }
            _ => {}
        }
    }
}
