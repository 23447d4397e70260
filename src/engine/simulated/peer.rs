//! One client's connection: what is on the wire both ways, and what ought to come of it.

use std::collections::VecDeque;

use super::client::Behaviour;
use crate::protocol::Protocol;
use crate::session::{CloseReason, SessionKey};
use crate::time::Timestamp;

/// How a client takes what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// As it comes.
    Fast,
    /// A few bytes at a time.
    Slow,
    /// Never.
    Never,
}

/// What a whole message does.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Nothing,
    /// A heartbeat, with its reply.
    Heartbeat(Vec<u8>),
    /// A message that is echoed where echo is on.
    Data(Vec<u8>),
    /// A HELLO: answered by a WELCOME.
    Hello,
    /// An upgrade: answered by 101.
    Upgrade,
    /// It ends the session as soon as so many of its bytes are there.
    Fatal {
        bytes: u64,
        reason: CloseReason,
        code: Option<u16>,
    },
}

/// A message that a client has sent: where it ends in all that it has sent, and its outcome.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) begin: u64,
    pub(super) end: u64,
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) behaviour: Behaviour,
    pub(super) steps: u32,
    pub(super) latency_us: u64,
    pub(super) reading: Reading,
    /// The client does nothing any more.
    pub(super) dead: bool,
    /// It was cut off from the server at some time.
    pub(super) cut_off: bool,
    // The wire to the server.
    pub(super) written: u64,
    pub(super) arrives_at: Timestamp,
    pub(super) inbox: VecDeque<u8>,
    pub(super) fin: bool,
    pub(super) reset: bool,
    pub(super) last_arrival: Timestamp,
    pub(super) arrival_before: Timestamp,
    // The server's descriptor.
    pub(super) place: Option<(usize, u32)>,
    pub(super) key: Option<SessionKey>,
    pub(super) closed: bool,
    // The wire to the client.
    pub(super) room: usize,
    pub(super) in_pipe: usize,
    pub(super) send_begun: Timestamp,
    pub(super) send_ended: Timestamp,
    pub(super) blocked_since: Option<Timestamp>,
    pub(super) block_noticed: Option<Timestamp>,
    // What ought to be.
    pub(super) units: VecDeque<Unit>,
    pub(super) delivered: u64,
    pub(super) expected: VecDeque<u8>,
    pub(super) taken: u64,
    pub(super) expected_end: u64,
    pub(super) unanswered: VecDeque<u64>,
    pub(super) opened_at: Option<Timestamp>,
    pub(super) first_done: bool,
    pub(super) last_activity: Timestamp,
    pub(super) partial_due: Option<Timestamp>,
    pub(super) verdict: Option<(CloseReason, Timestamp)>,
    pub(super) end_seen: bool,
    pub(super) given_up_at: Option<Timestamp>,
    pub(super) farewell: bool,
    /// An administrator wants it gone.
    pub(super) kicked: bool,
    pub(super) end_arrived: Timestamp,
    pub(super) late_turns: u32,
    pub(super) unheard_turns: u32,
}

impl Peer {
    pub(super) fn new(
        behaviour: Behaviour,
        latency_us: u64,
        reading: Reading,
        room: usize,
    ) -> Peer {
        Peer {
            behaviour,
            steps: 0,
            latency_us,
            reading,
            dead: false,
            cut_off: false,
            written: 0,
            arrives_at: Timestamp::ZERO,
            inbox: VecDeque::new(),
            fin: false,
            reset: false,
            last_arrival: Timestamp::ZERO,
            arrival_before: Timestamp::ZERO,
            place: None,
            key: None,
            closed: false,
            room,
            in_pipe: 0,
            send_begun: Timestamp::ZERO,
            send_ended: Timestamp::ZERO,
            blocked_since: None,
            block_noticed: None,
            units: VecDeque::new(),
            delivered: 0,
            expected: VecDeque::new(),
            taken: 0,
            expected_end: 0,
            unanswered: VecDeque::new(),
            opened_at: None,
            first_done: false,
            last_activity: Timestamp::ZERO,
            partial_due: None,
            verdict: None,
            end_seen: false,
            given_up_at: None,
            farewell: false,
            kicked: false,
            end_arrived: Timestamp::ZERO,
            late_turns: 0,
            unheard_turns: 0,
        }
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.behaviour.protocol()
    }

    pub(super) fn listener(&self) -> u32 {
        u32::from(self.protocol() == Protocol::WebSocket)
    }

    /// Takes up to `most` bytes out of the socket.
    pub(super) fn read(&mut self, most: usize) -> Vec<u8> {
        let count = most.min(self.inbox.len());
        self.inbox.drain(..count).collect()
    }

    pub(super) fn give_up(&mut self, now: Timestamp) {
        self.given_up_at.get_or_insert(now);
    }

    /// Whether the engine still hears it.
    pub(super) fn is_heard(&self) -> bool {
        self.given_up_at.is_none() && self.verdict.is_none()
    }

    pub(super) fn expect(&mut self, bytes: &[u8]) {
        self.expected.extend(bytes);
        self.expected_end += bytes.len() as u64;
    }
}
