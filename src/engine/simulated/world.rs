//! The simulated kernel at work: time, what arrives, and what entering a ring does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use super::farewell::Draining;
use super::fate::Order;
use super::gate::Gate;
use super::held_up::HeldUp;
use super::kernel::{Cqe, RingState, Source, Sqe, Whereabouts};
use super::oracle::Tally;
use super::peer::Peer;
use super::pushes::Pushes;
use super::random::Random;
use super::time::VirtualTime;
use super::{Rates, Rules, Sizes};
use crate::ring::{Op, Tag, Wait};
use crate::session::SessionKey;
use crate::time::{Tick, Timestamp};

/// The ring that sleeps for all.
pub(super) const MAIN: usize = 0;

/// How long entering a ring may take when the machine has other things to do.
const SLOW_US_MAX: u64 = 50_000;

/// What happens at a time of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// A client does the next thing that it does.
    Act(usize),
    /// A connection reaches the listener.
    Connect(usize),
    /// So many more bytes reach the server.
    Bytes(usize, usize),
    /// The client has closed its sending side.
    Fin(usize),
    /// The client has reset the connection.
    Reset(usize),
    /// The client takes what has reached it.
    Drain(usize),
    /// The client learns that the server has closed.
    Gone(usize),
    /// A completion that took its time.
    Late(usize, u64),
    /// Something befalls many at once.
    Fate,
}

pub(super) struct World {
    pub(super) time: VirtualTime,
    pub(super) random: Random,
    pub(super) sizes: Sizes,
    pub(super) rates: Rates,
    pub(super) rules: Rules,
    pub(super) rings: Vec<RingState>,
    pub(super) peers: Vec<Peer>,
    /// Those that have a connection, or are about to.
    pub(super) live: Vec<usize>,
    pub(super) tally: Tally,
    pub(super) gate: Gate,
    pub(super) pushes: Pushes,
    pub(super) draining: Option<Draining>,
    /// How often each fault was injected.
    pub(super) faults: BTreeMap<&'static str, u64>,
    /// How often each part of what is tested was reached.
    pub(super) exercised: BTreeMap<&'static str, u64>,
    pub(super) violation: Option<String>,
    /// A hash over everything that the engine saw and did.
    pub(super) trace: u64,
    /// When the engine woke in this turn.
    pub(super) turn_now: Timestamp,
    pub(super) turn_begins: bool,
    /// Closes that were queued in this turn.
    pub(super) closes: Vec<(SessionKey, usize)>,
    /// What an administrator asks for before the next turn.
    pub(super) orders: Vec<Order>,
    /// All sessions have had an index below this.
    pub(super) indices_end: u32,
    pub(super) chaos: bool,
    pub(super) stopping: bool,
    pub(super) partition_until: Timestamp,
    /// Closes whose completion the engine gets after this turn.
    pub(super) closing_completions: Vec<(usize, Cqe)>,
    events: BinaryHeap<Reverse<(Timestamp, u64, Event)>>,
    sequence: u64,
    late: BTreeMap<u64, Cqe>,
    /// Operations in flight whose tags need not be their own: cancellations, and the closes of
    /// connections that never became sessions.
    pub(super) nameless: u64,
    bell: u64,
    wake: Option<Tag>,
    /// Bytes that have arrived and were not read, of all clients.
    pub(super) unread: usize,
    /// The tick of which it was judged last whether all who are due were given up.
    pub(super) judged_tick: Option<Tick>,
    /// Somebody is to be looked at again in the next turn.
    pub(super) has_suspects: bool,
    pub(super) pause_again: bool,
    pub(super) held_up: HeldUp,
    /// Memory for received bytes.
    spare: Vec<Vec<u8>>,
}

impl World {
    pub(super) fn new(seed: u64, sizes: Sizes, rates: Rates, rules: Rules) -> World {
        World {
            time: VirtualTime::new(),
            random: Random::new(seed ^ 0x5157_u64.rotate_left(40)),
            rings: (0..sizes.rings).map(|_| RingState::new(&sizes)).collect(),
            gate: Gate::new(sizes.bounds),
            sizes,
            rates,
            rules,
            peers: Vec::new(),
            live: Vec::new(),
            tally: Tally::default(),
            pushes: Pushes::default(),
            draining: None,
            faults: BTreeMap::new(),
            exercised: BTreeMap::new(),
            violation: None,
            trace: 0xcbf2_9ce4_8422_2325,
            turn_now: Timestamp::ZERO,
            turn_begins: true,
            closes: Vec::new(),
            orders: Vec::new(),
            indices_end: 0,
            chaos: true,
            stopping: false,
            partition_until: Timestamp::ZERO,
            closing_completions: Vec::new(),
            events: BinaryHeap::new(),
            sequence: 0,
            late: BTreeMap::new(),
            nameless: 0,
            bell: 0,
            wake: None,
            unread: 0,
            judged_tick: None,
            has_suspects: false,
            pause_again: false,
            held_up: HeldUp::default(),
            spare: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.time.now()
    }

    /// Notes the first thing that went wrong.
    pub(super) fn violate(&mut self, what: impl std::fmt::Display) {
        let at = self.now().as_millis();
        self.violation.get_or_insert_with(|| format!("{what}, at {at} ms"));
    }

    pub(super) fn fault(&mut self, name: &'static str) {
        *self.faults.entry(name).or_default() += 1;
    }

    pub(super) fn exercise(&mut self, name: &'static str) {
        *self.exercised.entry(name).or_default() += 1;
    }

    pub(super) fn spare_bytes(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    pub(super) fn give_back_bytes(&mut self, mut bytes: Vec<u8>) {
        bytes.clear();
        self.spare.push(bytes);
    }

    /// Whether a fault of this name happens now; counted if so.
    pub(super) fn strikes(&mut self, name: &'static str, per_mille: u32) -> bool {
        let strikes = self.chaos && self.random.chance(per_mille);
        if strikes {
            self.fault(name);
        }
        strikes
    }

    pub(super) fn note(&mut self, values: &[u64]) {
        for &value in values {
            self.trace = (self.trace ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17);
        }
    }

    pub(super) fn schedule(&mut self, at: Timestamp, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    pub(super) fn after(&mut self, delay: Duration, event: Event) {
        self.schedule(self.now() + delay, event);
    }

    /// Lets time pass up to `until`, and happen what happens in it.
    pub(super) fn pass_until(&mut self, until: Timestamp) {
        while self.events.peek().is_some_and(|Reverse((at, ..))| *at <= until) {
            let Some(Reverse((at, _, event))) = self.events.pop() else { break };
            self.time.advance_to(at);
            self.happen(event);
        }
        self.time.advance_to(until);
    }

    fn pass_micros(&mut self, max: u64) {
        let micros = self.random.within(0, max);
        let begun = self.now();
        self.pass_until(begun + Duration::from_micros(micros));
        self.note_work(begun);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Act(peer) => self.act(peer),
            Event::Connect(peer) => self.connect(peer),
            Event::Bytes(peer, count) => self.bytes_arrive(peer, count),
            Event::Fin(peer) => {
                self.has_suspects = true;
                self.peers[peer].fin = true;
                self.peers[peer].end_arrived = self.now();
                self.rouse(peer);
            }
            Event::Reset(peer) => {
                self.has_suspects = true;
                self.peers[peer].reset = true;
                self.peers[peer].end_arrived = self.now();
                self.rouse(peer);
                self.send_may_go_on(peer);
            }
            Event::Drain(peer) => self.drain(peer),
            Event::Gone(peer) => self.gone(peer),
            Event::Late(ring, place) => {
                if let Some(cqe) = self.late.remove(&place) {
                    self.post(ring, cqe);
                }
            }
            Event::Fate => self.fate(),
        }
    }

    fn connect(&mut self, peer: usize) {
        let ring = self.random.below(self.sizes.rings);
        let listener = self.peers[peer].listener();
        self.rings[ring].listeners[listener as usize].backlog.push_back(peer);
        if !self.rings[ring].listeners[listener as usize].armed.is_empty() {
            self.make_ready(ring, Source::Accept(listener));
        }
    }

    /// Something has come for a connection: whoever waits for it is told.
    pub(super) fn rouse(&mut self, peer: usize) {
        let Some((ring, slot)) = self.peers[peer].place else { return };
        let state = &self.rings[ring].slots[slot as usize];
        if state.poll.is_some() {
            self.make_ready(ring, Source::Poll(slot));
        } else if state.receive.is_some() {
            self.make_ready(ring, Source::Receive(slot));
        }
    }

    pub(super) fn send_may_go_on(&mut self, peer: usize) {
        let Some((ring, slot)) = self.peers[peer].place else { return };
        if self.rings[ring].slots[slot as usize].sending.is_some() {
            self.make_ready(ring, Source::Send(slot));
        }
    }

    pub(super) fn make_ready(&mut self, ring: usize, source: Source) {
        let state = &mut self.rings[ring];
        if state.ready.contains(&source) {
            return;
        }
        state.ready.push(source);
        if state.ready.len() == 1 && state.signals_bell {
            self.ring_bell();
        }
    }

    /// The eventfd is signalled.
    pub(super) fn ring_bell(&mut self) {
        self.bell += 1;
        if self.wake.is_some() {
            self.make_ready(MAIN, Source::Wake);
        }
    }

    pub(super) fn answer_wake(&mut self) {
        if self.bell > 0
            && let Some(tag) = self.wake.take()
        {
            self.bell = 0;
            self.post(MAIN, Cqe::last(tag, 8));
        }
    }

    pub(super) fn wait_for_bell(&mut self, tag: Tag) {
        self.wake = Some(tag);
        self.answer_wake();
    }

    /// Puts a completion where the engine finds it. A full queue overflows; nothing is lost.
    pub(super) fn post(&mut self, ring: usize, cqe: Cqe) {
        let state = &mut self.rings[ring];
        if state.has_room() {
            state.completions.push_back(cqe);
            if state.signals_bell {
                self.ring_bell();
            }
        } else {
            state.overflow.push_back(cqe);
            self.fault("completion queue overflowed");
        }
    }

    /// The last completion of an operation, at once or a while later.
    pub(super) fn post_sooner_or_later(&mut self, ring: usize, cqe: Cqe) {
        if !self.strikes("completion late", self.rates.late) {
            self.post(ring, cqe);
            return;
        }
        let delay = Duration::from_micros(self.random.within(1, self.rates.late_us_max));
        // Unique: every scheduled event has a number of its own.
        let place = self.sequence;
        self.late.insert(place, cqe);
        self.after(delay, Event::Late(ring, place));
    }

    /// Whether a multishot request goes on after the completion that is about to be posted.
    pub(super) fn goes_on(&mut self, ring: usize) -> bool {
        if !self.rings[ring].has_room() {
            self.fault("multishot ended by overflow");
            return false;
        }
        !self.strikes("multishot ended", self.rates.multishot_ends)
    }

    /// What `io_uring_enter` does.
    pub(super) fn enter(&mut self, ring: usize, wait: Wait) {
        self.rings[ring].counters.enters += 1;
        self.rings[ring].enters += 1;
        self.take_back_buffers(ring);
        let again = std::mem::take(&mut self.pause_again) && matches!(wait, Wait::No);
        let rate = if again { 1_000 } else { self.rates.paused_within };
        if self.strikes("the process was paused within a turn", rate) {
            self.pause();
        }
        let slow = self.strikes("slow turn", self.rates.slow);
        self.pass_micros(if slow { SLOW_US_MAX } else { 20 });
        self.flush_overflow(ring);
        self.submit_all(ring);
        match wait {
            Wait::No => {
                let count = self.rings[ring].ready.len();
                let some = count > 1 && self.strikes("work left deferred", self.rates.leave_work);
                self.run_ready(ring, if some { count / 2 } else { count });
            }
            Wait::For { completions, min, max } => self.wait(ring, completions, min, max),
        }
        self.rings[ring].stale_flag = self.strikes("stale flag", self.rates.stale_flag);
        if std::mem::take(&mut self.turn_begins) {
            self.turn_now = self.now();
        }
    }

    /// What the engine has given back can be filled again.
    fn take_back_buffers(&mut self, ring: usize) {
        let state = &mut self.rings[ring];
        if !std::mem::take(&mut state.has_released) {
            return;
        }
        for place in &mut state.buffers {
            if *place == Whereabouts::Released {
                *place = Whereabouts::Free;
            }
        }
    }

    fn wait(&mut self, ring: usize, completions: u32, min: Duration, max: Duration) {
        let (enough_at, end) = (self.now() + min, self.now() + max);
        self.run_ready(ring, usize::MAX);
        loop {
            let count = self.rings[ring].completions.len();
            let enough = count >= completions as usize || count > 0 && self.now() >= enough_at;
            if enough || self.now() >= end {
                break;
            }
            let mut next = if count > 0 { enough_at.min(end) } else { end };
            if let Some(Reverse((at, ..))) = self.events.peek() {
                next = next.min(*at);
            }
            self.pass_until(next.max(self.now()));
            self.run_ready(ring, usize::MAX);
            if self.strikes("interrupted by a signal", self.rates.interrupted) {
                break;
            }
        }
        if self.strikes("the process was paused", self.rates.paused) {
            self.pause();
            // A machine that stands still does so again before the turn has ended.
            self.pause_again = self.random.chance(800);
        }
    }

    fn pause(&mut self) {
        let pause = self.random.within(1, self.rates.pause_ms_max);
        let begun = self.now();
        self.pass_until(begun + Duration::from_millis(pause));
        self.note_pause(begun);
    }

    fn flush_overflow(&mut self, ring: usize) {
        let state = &mut self.rings[ring];
        state.counters.completion_overflows += u64::from(!state.overflow.is_empty());
        while state.completions.len() < state.completions_max {
            let Some(cqe) = state.overflow.pop_front() else { break };
            state.completions.push_back(cqe);
        }
    }

    /// Does deferred work, in any order but that what was left over comes first; work that comes up
    /// meanwhile is left for the next time.
    fn run_ready(&mut self, ring: usize, limit: usize) {
        let begun_with = self.rings[ring].ready.len();
        let limit = limit.min(begun_with);
        for _ in 0..limit {
            let state = &mut self.rings[ring];
            let (count, left_over) = (state.ready.len(), state.left_over);
            if count == 0 {
                break;
            }
            state.left_over = left_over.saturating_sub(1);
            let among = if left_over > 0 { left_over.min(count) } else { count };
            let picked = self.random.below(among);
            let source = self.rings[ring].ready.remove(picked);
            self.run_source(ring, source);
        }
        self.rings[ring].left_over = begun_with - limit;
    }

    pub(super) fn submit_all(&mut self, ring: usize) {
        while let Some(sqe) = self.rings[ring].submissions.pop_front() {
            self.submit(ring, sqe);
        }
    }

    pub(super) fn begin_collecting(&mut self) {
        self.pass_micros(3);
    }

    /// Takes the oldest completion out of the queue: from now on the engine knows.
    pub(super) fn collect_one(&mut self, ring: usize) -> Option<Cqe> {
        let cqe = self.rings[ring].completions.pop_front()?;
        let state = &mut self.rings[ring];
        state.counters.completions += 1;
        if !cqe.more {
            state.counters.terminal_completions += 1;
            if !state.alive.remove(&cqe.tag.to_bits()) {
                self.nameless -= 1;
            }
            if let Some(slot) = cqe.slot.filter(|_| cqe.tag.op != Op::Accept) {
                state.slots[slot as usize].in_flight -= 1;
            }
        }
        if let Some((id, _)) = &cqe.buffer {
            state.buffers[usize::from(*id)] = Whereabouts::Held;
            state.held += 1;
        }
        self.note(&[self.now().as_nanos(), cqe.tag.to_bits(), cqe.result as u64]);
        self.engine_learns(ring, &cqe);
        Some(cqe)
    }

    /// Queues an operation, after looking whether it may be asked for.
    pub(super) fn push(&mut self, ring: usize, sqe: Sqe) {
        self.judge(ring, &sqe);
        let state = &mut self.rings[ring];
        state.counters.submissions += 1;
        if state.submissions.len() >= state.submissions_max {
            self.submit_all(ring);
        }
        self.rings[ring].submissions.push_back(sqe);
    }
}
