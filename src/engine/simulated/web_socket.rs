//! What clients do over WebSocket: heartbeats of every kind, messages in fragments with control
//! frames between them, and frames that are illegal.

use std::collections::VecDeque;
use std::time::Duration;

use super::behaviour::Behaviour;
use super::peer::{Outcome, Reply};
use super::world::World;
use crate::session::CloseReason;

/// Illegal frames: the bytes, after how many of them it shows, what it is called, and with which
/// code the client is told.
const ILLEGAL: &[(&[u8], u64, CloseReason, u16)] = &[
    (&[0xf1, 0x80, 0, 0, 0, 0], 1, CloseReason::WsReservedBits, 1002),
    (&[0x83, 0x80, 0, 0, 0, 0], 1, CloseReason::WsUnknownOpcode, 1002),
    (&[0x81, 0x01, b'x'], 2, CloseReason::WsUnmasked, 1002),
    (&[0x09, 0x80, 0, 0, 0, 0], 1, CloseReason::WsControlFragmented, 1002),
    (&[0x89, 0xfe, 0, 126, 0, 0], 2, CloseReason::WsControlTooLong, 1002),
    (&[0x80, 0x80, 0, 0, 0, 0], 1, CloseReason::WsContinuationWithoutStart, 1002),
    (&[0x82, 0xfe, 0, 1, 0, 0], 4, CloseReason::WsLengthEncoding, 1002),
    (&[0x82, 0xfe, 0xff, 0xff, 0, 0], 4, CloseReason::WsTooBig, 1009),
    (&[0x81, 0x82, 0, 0, 0, 0, b'a', 0xff], 8, CloseReason::WsBadUtf8, 1007),
    (&[0x88, 0x81, 0, 0, 0, 0, 3], 7, CloseReason::WsCloseLength, 1002),
    // Within a fragmented message: another one, too long a rest, and a broken character.
    (&[1, 0x81, 0, 0, 0, 0, b'a', 0x81], 8, CloseReason::WsMessageWithinMessage, 1002),
    (&[2, 0x81, 0, 0, 0, 0, 7, 0x80, 0xfe, 0xff, 0xff], 11, CloseReason::WsTooBig, 1009),
    (&[1, 0x81, 0, 0, 0, 0, 0xc3, 0x80, 0x81, 0, 0, 0, 0, b'('], 14, CloseReason::WsBadUtf8, 1007),
];

const TEXT_PONG: &[u8] = &[0x81, 4, b'p', b'o', b'n', b'g'];

/// The longest fragmented message, in bytes: with all else that may wait for a client who does not
/// read for a while it fits into the queue.
const MESSAGE_BYTES_MAX: usize = 600;

/// What a client sends bit by bit.
pub(super) type Pieces = VecDeque<(Vec<u8>, Outcome)>;

/// A frame of a client, whose first byte is `first`.
fn masked(first: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ ..=125 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
    }
    frame.extend(key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A whole frame of the server.
fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ ..=125 => frame.push(length as u8),
        length => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

impl World {
    pub(super) fn act_web_socket(
        &mut self,
        id: usize,
        behaviour: Behaviour,
        step: u32,
    ) -> Option<Duration> {
        if step == 0 {
            self.ask_upgrade(id);
        }
        match behaviour {
            Behaviour::IllegalWebSocket if step > 1 => {
                let (bytes, shows_at, reason, code) = self.random.pick(ILLEGAL);
                let outcome = Outcome::Fatal { bytes: shows_at, reason, code: Some(code) };
                self.write(id, bytes, outcome);
                return None;
            }
            Behaviour::Fragments => return self.act_fragments(id),
            Behaviour::HalfMessage if step == 1 => {
                let frame = masked(1, b"once upon a time", self.mask());
                self.write(id, &frame, Outcome::Fragment { header_bytes: 6 });
                self.exercise("half message");
            }
            _ => {}
        }
        let (frame, outcome) = self.control_frame(behaviour == Behaviour::HalfMessage);
        self.write(id, &frame, outcome);
        if behaviour == Behaviour::SilentWebSocket {
            return None;
        }
        match behaviour {
            // Often enough that it is never silent.
            Behaviour::HalfMessage => Some(self.rules.frame_timeout / 3),
            _ => self.interval(id),
        }
    }

    fn ask_upgrade(&mut self, id: usize) {
        let wanted_ms = self.wish();
        let path = match wanted_ms {
            0 => "/".to_owned(),
            wanted_ms => format!("/?heartbeat={wanted_ms}ms"),
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n"
        );
        self.write(id, request.as_bytes(), Outcome::Upgrade { wanted_ms });
        self.peers[id].idle_timeout = self.rules.terms(wanted_ms).1;
    }

    fn mask(&mut self) -> [u8; 4] {
        (self.random.bits() as u32).to_be_bytes()
    }

    /// A heartbeat in one of the ways there are; a text message is none within another message.
    fn control_frame(&mut self, within_message: bool) -> (Vec<u8>, Outcome) {
        let key = self.mask();
        match self.random.below(3) {
            0 if !within_message => {
                (masked(0x81, b"ping", key), Outcome::Heartbeat(Reply::Fixed(TEXT_PONG)))
            }
            0 | 1 => {
                let payload: Vec<u8> = (0..self.random.below(30)).map(|at| at as u8).collect();
                let reply = unmasked(0x8a, &payload);
                (masked(0x89, &payload, key), Outcome::Heartbeat(Reply::Own(reply)))
            }
            _ => (masked(0x8a, b"still here", key), Outcome::Pong),
        }
    }

    pub(super) fn pong_web_socket(&mut self, id: usize, payload: &[u8]) {
        let frame = masked(0x8a, payload, self.mask());
        self.write(id, &frame, Outcome::Pong);
    }

    /// Some more of a message in fragments; after its end an interval, and then the next.
    fn act_fragments(&mut self, id: usize) -> Option<Duration> {
        if self.peers[id].pieces.is_empty() {
            let client = &self.peers[id];
            // Never more than one on its way, or its queue might run full.
            if !client.units.is_empty() || !client.expected.is_empty() {
                match self.peers[id].unanswered.is_empty() {
                    true => {
                        let (frame, outcome) = self.control_frame(false);
                        self.write(id, &frame, outcome);
                    }
                    false => self.pong_web_socket(id, b"still here"),
                }
                return self.interval(id);
            }
            self.peers[id].pieces = self.fragments();
            self.exercise("fragmented message");
        }
        let left = self.peers[id].pieces.len();
        for _ in 0..self.random.within(1, left as u64) {
            if let Some((frame, outcome)) = self.peers[id].pieces.pop_front() {
                self.write(id, &frame, outcome);
            }
        }
        if self.peers[id].pieces.is_empty() {
            return self.interval(id);
        }
        let patience = self.rules.frame_timeout.min(self.peers[id].idle_timeout);
        let micros = patience.as_micros() as u64 / 20;
        Some(Duration::from_micros(self.random.within(1, micros)))
    }

    /// A text or binary message in fragments, and control frames between them.
    fn fragments(&mut self) -> Pieces {
        let most = MESSAGE_BYTES_MAX.min(self.rules.frame_bytes_max);
        let length = self.random.below(most / 2) * 2;
        let is_text = self.random.chance(500);
        let message: Vec<u8> = match is_text {
            // Two bytes each, so that fragments end within characters.
            true => "é".repeat(length / 2).into_bytes(),
            false => (0..length).map(|_| self.random.bits() as u8).collect(),
        };
        let opcode = if is_text { 1 } else { 2 };
        let count = self.random.within(2, 5);
        let mut pieces = Pieces::new();
        let mut rest = &message[..];
        for number in 1..=count {
            let is_last = number == count;
            let here = if is_last { rest.len() } else { self.random.below(rest.len() + 1) };
            let (fragment, behind) = rest.split_at(here);
            rest = behind;
            let first = if number == 1 { opcode } else { 0 } | if is_last { 0x80 } else { 0 };
            let frame = masked(first, fragment, self.mask());
            let outcome = match is_last {
                true => Outcome::Data(unmasked(0x80 | opcode, &message)),
                false => Outcome::Fragment { header_bytes: (frame.len() - fragment.len()) as u64 },
            };
            pieces.push_back((frame, outcome));
            if !is_last && self.random.chance(500) {
                pieces.push_back(self.control_frame(true));
                self.exercise("control frame within a message");
            }
        }
        pieces
    }
}
