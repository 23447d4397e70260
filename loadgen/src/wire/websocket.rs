//! RFC 6455 as a client speaks it, with whatever server.
//!
//! A message in fragments is read once its last one is there, together with the control frames in
//! between: nothing is remembered of a client but the bytes that were not taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use heartwheel::outgoing::{Outgoing, SMALL_BUFFER_BYTES};
use heartwheel::protocol::http_upgrade::{self, ResponseError};
use heartwheel::protocol::websocket::{
    Event, HEADER_BYTES_MAX, Opcode, Reader, Role, TEXT_PING, decode, encode_header, mask,
};

use super::{Buffers, Illegal, Incoming, Reading};
use crate::limits::PARTIAL_BYTES_MAX;
use crate::plan::mix;
use crate::scenario;

/// Which heartbeats a WebSocket sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WsHeartbeat {
    /// Text `ping`, answered by text `pong`.
    Text,
    /// A control PING, answered by a control PONG.
    Control,
}

/// How a WebSocket is begun and kept.
#[derive(Debug)]
pub struct WebSocket {
    host: String,
    path: String,
    heartbeat: WsHeartbeat,
    /// Heartbeats, each masked with a random key of its own. A client takes one of them at random,
    /// so that none has to be made, or to be kept in memory, while it is sent.
    heartbeats: Vec<[u8; HEARTBEAT_BYTES_MAX]>,
    heartbeat_bytes: usize,
    /// A data message, masked with each of the keys.
    data: Vec<[u8; HEARTBEAT_BYTES_MAX]>,
    seed: u64,
    /// Replies so far: each has a mask of its own.
    replies: AtomicU64,
}

/// What data messages consist of; as long as a heartbeat.
const DATA: &[u8] = b"data";

/// How a drain's close tells when to come back.
const RETRY_AFTER: &[u8] = b"retry-after-ms=";

/// A masked text `ping`.
const HEARTBEAT_BYTES_MAX: usize = 10;

/// So many masking keys are in use.
const MASKS: u64 = 4_096;

/// How a client reads.
const CLIENT: Reader = Reader { role: Role::Client, message_bytes_max: PARTIAL_BYTES_MAX };

impl WebSocket {
    /// For a server that is `host` to its clients.
    pub fn new(host: &str, path: &str, heartbeat: WsHeartbeat, seed: u64) -> WebSocket {
        let (opcode, payload) = match heartbeat {
            WsHeartbeat::Text => (Opcode::Text, TEXT_PING),
            WsHeartbeat::Control => (Opcode::Ping, &[][..]),
        };
        let masked = |number, opcode, payload: &[u8]| {
            let key = (mix(seed ^ mix(number)) as u32).to_ne_bytes();
            let mut bytes = [0; HEARTBEAT_BYTES_MAX];
            write_masked(opcode, payload, key, &mut bytes);
            bytes
        };
        WebSocket {
            host: host.to_owned(),
            path: path.to_owned(),
            heartbeat,
            heartbeats: (0..MASKS).map(|number| masked(number, opcode, payload)).collect(),
            data: (0..MASKS).map(|number| masked(!number, Opcode::Text, DATA)).collect(),
            heartbeat_bytes: 6 + payload.len(),
            seed,
            replies: AtomicU64::new(0),
        }
    }

    pub fn greeting(&self, client: u32) -> Outgoing {
        let request = http_upgrade::request(&self.host, &self.path, self.nonce(client));
        Outgoing::shared(Arc::from(request))
    }

    pub fn heartbeat(&self, client: u32, beats: u32) -> &[u8] {
        let random = mix(self.seed ^ u64::from(client) << 32 ^ u64::from(beats));
        &self.heartbeats[(random % MASKS) as usize][..self.heartbeat_bytes]
    }

    pub fn data(&self, number: u64) -> &[u8] {
        let random = mix(self.seed ^ number.rotate_left(32));
        &self.data[(random % MASKS) as usize]
    }

    /// The random part of a client's handshake.
    fn nonce(&self, client: u32) -> [u8; 16] {
        let front = mix(self.seed ^ u64::from(client));
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&front.to_ne_bytes());
        nonce[8..].copy_from_slice(&mix(front).to_ne_bytes());
        nonce
    }

    pub fn read(
        &self,
        reading: Reading,
        bytes: &[u8],
        buffers: &mut Buffers,
        out: &mut Vec<Incoming>,
    ) -> Result<usize, Illegal> {
        let mut taken = 0;
        if reading.opening {
            match http_upgrade::read_response(bytes, self.nonce(reading.client)) {
                Ok(Some(header_bytes)) => {
                    out.push(Incoming::Upgraded);
                    taken = header_bytes;
                }
                Ok(None) => return Ok(0),
                Err(error) => {
                    out.push(Incoming::Refused(refusal(error)));
                    return Ok(bytes.len());
                }
            }
        }
        while let Some(length) = message_bytes(&bytes[taken..]) {
            let mut partial = None;
            let message = &bytes[taken..taken + length];
            let outcome = decode(&CLIENT, &mut partial, message, |event| -> Result<(), Illegal> {
                out.push(self.meaning_of(event, buffers));
                Ok(())
            });
            if outcome.is_err() || partial.is_some() {
                return Err(Illegal);
            }
            taken += length;
        }
        // What is wrong with a beginning shows before its end is there.
        let heard = |_: Event<'_>| -> Result<(), Illegal> { Ok(()) };
        match decode(&CLIENT, &mut None, &bytes[taken..], heard) {
            Ok(()) => Ok(taken),
            Err(_) => Err(Illegal),
        }
    }

    fn meaning_of(&self, event: Event<'_>, buffers: &mut Buffers) -> Incoming {
        match (event, self.heartbeat) {
            (Event::Text(b"pong"), WsHeartbeat::Text) => Incoming::Pong,
            (Event::Pong(_), WsHeartbeat::Control) => Incoming::Pong,
            // A PONG that nobody asked for may come at any time (section 5.5.3).
            (Event::Pong(_), WsHeartbeat::Text) | (Event::Text(DATA), _) => Incoming::Data,
            (Event::Ping(payload), _) => Incoming::Reply(self.pong(payload, buffers)),
            (Event::Text(message) | Event::Binary(message), _) => {
                Incoming::Push { event: scenario::event_of(message), receipt: None }
            }
            (Event::Close { code, reason }, _) if reason.starts_with(RETRY_AFTER) => {
                let digits = std::str::from_utf8(&reason[RETRY_AFTER.len()..]).unwrap_or("");
                let retry_after_ms = digits.parse().unwrap_or(0);
                Incoming::GoAway { retry_after_ms, closed: Some(code.unwrap_or(0)) }
            }
            (Event::Close { code, .. }, _) => Incoming::Closed(code.unwrap_or(0)),
        }
    }

    fn pong(&self, payload: &[u8], buffers: &mut Buffers) -> Outgoing {
        let number = self.replies.fetch_add(1, Ordering::Relaxed);
        let key = (mix(!self.seed ^ mix(number)) as u32).to_ne_bytes();
        if payload.len() + 6 <= SMALL_BUFFER_BYTES {
            return buffers.fill(|bytes| write_masked(Opcode::Pong, payload, key, bytes));
        }
        let mut bytes = [0; SMALL_BUFFER_BYTES + HEADER_BYTES_MAX];
        let length = write_masked(Opcode::Pong, payload, key, &mut bytes);
        Outgoing::shared(Arc::from(&bytes[..length]))
    }
}

/// Writes a frame to the front of `bytes`, and says how long it is.
fn write_masked(opcode: Opcode, payload: &[u8], key: [u8; 4], bytes: &mut [u8]) -> usize {
    let mut header = [0; HEADER_BYTES_MAX];
    let front = encode_header(opcode, payload.len() as u64, Some(key), &mut header);
    let end = front + payload.len();
    bytes[..front].copy_from_slice(&header[..front]);
    bytes[front..end].copy_from_slice(payload);
    mask(&mut bytes[front..end], key, 0);
    end
}

fn refusal(error: ResponseError) -> &'static str {
    match error {
        ResponseError::Malformed => "upgrade: the answer is no HTTP",
        ResponseError::Unproven => "upgrade: Sec-WebSocket-Accept, Upgrade or Connection is wrong",
        ResponseError::Unasked => "upgrade: an extension or subprotocol that was not offered",
        ResponseError::Status(200) => "upgrade: status 200",
        ResponseError::Status(300..400) => "upgrade: redirected",
        ResponseError::Status(400) => "upgrade: status 400",
        ResponseError::Status(401) => "upgrade: status 401",
        ResponseError::Status(403) => "upgrade: status 403",
        ResponseError::Status(404) => "upgrade: status 404",
        ResponseError::Status(426) => "upgrade: status 426",
        ResponseError::Status(429) => "upgrade: status 429",
        ResponseError::Status(502) => "upgrade: status 502",
        ResponseError::Status(503) => "upgrade: status 503",
        ResponseError::Status(504) => "upgrade: status 504",
        ResponseError::Status(_) => "upgrade: another status",
    }
}

/// The length of the control frame, or of all frames of the message, at the front of `bytes`;
/// `None` if they are not all there.
fn message_bytes(bytes: &[u8]) -> Option<usize> {
    let (mut length, mut begun) = (0, false);
    loop {
        let frame = &bytes[length..];
        let first = *frame.first()?;
        let end = frame_bytes(frame).filter(|&end| end <= frame.len())?;
        length += end;
        let (is_last, is_control) = (first & 0x80 != 0, first & 0x08 != 0);
        if is_last && !(is_control && begun) {
            return Some(length);
        }
        begun = true;
    }
}

/// The length of the unmasked frame at the front of some bytes, if they suffice to know it.
fn frame_bytes(bytes: &[u8]) -> Option<usize> {
    Some(match *bytes.get(1)? & 0x7f {
        126 => 4 + usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
        127 => {
            let length = u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?);
            usize::try_from(length).unwrap_or(usize::MAX).saturating_add(10)
        }
        short => 2 + usize::from(short),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Wire;
    use super::super::tests::{expect_the_same_at_every_split, read};
    use super::*;

    fn wire(heartbeat: WsHeartbeat) -> Wire {
        Wire::websocket("localhost:7401", "/", heartbeat, 7)
    }

    fn response(wire: Wire, client: u32) -> Vec<u8> {
        let request = wire.greeting(client, &mut Buffers::default()).unwrap();
        match http_upgrade::read_request(request.as_bytes()) {
            http_upgrade::Upgrade::Accepted { response, .. } => response,
            other => panic!("{other:?}"),
        }
    }

    fn unmask(frame: &[u8]) -> (u8, [u8; 4], Vec<u8>) {
        assert_eq!(frame[1], 0x80 | (frame.len() - 6) as u8, "masked, and short");
        let key = [frame[2], frame[3], frame[4], frame[5]];
        let mut payload = frame[6..].to_vec();
        mask(&mut payload, key, 0);
        (frame[0], key, payload)
    }

    #[test]
    fn a_websocket_is_upgraded_and_then_keeps_its_heartbeats() {
        let wire = wire(WsHeartbeat::Text);
        let response = response(wire, 3);
        let bytes = [&response[..], &[0x81, 4], b"pong", &[0x88, 2, 3, 0xe9], &[0x81]].concat();
        assert_eq!(read(wire, true, &bytes[..20]).unwrap().1, 0);
        let (out, taken) = read(wire, true, &bytes).unwrap();
        assert!(
            matches!(out[..], [Incoming::Upgraded, Incoming::Pong, Incoming::Closed(1001)]),
            "{out:?}"
        );
        assert_eq!(taken, bytes.len() - 1);
        expect_the_same_at_every_split(wire, true, &bytes);
        assert!(read(wire, false, &response).is_err(), "an upgrade of what is upgraded");

        let buffers = &mut Buffers::default();
        let beat = wire.heartbeat(3, 9, buffers);
        let (opcode, key, payload) = unmask(beat.as_bytes());
        assert_eq!((opcode, &payload[..]), (0x81, &b"ping"[..]));
        assert_ne!(unmask(wire.heartbeat(4, 9, buffers).as_bytes()).1, key);
    }

    #[test]
    fn a_refusal_has_its_reason() {
        let wire = wire(WsHeartbeat::Text);
        let unasked = String::from_utf8(response(wire, 3)).unwrap();
        let unasked = unasked.replacen("\r\n", "\r\nSec-WebSocket-Extensions: x\r\n", 1);
        for (answer, expected) in [
            ("HTTP/1.1 404 Not Found\r\n\r\n", "status 404"),
            ("HTTP/1.1 301 Moved\r\nLocation: /x\r\n\r\n", "redirected"),
            ("SSH-2.0-OpenSSH_9.2\r\n", "no HTTP"),
            (&*String::from_utf8(response(wire, 4)).unwrap(), "Accept"),
            (&*unasked, "not offered"),
        ] {
            let (out, taken) = read(wire, true, answer.as_bytes()).unwrap();
            let [Incoming::Refused(reason)] = out[..] else { panic!("{out:?}") };
            assert!(reason.contains(expected) && taken == answer.len(), "{answer}: {reason}");
        }
    }

    /// A PING of the server's own is answered by a PONG, with a mask of its own, and is no answer.
    #[test]
    fn a_websocket_answers_pings() {
        let longest = [b'x'; 125];
        let front = [&[0x89, 0][..], &[0x89, 3], b"abc", &[0x89, 3], b"abc"].concat();
        let bytes = [&front[..], &[0x89, 125], &longest].concat();
        let (out, taken) = read(wire(WsHeartbeat::Control), false, &bytes).unwrap();
        assert_eq!(taken, bytes.len());
        let mut masks = Vec::new();
        for (message, expected) in out.iter().zip([&b""[..], b"abc", b"abc", &longest]) {
            let Incoming::Reply(pong) = message else { panic!("{message:?}") };
            let (opcode, key, payload) = unmask(pong.as_bytes());
            assert_eq!((opcode, &payload[..]), (0x8a, expected));
            masks.push(key);
        }
        masks.dedup();
        assert_eq!(masks.len(), 4);
    }

    #[test]
    fn only_the_answer_that_was_asked_for_is_one() {
        let bytes = [&[0x8a, 0][..], &[0x81, 4], b"pong"].concat();
        let (text, _) = read(wire(WsHeartbeat::Text), false, &bytes).unwrap();
        assert!(matches!(text[..], [Incoming::Data, Incoming::Pong]), "{text:?}");
        let (control, _) = read(wire(WsHeartbeat::Control), false, &bytes).unwrap();
        assert!(matches!(control[..], [Incoming::Pong, Incoming::Push { .. }]), "{control:?}");
    }

    #[test]
    fn fragments_are_one_message_with_control_frames_in_between() {
        let wire = wire(WsHeartbeat::Text);
        let bytes = [
            &[0x01, 6][..],
            b"push 0",
            &[0x89, 1, b'x'],
            &[0x00, 0],
            &[0x80, 3],
            b"003",
            &[0x81, 4],
            b"pong",
        ]
        .concat();
        let (out, taken) = read(wire, false, &bytes).unwrap();
        let [Incoming::Reply(_), Incoming::Push { event: Some(3), .. }, Incoming::Pong] = out[..]
        else {
            panic!("{out:?}")
        };
        assert_eq!(taken, bytes.len());
        expect_the_same_at_every_split(wire, false, &bytes);
        for illegal in [&[0x80, 0][..], &[0x01, 0, 0x81, 0], &[0xc1, 0], &[0x81, 0x80, 0, 0, 0, 0]]
        {
            assert!(read(wire, false, illegal).is_err(), "{illegal:?}");
        }
    }

    #[test]
    fn a_drain_says_when_to_come_back_and_pushes_say_whose_they_are() {
        let wire = wire(WsHeartbeat::Text);
        let mut bytes = vec![0x81, 9];
        bytes.extend(b"push 0003");
        bytes.extend([0x88, 20, 3, 0xe9]);
        bytes.extend(b"retry-after-ms=250");
        let (out, taken) = read(wire, false, &bytes).unwrap();
        let [
            Incoming::Push { event: Some(3), receipt: None },
            Incoming::GoAway { retry_after_ms: 250, closed: Some(1001) },
        ] = out[..]
        else {
            panic!("{out:?}")
        };
        assert_eq!(taken, bytes.len());
        assert_eq!(unmask(wire.data(5).unwrap().as_bytes()).2, DATA);
    }
}
