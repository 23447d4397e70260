//! Going through the table of sessions evenly over a span of time: a cursor that time pulls along.

use std::time::Duration;

use crate::limits::PACE_SLICE;
use crate::time::Timestamp;

/// A way through the indices below `end`, begun at a moment and spread over a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    begun: Timestamp,
    spread: Duration,
    end: u32,
    /// All indices below this have been visited.
    pub(super) cursor: u32,
}

impl Pace {
    pub(super) fn new(begun: Timestamp, spread: Duration, end: u32) -> Pace {
        Pace { begun, spread, end, cursor: 0 }
    }

    /// All indices below this are due.
    pub(super) fn target(&self, now: Timestamp) -> u32 {
        let elapsed = now.since(self.begun);
        if elapsed >= self.spread {
            return self.end;
        }
        let share = u128::from(self.end) * elapsed.as_nanos() / self.spread.as_nanos();
        (share as u32 + 1).min(self.end)
    }

    /// Whether every index has been visited.
    pub(super) fn is_done(&self) -> bool {
        self.cursor >= self.end
    }

    /// When to go on, if there is more: at once if something is due.
    pub(super) fn next_at(&self, now: Timestamp) -> Option<Timestamp> {
        if self.is_done() {
            return None;
        }
        if self.cursor < self.target(now) {
            return Some(now);
        }
        let share = self.spread.as_nanos() * u128::from(self.cursor) / u128::from(self.end);
        let due = self.begun + Duration::from_nanos(share as u64 + 1);
        Some(due.max(now + PACE_SLICE))
    }
}
