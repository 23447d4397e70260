//! What a shard has been told to do: limits and timeouts, the same for all its sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::time::TickLength;

/// What counts as a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Bytes from the client.
    Receive,
    /// Also bytes that the kernel took for it.
    Any,
}

/// The rules of a shard.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The granularity of expiry.
    pub tick: TickLength,
    /// Told to clients in WELCOME.
    pub heartbeat_interval: Duration,
    /// A session that is silent for so long is expired.
    pub idle_timeout: Duration,
    /// What ends a silence.
    pub activity: Activity,
    /// Whether silent sessions are expired at all.
    pub expiry: bool,
    /// Whether a session that was silent for a heartbeat interval is pinged, once.
    pub server_ping: bool,
    /// The first frame must be complete by then.
    pub hello_timeout: Duration,
    /// A frame that was begun must be complete by then.
    pub frame_timeout: Duration,
    /// A peer that takes no bytes for so long is closed.
    pub stall_timeout: Duration,
    /// Bytes that may wait for a session, beside the send in flight.
    pub send_queue_bytes: usize,
    /// The largest frame length.
    pub frame_bytes_max: usize,
    /// Whether DATA is sent back.
    pub echo: bool,
    /// Whether heartbeats are logged.
    pub log_heartbeats: bool,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            tick: TickLength::new(Duration::from_millis(100)),
            heartbeat_interval: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(90),
            activity: Activity::Receive,
            expiry: true,
            server_ping: false,
            hello_timeout: Duration::from_secs(10),
            frame_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(15),
            send_queue_bytes: 16 * 1024,
            frame_bytes_max: 64 * 1024,
            echo: false,
            log_heartbeats: false,
        }
    }
}

/// The number of sessions that all shards together may hold. Touched once when a connection comes
/// and once when it has gone, never on a heartbeat's path.
#[derive(Debug)]
pub struct Admission {
    limit: usize,
    admitted: AtomicUsize,
}

impl Admission {
    /// Admits up to `limit` at a time.
    pub fn new(limit: usize) -> Arc<Admission> {
        Arc::new(Admission { limit, admitted: AtomicUsize::new(0) })
    }

    /// Takes a place, if there is one.
    pub fn enter(&self) -> bool {
        if self.admitted.fetch_add(1, Ordering::Relaxed) < self.limit {
            return true;
        }
        self.leave();
        false
    }

    /// Gives a place back.
    pub fn leave(&self) {
        self.admitted.fetch_sub(1, Ordering::Relaxed);
    }
}
