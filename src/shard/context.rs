//! What a session may reach of its shard while it reads.

use super::Effect;
use super::calendar::Calendar;
use super::counters::Counters;
use super::handler::Application;
use super::output::BufferPool;
use super::policy::Policy;
use super::push_book::PushBook;
use crate::session::{SessionId, SessionKey};
use crate::time::Timestamp;

/// The shard, but for its sessions and its sweeper.
pub(super) struct Context<'a> {
    pub(super) policy: &'a Policy,
    pub(super) counters: &'a mut Counters,
    pub(super) buffers: &'a mut BufferPool,
    pub(super) effects: &'a mut Vec<Effect>,
    pub(super) senders: &'a mut Vec<SessionKey>,
    /// Where heartbeats are flattened.
    pub(super) calendar: Option<&'a mut Calendar>,
    pub(super) pushes: &'a mut PushBook,
    pub(super) application: &'a mut Application,
    pub(super) shard: u8,
    pub(super) key: SessionKey,
    pub(super) now: Timestamp,
}

impl Context<'_> {
    pub(super) fn id(&self) -> SessionId {
        SessionId::new(self.shard, self.key)
    }
}
