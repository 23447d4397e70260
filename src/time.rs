//! Time as the core sees it: [`Timestamp`] (nanoseconds since the clock's origin), [`Tick`]
//! (whole ticks since that origin) and [`TickLength`], which converts between the two.
//!
//! Invariant: this module holds the only reader of a clock, [`Clock`]. Everything in the sans-IO
//! core is handed a `Timestamp`, so that tests and the simulator can make time pass as they like.

use std::fmt;
use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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

/// The only reader of a clock: monotonic, it stands still while the machine is suspended. Or a
/// virtual one, which stands still until somebody moves it: for simulations.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    source: Source,
}

/// The branch on it is always taken the same way: next to the reading of a clock it is free.
#[derive(Clone, Copy, Debug)]
enum Source {
    Monotonic { origin: Instant },
    Virtual(VirtualTime),
}

/// Virtual time: it passes when [`VirtualTime::advance_to`] says so.
#[derive(Clone, Copy, Debug)]
pub struct VirtualTime {
    nanos: &'static AtomicU64,
}

impl VirtualTime {
    /// A time that stands at its origin. Its 8 bytes are never freed, so that a [`Clock`] can be
    /// copied about whatever its source: make one for a simulation, not one for an event.
    #[expect(clippy::new_without_default, reason = "it keeps memory for ever: never by default")]
    pub fn new() -> VirtualTime {
        VirtualTime { nanos: Box::leak(Box::new(AtomicU64::new(0))) }
    }

    /// The present.
    pub fn now(self) -> Timestamp {
        Timestamp(self.nanos.load(Ordering::Relaxed))
    }

    /// Moves time on to `now`, never backwards.
    pub fn advance_to(self, now: Timestamp) {
        self.nanos.fetch_max(now.0, Ordering::Relaxed);
    }
}

impl Clock {
    /// A clock whose origin is this moment.
    #[expect(clippy::new_without_default, reason = "reading a clock is no default value")]
    pub fn new() -> Clock {
        Clock { source: Source::Monotonic { origin: Instant::now() } }
    }

    /// A clock that shows `time`.
    pub fn simulated(time: VirtualTime) -> Clock {
        Clock { source: Source::Virtual(time) }
    }

    /// The present.
    pub fn now(&self) -> Timestamp {
        match self.source {
            Source::Monotonic { origin } => {
                Timestamp(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
            }
            Source::Virtual(time) => time.now(),
        }
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
    fn virtual_time_stands_still_until_it_is_moved_and_never_goes_back() {
        let time = VirtualTime::new();
        let clock = Clock::simulated(time);
        assert_eq!(clock.now(), Timestamp::ZERO);
        time.advance_to(Timestamp(7));
        time.advance_to(Timestamp(3));
        assert_eq!((clock.now(), time.now()), (Timestamp(7), Timestamp(7)));
    }

    #[test]
    fn a_huge_timeout_never_wraps() {
        let tick = TickLength::new(Duration::from_millis(100));
        let due = Timestamp::from_nanos(5) + Duration::MAX;
        assert_eq!(tick.deadline(due), Tick::NEVER);
    }
}
