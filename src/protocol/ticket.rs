//! Tickets: what a client shows to be let in, made by whoever has the key.
//!
//! `base64url(payload) "." base64url(HMAC-SHA256(key, base64url(payload)))`, both without padding;
//! the payload is JSON: `exp` (seconds since 1970), and optionally `sub` and `nonce`.
//!
//! Invariant: nothing of a payload is looked at before its MAC has been found right, in constant
//! time. Cost: one HMAC for each key that is tried, and a few allocations, once per session.
//! Source: RFC 2104; `docs/TICKETS.md`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::limits::TICKET_BYTES_MAX;

/// Bytes of a MAC.
pub const MAC_BYTES: usize = 32;

/// What a ticket says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// From this second on, counted from 1970, it is worth nothing.
    pub exp: u64,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// Whoever has one is let in once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
}

/// Why a token is no ticket of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It does not have the form of one, or its payload says no `exp`.
    #[error("malformed")]
    Malformed,
    /// None of the keys has made it.
    #[error("forged")]
    Forged,
}

/// The keys: the first one makes tickets, all of them open some.
#[derive(Clone)]
pub struct KeyRing {
    keys: Vec<Hmac<Sha256>>,
}

impl fmt::Debug for KeyRing {
    /// How many there are, and no more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({})", self.keys.len())
    }
}

impl KeyRing {
    /// A ring of these keys; `None` without any.
    pub fn new<'k>(keys: impl IntoIterator<Item = &'k [u8]>) -> Option<KeyRing> {
        let keys: Option<Vec<_>> =
            keys.into_iter().map(|key| Hmac::new_from_slice(key).ok()).collect();
        keys.filter(|keys| !keys.is_empty()).map(|keys| KeyRing { keys })
    }

    /// Makes the token of a ticket, with the first key.
    pub fn seal(&self, ticket: &Ticket) -> String {
        let payload = serde_json::to_vec(ticket).unwrap_or_default();
        let mut token = URL_SAFE_NO_PAD.encode(payload);
        let mut mac = self.keys[0].clone();
        mac.update(token.as_bytes());
        let mac = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        token.push('.');
        token.push_str(&mac);
        token
    }

    /// What a token says, and its MAC, which names it.
    ///
    /// # Errors
    /// If it is none of ours. Whether it has expired is for whoever knows the time.
    pub fn open(&self, token: &[u8]) -> Result<(Ticket, [u8; MAC_BYTES]), TicketError> {
        let malformed = TicketError::Malformed;
        if token.len() > TICKET_BYTES_MAX {
            return Err(malformed);
        }
        let dot = token.iter().position(|byte| *byte == b'.').ok_or(malformed)?;
        let (payload, mac) = (&token[..dot], &token[dot + 1..]);
        let mac = URL_SAFE_NO_PAD.decode(mac).map_err(|_| malformed)?;
        let mac: [u8; MAC_BYTES] = mac.try_into().map_err(|_| malformed)?;
        let made = |key: &Hmac<Sha256>| {
            let mut own = key.clone();
            own.update(payload);
            own.verify_slice(&mac).is_ok()
        };
        if !self.keys.iter().any(made) {
            return Err(TicketError::Forged);
        }
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| malformed)?;
        let ticket = serde_json::from_slice(&payload).map_err(|_| malformed)?;
        Ok((ticket, mac))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(keys: &[&str]) -> KeyRing {
        KeyRing::new(keys.iter().map(|key| key.as_bytes())).expect("keys")
    }

    #[test]
    fn what_was_sealed_is_opened_by_any_key_of_the_ring_and_by_no_other() {
        let ticket = Ticket { exp: 1_700_000_000, sub: Some("ä".to_owned()), nonce: None };
        let token = ring(&["the old key of ours"]).seal(&ticket);
        let rotated = ring(&["a new key", "the old key of ours"]);
        assert_eq!(rotated.open(token.as_bytes()).map(|opened| opened.0), Ok(ticket));
        assert_eq!(ring(&["another"]).open(token.as_bytes()), Err(TicketError::Forged));
    }

    /// By `openssl dgst -sha256 -hmac`, so that others can make them.
    #[test]
    fn a_ticket_made_by_openssl_is_opened() {
        let token = "eyJleHAiOjQxMDI0NDQ4MDB9.iVViNd98C8cqkqKOB06iYetNTEFN2eDs0CuSJqnX1m0";
        let opened = ring(&["0123456789abcdef"]).open(token.as_bytes());
        let expected = Ticket { exp: 4_102_444_800, sub: None, nonce: None };
        assert_eq!(opened.map(|opened| opened.0), Ok(expected));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let keys = ring(&["0123456789abcdef"]);
        let token = keys.seal(&Ticket { exp: 7, sub: None, nonce: Some("n".to_owned()) });
        for at in 0..token.len() {
            for with in [b'A', b'.', b'=', 0, 0xff] {
                let mut changed = token.clone().into_bytes();
                if changed[at] != with {
                    changed[at] = with;
                    assert!(keys.open(&changed).is_err(), "{at} {with}");
                }
            }
            assert!(keys.open(&token.as_bytes()[..at]).is_err(), "{at}");
        }
        assert_eq!(keys.open(&[b'a'; 10_000]), Err(TicketError::Malformed));
    }

    #[test]
    fn a_payload_that_says_nothing_is_malformed_even_with_a_right_mac() {
        let keys = ring(&["0123456789abcdef"]);
        for payload in ["", "{}", "[]", "{\"exp\":-1}", "{\"exp\":\"soon\"}"] {
            let front = URL_SAFE_NO_PAD.encode(payload);
            let mut mac = keys.keys[0].clone();
            mac.update(front.as_bytes());
            let mac = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
            let token = format!("{front}.{mac}");
            assert_eq!(keys.open(token.as_bytes()), Err(TicketError::Malformed), "{payload}");
        }
    }
}
