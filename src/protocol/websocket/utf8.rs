//! Whether text that arrives in pieces is UTF-8, told at its first bad byte.

use super::WebSocketError;

/// The front of a character whose rest is in the next piece: three bytes at most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Utf8Check {
    carried: [u8; 4],
    count: u8,
}

impl Utf8Check {
    /// Reads the next piece.
    pub(super) fn read(&mut self, piece: &[u8]) -> Result<(), WebSocketError> {
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
        let Err(error) = simdutf8::compat::from_utf8(rest) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(WebSocketError::BadUtf8);
        }
        let front = &rest[error.valid_up_to()..];
        self.carried[..front.len()].copy_from_slice(front);
        self.count = front.len() as u8;
        Ok(())
    }

    /// The text ends here.
    pub(super) fn end(&self) -> Result<(), WebSocketError> {
        if self.count > 0 { Err(WebSocketError::BadUtf8) } else { Ok(()) }
    }
}
