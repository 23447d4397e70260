//! The manners of clients.

use crate::protocol::Protocol;

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Heartbeats over TCP, well within the timeout.
    Heartbeat,
    /// The same over WebSocket.
    WebSocket,
    /// Heartbeats of which each byte comes by itself.
    Dribble,
    /// Sixteen heartbeats at once: as many as are allowed.
    Burst,
    /// One heartbeat; from then on it only answers the server's.
    Answerer,
    /// Messages in fragments over WebSocket, with heartbeats between them.
    Fragments,
    /// Messages, which it reads back slowly.
    Chatter,
    /// Never a byte.
    Mute,
    /// One heartbeat, and then silence.
    Silent,
    /// The same over WebSocket.
    SilentWebSocket,
    /// Half a frame, and then silence.
    HalfFrame,
    /// Half a message over WebSocket, and then nothing but heartbeats.
    HalfMessage,
    /// A heartbeat, then a frame that is illegal in one of several ways.
    Illegal,
    /// The same over WebSocket.
    IllegalWebSocket,
    /// More heartbeats at once than may be.
    Flood,
    /// Answers without end that nobody has asked for, which is legal.
    PongFlood,
    /// Messages without end, and it never reads.
    Deaf,
    /// Heartbeats, and it never reads.
    Unreading,
    /// Heartbeats, then it closes its sending side.
    HalfClose,
    /// Heartbeats, then it resets.
    Reset,
    /// Connects and closes.
    ConnectClose,
}

impl Behaviour {
    /// Those of every world; there are floods of PONGs in crowds only, so that the other seeds keep
    /// their meaning.
    pub(super) const ALL: [Behaviour; 20] = [
        Behaviour::Heartbeat,
        Behaviour::WebSocket,
        Behaviour::Dribble,
        Behaviour::Burst,
        Behaviour::Answerer,
        Behaviour::Fragments,
        Behaviour::Chatter,
        Behaviour::Mute,
        Behaviour::Silent,
        Behaviour::SilentWebSocket,
        Behaviour::HalfFrame,
        Behaviour::HalfMessage,
        Behaviour::Illegal,
        Behaviour::IllegalWebSocket,
        Behaviour::Flood,
        Behaviour::Deaf,
        Behaviour::Unreading,
        Behaviour::HalfClose,
        Behaviour::Reset,
        Behaviour::ConnectClose,
    ];

    pub(super) fn protocol(self) -> Protocol {
        match self {
            Behaviour::WebSocket
            | Behaviour::Fragments
            | Behaviour::SilentWebSocket
            | Behaviour::HalfMessage
            | Behaviour::IllegalWebSocket => Protocol::WebSocket,
            _ => Protocol::Tcp,
        }
    }

    /// Whether it never pauses between its heartbeats, or answers those of the server.
    pub(super) fn keeps_beating(self) -> bool {
        use Behaviour::{Answerer, Dribble, Fragments, Heartbeat, PongFlood, WebSocket};
        matches!(self, Heartbeat | WebSocket | Dribble | Answerer | Fragments | PongFlood)
    }

    /// Whether a server that answers in time has no reason to close it.
    pub(super) fn is_healthy(self) -> bool {
        self.keeps_beating() || self == Behaviour::Burst
    }
}
