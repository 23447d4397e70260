//! Who sends faster than he is read: more of him has arrived than a turn of the loop has room for.
//!
//! Time passes meanwhile, for his neighbours. So what is missed of him at the end of its time,
//! a HELLO or the rest of a frame, may have arrived and lie unread: he gets a tick more, turn by
//! turn, until it has been read.

use super::{Shard, millis};
use crate::session::{CloseReason, SessionKey};
use crate::sweep::Sweeper;
use crate::time::Timestamp;

impl<S: Sweeper, C> Shard<S, C> {
    /// More of this peer has arrived than was read in this turn, or all has been read now. What it
    /// is waited for may be among that: until then it is not given up for want of it.
    pub fn note_unread(&mut self, key: SessionKey, is_unread: bool) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.is_unread = is_unread;
        }
    }

    /// What is missed may have arrived: its time is over in the next tick, or the one after.
    pub(super) fn put_off_unread(&mut self, key: SessionKey, now: Timestamp) -> bool {
        let Some(session) = self.sessions.get_mut(key).filter(|session| session.is_unread) else {
            return false;
        };
        let until = now + self.policy.tick.as_duration();
        // Both may be over.
        while self.policy.is_due(session, now) {
            let (due, reason) = self.policy.due(session);
            let before = u32::from(session.hello_put_off_ms);
            match (reason, &mut session.partial) {
                _ if due > now => return false,
                (CloseReason::HelloTimeout, _) => {
                    let more = millis(until.since(due)).saturating_add(before);
                    session.hello_put_off_ms = u16::try_from(more).unwrap_or(u16::MAX);
                    if session.hello_put_off_ms == u16::MAX {
                        // After a pause so long that it cannot be told by how much.
                        self.sweeper.insert(key.index, self.policy.tick.deadline(until));
                        return true;
                    }
                }
                (CloseReason::FrameTimeout, Some(partial)) => partial.due = until,
                _ => return false,
            }
        }
        self.sweeper.insert(key.index, self.policy.deadline(session));
        true
    }
}
