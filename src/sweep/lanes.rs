//! The deadlines of `block-wheel`, and the look at one block of them.
//!
//! Invariant: a lane that is on the dial is not behind its hand.

use super::blocks::{BLOCK_LANES, Blocks};
use super::dial::{Dial, EMPTY, HORIZON_TICKS};
use super::simd::{Vectors, Verdict};

/// Lanes of 16 bits by session index, and the dial that they are positions on.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) blocks: Blocks<u16>,
    pub(super) dial: Dial,
    pub(super) vectors: Vectors,
    /// How many lanes are not empty.
    pub(super) len: usize,
    pub(super) entries_visited: u64,
}

impl Lanes {
    pub(super) fn new(capacity: usize, vectors: Vectors) -> Lanes {
        Lanes {
            blocks: Blocks::new(capacity),
            dial: Dial::new(),
            vectors,
            len: 0,
            entries_visited: 0,
        }
    }

    /// Reports the due of `block`, when `ticks` have passed since the hand was turned, until
    /// `expired` has grown to `full`. Whoever is due and did not fit is still in the verdict.
    #[inline]
    pub(super) fn visit(
        &mut self,
        block: u32,
        ticks: u64,
        full: usize,
        expired: &mut Vec<u32>,
    ) -> Verdict {
        self.entries_visited += 1;
        let limit = ticks.min(HORIZON_TICKS - 1) as u16;
        let lanes = self.blocks.block_mut(block);
        let mut verdict = self.vectors.judge(lanes, self.dial.hand(), limit);
        while verdict.due != 0 && expired.len() < full {
            let lane = verdict.due.trailing_zeros();
            verdict.due &= verdict.due - 1;
            lanes[lane as usize] = EMPTY;
            expired.push(block * BLOCK_LANES as u32 + lane);
            self.len -= 1;
        }
        verdict
    }
}
