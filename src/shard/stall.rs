//! Who takes nothing: sends that make no progress, and how long that may go on.
//!
//! Whether a peer takes what it is sent shows by completions, and those come only while the server
//! runs. So the time in which the server itself was held up does not count against the peer: a
//! deadline that has passed meanwhile is put off by as much, when it is looked at.
//!
//! Invariants:
//! - a send of a message that is in flight since before the last sweep has a deadline, and so has
//!   whatever is sent to a peer that has closed its side;
//! - nobody has more than the stall timeout from the moment on at which the server goes on.
//!
//! Cost: replies to empty heartbeats are not listed, so a heartbeat pays nothing.

use std::time::Duration;

use super::Shard;
use crate::limits::HELD_UP_MIN;
use crate::mutants::{Mutant, is};
use crate::session::{Phase, Sending, Session, SessionKey};
use crate::sweep::Sweeper;
use crate::time::Timestamp;

/// For how long the server was held up, all in all: stopped, starved of the processor, or so busy
/// that time could not pass.
#[derive(Debug, Default)]
pub(super) struct HeldUp {
    total: Duration,
    swept_at: Option<Timestamp>,
}

impl HeldUp {
    /// There is a sweep at this time; there is one a tick, unless the server is held up.
    fn sweep(&mut self, present: Timestamp, tick: Duration) {
        let before = self.swept_at.replace(present);
        let gap = before.map_or(Duration::ZERO, |before| present.since(before));
        if gap > tick + HELD_UP_MIN {
            self.total += gap - tick;
        }
    }
}

/// Has the next tick look whether this send has stalled. Once per session and tick.
pub(super) fn list_sender<C>(
    session: &mut Session<C>,
    key: SessionKey,
    senders: &mut Vec<SessionKey>,
) {
    if !session.listed_as_sender {
        session.listed_as_sender = true;
        senders.push(key);
    }
}

impl<S: Sweeper, C> Shard<S, C> {
    /// Finds out who has been sending since before the last tick, and gives them a deadline.
    pub(super) fn mark_stalled(&mut self, now: Timestamp) {
        // After a pause of the process within a turn, a send may have begun long after `now`.
        let begun = self.present(now);
        self.held_up.sweep(begun, self.policy.tick.as_duration());
        if self.senders.is_empty() {
            return;
        }
        let mut senders = std::mem::take(&mut self.senders);
        for key in senders.drain(..) {
            let Some(session) = self.sessions.get_mut(key) else { continue };
            session.listed_as_sender = false;
            if session.phase == Phase::Closing || session.sending == Sending::Nothing {
                continue;
            }
            let outbox = session.outbox.get_or_insert_default();
            if outbox.stalled_until.is_none() {
                outbox.stalled_until = Some(begun + self.policy.stall_timeout);
                outbox.held_up_before = self.held_up.total;
            }
            self.refile(key, now);
        }
        self.senders = senders;
    }

    /// Puts the end of a stall off by as long as the server was held up in it. Whether the session
    /// has more time by that.
    pub(super) fn put_off_stall(&mut self, key: SessionKey, now: Timestamp) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return false };
        let Some(outbox) = &mut session.outbox else { return false };
        let Some(until) = outbox.stalled_until else { return false };
        let more = self.held_up.total - outbox.held_up_before;
        if until > now || more.is_zero() || is(Mutant::HeldUpCounted) {
            return false;
        }
        let most = self.latest.max(now) + self.policy.stall_timeout;
        outbox.stalled_until = Some((until + more).min(most));
        outbox.held_up_before = self.held_up.total;
        if self.policy.is_due(session, now) {
            return false;
        }
        let deadline = self.policy.deadline(session);
        self.sweeper.insert(key.index, deadline);
        true
    }
}
