//! The protocol as a client speaks it: what to send, and what the bytes that come back mean.
//!
//! Another protocol is another variant of [`Wire`], in a file of its own; the worker knows only
//! [`Incoming`]. Sans-IO: no clock, no socket, and nothing remembered of a client.

mod line;
mod mqtt;
mod tcp;
mod template;
mod websocket;

use heartwheel::outgoing::{Outgoing, SMALL_BUFFER_BYTES, SmallBuffer};

pub use self::line::Line;
pub use self::mqtt::Mqtt;
use self::tcp::Tcp;
pub use self::template::Template;
pub use self::websocket::{WebSocket, WsHeartbeat};
use crate::limits;

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
    /// The session goes on under other terms.
    Adjust {
        /// The interval to keep.
        interval_ms: u32,
        /// After this silence the server expires the session.
        idle_timeout_ms: u32,
        /// The next heartbeat is to come so long from now.
        next_in_ms: u32,
    },
    /// A heartbeat was answered.
    Pong,
    /// The heartbeat with this number was answered.
    PongTo(u32),
    /// To be answered with these bytes.
    Reply(Outgoing),
    /// A message that was pushed.
    Push {
        /// The event that asked for it, if it says so.
        event: Option<usize>,
        /// To be acknowledged with these bytes, where that is done.
        receipt: Option<Outgoing>,
    },
    /// The opening handshake is through; the server tells no terms.
    Upgraded,
    /// The server does not let this client in, for this reason.
    Refused(&'static str),
    /// Any other message: activity, no more.
    Data,
    /// The server says good-bye: it wants everybody to go.
    GoAway {
        /// And not to come back earlier than after this.
        retry_after_ms: u32,
        /// What it said closes the connection too.
        closed: Option<u16>,
    },
    /// The server ends this session, and says with which code.
    Closed(u16),
}

/// Which protocol, and how it begins.
#[derive(Clone, Copy, Debug)]
pub enum Wire {
    /// Length-prefixed frames over TCP.
    Tcp(Tcp),
    /// RFC 6455.
    WebSocket(&'static WebSocket),
    /// MQTT 3.1.1.
    Mqtt(&'static Mqtt),
    /// Lines that are given as templates.
    Line(&'static Line),
}

/// Who reads, and how far it has got.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Its number in the plan.
    pub client: u32,
    /// It waits for the answer to its greeting.
    pub opening: bool,
}

/// The server broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Illegal;

/// Memory for short messages that are not the same for all, used again once they are sent: nothing
/// is allocated for a heartbeat.
#[derive(Default)]
pub struct Buffers(Vec<SmallBuffer>);

impl Buffers {
    /// The message that `write` writes, as many bytes as it says.
    pub fn fill(&mut self, write: impl FnOnce(&mut [u8; SMALL_BUFFER_BYTES]) -> usize) -> Outgoing {
        let mut buffer = self.0.pop().unwrap_or_else(|| Box::new([0; SMALL_BUFFER_BYTES]));
        let length = write(&mut buffer);
        Outgoing::small(buffer, length)
    }

    /// A message is done with.
    pub fn take_back(&mut self, outgoing: Outgoing) {
        if let Outgoing::Small { buffer, .. } = outgoing
            && self.0.len() < limits::BUFFERS_KEPT_MAX
        {
            self.0.push(buffer);
        }
    }
}

impl Wire {
    /// The TCP protocol; a HELLO asks for `interval_ms` (0 leaves it to the server).
    pub fn tcp(hello: bool, interval_ms: u32) -> Wire {
        Wire::Tcp(Tcp::new(hello, interval_ms))
    }

    /// WebSocket at `path` of `host`, with what is random following from `seed`.
    pub fn websocket(host: &str, path: &str, heartbeat: WsHeartbeat, seed: u64) -> Wire {
        // Once per process: it may live for ever, and heartbeats are sent from where they lie.
        Wire::WebSocket(Box::leak(Box::new(WebSocket::new(host, path, heartbeat, seed))))
    }

    /// MQTT, with client ids that follow from `seed`.
    pub fn mqtt(seed: u64, keepalive_s: u16, topic: Option<Template>) -> Wire {
        Wire::Mqtt(Box::leak(Box::new(Mqtt::new(seed, keepalive_s, topic))))
    }

    /// Lines.
    pub fn line(line: Line) -> Wire {
        Wire::Line(Box::leak(Box::new(line)))
    }

    /// Whether its clients acknowledge what is pushed.
    pub fn acknowledges(self) -> bool {
        matches!(self, Wire::Tcp(_))
    }

    /// Its name in a report.
    pub fn name(self) -> &'static str {
        match self {
            Wire::Tcp(_) => "tcp",
            Wire::WebSocket(_) => "ws",
            Wire::Mqtt(_) => "mqtt",
            Wire::Line(_) => "tcp-line",
        }
    }

    /// What the connection of `client` begins with.
    pub fn greeting(self, client: u32, buffers: &mut Buffers) -> Option<Outgoing> {
        match self {
            Wire::Tcp(tcp) => tcp.greeting(),
            Wire::WebSocket(websocket) => Some(websocket.greeting(client)),
            Wire::Mqtt(mqtt) => Some(mqtt.greeting(client)),
            Wire::Line(line) => line.greeting(client, buffers),
        }
    }

    /// Whether a client is open only once [`Incoming::Welcome`] or [`Incoming::Upgraded`] has come.
    pub fn is_welcomed(self) -> bool {
        match self {
            Wire::Tcp(tcp) => tcp.greeting().is_some(),
            Wire::WebSocket(_) | Wire::Mqtt(_) => true,
            Wire::Line(line) => line.is_welcomed(),
        }
    }

    /// Why a client has failed that was not welcomed in time.
    pub fn not_welcomed(self) -> &'static str {
        match self {
            Wire::Tcp(_) | Wire::WebSocket(_) => "no WELCOME or upgrade in time",
            Wire::Mqtt(_) => "no CONNACK or SUBACK in time",
            Wire::Line(_) => "no welcoming line in time",
        }
    }

    /// The heartbeat of `client` number `beats`.
    pub fn heartbeat(self, client: u32, beats: u32, buffers: &mut Buffers) -> Outgoing {
        match self {
            Wire::Tcp(_) => Outgoing::Static(&tcp::PING),
            Wire::WebSocket(websocket) => Outgoing::Static(websocket.heartbeat(client, beats)),
            Wire::Mqtt(_) => Outgoing::Static(&mqtt::PINGREQ),
            Wire::Line(line) => line.request(client, beats, buffers),
        }
    }

    /// Data message `number` of all, where the protocol has such.
    pub fn data(self, number: u64) -> Option<Outgoing> {
        Some(Outgoing::Static(match self {
            Wire::Tcp(_) => &tcp::DATA_FRAME,
            Wire::WebSocket(websocket) => websocket.data(number),
            Wire::Mqtt(_) => &mqtt::DATA_PACKET,
            Wire::Line(_) => return None,
        }))
    }

    /// What a client says that closes its connection in good order, where the protocol wants it.
    pub fn farewell(self) -> Option<Outgoing> {
        match self {
            Wire::Mqtt(_) => Some(Outgoing::Static(&mqtt::DISCONNECT)),
            Wire::Tcp(_) | Wire::WebSocket(_) | Wire::Line(_) => None,
        }
    }

    /// Reads the whole messages at the front of `bytes` into `out`, and says how many bytes they
    /// took: the rest is the beginning of another.
    ///
    /// # Errors
    /// If the bytes break the protocol.
    pub fn read(
        self,
        reading: Reading,
        bytes: &[u8],
        buffers: &mut Buffers,
        out: &mut Vec<Incoming>,
    ) -> Result<usize, Illegal> {
        match self {
            Wire::Tcp(_) => tcp::read(bytes, buffers, out),
            Wire::WebSocket(websocket) => websocket.read(reading, bytes, buffers, out),
            Wire::Mqtt(mqtt) => mqtt.read(reading, bytes, out),
            Wire::Line(line) => line.read(reading, bytes, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `bytes` mean to client 3, and whether they were all taken.
    pub fn read(
        wire: Wire,
        opening: bool,
        bytes: &[u8],
    ) -> Result<(Vec<Incoming>, usize), Illegal> {
        let mut out = Vec::new();
        let reading = Reading { client: 3, opening };
        let taken = wire.read(reading, bytes, &mut Buffers::default(), &mut out)?;
        Ok((out, taken))
    }

    /// The same bytes mean the same however they are split in two: an untaken rest is kept, as a
    /// worker does.
    pub fn expect_the_same_at_every_split(wire: Wire, opening: bool, bytes: &[u8]) {
        let shape = |out: &[Incoming]| format!("{out:?}");
        let (whole, taken) = read(wire, opening, bytes).unwrap();
        for middle in 0..=bytes.len() {
            let (mut out, first) = read(wire, opening, &bytes[..middle]).unwrap();
            let opened = out.iter().any(|message| matches!(message, Incoming::Upgraded));
            let (rest, second) = read(wire, opening && !opened, &bytes[first..]).unwrap();
            out.extend(rest);
            assert_eq!((shape(&out), first + second), (shape(&whole), taken), "{middle}");
        }
    }

    #[test]
    fn a_buffer_that_was_sent_is_used_again() {
        let mut buffers = Buffers::default();
        let message = buffers.fill(|bytes| {
            bytes[..2].copy_from_slice(b"hi");
            2
        });
        let address = message.as_bytes().as_ptr();
        assert_eq!(message.as_bytes(), b"hi");
        buffers.take_back(message);
        assert_eq!(buffers.fill(|_| 1).as_bytes().as_ptr(), address);
    }
}
