//! The scenario: storms, churn, data messages, and who leaves and comes back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use heartwheel::time::Timestamp;

use super::client::{Again, cause};
use super::{State, Worker};
use crate::limits;
use crate::scenario::account::{Receipt, Receivers};
use crate::scenario::{Kind, Scenario};

/// How far a worker has got in the scenario.
#[derive(Default)]
pub struct Progress {
    churned: u64,
    data: u64,
    /// The next planned event that this worker has not seen begin.
    event: usize,
    /// How many of those that nobody had planned it has seen begin.
    unplanned: usize,
    /// The event that began last.
    last: Option<usize>,
    /// Storms that go on, with the next client to be looked at.
    storms: Vec<(usize, u32)>,
    /// The window that round trips belong to.
    window: usize,
    /// Whoever is waiting for a broadcast.
    receivers: Vec<Receivers>,
    /// What those were told who were told to go, in milliseconds.
    retry_after: std::collections::HashMap<u32, u32>,
}

impl Worker {
    /// Does what the scenario wants done by now.
    pub(super) fn act(&mut self, now: Timestamp) {
        if now < self.phases.steady_at || now >= self.phases.quiet_at {
            return;
        }
        self.begin_events(now);
        self.go_on_with_storms(now);
        let passed = now.since(self.phases.steady_at);
        let (churn, data) = (self.task.scenario.churn_per_s, self.task.scenario.data_per_s);
        while churn > 0 && Scenario::after(self.progress.churned, churn) <= passed {
            self.churn(self.progress.churned, now);
            self.progress.churned += 1;
        }
        while data > 0 && Scenario::after(self.progress.data, data) <= passed {
            self.send_data(self.progress.data, now);
            self.progress.data += 1;
        }
    }

    /// When there is something to do next.
    pub(super) fn next_act(&self, now: Timestamp) -> Timestamp {
        let (scenario, steady_at) = (&self.task.scenario, self.phases.steady_at);
        let far = now + limits::SLEEP_MAX;
        if steady_at >= far || now >= self.phases.quiet_at {
            return far;
        }
        let each = |per_s: u32, number: u64| {
            (per_s > 0).then(|| steady_at + Scenario::after(number, per_s))
        };
        let planned = self.progress.event < scenario.events.planned();
        let event = scenario.events.get(self.progress.event).filter(|_| planned);
        let event = event.map(|event| steady_at + event.at);
        let storm = (!self.progress.storms.is_empty()).then_some(now);
        // Those of the next millisecond go together.
        let soon = now + limits::GATHER;
        let paced = [
            each(scenario.churn_per_s, self.progress.churned),
            each(scenario.data_per_s, self.progress.data),
            event,
        ];
        let paced = paced.into_iter().flatten().map(|at| at.max(soon));
        paced.chain(storm).fold(far, Timestamp::min)
    }

    fn begin_events(&mut self, now: Timestamp) {
        let passed = now.since(self.phases.steady_at);
        while let Some((event, kind)) = self.next_event(passed) {
            self.stats.make_room(event);
            if let Kind::Storm(_) = kind {
                self.progress.storms.push((event, 0));
            }
            self.progress.window = 2 * event + 1;
            self.progress.last = Some(event);
        }
        if let Some(last) = self.progress.last {
            let at = self.task.scenario.events.get(last).map_or(passed, |event| event.at);
            let over = passed >= at + limits::EVENT_WINDOW;
            self.progress.window = 2 * last + 1 + usize::from(over);
        }
        self.begin_broadcasts();
    }

    /// The next event whose time has come, and that this worker has not seen begin.
    fn next_event(&mut self, passed: Duration) -> Option<(usize, Kind)> {
        let events = &self.task.scenario.events;
        let come = |number: usize| events.get(number).filter(|event| event.at <= passed);
        let planned = self.progress.event;
        if let Some(event) = come(planned).filter(|_| planned < events.planned()) {
            self.progress.event += 1;
            return Some((planned, event.kind));
        }
        let unplanned = events.planned() + self.progress.unplanned;
        let event = come(unplanned)?;
        self.progress.unplanned += 1;
        Some((unplanned, event.kind))
    }

    /// Notes who has to receive the broadcasts that have been asked for meanwhile.
    fn begin_broadcasts(&mut self) {
        for event in 0..self.stats.scene.events.len() {
            let kind = self.task.scenario.events.get(event).map(|event| event.kind);
            if let Some(Kind::Broadcast(..)) = kind {
                self.begin_broadcast(event);
            }
        }
    }

    /// Whether broadcast `event` has been asked for. All who are open then have to receive it.
    fn begin_broadcast(&mut self, event: usize) -> bool {
        if self.progress.receivers.iter().any(|receivers| receivers.event == event) {
            return true;
        }
        if self.acted_at(event).is_none() {
            return false;
        }
        let mut receivers = Receivers::new(event, self.clients.len());
        for index in 0..self.clients.len() as u32 {
            let client = &self.clients[index as usize];
            let planned = self.planned(index);
            if client.state == State::Open
                && !client.dismissed
                && self.task.scenario.is_ordinary(planned)
            {
                receivers.expect(index);
                self.stats.scene.events[event].affected += 1;
                self.stats.scene.events[event].to_recover += 1;
            }
        }
        self.progress.receivers.push(receivers);
        true
    }

    /// When the server was asked for an event, if it was.
    fn acted_at(&self, event: usize) -> Option<Timestamp> {
        let at = self.task.orders.acted_at.get(event)?.load(Ordering::Acquire);
        (at != u64::MAX).then(|| Timestamp::from_nanos(at))
    }

    fn go_on_with_storms(&mut self, now: Timestamp) {
        let most = self.closes_max();
        while let Some((event, mut next)) = self.progress.storms.pop() {
            while (next as usize) < self.clients.len() && self.closes_in_flight < most {
                let hit = self.clients[next as usize].state == State::Open
                    && self.task.scenario.is_hit(event, self.planned(next));
                if hit {
                    self.kill(next, event, now);
                }
                next += 1;
            }
            if (next as usize) < self.clients.len() {
                self.progress.storms.push((event, next));
                break;
            }
        }
    }

    fn kill(&mut self, index: u32, event: usize, now: Timestamp) {
        self.stats.scene.killed += 1;
        self.stats.scene.events[event].note_affected(now);
        self.leave(index, event as u8, Again::Later, "killed here");
        self.begin_close(index);
    }

    fn churn(&mut self, number: u64, now: Timestamp) {
        let Some(index) = self.task.scenario.churner(number).and_then(|who| self.own(who)) else {
            return;
        };
        if self.clients[index as usize].state != State::Open || now >= self.phases.quiet_at {
            self.stats.scene.churn_skipped += 1;
            return;
        }
        self.stats.scene.churned += 1;
        self.leave(index, cause::CHURN, Again::AtOnce, "churned here");
        self.take_leave(index, now);
    }

    /// A connection that is open is about to be closed here, and its client comes back.
    fn leave(&mut self, index: u32, cause: u8, again: Again, reason: &'static str) {
        self.stats.closed_by_us += 1;
        self.stats.scene.cut_off += u64::from(self.clients[index as usize].unanswered);
        self.miss_pushes(index, reason);
        self.comes_back(index, cause, again);
    }

    fn send_data(&mut self, number: u64, now: Timestamp) {
        let Some(index) = self.task.scenario.sender(number).and_then(|who| self.own(who)) else {
            return;
        };
        if self.clients[index as usize].state == State::Open
            && let Some(data) = self.task.wire.data(number)
        {
            self.stats.scene.data_sent += 1;
            self.send(index, data, now);
            self.postpone_beat(index, now);
        }
    }

    /// Whether `index` is one of those who come back whoever ends their connection.
    pub(super) fn is_to_come_back(&self, index: u32, now: Timestamp) -> bool {
        self.task.scenario.reconnect.is_some()
            && now < self.phases.quiet_at
            && self.task.scenario.is_ordinary(self.planned(index))
    }

    /// A client that was open is to come back.
    pub(super) fn comes_back(&mut self, index: u32, cause: u8, again: Again) {
        self.stats.scene.lost += 1;
        if let Some(event) = self.stats.scene.events.get_mut(usize::from(cause)) {
            event.to_recover += 1;
        }
        let client = &mut self.clients[index as usize];
        (client.cause, client.again) = (cause, again);
        (client.attempts, client.failures) = (0, 0);
    }

    /// The slot of a client that comes back later is empty: its time is drawn.
    pub(super) fn wait_to_come_back(&mut self, index: u32, now: Timestamp) {
        let told = match self.progress.retry_after.is_empty() {
            true => 0,
            false => self.progress.retry_after.remove(&index).unwrap_or(0),
        };
        let client = &self.clients[index as usize];
        let wait = self.task.scenario.wait(self.planned(index), client.generation, client.failures);
        let at = now + wait + Duration::from_millis(u64::from(told));
        if at < self.phases.quiet_at {
            self.schedule.file(index, at);
        }
    }

    /// A client that had lost its connection has another one.
    pub(super) fn is_back(&mut self, index: u32, now: Timestamp) {
        let client = &mut self.clients[index as usize];
        let cause = std::mem::replace(&mut client.cause, cause::BACK);
        client.failures = 0;
        self.stats.scene.reopened += 1;
        self.stats.scene.reopening.record(now.since(self.clients[index as usize].ping_due));
        if let Some(event) = self.stats.scene.events.get_mut(usize::from(cause)) {
            event.note_recovered(now);
        }
    }

    /// Whether the slot of `index` is closed with a reset: those of storms are.
    pub(super) fn is_killed(&self, index: u32) -> bool {
        let cause = usize::from(self.clients[index as usize].cause);
        let event = self.task.scenario.events.get(cause);
        event.is_some_and(|event| matches!(event.kind, Kind::Storm(_)))
    }

    /// The server says good-bye.
    pub(super) fn told_to_go(&mut self, index: u32, retry_after_ms: u32, now: Timestamp) {
        let first = !std::mem::replace(&mut self.clients[index as usize].dismissed, true);
        if self.task.scenario.reconnect.is_some() {
            self.progress.retry_after.insert(index, retry_after_ms);
        }
        if let Some(drain) = self.drain().filter(|_| first) {
            // It may have come before this worker has seen the event begin.
            self.stats.make_room(drain);
            self.stats.scene.events[drain].note_affected(now);
        }
    }

    /// The last drain that was asked for.
    pub(super) fn drain(&self) -> Option<usize> {
        let drains = self.task.scenario.events.iter().enumerate();
        drains
            .filter(|(_, event)| matches!(event.kind, Kind::Drain(_)))
            .map(|(event, _)| event)
            .filter(|&event| self.acted_at(event).is_some())
            .last()
    }

    /// A message was pushed.
    pub(super) fn pushed(&mut self, index: u32, event: Option<usize>, now: Timestamp) {
        self.stats.pushes += 1;
        let known = event.filter(|&event| event < self.stats.scene.events.len());
        let Some(event) = known.filter(|&event| self.begin_broadcast(event)) else {
            self.stats.scene.pushes_unexpected += 1;
            return;
        };
        let receivers = self.progress.receivers.iter_mut().find(|found| found.event == event);
        let receipt = receivers.map(|receivers| receivers.receive(index));
        let asked_at = self.acted_at(event).unwrap_or(now);
        let happened = &mut self.stats.scene.events[event];
        match receipt {
            Some(Receipt::Expected) => {
                happened.note_recovered(now);
                happened.latency.record(now.since(asked_at));
            }
            Some(Receipt::Duplicate) => happened.duplicates += 1,
            Some(Receipt::Unexpected) | None => self.stats.scene.pushes_unexpected += 1,
        }
    }

    /// A receipt was sent.
    pub(super) fn acknowledged(&mut self, event: Option<usize>) {
        if let Some(event) = event.and_then(|event| self.stats.scene.events.get_mut(event)) {
            event.acked += 1;
        }
    }

    /// A client's connection has ended: what it waited for will not come.
    pub(super) fn miss_pushes(&mut self, index: u32, reason: &'static str) {
        for receivers in &mut self.progress.receivers {
            if receivers.leave(index) {
                let missing = &mut self.stats.scene.events[receivers.event].missing;
                *missing.entry(reason).or_default() += 1;
            }
        }
    }

    /// Counts a round trip in the window of its answer.
    pub(super) fn note_window(&mut self, rtt: Duration) {
        if let Some(window) = self.stats.scene.windows.get_mut(self.progress.window) {
            window.record(rtt);
        }
    }

    /// Where a client of the plan lives here, if it is one of this worker's.
    fn own(&self, planned: u32) -> Option<u32> {
        self.share.own(planned)
    }
}
