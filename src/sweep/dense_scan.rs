//! `dense-scan`: deadlines in one dense array of 32 bits each, compared in full every tick.
//!
//! ```text
//! touch(i, d):  lane[i] = d - epoch + 1
//! remove(i):    lane[i] = 0
//! advance(now): for each block of 64 lanes: report those in 1 ..= now - epoch + 1
//! ```
//!
//! Invariant: the epoch is never 2^31 ticks or more ago, and lanes name deadlines less than 2^31
//! ticks ahead; later ones are kept elsewhere until they are near. So 32 bits never wrap.
//!
//! Cost: insert, touch and remove O(1), one store; advance Theta(N), though by the bandwidth of the
//! memory: one comparison for 8 or 16 sessions. 4 bytes a session.
//!
//! Source: data-oriented folklore; the baseline that every clever structure has to beat.

use super::blocks::{BLOCK_LANES, Blocks};
use super::far::Far;
use super::simd::Vectors;
use super::{Progress, Sweeper};
use crate::time::Tick;

const EMPTY: u32 = 0;
/// A session that is never due.
const NEVER: u32 = u32::MAX - 1;
/// A session whose deadline is kept elsewhere, in full.
const FAR: u32 = u32::MAX;

/// The epoch moves on when it is this old, and deadlines this far ahead are near. The sum of the
/// two stays below `NEVER`.
const HORIZON_TICKS: u64 = (1 << 31) - 2;

/// See the [module](self).
#[derive(Debug)]
pub struct DenseScan {
    lanes: Blocks<u32>,
    vectors: Vectors,
    epoch: u64,
    now: u64,
    /// The block where the next scan begins: where the budget ran out.
    next: u32,
    far: Far,
    len: usize,
    entries_visited: u64,
}

impl DenseScan {
    /// An array for the indices below `capacity`, at the tick `start`.
    pub fn new(capacity: usize, start: Tick) -> DenseScan {
        DenseScan {
            lanes: Blocks::new(capacity),
            vectors: Vectors::detect(),
            epoch: start.0,
            now: start.0,
            next: 0,
            far: Far::new(HORIZON_TICKS, start),
            len: 0,
            entries_visited: 0,
        }
    }

    fn set(&mut self, index: u32, deadline: Tick) {
        *self.lanes.lane_mut(index) = if deadline == Tick::NEVER {
            NEVER
        } else if deadline.0.saturating_sub(self.now) >= HORIZON_TICKS {
            self.far.set(index, deadline);
            FAR
        } else {
            deadline.0.saturating_sub(self.epoch) as u32 + 1
        };
    }

    fn clear(&mut self, index: u32) {
        let lane = std::mem::replace(self.lanes.lane_mut(index), EMPTY);
        debug_assert!(lane != EMPTY, "{index} is not filed");
        if lane == FAR {
            self.far.remove(index);
        }
    }

    /// Moves the epoch to the present, where 32 bits could not say the distance for much longer.
    fn renew_epoch(&mut self) {
        let passed = u32::try_from(self.now - self.epoch).unwrap_or(u32::MAX);
        for block in 0..self.lanes.used() {
            for lane in self.lanes.block_mut(block) {
                if (1..NEVER).contains(lane) {
                    *lane = (*lane - 1).saturating_sub(passed) + 1;
                }
            }
        }
        self.epoch = self.now;
        self.review_far();
    }

    fn review_far(&mut self) {
        let mut near = Vec::new();
        self.far.review(Tick(self.now), |index, deadline| near.push((index, deadline)));
        self.entries_visited += near.len() as u64;
        for (index, deadline) in near {
            self.set(index, deadline);
        }
    }
}

impl Sweeper for DenseScan {
    fn insert(&mut self, index: u32, deadline: Tick) {
        self.lanes.reserve(index);
        self.set(index, deadline);
        self.len += 1;
    }

    #[inline]
    fn touch(&mut self, index: u32, deadline: Tick) {
        // What is past wraps to a distance beyond the horizon.
        let ahead = deadline.0.wrapping_sub(self.now);
        let epoch = self.epoch;
        let lane = self.lanes.lane_mut(index);
        if *lane < NEVER && ahead < HORIZON_TICKS {
            *lane = (deadline.0 - epoch) as u32 + 1;
        } else {
            self.clear(index);
            self.set(index, deadline);
        }
    }

    fn remove(&mut self, index: u32) {
        self.clear(index);
        self.len -= 1;
    }

    fn advance(&mut self, now: Tick, budget: usize, expired: &mut Vec<u32>) -> Progress {
        self.now = now.0.max(self.now);
        if self.now - self.epoch >= HORIZON_TICKS {
            self.renew_epoch();
        }
        if self.far.is_review_due(now) {
            self.review_far();
        }
        let full = expired.len().saturating_add(budget);
        let passed = (self.now - self.epoch) as u32;
        let blocks = self.lanes.used();
        for block in (self.next..blocks).chain(0..self.next) {
            self.entries_visited += BLOCK_LANES as u64;
            let lanes = self.lanes.block_mut(block);
            let mut due = self.vectors.due(lanes, passed);
            while due != 0 {
                if expired.len() == full {
                    self.next = block;
                    return Progress::More;
                }
                let lane = due.trailing_zeros();
                due &= due - 1;
                lanes[lane as usize] = EMPTY;
                expired.push(block * BLOCK_LANES as u32 + lane);
                self.len -= 1;
            }
        }
        Progress::Done
    }

    fn len(&self) -> usize {
        self.len
    }

    fn entries_visited(&self) -> u64 {
        self.entries_visited
    }

    fn heap_bytes(&self) -> usize {
        self.lanes.heap_bytes() + self.far.heap_bytes()
    }
}
