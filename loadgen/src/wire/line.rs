//! Lines over TCP that are given as templates: a request, and the reply that is expected.
//!
//! A line that is neither the expected reply nor the welcome is activity, no more. A reply with
//! `{seq}` in it answers that heartbeat and no other.

use heartwheel::outgoing::Outgoing;

use super::{Buffers, Illegal, Incoming, Reading, Template};
use crate::limits::LINE_BYTES_MAX;

/// What is said and heard.
#[derive(Clone, Debug)]
pub struct Line {
    /// A connection begins with it.
    pub hello: Option<Template>,
    /// A client is open once this has come; `None`: as soon as TCP says so.
    pub welcome: Option<Template>,
    /// The heartbeat.
    pub send: Template,
    /// Its answer.
    pub expect: Template,
}

impl Line {
    pub fn is_welcomed(&self) -> bool {
        self.welcome.is_some()
    }

    pub fn greeting(&'static self, client: u32, buffers: &mut Buffers) -> Option<Outgoing> {
        self.hello.as_ref().map(|hello| filled(hello, client, 0, buffers))
    }

    pub fn request(&'static self, client: u32, seq: u32, buffers: &mut Buffers) -> Outgoing {
        filled(&self.send, client, seq, buffers)
    }

    pub fn read(
        &self,
        reading: Reading,
        bytes: &[u8],
        out: &mut Vec<Incoming>,
    ) -> Result<usize, Illegal> {
        let (mut taken, mut opening) = (0, reading.opening);
        while let Some(end) = bytes[taken..].iter().position(|&byte| byte == b'\n') {
            let line = &bytes[taken..=taken + end];
            taken += line.len();
            let welcome = self.welcome.as_ref().filter(|_| opening);
            out.push(match welcome {
                Some(welcome) if welcome.read(reading.client, line).is_some() => {
                    opening = false;
                    Incoming::Upgraded
                }
                Some(_) => Incoming::Data,
                None => self.meaning(reading.client, line),
            });
        }
        match bytes.len() - taken > LINE_BYTES_MAX {
            true => Err(Illegal),
            false => Ok(taken),
        }
    }

    fn meaning(&self, client: u32, line: &[u8]) -> Incoming {
        match self.expect.read(client, line) {
            Some(Some(seq)) => Incoming::PongTo(seq),
            Some(None) => Incoming::Pong,
            None => Incoming::Data,
        }
    }
}

/// What is the same for all is sent from where it lies.
fn filled(template: &'static Template, client: u32, seq: u32, buffers: &mut Buffers) -> Outgoing {
    match template.constant() {
        Some(bytes) => Outgoing::Static(bytes),
        None => buffers.fill(|bytes| template.write(client, seq, bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Wire;
    use super::super::tests::{expect_the_same_at_every_split, read};
    use super::*;

    fn wire(welcome: Option<&str>, send: &str, expect: &str) -> Wire {
        let template = |text: &str| Template::parse(text).unwrap();
        Wire::line(Line {
            hello: welcome.map(|_| template("HELLO {client}\\r\\n")),
            welcome: welcome.map(template),
            send: template(send),
            expect: template(expect),
        })
    }

    #[test]
    fn requests_are_numbered_and_so_are_the_replies() {
        let (wire, buffers) =
            (wire(None, "PING {seq}\\n", "PONG {seq}\\n"), &mut Buffers::default());
        assert!(wire.greeting(3, buffers).is_none() && !wire.is_welcomed());
        assert_eq!(wire.heartbeat(3, 12, buffers).as_bytes(), b"PING 12\n");
        let bytes = b"PONG 12\nPONG\nwhat?\nPONG 13\nPO";
        let (out, taken) = read(wire, false, bytes).unwrap();
        let [Incoming::PongTo(12), Incoming::Data, Incoming::Data, Incoming::PongTo(13)] = out[..]
        else {
            panic!("{out:?}")
        };
        assert_eq!(taken, bytes.len() - 2);
        expect_the_same_at_every_split(wire, false, bytes);
    }

    /// As with redis, where the welcome is the same line as the reply.
    #[test]
    fn the_welcome_comes_first() {
        let wire = wire(Some("+PONG\\r\\n"), "PING\\r\\n", "+PONG\\r\\n");
        let buffers = &mut Buffers::default();
        assert!(wire.is_welcomed());
        assert_eq!(wire.greeting(3, buffers).unwrap().as_bytes(), b"HELLO 3\r\n");
        assert!(matches!(wire.heartbeat(3, 1, buffers), Outgoing::Static(b"PING\r\n")));
        let bytes = b"# motd\r\n+PONG\r\n+PONG\r\n+PONG\r\n";
        let (out, _) = read(wire, true, bytes).unwrap();
        let [Incoming::Data, Incoming::Upgraded, Incoming::Pong, Incoming::Pong] = out[..] else {
            panic!("{out:?}")
        };
        expect_the_same_at_every_split(wire, true, bytes);
    }

    #[test]
    fn a_line_without_an_end_is_not_waited_for() {
        let wire = wire(None, "a\\n", "b\\n");
        assert_eq!(read(wire, false, &[b'x'; LINE_BYTES_MAX]).unwrap().1, 0);
        assert!(read(wire, false, &[b'x'; LINE_BYTES_MAX + 1]).is_err());
    }
}
