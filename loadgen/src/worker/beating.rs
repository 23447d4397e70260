//! Heartbeats, and everything else that is sent.

use heartwheel::outgoing::Outgoing;
use heartwheel::time::Timestamp;

use super::client::InFlight;
use super::{State, Worker};
use crate::limits;

impl Worker {
    /// Sends the heartbeats whose time has come.
    pub(super) fn beat_for_whom_it_is_time(&mut self, now: Timestamp) {
        let mut due = std::mem::take(&mut self.due);
        self.schedule.advance(now, &mut due);
        for index in due.drain(..) {
            self.beat(index, now);
        }
        self.due = due;
    }

    fn beat(&mut self, index: u32, now: Timestamp) {
        if self.clients[index as usize].state == State::Waiting {
            // Not a beat, but the time to come back.
            return self.again.push_back(index);
        }
        let open = self.clients[index as usize].state == State::Open;
        if !open || now >= self.phases.quiet_at || self.is_silent(index, now) {
            return;
        }
        let due = self.schedule.due(index);
        self.stats.due += 1;
        self.stats.sent += 1;
        let late = now.since(due);
        self.stats.sent_late += u64::from(late > limits::SENT_LATE);
        if due >= self.phases.steady_at {
            self.stats.send_lateness.record(late);
            self.stats.note_beat(now.since(self.phases.steady_at));
        }

        let client = &mut self.clients[index as usize];
        if client.unanswered == 0 {
            client.ping_due = due;
        }
        client.unanswered = client.unanswered.saturating_add(1);
        self.stats.scene.unread += u64::from(client.deaf);
        client.beats += 1;
        let (beats, interval) = (client.beats, client.interval());
        let planned = self.planned(index);
        let heartbeat = self.task.wire.heartbeat(planned, beats, &mut self.buffers);
        self.send(index, heartbeat, now);
        let gap = self.task.plan.gap(planned, beats, interval);
        self.schedule.file(index, now + gap);
    }

    /// Whether a client is silent by plan.
    pub(super) fn is_silent(&self, index: u32, now: Timestamp) -> bool {
        now >= self.phases.steady_at && self.task.plan.falls_silent(self.planned(index))
    }

    /// The answer to this heartbeat; if it is not the oldest that had none, it answers nothing.
    pub(super) fn ponged_to(&mut self, index: u32, seq: u32, now: Timestamp) {
        let client = &self.clients[index as usize];
        match client.beats - u32::from(client.unanswered) + 1 == seq {
            true => self.ponged(index, now),
            false => self.stats.stray_pongs += 1,
        }
    }

    /// The answer to the oldest heartbeat that had none.
    pub(super) fn ponged(&mut self, index: u32, now: Timestamp) {
        let planned = self.planned(index);
        let client = &mut self.clients[index as usize];
        if client.unanswered == 0 {
            self.stats.stray_pongs += 1;
            return;
        }
        self.stats.acked += 1;
        client.unanswered -= 1;
        let rtt = now.since(client.ping_due);
        self.published.rtt.record(rtt);
        if client.ping_due >= self.phases.steady_at {
            self.stats.rtt.record(rtt);
            self.note_window(rtt);
        }
        let client = &mut self.clients[index as usize];
        if client.unanswered > 0 {
            // The next one was due a gap after this one, as nothing was received in between.
            let beaten = client.beats - u32::from(client.unanswered);
            client.ping_due =
                client.ping_due + self.task.plan.gap(planned, beaten, client.interval());
        }
    }

    /// Something was sent or received: the next heartbeat is due an interval later, unless the
    /// server, which hears only what is sent, would have given the client up by then.
    pub(super) fn postpone_beat(&mut self, index: u32, now: Timestamp) {
        let client = &self.clients[index as usize];
        let gap = self.task.plan.gap(self.planned(index), client.beats, client.interval());
        let latest = client.idle_timeout().map(|timeout| client.last_sent + timeout);
        if latest.is_none_or(|latest| now + gap + gap / 4 < latest) {
            self.schedule.postpone(index, now + gap);
        }
    }

    /// Sends, or queues behind the send in flight.
    pub(super) fn send(&mut self, index: u32, outgoing: Outgoing, now: Timestamp) {
        let client = &mut self.clients[index as usize];
        client.note_sent(now);
        if client.in_flight.has(InFlight::SEND) {
            let outbox = self.outboxes.entry(index).or_default();
            if outbox.len() < limits::OUTBOX_MESSAGES_MAX {
                outbox.push_back(outgoing);
            } else {
                self.stats.send_errors += 1;
            }
            return;
        }
        client.in_flight.begin(InFlight::SEND);
        self.group.send(index, client.generation, outgoing);
    }

    /// A send has completed. What came back is not static, and was perhaps not sent to its end.
    pub(super) fn sent(&mut self, index: u32, result: i32, outgoing: Option<Outgoing>) {
        let client = &mut self.clients[index as usize];
        client.in_flight.end(InFlight::SEND);
        if result < 0 {
            // Whatever the matter is: the receive on this connection will tell.
            self.stats.send_errors += 1;
        } else {
            self.stats.bytes_sent += result as u64;
        }
        // Who takes leave has it in the outbox, behind this; who closes at once has none.
        let ends =
            client.state == State::Closing && (result < 0 || !self.outboxes.contains_key(&index));
        let rest = outgoing.and_then(|outgoing| self.rest_of(outgoing, result));
        if ends {
            return self.close_when_idle(index);
        }
        let next = rest.or_else(|| match self.outboxes.is_empty() {
            true => None,
            false => self.outboxes.get_mut(&index)?.pop_front(),
        });
        let Some(next) = next else { return self.close_when_idle(index) };
        let client = &mut self.clients[index as usize];
        client.in_flight.begin(InFlight::SEND);
        self.group.send(index, client.generation, next);
    }

    /// What of a message has not been sent, after a send that has completed with `result`.
    fn rest_of(&mut self, mut outgoing: Outgoing, result: i32) -> Option<Outgoing> {
        let sent = usize::try_from(result).unwrap_or(0);
        outgoing.advance(sent);
        if result >= 0 && !outgoing.is_empty() {
            return Some(outgoing);
        }
        self.buffers.take_back(outgoing);
        None
    }
}
