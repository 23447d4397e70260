//! Opening connections: at the planned rate, with a bounded number in flight.

use std::sync::atomic::Ordering;
use std::time::Duration;

use heartwheel::time::Timestamp;
use rustix::io::Errno;

use super::client::{Again, InFlight, cause};
use super::{Attempt, State, Worker};
use crate::limits;
use crate::stats::NOT_TRIED;

impl Worker {
    /// Starts the connects whose time has come.
    pub(super) fn open_whom_the_plan_wants(&mut self, now: Timestamp) {
        self.end_attempts_that_take_too_long(now);
        while self.opening < self.opening_max() {
            // Nobody comes back once everything is closed.
            let may = now < self.phases.close_at;
            if let Some(client) = self.again.pop_front().filter(|_| may) {
                self.connect(client, now);
            } else if self.next_planned().is_some_and(|time| time <= now) {
                self.connect(self.next, now);
                self.next += 1;
            } else {
                break;
            }
        }
    }

    /// When something about opening has to be done.
    pub(super) fn next_opening(&self, now: Timestamp) -> Timestamp {
        let overdue = self.attempts.front().map(|attempt| attempt.deadline);
        let room = self.opening < self.opening_max();
        // All whose time has come have been started: those of the next millisecond go together.
        let planned = self.next_planned().filter(|_| room).map(|at| at.max(now + limits::GATHER));
        let may = room && now < self.phases.close_at;
        let again = (may && !self.again.is_empty()).then_some(now);
        let far = now + limits::SLEEP_MAX;
        [overdue, planned, again].into_iter().flatten().fold(far, Timestamp::min)
    }

    /// Whoever has not been tried by now has failed.
    pub(super) fn give_up_opening(&mut self) {
        if std::mem::replace(&mut self.gave_up, true) {
            return;
        }
        let waiting = self.again.len();
        let clients = &self.clients;
        self.again.retain(|&index| clients[index as usize].cause != cause::FIRST);
        let given_up = (waiting - self.again.len()) as u32;
        let left = self.clients.len() as u32 - self.next + given_up;
        self.next = self.clients.len() as u32;
        if left > 0 {
            *self.stats.failed.entry(NOT_TRIED).or_default() += u64::from(left);
        }
    }

    fn next_planned(&self) -> Option<Timestamp> {
        let delay = self.task.orders.connect_delay()?;
        let more = (self.next as usize) < self.clients.len();
        let planned = self.task.start + self.task.plan.connect_after(self.planned(self.next));
        more.then(|| planned + delay)
    }

    fn opening_max(&self) -> u32 {
        (limits::CONNECTS_IN_FLIGHT_MAX / self.task.workers as u32).max(1)
    }

    fn connect(&mut self, index: u32, now: Timestamp) {
        let source = self.sources.next();
        let client = &mut self.clients[index as usize];
        client.state = State::Connecting;
        client.in_flight.begin(InFlight::CONNECT);
        client.attempts = client.attempts.saturating_add(1);
        // A server that hears no HELLO counts from the connection on, which is not before now.
        client.last_sent = now;
        client.ping_due = now;
        let generation = client.generation;
        self.opening += 1;
        self.alive += 1;
        self.attempts.push_back(Attempt {
            client: index,
            generation,
            deadline: now + self.task.open_timeout,
        });
        self.group.connect(index, generation, source, self.task.target);
    }

    /// The connect of a client has completed, well or not.
    pub(super) fn connected(&mut self, index: u32, result: i32, now: Timestamp) {
        let client = &mut self.clients[index as usize];
        client.in_flight.end(InFlight::CONNECT);
        if client.state != State::Connecting {
            return self.close_when_idle(index);
        }
        if result < 0 {
            return self.connect_failed(index, Errno::from_raw_os_error(-result));
        }
        self.sources.was_free();
        self.listen(index);
        self.clients[index as usize].state = State::Greeting;
        if let Some(greeting) = self.task.wire.greeting(self.planned(index), &mut self.buffers) {
            self.send(index, greeting, now);
        }
        if !self.task.wire.is_welcomed() {
            self.opened(index, None, now);
        }
    }

    fn connect_failed(&mut self, index: u32, errno: Errno) {
        let client = &mut self.clients[index as usize];
        let taken = matches!(errno, Errno::ADDRINUSE | Errno::ADDRNOTAVAIL);
        if taken && client.attempts < limits::SOURCES_PER_CLIENT_MAX {
            client.again = Again::AtOnce;
            self.stats.sources_skipped += 1;
            self.sources.was_taken();
            self.opening -= 1;
            self.begin_close(index);
        } else {
            self.fail(index, reason(errno));
        }
    }

    /// A client has what it needs to keep its heartbeats. `told`: interval and idle timeout in
    /// milliseconds.
    pub(super) fn opened(&mut self, index: u32, told: Option<(u32, u32)>, now: Timestamp) {
        if self.stock_taken {
            return self.fail(index, "the run had ended");
        }
        let millis = |duration: Duration| duration.as_millis().min(u128::from(u32::MAX)) as u32;
        let task = &self.task;
        let client = &mut self.clients[index as usize];
        let (told_interval, told_timeout) = told.unwrap_or((0, 0));
        client.interval_ms = task.interval.map_or(told_interval, millis).max(1);
        client.idle_timeout_ms = task.idle_timeout.map_or(told_timeout, millis);
        client.state = State::Open;
        client.attempts = 0;
        let (interval, connected_at) = (client.interval(), client.ping_due);
        let published = &self.published;
        published.idle_timeout_ms.fetch_max(u64::from(client.idle_timeout_ms), Ordering::Relaxed);
        published.interval_ms.store(u64::from(client.interval_ms), Ordering::Relaxed);
        self.opening -= 1;
        if client.cause == cause::FIRST {
            self.stats.opened += 1;
            let silent = self.task.plan.falls_silent(self.planned(index));
            published.to_silence.fetch_add(u64::from(silent), Ordering::Relaxed);
            self.stats.last_opened = now;
            self.stats.connect.record(now.since(connected_at));
        } else {
            self.is_back(index, now);
        }
        self.stop_reading_if_slow(index);
        let phase = self.task.plan.first_beat_after(self.planned(index), interval);
        self.schedule.file(index, now + phase);
    }

    /// A client that is not open yet never will be.
    pub(super) fn fail(&mut self, index: u32, reason: &'static str) {
        let client = &mut self.clients[index as usize];
        let failed = match client.cause {
            cause::FIRST => &mut self.stats.failed,
            _ => {
                client.again = Again::Later;
                client.attempts = 0;
                client.failures = client.failures.saturating_add(1);
                &mut self.stats.scene.reopening_failed
            }
        };
        *failed.entry(reason).or_default() += 1;
        self.opening -= 1;
        self.begin_close(index);
    }

    /// A slow client has been opened, and does not read from now on.
    fn stop_reading_if_slow(&mut self, index: u32) {
        let client = &mut self.clients[index as usize];
        // It starts afresh, whatever its last connection had left behind.
        (client.unanswered, client.dismissed, client.deaf) = (0, false, false);
        if self.task.scenario.is_slow(self.planned(index)) {
            self.stop_listening(index);
            self.stats.scene.slow += 1;
        }
    }

    fn end_attempts_that_take_too_long(&mut self, now: Timestamp) {
        while let Some(&Attempt { client: index, generation, deadline }) = self.attempts.front() {
            let client = &self.clients[index as usize];
            let reason = match client.state {
                State::Connecting => "connecting timed out",
                State::Greeting => self.task.wire.not_welcomed(),
                _ => "",
            };
            let pending = client.generation == generation && !reason.is_empty();
            if pending && deadline > now {
                break;
            }
            if pending {
                self.fail(index, reason);
            }
            self.attempts.pop_front();
        }
    }
}

/// A reason for a report; what is not listed is rare enough to be one.
pub(super) fn reason(errno: Errno) -> &'static str {
    match errno {
        Errno::CONNREFUSED => "connection refused",
        Errno::CONNRESET => "reset",
        Errno::PIPE => "broken pipe",
        Errno::TIMEDOUT => "timed out",
        Errno::ADDRINUSE | Errno::ADDRNOTAVAIL => "no free source address",
        Errno::NETUNREACH | Errno::HOSTUNREACH => "unreachable",
        Errno::NFILE | Errno::MFILE => "out of descriptors",
        Errno::NOMEM | Errno::NOBUFS => "out of kernel memory",
        Errno::ACCESS | Errno::PERM => "forbidden",
        Errno::CANCELED => "cancelled",
        _ => "another error",
    }
}
