//! `block-wheel`: a hashed timing wheel whose entries are cache lines full of deadlines.
//!
//! Deadlines lie dense by session index, 16 bits each. The wheel files one entry for each block
//! of 64 neighbours, at the slot of the earliest deadline in it, or sooner.
//!
//! ```text
//! touch(i, d):  earlier = d < lane[i]
//!               lane[i] = d                               # all there is to a heartbeat
//!               if earlier and the block is filed after d: file it at d
//! remove(i):    lane[i] = EMPTY                           # the block stays where it is
//! advance(now): for each slot from the last present to now:
//!                 for each block in the slot:
//!                   due, earliest = compare all lanes with now
//!                   report the due, empty their lanes
//!                   file the block at the earliest that is left; none: nowhere
//! ```
//!
//! Invariant: a block is filed at a slot whose turn comes when the earliest of its deadlines is due
//! or before. Being looked at too soon costs time; being late cannot happen.
//!
//! Cost: insert and touch O(1), mostly one store in one line; remove O(1); advance visits the
//! blocks that hold someone due, and those whose filed deadline was moved on since: with timeouts
//! of T ticks, renewed every h ticks, N / (64 (T - h)) blocks a tick beside those of the expired.
//! Where that is most blocks, they are scanned straight through instead (`straight`). A deadline
//! [`HORIZON_TICKS`] ahead or more costs a hash-map entry until it is near.
//!
//! Bytes: 2 a session, and 20 to 28 a block for links and slots: 2.3 to 2.45 a session.
//!
//! Source: hashed wheels are Varghese and Lauck, SOSP 1987, scheme 6; leaving entries where they
//! are until their slot's turn is netty's and the kernel's idle-timer practice. An entry for each
//! cache line instead of each session is this project's.

use super::dial::{
    self, BLOCK_LANES, Blocks, Dial, EMPTY, FAR, FIRST, HORIZON_TICKS, NEVER, OFF_DIAL, Verdict,
};
use super::far::Far;
use super::lists::Lists;
use super::{Progress, Sweeper};
use crate::time::Tick;

/// The slot of a block that is not filed; other values are the slot plus 1.
const NOWHERE: u32 = 0;

/// The wheel has twice as many slots as blocks, within these bounds. Being filed a revolution
/// ahead at most then costs half a visit a tick; a slot is two thirds of what a block's links cost.
const SLOTS_MIN: usize = 256;
const SLOTS_MAX: usize = 1 << 16;

/// See the [module](self).
#[derive(Debug)]
pub struct BlockWheel {
    blocks: Blocks,
    /// The present: `dial`'s hand points at this tick.
    cursor: u64,
    dial: Dial,
    /// A list of blocks for each slot.
    slots: Lists,
    slot_mask: u64,
    /// Where each block is filed, plus 1.
    filed: Vec<u32>,
    /// The blocks of the slot whose turn it is; kept for its memory.
    turn: Vec<u32>,
    far: Far,
    len: usize,
    entries_visited: u64,
}

impl BlockWheel {
    /// A wheel for the indices below `capacity`, at the tick `start`.
    pub fn new(capacity: usize, start: Tick) -> BlockWheel {
        let blocks = capacity.div_ceil(BLOCK_LANES);
        let slots = (2 * blocks).next_power_of_two().clamp(SLOTS_MIN, SLOTS_MAX);
        BlockWheel {
            blocks: Blocks::new(blocks),
            cursor: start.0,
            dial: Dial::new(),
            slots: Lists::new(slots, blocks),
            slot_mask: slots as u64 - 1,
            filed: vec![NOWHERE; blocks],
            turn: Vec::new(),
            far: Far::new(HORIZON_TICKS, start),
            len: 0,
            entries_visited: 0,
        }
    }

    #[cold]
    fn grow(&mut self, index: u32) {
        let blocks = (index as usize / BLOCK_LANES + 1).next_power_of_two();
        self.blocks.grow(blocks);
        self.slots.grow(blocks);
        self.filed.resize(blocks, NOWHERE);
    }

    /// Files the deadline of a session that has none.
    fn set(&mut self, index: u32, deadline: Tick) {
        let distance = deadline.0.saturating_sub(self.cursor);
        let lane = if deadline == Tick::NEVER {
            NEVER
        } else if distance >= HORIZON_TICKS {
            self.far.set(index, deadline);
            FAR
        } else {
            self.file_by(index / BLOCK_LANES as u32, distance as u16);
            self.dial.lane(distance as u16)
        };
        *self.blocks.lane_mut(index) = lane;
    }

    /// Takes away the deadline of a session.
    fn clear(&mut self, index: u32) {
        let lane = std::mem::replace(self.blocks.lane_mut(index), EMPTY);
        debug_assert!(lane != EMPTY, "{index} is not filed");
        if lane == FAR {
            self.far.remove(index);
        }
    }

    #[cold]
    fn touch_rare(&mut self, index: u32, deadline: Tick) {
        self.clear(index);
        self.set(index, deadline);
    }

    /// Sees to it that `block` is looked at when `distance` ticks have passed, or before.
    fn file_by(&mut self, block: u32, distance: u16) {
        let filed = self.filed[block as usize];
        if filed != NOWHERE {
            let turn = u64::from(filed - 1).wrapping_sub(self.cursor) & self.slot_mask;
            if turn <= u64::from(distance) {
                return;
            }
            self.slots.unlink(block);
        }
        self.file(block, self.cursor.wrapping_add(u64::from(distance).min(self.slot_mask)));
    }

    fn file(&mut self, block: u32, tick: u64) {
        let slot = (tick & self.slot_mask) as u32;
        self.slots.push(slot as usize, block);
        self.filed[block as usize] = slot + 1;
    }

    /// Looks at every block in the slots from the cursor to `now`. Moves the cursor past the
    /// slots that are done.
    fn walk(&mut self, now: u64, full: usize, expired: &mut Vec<u32>) -> Progress {
        let ticks = now - self.cursor;
        for step in 0..=ticks.min(self.slot_mask) {
            let slot = (self.cursor.wrapping_add(step) & self.slot_mask) as usize;
            if self.slots.first(slot).is_some() && !self.visit_slot(slot, ticks, full, expired) {
                self.turn_to(self.cursor + step);
                return Progress::More;
            }
        }
        self.turn_to(now);
        Progress::Done
    }

    /// Looks at every block in `slot`, when `ticks` have passed since the cursor. Says whether
    /// `expired` had room for all; otherwise the rest is in the slot as before.
    fn visit_slot(&mut self, slot: usize, ticks: u64, full: usize, expired: &mut Vec<u32>) -> bool {
        let mut turn = std::mem::take(&mut self.turn);
        self.slots.take(slot, &mut turn);
        let mut rest = turn.iter().copied();
        let mut left_over = None;
        for block in &mut rest {
            let verdict = self.visit(block, ticks, full, expired);
            if verdict.due != 0 {
                left_over = Some(block);
                break;
            }
            self.filed[block as usize] = NOWHERE;
            if verdict.earliest != OFF_DIAL {
                // Later than the present. If that is a slot before the present, because this is
                // as far ahead as the wheel can say, the block is merely seen twice.
                let ahead = (u64::from(verdict.earliest) - ticks).min(self.slot_mask);
                self.file(block, self.cursor.wrapping_add(ticks + ahead));
            }
        }
        for block in left_over.into_iter().chain(rest) {
            self.slots.push(slot, block);
        }
        turn.clear();
        self.turn = turn;
        left_over.is_none()
    }

    /// Reports the due of `block` until `expired` is full. What is left is in the verdict.
    fn visit(&mut self, block: u32, ticks: u64, full: usize, expired: &mut Vec<u32>) -> Verdict {
        self.entries_visited += 1;
        let limit = ticks.min(HORIZON_TICKS - 1) as u16;
        let lanes = self.blocks.block_mut(block);
        let mut verdict = dial::judge(lanes, self.dial.hand(), limit);
        while verdict.due != 0 && expired.len() < full {
            let lane = verdict.due.trailing_zeros();
            verdict.due &= verdict.due - 1;
            lanes[lane as usize] = EMPTY;
            expired.push(block * BLOCK_LANES as u32 + lane);
            self.len -= 1;
        }
        verdict
    }

    fn turn_to(&mut self, tick: u64) {
        self.dial.turn(tick - self.cursor);
        self.cursor = tick;
    }

    /// Puts those far deadlines on the dial that have come near.
    fn review_far(&mut self) {
        let now = Tick(self.cursor);
        let mut near = Vec::new();
        let looked_at = self.far.review(now, |index, deadline| near.push((index, deadline)));
        self.entries_visited += looked_at as u64;
        for (index, deadline) in near {
            self.set(index, deadline);
        }
    }
}

impl Sweeper for BlockWheel {
    fn insert(&mut self, index: u32, deadline: Tick) {
        if index as usize >= self.blocks.count() * BLOCK_LANES {
            self.grow(index);
        }
        debug_assert!(*self.blocks.lane_mut(index) == EMPTY, "{index} is filed already");
        self.set(index, deadline);
        self.len += 1;
    }

    #[inline]
    fn touch(&mut self, index: u32, deadline: Tick) {
        let distance = deadline.0.saturating_sub(self.cursor);
        let dial = self.dial;
        let lane = self.blocks.lane_mut(index);
        let old = *lane;
        if old < FIRST || distance >= HORIZON_TICKS {
            return self.touch_rare(index, deadline);
        }
        *lane = dial.lane(distance as u16);
        if (distance as u16) < dial.distance(old) {
            self.file_by(index / BLOCK_LANES as u32, distance as u16);
        }
    }

    fn remove(&mut self, index: u32) {
        self.clear(index);
        self.len -= 1;
    }

    fn advance(&mut self, now: Tick, budget: usize, expired: &mut Vec<u32>) -> Progress {
        let now = now.0.max(self.cursor);
        let full = expired.len().saturating_add(budget);
        loop {
            if self.walk(now, full, expired) == Progress::More {
                return Progress::More;
            }
            if !self.far.is_review_due(Tick(now)) {
                return Progress::Done;
            }
            self.review_far();
        }
    }

    fn len(&self) -> usize {
        self.len
    }

    fn entries_visited(&self) -> u64 {
        self.entries_visited
    }

    fn heap_bytes(&self) -> usize {
        let filed = (self.filed.capacity() + self.turn.capacity()) * size_of::<u32>();
        self.blocks.heap_bytes() + self.slots.heap_bytes() + filed + self.far.heap_bytes()
    }
}
