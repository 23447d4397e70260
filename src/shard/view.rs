//! What the control plane tells of one session.

use serde::Serialize;

use super::Shard;
use crate::session::{Phase, SessionKey};
use crate::sweep::Sweeper;
use crate::time::Timestamp;

/// What can be told of a session.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq)]
pub struct SessionView {
    /// Where it stands in its life.
    pub phase: Phase,
    /// How long it has been open.
    pub open_ms: u64,
    /// How long it has been silent.
    pub silent_ms: u64,
    /// After so much silence it is expired.
    pub idle_timeout_ms: u32,
    /// Heartbeats whose reply has not been sent yet.
    pub heartbeats_pending: u8,
    /// Bytes that wait to be sent.
    pub queued_bytes: u64,
}

impl<S: Sweeper, C> Shard<S, C> {
    /// What can be told of a session, if it is open.
    pub fn view(&self, key: SessionKey, now: Timestamp) -> Option<SessionView> {
        let session = self.sessions.get(key).filter(|_| self.is_open(key))?;
        let queued = session.outbox.as_ref().map_or(0, |outbox| outbox.queued_bytes());
        Some(SessionView {
            phase: session.phase,
            open_ms: now.since(session.opened_at).as_millis() as u64,
            silent_ms: now.since(session.last_activity).as_millis() as u64,
            idle_timeout_ms: session.idle_timeout_ms,
            heartbeats_pending: session.pongs_unanswered,
            queued_bytes: queued as u64,
        })
    }
}
