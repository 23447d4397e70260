//! How often something is done.

use std::time::{Duration, Instant};

/// What could not be done in time is made up for if it is no older than this.
const CATCH_UP: Duration = Duration::from_millis(20);

/// So many a second, some at once.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    per_s: u64,
    burst: u64,
    began: Instant,
    /// Done, or given up.
    passed: u64,
}

impl Pace {
    /// `per_s` a second, `burst` at once; 0: as many as one likes.
    pub fn new(per_s: u64, burst: u64, began: Instant) -> Pace {
        Pace { per_s, burst: burst.max(1), began, passed: 0 }
    }

    /// Never.
    pub fn none(began: Instant) -> Pace {
        Pace { per_s: 1, burst: 1, began, passed: u64::MAX }
    }

    /// How many are due now.
    pub fn due(&mut self, now: Instant) -> u64 {
        if self.per_s == 0 {
            return u64::MAX;
        }
        let elapsed = now.saturating_duration_since(self.began).as_secs_f64();
        let due = ((elapsed * self.per_s as f64) as u64 / self.burst + 1) * self.burst;
        let most = self.burst.max((CATCH_UP.as_secs_f64() * self.per_s as f64) as u64);
        self.passed = self.passed.max(due.saturating_sub(most));
        due.saturating_sub(self.passed)
    }

    /// One was done.
    pub fn note(&mut self) {
        self.passed = self.passed.saturating_add(1);
    }
}
