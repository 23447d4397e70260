//! Strategies for finding the sessions whose deadline has passed, side by side behind one trait.
//!
//! A sweeper knows sessions by their dense index only, and time in whole [`Tick`]s. It reads no
//! clock, and it does not call back: the expired come out as data, so nothing can re-enter it.

// Only the vector code may be unsafe: forbidden elsewhere.
#[forbid(unsafe_code)]
mod binary_heap;
#[forbid(unsafe_code)]
mod block_wheel;
#[forbid(unsafe_code)]
mod blocks;
#[forbid(unsafe_code)]
mod btree;
#[forbid(unsafe_code)]
mod dense_scan;
#[forbid(unsafe_code)]
mod dial;
#[forbid(unsafe_code)]
mod eager_wheel;
#[forbid(unsafe_code)]
mod far;
#[forbid(unsafe_code)]
mod hierarchical_wheel;
#[forbid(unsafe_code)]
mod lanes;
#[forbid(unsafe_code)]
mod lazy_wheel;
#[forbid(unsafe_code)]
mod lists;
#[forbid(unsafe_code)]
mod lru_list;
#[forbid(unsafe_code)]
mod map_scan;
mod simd;
#[forbid(unsafe_code)]
mod strategy;
#[forbid(unsafe_code)]
mod wheel;

pub use binary_heap::LazyHeap;
pub use block_wheel::BlockWheel;
pub use btree::Btree;
pub use dense_scan::DenseScan;
pub use eager_wheel::EagerWheel;
pub use hierarchical_wheel::HierarchicalWheel;
pub use lazy_wheel::LazyWheel;
pub use lru_list::LruList;
pub use map_scan::MapScan;
pub use simd::Vectors;
pub use strategy::{AnySweeper, Strategy, UnknownStrategy};

use crate::time::Tick;

/// Finds the sessions whose deadline has passed.
///
/// # Contract
/// - An index is *filed* from `insert` until `remove`, or until `advance` reports it. Whoever is
///   reported is filed no longer: exactly once.
/// - A filed index is reported by the first `advance(now, …)` with `now >= deadline` whose budget
///   reaches it, and never before. A deadline that is already past when it is filed is reported
///   by the next `advance`, even if that one is for the same tick as the last.
/// - [`Tick::NEVER`] is filed like any other deadline, and never reported.
/// - Indices are dense and reused: they should stay below the capacity the sweeper was made for,
///   and a larger one makes it grow.
pub trait Sweeper {
    /// Files `index`, which must not be filed now.
    fn insert(&mut self, index: u32, deadline: Tick);

    /// Changes the deadline of `index`, which must be filed, to an earlier or later one.
    fn touch(&mut self, index: u32, deadline: Tick);

    /// Forgets `index`, which must be filed.
    fn remove(&mut self, index: u32);

    /// Moves time on to `now` (never backwards) and appends to `expired` whoever is due, in no
    /// particular order, at most `budget` of them.
    ///
    /// [`Progress::More`] says that the budget ran out first: the rest comes out of further calls,
    /// with the same `now` or a later one, unless they are touched or removed in between.
    fn advance(&mut self, now: Tick, budget: usize, expired: &mut Vec<u32>) -> Progress;

    /// How many are filed.
    fn len(&self) -> usize;

    /// Whether none is filed.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries `advance` has looked at since the start: the cost of sweeping, told in a
    /// way that does not depend on the machine. An entry is whatever the strategy visits as one.
    fn entries_visited(&self) -> u64;

    /// The heap memory that is reserved now, in bytes.
    fn heap_bytes(&self) -> usize;
}

/// Whether [`Sweeper::advance`] got to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Everybody who is due has been reported.
    Done,
    /// The budget was spent; some who are due may not have been reported yet.
    More,
}

/// How many slots the wheels of sessions have: a power of two that grows with the capacity. Coming
/// back after a revolution without a deadline then costs one look a tick at most, up to 65,536
/// sessions; beyond, timeouts shorter than 65,536 ticks never get that far.
fn slots_for(capacity: usize) -> usize {
    capacity.next_power_of_two().clamp(1 << 10, 1 << 16)
}
