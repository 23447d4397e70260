//! The TCP protocol: `length: u16 big endian | kind: u8 | payload[length - 1]`.
//!
//! Invariant: an illegal frame is known by its header, before any of its payload has been kept.
//! Cost: parsing allocates nothing and copies nothing; a frame borrows from the bytes it is in.
//! Source: `docs/PROTOCOL.md`.

use crate::limits::{PING_PAYLOAD_BYTES_MAX, TCP_FRAME_BYTES_MAX};
use crate::mutants::{Mutant, is};

/// The version that a HELLO must name.
pub const VERSION: u8 = 1;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 3;
/// The shortest payload of a HELLO: version and wanted interval.
const HELLO_PAYLOAD_BYTES_MIN: usize = 5;

/// The reason in a GOAWAY of a server that is stopping.
pub const GOAWAY_STOPPING: u16 = 1;

/// A heartbeat without a payload.
pub const PING: [u8; 3] = [0, 1, Kind::Ping as u8];
/// The reply to it.
pub const PONG: [u8; 3] = [0, 1, Kind::Pong as u8];

/// What a frame is, by its third byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// From a client that wants to introduce itself.
    Hello = 1,
    /// The answer to a HELLO.
    Welcome = 2,
    /// A heartbeat, from either side.
    Ping = 3,
    /// The reply to a PING, with its payload.
    Pong = 4,
    /// A message that the server pushes.
    Push = 5,
    /// A client's receipt for a PUSH.
    PushAck = 6,
    /// A message, from either side.
    Data = 7,
    /// The server says good-bye.
    GoAway = 8,
    /// The server changes the terms of a session.
    Adjust = 9,
}

impl Kind {
    /// The kind with this number.
    pub const fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Hello,
            2 => Kind::Welcome,
            3 => Kind::Ping,
            4 => Kind::Pong,
            5 => Kind::Push,
            6 => Kind::PushAck,
            7 => Kind::Data,
            8 => Kind::GoAway,
            9 => Kind::Adjust,
            _ => return None,
        })
    }

    /// How long the payload may be, at least and at most, where the protocol fixes it.
    const fn payload_bytes(self) -> (usize, usize) {
        match self {
            Kind::Hello => (HELLO_PAYLOAD_BYTES_MIN, TCP_FRAME_BYTES_MAX),
            Kind::Welcome => (16, 16),
            Kind::Ping | Kind::Pong => (0, PING_PAYLOAD_BYTES_MAX),
            Kind::Push => (8, TCP_FRAME_BYTES_MAX),
            Kind::PushAck => (8, 8),
            Kind::Data => (0, TCP_FRAME_BYTES_MAX),
            Kind::GoAway => (6, 6),
            Kind::Adjust => (12, 12),
        }
    }
}

/// A whole frame; its payload lies where it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A client introduces itself.
    Hello {
        /// The heartbeat interval that it would like, in milliseconds; 0 leaves it to the server.
        interval_ms: u32,
        /// Whatever it brings to prove itself; may be empty.
        token: &'a [u8],
    },
    /// The answer to a HELLO.
    Welcome {
        /// The session's public id.
        session: u64,
        /// The heartbeat interval to keep, in milliseconds.
        interval_ms: u32,
        /// After this silence the session is expired, in milliseconds.
        idle_timeout_ms: u32,
    },
    /// A heartbeat.
    Ping(&'a [u8]),
    /// The reply to one.
    Pong(&'a [u8]),
    /// A pushed message.
    Push {
        /// The id to acknowledge.
        id: u64,
        /// The message.
        message: &'a [u8],
    },
    /// The receipt for a pushed message.
    PushAck {
        /// The id of the PUSH.
        id: u64,
    },
    /// A message.
    Data(&'a [u8]),
    /// The server says good-bye.
    GoAway {
        /// Why, as a number.
        reason: u16,
        /// Come back after this many milliseconds.
        retry_after_ms: u32,
    },
    /// The server changes the terms of a session.
    Adjust {
        /// The heartbeat interval to keep from now on, in milliseconds.
        interval_ms: u32,
        /// After this silence the session is expired, in milliseconds.
        idle_timeout_ms: u32,
        /// The next heartbeat is to come so long from now, in milliseconds.
        next_in_ms: u32,
    },
}

/// Why a frame is illegal: whoever sends one is closed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field is 0.
    #[error("a frame of length 0")]
    LengthZero,
    /// The length exceeds the limit.
    #[error("a frame over the limit")]
    Oversize,
    /// The kind is 0.
    #[error("a frame of kind 0")]
    KindZero,
    /// No kind has this number.
    #[error("a frame of an unknown kind")]
    KindUnknown,
    /// The payload is too short or too long for its kind.
    #[error("a payload that is too short or too long for its kind")]
    PayloadLength,
    /// A HELLO of a version that we do not speak.
    #[error("a HELLO of another version")]
    HelloVersion,
}

/// What stands at the front of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A whole frame, and how many bytes it took.
    Whole(Frame<'a>, usize),
    /// The start of a legal frame. `wanted` bytes in all must be there before it is worth asking
    /// again: the header first, then the whole frame.
    Partial {
        /// The number of bytes, counted from the front.
        wanted: usize,
    },
}

/// Parses the frame at the front of `bytes`; `frame_bytes_max` bounds the length field.
///
/// # Errors
/// As soon as the bytes that are there show the frame to be illegal.
pub fn parse(bytes: &[u8], frame_bytes_max: usize) -> Result<Parsed<'_>, FrameError> {
    let &[high, low, ..] = bytes else {
        return Ok(Parsed::Partial { wanted: HEADER_BYTES });
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length == 0 {
        return Err(FrameError::LengthZero);
    }
    if length > frame_bytes_max && !is(Mutant::LengthLimitMissed) {
        return Err(FrameError::Oversize);
    }
    let Some(&kind) = bytes.get(2) else {
        return Ok(Parsed::Partial { wanted: HEADER_BYTES });
    };
    let kind = check_kind(kind, length)?;
    if let (Kind::Hello, Some(&version)) = (kind, bytes.get(HEADER_BYTES))
        && version != VERSION
    {
        return Err(FrameError::HelloVersion);
    }
    let frame_bytes = length + 2;
    match bytes.get(HEADER_BYTES..frame_bytes) {
        Some(payload) => Ok(Parsed::Whole(read(kind, payload), frame_bytes)),
        None => Ok(Parsed::Partial { wanted: frame_bytes }),
    }
}

fn check_kind(byte: u8, length: usize) -> Result<Kind, FrameError> {
    if byte == 0 {
        return Err(FrameError::KindZero);
    }
    let kind = Kind::from_byte(byte).ok_or(FrameError::KindUnknown)?;
    let (min, max) = kind.payload_bytes();
    if length - 1 < min || length - 1 > max {
        return Err(FrameError::PayloadLength);
    }
    Ok(kind)
}

/// Reads a payload whose length `check_kind` has found right.
fn read(kind: Kind, payload: &[u8]) -> Frame<'_> {
    match kind {
        Kind::Hello => Frame::Hello { interval_ms: u32_at(payload, 1), token: &payload[5..] },
        Kind::Welcome => Frame::Welcome {
            session: u64_at(payload, 0),
            interval_ms: u32_at(payload, 8),
            idle_timeout_ms: u32_at(payload, 12),
        },
        Kind::Ping => Frame::Ping(payload),
        Kind::Pong => Frame::Pong(payload),
        Kind::Push => Frame::Push { id: u64_at(payload, 0), message: &payload[8..] },
        Kind::PushAck => Frame::PushAck { id: u64_at(payload, 0) },
        Kind::Data => Frame::Data(payload),
        Kind::GoAway => Frame::GoAway {
            reason: u16::from_be_bytes([payload[0], payload[1]]),
            retry_after_ms: u32_at(payload, 2),
        },
        Kind::Adjust => Frame::Adjust {
            interval_ms: u32_at(payload, 0),
            idle_timeout_ms: u32_at(payload, 4),
            next_in_ms: u32_at(payload, 8),
        },
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}

impl Frame<'_> {
    /// What kind of frame this is.
    pub fn kind(&self) -> Kind {
        match self {
            Frame::Hello { .. } => Kind::Hello,
            Frame::Welcome { .. } => Kind::Welcome,
            Frame::Ping(_) => Kind::Ping,
            Frame::Pong(_) => Kind::Pong,
            Frame::Push { .. } => Kind::Push,
            Frame::PushAck { .. } => Kind::PushAck,
            Frame::Data(_) => Kind::Data,
            Frame::GoAway { .. } => Kind::GoAway,
            Frame::Adjust { .. } => Kind::Adjust,
        }
    }

    /// How many bytes the frame takes, header included.
    pub fn encoded_bytes(&self) -> usize {
        HEADER_BYTES
            + match self {
                Frame::Hello { token, .. } => HELLO_PAYLOAD_BYTES_MIN + token.len(),
                Frame::Welcome { .. } => 16,
                Frame::Ping(payload) | Frame::Pong(payload) | Frame::Data(payload) => payload.len(),
                Frame::Push { message, .. } => 8 + message.len(),
                Frame::PushAck { .. } => 8,
                Frame::GoAway { .. } => 6,
                Frame::Adjust { .. } => 12,
            }
    }

    /// Writes the frame to the front of `out` and says how many bytes it took.
    ///
    /// # Panics
    /// If `out` is shorter than [`Frame::encoded_bytes`], or the frame longer than a length field
    /// can state: check before.
    pub fn encode(&self, out: &mut [u8]) -> usize {
        let total = self.encoded_bytes();
        let length = u16::try_from(total - 2).expect("the caller keeps to TCP_FRAME_BYTES_MAX");
        let mut writer = Writer { out, at: 0 };
        writer.put(&length.to_be_bytes());
        writer.put(&[self.kind() as u8]);
        match *self {
            Frame::Hello { interval_ms, token } => {
                writer.put(&[VERSION]);
                writer.put(&interval_ms.to_be_bytes());
                writer.put(token);
            }
            Frame::Welcome { session, interval_ms, idle_timeout_ms } => {
                writer.put(&session.to_be_bytes());
                writer.put(&interval_ms.to_be_bytes());
                writer.put(&idle_timeout_ms.to_be_bytes());
            }
            Frame::Ping(payload) | Frame::Pong(payload) | Frame::Data(payload) => {
                writer.put(payload);
            }
            Frame::Push { id, message } => {
                writer.put(&id.to_be_bytes());
                writer.put(message);
            }
            Frame::PushAck { id } => writer.put(&id.to_be_bytes()),
            Frame::GoAway { reason, retry_after_ms } => {
                writer.put(&reason.to_be_bytes());
                writer.put(&retry_after_ms.to_be_bytes());
            }
            Frame::Adjust { interval_ms, idle_timeout_ms, next_in_ms } => {
                writer.put(&interval_ms.to_be_bytes());
                writer.put(&idle_timeout_ms.to_be_bytes());
                writer.put(&next_in_ms.to_be_bytes());
            }
        }
        total
    }
}

struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_three_bytes() {
        let mut out = [0; 3];
        assert_eq!(Frame::Ping(b"").encode(&mut out), 3);
        assert_eq!(out, PING);
        assert_eq!(parse(&PONG, 64), Ok(Parsed::Whole(Frame::Pong(b""), 3)));
    }

    #[test]
    fn illegal_frames_are_known_by_their_header() {
        let cases: [(&[u8], FrameError); 9] = [
            (&[0, 0], FrameError::LengthZero),
            (&[0xff, 0xff], FrameError::Oversize),
            (&[0, 5, 0], FrameError::KindZero),
            (&[0, 5, 10], FrameError::KindUnknown),
            (&[0, 127, 3], FrameError::PayloadLength),
            (&[0, 127, 4], FrameError::PayloadLength),
            (&[0, 5, 1], FrameError::PayloadLength),
            (&[0, 6, 1, 2], FrameError::HelloVersion),
            (&[0, 8, 6], FrameError::PayloadLength),
        ];
        for (bytes, error) in cases {
            assert_eq!(parse(bytes, 1_000), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn a_partial_frame_tells_what_it_wants() {
        assert_eq!(parse(&[], 64), Ok(Parsed::Partial { wanted: 3 }));
        assert_eq!(parse(&[0], 64), Ok(Parsed::Partial { wanted: 3 }));
        assert_eq!(parse(&[0, 9, 7, 1], 64), Ok(Parsed::Partial { wanted: 11 }));
    }
}
