//! The naive oracle: what ought to come of what the engine was told, worked out for each client by
//! itself, with exact times and without any sweeper, and held against what the engine does.
//!
//! It can be exact because time passes only inside the simulated kernel: the clock that the engine
//! reads after it has collected completions shows the time at which the oracle saw them collected.

use std::time::Duration;

use super::kernel::Cqe;
use super::peer::{Outcome, Peer, Reading};
use super::world::{Event, World};
use crate::limits::{GOODBYE_TIMEOUT, PENDING_PONGS_MAX};
use crate::protocol::Protocol;
use crate::ring::Op;
use crate::session::CloseReason;
use crate::shard::{Activity, Counters};
use crate::time::Timestamp;

/// Turns of the loop that may pass after a deadline's tick before the session is given up.
const LATE_TURNS_MAX: u32 = 2;

/// What the engine's counters have to show.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) accepted: u64,
    pub(super) heartbeats: u64,
    pub(super) bytes_received: u64,
    pub(super) bytes_sent: u64,
    pub(super) hellos: u64,
    pub(super) upgrades: u64,
    pub(super) data: u64,
    pub(super) answered: u64,
    pub(super) closes: u64,
    pub(super) expiries: u64,
    /// Bytes of clients of whom the oracle cannot say in the middle of a turn whether the engine
    /// still hears them: those whose queue may run full.
    pub(super) doubtful: u64,
}

impl World {
    /// Bytes have reached the socket.
    pub(super) fn bytes_arrive(&mut self, id: usize, bytes: &[u8]) {
        let (now, turn_now) = (self.now(), self.turn_now);
        let client = &mut self.peers[id];
        if client.closed || client.reset {
            return;
        }
        if client.given_up_at.is_none() {
            if client.last_arrival <= turn_now {
                client.arrival_before = client.last_arrival;
            }
            client.last_arrival = now;
        }
        client.inbox.extend(bytes);
        self.rouse(id);
    }

    /// The socket's buffer takes bytes for the client.
    pub(super) fn take(&mut self, id: usize, count: usize) {
        if count == 0 {
            return;
        }
        let client = &mut self.peers[id];
        client.expected.drain(..count.min(client.expected.len()));
        client.taken += count as u64;
        client.room -= count;
        client.in_pipe += count;
        let delay = Duration::from_micros(client.latency_us);
        let mut at = self.now() + delay;
        if self.partition_until > self.now() && self.is_cut_off(id) {
            self.peers[id].cut_off = true;
            at = self.partition_until + delay;
        }
        self.schedule(at, Event::Drain(id));
    }

    /// The bytes of a send are those that the client is owed next, or a good-bye.
    pub(super) fn judge_send(&mut self, id: usize, bytes: &[u8]) {
        let client = &self.peers[id];
        let owed = client.expected.iter().take(bytes.len());
        if bytes.len() <= client.expected.len() && owed.eq(bytes) {
            return;
        }
        if let ([0, 7, 8, ..], 9, true, false) =
            (bytes, bytes.len(), self.stopping, client.farewell)
        {
            self.expect_notice(id, bytes);
            return;
        }
        let is_farewell = client.protocol() == Protocol::WebSocket
            && !client.farewell
            && (client.expected.is_empty() || self.stopping)
            && (matches!(bytes, [0x88, 2, _, _])
                || self.stopping && bytes[0] == 0x88 && bytes[4..].starts_with(b"retry-after-ms="));
        if !is_farewell {
            let told = format!("{:?} is sent {bytes:?}", client.behaviour);
            let owed = client.expected.iter().take(40).copied().collect::<Vec<_>>();
            self.violate(format!("{told}, and is owed {owed:?}"));
            return;
        }
        let code = u16::from_be_bytes([bytes[2], bytes[3]]);
        let turn_now = self.turn_now;
        if let Some(wrong) = self.wrong_code(id, code) {
            self.violate(wrong);
        }
        let client = &mut self.peers[id];
        client.farewell = true;
        // What it has said after its turn to go had come is not answered.
        client.expected.clear();
        client.expect(bytes);
        client.give_up(turn_now);
    }

    /// A TCP client is told that the server stops: before the replies that are not on their way.
    fn expect_notice(&mut self, id: usize, bytes: &[u8]) {
        let client = &mut self.peers[id];
        client.farewell = true;
        for byte in bytes.iter().rev() {
            client.expected.push_front(*byte);
        }
        client.expected_end += bytes.len() as u64;
        let taken = client.taken;
        for end in client.unanswered.iter_mut().filter(|end| **end > taken) {
            *end += bytes.len() as u64;
        }
    }

    /// A good-bye that nobody had asked for by what he sent.
    fn wrong_code(&self, id: usize, code: u16) -> Option<String> {
        let reason = match code {
            1001 if self.stopping || self.peers[id].kicked => return None,
            1001 if self.peers[id].first_done => CloseReason::Expired,
            1008 => CloseReason::FrameTimeout,
            _ => return Some(format!("a good-bye with code {code} that nobody is owed")),
        };
        self.wrong_expiry(&self.peers[id], reason, self.turn_now)
    }

    /// The engine has collected a completion.
    pub(super) fn engine_learns(&mut self, ring: usize, cqe: &Cqe) {
        let now = self.now();
        match (cqe.tag.op, cqe.peer) {
            (Op::Accept, Some(id)) => {
                self.tally.accepted += 1;
                self.peers[id].opened_at = Some(now);
                self.peers[id].last_activity = now;
            }
            (Op::Receive | Op::ReceiveOnce, Some(id)) => {
                let filled = cqe.buffer.as_ref().map_or(0, |(_, bytes)| bytes.len() as u64);
                if filled > 0 {
                    self.hear(id, filled, now);
                } else if cqe.result == 0 || cqe.result == -libc::ECONNRESET {
                    self.end_of_stream(id, cqe.result == 0, now);
                }
            }
            (Op::Accept, None) => {
                self.tally.accepted += u64::from(cqe.result == -libc::ENFILE);
                if [-libc::ENFILE, -libc::EMFILE].contains(&cqe.result) {
                    self.rings[ring].exhausted_at = Some(now);
                }
            }
            (Op::Send, Some(id)) => self.sent(id, cqe, now),
            _ => {}
        }
    }

    fn end_of_stream(&mut self, id: usize, in_order: bool, now: Timestamp) {
        let client = &mut self.peers[id];
        client.end_seen = true;
        if client.is_heard() {
            let reason = if in_order { CloseReason::PeerClosed } else { CloseReason::PeerReset };
            client.verdict = Some((reason, now));
        }
    }

    fn sent(&mut self, id: usize, cqe: &Cqe, now: Timestamp) {
        let sent = cqe.result.max(0) as u64;
        self.tally.bytes_sent += sent;
        let length = cqe.outgoing.as_ref().map_or(0, |outgoing| outgoing.len() as u64);
        let any = self.rules.activity == Activity::Any;
        let client = &mut self.peers[id];
        client.blocked_since = None;
        client.block_noticed = None;
        client.send_ended = now;
        if cqe.result < 0 {
            if client.is_heard() {
                client.verdict = Some((CloseReason::PeerReset, now));
            }
        } else if sent == length {
            while client.unanswered.front().is_some_and(|end| *end <= client.taken) {
                client.unanswered.pop_front();
                self.tally.answered += 1;
            }
            if any && client.is_heard() {
                client.last_activity = now;
            }
        }
    }

    /// The engine is told of bytes from a client.
    fn hear(&mut self, id: usize, count: u64, now: Timestamp) {
        if !self.peers[id].is_heard() {
            return;
        }
        if self.peers[id].reading == Reading::Fast {
            self.tally.bytes_received += count;
        } else {
            self.tally.doubtful += count;
        }
        let client = &mut self.peers[id];
        client.last_activity = now;
        client.unheard_turns = 0;
        client.delivered += count;
        let mut completed = false;
        while let Some(unit) = self.peers[id].units.front().cloned() {
            let delivered = self.peers[id].delivered;
            if let Outcome::Fatal { bytes, reason, code } = unit.outcome
                && delivered >= unit.begin + bytes
            {
                self.condemn(id, reason, code, now);
                return;
            }
            if delivered < unit.end {
                break;
            }
            completed = true;
            self.peers[id].units.pop_front();
            self.peers[id].first_done = true;
            if !self.fulfil(id, unit.outcome, now) {
                return;
            }
        }
        let frame_timeout = self.rules.frame_timeout;
        let client = &mut self.peers[id];
        let begun = client.units.front().is_some_and(|unit| client.delivered > unit.begin);
        match (begun, completed) {
            (false, _) => client.partial_due = None,
            (true, true) => client.partial_due = Some(now + frame_timeout),
            (true, false) => {
                client.partial_due.get_or_insert(now + frame_timeout);
            }
        }
    }

    fn condemn(&mut self, id: usize, reason: CloseReason, code: Option<u16>, now: Timestamp) {
        let client = &mut self.peers[id];
        client.verdict = Some((reason, now));
        if let Some([high, low]) = code.map(u16::to_be_bytes) {
            client.farewell = true;
            client.expect(&[0x88, 2, high, low]);
        }
    }

    /// What a whole message brings about. Whether the session goes on.
    fn fulfil(&mut self, id: usize, outcome: Outcome, now: Timestamp) -> bool {
        let rules = self.rules;
        let client = &mut self.peers[id];
        let exact = client.reading == Reading::Fast;
        match outcome {
            Outcome::Nothing | Outcome::Fatal { .. } => {}
            Outcome::Heartbeat(reply) => {
                self.tally.heartbeats += 1;
                if client.unanswered.len() >= usize::from(PENDING_PONGS_MAX) {
                    let is_told = client.protocol() == Protocol::WebSocket;
                    let code = is_told.then_some(1008);
                    self.condemn(id, CloseReason::PingFlood, code, now);
                    return false;
                }
                client.expect(&reply);
                client.unanswered.push_back(client.expected_end);
            }
            Outcome::Data(message) => {
                self.tally.data += u64::from(exact);
                if rules.echo {
                    client.expect(&message);
                }
            }
            Outcome::Hello => {
                self.tally.hellos += 1;
                let mut welcome = vec![0, 17, 2];
                let key = client
                    .key
                    .map_or(0, |key| u64::from(key.generation) << 32 | u64::from(key.index));
                welcome.extend(key.to_be_bytes());
                for duration in [rules.heartbeat_interval, rules.idle_timeout] {
                    welcome.extend((duration.as_millis() as u32).to_be_bytes());
                }
                client.expect(&welcome);
            }
            Outcome::Upgrade => {
                self.tally.upgrades += 1;
                let response = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\n\
                     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
                     Heartbeat-Interval-Ms: {}\r\nIdle-Timeout-Ms: {}\r\n\r\n",
                    rules.heartbeat_interval.as_millis(),
                    rules.idle_timeout.as_millis()
                );
                client.expect(response.as_bytes());
            }
        }
        true
    }

    /// The deadlines of a session that is heard.
    fn dues(&self, client: &Peer) -> Vec<(Timestamp, CloseReason)> {
        let rules = &self.rules;
        let opened_at = client.opened_at.unwrap_or(Timestamp::ZERO);
        let base = match client.first_done {
            true => (client.last_activity + rules.idle_timeout, CloseReason::Expired),
            false => {
                let timeout = rules.hello_timeout.min(rules.idle_timeout);
                (opened_at + timeout, CloseReason::HelloTimeout)
            }
        };
        let partial = client.partial_due.map(|due| (due, CloseReason::FrameTimeout));
        std::iter::once(base).chain(partial).collect()
    }

    /// Why this deadline is no reason to give a session up at `at`.
    fn wrong_expiry(&self, client: &Peer, reason: CloseReason, at: Timestamp) -> Option<String> {
        let dues = self.dues(client);
        let told = |what: &str| {
            let opened = client.opened_at.map(Timestamp::as_millis);
            let active = client.last_activity.as_millis();
            Some(format!(
                "{:?} is given up as {} at {} ms {what}: opened {opened:?}, last active {active}",
                client.behaviour,
                reason.name(),
                at.as_millis(),
            ))
        };
        if !self.rules.expiry {
            return told("although nobody is to be");
        }
        let Some((due, _)) = dues.iter().find(|(_, of)| *of == reason) else {
            return told("without such a deadline");
        };
        if at < *due {
            return told("before its time");
        }
        if dues.iter().any(|(other, _)| other < due) {
            return told("though another deadline came first");
        }
        let arrival = match client.last_arrival <= at {
            true => client.last_arrival,
            false => client.arrival_before,
        };
        if reason == CloseReason::Expired && at < arrival + self.rules.idle_timeout {
            return told("though bytes had arrived");
        }
        if client.behaviour.keeps_beating()
            && !client.dead
            && !client.cut_off
            && !self.rules.is_harsh
        {
            return told("though it is healthy");
        }
        None
    }

    /// Looks at the reason for which a session was closed.
    pub(super) fn judge_reason(&mut self, id: usize, reason: CloseReason) {
        self.tally.closes += 1;
        let client = &self.peers[id];
        let at = client.given_up_at.unwrap_or(self.turn_now);
        let verdict = client.verdict.map(|(reason, _)| reason);
        let stall_due = client.send_begun + self.rules.stall_timeout;
        let slow = client.reading != Reading::Fast || client.cut_off || client.dead;
        let wrong = match reason {
            _ if verdict == Some(reason) => None,
            CloseReason::PeerReset if client.reset => None,
            CloseReason::PeerClosed if client.fin && client.end_seen => None,
            CloseReason::Kicked if client.kicked => None,
            CloseReason::ServerStopping if self.stopping => None,
            CloseReason::StallTimeout if slow && at >= stall_due => None,
            CloseReason::SendQueueFull if client.reading != Reading::Fast => None,
            CloseReason::Expired | CloseReason::HelloTimeout | CloseReason::FrameTimeout
                if verdict.is_none() =>
            {
                self.tally.expiries += 1;
                self.wrong_expiry(client, reason, at)
            }
            _ => Some(format!(
                "{:?} is closed as {}, and ought to be as {verdict:?}",
                client.behaviour,
                reason.name()
            )),
        };
        if let Some(wrong) = wrong {
            self.violate(wrong);
        }
    }

    /// After a turn in which everything was heard: nobody who is due is still there.
    pub(super) fn judge_lateness(&mut self) {
        // A server that stops has a deadline of its own for everybody.
        if self.stopping {
            return;
        }
        let tick = self.rules.tick;
        let begun = |due: Timestamp| tick.start(tick.deadline(due));
        // With few buffers they are heard one after the other.
        let unheard_turns_max = LATE_TURNS_MAX + 20 * self.sizes.clients as u32;
        for id in self.live.clone() {
            let now = self.now();
            let client = &mut self.peers[id];
            if client.blocked_since.is_some() {
                // It can be noticed in the first turn after it has begun.
                client.block_noticed.get_or_insert(now);
            }
            let client = &self.peers[id];
            if client.place.is_none() || client.key.is_none() || client.given_up_at.is_some() {
                continue;
            }
            let stall = client
                .block_noticed
                .map(|since| begun(since + self.rules.stall_timeout) + tick.as_duration() * 2);
            let last = match client.verdict {
                Some((_, at)) => {
                    let flush = self.rules.stall_timeout + GOODBYE_TIMEOUT * 2;
                    let slow = client.reading == Reading::Slow;
                    (!slow).then(|| begun(client.send_begun.max(client.send_ended).max(at) + flush))
                }
                None => self.dues(client).iter().map(|(due, _)| begun(*due)).min(),
            };
            let late = self.rules.expiry
                && last.into_iter().chain(stall).any(|last| self.turn_now >= last);
            let client = &mut self.peers[id];
            let ended = (client.fin || client.reset) && !client.end_seen;
            let unheard = client.is_heard()
                && (!client.inbox.is_empty() || ended)
                && client.last_arrival.max(client.end_arrived) <= self.turn_now;
            client.late_turns = if late { client.late_turns + 1 } else { 0 };
            client.unheard_turns = if unheard { client.unheard_turns + 1 } else { 0 };
            if client.unheard_turns > unheard_turns_max {
                let told = format!("{id}, {:?}, is not heard", client.behaviour);
                self.violate(told);
                return;
            }
            if client.late_turns > LATE_TURNS_MAX {
                let told = format!("{:?}, {:?}, is late to be given up", id, client.behaviour);
                self.violate(told);
            }
        }
    }

    /// Whether a reading client has been waiting for its replies for longer than a while.
    pub(super) fn waits_for_reply(&self, id: usize) -> bool {
        let client = &self.peers[id];
        let waits = client.place.is_some() && client.is_heard() && !client.expected.is_empty();
        let reads = client.reading == Reading::Fast && !client.dead;
        waits && reads && self.now() > client.last_activity + Duration::from_secs(2)
    }

    /// Holds the engine's counters against the tally.
    pub(super) fn judge_counters(&mut self, counters: &Counters) {
        let tally = self.tally;
        let exact = [
            ("accepted", counters.accepted, tally.accepted),
            ("heartbeats_received", counters.heartbeats_received, tally.heartbeats),
            ("heartbeats_answered", counters.heartbeats_answered, tally.answered),
            ("bytes_sent", counters.bytes_sent, tally.bytes_sent),
            ("hellos_received", counters.hellos_received, tally.hellos),
            ("upgrades", counters.upgrades, tally.upgrades),
            ("stale_events", counters.stale_events, 0),
        ];
        for (name, counted, right) in exact {
            // Whose turn to go has come is heard no more, which shows only in what he is sent.
            let is_right = match self.stopping {
                true => counted <= right,
                false => counted == right,
            };
            if !is_right {
                self.violate(format!("{name} is {counted}, and ought to be {right}"));
            }
        }
        let low = if self.stopping { 0 } else { tally.bytes_received };
        let high = tally.bytes_received + tally.doubtful;
        if !(low..=high).contains(&counters.bytes_received) {
            let counted = counters.bytes_received;
            self.violate(format!("bytes_received is {counted}, and ought to be {low} to {high}"));
        }
    }
}
