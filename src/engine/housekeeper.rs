//! What every engine does beside moving bytes: making time pass tick by tick, timing the sweeps,
//! publishing the account, and knowing when to end.

use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::{EngineCounters, EngineReport, Status, thread_cpu_us};
use crate::limits::{PUBLISH_INTERVAL, SWEEP_US_MAX};
use crate::mutants::{Mutant, is};
use crate::ring::RingCounters;
use crate::shard::Shard;
use crate::sweep::{Progress, Sweeper};
use crate::sys;
use crate::time::{Clock, Tick, TickLength, Timestamp};

/// The pace of one shard.
pub(super) struct Housekeeper {
    clock: Clock,
    tick: TickLength,
    /// The tick up to which everybody who was due has been given up.
    swept: Tick,
    sweep_us: Histogram<u32>,
    publish_at: Timestamp,
    stop_by: Option<Timestamp>,
    status: Arc<Status>,
}

impl Housekeeper {
    pub(super) fn new(clock: Clock, tick: TickLength, status: Arc<Status>) -> Housekeeper {
        Housekeeper {
            clock,
            tick,
            swept: Tick::NEVER,
            sweep_us: Histogram::new_with_bounds(1, SWEEP_US_MAX, 2)
                .expect("the bounds are constant"),
            publish_at: Timestamp::ZERO,
            stop_by: None,
            status,
        }
    }

    /// Whether a tick has begun since the last whole sweep.
    pub(super) fn is_sweep_due(&self, now: Timestamp) -> bool {
        self.tick.current(now) != self.swept
    }

    /// Gives up whoever is due, once a tick, and in the calls after that until all are.
    pub(super) fn sweep<S: Sweeper, C>(
        &mut self,
        shard: &mut Shard<S, C>,
        counters: &mut EngineCounters,
        now: Timestamp,
    ) -> Progress {
        if !self.is_sweep_due(now) {
            return Progress::Done;
        }
        let begun = self.clock.now();
        shard.note_present(begun);
        let length = self.tick.as_duration();
        let progress = if is(Mutant::OneTickEarly) {
            shard.advance(now + length)
        } else if is(Mutant::OneTickLate) {
            let nanos = now.as_nanos().saturating_sub(length.as_nanos() as u64);
            shard.advance(Timestamp::from_nanos(nanos))
        } else {
            shard.advance(now)
        };
        let took = self.clock.now().since(begun);
        if progress == Progress::Done {
            self.swept = self.tick.current(now);
        }
        counters.sweeps += 1;
        // A value beyond the histogram's range counts as its greatest.
        self.sweep_us.saturating_record(took.as_micros() as u64);
        progress
    }

    /// How long a loop that has nothing to do may sleep: to the next tick, but not past the next
    /// publishing, which accepts that rest rely on too.
    pub(super) fn sleep_max(&self, now: Timestamp) -> Duration {
        let next_tick = self.tick.start(self.tick.deadline(now + Duration::from_nanos(1)));
        next_tick.since(now).min(PUBLISH_INTERVAL)
    }

    /// Whether the account is to be published; says so once an interval.
    pub(super) fn take_publish_due(&mut self, now: Timestamp) -> bool {
        let due = now >= self.publish_at;
        if due {
            self.publish_at = now + PUBLISH_INTERVAL;
        }
        due
    }

    /// Brings the account up to date and publishes it.
    pub(super) fn publish<S: Sweeper, C>(
        &self,
        shard: &mut Shard<S, C>,
        counters: &mut EngineCounters,
        ring: RingCounters,
    ) -> EngineReport {
        counters.sweep_us_p50 = self.sweep_us.value_at_quantile(0.5);
        counters.sweep_us_p99 = self.sweep_us.value_at_quantile(0.99);
        counters.sweep_us_p999 = self.sweep_us.value_at_quantile(0.999);
        counters.sweep_us_max = self.sweep_us.max();
        counters.cpu_us = thread_cpu_us();
        if shard.watches_memory()
            && let Some(bytes) = sys::resident_bytes()
        {
            shard.note_memory(bytes);
        }
        let report = EngineReport { counters: shard.publish().clone(), engine: *counters, ring };
        self.status.write(&report);
        report
    }

    /// The engine was told to end, after `timeout` in any case. The earliest of several counts.
    pub(super) fn stop(&mut self, now: Timestamp, timeout: Duration) {
        let stop_by = now + timeout;
        self.stop_by = Some(self.stop_by.map_or(stop_by, |by| by.min(stop_by)));
    }

    /// Whether the engine was told to end.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop_by.is_some()
    }

    /// Whether the time to end by itself has run out.
    pub(super) fn is_overdue(&self, now: Timestamp) -> bool {
        self.stop_by.is_some_and(|stop_by| now >= stop_by)
    }
}
