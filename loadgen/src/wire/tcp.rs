//! heartwheel's own frames, as a client speaks them.

use heartwheel::limits::TCP_FRAME_BYTES_MAX;
use heartwheel::outgoing::Outgoing;
use heartwheel::protocol::frame::{self, Frame, Parsed};

use super::{Buffers, Illegal, Incoming};
use crate::scenario;

pub use heartwheel::protocol::frame::PING;

/// A data message, as long as a heartbeat of a WebSocket.
pub const DATA_FRAME: [u8; 7] = [0, 5, 7, b'd', b'a', b't', b'a'];

/// What connections begin with; `None`: with the first heartbeat.
#[derive(Clone, Copy, Debug)]
pub struct Tcp {
    hello: Option<&'static [u8]>,
}

impl Tcp {
    /// A HELLO, if wanted, asks for `interval_ms`.
    pub fn new(hello: bool, interval_ms: u32) -> Tcp {
        let hello = hello.then(|| {
            let mut bytes = [0; 8];
            Frame::Hello { interval_ms, token: b"" }.encode(&mut bytes);
            // Once per process: sent by every client, so it may live for ever.
            &*Box::leak(Box::new(bytes)) as &'static [u8]
        });
        Tcp { hello }
    }

    pub fn greeting(self) -> Option<Outgoing> {
        self.hello.map(Outgoing::Static)
    }
}

/// Reads whole frames.
pub fn read(
    bytes: &[u8],
    buffers: &mut Buffers,
    out: &mut Vec<Incoming>,
) -> Result<usize, Illegal> {
    let mut taken = 0;
    while taken < bytes.len() {
        match frame::parse(&bytes[taken..], TCP_FRAME_BYTES_MAX) {
            Ok(Parsed::Whole(frame, length)) => {
                out.push(meaning(frame, buffers)?);
                taken += length;
            }
            Ok(Parsed::Partial { .. }) => break,
            Err(_) => return Err(Illegal),
        }
    }
    Ok(taken)
}

fn meaning(frame: Frame<'_>, buffers: &mut Buffers) -> Result<Incoming, Illegal> {
    // A PONG's payload has no more than 125 bytes: it fits.
    let mut encoded = |frame: Frame<'_>| buffers.fill(|bytes| frame.encode(&mut bytes[..]));
    Ok(match frame {
        Frame::Pong(_) => Incoming::Pong,
        Frame::Welcome { interval_ms, idle_timeout_ms, .. } => {
            Incoming::Welcome { interval_ms, idle_timeout_ms }
        }
        Frame::Ping(b"") => Incoming::Reply(Outgoing::Static(&frame::PONG)),
        Frame::Ping(payload) => Incoming::Reply(encoded(Frame::Pong(payload))),
        Frame::Push { id, message } => Incoming::Push {
            event: scenario::event_of(message),
            receipt: Some(encoded(Frame::PushAck { id })),
        },
        Frame::Data(_) => Incoming::Data,
        Frame::Adjust { interval_ms, idle_timeout_ms, next_in_ms } => {
            Incoming::Adjust { interval_ms, idle_timeout_ms, next_in_ms }
        }
        Frame::GoAway { retry_after_ms, .. } => Incoming::GoAway { retry_after_ms, closed: None },
        Frame::Hello { .. } | Frame::PushAck { .. } => return Err(Illegal),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Wire;
    use super::super::tests::{expect_the_same_at_every_split, read};
    use super::*;

    fn wire() -> Wire {
        Wire::tcp(false, 0)
    }

    #[test]
    fn whole_messages_are_read_and_the_rest_is_left() {
        let bytes = [&frame::PONG[..], &frame::PONG, &[0, 9, 5]].concat();
        let (out, taken) = read(wire(), false, &bytes).unwrap();
        assert!(matches!(out[..], [Incoming::Pong, Incoming::Pong]));
        assert_eq!(taken, 6);
        expect_the_same_at_every_split(wire(), false, &bytes);
    }

    #[test]
    fn pings_and_pushes_are_answered() {
        let mut bytes = [0; 64];
        let length = Frame::Ping(b"abc").encode(&mut bytes);
        let end = length + Frame::Push { id: 7, message: b"hi" }.encode(&mut bytes[length..]);
        let (out, taken) = read(wire(), false, &bytes[..end]).unwrap();
        let [Incoming::Reply(pong), Incoming::Push { event: None, receipt: Some(ack) }] = &out[..]
        else {
            panic!("{out:?}")
        };
        assert_eq!(taken, end);
        assert_eq!(pong.as_bytes(), [0, 4, 4, b'a', b'b', b'c']);
        assert_eq!(ack.as_bytes(), [0, 9, 6, 0, 0, 0, 0, 0, 0, 0, 7]);
    }

    #[test]
    fn what_no_server_says_is_illegal() {
        let greeting = Tcp::new(true, 0).greeting().unwrap();
        for bytes in [&[0, 0][..], &[0, 1, 9], greeting.as_bytes()] {
            assert!(read(wire(), true, bytes).is_err(), "{bytes:?}");
        }
    }
}
