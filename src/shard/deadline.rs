//! When a session is given up, and why: the earliest of the deadlines that apply to it.

use std::time::Duration;

use super::millis;
use super::policy::Policy;
use crate::limits::GOODBYE_TIMEOUT;
use crate::mutants::{Mutant, is};
use crate::session::CloseReason;
use crate::session::{Phase, ServerPing, Session};
use crate::time::{Tick, Timestamp};

/// No deadline at all.
const NEVER: Timestamp = Timestamp::from_nanos(u64::MAX);

impl Policy {
    /// The session's deadline as it is filed: its PING is due before itself.
    pub(super) fn deadline<C>(&self, session: &Session<C>) -> Tick {
        let (due, _) = self.due(session);
        self.tick.deadline(self.ping_due(session).map_or(due, |ping_due| ping_due.min(due)))
    }

    /// When a session is asked for a sign of life, if it has not been yet.
    pub(super) fn ping_due<C>(&self, session: &Session<C>) -> Option<Timestamp> {
        let asks = self.expiry
            && self.server_ping
            && session.phase == Phase::Live
            && session.server_ping == ServerPing::NotDue;
        asks.then(|| session.last_activity + self.interval_of(session))
    }

    /// After how long a silence a live session with nothing unfinished is due for anything.
    #[inline]
    pub(super) fn silence_ms<C>(&self, session: &Session<C>) -> u32 {
        match self.server_ping && session.server_ping == ServerPing::NotDue {
            true => millis(self.interval_of(session)).min(session.idle_timeout_ms),
            false => session.idle_timeout_ms,
        }
    }

    /// Whether the session is to be asked for a sign of life now, or given up.
    pub(super) fn is_due<C>(&self, session: &Session<C>, now: Timestamp) -> bool {
        let is_due = |due: Timestamp| due <= now;
        is_due(self.due(session).0) || self.ping_due(session).is_some_and(is_due)
    }

    /// When the session is given up if nothing changes, and for which reason.
    pub(super) fn due<C>(&self, session: &Session<C>) -> (Timestamp, CloseReason) {
        // Who is on his way out has his time in any case: he would hold up the end of the server.
        let is_parting = matches!(session.phase, Phase::Flushing | Phase::Lingering);
        if !self.expiry && !is_parting {
            return (NEVER, CloseReason::Expired);
        }
        let base = match session.phase {
            Phase::AwaitingProxy | Phase::AwaitingHello => {
                let timeout = self.hello_timeout.min(self.idle_timeout);
                match is(Mutant::HelloTimeoutMissed) {
                    true => (NEVER, CloseReason::HelloTimeout),
                    false => {
                        let more = Duration::from_millis(session.hello_put_off_ms.into());
                        (session.opened_at + timeout + more, CloseReason::HelloTimeout)
                    }
                }
            }
            Phase::Live | Phase::Closing => {
                let timeout = Duration::from_millis(u64::from(session.idle_timeout_ms));
                (session.last_activity + timeout, CloseReason::Expired)
            }
            // Until it has taken all, or takes nothing.
            Phase::Flushing if session.parting == CloseReason::PeerClosed => {
                (NEVER, CloseReason::StallTimeout)
            }
            Phase::Flushing | Phase::Lingering => {
                (session.last_activity + GOODBYE_TIMEOUT, session.parting)
            }
        };
        let (no_frame, no_stall) = (is(Mutant::FrameTimeoutMissed), is(Mutant::StallTimeoutMissed));
        let frame =
            session.partial.as_ref().map(|partial| (partial.due, CloseReason::FrameTimeout));
        let stall = session
            .outbox
            .as_ref()
            .and_then(|outbox| outbox.stalled_until)
            .map(|due| (due, CloseReason::StallTimeout));
        [frame.filter(|_| !no_frame), stall.filter(|_| !no_stall)]
            .into_iter()
            .flatten()
            .fold(base, |first, other| if other.0 < first.0 { other } else { first })
    }
}

/// The idle deadline of whoever shows life now: computed once per turn of the loop, since all who
/// do share `now`, and nearly all share their timeout.
#[derive(Debug, Default)]
pub(super) struct DeadlineCache {
    last: Option<(Timestamp, u32, Tick)>,
}

impl DeadlineCache {
    /// The deadline of a live session that has nothing unfinished, after a silence of so long.
    #[inline]
    pub(super) fn idle(
        &mut self,
        policy: &Policy,
        silence_ms: u32,
        last_activity: Timestamp,
        now: Timestamp,
    ) -> Tick {
        match self.last {
            Some((at, timeout_ms, deadline))
                if at == now
                    && (timeout_ms == silence_ms || is(Mutant::DeadlineShared))
                    && last_activity == now =>
            {
                deadline
            }
            _ => self.compute(policy, silence_ms, last_activity),
        }
    }

    fn compute(&mut self, policy: &Policy, timeout_ms: u32, last_activity: Timestamp) -> Tick {
        if !policy.expiry {
            return Tick::NEVER;
        }
        let timeout = Duration::from_millis(u64::from(timeout_ms));
        let deadline = policy.tick.deadline(last_activity + timeout);
        self.last = Some((last_activity, timeout_ms, deadline));
        deadline
    }
}
