//! `--server-ping`: a session that was silent for a heartbeat interval is asked for a sign of life,
//! once, and given up at its idle timeout if there is none.
//!
//! Invariants:
//! - nobody is given up who was not asked, and one silence has one PING;
//! - a PING is no activity, so it moves no deadline: who is asked in time is expired when he would
//!   have been without it.
//!
//! Cost: no memory beside a byte of the session; the PING goes out from static memory.

use std::time::Duration;

use super::{CloseReason, Shard};
use crate::mutants::{Mutant, is};
use crate::protocol::{Protocol, frame, websocket};
use crate::session::{Phase, ServerPing, SessionKey};
use crate::sweep::Sweeper;
use crate::time::Timestamp;

/// What a session of this protocol is asked with.
pub(super) const fn ping(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Tcp => &frame::PING,
        Protocol::WebSocket => &websocket::CONTROL_PING,
    }
}

impl<S: Sweeper, C> Shard<S, C> {
    /// The sweeper has reported a session: it is asked for a sign of life, or given up.
    pub(super) fn overdue(&mut self, key: SessionKey, now: Timestamp) {
        if self.put_off_stall(key, now) || self.put_off_unread(key, now) {
            return;
        }
        let Some(session) = self.sessions.get(key) else { return };
        let (due, reason) = self.policy.due(session);
        let is_gone = due <= now && reason != CloseReason::Expired;
        match self.policy.ping_due(session) {
            _ if is(Mutant::ExpiredUnasked) && due <= now => self.give_up(key, now),
            Some(ping_due) if ping_due <= now && !is_gone => self.ask(key, ping_due, now),
            _ => self.give_up(key, now),
        }
    }

    /// Sends the PING. Who has less than half of the usual time left to answer it, because the
    /// server itself was held up, gets all of it: the server's pause is not the client's silence.
    fn ask(&mut self, key: SessionKey, ping_due: Timestamp, now: Timestamp) {
        let late = self.present(now).since(ping_due);
        let Some(session) = self.sessions.get_mut(key) else { return };
        let interval = self.policy.interval_of(session);
        let idle_timeout = Duration::from_millis(u64::from(session.idle_timeout_ms));
        let answer_time = idle_timeout.saturating_sub(interval);
        if late > answer_time / 2 {
            session.last_activity = session.last_activity + late;
        }
        session.server_ping = ServerPing::Pending;
        // Another of its deadlines may have passed meanwhile, and then no answer helps it.
        if self.policy.due(session).0 <= now {
            self.give_up(key, now);
            return;
        }
        let deadline = self.policy.deadline(session);
        self.sweeper.insert(key.index, deadline);
        self.flush(key, now);
    }

    /// The PING has gone out. If that was long after it was wanted, since the server was held up or
    /// the client took nothing, the time to answer it counts from here.
    pub(super) fn asked(&mut self, key: SessionKey, now: Timestamp) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.server_ping != ServerPing::Sent || session.phase != Phase::Live {
            return;
        }
        let interval = self.policy.interval_of(session);
        let idle_timeout = Duration::from_millis(u64::from(session.idle_timeout_ms));
        let answer_time = idle_timeout.saturating_sub(interval);
        let due = session.last_activity + idle_timeout;
        if due.since(now) < answer_time / 2 && !is(Mutant::AskedBeforePause) {
            session.last_activity = session.last_activity + (now + answer_time).since(due);
            self.refile(key, now);
        }
    }
}
