//! Who may come in at all: the bounds that all shards share. Touched when a connection comes and
//! when it has gone, never on a heartbeat's path.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::mutants::{Mutant, is};
use crate::protocol::address::PeerAddress;
use crate::session::Refusal;
use crate::time::Timestamp;

/// The bounds of [`Admission`]; those that are `None` do not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Sessions at a time.
    pub connections_max: usize,
    /// Sessions of one household at a time: an IPv4 address, or a /64 of IPv6.
    pub per_address_max: Option<u32>,
    /// Newcomers a second, over time, and how many at once.
    pub accept_rate: Option<AcceptRate>,
    /// The memory of the process, in bytes, above which nobody is let in.
    pub memory_bytes_max: Option<u64>,
}

impl Bounds {
    /// Up to `connections_max` at a time, and no other bound.
    pub const fn connections(connections_max: usize) -> Bounds {
        Bounds { connections_max, per_address_max: None, accept_rate: None, memory_bytes_max: None }
    }
}

/// A token bucket: it gains `per_s` a second, and holds `burst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptRate {
    /// Newcomers a second; not 0.
    pub per_s: u32,
    /// Newcomers at once; not 0.
    pub burst: u32,
}

/// The gate that all shards share.
#[derive(Debug)]
pub struct Admission {
    bounds: Bounds,
    admitted: AtomicUsize,
    /// When the bucket will be full again, in nanoseconds.
    bucket_full_at: AtomicU64,
    memory_exceeded: AtomicBool,
    by_household: Mutex<HashMap<PeerAddress, u32>>,
}

impl Admission {
    /// Admits up to `limit` at a time.
    pub fn new(limit: usize) -> Arc<Admission> {
        Admission::with(Bounds::connections(limit))
    }

    /// Admits as these bounds allow.
    pub fn with(bounds: Bounds) -> Arc<Admission> {
        Arc::new(Admission {
            bounds,
            admitted: AtomicUsize::new(0),
            bucket_full_at: AtomicU64::new(0),
            memory_exceeded: AtomicBool::new(false),
            by_household: Mutex::default(),
        })
    }

    /// Takes a place, if there is one. Whoever finds none has not counted as a newcomer of this
    /// second: those who are turned away anyhow leave the others their chance.
    ///
    /// # Errors
    /// Which bound is reached.
    pub(super) fn enter(&self, now: Timestamp) -> Result<(), Refusal> {
        if self.memory_exceeded.load(Ordering::Relaxed) && !is(Mutant::MemoryLimitMissed) {
            return Err(Refusal::MemoryLimit);
        }
        if self.admitted.fetch_add(1, Ordering::Relaxed) >= self.bounds.connections_max {
            if !is(Mutant::PlaceKept) {
                self.leave();
            }
            return Err(Refusal::MaxConnections);
        }
        if !self.take_token(now) && !is(Mutant::TokenNotTaken) {
            self.leave();
            return Err(Refusal::AcceptRate);
        }
        Ok(())
    }

    /// Gives a place back.
    pub(super) fn leave(&self) {
        self.admitted.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes a token from the bucket, which is kept as the time at which it will be full (GCRA,
    /// ITU-T I.371): one word, so that shards need no lock.
    fn take_token(&self, now: Timestamp) -> bool {
        let Some(rate) = self.bounds.accept_rate else { return true };
        let period_ns = 1_000_000_000 / u64::from(rate.per_s.max(1));
        let depth_ns = period_ns * u64::from(rate.burst);
        let now_ns = now.as_nanos();
        let take = |full_at: u64| {
            let after = full_at.max(now_ns) + period_ns;
            (after - now_ns <= depth_ns).then_some(after)
        };
        self.bucket_full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Whether addresses are counted.
    pub fn counts_addresses(&self) -> bool {
        self.bounds.per_address_max.is_some()
    }

    /// Counts one more of an address' household. Whether that is allowed.
    pub(super) fn enter_from(&self, address: PeerAddress) -> bool {
        let Some(max) = self.bounds.per_address_max else { return true };
        let mut households = self.households();
        let count = households.entry(address.household()).or_default();
        let allowed = *count < max;
        *count += u32::from(allowed && !is(Mutant::PlaceNotCounted));
        allowed
    }

    /// One of an address' household has gone.
    pub(super) fn leave_from(&self, address: PeerAddress) {
        let mut households = self.households();
        if let Some(count) = households.get_mut(&address.household()) {
            *count -= 1;
            if *count == 0 {
                households.remove(&address.household());
            }
        }
    }

    fn households(&self) -> std::sync::MutexGuard<'_, HashMap<PeerAddress, u32>> {
        self.by_household.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory above which nobody is let in, if that is bounded.
    pub fn memory_bytes_max(&self) -> Option<u64> {
        self.bounds.memory_bytes_max
    }

    /// Tells how much memory the process has now.
    pub fn note_memory(&self, bytes: u64) {
        let exceeded = self.bounds.memory_bytes_max.is_some_and(|max| bytes > max);
        self.memory_exceeded.store(exceeded, Ordering::Relaxed);
    }
}
