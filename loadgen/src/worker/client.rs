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
    /// A connect is in flight.
    pub connecting: bool,
    /// A receive is armed.
    pub receiving: bool,
    /// A send is in flight.
    pub sending: bool,
    /// The close of its slot is in flight.
    pub closing: bool,
    /// It is to be tried again once its slot is empty.
    pub again: bool,
    /// The server has said good-bye.
    pub dismissed: bool,
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
            connecting: false,
            receiving: false,
            sending: false,
            closing: false,
            again: false,
            dismissed: false,
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

    /// Whether anything in flight still names its slot.
    pub fn is_busy(&self) -> bool {
        self.connecting || self.receiving || self.sending || self.closing
    }
}
