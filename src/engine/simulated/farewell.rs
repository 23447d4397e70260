//! The oracle of all that the server says of its own accord: good-byes, its PINGs, and the notices
//! of a drain.

use std::time::Duration;

use super::peer::{Asked, CloseBegun, Parted, Question};
use super::world::World;
use crate::limits::{EXPIRED_PER_TURN_MAX, GOODBYE_TIMEOUT, RETRY_WINDOW_MIN};
use crate::protocol::Protocol;
use crate::session::CloseReason;
use crate::time::Timestamp;

const PING: &[u8] = &[0, 1, 3];
const CONTROL_PING: &[u8] = &[0x89, 0];

/// A drain that was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draining {
    pub(super) spread: Duration,
    /// It had not begun before.
    pub(super) begun: Timestamp,
    /// The shard has obeyed, so long ago, in turns.
    pub(super) turns: Option<u32>,
}

impl World {
    /// The bytes of a send are those that the client is owed next, or something that the server
    /// says of its own accord and may say now.
    pub(super) fn judge_send(&mut self, id: usize, bytes: &[u8]) {
        self.peers[id].sends_in_flight += 1;
        if begins_with(&self.peers[id].expected, bytes) {
            if self.overtakes_push(id) {
                self.violate(format!("{id} is sent {bytes:?} before a push that came first"));
            }
            return;
        }
        let known = self.is_push(id, bytes)
            || self.is_ping(id, bytes)
            || self.is_notice(id, bytes)
            || self.is_farewell(id, bytes);
        if !known {
            let client = &self.peers[id];
            let told = format!("{:?}, {id}, is sent {bytes:?}", client.behaviour);
            let owed = client.expected.iter().take(40).copied().collect::<Vec<_>>();
            self.violate(format!("{told}, and is owed {owed:?}"));
        }
    }

    /// The server asks for a sign of life.
    fn is_ping(&mut self, id: usize, bytes: &[u8]) -> bool {
        let client = &self.peers[id];
        let ping = match client.protocol() {
            Protocol::Tcp => PING,
            Protocol::WebSocket => CONTROL_PING,
        };
        if bytes != ping {
            return false;
        }
        let (now, turn_now) = (self.now(), self.turn_now);
        let may_ask = self.rules.server_ping && self.rules.expiry;
        let before = client.before.filter(|before| may_ask && before.at == now);
        if before.and_then(|before| before.ask_due).is_some_and(|due| due <= turn_now) {
            // In its last silence, which is over already: it does not count in this one.
            self.exercise("asked together with a sign of life");
            self.put_question(id, bytes);
            return true;
        }
        let due = client.last_activity + client.interval;
        let wrong = if !may_ask {
            Some("though nobody is to be")
        } else if client.asked.is_some() {
            Some("twice in one silence")
        } else if turn_now < due {
            Some("too early")
        } else if !client.is_live() {
            Some("though it is not live")
        } else if !client.expected.is_empty() || !client.owed_pushes.is_empty() {
            Some("before what it is owed")
        } else {
            None
        };
        // Whoever had something in flight may have been asked long before it went out.
        let in_sweep = client.send_ended < turn_now;
        let answer_time = client.idle_timeout.saturating_sub(client.interval);
        let late = now.since(due);
        let shift_max = if late > answer_time / 2 { late } else { Duration::ZERO };
        let shift_min = if in_sweep { shift_max } else { Duration::ZERO };
        if shift_max > Duration::ZERO {
            self.exercise("asked late");
        }
        self.exercise("asked for a sign of life");
        self.peers[id].asked = Some(Asked { shift_min, shift_max });
        self.put_question(id, bytes);
        if let Some(wrong) = wrong {
            let behaviour = self.peers[id].behaviour;
            self.violate(format!("{behaviour:?}, {id}, is asked for a sign of life {wrong}"));
        }
        true
    }

    fn put_question(&mut self, id: usize, bytes: &[u8]) {
        let client = &mut self.peers[id];
        client.expect_first(bytes);
        client.questions.push_back((client.taken + bytes.len() as u64, Question::Ping));
    }

    /// A TCP client is told that the server stops.
    fn is_notice(&mut self, id: usize, bytes: &[u8]) -> bool {
        let &[0, 7, 8, 0, 1, a, b, c, d] = bytes else { return false };
        let client = &self.peers[id];
        let retry_ms = u64::from(u32::from_be_bytes([a, b, c, d]));
        let wrong = if client.told || client.farewell {
            Some("twice")
        } else if !client.first_done || client.protocol() != Protocol::Tcp {
            Some("though it is no live TCP client")
        } else {
            self.wrong_retry(retry_ms)
        };
        self.exercise("told by GOAWAY");
        let client = &mut self.peers[id];
        client.told = true;
        client.expect_first(bytes);
        if let Some(wrong) = wrong {
            self.violate(format!("{id} is told that the server stops, {wrong}: {retry_ms} ms"));
        }
        true
    }

    /// Everybody is to come back after the drain, and not all at once.
    fn wrong_retry(&self, retry_ms: u64) -> Option<&'static str> {
        let Some(Draining { spread, .. }) = self.draining else { return Some("and it does not") };
        let spread_ms = spread.as_millis() as u64;
        let window_ms = spread_ms.max(RETRY_WINDOW_MIN.as_millis() as u64);
        let right = spread_ms..spread_ms + window_ms;
        (!right.contains(&retry_ms)).then_some("at a wrong time")
    }

    /// A WebSocket is told a code before it is closed.
    fn is_farewell(&mut self, id: usize, bytes: &[u8]) -> bool {
        let client = &self.peers[id];
        let &[0x88, length, high, low, ref text @ ..] = bytes else { return false };
        // Who has been parted from is heard no more, which does not show: what he has done since
        // brings no other good-bye.
        let may_be_first = !client.farewell || self.stopping && client.given_up_at.is_none();
        let is_first = client.protocol() == Protocol::WebSocket && may_be_first;
        let is_owed_nothing = client.expected.is_empty() || self.stopping;
        if !is_first || !is_owed_nothing || usize::from(length) != bytes.len() - 2 {
            return false;
        }
        let code = u16::from_be_bytes([high, low]);
        let wrong = match text {
            [] => self.wrong_code(id, code),
            text => self.wrong_dismissal(id, code, text),
        };
        let (now, turn_now) = (self.now(), self.turn_now);
        let by_sweep = text.is_empty() && !self.peers[id].kicked;
        if by_sweep && now.since(turn_now) >= GOODBYE_TIMEOUT {
            self.exercise("good-bye after a pause within the turn");
        }
        let client = &mut self.peers[id];
        client.farewell = true;
        client.parted = Some(Parted { at: now, lingers: !text.is_empty() });
        // What it has said after its turn to go had come is not answered.
        client.expected.clear();
        client.owed_pushes.clear();
        client.expect(bytes);
        client.give_up(turn_now);
        if let Some(wrong) = wrong {
            self.violate(wrong);
        }
        true
    }

    /// A good-bye that nobody had asked for by what he sent.
    fn wrong_code(&mut self, id: usize, code: u16) -> Option<String> {
        let reason = match code {
            1001 if self.peers[id].kicked => return None,
            1001 if self.peers[id].first_done => CloseReason::Expired,
            1008 => CloseReason::FrameTimeout,
            _ => return Some(format!("a good-bye with code {code} that nobody is owed")),
        };
        self.peers[id].dismissed_for = Some(reason);
        self.wrong_expiry(&self.peers[id], reason, self.turn_now)
    }

    /// A good-bye because the server stops.
    fn wrong_dismissal(&self, id: usize, code: u16, text: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(text).ok()?;
        let retry_ms = text.strip_prefix("retry-after-ms=").and_then(|text| text.parse().ok());
        let Some(retry_ms) = retry_ms.filter(|_| code == 1001) else {
            return Some(format!("a good-bye with code {code} and {text:?}"));
        };
        let wrong = self.wrong_retry(retry_ms).map(|wrong| format!("{id}: {text} {wrong}"));
        wrong.or_else(|| self.wrong_turn(id, self.now()))
    }

    /// Why this is no time to have been closed because the server stops.
    pub(super) fn wrong_stop(&self, id: usize) -> Option<String> {
        let client = &self.peers[id];
        let CloseBegun { at, is_busy, .. } = client.close_begun?;
        // Who was told by GOAWAY has a second to read it, unless he closes before.
        let lingers = client.protocol() == Protocol::Tcp
            && client.first_done
            && !(is_busy || client.fin || client.reset || client.kicked);
        let before = if lingers { GOODBYE_TIMEOUT } else { Duration::ZERO };
        let nanos = at.as_nanos().saturating_sub(before.as_nanos() as u64);
        self.wrong_turn(id, Timestamp::from_nanos(nanos))
    }

    /// Why it is not yet its turn to be sent away.
    fn wrong_turn(&self, id: usize, now: Timestamp) -> Option<String> {
        let Some(Draining { spread, begun, .. }) = self.draining else {
            return Some(format!("{id} is sent away, and the server does not stop"));
        };
        let index = self.peers[id].key.map_or(0, |key| key.index);
        let share = spread * index / self.indices_end.max(1);
        let elapsed = now.since(begun);
        (elapsed < share).then(|| {
            format!("{id} is sent away after {elapsed:?}, and its turn comes after {share:?}")
        })
    }

    /// The engine begins to close a connection: whoever was told good-bye has had the time to take
    /// it, and then to close his side.
    pub(super) fn closing_begins(&mut self, id: usize) {
        let (now, turn_now) = (self.now(), self.turn_now);
        let client = &mut self.peers[id];
        client.give_up(turn_now);
        if client.close_begun.is_some() {
            return;
        }
        let is_busy = client.sends_in_flight > 0;
        let held_up = self.held_up.least_since(client.send_begun);
        client.close_begun = Some(CloseBegun { at: now, is_busy, held_up });
        let Some(Parted { at, lingers }) = client.parted else { return };
        let since = match is_busy {
            true if now >= client.send_begun + self.rules.stall_timeout => return,
            true => at,
            false if lingers && !client.fin => client.send_ended,
            false => return,
        };
        if !client.reset && !client.kicked && now < since + GOODBYE_TIMEOUT {
            let told = format!(
                "{:?}, {id}, was told good-bye at {} ms, and is closed already",
                client.behaviour,
                since.as_millis()
            );
            self.violate(told);
        }
    }

    /// In a drain: whoever is to be told was told.
    pub(super) fn judge_notices(&mut self) {
        let Some(draining) = &mut self.draining else { return };
        let Some(turns) = &mut draining.turns else { return };
        *turns += 1;
        // Two turns for a few, and another one for each harvest.
        let patience = 3 + self.indices_end / EXPIRED_PER_TURN_MAX as u32;
        if *turns != patience {
            return;
        }
        let begun = draining.begun;
        for at in 0..self.live.len() {
            let id = self.live[at];
            let client = &self.peers[id];
            let must = client.is_live()
                && client.protocol() == Protocol::Tcp
                && client.is_exact()
                && client.sends_in_flight == 0
                && client.live_since.is_some_and(|since| since < begun);
            if must && !client.told {
                let behaviour = client.behaviour;
                self.violate(format!("{behaviour:?}, {id}, was not told that the server stops"));
            }
        }
    }
}

/// Whether these bytes come first of what is owed.
fn begins_with(owed: &std::collections::VecDeque<u8>, bytes: &[u8]) -> bool {
    let (front, back) = owed.as_slices();
    let cut = front.len().min(bytes.len());
    let (first, rest) = bytes.split_at(cut);
    first == &front[..cut] && rest.len() <= back.len() && rest == &back[..rest.len()]
}
