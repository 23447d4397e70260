//! One client's connection: what is on the wire both ways, and what ought to come of it.

use std::collections::VecDeque;
use std::time::Duration;

use super::Rules;
use super::behaviour::Behaviour;
use super::gate::Home;
use super::web_socket::Pieces;
use crate::protocol::Protocol;
use crate::session::{CloseReason, Refusal, SessionKey};
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

/// Bytes that answer something.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Fixed(&'static [u8]),
    Own(Vec<u8>),
}

impl Reply {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Reply::Fixed(bytes) => bytes,
            Reply::Own(bytes) => bytes,
        }
    }
}

/// What a whole message does.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Nothing,
    /// A heartbeat, with its reply.
    Heartbeat(Reply),
    /// An answer to a PING of the server, or one that nobody had asked for.
    Pong,
    /// A message that is echoed where echo is on.
    Data(Vec<u8>),
    /// A fragment of a message, not the last one; its header has so many bytes.
    Fragment {
        header_bytes: u64,
    },
    /// A HELLO with the interval that is wanted: answered by a WELCOME.
    Hello {
        wanted_ms: u32,
    },
    /// An upgrade, likewise: answered by 101.
    Upgrade {
        wanted_ms: u32,
    },
    /// The receipt for a push.
    PushAck {
        id: u64,
    },
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

/// Something that a client answers when it reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// A push, which wants a receipt.
    Push(u64),
    /// A PING of the server.
    Ping,
}

/// A push that this client was sent, until it is known to be acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    pub(super) id: u64,
    /// The engine knows that it was written.
    pub(super) written: bool,
    /// The receipt has come, be it before that.
    pub(super) acknowledged: bool,
}

/// A push to this client alone that the shard has taken, and has not begun to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwedPush {
    pub(super) id: u64,
    /// It goes out behind so much of all that the client is sent.
    pub(super) behind: u64,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) behaviour: Behaviour,
    pub(super) steps: u32,
    pub(super) latency_us: u64,
    pub(super) reading: Reading,
    pub(super) home: Option<Home>,
    /// Why it is not to be let in.
    pub(super) refusal: Option<Refusal>,
    /// It sends receipts for what it is pushed.
    pub(super) acknowledges: bool,
    /// What it is about to send of a fragmented message.
    pub(super) pieces: Pieces,
    /// The client does nothing any more.
    pub(super) dead: bool,
    /// It was cut off from the server at some time.
    pub(super) cut_off: bool,
    // The wire to the server.
    pub(super) written: u64,
    pub(super) arrives_at: Timestamp,
    /// All that was written and not read; the first `arrived` bytes have reached the socket.
    pub(super) wire: VecDeque<u8>,
    pub(super) arrived: usize,
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
    pub(super) sends_in_flight: u32,
    pub(super) blocked_since: Option<Timestamp>,
    pub(super) block_noticed: Option<Timestamp>,
    /// What it will answer once it has read so far.
    pub(super) questions: VecDeque<(u64, Question)>,
    // What ought to be.
    pub(super) units: VecDeque<Unit>,
    pub(super) delivered: u64,
    /// A fragmented message has begun.
    pub(super) message_open: bool,
    pub(super) expected: VecDeque<u8>,
    pub(super) taken: u64,
    pub(super) expected_end: u64,
    pub(super) unanswered: VecDeque<u64>,
    pub(super) deliveries: VecDeque<Delivery>,
    pub(super) owed_pushes: VecDeque<OwedPush>,
    pub(super) owed_push_bytes: usize,
    pub(super) opened_at: Option<Timestamp>,
    pub(super) first_done: bool,
    pub(super) live_since: Option<Timestamp>,
    pub(super) last_activity: Timestamp,
    /// The terms that it and the server have agreed on.
    pub(super) interval: Duration,
    pub(super) idle_timeout: Duration,
    /// It was asked for a sign of life in this silence.
    pub(super) asked: Option<Asked>,
    /// What it was before something came from it together with the end of a send.
    pub(super) before: Option<Before>,
    pub(super) partial_due: Option<Timestamp>,
    pub(super) verdict: Option<(CloseReason, Timestamp)>,
    pub(super) end_seen: bool,
    pub(super) given_up_at: Option<Timestamp>,
    pub(super) parted: Option<Parted>,
    pub(super) close_begun: Option<CloseBegun>,
    pub(super) farewell: bool,
    /// The deadline for which it was told good-bye; whether that was right was looked at then.
    pub(super) dismissed_for: Option<CloseReason>,
    /// It was told that the server stops.
    pub(super) told: bool,
    /// An administrator wants it gone.
    pub(super) kicked: bool,
    pub(super) end_arrived: Timestamp,
    pub(super) late_turns: u32,
    /// Not late before, as something of it was not read yet.
    pub(super) excused_until: Timestamp,
    pub(super) unheard_turns: u32,
}

/// A PING of the server: its silence counts from so much later, at least and at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) shift_min: Duration,
    pub(super) shift_max: Duration,
}

/// The engine learns of the end of a send first, and then, at the same time, of what has come: in
/// between, it says what is next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    pub(super) at: Timestamp,
    /// When it is to be asked for a sign of life, if it was not and nothing is on its way to it.
    pub(super) ask_due: Option<Timestamp>,
}

/// It was told good-bye.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parted {
    pub(super) at: Timestamp,
    /// Once it has taken all it has a second to close its side.
    pub(super) lingers: bool,
}

/// The engine has begun to close its connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct CloseBegun {
    pub(super) at: Timestamp,
    /// With a send in flight.
    pub(super) is_busy: bool,
    /// For how long the server was held up since its last send had begun.
    pub(super) held_up: Duration,
}

impl Peer {
    pub(super) fn new(
        behaviour: Behaviour,
        latency_us: u64,
        reading: Reading,
        room: usize,
        rules: &Rules,
    ) -> Peer {
        Peer {
            behaviour,
            steps: 0,
            latency_us,
            reading,
            home: None,
            refusal: None,
            acknowledges: false,
            pieces: Pieces::new(),
            dead: false,
            cut_off: false,
            written: 0,
            arrives_at: Timestamp::ZERO,
            wire: VecDeque::new(),
            arrived: 0,
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
            sends_in_flight: 0,
            blocked_since: None,
            block_noticed: None,
            questions: VecDeque::new(),
            units: VecDeque::new(),
            delivered: 0,
            message_open: false,
            expected: VecDeque::new(),
            taken: 0,
            expected_end: 0,
            unanswered: VecDeque::new(),
            deliveries: VecDeque::new(),
            owed_pushes: VecDeque::new(),
            owed_push_bytes: 0,
            opened_at: None,
            first_done: false,
            live_since: None,
            last_activity: Timestamp::ZERO,
            interval: rules.heartbeat_interval,
            idle_timeout: rules.idle_timeout,
            asked: None,
            before: None,
            partial_due: None,
            verdict: None,
            end_seen: false,
            given_up_at: None,
            parted: None,
            close_begun: None,
            farewell: false,
            dismissed_for: None,
            told: false,
            kicked: false,
            end_arrived: Timestamp::ZERO,
            late_turns: 0,
            excused_until: Timestamp::ZERO,
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
    pub(super) fn read(&mut self, most: usize, bytes: &mut Vec<u8>) {
        let count = most.min(self.arrived);
        self.arrived -= count;
        bytes.extend(self.wire.drain(..count));
    }

    /// The oracle knows at any moment whether the engine hears it: its queue never runs full.
    pub(super) fn is_exact(&self) -> bool {
        self.reading == Reading::Fast
    }

    pub(super) fn give_up(&mut self, now: Timestamp) {
        self.given_up_at.get_or_insert(now);
    }

    /// Whether the engine still hears it.
    pub(super) fn is_heard(&self) -> bool {
        self.given_up_at.is_none() && self.verdict.is_none()
    }

    /// Whether it has a session that the engine still hears, and which it has begun itself.
    pub(super) fn is_live(&self) -> bool {
        self.place.is_some() && self.key.is_some() && self.first_done && self.is_heard()
    }

    /// Whether it has sent no message to its end.
    pub(super) fn is_within_frame(&self) -> bool {
        self.units.back().is_some_and(|unit| unit.end > self.written)
    }

    /// Whether the header of a message's first fragment has come, and not the fragment's end.
    pub(super) fn is_within_first_fragment(&self) -> bool {
        self.units.front().is_some_and(|unit| match unit.outcome {
            Outcome::Fragment { header_bytes } => self.delivered >= unit.begin + header_bytes,
            _ => false,
        })
    }

    /// Something has come from it.
    pub(super) fn note_before(&mut self, now: Timestamp) {
        let is_first = self.before.is_none_or(|before| before.at != now);
        if self.send_ended == now && is_first {
            let asks = self.is_live() && self.asked.is_none() && self.has_no_output();
            let ask_due = asks.then(|| self.last_activity + self.interval);
            self.before = Some(Before { at: now, ask_due });
        }
    }

    pub(super) fn note_activity(&mut self, now: Timestamp) {
        self.last_activity = now;
        self.asked = None;
    }

    /// The PING has gone out: who has little time left to answer it has all of it from now on.
    pub(super) fn asked_at(&mut self, now: Timestamp) {
        let heard = self.is_heard();
        let Some(asked) = self.asked.as_mut().filter(|_| heard) else { return };
        let answer_time = self.idle_timeout.saturating_sub(self.interval);
        let due = self.last_activity + self.idle_timeout;
        let anew = (now + answer_time).since(due);
        let is_short = |shift| (due + shift).since(now) < answer_time / 2;
        let is_exact = asked.shift_min == asked.shift_max;
        match (is_short(asked.shift_min), is_short(asked.shift_max)) {
            (false, _) => {}
            (true, true) if is_exact => (asked.shift_min, asked.shift_max) = (anew, anew),
            (true, _) => {
                asked.shift_min = asked.shift_min.min(anew);
                asked.shift_max = asked.shift_max.max(anew);
            }
        }
    }

    pub(super) fn expect(&mut self, bytes: &[u8]) {
        self.expected.extend(bytes);
        self.expected_end += bytes.len() as u64;
    }

    /// It is sent something now that comes before all that it is owed already.
    pub(super) fn expect_first(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().rev() {
            self.expected.push_front(*byte);
        }
        let length = bytes.len() as u64;
        self.expected_end += length;
        let taken = self.taken;
        for end in self.unanswered.iter_mut().filter(|end| **end > taken) {
            *end += length;
        }
        // It was queued before all pushes that are still waiting.
        for owed in &mut self.owed_pushes {
            owed.behind += length;
        }
    }

    /// It has gone for good: long worlds see many come and go.
    pub(super) fn forget_wires(&mut self) {
        self.wire = VecDeque::new();
        self.units = VecDeque::new();
        self.expected = VecDeque::new();
        self.questions = VecDeque::new();
        self.deliveries = VecDeque::new();
        self.unanswered = VecDeque::new();
    }

    /// Whether nothing is on its way to it, as far as the engine knows.
    pub(super) fn has_no_output(&self) -> bool {
        self.sends_in_flight == 0 && self.expected.is_empty() && self.owed_pushes.is_empty()
    }
}
