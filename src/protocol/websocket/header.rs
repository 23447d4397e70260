//! The header of a frame: RFC 6455 section 5.2.

use super::{Reader, Role, WebSocketError, mask};
use crate::limits::PING_PAYLOAD_BYTES_MAX;
use crate::mutants::{Mutant, is};

/// The longest header: two bytes, a 64-bit length, a key.
pub const HEADER_BYTES_MAX: usize = 14;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// The next fragment of a message.
    Continuation = 0,
    /// A text message, or its first fragment.
    Text = 1,
    /// A binary message, or its first fragment.
    Binary = 2,
    /// Good-bye.
    Close = 8,
    /// A heartbeat.
    Ping = 9,
    /// The reply to one.
    Pong = 10,
}

impl Opcode {
    const fn from_bits(bits: u8) -> Option<Opcode> {
        Some(match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }

    /// Whether frames of it may come within a fragmented message.
    pub const fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// A frame without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The last fragment, or the only one.
    pub fin: bool,
    /// What it is.
    pub opcode: Opcode,
    /// The masking key, if there is one.
    pub key: Option<[u8; 4]>,
    /// The length of the payload.
    pub payload_bytes: u64,
}

impl Header {
    /// The header at the front of `bytes` and its length, or `None` if they end before it does.
    /// `gathered_bytes` is the length so far of the message that is being received in fragments.
    ///
    /// # Errors
    /// As soon as the bytes that are there break a rule.
    pub(super) fn parse(
        bytes: &[u8],
        reader: &Reader,
        gathered_bytes: Option<usize>,
    ) -> Result<Option<(Header, usize)>, WebSocketError> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let (fin, opcode) = parse_first(first, gathered_bytes.is_some())?;
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        let masked = second & 0x80 != 0;
        match (reader.role, masked) {
            (Role::Server, false) => return Err(WebSocketError::Unmasked),
            (Role::Client, true) => return Err(WebSocketError::Masked),
            _ => {}
        }
        let short = second & 0x7f;
        if opcode.is_control() && usize::from(short) > PING_PAYLOAD_BYTES_MAX {
            return Err(WebSocketError::ControlTooLong);
        }
        let Some((payload_bytes, length_end)) = parse_length(bytes, short)? else {
            return Ok(None);
        };
        if !opcode.is_control() {
            let room = reader.message_bytes_max.saturating_sub(gathered_bytes.unwrap_or(0));
            if payload_bytes > room as u64 {
                return Err(WebSocketError::TooBig);
            }
        }
        let (key, end) = match masked {
            false => (None, length_end),
            true => match bytes.get(length_end..length_end + 4) {
                Some(&[a, b, c, d]) => (Some([a, b, c, d]), length_end + 4),
                _ => return Ok(None),
            },
        };
        Ok(Some((Header { fin, opcode, key, payload_bytes }, end)))
    }

    /// Unmasks a part of the payload that begins at `offset`.
    pub(super) fn unmask(&self, bytes: &mut [u8], offset: usize) {
        let ignored = |key: [u8; 4]| is(Mutant::MaskIgnored) && key[0] % 4 == 1;
        if let Some(key) = self.key.filter(|key| !ignored(*key)) {
            mask(bytes, key, offset);
        }
    }
}

fn parse_first(byte: u8, in_message: bool) -> Result<(bool, Opcode), WebSocketError> {
    if byte & 0x70 != 0 {
        return Err(WebSocketError::ReservedBits);
    }
    let fin = byte & 0x80 != 0;
    let opcode = Opcode::from_bits(byte & 0x0f).ok_or(WebSocketError::UnknownOpcode)?;
    match opcode {
        _ if opcode.is_control() && !fin => Err(WebSocketError::ControlFragmented),
        Opcode::Continuation if !in_message => Err(WebSocketError::ContinuationWithoutStart),
        Opcode::Text | Opcode::Binary if in_message => Err(WebSocketError::MessageWithinMessage),
        _ => Ok((fin, opcode)),
    }
}

/// The payload's length, and where in the header it ends.
fn parse_length(bytes: &[u8], short: u8) -> Result<Option<(u64, usize)>, WebSocketError> {
    let (length, end, least) = match short {
        126 => match bytes.get(2..4) {
            Some(&[high, low]) => (u64::from(u16::from_be_bytes([high, low])), 4, 126),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|long| <[u8; 8]>::try_from(long).ok()) {
            Some(long) => (u64::from_be_bytes(long), 10, 1 << 16),
            None => return Ok(None),
        },
        short => (u64::from(short), 2, 0),
    };
    if length < least || length >> 63 != 0 {
        return Err(WebSocketError::LengthEncoding);
    }
    Ok(Some((length, end)))
}

/// Writes the header of a whole frame, and says how many bytes it took.
pub fn encode_header(
    opcode: Opcode,
    payload_bytes: u64,
    key: Option<[u8; 4]>,
    out: &mut [u8; HEADER_BYTES_MAX],
) -> usize {
    let masked = if key.is_some() { 0x80 } else { 0 };
    out[0] = 0x80 | opcode as u8;
    let mut end = match payload_bytes {
        0..=125 => {
            out[1] = masked | payload_bytes as u8;
            2
        }
        126..=0xffff => {
            out[1] = masked | 126;
            out[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
            4
        }
        _ => {
            out[1] = masked | 127;
            out[2..10].copy_from_slice(&payload_bytes.to_be_bytes());
            10
        }
    };
    if let Some(key) = key {
        out[end..end + 4].copy_from_slice(&key);
        end += 4;
    }
    end
}
