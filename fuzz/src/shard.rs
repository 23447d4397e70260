//! The shard as a state machine: whatever clients and the kernel do, in whatever order, its laws hold
//! after every step, each session has at most one send in flight, nobody is expired early, and once
//! everybody has gone nothing is left.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use heartwheel::outgoing::Outgoing;
use heartwheel::protocol::Protocol;
use heartwheel::session::SessionKey;
use heartwheel::shard::{Activity, Admission, Effect, Policy, ReceiveEnd, SendFailed, Shard};
use heartwheel::sweep::{AnySweeper, Progress, Strategy};
use heartwheel::time::{Tick, TickLength, Timestamp};

pub(crate) const SESSIONS_MAX: usize = 20;
pub(crate) const STEPS_MAX: usize = 400;

/// Plays the steps that `bytes` describe.
pub fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut world = World::new(input.byte());
    for _ in 0..STEPS_MAX {
        if input.0.is_empty() {
            break;
        }
        world.step(&mut input);
        world.check_laws();
    }
    world.end();
}

/// The fuzzer's bytes; zeros when they are used up.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (front, rest) = self.0.split_at(length);
        self.0 = rest;
        front
    }
}

/// What a client may send that is more likely to get somewhere than noise.
const PHRASES: &[&[u8]] = &[
    &[0, 1, 3],
    &[0, 3, 3, 7, 7],
    &[0, 6, 1, 1, 0, 0, 0, 0],
    &[0, 4, 7, b'a', b'b', b'c'],
    &[0, 9, 6, 0, 0, 0, 0, 0, 0, 0, 1],
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    &[0x81, 0x84, 0, 0, 0, 0, b'p', b'i', b'n', b'g'],
    &[0x89, 0x81, 0, 0, 0, 0, b'x'],
    &[0x82, 0x83, 1, 2, 3, 4, 1, 1, 1],
    &[0x01, 0x81, 0, 0, 0, 0, b'a'],
    &[0x80, 0x81, 0, 0, 0, 0, b'b'],
    &[0x88, 0x82, 0, 0, 0, 0, 3, 0xe8],
];

/// Timeouts that a few steps of the fuzzer's can reach.
pub(crate) fn policy(flavour: u8) -> Policy {
    Policy {
        tick: TickLength::new(Duration::from_millis(10)),
        heartbeat_interval: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(900),
        activity: if flavour & 1 == 0 { Activity::Receive } else { Activity::Any },
        hello_timeout: Duration::from_millis(400),
        frame_timeout: Duration::from_millis(200),
        stall_timeout: Duration::from_millis(500),
        send_queue_bytes: 1_000,
        frame_bytes_max: 600,
        echo: flavour & 2 == 0,
        expiry: flavour & 4 == 0,
        server_ping: flavour & 128 != 0,
        ..Policy::default()
    }
}

pub(crate) struct World {
    pub(crate) shard: Shard<AnySweeper, ()>,
    pub(crate) now: Timestamp,
    pub(crate) keys: Vec<SessionKey>,
    in_flight: HashMap<SessionKey, Outgoing>,
    /// The engine was told to close these, and has not done so yet.
    closing: Vec<SessionKey>,
}

impl World {
    fn new(flavour: u8) -> World {
        World::with(flavour, policy(flavour), Admission::new(SESSIONS_MAX - 2))
    }

    /// A world under a policy of one's own.
    pub(crate) fn with(flavour: u8, policy: Policy, admission: Arc<Admission>) -> World {
        let strategy = Strategy::ALL[usize::from(flavour >> 3) % Strategy::ALL.len()];
        let sweeper = AnySweeper::new(strategy, SESSIONS_MAX, Tick(0));
        World {
            shard: Shard::new(1, policy, admission, sweeper, SESSIONS_MAX),
            now: Timestamp::from_nanos(1),
            keys: Vec::new(),
            in_flight: HashMap::new(),
            closing: Vec::new(),
        }
    }

    pub(crate) fn step(&mut self, input: &mut Input<'_>) {
        let (what, whom) = (input.byte(), usize::from(input.byte()));
        let key = self.keys.get(whom % self.keys.len().max(1)).copied();
        match (what % 16, key) {
            (0 | 1, _) if self.keys.len() < SESSIONS_MAX => self.connect(whom),
            (2..=4, Some(key)) => self.receive(key, PHRASES[whom % PHRASES.len()]),
            (5, Some(key)) => self.receive(key, input.bytes()),
            (6..=8, Some(key)) => self.complete_send(key, input.byte()),
            (9, Some(key)) => self.receive_ended(key, ReceiveEnd::Closed),
            (10, Some(key)) => self.receive_ended(key, ReceiveEnd::Failed),
            (11, Some(key)) => drop(self.shard.kick(key, self.now)),
            (12, _) => self.finish_closing(whom),
            (13, _) => drop(self.shard.stop(whom % 4, self.now)),
            _ => self.pass(Duration::from_millis(whom as u64 * 4)),
        }
        self.take_effects();
    }

    fn connect(&mut self, whom: usize) {
        let protocol = if whom % 2 == 0 { Protocol::Tcp } else { Protocol::WebSocket };
        if let Ok(key) = self.shard.opened((), protocol, self.now) {
            assert!(!self.keys.contains(&key), "a key is given once");
            self.keys.push(key);
        }
    }

    pub(crate) fn receive(&mut self, key: SessionKey, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.shard.received(key, bytes, self.now);
        }
    }

    fn receive_ended(&mut self, key: SessionKey, end: ReceiveEnd) {
        self.shard.receive_ended(key, end, self.now);
    }

    /// The kernel takes all, a part, or nothing and fails.
    fn complete_send(&mut self, key: SessionKey, how: u8) {
        let Some(outgoing) = self.in_flight.remove(&key) else { return };
        let length = outgoing.len();
        let result = match how % 4 {
            0 => Err(SendFailed),
            1 => Ok((length / 2).max(1)),
            _ => Ok(length),
        };
        let back = (!matches!(outgoing, Outgoing::Static(_))).then_some(outgoing);
        self.shard.sent(key, back, result, self.now);
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        while self.shard.advance(self.now) == Progress::More {}
    }

    pub(crate) fn take_effects(&mut self) {
        let mut effects = Vec::new();
        self.shard.take_effects(&mut effects);
        for effect in effects {
            match effect {
                Effect::Send { key, outgoing } => {
                    assert!(!outgoing.is_empty(), "something is sent");
                    assert!(!self.closing.contains(&key), "nothing is sent after the close");
                    let other = self.in_flight.insert(key, outgoing);
                    assert!(other.is_none(), "one send in flight per session");
                }
                Effect::Close { key } => {
                    assert!(!self.closing.contains(&key), "closed once");
                    self.closing.push(key);
                }
            }
        }
    }

    /// The engine gets round to a close: what is in flight ends first.
    fn finish_closing(&mut self, whom: usize) {
        if self.closing.is_empty() {
            return;
        }
        let key = self.closing.swap_remove(whom % self.closing.len());
        self.complete_send(key, 0);
        self.take_effects();
        self.shard.released(key);
        self.keys.retain(|&other| other != key);
    }

    pub(crate) fn check_laws(&mut self) {
        for law in self.shard.publish().laws() {
            assert!(law.holds, "{law:?}");
        }
        assert_eq!(self.shard.counters().heartbeats_pending, self.shard.count_pending());
        assert_eq!(self.shard.counters().send_queue_bytes, self.shard.count_queued_bytes());
        assert_eq!(self.shard.len(), self.keys.len());
    }

    /// Everybody goes, and nothing is left, whether they read what is on its way to them or not.
    pub(crate) fn end(mut self) {
        for _ in 0..4 {
            self.shard.stop(usize::MAX, self.now);
            self.take_effects();
            for key in self.keys.clone() {
                self.complete_send(key, 2);
            }
            self.take_effects();
            // Whoever is being told good-bye has its time, and who takes nothing too: in small
            // steps, since time in which the server is held up does not count against them.
            for _ in 0..600 {
                if self.keys.is_empty() {
                    break;
                }
                self.pass(Duration::from_millis(100));
                self.take_effects();
                while !self.closing.is_empty() {
                    self.finish_closing(0);
                }
            }
            self.check_laws();
        }
        assert!(self.shard.is_empty(), "{} sessions are left after a stop", self.shard.len());
        assert_eq!(self.shard.counters().open, 0);
    }
}
