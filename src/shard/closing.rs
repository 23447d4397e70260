//! How sessions end: at once, or with a good-bye.
//!
//! Closing at once is enough for the TCP protocol. A WebSocket is told a code first: what is on its
//! way still goes out, then the close frame, and then the peer has
//! [`GOODBYE_TIMEOUT`](crate::limits::GOODBYE_TIMEOUT) to read it. In that time the session is
//! open, but hears nothing.

use super::output::queue_message;
use super::stall::list_sender;
use super::{CloseReason, Effect, Shard, websocket};
use crate::outgoing::Outgoing;
use crate::protocol::Protocol;
use crate::protocol::websocket::close_code;
use crate::session::{Phase, Sending, SessionId, SessionKey};
use crate::sweep::Sweeper;
use crate::time::{Tick, Timestamp};

/// How a session ends by what it sent.
#[derive(Debug)]
pub(super) enum End {
    /// At once.
    Close(CloseReason),
    /// After what is on its way to it, and this.
    Part(CloseReason, Outgoing),
}

impl From<CloseReason> for End {
    fn from(reason: CloseReason) -> End {
        End::Close(reason)
    }
}

impl<S: Sweeper, C> Shard<S, C> {
    /// Closes a session that the sweeper has reported.
    pub(super) fn give_up(&mut self, key: SessionKey, now: Timestamp) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let (due, reason) = self.policy.due(session);
        if now < due {
            self.counters.expired_early += 1;
        }
        // Where nobody is expired, a deadline may be long past when the session comes to be parted
        // from, and only then is in force.
        let is_known = session.hello_put_off_ms < u16::MAX;
        let passed_over = |swept| is_known && self.policy.tick.deadline(due) <= swept;
        if self.policy.expiry && self.swept.is_some_and(passed_over) {
            self.counters.expired_late += 1;
        }
        let lateness_us = now.since(due).as_micros() as u64;
        self.counters.expiry_lateness_us_max =
            self.counters.expiry_lateness_us_max.max(lateness_us);
        self.counters.expiry_lateness_us_sum += lateness_us;
        if session.protocol == Protocol::Tcp {
            self.begin_close(key, reason);
            return;
        }
        // It has left the sweeper already, but a good-bye needs a deadline of its own.
        self.sweeper.insert(key.index, Tick::NEVER);
        let code = match reason {
            CloseReason::FrameTimeout => close_code::POLICY_VIOLATION,
            _ => close_code::GOING_AWAY,
        };
        self.dismiss(key, reason, code, now);
    }

    /// Parts from a session with a last message, behind all that is on its way to it already.
    pub(super) fn say_goodbye(
        &mut self,
        key: SessionKey,
        reason: CloseReason,
        farewell: Outgoing,
        now: Timestamp,
    ) {
        let Some((session, mut context)) = self.split(key, now) else { return };
        match queue_message(session, farewell, &mut context) {
            Ok(()) => self.part(key, reason, now),
            // Who has not read so much will not read that either.
            Err(_) => self.close(key, reason),
        }
    }

    /// Closes a session that the server wants no more: a WebSocket that still reads is told.
    fn dismiss(&mut self, key: SessionKey, reason: CloseReason, code: u16, now: Timestamp) {
        let Some(session) = self.sessions.get(key) else { return };
        let told = session.protocol == Protocol::WebSocket
            && session.phase == Phase::Live
            && !session.has_output();
        if !told {
            // Who was told already keeps the reason for which he was.
            let is_parting = matches!(session.phase, Phase::Flushing | Phase::Lingering)
                && session.parting != CloseReason::PeerClosed;
            let reason = if is_parting { session.parting } else { reason };
            self.close(key, reason);
            return;
        }
        let farewell = websocket::close_frame(code, "", &mut self.buffers);
        self.say_goodbye(key, reason, farewell, now);
    }

    /// Hears a session no more: what is on its way to it still goes out, and then it is closed.
    pub(super) fn part(&mut self, key: SessionKey, reason: CloseReason, now: Timestamp) {
        let now = self.present(now);
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.phase = Phase::Flushing;
        session.parting = reason;
        session.note_activity(now);
        session.partial = None;
        if session.sending != Sending::Nothing {
            list_sender(session, key, &mut self.senders);
        }
        self.refile(key, now);
        self.flush(key, now);
    }

    /// A session that is being parted from has got everything.
    pub(super) fn flushed(&mut self, key: SessionKey, now: Timestamp) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let reason = session.parting;
        if !lingers(session.protocol, reason) {
            self.close(key, reason);
            return;
        }
        session.phase = Phase::Lingering;
        session.last_activity = now;
        self.refile(key, now);
    }

    /// Closes an open session: it leaves the sweeper, and the engine is told.
    pub(super) fn close(&mut self, key: SessionKey, reason: CloseReason) {
        if !self.is_open(key) {
            return;
        }
        self.sweeper.remove(key.index);
        self.begin_close(key, reason);
    }

    /// The part of closing that is common to those who have left the sweeper already.
    fn begin_close(&mut self, key: SessionKey, reason: CloseReason) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.phase = Phase::Closing;
        session.parting = reason;
        session.partial = None;
        self.counters.closed[reason as usize] += 1;
        self.counters.open -= 1;
        self.drop_output(key);
        let id = SessionId::new(self.number, key);
        self.application.call(|handler, actions| handler.closed(id, reason, actions));
        self.effects.push(Effect::Close { key });
    }

    /// Closes a session on request. Whether it was open.
    pub fn kick(&mut self, key: SessionKey, now: Timestamp) -> bool {
        let open = self.is_open(key);
        self.dismiss(key, CloseReason::Kicked, close_code::GOING_AWAY, now);
        open
    }
}

/// Whether a peer that was told good-bye gets the time to read it. Closed at once, with bytes of
/// its own unread, it would get a reset instead, which may overtake what it has not read yet. Who
/// has closed itself, or has been silent, has sent nothing more.
fn lingers(protocol: Protocol, reason: CloseReason) -> bool {
    match protocol {
        // It was told by a GOAWAY.
        Protocol::Tcp => reason == CloseReason::ServerStopping,
        Protocol::WebSocket => !matches!(reason, CloseReason::PeerClosed | CloseReason::Expired),
    }
}
