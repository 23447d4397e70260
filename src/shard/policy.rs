//! What a shard has been told to do: limits and timeouts, the same for all its sessions.

use std::sync::Arc;
use std::time::Duration;

use super::auth::Auth;
use crate::limits::{HEARTBEAT_MAX, HEARTBEAT_MIN};
use crate::protocol::address::Network;
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
    /// The shortest interval that a client may ask for.
    pub heartbeat_min: Duration,
    /// The longest interval that a client may ask for.
    pub heartbeat_max: Duration,
    /// The idle timeout of a client that has asked for an interval, in intervals.
    pub timeout_factor: f64,
    /// Whether clients are told other times for their heartbeats where too many come at once.
    pub flatten: bool,
    /// What lets a client in, if it takes more than to connect.
    pub auth: Option<Arc<Auth>>,
    /// Peers that say in a PROXY header for whom they speak.
    pub proxies: Arc<[Network]>,
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
            heartbeat_min: HEARTBEAT_MIN,
            heartbeat_max: HEARTBEAT_MAX,
            timeout_factor: 3.0,
            flatten: false,
            auth: None,
            proxies: Arc::from([]),
        }
    }
}
