//! The protocol as a client speaks it: what to send, and what the bytes that come back mean.
//!
//! Another protocol is another variant of [`Wire`]; the worker knows only [`Incoming`].

use heartwheel::limits::TCP_FRAME_BYTES_MAX;
use heartwheel::outgoing::{Outgoing, SMALL_BUFFER_BYTES};
use heartwheel::protocol::frame::{self, Frame, Parsed};

/// Something that a server said.
#[derive(Debug)]
pub enum Incoming {
    /// The session is open, under these terms.
    Welcome {
        /// The interval that the server wants.
        interval_ms: u32,
        /// After this silence it expires the session.
        idle_timeout_ms: u32,
    },
    /// A heartbeat was answered.
    Pong,
    /// To be answered with these bytes.
    Reply(Outgoing),
    /// A message that was pushed, to be acknowledged with these bytes.
    Push(Outgoing),
    /// Any other message: activity, no more.
    Data,
    /// The server says good-bye.
    GoAway,
}

/// Which protocol, and how it begins.
#[derive(Clone, Copy, Debug)]
pub enum Wire {
    /// Length-prefixed frames over TCP.
    Tcp {
        /// What a connection begins with; `None`: with the first heartbeat.
        hello: Option<&'static [u8]>,
    },
}

/// The server broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Illegal;

impl Wire {
    /// The TCP protocol; a HELLO asks for `interval_ms` (0 leaves it to the server).
    pub fn tcp(hello: bool, interval_ms: u32) -> Wire {
        let hello = hello.then(|| {
            let mut bytes = [0; 8];
            Frame::Hello { interval_ms, token: b"" }.encode(&mut bytes);
            // Once per process: sent by every client, so it may live for ever.
            &*Box::leak(Box::new(bytes)) as &'static [u8]
        });
        Wire::Tcp { hello }
    }

    /// Its name in a report.
    pub fn name(self) -> &'static str {
        match self {
            Wire::Tcp { .. } => "tcp",
        }
    }

    /// What a connection begins with, to be answered by [`Incoming::Welcome`].
    pub fn greeting(self) -> Option<Outgoing> {
        match self {
            Wire::Tcp { hello } => hello.map(Outgoing::Static),
        }
    }

    /// A heartbeat.
    pub fn heartbeat(self) -> Outgoing {
        match self {
            Wire::Tcp { .. } => Outgoing::Static(&frame::PING),
        }
    }

    /// Reads the whole messages at the front of `bytes` into `out`, and says how many bytes they
    /// took: the rest is the beginning of another.
    ///
    /// # Errors
    /// If the bytes break the protocol.
    pub fn read(self, bytes: &[u8], out: &mut Vec<Incoming>) -> Result<usize, Illegal> {
        match self {
            Wire::Tcp { .. } => read_frames(bytes, out),
        }
    }
}

fn read_frames(bytes: &[u8], out: &mut Vec<Incoming>) -> Result<usize, Illegal> {
    let mut taken = 0;
    while taken < bytes.len() {
        match frame::parse(&bytes[taken..], TCP_FRAME_BYTES_MAX) {
            Ok(Parsed::Whole(frame, length)) => {
                out.push(meaning(frame)?);
                taken += length;
            }
            Ok(Parsed::Partial { .. }) => break,
            Err(_) => return Err(Illegal),
        }
    }
    Ok(taken)
}

fn meaning(frame: Frame<'_>) -> Result<Incoming, Illegal> {
    Ok(match frame {
        Frame::Pong(_) => Incoming::Pong,
        Frame::Welcome { interval_ms, idle_timeout_ms, .. } => {
            Incoming::Welcome { interval_ms, idle_timeout_ms }
        }
        Frame::Ping(b"") => Incoming::Reply(Outgoing::Static(&frame::PONG)),
        Frame::Ping(payload) => Incoming::Reply(owned(&Frame::Pong(payload))),
        Frame::Push { id, .. } => Incoming::Push(owned(&Frame::PushAck { id })),
        Frame::Data(_) => Incoming::Data,
        Frame::GoAway { .. } => Incoming::GoAway,
        Frame::Hello { .. } | Frame::PushAck { .. } => return Err(Illegal),
    })
}

/// Frames of at most 128 bytes: a PONG's payload has no more than 125.
fn owned(frame: &Frame<'_>) -> Outgoing {
    let mut buffer = Box::new([0; SMALL_BUFFER_BYTES]);
    let length = frame.encode(&mut *buffer);
    Outgoing::small(buffer, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIRE: Wire = Wire::Tcp { hello: None };

    #[test]
    fn whole_messages_are_read_and_the_rest_is_left() {
        let mut out = Vec::new();
        let bytes = [&frame::PONG[..], &frame::PONG, &[0, 9, 5]].concat();
        assert_eq!(WIRE.read(&bytes, &mut out), Ok(6));
        assert!(matches!(out[..], [Incoming::Pong, Incoming::Pong]));
    }

    #[test]
    fn pings_and_pushes_are_answered() {
        let (mut bytes, mut out) = ([0; 64], Vec::new());
        let length = Frame::Ping(b"abc").encode(&mut bytes);
        let end = length + Frame::Push { id: 7, message: b"hi" }.encode(&mut bytes[length..]);
        assert_eq!(WIRE.read(&bytes[..end], &mut out), Ok(end));
        let [Incoming::Reply(pong), Incoming::Push(ack)] = &out[..] else { panic!("{out:?}") };
        assert_eq!(pong.as_bytes(), [0, 4, 4, b'a', b'b', b'c']);
        assert_eq!(ack.as_bytes(), [0, 9, 6, 0, 0, 0, 0, 0, 0, 0, 7]);
    }

    #[test]
    fn what_no_server_says_is_illegal() {
        let greeting = Wire::tcp(true, 0).greeting().unwrap();
        for bytes in [&[0, 0][..], &[0, 1, 9], greeting.as_bytes()] {
            assert_eq!(WIRE.read(bytes, &mut Vec::new()), Err(Illegal), "{bytes:?}");
        }
    }
}
