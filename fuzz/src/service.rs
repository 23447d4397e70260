//! The shard as a state machine once more, with all that a push service uses: tickets, PROXY headers,
//! limits by address, negotiated and flattened heartbeats, pushes, broadcasts, a handler that pushes,
//! and drains over a time. The laws of the account hold after every step, a push's own account
//! balances, and in the end nothing is left.

use std::sync::Arc;
use std::time::Duration;

use heartwheel::protocol::Protocol;
use heartwheel::protocol::address::{Network, PeerAddress};
use heartwheel::protocol::proxy::SIGNATURE;
use heartwheel::protocol::ticket::{KeyRing, Ticket};
use heartwheel::session::SessionId;
use heartwheel::shard::{
    AcceptRate, Actions, Admission, Auth, Bounds, CloseReason, Handler, Policy, PushAccount,
    PushMessage,
};

use crate::shard::{Input, SESSIONS_MAX, STEPS_MAX, World, policy};

/// Plays the steps that `bytes` describe.
pub fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (flavour, more) = (input.byte(), input.byte());
    let mut service = Service::new(flavour, more);
    for _ in 0..STEPS_MAX {
        if input.0.is_empty() {
            break;
        }
        service.step(&mut input);
        service.world.check_laws();
        service.check_pushes();
    }
    service.world.end();
}

struct Service {
    world: World,
    /// Tickets: for ever, for once, for a past that is over, and one of another key.
    tickets: [String; 4],
    pushes: u64,
}

impl Service {
    fn new(flavour: u8, more: u8) -> Service {
        let has = |bit: u8| more & bit != 0;
        let keys = || KeyRing::new([&b"a key of 16 bytes"[..]]).expect("a key");
        let ten = Network::new(PeerAddress::v4([10, 0, 0, 0]), 8).expect("a network");
        let policy = Policy {
            heartbeat_min: Duration::from_millis(100),
            heartbeat_max: Duration::from_secs(2),
            flatten: has(1),
            auth: has(2).then(|| Auth::new(keys(), Duration::from_secs(1_000))),
            proxies: if has(4) { Arc::from([ten]) } else { Arc::from([]) },
            ..policy(flavour)
        };
        let admission = Admission::with(Bounds {
            connections_max: SESSIONS_MAX - 2,
            per_address_max: has(8).then_some(3),
            accept_rate: has(16).then_some(AcceptRate { per_s: 20, burst: 5 }),
            memory_bytes_max: has(32).then_some(1_000),
        });
        let mut world = World::with(flavour, policy, admission);
        if has(64) {
            world.shard.set_handler(Box::new(Talkative::default()));
        }
        let ticket = |exp, nonce: Option<&str>| {
            keys().seal(&Ticket { exp, sub: None, nonce: nonce.map(str::to_owned) })
        };
        let stranger = KeyRing::new([&b"another key, 16 B"[..]]).expect("a key");
        let forged = Ticket { exp: u64::MAX, sub: None, nonce: None };
        let tickets = [
            ticket(u64::MAX, None),
            ticket(u64::MAX, Some("once")),
            ticket(999, None),
            stranger.seal(&forged),
        ];
        Service { world, tickets, pushes: 0 }
    }

    /// Every second step is one of the plain state machine.
    fn step(&mut self, input: &mut Input<'_>) {
        let (what, whom) = (input.byte(), usize::from(input.byte()));
        if what & 1 == 0 {
            self.world.step(input);
            return;
        }
        let key = self.world.keys.get(whom % self.world.keys.len().max(1)).copied();
        let now = self.world.now;
        match ((what >> 1) % 10, key) {
            (0 | 1, _) => self.connect_from(whom),
            (2, Some(key)) => {
                let message = self.message(input);
                let _ = self.world.shard.push(key, &message, now);
            }
            (3, _) => {
                let (spread, message) = (Duration::from_millis(whom as u64), self.message(input));
                let _ = self.world.shard.broadcast(message, spread, now);
            }
            (4, Some(key)) => {
                let mut ack = vec![0, 9, 6];
                ack.extend((u64::from(input.byte()) % (self.pushes + 2)).to_be_bytes());
                self.world.receive(key, &ack);
            }
            (5, Some(key)) => self.world.receive(key, &hello(&self.tickets[whom % 4], input)),
            (6, Some(key)) => self.world.receive(key, &upgrade(&self.tickets[whom % 4])),
            (7, Some(key)) => self.world.receive(key, &proxy_header(whom)),
            (8, _) => {
                self.world.shard.deliver_letter(input.bytes(), now);
                self.world.shard.note_memory(whom as u64 * 8);
            }
            (9, _) if whom > 250 => {
                self.world.shard.drain(Duration::from_millis(whom as u64 * 10), now);
            }
            _ => {}
        }
        self.world.shard.work(now);
        self.world.take_effects();
    }

    fn connect_from(&mut self, whom: usize) {
        if self.world.keys.len() >= SESSIONS_MAX {
            return;
        }
        let from = match whom % 5 {
            0 => None,
            1 => Some(PeerAddress::v4([10, 0, 0, 1])),
            _ => Some(PeerAddress::v4([192, 0, 2, whom as u8 % 3])),
        };
        let protocol = if whom & 128 == 0 { Protocol::Tcp } else { Protocol::WebSocket };
        let opened = self.world.shard.opened_from((), protocol, from, self.world.now);
        self.world.keys.extend(opened);
    }

    fn message(&mut self, input: &mut Input<'_>) -> PushMessage {
        self.pushes += 1;
        PushMessage::new(self.pushes, input.bytes()).expect("short enough")
    }

    fn check_pushes(&self) {
        for id in 1..=self.pushes {
            let Some(account) = self.world.shard.push_account(id) else { continue };
            let PushAccount { requested, acknowledged, unconfirmed, pending, .. } = account;
            let dropped: u64 = account.dropped.iter().sum();
            let ended = acknowledged + unconfirmed + pending + dropped;
            assert_eq!(requested, ended, "push {id}: {account:?}");
        }
    }
}

fn hello(ticket: &str, input: &mut Input<'_>) -> Vec<u8> {
    let interval_ms = u32::from(input.byte()) * 20;
    let mut frame = (6 + ticket.len() as u16).to_be_bytes().to_vec();
    frame.extend([1, 1]);
    frame.extend(interval_ms.to_be_bytes());
    frame.extend(ticket.as_bytes());
    frame
}

fn upgrade(ticket: &str) -> Vec<u8> {
    format!(
        "GET /?heartbeat=300ms HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {ticket}\r\n\
         Upgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// One for a client of 192.0.2.0/24, or one for the proxy itself.
fn proxy_header(whom: usize) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    match whom & 8 == 0 {
        true => header.extend([0x21, 0x11, 0, 12, 192, 0, 2, whom as u8 % 4, 10, 0, 0, 1, 0, 9, 0, 9]),
        false => header.extend([0x20, 0, 0, 0]),
    }
    header
}

/// Pushes what it hears to whom it heard last, and letters to all it knows.
#[derive(Default)]
struct Talkative {
    known: Vec<SessionId>,
}

impl Handler for Talkative {
    fn opened(&mut self, session: SessionId, _: &mut Actions) {
        assert!(!self.known.contains(&session), "an id comes once");
        self.known.push(session);
    }

    fn message(&mut self, _: SessionId, message: &[u8], actions: &mut Actions) {
        if let (Some(&last), Ok(message)) = (self.known.last(), actions.message(message)) {
            actions.push(last, &message);
        }
    }

    fn closed(&mut self, session: SessionId, _: CloseReason, _: &mut Actions) {
        let before = self.known.len();
        self.known.retain(|&other| other != session);
        assert_eq!(self.known.len() + 1, before, "each is closed once, and was opened");
    }

    fn letter(&mut self, letter: &[u8], actions: &mut Actions) {
        if let Ok(message) = actions.message(letter) {
            self.known.iter().for_each(|&session| actions.push(session, &message));
        }
    }
}
