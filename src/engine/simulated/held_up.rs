//! What the oracle knows of the times in which the server was held up: they do not count against
//! peers that take nothing.

use std::collections::VecDeque;
use std::time::Duration;

use super::world::World;
use crate::limits::HELD_UP_MIN;
use crate::time::Timestamp;

/// Times that are remembered: stalls are shorter than they last.
const REMEMBERED: usize = 4_096;

/// For how long it was held up, all in all.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    until: Timestamp,
    /// At most: slow turns are counted, too.
    most: Duration,
    /// At least: such pauses alone as show by the sweeps, each less the tick that passes anyway.
    least: Duration,
}

/// Pauses of the process, and slow turns.
#[derive(Debug, Default)]
pub(super) struct HeldUp {
    sums: VecDeque<Sum>,
    last: Sum,
}

impl HeldUp {
    fn since(&self, time: Timestamp) -> Sum {
        let after = self.sums.partition_point(|sum| sum.until <= time);
        let before = after.checked_sub(1).and_then(|at| self.sums.get(at)).copied();
        let Sum { most, least, until } = before.unwrap_or_default();
        Sum { until, most: self.last.most - most, least: self.last.least - least }
    }

    /// How much of the time since then does not count, at least.
    pub(super) fn least_since(&self, time: Timestamp) -> Duration {
        self.since(time).least
    }

    /// And at most.
    pub(super) fn most_since(&self, time: Timestamp) -> Duration {
        self.since(time).most
    }
}

impl World {
    /// The server was held up from `begun` on until now.
    pub(super) fn note_held_up(&mut self, begun: Timestamp) {
        let (now, tick) = (self.now(), self.rules.tick.as_duration());
        let pause = now.since(begun);
        let shows = pause > tick + HELD_UP_MIN;
        let held_up = &mut self.held_up;
        let last = &mut held_up.last;
        last.until = now;
        last.most += pause;
        last.least += if shows { pause - tick } else { Duration::ZERO };
        held_up.sums.push_back(*last);
        if held_up.sums.len() > REMEMBERED {
            held_up.sums.pop_front();
        }
    }
}
