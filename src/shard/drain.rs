//! Stopping without a stampede: everybody is told, each to come back at a moment of its own, and
//! then closed one after the other over the time that was asked for.
//!
//! A TCP session is told by GOAWAY and lives on until its turn. A WebSocket's notice is its closing
//! handshake (RFC 6455 section 7.1.2), so it is told when its turn has come. What is on its way to
//! a session goes out before it is closed, if it reads.

use std::time::Duration;

use super::output::queue_message;
use super::pace::Pace;
use super::{CloseReason, Shard, millis, tcp, websocket};
use crate::limits::{EXPIRED_PER_TURN_MAX, PACE_INDICES_PER_TURN_MAX, RETRY_WINDOW_MIN};
use crate::mutants::{Mutant, is};
use crate::protocol::Protocol;
use crate::protocol::frame::{Frame, GOAWAY_STOPPING};
use crate::protocol::websocket::close_code;
use crate::session::{Phase, SessionId, SessionKey};
use crate::sweep::Sweeper;
use crate::time::Timestamp;

/// A drain on its way.
#[derive(Debug)]
pub(super) struct Drain {
    spread: Duration,
    /// Through those that are to be told.
    telling: Pace,
    /// Through those that are to be closed; never ahead of the other.
    closing: Pace,
}

impl<S: Sweeper, C> Shard<S, C> {
    /// Accepts nobody any more, tells everybody, and closes them over `spread`. A second call
    /// changes nothing. How many sessions are open.
    pub fn drain(&mut self, spread: Duration, now: Timestamp) -> u64 {
        let end = self.sessions.indices_end();
        self.drain.get_or_insert_with(|| Drain {
            spread,
            telling: Pace::new(now, Duration::ZERO, end),
            closing: match is(Mutant::DrainAtOnce) {
                true => Pace::new(now, Duration::ZERO, end),
                false => Pace::new(now, spread, end),
            },
        });
        self.counters.open
    }

    /// Goes on with the drain, or begins one that is not spread; closes up to `budget` sessions.
    /// Whether all have gone.
    pub fn stop(&mut self, budget: usize, now: Timestamp) -> bool {
        self.drain(Duration::ZERO, now);
        if let Some(mut drain) = self.drain.take() {
            self.tell(&mut drain, now);
            self.close_due(&mut drain, budget, now);
            self.drain = Some(drain);
        }
        self.sessions.is_empty()
    }

    /// Whether nobody is accepted any more.
    pub(super) fn is_stopping(&self) -> bool {
        self.drain.is_some()
    }

    /// When the drain has to go on, if there is one and it has to.
    pub(super) fn next_drain_at(&self, now: Timestamp) -> Option<Timestamp> {
        let drain = self.drain.as_ref()?;
        [drain.telling.next_at(now), drain.closing.next_at(now)].into_iter().flatten().min()
    }

    fn tell(&mut self, drain: &mut Drain, now: Timestamp) {
        let last = drain.telling.cursor.saturating_add(PACE_INDICES_PER_TURN_MAX);
        let target = drain.telling.target(now).min(last);
        let mut told = 0;
        while drain.telling.cursor < target && told < EXPIRED_PER_TURN_MAX {
            let index = drain.telling.cursor;
            drain.telling.cursor += 1;
            if let Some(key) = self.sessions.key_at(index) {
                told += usize::from(self.tell_one(key, drain.spread, now));
            }
        }
    }

    /// Sends GOAWAY to a live session of the TCP protocol.
    fn tell_one(&mut self, key: SessionKey, spread: Duration, now: Timestamp) -> bool {
        let retry_after_ms = self.retry_after_ms(key, spread);
        let Some((session, mut context)) = self.split(key, now) else { return false };
        let forgotten = is(Mutant::GoawayForgotten) && key.index % 2 == 1;
        if session.protocol != Protocol::Tcp || session.phase != Phase::Live || forgotten {
            return false;
        }
        let frame = Frame::GoAway { reason: GOAWAY_STOPPING, retry_after_ms };
        let goaway = tcp::encode(&frame, context.buffers);
        // Whose queue is full does not read: it is closed in its turn without having been told.
        if queue_message(session, goaway, &mut context).is_ok() {
            context.counters.drain_notices += 1;
        }
        self.refile(key, now);
        true
    }

    fn close_due(&mut self, drain: &mut Drain, budget: usize, now: Timestamp) {
        let last = drain.closing.cursor.saturating_add(PACE_INDICES_PER_TURN_MAX);
        let target = drain.closing.target(now).min(drain.telling.cursor).min(last);
        let mut closed = 0;
        while drain.closing.cursor < target && closed < budget {
            let index = drain.closing.cursor;
            drain.closing.cursor += 1;
            if let Some(key) = self.sessions.key_at(index).filter(|&key| self.is_open(key)) {
                self.send_away(key, drain.spread, now);
                closed += 1;
            }
        }
    }

    /// A session's turn has come.
    fn send_away(&mut self, key: SessionKey, spread: Duration, now: Timestamp) {
        let Some(session) = self.sessions.get(key) else { return };
        match (session.phase, session.protocol) {
            (Phase::AwaitingProxy | Phase::AwaitingHello, _) => {
                self.close(key, CloseReason::ServerStopping);
            }
            (Phase::Live, Protocol::Tcp) => self.part(key, CloseReason::ServerStopping, now),
            (Phase::Live, Protocol::WebSocket) => {
                let reason = format!("retry-after-ms={}", self.retry_after_ms(key, spread));
                let code = close_code::GOING_AWAY;
                let farewell = websocket::close_frame(code, &reason, &mut self.buffers);
                self.counters.drain_notices += 1;
                self.say_goodbye(key, CloseReason::ServerStopping, farewell, now);
            }
            // They are on their way out, and have a deadline for it.
            (Phase::Flushing | Phase::Lingering | Phase::Closing, _) => {}
        }
    }

    /// When a session is to come back: after the drain, and not at the same time as the others.
    fn retry_after_ms(&self, key: SessionKey, spread: Duration) -> u32 {
        if is(Mutant::RetryAtOnce) {
            return 0;
        }
        let window_ms = u64::from(millis(spread.max(RETRY_WINDOW_MIN)));
        let jitter_ms = mix(SessionId::new(self.number, key).0) % window_ms;
        millis(spread).saturating_add(jitter_ms as u32)
    }
}

/// Splitmix64's last step: neighbouring numbers become unrelated ones (Steele et al. 2014).
fn mix(mut number: u64) -> u64 {
    number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
