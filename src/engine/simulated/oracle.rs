//! The naive oracle: what ought to come of what the engine was told, worked out for each client by
//! itself, with exact times and without any sweeper, and held against what the engine does.
//!
//! It can be exact because time passes only inside the simulated kernel: the clock that the engine
//! reads after it has collected completions shows the time at which the oracle saw them collected.

use std::time::Duration;

use super::behaviour::Behaviour;
use super::kernel::Cqe;
use super::operations::NOBODY;
use super::peer::{Outcome, Parted, Peer, Reading};
use super::world::{Event, World};
use crate::limits::PENDING_PONGS_MAX;
use crate::protocol::Protocol;
use crate::ring::Op;
use crate::session::{CloseReason, Refusal};
use crate::shard::Activity;
use crate::time::Timestamp;

/// What the engine's counters have to show.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) accepted: u64,
    pub(super) heartbeats: u64,
    pub(super) bytes_received: u64,
    pub(super) bytes_sent: u64,
    pub(super) hellos: u64,
    pub(super) upgrades: u64,
    pub(super) pongs: u64,
    pub(super) server_pings: u64,
    pub(super) data: u64,
    pub(super) answered: u64,
    pub(super) closes: u64,
    pub(super) expiries: u64,
    /// Bytes of clients of whom the oracle cannot say in the middle of a turn whether the engine
    /// still hears them: those whose queue may run full.
    pub(super) doubtful: u64,
}

/// When a session has to be given up: not before and not after. Without the latter something that
/// does not show decides it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) earliest: Timestamp,
    pub(super) latest: Option<Timestamp>,
    pub(super) reason: CloseReason,
}

impl Due {
    fn at(due: Timestamp, reason: CloseReason) -> Due {
        Due { earliest: due, latest: Some(due), reason }
    }
}

fn is_server_ping(bytes: &[u8], protocol: Protocol) -> bool {
    match protocol {
        Protocol::Tcp => bytes == [0, 1, 3],
        Protocol::WebSocket => bytes == [0x89, 0],
    }
}

impl World {
    /// Bytes have reached the socket.
    pub(super) fn bytes_arrive(&mut self, id: usize, count: usize) {
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
        client.arrived += count;
        self.unread += count;
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

    /// The engine has collected a completion.
    pub(super) fn engine_learns(&mut self, ring: usize, cqe: &Cqe) {
        let now = self.now();
        match (cqe.tag.op, cqe.peer) {
            (Op::Accept, Some(_)) if self.gate.asks_names() => {}
            (Op::Accept, Some(id)) => self.comes_in(id, true),
            (Op::PeerName, Some(id)) => self.comes_in(id, cqe.result > 0),
            (Op::Close, Some(id)) if cqe.tag.index != NOBODY => self.leaves(id),
            (Op::Receive | Op::ReceiveOnce, Some(id)) => {
                let filled = cqe.buffer.as_ref().map_or(0, |(_, bytes)| bytes.len() as u64);
                if filled > 0 {
                    self.hear(id, filled, now);
                } else if cqe.result == 0 || cqe.result == -libc::ECONNRESET {
                    self.end_of_stream(id, cqe.result == 0, now);
                }
            }
            (Op::Accept, None) => {
                if cqe.result == -libc::ENFILE {
                    self.tally.accepted += 1;
                    self.gate.rejected[Refusal::RingFull as usize] += 1;
                }
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
        client.note_before(now);
        client.end_seen = true;
        if client.is_heard() {
            let reason = if in_order { CloseReason::PeerClosed } else { CloseReason::PeerReset };
            client.verdict = Some((reason, now));
        }
    }

    fn sent(&mut self, id: usize, cqe: &Cqe, now: Timestamp) {
        let sent = cqe.result.max(0) as u64;
        self.tally.bytes_sent += sent;
        let Some(outgoing) = &cqe.outgoing else { return };
        let whole = cqe.result >= 0 && sent == outgoing.len() as u64;
        let is_ping = is_server_ping(outgoing.as_bytes(), self.peers[id].protocol());
        self.tally.server_pings += u64::from(whole && is_ping);
        if let Some(push) = outgoing.push_id().filter(|_| whole) {
            self.push_written(id, push);
        }
        let any = self.rules.activity == Activity::Any;
        let client = &mut self.peers[id];
        client.blocked_since = None;
        client.block_noticed = None;
        client.send_ended = now;
        client.sends_in_flight -= 1;
        if cqe.result < 0 {
            if client.is_heard() {
                client.verdict = Some((CloseReason::PeerReset, now));
            }
        } else if whole {
            while client.unanswered.front().is_some_and(|end| *end <= client.taken) {
                client.unanswered.pop_front();
                self.tally.answered += 1;
            }
            if is_ping {
                client.asked_at(now);
            }
            // Our own question is no sign of the other's life.
            if any && !is_ping && client.is_heard() {
                client.note_activity(now);
            }
        }
    }

    /// The engine is told of bytes from a client.
    fn hear(&mut self, id: usize, count: u64, now: Timestamp) {
        if !self.peers[id].is_heard() {
            return;
        }
        if self.peers[id].is_exact() {
            self.tally.bytes_received += count;
        } else {
            self.tally.doubtful += count;
        }
        let client = &mut self.peers[id];
        client.note_before(now);
        client.note_activity(now);
        client.unheard_turns = 0;
        let within_message = client.message_open || client.is_within_first_fragment();
        client.delivered += count;
        // Whether something has ended that is no control frame within a message.
        let mut ended = false;
        while let Some(unit) = self.peers[id].units.front() {
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
            let Some(unit) = self.peers[id].units.pop_front() else { break };
            let client = &mut self.peers[id];
            client.first_done = true;
            client.live_since.get_or_insert(now);
            let is_fragment = matches!(unit.outcome, Outcome::Fragment { .. });
            let is_message = matches!(unit.outcome, Outcome::Data(_));
            client.message_open = is_fragment || client.message_open && !is_message;
            ended |= is_message || !is_fragment && !within_message;
            if !self.fulfil(id, unit.outcome, now) {
                return;
            }
        }
        let frame_timeout = self.rules.frame_timeout;
        let client = &mut self.peers[id];
        let in_unit = client.units.front().is_some_and(|unit| client.delivered > unit.begin);
        match (in_unit || client.message_open, ended) {
            (false, _) => client.partial_due = None,
            (true, true) => client.partial_due = Some(now + frame_timeout),
            (true, false) => {
                client.partial_due.get_or_insert(now + frame_timeout);
            }
        }
    }

    fn condemn(&mut self, id: usize, reason: CloseReason, code: Option<u16>, now: Timestamp) {
        // Once the server stops its turn to go may have come before, which does not show.
        let stopping_since = self.draining.as_ref().map(|draining| draining.begun);
        let client = &mut self.peers[id];
        client.verdict = Some((reason, now));
        if let Some([high, low]) = code.map(u16::to_be_bytes) {
            client.farewell = true;
            let at = stopping_since.unwrap_or(now);
            client.parted = Some(Parted { at, lingers: true });
            client.expect(&[0x88, 2, high, low]);
        }
    }

    /// What a whole message brings about. Whether the session goes on.
    fn fulfil(&mut self, id: usize, outcome: Outcome, now: Timestamp) -> bool {
        let rules = self.rules;
        let client = &mut self.peers[id];
        let exact = client.is_exact();
        match outcome {
            Outcome::Nothing | Outcome::Fragment { .. } | Outcome::Fatal { .. } => {}
            Outcome::Heartbeat(reply) => {
                self.tally.heartbeats += 1;
                if client.unanswered.len() >= usize::from(PENDING_PONGS_MAX) {
                    let is_told = client.protocol() == Protocol::WebSocket;
                    let code = is_told.then_some(1008);
                    self.condemn(id, CloseReason::PingFlood, code, now);
                    return false;
                }
                client.expect(reply.bytes());
                client.unanswered.push_back(client.expected_end);
            }
            Outcome::Pong => self.tally.pongs += 1,
            Outcome::Data(message) => {
                self.tally.data += u64::from(exact);
                if rules.echo {
                    client.expect(&message);
                }
            }
            Outcome::PushAck { id: push } => self.receipt(id, push),
            Outcome::Hello { wanted_ms } => {
                self.tally.hellos += 1;
                let mut welcome = vec![0, 17, 2];
                let key = client
                    .key
                    .map_or(0, |key| u64::from(key.generation) << 32 | u64::from(key.index));
                welcome.extend(key.to_be_bytes());
                let (interval, idle_timeout) = rules.terms(wanted_ms);
                for duration in [interval, idle_timeout] {
                    welcome.extend((duration.as_millis() as u32).to_be_bytes());
                }
                client.expect(&welcome);
                self.agree(id, wanted_ms);
            }
            Outcome::Upgrade { wanted_ms } => {
                self.tally.upgrades += 1;
                let (interval, idle_timeout) = rules.terms(wanted_ms);
                let response = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\n\
                     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
                     Heartbeat-Interval-Ms: {}\r\nIdle-Timeout-Ms: {}\r\n\r\n",
                    interval.as_millis(),
                    idle_timeout.as_millis()
                );
                client.expect(response.as_bytes());
                self.agree(id, wanted_ms);
            }
        }
        true
    }

    fn agree(&mut self, id: usize, wanted_ms: u32) {
        (self.peers[id].interval, self.peers[id].idle_timeout) = self.rules.terms(wanted_ms);
        if wanted_ms > 0 {
            self.exercise("terms of its own");
        }
    }

    /// The deadlines of a session that is heard.
    pub(super) fn dues(&self, client: &Peer) -> [Option<Due>; 2] {
        let rules = &self.rules;
        let opened_at = client.opened_at.unwrap_or(Timestamp::ZERO);
        let base = match client.first_done {
            true => self.idle_due(client),
            false => {
                let timeout = rules.hello_timeout.min(rules.idle_timeout);
                Due::at(opened_at + timeout, CloseReason::HelloTimeout)
            }
        };
        let partial = client.partial_due.map(|due| Due::at(due, CloseReason::FrameTimeout));
        [Some(base), partial]
    }

    /// When its silence has lasted for too long. The silence of one who was asked late counts from
    /// later, and when somebody was asked does not show while he is still being sent something.
    fn idle_due(&self, client: &Peer) -> Due {
        let due = client.last_activity + client.idle_timeout;
        match client.asked {
            _ if !self.rules.server_ping => Due::at(due, CloseReason::Expired),
            None => Due { earliest: due, latest: None, reason: CloseReason::Expired },
            Some(asked) => Due {
                earliest: due + asked.shift_min,
                latest: Some(due + asked.shift_max),
                reason: CloseReason::Expired,
            },
        }
    }

    /// Why this deadline is no reason to give a session up at `at`.
    pub(super) fn wrong_expiry(
        &self,
        client: &Peer,
        reason: CloseReason,
        at: Timestamp,
    ) -> Option<String> {
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
        let mut of_all = dues.iter().flatten();
        let Some(due) = of_all.clone().find(|due| due.reason == reason) else {
            return told("without such a deadline");
        };
        if at < due.earliest {
            return told("before its time");
        }
        // Which of two deadlines comes first may turn, where one was put off.
        let is_put_off = at < client.excused_until || self.is_putting_off();
        let is_before = |latest| latest < due.earliest && !is_put_off;
        if of_all.any(|other| other.latest.is_some_and(is_before)) {
            return told("though another deadline came first");
        }
        let arrival = match client.last_arrival <= at {
            true => client.last_arrival,
            false => client.arrival_before,
        };
        if reason == CloseReason::Expired && at < arrival + client.idle_timeout {
            return told("though bytes had arrived");
        }
        let was_busy = client.close_begun.is_some_and(|begun| begun.is_busy);
        let unasked =
            self.rules.server_ping && client.asked.is_none() && client.has_no_output() && !was_busy;
        if reason == CloseReason::Expired && unasked {
            return told("without having been asked");
        }
        let held_up = client.behaviour == Behaviour::Answerer && was_busy;
        let healthy = client.behaviour.keeps_beating() && !client.dead && !client.cut_off;
        if healthy && !held_up && !self.rules.is_harsh {
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
        // Nothing is expected of him while the server does not run.
        let held_up = client.close_begun.map_or(Duration::ZERO, |begun| begun.held_up);
        let stall_due = client.send_begun + self.rules.stall_timeout + held_up;
        let slow = client.reading != Reading::Fast || client.cut_off;
        let wrong = match reason {
            _ if verdict == Some(reason) => None,
            CloseReason::PeerReset if client.reset => None,
            CloseReason::PeerClosed if client.fin && client.end_seen => None,
            CloseReason::Kicked if client.kicked => None,
            CloseReason::ServerStopping if self.stopping => self.wrong_stop(id),
            CloseReason::StallTimeout if slow && at >= stall_due => None,
            CloseReason::SendQueueFull if client.reading != Reading::Fast => None,
            CloseReason::Expired | CloseReason::HelloTimeout | CloseReason::FrameTimeout
                if verdict.is_none() =>
            {
                self.tally.expiries += 1;
                match client.dismissed_for {
                    Some(judged) if judged == reason => None,
                    _ => self.wrong_expiry(client, reason, at),
                }
            }
            _ => Some(format!(
                "{:?} is closed as {}, and ought to be as {verdict:?}",
                client.behaviour,
                reason.name()
            )),
        };
        if let Some(wrong) = wrong {
            self.violate(format!("{id}: {wrong}"));
        }
        if reason == CloseReason::ServerStopping
            && self.draining.is_some_and(|draining| !draining.spread.is_zero())
        {
            self.exercise("sent away within a spread drain");
        }
        self.forget_owed_pushes(id);
    }
}
