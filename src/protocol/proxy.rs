//! The PROXY protocol, version 2: what a proxy says of the client that it speaks for, before the
//! client's own bytes.
//!
//! Invariant: a header is refused as soon as its bytes show it to be malformed; what is kept of an
//! unfinished one is what has come, and never more than [`PROXY_HEADER_BYTES_MAX`].
//! Source: HAProxy's `proxy-protocol.txt`, section 2.2.

use super::address::PeerAddress;
use crate::limits::PROXY_HEADER_BYTES_MAX;

/// What every header begins with.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length.
const FRONT_BYTES: usize = 16;

/// What stands at the front of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A whole header.
    Whole {
        /// Whom the proxy speaks for; `None`: for itself (LOCAL), or for somebody without an
        /// address of the internet.
        source: Option<PeerAddress>,
        /// Its length; the client's own bytes follow.
        header_bytes: usize,
    },
    /// The start of a legal header; so many bytes in all must be there before it is worth asking
    /// again.
    Partial {
        /// The number of bytes, counted from the front.
        wanted: usize,
    },
}

/// No header of version 2, or one that contradicts itself, or one that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a malformed PROXY header")]
pub struct Malformed;

/// Reads the header at the front of `bytes`.
///
/// # Errors
/// As soon as the bytes that are there show that it is none.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return Err(Malformed);
    }
    let Some(front) = bytes.first_chunk::<FRONT_BYTES>() else {
        return Ok(Parsed::Partial { wanted: FRONT_BYTES });
    };
    let header_bytes = FRONT_BYTES + usize::from(u16::from_be_bytes([front[14], front[15]]));
    if header_bytes > PROXY_HEADER_BYTES_MAX {
        return Err(Malformed);
    }
    let (is_local, family) = (front[12] == 0x20, front[13]);
    if !is_local && front[12] != 0x21 {
        return Err(Malformed);
    }
    // What follows a LOCAL must be skipped, whatever it is.
    let address_bytes = match (is_local, family) {
        (true, _) | (_, 0x00) => 0,
        (_, 0x11) => 12,
        (_, 0x21) => 36,
        (_, 0x31) => 216,
        // Datagrams do not come over a connection.
        _ => return Err(Malformed),
    };
    if header_bytes < FRONT_BYTES + address_bytes {
        return Err(Malformed);
    }
    let Some(body) = bytes.get(FRONT_BYTES..header_bytes) else {
        return Ok(Parsed::Partial { wanted: header_bytes });
    };
    let (addresses, more) = body.split_at(address_bytes);
    if !is_local && family != 0x00 {
        check_tlvs(more)?;
    }
    let source = match addresses.len() {
        12 => addresses.first_chunk().copied().map(PeerAddress::v4),
        36 => addresses.first_chunk().copied().map(PeerAddress::v6),
        _ => None,
    };
    Ok(Parsed::Whole { source, header_bytes })
}

/// Steps over the type-length-values: they must fill what is left exactly.
fn check_tlvs(mut rest: &[u8]) -> Result<(), Malformed> {
    while !rest.is_empty() {
        let &[_, high, low, ..] = rest else { return Err(Malformed) };
        let value_bytes = usize::from(u16::from_be_bytes([high, low]));
        rest = rest.get(3 + value_bytes..).ok_or(Malformed)?;
    }
    Ok(())
}
