//! What a worker remembers of one client.
//!
//! Cost: 48 B, plus 24 B in the schedule; at a million clients this is most of the generator.

use std::time::Duration;

use heartwheel::time::Timestamp;

/// How far a client has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not been tried yet, or is to be tried again.
    Waiting,
    /// Its connect is in flight.
    Connecting,
    /// It has sent HELLO and waits for WELCOME.
    Greeting,
    /// It keeps its heartbeats, or is silent.
    Open,
    /// Its slot is being emptied.
    Closing,
    /// It has come to its end.
    Gone,
}

/// One client; its index is its slot.
#[derive(Clone, Debug)]
pub struct Client {
    /// When it last sent something: not later than the kernel did.
    pub last_sent: Timestamp,
    /// When the oldest heartbeat that has no answer was due; before that, when it connected.
    pub ping_due: Timestamp,
    /// How long it had sent nothing by then, in milliseconds.
    pub pause_ms: u32,
    /// The interval that it keeps.
    pub interval_ms: u32,
    /// After this silence the server expires it; 0 if that is not known.
    pub idle_timeout_ms: u32,
    /// Heartbeats that it has sent.
    pub beats: u32,
    /// Which life of its slot this is.
    pub generation: u32,
    pub state: State,
    /// Heartbeats without an answer.
    pub unanswered: u8,
    /// Addresses that it has tried to connect from.
    pub attempts: u8,
    /// What names its slot.
    pub in_flight: InFlight,
    /// There may be more to receive once the receive in flight has completed.
    pub read_again: bool,
    /// The poll has told of the end of the connection, which is behind the bytes that are there.
    pub hanging_up: bool,
    /// What is to happen once its slot is empty.
    pub again: Again,
    /// The server has said good-bye.
    pub dismissed: bool,
    /// It does not read: it waits for the end of the connection only.
    pub deaf: bool,
    /// Attempts to come back that failed since it was open.
    pub failures: u8,
    /// What its present or last connection is, or how it was lost: see [`cause`].
    pub cause: u8,
}

/// Operations that are in flight on a slot: at most one of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight(u8);

impl InFlight {
    pub const CONNECT: InFlight = InFlight(1);
    /// A receive that stays armed as long as the connection is there, or its wait for a buffer.
    pub const LISTEN: InFlight = InFlight(2);
    /// A poll that stays armed as long.
    pub const POLL: InFlight = InFlight(4);
    /// A receive of what is there, or its wait for a buffer.
    pub const RECEIVE: InFlight = InFlight(8);
    pub const SEND: InFlight = InFlight(16);
    pub const CLOSE: InFlight = InFlight(32);

    pub fn has(self, operation: InFlight) -> bool {
        self.0 & operation.0 != 0
    }

    pub fn begin(&mut self, operation: InFlight) {
        self.0 |= operation.0;
    }

    pub fn end(&mut self, operation: InFlight) {
        self.0 &= !operation.0;
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What is to happen once a slot is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Again {
    /// Nothing: the client has come to its end.
    #[default]
    Never,
    /// It is tried again.
    AtOnce,
    /// It is tried again after a random wait.
    Later,
}

/// Why a client connects; smaller numbers are those of the event that it lost its connection by.
pub mod cause {
    /// By plan, for the first time.
    pub const FIRST: u8 = u8::MAX;
    /// It was churned.
    pub const CHURN: u8 = u8::MAX - 1;
    /// The server closed it.
    pub const LOSS: u8 = u8::MAX - 2;
    /// It has come back.
    pub const BACK: u8 = u8::MAX - 3;
}

const _: () = assert!(size_of::<Client>() <= 48, "a client must stay small: there are millions");

impl Client {
    /// A client that has not been tried yet.
    pub const fn new() -> Client {
        Client {
            last_sent: Timestamp::ZERO,
            ping_due: Timestamp::ZERO,
            pause_ms: 0,
            interval_ms: 0,
            idle_timeout_ms: 0,
            beats: 0,
            generation: 0,
            state: State::Waiting,
            unanswered: 0,
            attempts: 0,
            in_flight: InFlight(0),
            read_again: false,
            hanging_up: false,
            again: Again::Never,
            dismissed: false,
            deaf: false,
            failures: 0,
            cause: cause::FIRST,
        }
    }

    /// The interval that it keeps.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(u64::from(self.interval_ms))
    }

    /// It sends something now.
    pub fn note_sent(&mut self, now: Timestamp) {
        let pause_ms = now.since(self.last_sent).as_millis();
        self.pause_ms = u32::try_from(pause_ms).unwrap_or(u32::MAX);
        self.last_sent = now;
    }

    /// How long it had sent nothing when it last sent something.
    pub fn pause(&self) -> Duration {
        Duration::from_millis(u64::from(self.pause_ms))
    }

    /// The server's rule, if it is known.
    pub fn idle_timeout(&self) -> Option<Duration> {
        (self.idle_timeout_ms > 0).then(|| Duration::from_millis(u64::from(self.idle_timeout_ms)))
    }
}
