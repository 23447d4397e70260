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

/// How long the kernel may take to tell one part of the sockets that it is asked for.
pub const SOCKET_COUNT_PATIENCE: Duration = Duration::from_secs(10);

/// How much of that is read at once, in bytes.
pub const SOCKET_COUNT_READ_BYTES: usize = 256 * 1024;

/// Times that the kernel is asked until both sides agree: a close may be on its way.
pub const SOCKET_COUNTS_MAX: u32 = 20;

/// How long to wait between two of them.
pub const SOCKET_COUNT_PAUSE: Duration = Duration::from_millis(50);

/// How often the accounts of pushes that go on are read.
pub const ADMIN_LOOKS_EVERY: Duration = Duration::from_millis(250);

/// The time between two frames of the live view, at least.
pub const FRAME_EVERY: Duration = Duration::from_millis(250);

/// How often it is told how things are; there is a frame for that, and for whatever is typed.
pub const LOOKS_EVERY: Duration = Duration::from_millis(500);

/// How often the live view looks at the processes and the server's own counts.
pub const WATCH_EVERY: Duration = Duration::from_secs(1);

/// How often it reads the kernel's slab caches and counts the processes' pages, which takes locks.
pub const KERNEL_LOOKS_EVERY: Duration = Duration::from_secs(5);

/// How long the threads of the live view are waited for at its end.
pub const VIEW_PATIENCE: Duration = Duration::from_secs(1);

/// Lines that are kept to be written when the live view has gone: the server's logs above all.
pub const LINES_BEHIND_VIEW_MAX: usize = 200;

/// The longest answer of a control plane, in bytes.
pub const ADMIN_ANSWER_BYTES_MAX: u64 = 1 << 20;

/// The payload of a broadcast, in bytes: a PUSH frame's length counts its kind and its id too.
pub const BROADCAST_BYTES_MAX: u32 = (heartwheel::limits::TCP_FRAME_BYTES_MAX - 9) as u32;

/// Events of a run: each costs a few histograms, and two bits a client.
pub const EVENTS_MAX: usize = 64;

/// For so long, or until the next event, round trips are counted as those of an event.
pub const EVENT_WINDOW: Duration = Duration::from_secs(15);

/// Loads that `find-capacity` tries at most, unless it is told otherwise.
pub const FIND_STEPS: u32 = 30;

/// How long it waits for a server to be as empty as it was, and for ports to be free again
/// (TIME_WAIT lasts a minute).
pub const DRAINED_PATIENCE: Duration = Duration::from_secs(90);

/// From so many connections on, the memory that each took is measured well enough to foretell that
/// of more.
pub const MEASURED_FROM: u64 = 10_000;

/// Memory that is to be left free, as a share of what is needed.
pub const MEMORY_MARGIN: f64 = 0.1;

/// A host with a smaller share of its memory available has run out of it.
pub const MEMORY_LEFT_MIN: f64 = 0.04;

/// With more than this share of the pages at which `tcp_mem` sees pressure, there is pressure.
pub const TCP_MEM_SHARE_MAX: f64 = 0.95;

/// Dropped packets that were sent again, for each heartbeat and connect, that show in what is
/// measured.
pub const PACKETS_DROPPED_SHARE: f64 = 0.001;

/// A thread that is busy for this share of the time can do no more.
pub const THREAD_BUSY_MAX: f64 = 0.9;

/// Cores that are busy for this share of the time are used up.
pub const CORES_BUSY_MAX: f64 = 0.92;

/// Generators that share a plan.
pub const PARTS_MAX: u32 = 4_096;

/// How far ahead a common start lies at least: a generator needs that to get ready.
pub const START_AHEAD_MIN: Duration = Duration::from_secs(1);

/// And at most: more is a mistake.
pub const START_AHEAD_MAX: Duration = Duration::from_secs(24 * 3_600);

/// How long after the last planned connect the generators of one plan go on together: the time that
/// a connect takes.
pub const COMMON_STEADY_AFTER: Duration = Duration::from_secs(1);

/// The length of an interval in an HDR log.
pub const HDR_INTERVAL: Duration = Duration::from_secs(1);

/// Intervals that may wait to be written, for each worker. If there is no room, the next one is
/// longer.
pub const HDR_WAITING_MAX: usize = 16;

/// Intervals that the log waits for, from a worker that has not delivered them yet. After that they
/// are written without it, and its share becomes lines of its own.
pub const HDR_OPEN_MAX: usize = 16;

const _: () = {
    assert!(CONNECTS_IN_FLIGHT_MAX < 4_096, "the accept queue of a listener holds 4,096 at most");
    assert!(RECEIVE_BUFFERS.is_power_of_two() && COMPLETION_ENTRIES >= 2 * SUBMISSION_ENTRIES);
    assert!(LINE_BYTES_MAX < PARTIAL_BYTES_MAX);
    assert!(SEND_LATENESS_P99_MAX.as_millis() > GATHER_MAX.as_millis());
};
