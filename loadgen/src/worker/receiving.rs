//! What messages and the end of a connection mean to a client.

use std::time::Duration;

use heartwheel::time::Timestamp;

use super::client::{Again, cause};
use super::{State, Worker};
use crate::limits;
use crate::oracle::{self, Duty, Ending, Verdict};
use crate::stats::AFTER_THE_END;
use crate::wire::Incoming;

impl Worker {
    /// Does what the messages want that have been read.
    pub(super) fn act_on_incoming(&mut self, index: u32, now: Timestamp) {
        let mut incoming = std::mem::take(&mut self.incoming);
        // WELCOME is no traffic of an open client: its first heartbeat keeps its random phase.
        let heard = !incoming.is_empty() && self.clients[index as usize].state == State::Open;
        let mut next_beat = None;
        for message in incoming.drain(..) {
            match message {
                Incoming::Pong => self.ponged(index, now),
                Incoming::PongTo(seq) => self.ponged_to(index, seq, now),
                Incoming::Welcome { interval_ms, idle_timeout_ms } => {
                    if self.clients[index as usize].state == State::Greeting {
                        self.opened(index, Some((interval_ms, idle_timeout_ms)), now);
                    }
                }
                Incoming::Adjust { interval_ms, idle_timeout_ms, next_in_ms } => {
                    self.adjust(index, interval_ms, idle_timeout_ms);
                    next_beat = Some(now + Duration::from_millis(u64::from(next_in_ms)));
                }
                // The silent are as good as dead: they acknowledge nothing.
                Incoming::Reply(_) | Incoming::Push { .. } if self.is_silent(index, now) => {}
                Incoming::Refused(reason) => self.fail(index, reason),
                Incoming::Reply(outgoing) => self.send(index, outgoing, now),
                Incoming::Push { event, receipt } => {
                    self.pushed(index, event, now);
                    if let Some(receipt) = receipt {
                        self.acknowledged(event);
                        self.send(index, receipt, now);
                    }
                }
                Incoming::Upgraded => {
                    if self.clients[index as usize].state == State::Greeting {
                        self.opened(index, None, now);
                    }
                }
                Incoming::Data => self.stats.scene.data_received += 1,
                Incoming::Closed(_) if self.clients[index as usize].state == State::Closing => {}
                Incoming::Closed(code) => self.closed_by_server(index, close_name(code), now),
                Incoming::GoAway { .. } if self.clients[index as usize].state != State::Open => {}
                Incoming::GoAway { retry_after_ms, closed } => {
                    self.told_to_go(index, retry_after_ms, now);
                    if let Some(code) = closed {
                        self.closed_by_server(index, close_name(code), now);
                    }
                }
            }
        }
        self.incoming = incoming;
        if heard && self.clients[index as usize].state == State::Open {
            match next_beat {
                Some(due) => self.schedule.file(index, due),
                None => self.postpone_beat(index, now),
            }
        }
    }

    /// The server has changed the terms: those hold that were not given on the command line.
    fn adjust(&mut self, index: u32, interval_ms: u32, idle_timeout_ms: u32) {
        self.stats.adjusts += 1;
        let client = &mut self.clients[index as usize];
        if self.task.interval.is_none() {
            client.interval_ms = interval_ms.max(1);
        }
        if self.task.idle_timeout.is_none() {
            client.idle_timeout_ms = idle_timeout_ms;
        }
    }

    /// The server broke the protocol: we are done with it.
    pub(super) fn break_off(&mut self, index: u32) {
        self.stats.illegal += 1;
        match self.clients[index as usize].state {
            State::Open => {
                self.stats.closed_by_us += 1;
                self.miss_pushes(index, "broke the protocol");
                self.begin_close(index);
            }
            _ => self.fail(index, "the server broke the protocol"),
        }
    }

    /// Whether the loop stood still within the client's last interval.
    fn was_held_up(&self, index: u32, now: Timestamp) -> bool {
        let interval = self.clients[index as usize].interval();
        self.held_up_at.is_some_and(|at| now.since(at) <= interval)
    }

    /// A client has gone that was told to, in a drain that was asked for.
    fn drained(&mut self, index: u32, silent: bool) {
        if !self.stock_taken {
            self.stats.scene.drained += 1;
            self.stats.scene.drained_silent += u64::from(silent);
        }
        self.stats.scene.cut_off += u64::from(self.clients[index as usize].unanswered);
    }

    /// The server has closed a connection: was it right?
    pub(super) fn closed_by_server(&mut self, index: u32, how: &'static str, now: Timestamp) {
        if self.clients[index as usize].state != State::Open {
            return self.fail(index, "closed by the server before WELCOME");
        }
        let how = if self.stock_taken { AFTER_THE_END } else { how };
        *self.stats.closed_by_server.entry(how).or_default() += 1;
        self.miss_pushes(index, "closed by the server");
        if self.clients[index as usize].deaf {
            if !self.stock_taken {
                self.stats.scene.slow_closed += 1;
            }
            return self.begin_close(index);
        }
        let (silent, held_up) = (self.is_silent(index, now), self.was_held_up(index, now));
        let duty = match silent {
            true => Duty::Silent,
            false if now >= self.phases.quiet_at => Duty::Nothing,
            false => Duty::Beat { due: self.schedule.due(index) },
        };
        let client = self.clients[index as usize].clone();
        let verdict = oracle::judge(Ending {
            duty,
            dismissed: client.dismissed,
            last_sent: client.last_sent,
            pause: client.pause(),
            seen: now,
            held_up,
            idle_timeout: client.idle_timeout(),
        });
        let drain = self.drain().filter(|_| verdict == Verdict::Dismissed);
        self.stats.silenced += u64::from(silent && drain.is_none());
        if self.is_to_come_back(index, now) {
            let cause = drain.map_or(cause::LOSS, |event| event as u8);
            self.comes_back(index, cause, Again::Later);
        }
        if matches!(verdict, Verdict::Expired { .. } | Verdict::Early) {
            self.stats.silence.record(now.since(client.last_sent));
        }
        match verdict {
            Verdict::Expired { late_at_most } => {
                self.stats.expired += 1;
                if let Some(late) = late_at_most {
                    self.stats.expiry_lateness.record(late);
                    let in_time = late <= self.task.tick + limits::EXPIRY_GRACE;
                    // What we have seen late may have come in time.
                    self.stats.expired_late += u64::from(!in_time && !held_up);
                }
            }
            Verdict::Early => self.stats.early += 1,
            Verdict::Healthy => self.stats.healthy_closed += 1,
            Verdict::AfterTheEnd => {
                self.stats.expired_after_end += u64::from(!self.stock_taken);
            }
            Verdict::OurDelay => self.stats.our_delay += 1,
            Verdict::Dismissed if drain.is_some() => self.drained(index, silent),
            Verdict::Dismissed => self.stats.dismissed += 1,
        }
        self.begin_close(index);
    }
}

/// How the server has closed a WebSocket, for a report.
fn close_name(code: u16) -> &'static str {
    match code {
        1000 => "close 1000",
        1001 => "close 1001",
        1002 => "close 1002",
        1007 => "close 1007",
        1008 => "close 1008",
        1009 => "close 1009",
        _ => "close with another code",
    }
}
