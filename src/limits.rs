//! Every constant that bounds something, with its unit, and the checks that they fit together.

use std::time::Duration;

/// Lines of one kind that the log has in a [`LOG_WINDOW`]; one more is only counted.
pub const LOG_LINES_MAX: u32 = 100;

/// After so long a kind of line may have its number anew.
pub const LOG_WINDOW: Duration = Duration::from_secs(1);

/// The most that the log shows of one value, in bytes.
pub const LOG_FIELD_BYTES_MAX: usize = 512;

/// The longest payload of a PING or PONG, in bytes (as RFC 6455 section 5.5 has it).
pub const PING_PAYLOAD_BYTES_MAX: usize = 125;

/// The largest frame length that the TCP protocol can state, in bytes.
pub const TCP_FRAME_BYTES_MAX: usize = u16::MAX as usize;

/// The largest header of an upgrade request or of its answer, in bytes.
pub const UPGRADE_HEADER_BYTES_MAX: usize = 8 * 1024;

/// Header fields that it may have.
pub const UPGRADE_HEADERS_MAX: usize = 64;

/// The longest ticket, in bytes.
pub const TICKET_BYTES_MAX: usize = 1_024;

/// The shortest key that makes tickets, in bytes.
pub const TICKET_KEY_BYTES_MIN: usize = 16;

/// Tickets with a nonce that are remembered until they expire; one more is refused.
pub const SPENT_TICKETS_MAX: usize = 1 << 20;

/// The longest header of the PROXY protocol, in bytes, with all that it may carry beside addresses.
pub const PROXY_HEADER_BYTES_MAX: usize = 2_048;

/// Ticks that a client has at least to answer a PING of the server.
pub const ANSWER_TICKS_MIN: u32 = 4;

/// Slots in which a shard plans heartbeats ahead; a power of two.
pub const CALENDAR_SLOTS: usize = 4_096;

/// Slots of the server's own heartbeat interval, unless a tick is longer than one of them.
pub const SLOTS_PER_INTERVAL: u32 = 128;

/// Slots that are looked at to find a better one than one that is crowded.
pub const CALENDAR_PROBES: usize = 8;

/// So many heartbeats over the mean, and a quarter of it, make a slot crowded.
pub const CALENDAR_SLACK: u64 = 4;

/// The shortest heartbeat interval that clients may ask for, unless the server's own is shorter.
pub const HEARTBEAT_MIN: Duration = Duration::from_secs(1);

/// The longest heartbeat interval that clients may ask for, unless the server's own is longer.
pub const HEARTBEAT_MAX: Duration = Duration::from_secs(600);

/// Replies to heartbeats that one session may have waiting; one more closes it as a flood.
pub const PENDING_PONGS_MAX: u8 = 16;

/// So many more bytes of an unfinished WebSocket message give it its time anew, so that a large one
/// may take as long as it makes progress.
pub const MESSAGE_PROGRESS_BYTES: usize = 64 * 1024;

/// The kernel takes as many bytes that it cannot send yet as the send queue holds, but at least so
/// many: fewer would only cost more wakeups.
pub const UNSENT_BYTES_MIN: usize = 16 << 10;

/// With `--echo`, and unless it is told otherwise, a send queue has room for so many of the largest
/// frames.
pub const ECHO_QUEUE_FRAMES: usize = 4;

/// But at least for so much, in bytes.
pub const ECHO_QUEUE_BYTES_MIN: usize = 1024 * 1024;

/// Bits of a generation, in a ring's user data and in a session's public id.
pub const GENERATION_BITS: u32 = 24;

/// Generations are counted modulo this.
pub const GENERATIONS: u32 = 1 << GENERATION_BITS;

/// Sessions that one shard can hold: the index of a session has to fit the user data of a ring.
pub const SESSIONS_PER_SHARD_MAX: usize = 1 << 26;

/// Shards of one server: the shard's number takes 8 bits of a session's public id.
pub const SHARDS_MAX: usize = 256;

/// Small buffers that a shard keeps for reuse; more than that go back to the allocator.
pub const SMALL_BUFFER_POOL_MAX: usize = 1_024;

/// Sessions that one call of a sweeper may report: what one turn of the loop closes at most, some
/// milliseconds of the kernel's time in which no heartbeat is answered.
pub const EXPIRED_PER_TURN_MAX: usize = 256;

/// Completions that are taken over from one ring before they are handled.
pub const COMPLETIONS_PER_BATCH: usize = 256;

/// Enters in a row that bring nothing, before a sweep, though the kernel says that something is
/// deferred: after those it is not believed. One runs 20 deferred tasks and more.
pub const QUIET_ENTERS_MAX: u32 = 8;

/// Times that one ring is entered in a turn of the loop before the others get theirs.
pub const ENTERS_PER_TURN_MAX: usize = 256;

/// Times after which a connection of which there is more to read has to wait for the next turn. By
/// then each has been read so many buffers of [`RECEIVE_BUFFER_BYTES`]: more than a TCP frame.
pub const READS_PER_TURN_MAX: usize = 128;

/// Entries of a ring's submission queue.
pub const SUBMISSION_ENTRIES: u32 = 1_024;

/// Entries of a ring's completion queue. With DEFER_TASKRUN little is posted unasked, so this can
/// be far smaller than the number of connections; but the kernel sizes its table of cancellable
/// requests by it, and 8,192 gives that table its largest size.
pub const COMPLETION_ENTRIES: u32 = 8_192;

/// Provided receive buffers of a ring.
pub const RECEIVE_BUFFERS: u16 = 256;

/// The size of a provided receive buffer in bytes.
pub const RECEIVE_BUFFER_BYTES: u32 = 1_024;

/// So many completions wake a sleeping shard at once.
pub const WAIT_COMPLETIONS: u32 = 64;

/// Fewer completions wake it after this.
pub const WAIT_MIN: Duration = Duration::from_millis(1);

/// The share of a ring's slots at which accepting rests, before the table is full: one in so many.
pub const SLOT_HEADROOM_DIVISOR: u32 = 80;

/// The largest direct-descriptor table that the kernel allows (IORING_MAX_FIXED_FILES).
pub const SLOTS_PER_RING_MAX: u32 = 1 << 20;

/// Rings of one shard.
pub const RINGS_PER_SHARD_MAX: usize = 256;

/// Connections that wait in a listener's queue; the kernel cuts it to `net.core.somaxconn`.
pub const LISTEN_BACKLOG: i32 = 4_096;

/// Connections that one listener of a ring accepts in a turn at most: a storm of connects must not
/// make those wait who are connected.
pub const ACCEPTS_PER_TURN: u32 = 64;

/// How long accepting rests after the kernel has said that a table is full.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The longest sweep that is told apart from longer ones, in microseconds.
pub const SWEEP_US_MAX: u64 = 60_000_000;

/// What a thread of the epoll engine reads at once, in bytes.
pub const TASK_BUFFER_BYTES: usize = 64 * 1024;

/// Reads and writes of one connection's task before the others get their turn.
pub const TASK_ROUNDS_MAX: u32 = 4;

/// What every connection of the tokio-uring engine has a buffer for, in bytes.
pub const TOKIO_URING_BUFFER_BYTES: usize = 64;

/// Descriptors that a thread with a table of its own keeps for other things than connections.
pub const DESCRIPTORS_RESERVED: u64 = 128;

/// So many rounds in which no task found anything to read show that all has been read.
pub const QUIET_ROUNDS: u32 = 3;

/// Rounds after which a sweep of the epoll engine no longer waits for that. tokio learns of 1,024
/// readable sockets at a time, so by then each has had its turn; whoever still has more sends
/// without end.
pub const EPOLL_ROUNDS_MAX: u32 = 128;

/// The same for the tokio-uring engine: by then each connection has been read more than a TCP frame
/// in its small buffer.
pub const TOKIO_URING_ROUNDS_MAX: u32 = 1_100;

/// How long a session that was told good-bye may take to read it, and then to close its side.
pub const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends in flight of a ring whose places are kept for the next; a burst gives its memory back.
pub const SENDS_IN_FLIGHT_KEPT: usize = 4_096;

/// The longest message that can be pushed, in bytes: kind, id and message have to fit the length of
/// a TCP frame.
pub const PUSH_BYTES_MAX: usize = TCP_FRAME_BYTES_MAX - 1 - 8;

/// Sessions that a broadcast is sent to in one turn of the loop: about a millisecond's work.
pub const PUSHES_PER_TURN_MAX: u32 = 256;

/// Entries of the table that a broadcast, or a drain, looks at in one turn of the loop.
pub const PACE_INDICES_PER_TURN_MAX: u32 = 16_384;

/// What is spread over time is gone on with no more often than this.
pub const PACE_SLICE: Duration = Duration::from_millis(2);

/// The longest time that a broadcast or a drain may be spread over.
pub const SPREAD_MAX: Duration = Duration::from_secs(3_600);

/// Broadcasts whose account a shard keeps: two bits a session each while receipts are missing.
pub const BROADCASTS_TRACKED_MAX: usize = 16;

/// Messages of a handler whose account a shard keeps: two bits a session each, as a broadcast.
pub const HANDLER_MESSAGES_TRACKED_MAX: usize = 64;

/// Pushes that a handler may want in one call.
pub const HANDLER_PUSHES_MAX: usize = 1 << 20;

/// Pushes to a single session whose account a shard keeps.
pub const PUSHES_TRACKED_MAX: usize = 4_096;

/// How long the account of a push is kept; whoever has not acknowledged by then stays unconfirmed.
pub const PUSH_TRACKED_FOR: Duration = Duration::from_secs(600);

/// A gap between two sweeps that is longer than a tick by more than this: the server was held up.
pub const HELD_UP_MIN: Duration = Duration::from_millis(100);

/// How often a shard publishes its counters.
pub const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

/// How long a server that was told to stop waits for its sessions to be closed, if nothing is said.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Clients that are sent away are told moments over at least so long a time to come back at.
pub const RETRY_WINDOW_MIN: Duration = Duration::from_secs(10);

/// How long a server that was stopped by the control plane still answers it.
pub const ADMIN_FAREWELL: Duration = Duration::from_millis(100);

/// Admin connections that are served at a time; the others wait.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;

/// The header of an admin request must be complete by then.
pub const ADMIN_HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest header of an admin request, in bytes.
pub const ADMIN_HEADER_BYTES_MAX: usize = 16 * 1024;

/// The largest body of an admin request, in bytes.
pub const ADMIN_BODY_BYTES_MAX: usize = 64 * 1024;

/// An admin connection lives no longer than this.
pub const ADMIN_CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// A shard that has not answered the control plane by then is given up on.
pub const ADMIN_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The shortest tick that can be asked for: below it the loop would do little else.
pub const TICK_MIN: Duration = Duration::from_millis(1);

const _: () = {
    assert!(TOKIO_URING_ROUNDS_MAX as usize * TOKIO_URING_BUFFER_BYTES > TCP_FRAME_BYTES_MAX);
    assert!(READS_PER_TURN_MAX < ENTERS_PER_TURN_MAX, "or the turn ends before");
    assert!(RECEIVE_BUFFERS.is_power_of_two());
    assert!(SUBMISSION_ENTRIES.is_power_of_two() && COMPLETION_ENTRIES.is_power_of_two());
    assert!(COMPLETION_ENTRIES >= 2 * SUBMISSION_ENTRIES, "a full submission must not overflow");
    assert!(CALENDAR_SLOTS.is_power_of_two());
    assert!(PING_PAYLOAD_BYTES_MAX + 3 <= crate::outgoing::SMALL_BUFFER_BYTES);
};
