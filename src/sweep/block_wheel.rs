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
//! Invariant: a block lies in a slot whose turn comes when the earliest of its deadlines is due, or
//! before. Being looked at too soon costs time; being late cannot happen.
//!
//! Cost: insert, touch and remove O(1), a touch mostly one store in one line. Advance visits the
//! blocks that hold someone due, and those whose earliest deadline has moved on since: with
//! timeouts of T ticks, renewed every h ticks, N / (64 (T - h)) a tick. Where that is a third of
//! all, they are scanned straight through instead, and the wheel rests. A deadline
//! [`HORIZON_TICKS`] ahead or more costs a hash-map entry until it is near.
//!
//! Bytes: 2 a session, 12 a block for its links and slot, and 8 to 16 a block for slots: 2.3 to
//! 2.45 a session.
//!
//! Source: hashed wheels are Varghese and Lauck, SOSP 1987, scheme 6; letting entries lie until
//! their slot's turn is how netty is used for idle checks. Filing cache lines is this project's.

use super::blocks::BLOCK_LANES;
use super::dial::{EMPTY, FAR, FIRST, HORIZON_TICKS, NEVER, OFF_DIAL};
use super::far::Far;
use super::lanes::Lanes;
use super::simd::Vectors;
use super::wheel::{Turn, Wheel};
use super::{Progress, Sweeper};
use crate::time::Tick;

/// Of `filed`: in no slot. Other values are the slot plus 1.
const NOWHERE: u32 = 0;

/// The wheel has at least twice as many slots as blocks, within these bounds: having to come back
/// after a revolution then costs half a visit a tick, however long the timeouts are.
const SLOTS_MIN: usize = 256;
const SLOTS_MAX: usize = 1 << 16;

/// Fewer blocks than this are not worth changing over for.
const STRAIGHT_BLOCKS_MIN: u32 = 64;

/// So many ticks in a row have to call for a straight scan.
const STRAIGHT_AFTER_TICKS: u32 = 4;

/// See the [module](self).
#[derive(Debug)]
pub struct BlockWheel {
    lanes: Lanes,
    /// Files blocks, by their number.
    wheel: Wheel,
    /// The slot that each block is in, plus 1.
    filed: Vec<u32>,
    far: Far,
    mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Blocks are visited when it is their turn. So many ticks in a row it was that of most.
    Wheel { crowded_ticks: u32 },
    /// All blocks are visited every tick and none is filed; the next scan begins with this one.
    Straight { next: u32 },
}

impl BlockWheel {
    /// A wheel for the indices below `capacity`, at the tick `start`.
    pub fn new(capacity: usize, start: Tick) -> BlockWheel {
        BlockWheel::with_vectors(capacity, start, Vectors::detect())
    }

    /// The same with the given instructions instead of the best that there are.
    pub fn with_vectors(capacity: usize, start: Tick, vectors: Vectors) -> BlockWheel {
        let blocks = capacity.div_ceil(BLOCK_LANES);
        let slots = (2 * blocks).next_power_of_two().clamp(SLOTS_MIN, SLOTS_MAX);
        BlockWheel {
            lanes: Lanes::new(capacity, vectors),
            wheel: Wheel::new(slots, blocks, start.0),
            filed: vec![NOWHERE; blocks],
            far: Far::new(HORIZON_TICKS, start),
            mode: Mode::Wheel { crowded_ticks: 0 },
        }
    }

    /// Files the deadline of a session that has none.
    fn set(&mut self, index: u32, deadline: Tick) {
        let distance = deadline.0.saturating_sub(self.wheel.cursor());
        let lane = if deadline == Tick::NEVER {
            NEVER
        } else if distance >= HORIZON_TICKS {
            self.far.set(index, deadline);
            FAR
        } else {
            self.file_by(index / BLOCK_LANES as u32, distance as u16);
            self.lanes.dial.lane(distance as u16)
        };
        *self.lanes.blocks.lane_mut(index) = lane;
    }

    /// Takes away the deadline of a session.
    fn clear(&mut self, index: u32) {
        let lane = std::mem::replace(self.lanes.blocks.lane_mut(index), EMPTY);
        debug_assert!(lane != EMPTY, "{index} is not filed");
        if lane == FAR {
            self.far.remove(index);
        }
    }

    /// A touch that comes from or goes to a deadline that no lane can say, or to one in the past.
    #[cold]
    #[inline(never)]
    fn touch_off_dial(&mut self, index: u32, deadline: Tick) {
        self.clear(index);
        self.set(index, deadline);
    }

    /// Sees to it that `block` is looked at when `distance` ticks have passed, or before.
    #[inline(never)]
    fn file_by(&mut self, block: u32, distance: u16) {
        if matches!(self.mode, Mode::Straight { .. }) {
            return;
        }
        let filed = self.filed[block as usize];
        if filed != NOWHERE {
            if self.wheel.ticks_to(filed as usize - 1) <= u64::from(distance) {
                return;
            }
            self.wheel.unlink(block);
        }
        let tick = self.wheel.cursor().saturating_add(u64::from(distance));
        self.filed[block as usize] = self.wheel.file(block, tick) as u32 + 1;
    }

    /// Visits the blocks whose turn has come by `now`.
    fn walk(&mut self, now: u64, full: usize, expired: &mut Vec<u32>) -> Progress {
        let BlockWheel { lanes, wheel, filed, .. } = self;
        let cursor = wheel.cursor();
        let slots = wheel.slots_seen_from(now);
        let progress = wheel.walk(now, |block| {
            let verdict = lanes.visit(block, now - cursor, full, expired);
            if verdict.due != 0 {
                return Turn::Stay;
            }
            if verdict.earliest == OFF_DIAL {
                filed[block as usize] = NOWHERE;
                return Turn::Gone;
            }
            let tick = cursor.saturating_add(u64::from(verdict.earliest));
            filed[block as usize] = slots.slot(tick) as u32 + 1;
            Turn::Until(tick)
        });
        lanes.dial.turn(wheel.cursor() - cursor);
        progress
    }

    /// Visits all blocks, beginning with `next`.
    fn scan(&mut self, next: u32, now: u64, full: usize, expired: &mut Vec<u32>) -> Progress {
        let ticks = now - self.wheel.cursor();
        let used = self.lanes.blocks.used();
        let mut due_soon = 0;
        for block in (next..used).chain(0..next) {
            let verdict = self.lanes.visit(block, ticks, full, expired);
            if verdict.due != 0 {
                self.mode = Mode::Straight { next: block };
                return Progress::More;
            }
            due_soon += u32::from(u64::from(verdict.earliest) <= ticks + 2);
        }
        self.lanes.dial.turn(ticks);
        self.wheel.skip_to(now);
        if due_soon < used / 2 {
            self.file_all();
        }
        Progress::Done
    }

    /// Goes back from straight scans to the wheel.
    fn file_all(&mut self) {
        self.mode = Mode::Wheel { crowded_ticks: 0 };
        for block in 0..self.lanes.blocks.used() {
            let verdict = self.lanes.visit(block, 0, 0, &mut Vec::new());
            if verdict.earliest != OFF_DIAL {
                self.file_by(block, verdict.earliest);
            }
        }
    }

    /// Goes over to straight scans where a third of all blocks is visited tick after tick: finding
    /// a block by the wheel costs as much as three or four in a row.
    fn adapt(&mut self, visited: u64) {
        let Mode::Wheel { crowded_ticks } = &mut self.mode else { return };
        let used = self.lanes.blocks.used();
        if used < STRAIGHT_BLOCKS_MIN || visited * 3 < used.into() {
            *crowded_ticks = 0;
            return;
        }
        *crowded_ticks += 1;
        if *crowded_ticks == STRAIGHT_AFTER_TICKS {
            self.wheel.clear();
            self.filed.fill(NOWHERE);
            self.mode = Mode::Straight { next: 0 };
        }
    }

    /// Puts those far deadlines on the dial that have come near.
    fn review_far(&mut self) {
        let now = Tick(self.wheel.cursor());
        let mut near = Vec::new();
        let looked_at = self.far.review(now, |index, deadline| near.push((index, deadline)));
        self.lanes.entries_visited += looked_at as u64;
        for (index, deadline) in near {
            self.set(index, deadline);
        }
    }
}

impl Sweeper for BlockWheel {
    fn insert(&mut self, index: u32, deadline: Tick) {
        if self.lanes.blocks.reserve(index) {
            self.wheel.grow(self.lanes.blocks.count());
            self.filed.resize(self.lanes.blocks.count(), NOWHERE);
        }
        debug_assert!(*self.lanes.blocks.lane_mut(index) == EMPTY, "{index} is filed already");
        self.set(index, deadline);
        self.lanes.len += 1;
    }

    #[inline]
    fn touch(&mut self, index: u32, deadline: Tick) {
        // What is past wraps to a distance beyond the horizon.
        let distance = deadline.0.wrapping_sub(self.wheel.cursor());
        let dial = self.lanes.dial;
        let lane = self.lanes.blocks.lane_mut(index);
        let old = *lane;
        if old < FIRST || distance >= HORIZON_TICKS {
            return self.touch_off_dial(index, deadline);
        }
        let new = dial.lane(distance as u16);
        *lane = new;
        // A block is never filed after its earliest lane: only an earlier one can change that.
        // Where the way from the old lane to the new one leads past the end of the dial, it is
        // counted too long by what is not on the dial. Then asking for nothing does no harm.
        if new.wrapping_sub(old) > distance as u16 {
            self.file_by(index / BLOCK_LANES as u32, distance as u16);
        }
    }

    fn remove(&mut self, index: u32) {
        self.clear(index);
        self.lanes.len -= 1;
    }

    fn advance(&mut self, now: Tick, budget: usize, expired: &mut Vec<u32>) -> Progress {
        let ticks = now.0.saturating_sub(self.wheel.cursor());
        let now = self.wheel.cursor() + ticks;
        let full = expired.len().saturating_add(budget);
        loop {
            let visited_before = self.lanes.entries_visited;
            let progress = match self.mode {
                Mode::Wheel { .. } => self.walk(now, full, expired),
                Mode::Straight { next } => self.scan(next, now, full, expired),
            };
            if progress == Progress::More {
                return Progress::More;
            }
            if ticks == 1 {
                self.adapt(self.lanes.entries_visited - visited_before);
            }
            if !self.far.is_review_due(Tick(now)) {
                return Progress::Done;
            }
            self.review_far();
        }
    }

    fn len(&self) -> usize {
        self.lanes.len
    }

    fn entries_visited(&self) -> u64 {
        self.lanes.entries_visited
    }

    fn heap_bytes(&self) -> usize {
        self.lanes.blocks.heap_bytes()
            + self.wheel.heap_bytes()
            + self.filed.capacity() * size_of::<u32>()
            + self.far.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Advances tick by tick from `from`, with everybody touched to be due `ahead` ticks later.
    fn beat(sweeper: &mut BlockWheel, from: u64, ticks: u64, ahead: u64) {
        for now in from..from + ticks {
            assert_eq!(sweeper.advance(Tick(now), 0, &mut Vec::new()), Progress::Done);
            (0..6_400).for_each(|index| sweeper.touch(index, Tick(now + ahead)));
        }
    }

    #[test]
    fn a_crowded_wheel_becomes_a_straight_scan_and_a_wheel_again() {
        let mut sweeper = BlockWheel::new(6_400, Tick(0));
        (0..6_400).for_each(|index| sweeper.insert(index, Tick(3)));
        beat(&mut sweeper, 1, 10, 3);
        assert_eq!(sweeper.mode, Mode::Wheel { crowded_ticks: 0 }, "every other tick");
        (0..6_400).for_each(|index| sweeper.touch(index, Tick(12)));
        for now in 11..20 {
            // One of each block is due at every tick, and is followed by another.
            let mut expired = Vec::new();
            (0..6_400).step_by(64).for_each(|index| sweeper.touch(index, Tick(now)));
            (0..6_400).skip(1).step_by(64).for_each(|index| sweeper.touch(index, Tick(now + 1)));
            sweeper.advance(Tick(now), usize::MAX, &mut expired);
            expired.iter().for_each(|&index| sweeper.insert(index, Tick(now + 1)));
        }
        assert!(matches!(sweeper.mode, Mode::Straight { .. }), "every block at every tick");
        (0..6_400).for_each(|index| sweeper.touch(index, Tick(70)));
        beat(&mut sweeper, 20, 3, 50);
        assert_eq!(sweeper.mode, Mode::Wheel { crowded_ticks: 0 }, "far ahead");
        let mut expired = Vec::new();
        sweeper.advance(Tick(71), usize::MAX, &mut expired);
        assert!(expired.is_empty());
        sweeper.advance(Tick(72), usize::MAX, &mut expired);
        assert_eq!(expired.len(), 6_400);
    }

    #[test]
    fn sessions_who_talk_are_not_looked_at_one_by_one() {
        let mut sweeper = BlockWheel::new(6_400, Tick(0));
        (0..6_400).for_each(|index| sweeper.insert(index, Tick(100)));
        beat(&mut sweeper, 1, 1_000, 100);
        // 100 blocks, each every 99 or 100 ticks.
        assert!(sweeper.entries_visited() <= 1_100, "{}", sweeper.entries_visited());
    }

    #[test]
    fn a_session_takes_less_than_two_and_a_half_bytes() {
        for capacity in [1 << 16, 200_000, 1 << 20, 10_000_000] {
            let bytes = BlockWheel::new(capacity, Tick(0)).heap_bytes();
            assert!(bytes as f64 / capacity as f64 <= 2.5, "{bytes} for {capacity}");
        }
    }
}
