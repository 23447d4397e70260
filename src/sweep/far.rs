//! Deadlines that are too far away for the narrow encoding of a dense array.
//!
//! A `u16` or `u32` lane cannot say every deadline. Wrapping one round would fire a huge delay
//! early (netty issue 7760), so these are kept here in full until they have come near enough.
//!
//! Invariant: with a horizon of `h` ticks, whoever is here is due later than the next review, so
//! looking at all of them once every `h / 2` ticks is often enough.
//!
//! Cost: a hash-map operation for a touch. Only deadlines beyond the horizon pay it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};

use crate::time::Tick;

/// The far deadlines, by session index.
#[derive(Debug)]
pub(super) struct Far {
    /// Hashed without a random key, so that a run can be repeated.
    deadlines: HashMap<u32, Tick, BuildHasherDefault<DefaultHasher>>,
    horizon_ticks: u64,
    next_review: u64,
}

impl Far {
    /// `horizon_ticks`: those due sooner than this after the present are near.
    pub(super) fn new(horizon_ticks: u64, start: Tick) -> Far {
        let mut far = Far { deadlines: HashMap::default(), horizon_ticks, next_review: 0 };
        far.schedule(start);
        far
    }

    /// Files `index`, or changes its deadline. It must lie `horizon_ticks` ahead or more.
    pub(super) fn set(&mut self, index: u32, deadline: Tick) {
        self.deadlines.insert(index, deadline);
    }

    pub(super) fn remove(&mut self, index: u32) {
        let removed = self.deadlines.remove(&index);
        debug_assert!(removed.is_some(), "{index} is not far");
    }

    pub(super) fn is_review_due(&self, now: Tick) -> bool {
        now.0 >= self.next_review && !self.deadlines.is_empty()
    }

    /// Takes out whoever has come near by `now` and gives them to `near`. Returns how many were
    /// looked at.
    pub(super) fn review(&mut self, now: Tick, mut near: impl FnMut(u32, Tick)) -> usize {
        let looked_at = self.deadlines.len();
        let horizon_ticks = self.horizon_ticks;
        self.deadlines.retain(|&index, &mut deadline| {
            let stays = deadline.0.saturating_sub(now.0) >= horizon_ticks;
            if !stays {
                near(index, deadline);
            }
            stays
        });
        self.schedule(now);
        looked_at
    }

    fn schedule(&mut self, now: Tick) {
        self.next_review = now.0.saturating_add(self.horizon_ticks / 2);
    }

    /// The map's own reserve: a byte of control and the pair for each bucket.
    pub(super) fn heap_bytes(&self) -> usize {
        self.deadlines.capacity() * 8 / 7 * (size_of::<(u32, Tick)>() + 1)
    }
}
