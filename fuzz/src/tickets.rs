//! Tickets: what was not made with the key is never opened, and what was is opened as it was made.

use heartwheel::protocol::ticket::{KeyRing, Ticket};

/// Reads `bytes` as a token, makes a ticket of them, and changes a byte of that.
pub fn check(bytes: &[u8]) {
    let keys = KeyRing::new([&b"a key of 16 bytes"[..]]).expect("a key");
    assert!(keys.open(bytes).is_err(), "nobody guesses a MAC");
    let text = || String::from_utf8_lossy(bytes).chars().take(100).collect::<String>();
    let nonce = bytes.first().is_some_and(|byte| byte % 2 == 0).then(text);
    let ticket = Ticket { exp: bytes.len() as u64, sub: Some(text()), nonce };
    let token = keys.seal(&ticket);
    let Ok((opened, _)) = keys.open(token.as_bytes()) else {
        assert!(token.len() > heartwheel::limits::TICKET_BYTES_MAX, "our own is opened: {token}");
        return;
    };
    assert_eq!(opened, ticket);
    let mut changed = token.into_bytes();
    let at = bytes.iter().map(|&byte| usize::from(byte)).sum::<usize>() % changed.len();
    changed[at] ^= 1 + bytes.last().copied().unwrap_or(0) % 255;
    assert!(keys.open(&changed).is_err(), "a changed byte at {at} is noticed");
}
