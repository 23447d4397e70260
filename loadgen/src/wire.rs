//! The protocol as a client speaks it: what to send, and what the bytes that come back mean.
//!
//! Another protocol is another variant of [`Wire`]; the worker knows only [`Incoming`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use heartwheel::limits::TCP_FRAME_BYTES_MAX;
use heartwheel::outgoing::{Outgoing, SMALL_BUFFER_BYTES};
use heartwheel::protocol::frame::{self, Frame, Parsed};
use heartwheel::protocol::http_upgrade;
use heartwheel::protocol::websocket::{
    Event, HEADER_BYTES_MAX, Opcode, Reader, Role, TEXT_PING, decode, encode_header, mask,
};

use crate::limits::PARTIAL_BYTES_MAX;
use crate::plan::mix;
use crate::scenario;

/// Something that a server said.
#[derive(Debug)]
pub enum Incoming {
    /// The session is open, under these terms.
    Welcome {
        /// The interval that the server wants.
        interval_ms: u32,
        /// After this silence it expires the session.
        idle_timeout_ms: u32,
    },
    /// The session goes on under other terms.
    Adjust {
        /// The interval to keep.
        interval_ms: u32,
        /// After this silence the server expires the session.
        idle_timeout_ms: u32,
        /// The next heartbeat is to come so long from now.
        next_in_ms: u32,
    },
    /// A heartbeat was answered.
    Pong,
    /// To be answered with these bytes.
    Reply(Outgoing),
    /// A message that was pushed.
    Push {
        /// The event that asked for it, if it says so.
        event: Option<usize>,
        /// To be acknowledged with these bytes, where that is done.
        receipt: Option<Outgoing>,
    },
    /// The opening handshake is through; the server tells no terms.
    Upgraded,
    /// Any other message: activity, no more.
    Data,
    /// The server says good-bye: it wants everybody to go.
    GoAway {
        /// And not to come back earlier than after this.
        retry_after_ms: u32,
        /// What it said closes the connection too.
        closed: Option<u16>,
    },
    /// The server ends this session, and says with which code.
    Closed(u16),
}

/// Which protocol, and how it begins.
#[derive(Clone, Copy, Debug)]
pub enum Wire {
    /// Length-prefixed frames over TCP.
    Tcp {
        /// What a connection begins with; `None`: with the first heartbeat.
        hello: Option<&'static [u8]>,
    },
    /// RFC 6455.
    WebSocket(&'static WebSocket),
}

/// How a WebSocket is begun and kept.
#[derive(Debug)]
pub struct WebSocket {
    target: String,
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

/// Which heartbeats a WebSocket sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WsHeartbeat {
    /// Text `ping`, answered by text `pong`.
    Text,
    /// A control PING, answered by a control PONG.
    Control,
}

/// What data messages consist of; as long as a heartbeat.
const DATA: &[u8] = b"data";
const DATA_FRAME: [u8; 7] = [0, 5, 7, b'd', b'a', b't', b'a'];

/// How a drain's close tells when to come back.
const RETRY_AFTER: &[u8] = b"retry-after-ms=";

/// A masked text `ping`.
const HEARTBEAT_BYTES_MAX: usize = 10;

/// So many masking keys are in use.
const MASKS: u64 = 4_096;

/// The server broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Illegal;

impl Wire {
    /// The TCP protocol; a HELLO asks for `interval_ms` (0 leaves it to the server).
    pub fn tcp(hello: bool, interval_ms: u32) -> Wire {
        let hello = hello.then(|| {
            let mut bytes = [0; 8];
            Frame::Hello { interval_ms, token: b"" }.encode(&mut bytes);
            // Once per process: sent by every client, so it may live for ever.
            &*Box::leak(Box::new(bytes)) as &'static [u8]
        });
        Wire::Tcp { hello }
    }

    /// WebSocket, with what is random following from `seed`.
    pub fn websocket(target: &str, heartbeat: WsHeartbeat, seed: u64) -> Wire {
        let (opcode, payload) = match heartbeat {
            WsHeartbeat::Text => (Opcode::Text, TEXT_PING),
            WsHeartbeat::Control => (Opcode::Ping, &[][..]),
        };
        let masked = |number, opcode, payload: &[u8]| {
            let key = (mix(seed ^ mix(number)) as u32).to_ne_bytes();
            let (mut header, mut bytes) = ([0; HEADER_BYTES_MAX], [0; HEARTBEAT_BYTES_MAX]);
            let front = encode_header(opcode, payload.len() as u64, Some(key), &mut header);
            bytes[..front].copy_from_slice(&header[..front]);
            bytes[front..front + payload.len()].copy_from_slice(payload);
            mask(&mut bytes[front..front + payload.len()], key, 0);
            bytes
        };
        // Once per process: it may live for ever, and heartbeats are sent from where they lie.
        Wire::WebSocket(Box::leak(Box::new(WebSocket {
            target: target.to_owned(),
            heartbeats: (0..MASKS).map(|number| masked(number, opcode, payload)).collect(),
            data: (0..MASKS).map(|number| masked(!number, Opcode::Text, DATA)).collect(),
            heartbeat_bytes: 6 + payload.len(),
            seed,
            replies: AtomicU64::new(0),
        })))
    }

    /// Whether its clients acknowledge what is pushed.
    pub fn acknowledges(self) -> bool {
        matches!(self, Wire::Tcp { .. })
    }

    /// Its name in a report.
    pub fn name(self) -> &'static str {
        match self {
            Wire::Tcp { .. } => "tcp",
            Wire::WebSocket(_) => "ws",
        }
    }

    /// What the connection of `client` begins with, to be answered by [`Incoming::Welcome`] or
    /// [`Incoming::Upgraded`].
    pub fn greeting(self, client: u32) -> Option<Outgoing> {
        match self {
            Wire::Tcp { hello } => hello.map(Outgoing::Static),
            Wire::WebSocket(websocket) => {
                let request =
                    http_upgrade::request(&websocket.target, "/", websocket.nonce(client));
                Some(Outgoing::shared(Arc::from(request)))
            }
        }
    }

    /// The heartbeat of `client` number `beats`.
    pub fn heartbeat(self, client: u32, beats: u32) -> Outgoing {
        match self {
            Wire::Tcp { .. } => Outgoing::Static(&frame::PING),
            Wire::WebSocket(websocket) => {
                let random = mix(websocket.seed ^ u64::from(client) << 32 ^ u64::from(beats));
                let heartbeat = &websocket.heartbeats[(random % MASKS) as usize];
                Outgoing::Static(&heartbeat[..websocket.heartbeat_bytes])
            }
        }
    }

    /// Data message `number` of all.
    pub fn data(self, number: u64) -> Outgoing {
        match self {
            Wire::Tcp { .. } => Outgoing::Static(&DATA_FRAME),
            Wire::WebSocket(websocket) => {
                let random = mix(websocket.seed ^ number.rotate_left(32));
                Outgoing::Static(&websocket.data[(random % MASKS) as usize])
            }
        }
    }

    /// Reads the whole messages at the front of `bytes` into `out`, and says how many bytes they
    /// took: the rest is the beginning of another.
    ///
    /// # Errors
    /// If the bytes break the protocol.
    pub fn read(
        self,
        client: u32,
        bytes: &[u8],
        out: &mut Vec<Incoming>,
    ) -> Result<usize, Illegal> {
        match self {
            Wire::Tcp { .. } => read_frames(bytes, out),
            Wire::WebSocket(websocket) => websocket.read(client, bytes, out),
        }
    }
}

impl WebSocket {
    /// The random part of a client's handshake.
    fn nonce(&self, client: u32) -> [u8; 16] {
        let front = mix(self.seed ^ u64::from(client));
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&front.to_ne_bytes());
        nonce[8..].copy_from_slice(&mix(front).to_ne_bytes());
        nonce
    }

    fn read(&self, client: u32, bytes: &[u8], out: &mut Vec<Incoming>) -> Result<usize, Illegal> {
        // No frame begins with an H, which would have a reserved bit set: that is the handshake.
        let mut taken = match bytes {
            [b'H', ..] => match http_upgrade::read_response(bytes, self.nonce(client)) {
                Ok(Some(header_bytes)) => {
                    out.push(Incoming::Upgraded);
                    header_bytes
                }
                Ok(None) => return Ok(0),
                Err(_) => return Err(Illegal),
            },
            _ => 0,
        };
        while taken < bytes.len() {
            let mut partial = None;
            let frame_bytes = match frame_bytes(&bytes[taken..]) {
                Some(frame_bytes) if frame_bytes <= bytes.len() - taken => frame_bytes,
                _ => break,
            };
            let frame = &bytes[taken..taken + frame_bytes];
            let outcome = decode(&CLIENT, &mut partial, frame, |event| -> Result<(), Illegal> {
                out.push(self.meaning_of(event));
                Ok(())
            });
            // Servers of ours do not fragment; one that does is not for this generator.
            if outcome.is_err() || partial.is_some() {
                return Err(Illegal);
            }
            taken += frame_bytes;
        }
        Ok(taken)
    }

    fn meaning_of(&self, event: Event<'_>) -> Incoming {
        match event {
            Event::Text(b"pong") | Event::Pong(_) => Incoming::Pong,
            Event::Ping(payload) => {
                let number = self.replies.fetch_add(1, Ordering::Relaxed);
                let key = (mix(!self.seed ^ mix(number)) as u32).to_ne_bytes();
                let mut header = [0; HEADER_BYTES_MAX];
                let front =
                    encode_header(Opcode::Pong, payload.len() as u64, Some(key), &mut header);
                let mut pong = [&header[..front], payload].concat();
                mask(&mut pong[front..], key, 0);
                Incoming::Reply(Outgoing::shared(pong.into()))
            }
            Event::Text(DATA) => Incoming::Data,
            Event::Text(message) | Event::Binary(message) => {
                Incoming::Push { event: scenario::event_of(message), receipt: None }
            }
            Event::Close { code, reason } if reason.starts_with(RETRY_AFTER) => {
                let digits = std::str::from_utf8(&reason[RETRY_AFTER.len()..]).unwrap_or("");
                let retry_after_ms = digits.parse().unwrap_or(0);
                Incoming::GoAway { retry_after_ms, closed: Some(code.unwrap_or(0)) }
            }
            Event::Close { code, .. } => Incoming::Closed(code.unwrap_or(0)),
        }
    }
}

/// How a client reads.
const CLIENT: Reader = Reader { role: Role::Client, message_bytes_max: PARTIAL_BYTES_MAX };

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

fn read_frames(bytes: &[u8], out: &mut Vec<Incoming>) -> Result<usize, Illegal> {
    let mut taken = 0;
    while taken < bytes.len() {
        match frame::parse(&bytes[taken..], TCP_FRAME_BYTES_MAX) {
            Ok(Parsed::Whole(frame, length)) => {
                out.push(meaning(frame)?);
                taken += length;
            }
            Ok(Parsed::Partial { .. }) => break,
            Err(_) => return Err(Illegal),
        }
    }
    Ok(taken)
}

fn meaning(frame: Frame<'_>) -> Result<Incoming, Illegal> {
    Ok(match frame {
        Frame::Pong(_) => Incoming::Pong,
        Frame::Welcome { interval_ms, idle_timeout_ms, .. } => {
            Incoming::Welcome { interval_ms, idle_timeout_ms }
        }
        Frame::Ping(b"") => Incoming::Reply(Outgoing::Static(&frame::PONG)),
        Frame::Ping(payload) => Incoming::Reply(owned(&Frame::Pong(payload))),
        Frame::Push { id, message } => Incoming::Push {
            event: scenario::event_of(message),
            receipt: Some(owned(&Frame::PushAck { id })),
        },
        Frame::Data(_) => Incoming::Data,
        Frame::Adjust { interval_ms, idle_timeout_ms, next_in_ms } => {
            Incoming::Adjust { interval_ms, idle_timeout_ms, next_in_ms }
        }
        Frame::GoAway { retry_after_ms, .. } => Incoming::GoAway { retry_after_ms, closed: None },
        Frame::Hello { .. } | Frame::PushAck { .. } => return Err(Illegal),
    })
}

/// Frames of at most 128 bytes: a PONG's payload has no more than 125.
fn owned(frame: &Frame<'_>) -> Outgoing {
    let mut buffer = Box::new([0; SMALL_BUFFER_BYTES]);
    let length = frame.encode(&mut *buffer);
    Outgoing::small(buffer, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIRE: Wire = Wire::Tcp { hello: None };

    #[test]
    fn whole_messages_are_read_and_the_rest_is_left() {
        let mut out = Vec::new();
        let bytes = [&frame::PONG[..], &frame::PONG, &[0, 9, 5]].concat();
        assert_eq!(WIRE.read(0, &bytes, &mut out), Ok(6));
        assert!(matches!(out[..], [Incoming::Pong, Incoming::Pong]));
    }

    #[test]
    fn pings_and_pushes_are_answered() {
        let (mut bytes, mut out) = ([0; 64], Vec::new());
        let length = Frame::Ping(b"abc").encode(&mut bytes);
        let end = length + Frame::Push { id: 7, message: b"hi" }.encode(&mut bytes[length..]);
        assert_eq!(WIRE.read(0, &bytes[..end], &mut out), Ok(end));
        let [Incoming::Reply(pong), Incoming::Push { event: None, receipt: Some(ack) }] = &out[..]
        else {
            panic!("{out:?}")
        };
        assert_eq!(pong.as_bytes(), [0, 4, 4, b'a', b'b', b'c']);
        assert_eq!(ack.as_bytes(), [0, 9, 6, 0, 0, 0, 0, 0, 0, 0, 7]);
    }

    #[test]
    fn a_websocket_is_upgraded_and_then_keeps_its_heartbeats() {
        let wire = Wire::websocket("localhost:7401", WsHeartbeat::Text, 7);
        let request = wire.greeting(3).unwrap();
        let http_upgrade::Upgrade::Accepted { response, .. } =
            http_upgrade::read_request(request.as_bytes())
        else {
            panic!("refused")
        };
        let mut out = Vec::new();
        let bytes = [&response[..], &[0x81, 4], b"pong", &[0x88, 2, 3, 0xe9], &[0x81]].concat();
        assert_eq!(wire.read(3, &bytes[..20], &mut out), Ok(0));
        assert_eq!(wire.read(3, &bytes, &mut out), Ok(bytes.len() - 1));
        assert!(
            matches!(out[..], [Incoming::Upgraded, Incoming::Pong, Incoming::Closed(1001)]),
            "{out:?}"
        );
        assert_eq!(wire.read(4, &bytes, &mut out), Err(Illegal), "the answer to another's key");
        let mut beat = wire.heartbeat(3, 9).as_bytes().to_vec();
        assert_eq!(beat[..2], [0x81, 0x84]);
        let key = [beat[2], beat[3], beat[4], beat[5]];
        mask(&mut beat[6..], key, 0);
        assert_eq!(&beat[6..], b"ping");
        assert_ne!(wire.heartbeat(3, 9).as_bytes(), wire.heartbeat(4, 9).as_bytes());
    }

    /// A PING of the server's own is answered by a PONG, with a mask of its own, and is no answer.
    #[test]
    fn a_websocket_answers_pings() {
        let wire = Wire::websocket("localhost:7401", WsHeartbeat::Text, 7);
        let mut out = Vec::new();
        let bytes = [&[0x89, 0][..], &[0x89, 3], b"abc", &[0x89, 3], b"abc"].concat();
        assert_eq!(wire.read(3, &bytes, &mut out), Ok(bytes.len()));
        let mut masks = Vec::new();
        for (message, payload) in out.iter().zip([&b""[..], b"abc", b"abc"]) {
            let Incoming::Reply(pong) = message else { panic!("{message:?}") };
            let mut pong = pong.as_bytes().to_vec();
            assert_eq!(pong[..2], [0x8a, 0x80 | payload.len() as u8]);
            let key = [pong[2], pong[3], pong[4], pong[5]];
            mask(&mut pong[6..], key, 0);
            assert_eq!(&pong[6..], payload);
            masks.push(key);
        }
        masks.dedup();
        assert_eq!(masks.len(), 3);
    }

    #[test]
    fn a_drain_says_when_to_come_back_and_pushes_say_whose_they_are() {
        let wire = Wire::websocket("localhost:7401", WsHeartbeat::Text, 7);
        let mut bytes = vec![0x81, 9];
        bytes.extend(b"push 0003");
        bytes.extend([0x88, 20, 3, 0xe9]);
        bytes.extend(b"retry-after-ms=250");
        let mut out = Vec::new();
        assert_eq!(wire.read(3, &bytes, &mut out), Ok(bytes.len()));
        let [
            Incoming::Push { event: Some(3), receipt: None },
            Incoming::GoAway { retry_after_ms: 250, closed: Some(1001) },
        ] = out[..]
        else {
            panic!("{out:?}")
        };
        let mut data = wire.data(5).as_bytes().to_vec();
        let key = [data[2], data[3], data[4], data[5]];
        mask(&mut data[6..], key, 0);
        assert_eq!(&data[6..], DATA);
    }

    #[test]
    fn what_no_server_says_is_illegal() {
        let greeting = Wire::tcp(true, 0).greeting(0).unwrap();
        for bytes in [&[0, 0][..], &[0, 1, 9], greeting.as_bytes()] {
            assert_eq!(WIRE.read(0, bytes, &mut Vec::new()), Err(Illegal), "{bytes:?}");
        }
    }
}
