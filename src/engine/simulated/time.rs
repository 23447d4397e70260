//! Virtual time: it passes when somebody says so.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::time::{Clock, Timestamp};

/// A time of its own for each world. Its 8 bytes are never freed, since clocks are copied about.
#[derive(Clone, Copy, Debug)]
pub(super) struct VirtualTime {
    nanos: &'static AtomicU64,
}

impl VirtualTime {
    pub(super) fn new() -> VirtualTime {
        VirtualTime { nanos: Box::leak(Box::new(AtomicU64::new(0))) }
    }

    pub(super) fn clock(self) -> Clock {
        Clock::simulated(self.nanos)
    }

    pub(super) fn now(self) -> Timestamp {
        Timestamp::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    /// Never backwards.
    pub(super) fn advance_to(self, now: Timestamp) {
        self.nanos.fetch_max(now.as_nanos(), Ordering::Relaxed);
    }
}
