//! Text with places for numbers: `PING {seq}\r\n`.
//!
//! `{seq}` is the number of the heartbeat, from 1 on, `{client}` that of the client in the plan.
//! Every other brace stands for itself; `\{` does even in front of those names. Escapes: `\r`,
//! `\n`, `\t`, `\0`, `\\` and `\xHH`.
//!
//! Invariant: what is written is at most [`TEMPLATE_BYTES_MAX`] long, whatever the numbers are.

use std::borrow::Cow;

use crate::limits::TEMPLATE_BYTES_MAX;

/// The digits of the largest number.
const NUMBER_BYTES_MAX: usize = 10;

/// A template that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Bytes(Vec<u8>),
    Seq,
    Client,
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Nothing.
    #[error("it is empty")]
    Empty,
    /// What an escape may be.
    #[error("`\\{0}` is no escape: there are \\r, \\n, \\t, \\0, \\\\, \\{{ and \\xHH")]
    Escape(String),
    /// The bound.
    #[error(
        "it may get longer than {TEMPLATE_BYTES_MAX} bytes (a number counts as 10): shorten it"
    )]
    TooLong,
}

impl Template {
    /// Reads one.
    ///
    /// # Errors
    /// If it is empty or too long, or has a wrong escape.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        let mut parts = Vec::new();
        let mut bytes = Vec::new();
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            let placeholder = [("{seq}", Part::Seq), ("{client}", Part::Client)]
                .into_iter()
                .find_map(|(name, part)| Some((rest.strip_prefix(name)?, part)));
            if let Some((behind, part)) = placeholder {
                if !bytes.is_empty() {
                    parts.push(Part::Bytes(std::mem::take(&mut bytes)));
                }
                parts.push(part);
                rest = behind;
            } else if letter == '\\' {
                let (byte, length) = escape(&rest[1..])?;
                bytes.push(byte);
                rest = &rest[1 + length..];
            } else {
                bytes.extend_from_slice(&rest.as_bytes()[..letter.len_utf8()]);
                rest = &rest[letter.len_utf8()..];
            }
        }
        if !bytes.is_empty() {
            parts.push(Part::Bytes(bytes));
        }
        let template = Template { parts };
        match template.bytes_max() {
            0 => Err(TemplateError::Empty),
            length if length > TEMPLATE_BYTES_MAX => Err(TemplateError::TooLong),
            _ => Ok(template),
        }
    }

    fn bytes_max(&self) -> usize {
        let of = |part: &Part| match part {
            Part::Bytes(bytes) => bytes.len(),
            Part::Seq | Part::Client => NUMBER_BYTES_MAX,
        };
        self.parts.iter().map(of).sum()
    }

    /// What it is for everybody and always, if it has no numbers.
    pub fn constant(&self) -> Option<&[u8]> {
        match &self.parts[..] {
            [Part::Bytes(bytes)] => Some(bytes),
            _ => None,
        }
    }

    /// Whether it has the number of the heartbeat.
    pub fn has_seq(&self) -> bool {
        self.parts.contains(&Part::Seq)
    }

    /// Whether it ends a line.
    pub fn ends_line(&self) -> bool {
        matches!(self.parts.last(), Some(Part::Bytes(bytes)) if bytes.ends_with(b"\n"))
    }

    /// Whether a line ends within it.
    pub fn has_inner_line(&self) -> bool {
        let ends = |part: &Part| match part {
            Part::Bytes(bytes) => bytes.iter().filter(|&&byte| byte == b'\n').count(),
            Part::Seq | Part::Client => 0,
        };
        self.parts.iter().map(ends).sum::<usize>() > usize::from(self.ends_line())
    }

    /// Whether numbers can be read out of it: none is followed by a number or a digit.
    pub fn is_readable(&self) -> bool {
        self.parts.windows(2).all(|pair| match pair {
            [Part::Bytes(_), _] => true,
            [_, Part::Bytes(bytes)] => !bytes[0].is_ascii_digit(),
            _ => false,
        })
    }

    /// Writes it to the front of `out`, and says how long it is.
    ///
    /// # Panics
    /// If `out` is shorter than [`TEMPLATE_BYTES_MAX`].
    pub fn write(&self, client: u32, seq: u32, out: &mut [u8]) -> usize {
        let mut end = 0;
        for part in &self.parts {
            let mut digits = [0; NUMBER_BYTES_MAX];
            let bytes = match part {
                Part::Bytes(bytes) => bytes,
                Part::Seq => decimal(seq, &mut digits),
                Part::Client => decimal(client, &mut digits),
            };
            out[end..end + bytes.len()].copy_from_slice(bytes);
            end += bytes.len();
        }
        end
    }

    /// The same in memory of its own.
    pub fn render(&self, client: u32) -> Cow<'_, [u8]> {
        match self.constant() {
            Some(bytes) => Cow::Borrowed(bytes),
            None => {
                let mut bytes = vec![0; TEMPLATE_BYTES_MAX];
                let length = self.write(client, 0, &mut bytes);
                bytes.truncate(length);
                Cow::Owned(bytes)
            }
        }
    }

    /// Whether `bytes` are what it is for `client`; if so, the number of the heartbeat in it.
    pub fn read(&self, client: u32, bytes: &[u8]) -> Option<Option<u32>> {
        let (mut rest, mut seq) = (bytes, None);
        for part in &self.parts {
            match part {
                Part::Bytes(expected) => rest = rest.strip_prefix(&expected[..])?,
                Part::Seq => {
                    let number = take_number(&mut rest)?;
                    if seq.replace(number).is_some_and(|before| before != number) {
                        return None;
                    }
                }
                Part::Client => {
                    if take_number(&mut rest)? != client {
                        return None;
                    }
                }
            }
        }
        rest.is_empty().then_some(seq)
    }
}

/// The byte that an escape stands for, and its length without the backslash.
fn escape(text: &str) -> Result<(u8, usize), TemplateError> {
    let byte = match text.as_bytes() {
        [b'r', ..] => b'\r',
        [b'n', ..] => b'\n',
        [b't', ..] => b'\t',
        [b'0', ..] => 0,
        [b'\\', ..] => b'\\',
        [b'{', ..] => b'{',
        [b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
            let byte = u8::from_str_radix(&text[1..3], 16);
            return Ok((byte.map_err(|_| TemplateError::Escape(text.to_owned()))?, 3));
        }
        _ => return Err(TemplateError::Escape(text.chars().take(3).collect())),
    };
    Ok((byte, 1))
}

/// The digits of `number`, without a memory of their own.
fn decimal(mut number: u32, digits: &mut [u8; NUMBER_BYTES_MAX]) -> &[u8] {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[start..];
        }
    }
}

/// Takes the number off the front.
fn take_number(bytes: &mut &[u8]) -> Option<u32> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = bytes.split_at(digits);
    *bytes = rest;
    std::str::from_utf8(number).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, client: u32, seq: u32) -> Vec<u8> {
        let mut bytes = [0; TEMPLATE_BYTES_MAX];
        let length = Template::parse(text).unwrap().write(client, seq, &mut bytes);
        bytes[..length].to_vec()
    }

    #[test]
    fn numbers_and_escapes_are_filled_in() {
        for (text, expected) in [
            ("PING\\r\\n", &b"PING\r\n"[..]),
            ("{seq} {client}{seq}\\n", b"12 712\n"),
            ("{\"ping\":{seq}}\\n", b"{\"ping\":12}\n"),
            ("\\{seq}\\x00\\xfF\\\\\\t\\0", b"{seq}\0\xff\\\t\0"),
            ("é{sec}", "é{sec}".as_bytes()),
        ] {
            assert_eq!(written(text, 7, 12), expected, "{text}");
        }
        assert_eq!(written("{seq}", 0, u32::MAX), b"4294967295");
        assert_eq!(written("{seq}", 0, 0), b"0");
    }

    #[test]
    fn what_is_no_template_says_why() {
        for text in ["", "\\", "\\q", "\\x1", "\\xg0", "\\é"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
        let longest = "x".repeat(TEMPLATE_BYTES_MAX);
        assert!(Template::parse(&longest).is_ok());
        assert_eq!(Template::parse(&format!("{longest}x")), Err(TemplateError::TooLong));
        assert_eq!(
            Template::parse(&format!("{}{{seq}}", &longest[9..])),
            Err(TemplateError::TooLong)
        );
    }

    #[test]
    fn numbers_are_read_back() {
        let reply = Template::parse("+{client}:{seq}\\r\\n").unwrap();
        assert!(reply.is_readable() && reply.ends_line() && !reply.has_inner_line());
        assert_eq!(reply.read(7, b"+7:12\r\n"), Some(Some(12)));
        for wrong in [&b"+8:12\r\n"[..], b"+7:\r\n", b"+7:12\r\n ", b"+7:12", b"+7:99999999999\r\n"]
        {
            assert_eq!(reply.read(7, wrong), None, "{wrong:?}");
        }
        assert_eq!(Template::parse("+PONG\\r\\n").unwrap().read(7, b"+PONG\r\n"), Some(None));
        let twice = Template::parse("{seq} {seq}\\n").unwrap();
        assert_eq!((twice.read(0, b"1 1\n"), twice.read(0, b"1 2\n")), (Some(Some(1)), None));
        for unreadable in ["{seq}{client}\\n", "{seq}0\\n"] {
            assert!(!Template::parse(unreadable).unwrap().is_readable(), "{unreadable}");
        }
        assert!(Template::parse("a\\nb\\n").unwrap().has_inner_line());
        assert!(!Template::parse("{seq}").unwrap().ends_line());
    }
}
