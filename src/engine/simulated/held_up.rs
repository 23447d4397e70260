//! What the oracle knows of the times in which the server was held up: they do not count against
//! peers that take nothing.

use std::collections::VecDeque;
use std::time::Duration;

use super::world::World;
use crate::limits::HELD_UP_MIN;
use crate::time::Timestamp;

/// Times that are remembered.
const REMEMBERED: usize = 1 << 16;

/// So much work is remembered as one.
const GRAIN: Duration = Duration::from_millis(1);

/// For how long the server was held up until then, all in all.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    until: Timestamp,
    /// At most: whenever it was not asleep.
    most: Duration,
    /// At least: such pauses alone as show by the sweeps, each less the tick that passes anyway.
    least: Duration,
}

/// Pauses of the process, and the time that its work takes.
#[derive(Debug, Default)]
pub(super) struct HeldUp {
    sums: VecDeque<Sum>,
    forgotten: Sum,
    last: Sum,
}

impl HeldUp {
    fn until(&self, time: Timestamp) -> Option<&Sum> {
        let after = self.sums.partition_point(|sum| sum.until <= time);
        after.checked_sub(1).and_then(|at| self.sums.get(at))
    }

    /// How much of the time since then does not count, at least.
    pub(super) fn least_since(&self, time: Timestamp) -> Duration {
        self.last.least - self.until(time).unwrap_or(&self.forgotten).least
    }

    /// And at most.
    pub(super) fn most_since(&self, time: Timestamp) -> Duration {
        self.last.most - self.until(time).map_or(Duration::ZERO, |sum| sum.most)
    }

    fn add(&mut self, now: Timestamp, most: Duration, least: Duration) {
        self.last.until = now;
        self.last.most += most;
        self.last.least += least;
        let before = self.sums.back().copied().unwrap_or_default();
        if self.last.most - before.most >= GRAIN {
            self.sums.push_back(self.last);
        }
        if self.sums.len() > REMEMBERED
            && let Some(oldest) = self.sums.pop_front()
        {
            self.forgotten = oldest;
        }
    }
}

impl World {
    /// The server has worked since `begun`.
    pub(super) fn note_work(&mut self, begun: Timestamp) {
        let now = self.now();
        self.held_up.add(now, now.since(begun), Duration::ZERO);
    }

    /// The process has stood still since `begun`.
    pub(super) fn note_pause(&mut self, begun: Timestamp) {
        let (now, tick) = (self.now(), self.rules.tick.as_duration());
        let pause = now.since(begun);
        let shows = pause > tick + HELD_UP_MIN;
        self.held_up.add(now, pause, if shows { pause - tick } else { Duration::ZERO });
    }
}
