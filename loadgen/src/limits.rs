//! Every constant of the generator that bounds something, with its unit.

use std::time::Duration;

/// A heartbeat that goes out later than this after its time is counted as sent late.
pub const SENT_LATE: Duration = Duration::from_millis(10);

/// A sleep that lasts this long has lasted too long: the process stood still meanwhile. Well above
/// [`SLEEP_MAX`].
pub const HELD_UP: Duration = Duration::from_millis(400);

/// If the 99th percentile of (sent - due) exceeds this, the generator was the bottleneck and the
/// run is void.
pub const SEND_LATENESS_P99_MAX: Duration = Duration::from_millis(100);

/// Connects in flight, all workers together: well below `somaxconn`, for the time that a server
/// takes to accept counts too.
pub const CONNECTS_IN_FLIGHT_MAX: u32 = 1_024;

/// Closes in flight, all workers together: each makes packets that wait in the kernel's backlog
/// (`netdev_max_backlog`, 1,000 by default) on loopback.
pub const CLOSES_IN_FLIGHT_MAX: u32 = 512;

/// Addresses that a client tries to connect from, if they turn out to be taken.
pub const SOURCES_PER_CLIENT_MAX: u8 = 32;

/// How long a worker sleeps at most: orders are seen no later.
pub const SLEEP_MAX: Duration = Duration::from_millis(100);

/// How long a worker lets completions gather, per group of eight rings.
pub const GATHER: Duration = Duration::from_millis(1);

/// With more rings than eight it lets them gather longer, but never longer than this.
pub const GATHER_MAX: Duration = Duration::from_millis(5);

/// Completions that end a sleep at once.
pub const COMPLETIONS_WORTH_WAKING: u32 = 256;

/// Completions that are taken over from a ring before they are handled.
pub const COMPLETIONS_PER_BATCH: usize = 256;

/// Entries of a ring's submission queue.
pub const SUBMISSION_ENTRIES: u32 = 1_024;

/// Entries of a ring's completion queue; more than that only cost another visit.
pub const COMPLETION_ENTRIES: u32 = 8_192;

/// Provided receive buffers of a ring.
pub const RECEIVE_BUFFERS: u16 = 256;

/// The size of each in bytes: answers are short.
pub const RECEIVE_BUFFER_BYTES: u32 = 256;

/// Receives that are armed again in one visit after the buffers had run out.
pub const REARMS_PER_VISIT: usize = RECEIVE_BUFFERS as usize / 2;

/// Messages that wait behind a send in flight on one connection.
pub const OUTBOX_MESSAGES_MAX: usize = 64;

/// Buffers of short messages that wait to be used again, per worker (128 bytes each).
pub const BUFFERS_KEPT_MAX: usize = 4_096;

/// What a template of `--line-...` or `--mqtt-topic` may become, in bytes.
pub const TEMPLATE_BYTES_MAX: usize = heartwheel::outgoing::SMALL_BUFFER_BYTES;

/// The longest line that a server may say, in bytes.
pub const LINE_BYTES_MAX: usize = 8_192;

/// The largest beginning of a message that is kept, in bytes.
pub const PARTIAL_BYTES_MAX: usize = heartwheel::limits::TCP_FRAME_BYTES_MAX + 2;

/// How long the answers to the last heartbeats are waited for.
pub const LAST_ANSWERS_MAX: Duration = Duration::from_secs(3);

/// How long closing may take, plus a second for every 20,000 connections.
pub const CLOSING_MAX: Duration = Duration::from_secs(10);

/// How much longer than planned connecting may take before the rest is given up.
pub const CONNECTING_EXTRA: Duration = Duration::from_secs(30);

/// How often a worker publishes what it has counted.
pub const PUBLISH_EVERY: Duration = Duration::from_millis(20);

/// The interval by which this host is judged before the server has told its own: that server's
/// default.
pub const INTERVAL_PRESUMED: Duration = Duration::from_secs(30);

/// Looks at a run over time that are kept; when there are more, every second one is dropped.
pub const SERIES_POINTS_MAX: usize = 240;

/// The time between two looks, at first: CPU time is told in hundredths of a second.
pub const SERIES_INTERVAL_MIN: Duration = Duration::from_millis(250);

/// How long an own server may take to say that it is ready, and to end.
pub const SERVER_PATIENCE: Duration = Duration::from_secs(60);

/// The time beyond idle timeout and tick that an expiry is waited for.
pub const EXPIRY_GRACE: Duration = Duration::from_secs(1);

/// How long a request to the control plane may take.
pub const ADMIN_PATIENCE: Duration = Duration::from_secs(10);

/// How often the accounts of pushes that go on are read.
pub const ADMIN_LOOKS_EVERY: Duration = Duration::from_millis(250);

/// The longest answer of a control plane, in bytes.
pub const ADMIN_ANSWER_BYTES_MAX: u64 = 1 << 20;

/// The payload of a broadcast, in bytes: a PUSH frame's length counts its kind and its id too.
pub const BROADCAST_BYTES_MAX: u32 = (heartwheel::limits::TCP_FRAME_BYTES_MAX - 9) as u32;

/// Events of a run: each costs a few histograms, and two bits a client.
pub const EVENTS_MAX: usize = 64;

/// For so long, or until the next event, round trips are counted as those of an event.
pub const EVENT_WINDOW: Duration = Duration::from_secs(15);

const _: () = {
    assert!(CONNECTS_IN_FLIGHT_MAX < 4_096, "the accept queue of a listener holds 4,096 at most");
    assert!(RECEIVE_BUFFERS.is_power_of_two() && COMPLETION_ENTRIES >= 2 * SUBMISSION_ENTRIES);
    assert!(LINE_BYTES_MAX < PARTIAL_BYTES_MAX);
    assert!(SEND_LATENESS_P99_MAX.as_millis() > GATHER_MAX.as_millis());
};
