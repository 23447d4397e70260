//! Sessions: what the server knows of each client, and the table that holds them.
//!
//! A *connection* is the kernel's and the engine's; a *session* is ours. The session carries the
//! engine's handle of its connection (the type parameter `C`), so that one look-up finds both.

mod outbox;
mod reason;
mod table;

use serde::Serialize;

pub use self::outbox::{Item, Outbox};
pub use self::reason::{CloseReason, PushDrop, Refusal};
pub use self::table::{SessionId, SessionKey, SessionTable};
use crate::protocol::{Protocol, websocket};
use crate::time::Timestamp;

/// Where a session stands in its life.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Connected by a proxy, which has not said yet for whom.
    AwaitingProxy,
    /// Connected; its first frame has not come yet.
    AwaitingHello,
    /// Heartbeats and messages flow.
    Live,
    /// The peer is heard no more; it still gets what is on its way to it, and is then closed for
    /// the reason in `parting`.
    Flushing,
    /// The peer has got all; it may read it in peace before the connection is closed.
    Lingering,
    /// Given up: the engine is closing the connection.
    Closing,
}

/// What the engine is sending for a session at this moment: one send at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// Nothing.
    Nothing,
    /// This many replies to heartbeats, of which `skip` bytes are written already. They come from
    /// static memory.
    Pongs {
        /// How many replies.
        count: u8,
        /// Bytes of them that have been sent.
        skip: u8,
    },
    /// A PING of our own, of which `skip` bytes are written already; from static memory too.
    Ping {
        /// Bytes of it that have been sent.
        skip: u8,
    },
    /// A message that the engine hands back, which answers `pongs` heartbeats.
    Item {
        /// How many heartbeats are answered by it.
        pongs: u8,
    },
}

/// Whether a session that has fallen silent was asked for a sign of life (`--server-ping`). Any
/// sign of life takes it back to `NotDue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerPing {
    /// It has not been silent for so long.
    NotDue,
    /// It is to be sent, after what is on its way.
    Pending,
    /// It was handed to the engine: there will be no second one in this silence.
    Sent,
}

/// The front of something whose rest has not come yet. Only what has arrived is kept.
#[derive(Debug)]
pub enum Unfinished {
    /// The front of a frame, or of an upgrade request.
    Bytes(Vec<u8>),
    /// A message or a frame of a WebSocket.
    Message(Box<websocket::Partial>),
}

/// Something unfinished, and how long it may be.
#[derive(Debug)]
pub struct Partial {
    /// What has come.
    pub unfinished: Unfinished,
    /// The rest must be there by then.
    pub due: Timestamp,
}

/// One client. An idle session owns no heap memory.
#[derive(Debug)]
pub struct Session<C> {
    /// The engine's handle of the connection.
    pub connection: C,
    /// When the connection was accepted.
    pub opened_at: Timestamp,
    /// When it last showed life.
    pub last_activity: Timestamp,
    /// The front of an unfinished frame.
    pub partial: Option<Box<Partial>>,
    /// What waits to be sent, beside replies to empty heartbeats.
    pub outbox: Option<Box<Outbox>>,
    /// After so much silence the session is expired.
    pub idle_timeout_ms: u32,
    /// Which life of its index this is.
    pub(crate) generation: u32,
    /// What is being sent.
    pub sending: Sending,
    /// Empty heartbeats whose replies wait; they go out after all that is in the outbox.
    pub pongs_pending: u8,
    /// Heartbeats not answered yet, wherever their replies are.
    pub pongs_unanswered: u8,
    /// Our own question whether the peer is there.
    pub server_ping: ServerPing,
    /// Where it stands.
    pub phase: Phase,
    /// What it speaks.
    pub protocol: Protocol,
    /// Why it is being flushed, or closed.
    pub parting: CloseReason,
    /// The shard has it on the list of those whose sends may stall.
    pub(crate) listed_as_sender: bool,
    /// More of it has arrived than was read in this turn.
    pub(crate) is_unread: bool,
    /// So much later its first message is due, since what had arrived of it was not read.
    pub(crate) hello_put_off_ms: u16,
    /// It can be told other terms: it has said HELLO, or asked for that in the upgrade.
    pub(crate) takes_adjust: bool,
    /// It keeps an interval of its own, from which its timeout follows.
    pub(crate) has_own_interval: bool,
}

impl<C> Session<C> {
    /// A session that has just been accepted.
    pub fn new(
        connection: C,
        protocol: Protocol,
        now: Timestamp,
        idle_timeout_ms: u32,
    ) -> Session<C> {
        Session {
            connection,
            opened_at: now,
            last_activity: now,
            partial: None,
            outbox: None,
            idle_timeout_ms,
            generation: 0,
            sending: Sending::Nothing,
            pongs_pending: 0,
            pongs_unanswered: 0,
            server_ping: ServerPing::NotDue,
            phase: Phase::AwaitingHello,
            protocol,
            parting: CloseReason::PeerClosed,
            listed_as_sender: false,
            is_unread: false,
            hello_put_off_ms: 0,
            takes_adjust: false,
            has_own_interval: false,
        }
    }

    /// Whether bytes for the peer are being sent or wait to be.
    pub fn has_output(&self) -> bool {
        self.sending != Sending::Nothing
            || self.pongs_pending > 0
            || self.outbox.is_some()
            || self.server_ping == ServerPing::Pending
    }

    /// It shows life: its silence begins anew.
    #[inline]
    pub fn note_activity(&mut self, now: Timestamp) {
        self.last_activity = now;
        self.server_ping = ServerPing::NotDue;
    }
}

// With a connection handle of 8 bytes, a session and its slot in the table fill one cache line.
const _: () = assert!(size_of::<Option<Session<u64>>>() <= 64);
