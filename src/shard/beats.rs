//! How evenly heartbeats come: the most of them in one tick, against the mean.
//!
//! Cost: a few additions once a tick, none for a heartbeat.

use super::counters::Counters;
use super::policy::Policy;
use crate::time::Tick;

/// Counts over one heartbeat interval after another.
#[derive(Debug)]
pub(super) struct BeatMeter {
    interval_ticks: u64,
    begun: Option<Tick>,
    last: Tick,
    /// Heartbeats before this interval, and before this tick.
    before_interval: u64,
    before_tick: u64,
    peak: u64,
}

impl BeatMeter {
    pub(super) fn new(policy: &Policy) -> BeatMeter {
        let tick = policy.tick.as_duration().as_nanos().max(1);
        let interval_ticks = policy.heartbeat_interval.as_nanos().div_ceil(tick);
        BeatMeter {
            interval_ticks: u64::try_from(interval_ticks).unwrap_or(u64::MAX),
            begun: None,
            last: Tick(0),
            before_interval: 0,
            before_tick: 0,
            peak: 0,
        }
    }

    /// Time has come to `now`: what was received since the last tick was received in it.
    pub(super) fn tick(&mut self, now: Tick, counters: &mut Counters) {
        let begun = *self.begun.get_or_insert(now);
        if now == self.last {
            return;
        }
        self.last = now;
        let received = counters.heartbeats_received;
        self.peak = self.peak.max(received - self.before_tick);
        self.before_tick = received;
        let ticks = now.0 - begun.0;
        if ticks < self.interval_ticks {
            return;
        }
        counters.heartbeats_per_interval = received - self.before_interval;
        counters.heartbeats_per_tick_peak = self.peak;
        counters.ticks_per_interval = ticks;
        (self.begun, self.before_interval, self.peak) = (Some(now), received, 0);
    }
}
