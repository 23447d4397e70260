//! Whether text that arrives in pieces is UTF-8, told at its first bad byte.

use super::WebSocketError;

/// The front of a character whose rest is in the next piece: three bytes at most.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextCheck {
    carried: [u8; 4],
    count: u8,
}

impl TextCheck {
    /// Reads the next piece.
    pub fn read(&mut self, piece: &[u8]) -> Result<(), WebSocketError> {
        let mut rest = piece;
        while self.count > 0 {
            let [first, others @ ..] = rest else { return Ok(()) };
            self.carried[usize::from(self.count)] = *first;
            self.count += 1;
            rest = others;
            match std::str::from_utf8(&self.carried[..usize::from(self.count)]) {
                Ok(_) => self.count = 0,
                Err(error) if error.error_len().is_some() => return Err(WebSocketError::BadUtf8),
                Err(_) => {}
            }
        }
        let (whole, front) = rest.split_at(rest.len() - front_bytes(rest));
        if simdutf8::basic::from_utf8(whole).is_err() {
            return Err(WebSocketError::BadUtf8);
        }
        if std::str::from_utf8(front).is_err_and(|error| error.error_len().is_some()) {
            return Err(WebSocketError::BadUtf8);
        }
        self.carried[..front.len()].copy_from_slice(front);
        self.count = front.len() as u8;
        Ok(())
    }

    /// The text ends here.
    pub fn end(&self) -> Result<(), WebSocketError> {
        if self.count > 0 { Err(WebSocketError::BadUtf8) } else { Ok(()) }
    }
}

/// How many bytes at the end of `text` begin a character that goes on after it.
fn front_bytes(text: &[u8]) -> usize {
    let character_bytes = |lead: u8| match lead {
        0xC0..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xFF => 4,
        _ => 1,
    };
    let mut last = text.iter().rev().take(3).enumerate();
    let lead = last.find(|(_, byte)| **byte & 0xC0 != 0x80);
    lead.filter(|(after, byte)| character_bytes(**byte) > after + 1)
        .map_or(0, |(after, _)| after + 1)
}
