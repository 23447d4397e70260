//! Time as the core sees it: [`Timestamp`] (nanoseconds since the clock's origin), [`Tick`]
//! (whole ticks since that origin) and [`TickLength`], which converts between the two.
//!
//! Invariant: this module holds the only reader of a clock, [`Clock`]. Everything in the sans-IO
//! core is handed a `Timestamp`, so that tests and the simulator can make time pass as they like.

use std::fmt;
use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// A point in time: nanoseconds since the origin of a [`Clock`]. 64 bits last 584 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The clock's origin.
    pub const ZERO: Timestamp = Timestamp(0);

    /// The point `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Timestamp {
        Timestamp(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole microseconds since the origin.
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// Whole milliseconds since the origin.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The time that passed from `earlier` until `self`; zero if `earlier` is later.
    pub const fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    /// Saturates at the far end of time, so that a huge timeout never wraps into an early one.
    fn add(self, duration: Duration) -> Timestamp {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Timestamp(self.0.saturating_add(nanos))
    }
}

/// A whole number of ticks since the clock's origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

impl Tick {
    /// The deadline of one who has none: no sweeper ever reports it.
    pub const NEVER: Tick = Tick(u64::MAX);
}

impl fmt::Display for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tick {}", self.0)
    }
}

/// How long a tick lasts: the granularity in which deadlines are filed and judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickLength {
    nanos: u64,
}

impl TickLength {
    /// A tick of the given length; one nanosecond at least.
    pub fn new(length: Duration) -> TickLength {
        TickLength { nanos: u64::try_from(length.as_nanos()).unwrap_or(u64::MAX).max(1) }
    }

    /// The length as a duration.
    pub const fn as_duration(self) -> Duration {
        Duration::from_nanos(self.nanos)
    }

    /// The tick that `now` lies in (rounded down): what a sweeper may be advanced to.
    pub const fn current(self, now: Timestamp) -> Tick {
        Tick(now.0 / self.nanos)
    }

    /// The first tick that starts at `due` or later (rounded up): where a deadline is filed.
    ///
    /// Rounding deadlines up and the present down is what makes expiry never early, and at most
    /// one tick late: `due <= start(deadline(due)) < due + one tick`.
    pub const fn deadline(self, due: Timestamp) -> Tick {
        if due.0 == u64::MAX {
            return Tick::NEVER;
        }
        Tick(due.0.div_ceil(self.nanos))
    }

    /// When `tick` starts.
    pub const fn start(self, tick: Tick) -> Timestamp {
        Timestamp(tick.0.saturating_mul(self.nanos))
    }
}

/// The only reader of a clock: monotonic, it stands still while the machine is suspended.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    source: Source,
    unix_at_origin: Duration,
}

/// Where time comes from. The branch is always the same one, and lost beside reading the clock.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// Since this moment.
    Machine(Instant),
    /// The nanoseconds that a simulator has let pass.
    Simulated(&'static AtomicU64),
}

impl Clock {
    /// A clock whose origin is this moment.
    #[expect(clippy::new_without_default, reason = "reading a clock is no default value")]
    pub fn new() -> Clock {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Clock { source: Source::Machine(Instant::now()), unix_at_origin: unix.unwrap_or_default() }
    }

    /// A clock that shows so many nanoseconds as `nanos` holds.
    pub const fn simulated(nanos: &'static AtomicU64) -> Clock {
        Clock { source: Source::Simulated(nanos), unix_at_origin: Duration::ZERO }
    }

    /// What the wall clock showed at the origin, since 1970. It may be set later on; this clock
    /// goes on as if it were not.
    pub fn unix_at_origin(&self) -> Duration {
        self.unix_at_origin
    }

    /// The present.
    pub fn now(&self) -> Timestamp {
        Timestamp(match self.source {
            Source::Machine(origin) => {
                u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
            }
            Source::Simulated(nanos) => nanos.load(Ordering::Relaxed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_early_and_at_most_one_tick_late() {
        let tick = TickLength::new(Duration::from_nanos(7));
        for due in 0..1_000 {
            let due = Timestamp::from_nanos(due);
            let start = tick.start(tick.deadline(due));
            assert!(due <= start && start.since(due) < tick.as_duration(), "{due:?} {start:?}");
        }
    }

    #[test]
    fn a_huge_timeout_never_wraps() {
        let tick = TickLength::new(Duration::from_millis(100));
        let due = Timestamp::from_nanos(5) + Duration::MAX;
        assert_eq!(tick.deadline(due), Tick::NEVER);
    }
}
