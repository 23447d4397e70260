//! `hierarchical-wheel`: eleven wheels of 64 slots, each 64 times coarser than the one below.
//!
//! ```text
//! touch(i, d):  if d != deadline[i]: unlink i
//!               level = the highest base-64 digit in which d and the cursor differ
//!               link i into slot[level][that digit of d]
//! remove(i):    unlink i
//! advance(now): while the earliest slot that is not empty begins at or before now:
//!                 move the cursor to its begin
//!                 for each i in it: if deadline[i] <= now: report i
//!                                   else: link it again, which is a level further down
//! ```
//!
//! Eleven digits of six bits say every tick, so there is no horizon and no overflow list.
//!
//! Cost: insert, touch and remove O(1), as the eager wheel's; advance Theta(expired + cascades):
//! a session that lives to see its deadline is linked once per level, one that is touched before
//! hardly ever. Empty stretches of time are skipped by bit masks. 16 bytes a session, 3 KiB.
//!
//! Source: Varghese and Lauck, SOSP 1987, scheme 7; tokio's timer has the same digits.

use super::lists::Lists;
use super::{Progress, Sweeper};
use crate::time::Tick;

const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
const LEVELS: usize = u64::BITS.div_ceil(DIGIT_BITS) as usize;

/// See the [module](self).
#[derive(Debug)]
pub struct HierarchicalWheel {
    /// Ticks. Whoever is due [`Tick::NEVER`] is not on the wheel.
    deadlines: Vec<u64>,
    /// The list of a slot is `level * SLOTS + slot`.
    slots: Lists,
    /// A bit for each slot that is not empty.
    occupied: [u64; LEVELS],
    cursor: u64,
    /// The sessions of the slot whose turn it is; kept for its memory.
    turn: Vec<u32>,
    len: usize,
    entries_visited: u64,
}

impl HierarchicalWheel {
    /// A wheel for the indices below `capacity`, at the tick `start`.
    pub fn new(capacity: usize, start: Tick) -> HierarchicalWheel {
        HierarchicalWheel {
            deadlines: vec![0; capacity],
            slots: Lists::new(LEVELS * SLOTS, capacity),
            occupied: [0; LEVELS],
            cursor: start.0,
            turn: Vec::new(),
            len: 0,
            entries_visited: 0,
        }
    }

    fn file(&mut self, index: u32, deadline: Tick) {
        self.deadlines[index as usize] = deadline.0;
        if deadline != Tick::NEVER {
            let tick = deadline.0.max(self.cursor);
            let level = ((tick ^ self.cursor) | 1).ilog2() / DIGIT_BITS;
            let slot = (tick >> (level * DIGIT_BITS)) as usize % SLOTS;
            self.link(level as usize * SLOTS + slot, index);
        }
    }

    fn link(&mut self, list: usize, index: u32) {
        self.slots.push(list, index);
        self.occupied[list / SLOTS] |= 1 << (list % SLOTS);
    }

    fn unlink(&mut self, index: u32) {
        if self.deadlines[index as usize] != Tick::NEVER.0
            && let Some(list) = self.slots.unlink(index)
        {
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        }
    }

    /// The tick at which the earliest slot that is not empty begins, and its list.
    ///
    /// Slots that lie before the cursor's own are empty, on every level: they have had their turn.
    fn next_slot(&self) -> Option<(u64, usize)> {
        let of_level = |level: usize| {
            let occupied = self.occupied[level];
            let slot = occupied.trailing_zeros() as usize;
            let shift = level as u32 * DIGIT_BITS;
            let above = self.cursor.checked_shr(shift + DIGIT_BITS).unwrap_or(0);
            let begin = (above << DIGIT_BITS | slot as u64) << shift;
            (occupied != 0).then_some((begin, level * SLOTS + slot))
        };
        (0..LEVELS).filter_map(of_level).min()
    }

    /// Looks at all sessions in `list`, and says whether `expired` had room for them.
    fn visit(&mut self, list: usize, now: Tick, full: usize, expired: &mut Vec<u32>) -> bool {
        let mut turn = std::mem::take(&mut self.turn);
        self.slots.take(list, &mut turn);
        self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        let mut done = turn.len();
        for (position, &index) in turn.iter().enumerate() {
            self.entries_visited += 1;
            let deadline = Tick(self.deadlines[index as usize]);
            if deadline > now {
                self.file(index, deadline);
            } else if expired.len() < full {
                expired.push(index);
                self.len -= 1;
            } else {
                done = position;
                break;
            }
        }
        turn[done..].iter().for_each(|&index| self.link(list, index));
        let is_done = done == turn.len();
        turn.clear();
        self.turn = turn;
        is_done
    }
}

impl Sweeper for HierarchicalWheel {
    fn insert(&mut self, index: u32, deadline: Tick) {
        if index as usize >= self.deadlines.len() {
            let capacity = (index as usize + 1).next_power_of_two();
            self.deadlines.resize(capacity, 0);
            self.slots.grow(capacity);
        }
        self.file(index, deadline);
        self.len += 1;
    }

    fn touch(&mut self, index: u32, deadline: Tick) {
        if self.deadlines[index as usize] != deadline.0 {
            self.unlink(index);
            self.file(index, deadline);
        }
    }

    fn remove(&mut self, index: u32) {
        self.unlink(index);
        self.len -= 1;
    }

    fn advance(&mut self, now: Tick, budget: usize, expired: &mut Vec<u32>) -> Progress {
        let now = now.max(Tick(self.cursor));
        let full = expired.len().saturating_add(budget);
        while let Some((begin, list)) = self.next_slot() {
            if begin > now.0 {
                break;
            }
            // What an advance that was cut short has left may begin before the cursor.
            self.cursor = self.cursor.max(begin);
            if !self.visit(list, now, full, expired) {
                return Progress::More;
            }
        }
        self.cursor = now.0;
        Progress::Done
    }

    fn len(&self) -> usize {
        self.len
    }

    fn entries_visited(&self) -> u64 {
        self.entries_visited
    }

    fn heap_bytes(&self) -> usize {
        self.deadlines.capacity() * size_of::<u64>()
            + self.slots.heap_bytes()
            + self.turn.capacity() * size_of::<u32>()
    }
}
