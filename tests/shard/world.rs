//! A toy engine around one shard: it does at once what the shard wants, in virtual time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use heartwheel::outgoing::Outgoing;
use heartwheel::protocol::Protocol;
use heartwheel::protocol::address::PeerAddress;
use heartwheel::protocol::frame::Frame;
use heartwheel::protocol::http_upgrade::request;
use heartwheel::session::SessionKey;
use heartwheel::shard::{
    Admission, CloseReason, Counters, Effect, Handler, Policy, PushAccount, PushMessage,
    PushRefused, ReceiveEnd, Refusal, SendFailed, SessionView, Shard,
};
use heartwheel::sweep::{AnySweeper, Progress, Strategy};
use heartwheel::time::{Tick, Timestamp};

pub const PING: &[u8] = &[0, 1, 3];
pub const PONG: &[u8] = &[0, 1, 4];

pub fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub fn encode(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = vec![0; frame.encoded_bytes()];
    frame.encode(&mut bytes);
    bytes
}

pub struct World {
    shard: Shard<AnySweeper, ()>,
    pub now: Timestamp,
    sent: HashMap<SessionKey, Vec<u8>>,
    closed: HashMap<SessionKey, CloseReason>,
    /// Sends that the peer has not taken yet.
    in_flight: VecDeque<(SessionKey, Outgoing)>,
    /// How many bytes the next sends take; all of them once this is used up.
    sizes: VecDeque<usize>,
    /// Peers that read nothing.
    pub deaf: bool,
    counted: Vec<u64>,
    taken_bytes: u64,
}

impl World {
    pub fn new(policy: Policy) -> World {
        World::with_limit(policy, 1_000)
    }

    pub fn with_limit(policy: Policy, limit: usize) -> World {
        World::with_admission(policy, Admission::new(limit))
    }

    pub fn with_admission(policy: Policy, admission: Arc<Admission>) -> World {
        let sweeper = AnySweeper::new(Strategy::DEFAULT, 1_000, Tick(0));
        World {
            shard: Shard::new(3, policy, admission, sweeper, 1_000),
            now: Timestamp::from_nanos(1_234_567),
            sent: HashMap::new(),
            closed: HashMap::new(),
            in_flight: VecDeque::new(),
            sizes: VecDeque::new(),
            deaf: false,
            counted: vec![0; CloseReason::COUNT],
            taken_bytes: 0,
        }
    }

    pub fn try_connect(&mut self) -> Result<SessionKey, Refusal> {
        self.shard.opened((), Protocol::Tcp, self.now)
    }

    pub fn connect_from(&mut self, from: Option<PeerAddress>) -> Result<SessionKey, Refusal> {
        self.shard.opened_from((), Protocol::Tcp, from, self.now)
    }

    pub fn connect(&mut self) -> SessionKey {
        self.try_connect().expect("there is room")
    }

    /// A session of this protocol that has sent nothing yet.
    pub fn connect_mute(&mut self, protocol: Protocol) -> SessionKey {
        self.shard.opened((), protocol, self.now).expect("there is room")
    }

    /// A live session of this protocol, and how many bytes its greeting took.
    pub fn connect_by(&mut self, protocol: Protocol) -> (SessionKey, usize) {
        let key = self.shard.opened((), protocol, self.now).expect("there is room");
        match protocol {
            Protocol::Tcp => self.receive(key, PING),
            Protocol::WebSocket => self.receive(key, &request("x", "/", [7; 16])),
        }
        (key, self.sent_to(key).len())
    }

    /// A WebSocket session that has asked for this path.
    pub fn upgrade(&mut self, path: &str) -> SessionKey {
        let key = self.shard.opened((), Protocol::WebSocket, self.now).expect("there is room");
        self.receive(key, &request("x", path, [7; 16]));
        key
    }

    pub fn receive(&mut self, key: SessionKey, bytes: &[u8]) {
        self.shard.received(key, bytes, self.now);
        self.settle();
    }

    /// Bytes come, but sends make one step only.
    pub fn receive_later(&mut self, key: SessionKey, bytes: &[u8]) {
        self.shard.received(key, bytes, self.now);
        self.apply();
        self.complete_one();
    }

    /// More of it has arrived than was read, or all has been read.
    pub fn note_unread(&mut self, key: SessionKey, is_unread: bool) {
        self.shard.note_unread(key, is_unread);
    }

    pub fn peer_closes(&mut self, key: SessionKey) {
        self.shard.receive_ended(key, ReceiveEnd::Closed, self.now);
        self.apply();
    }

    pub fn send_fails(&mut self, key: SessionKey) {
        let place = self.in_flight.iter().position(|(owner, _)| *owner == key);
        let (_, outgoing) = place.and_then(|at| self.in_flight.remove(at)).expect("in flight");
        self.shard.sent(key, Some(outgoing), Err(SendFailed), self.now);
        self.apply();
    }

    pub fn push(
        &mut self,
        key: SessionKey,
        message: &PushMessage,
    ) -> Result<PushAccount, PushRefused> {
        let outcome = self.shard.push(key, message, self.now);
        self.apply();
        outcome
    }

    pub fn broadcast(&mut self, message: &PushMessage, spread: Duration) -> PushAccount {
        self.try_broadcast(message, spread).expect("few are on their way")
    }

    pub fn try_broadcast(
        &mut self,
        message: &PushMessage,
        spread: Duration,
    ) -> Result<PushAccount, PushRefused> {
        self.shard.broadcast(message.clone(), spread, self.now)
    }

    /// One turn's share of what is spread over time.
    pub fn work(&mut self) -> Option<Timestamp> {
        let next = self.shard.work(self.now);
        self.apply();
        next
    }

    pub fn drain(&mut self, spread: Duration) -> u64 {
        self.shard.drain(spread, self.now)
    }

    pub fn set_handler(&mut self, handler: Box<dyn Handler>) {
        self.shard.set_handler(handler);
    }

    pub fn letter(&mut self, letter: &[u8]) {
        self.shard.deliver_letter(letter, self.now);
        self.settle();
    }

    pub fn account(&self, id: u64) -> Option<PushAccount> {
        self.shard.push_account(id)
    }

    pub fn queued_bytes(&self, key: SessionKey) -> u64 {
        self.shard.view(key, self.now).map_or(0, |view| view.queued_bytes)
    }

    pub fn stop(&mut self, budget: usize) {
        self.shard.stop(budget, self.now);
        self.apply();
    }

    /// Time passes in steps of a millisecond at most, each of which sweeps.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while self.now < end {
            self.now = (self.now + ms(1)).min(end);
            self.sweep();
        }
    }

    /// The same, and the peers read all the while, unless they are deaf.
    pub fn go_on(&mut self, by: Duration) {
        let end = self.now + by;
        while self.now < end {
            self.advance(ms(1).min(end.since(self.now)));
            self.settle();
        }
    }

    /// Time passes at one stroke, as when the process was stopped.
    pub fn jump(&mut self, by: Duration) {
        self.now = self.now + by;
        self.sweep();
    }

    /// Sweeps as of a time before the present, as after a pause within a turn.
    pub fn sweep_as_of(&mut self, then: Timestamp) {
        assert!(then <= self.now);
        self.shard.note_present(self.now);
        self.shard.advance(then);
        self.apply();
    }

    fn sweep(&mut self) {
        while self.shard.advance(self.now) == Progress::More {
            self.apply();
        }
        self.apply();
    }

    pub fn take_at_most(&mut self, sizes: &[usize]) {
        self.sizes = sizes.iter().copied().collect();
    }

    /// Completes sends until nothing is in flight, unless the peers are deaf.
    pub fn settle(&mut self) {
        self.apply();
        while !self.deaf && !self.in_flight.is_empty() {
            self.complete_one();
        }
    }

    pub fn complete_one(&mut self) {
        if self.deaf {
            return;
        }
        let Some((key, outgoing)) = self.in_flight.pop_front() else { return };
        let size = self.sizes.pop_front().unwrap_or(usize::MAX).min(outgoing.len());
        self.sent.entry(key).or_default().extend(&outgoing.as_bytes()[..size]);
        // As the ring does it: static bytes do not come back.
        let back = (!matches!(outgoing, Outgoing::Static(_))).then_some(outgoing);
        self.shard.sent(key, back, Ok(size), self.now);
        self.apply();
    }

    fn apply(&mut self) {
        let mut effects = Vec::new();
        self.shard.take_effects(&mut effects);
        for effect in effects {
            match effect {
                Effect::Send { key, outgoing } => {
                    let twice = self.in_flight.iter().any(|(other, _)| *other == key);
                    assert!(!twice, "one send in flight per session");
                    self.in_flight.push_back((key, outgoing));
                }
                Effect::Close { key } => self.close(key),
            }
        }
    }

    fn close(&mut self, key: SessionKey) {
        // The reason is told by the counter that has moved since the last close.
        let now = self.shard.counters().closed;
        let mut moved = (0..CloseReason::COUNT).filter(|&at| now[at] > self.counted[at]);
        let at = moved.next().expect("every close has a reason");
        self.counted[at] += 1;
        self.closed.insert(key, CloseReason::ALL[at]);
        if let Some(place) = self.in_flight.iter().position(|(owner, _)| *owner == key) {
            let (_, outgoing) = self.in_flight.remove(place).expect("just found");
            self.shard.sent(key, Some(outgoing), Err(SendFailed), self.now);
        }
        self.shard.released(key);
    }

    pub fn sent_to(&self, key: SessionKey) -> &[u8] {
        self.sent.get(&key).map_or(&[], Vec::as_slice)
    }

    /// What was sent since this was asked last.
    pub fn take_sent_to(&mut self, key: SessionKey) -> Vec<u8> {
        let sent = self.sent.remove(&key).unwrap_or_default();
        self.taken_bytes += sent.len() as u64;
        sent
    }

    pub fn view(&self, key: SessionKey) -> SessionView {
        self.shard.view(key, self.now).expect("it is open")
    }

    pub fn closed_for(&self, key: SessionKey) -> Option<CloseReason> {
        self.closed.get(&key).copied()
    }

    pub fn counters(&self) -> &Counters {
        self.shard.counters()
    }

    pub fn check_laws(&mut self) {
        for law in self.shard.publish().laws() {
            assert!(law.holds, "{law:?}");
        }
        assert_eq!(self.shard.counters().heartbeats_pending, self.shard.count_pending());
        assert_eq!(self.shard.counters().send_queue_bytes, self.shard.count_queued_bytes());
        let bytes: usize = self.sent.values().map(Vec::len).sum();
        assert_eq!(self.shard.counters().bytes_sent, self.taken_bytes + bytes as u64);
    }
}
