//! The WebSocket protocol, RFC 6455, without extensions: frames, messages, and how they are
//! refused.
//!
//! [`decode`] is fed bytes in any split and reports whole messages and control frames.
//!
//! Invariants:
//! - between whole messages there is no [`Partial`]: an idle session owns no decoder and no buffer;
//! - an illegal frame is known by its header, before any of its payload is kept, and memory grows
//!   only with bytes that have arrived;
//! - text is checked as it arrives, and refused at its first bad byte.
//!
//! Cost: a whole frame of up to 125 bytes (every heartbeat) allocates nothing and is unmasked on
//! the stack. Longer or unfinished messages gather in one vector.
//! Source: RFC 6455 sections 5 to 8.

mod header;
mod partial;
mod utf8;

pub use self::header::{HEADER_BYTES_MAX, Header, Opcode, encode_header};
pub use self::partial::Partial;
pub use self::utf8::TextCheck;
use crate::limits::PING_PAYLOAD_BYTES_MAX;
use crate::vectors;

/// A text message that is a heartbeat.
pub const TEXT_PING: &[u8] = b"ping";
/// The reply to it, as a server sends it: one unmasked frame.
pub const TEXT_PONG: [u8; 6] = [0x81, 4, b'p', b'o', b'n', b'g'];

/// A heartbeat of a server's own: a control PING without a payload.
pub const CONTROL_PING: [u8; 2] = [0x89, 0];

/// The good-bye of normal closure, going away, and so on (section 7.4.1).
pub mod close_code {
    /// The purpose is fulfilled.
    pub const NORMAL: u16 = 1000;
    /// The endpoint goes away, or has given the peer up.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// Text that is not UTF-8.
    pub const INVALID_PAYLOAD: u16 = 1007;
    /// The peer broke a rule of ours.
    pub const POLICY_VIOLATION: u16 = 1008;
    /// A message over the limit.
    pub const TOO_BIG: u16 = 1009;
}

/// Which end we are: clients mask what they send, servers do not (section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We serve; what comes must be masked.
    Server,
    /// We are the client; what comes must not be masked.
    Client,
}

/// How to read.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    /// Which end we are.
    pub role: Role,
    /// The longest message, all its fragments together, in bytes.
    pub message_bytes_max: usize,
}

/// What has come whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A text message; it is UTF-8.
    Text(&'a [u8]),
    /// A binary message.
    Binary(&'a [u8]),
    /// A control PING, to be answered by a PONG with the same payload (section 5.5.2).
    Ping(&'a [u8]),
    /// A control PONG, asked for or not (section 5.5.3).
    Pong(&'a [u8]),
    /// The peer says good-bye; what comes after it is not read.
    Close {
        /// Its reason, if it gave one.
        code: Option<u16>,
        /// The same in words; UTF-8.
        reason: &'a [u8],
    },
}

/// Why a connection is failed (section 7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    /// Section 5.2: RSV1 to RSV3 must be 0 where no extension was agreed on.
    #[error("reserved bits are set")]
    ReservedBits,
    /// Section 5.2: an opcode that means nothing.
    #[error("an unknown opcode")]
    UnknownOpcode,
    /// Section 5.1: a client must mask all frames.
    #[error("a client's frame is not masked")]
    Unmasked,
    /// Section 5.1: a server must not mask any frame.
    #[error("a server's frame is masked")]
    Masked,
    /// Section 5.5: control frames must not be fragmented.
    #[error("a fragmented control frame")]
    ControlFragmented,
    /// Section 5.5: control frames carry 125 bytes at most.
    #[error("a control frame over 125 bytes")]
    ControlTooLong,
    /// Section 5.4: a continuation of nothing.
    #[error("a continuation without a start")]
    ContinuationWithoutStart,
    /// Section 5.4: a new message before the last one has ended.
    #[error("a new message within a fragmented one")]
    MessageWithinMessage,
    /// Section 5.2: the shortest form of a length must be used, and its top bit be 0.
    #[error("a length that is not encoded minimally")]
    LengthEncoding,
    /// The message is over the limit.
    #[error("a message over the limit")]
    TooBig,
    /// Section 8.1: text must be UTF-8.
    #[error("text that is not UTF-8")]
    BadUtf8,
    /// Section 5.5.1: the payload of a close is empty, or begins with two bytes of code.
    #[error("a close with half a code")]
    CloseLength,
    /// Section 7.4: a code that must not be sent.
    #[error("a close code that must not be sent")]
    CloseCode,
}

impl WebSocketError {
    /// The code to close with.
    pub const fn close_code(self) -> u16 {
        match self {
            WebSocketError::BadUtf8 => close_code::INVALID_PAYLOAD,
            WebSocketError::TooBig => close_code::TOO_BIG,
            _ => close_code::PROTOCOL_ERROR,
        }
    }
}

/// Why decoding ended: the peer's fault, or because whoever hears the events wants no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop<E> {
    /// The peer broke the protocol.
    Fault(WebSocketError),
    /// The hearer ended it.
    Hearer(E),
}

impl<E> From<WebSocketError> for Stop<E> {
    fn from(error: WebSocketError) -> Stop<E> {
        Stop::Fault(error)
    }
}

/// Reads `bytes`, after what `partial` holds of the bytes before, and tells `hear` of everything
/// that they complete. After `Event::Close`, or an error, nothing more may be read.
///
/// # Errors
/// As soon as the bytes that are there break the protocol, or if `hear` wants no more.
pub fn decode<E>(
    reader: &Reader,
    partial: &mut Option<Box<Partial>>,
    bytes: &[u8],
    mut hear: impl FnMut(Event<'_>) -> Result<(), E>,
) -> Result<(), Stop<E>> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match partial {
            None => match short_frame(reader, rest, &mut hear)? {
                Some(frame_bytes) => rest = &rest[frame_bytes..],
                None => *partial = Some(Box::default()),
            },
            Some(unfinished) => {
                rest = unfinished.read(reader, rest, &mut hear)?;
                if unfinished.is_empty() {
                    *partial = None;
                }
            }
        }
    }
    Ok(())
}

/// Handles the frame at the front of `bytes` if it is there whole, short, and a message or control
/// frame by itself: the way of every heartbeat. The number of its bytes, or `None`.
fn short_frame<E>(
    reader: &Reader,
    bytes: &[u8],
    hear: &mut impl FnMut(Event<'_>) -> Result<(), E>,
) -> Result<Option<usize>, Stop<E>> {
    let Some((header, header_bytes)) = Header::parse(bytes, reader, None)? else { return Ok(None) };
    let length = header.payload_bytes as usize;
    if !header.fin || length > PING_PAYLOAD_BYTES_MAX {
        return Ok(None);
    }
    let Some(masked) = bytes.get(header_bytes..header_bytes + length) else { return Ok(None) };
    let mut payload = [0; PING_PAYLOAD_BYTES_MAX];
    let payload = &mut payload[..length];
    payload.copy_from_slice(masked);
    header.unmask(payload, 0);
    if header.opcode == Opcode::Text {
        let mut check = TextCheck::default();
        check.read(payload)?;
        check.end()?;
    }
    hear(event(header.opcode, payload)?).map_err(Stop::Hearer)?;
    Ok(Some(header_bytes + length))
}

/// The event of a whole, unmasked frame or message.
fn event(opcode: Opcode, payload: &[u8]) -> Result<Event<'_>, WebSocketError> {
    Ok(match opcode {
        Opcode::Text => Event::Text(payload),
        Opcode::Binary | Opcode::Continuation => Event::Binary(payload),
        Opcode::Ping => Event::Ping(payload),
        Opcode::Pong => Event::Pong(payload),
        Opcode::Close => close_event(payload)?,
    })
}

fn close_event(payload: &[u8]) -> Result<Event<'_>, WebSocketError> {
    match payload {
        [] => Ok(Event::Close { code: None, reason: &[] }),
        [_] => Err(WebSocketError::CloseLength),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !may_be_sent(code) {
                return Err(WebSocketError::CloseCode);
            }
            if simdutf8::basic::from_utf8(reason).is_err() {
                return Err(WebSocketError::BadUtf8);
            }
            Ok(Event::Close { code: Some(code), reason })
        }
    }
}

/// Whether a close frame may carry this code: those of section 7.4.1 that are for the wire, those
/// registered since (1012 to 1014), and those left to libraries and applications.
const fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// From this length on the widest vectors that the processor has are worth asking for.
const WIDE_BYTES_MIN: usize = 256;

/// Masks or unmasks `bytes` in place (section 5.3); `offset` is the place of the first of them in
/// its frame's payload.
pub fn mask(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    let mut key = key;
    key.rotate_left(offset % 4);
    let word = u64::from_ne_bytes(std::array::from_fn(|index| key[index % 4]));
    if bytes.len() < WIDE_BYTES_MIN {
        mask_by_words(bytes, word);
    } else {
        vectors::with_wide_vectors(|| mask_by_words(bytes, word));
    }
}

/// Eight bytes at a time is what the compiler makes vectors of; inlined, so that they are as wide
/// as the caller may use.
#[inline(always)]
fn mask_by_words(bytes: &mut [u8], word: u64) {
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(word.to_ne_bytes()) {
        *byte ^= key;
    }
}
