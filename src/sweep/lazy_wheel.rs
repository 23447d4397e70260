//! `lazy-wheel`: a hashed timing wheel whose entries stay where they are until their slot's turn.
//!
//! ```text
//! touch(i, d):  earlier = d < deadline[i]; deadline[i] = d
//!               if earlier and i is filed after d: file it at d   # the old entry is now stale
//! remove(i):    deadline[i] = NEVER                               # so is its entry
//! advance(now): for each slot from the last present to now:
//!                 for each i in it that is filed here:
//!                   if deadline[i] <= now: report i
//!                   else: file it at deadline[i]
//! ```
//!
//! A stale entry is told by `filed[i]`, which names one slot; one that is reused by a newcomer
//! with the same index (moka issue 524) is therefore either the newcomer's own or ignored.
//!
//! Cost: insert, touch and remove O(1), a touch mostly one store; advance Theta(ticks + expired +
//! re-checks): with timeouts of T ticks, renewed every h, between N / T and N / (T - h) re-checks
//! a tick, and N in the worst. 16 bytes a session, 24 a slot, and what the slots' arrays keep.
//!
//! Source: netty's HashedWheelTimer as most servers use it for idle checks: the timer is not
//! moved on activity, it looks at the last activity when it fires and starts again.

use super::{Progress, Sweeper, slots_for};
use crate::time::Tick;

const NEVER: u64 = Tick::NEVER.0;

/// Of `filed`: not filed. Other values are the slot plus 1.
const NOWHERE: u32 = 0;

/// See the [module](self).
#[derive(Debug)]
pub struct LazyWheel {
    /// Ticks; also `NEVER` where there is no session.
    deadlines: Vec<u64>,
    /// The slot that holds the valid entry of each index, plus 1.
    filed: Vec<u32>,
    slots: Vec<Vec<u32>>,
    /// Emptied arrays: without them each of the slots would come to own the largest it ever had.
    spare: Vec<Vec<u32>>,
    mask: u64,
    cursor: u64,
    len: usize,
    entries_visited: u64,
}

impl LazyWheel {
    /// A wheel for the indices below `capacity`, at the tick `start`.
    pub fn new(capacity: usize, start: Tick) -> LazyWheel {
        let slots = slots_for(capacity);
        LazyWheel {
            deadlines: vec![0; capacity],
            filed: vec![NOWHERE; capacity],
            slots: vec![Vec::new(); slots],
            spare: Vec::new(),
            mask: slots as u64 - 1,
            cursor: start.0,
            len: 0,
            entries_visited: 0,
        }
    }

    #[cold]
    fn grow(&mut self, index: u32) {
        let capacity = (index as usize + 1).next_power_of_two();
        self.deadlines.resize(capacity, 0);
        self.filed.resize(capacity, NOWHERE);
    }

    /// Sees to it that `index` is looked at when `deadline` is due, or before.
    fn file_by(&mut self, index: u32, deadline: u64) {
        if deadline == NEVER {
            return;
        }
        let ahead = deadline.saturating_sub(self.cursor);
        let filed = self.filed[index as usize];
        let turn = u64::from(filed.wrapping_sub(1)).wrapping_sub(self.cursor) & self.mask;
        if filed == NOWHERE || ahead < turn {
            self.file(index, self.cursor, deadline);
        }
    }

    fn file(&mut self, index: u32, present: u64, tick: u64) {
        let ahead = tick.saturating_sub(present).min(self.mask);
        let slot = present.wrapping_add(ahead) & self.mask;
        let entries = &mut self.slots[slot as usize];
        if entries.capacity() == 0 {
            *entries = self.spare.pop().unwrap_or_default();
        }
        entries.push(index);
        self.filed[index as usize] = slot as u32 + 1;
    }

    /// Looks at every entry of `slot`, and says whether all are done.
    fn walk_slot(&mut self, slot: usize, now: u64, full: usize, expired: &mut Vec<u32>) -> bool {
        let mut entries = std::mem::take(&mut self.slots[slot]);
        while let Some(&index) = entries.last() {
            self.entries_visited += 1;
            let deadline = self.deadlines[index as usize];
            if self.filed[index as usize] == slot as u32 + 1 {
                if deadline > now && deadline != NEVER {
                    self.file(index, now, deadline);
                } else {
                    if deadline != NEVER {
                        if expired.len() == full {
                            break;
                        }
                        expired.push(index);
                        self.deadlines[index as usize] = NEVER;
                        self.len -= 1;
                    }
                    self.filed[index as usize] = NOWHERE;
                }
            }
            entries.pop();
        }
        let is_done = entries.is_empty();
        // Whoever came back to this slot meanwhile is put behind those that are left.
        entries.append(&mut self.slots[slot]);
        let emptied = if entries.is_empty() {
            entries
        } else {
            std::mem::replace(&mut self.slots[slot], entries)
        };
        if emptied.capacity() > 0 {
            self.spare.push(emptied);
        }
        is_done
    }
}

impl Sweeper for LazyWheel {
    fn insert(&mut self, index: u32, deadline: Tick) {
        if index as usize >= self.deadlines.len() {
            self.grow(index);
        }
        self.deadlines[index as usize] = deadline.0;
        self.file_by(index, deadline.0);
        self.len += 1;
    }

    fn touch(&mut self, index: u32, deadline: Tick) {
        let old = std::mem::replace(&mut self.deadlines[index as usize], deadline.0);
        if deadline.0 < old {
            self.file_by(index, deadline.0);
        }
    }

    fn remove(&mut self, index: u32) {
        self.deadlines[index as usize] = NEVER;
        self.len -= 1;
    }

    fn advance(&mut self, now: Tick, budget: usize, expired: &mut Vec<u32>) -> Progress {
        let now = now.0.max(self.cursor);
        let full = expired.len().saturating_add(budget);
        for step in 0..=(now - self.cursor).min(self.mask) {
            let slot = (self.cursor.wrapping_add(step) & self.mask) as usize;
            if !self.slots[slot].is_empty() && !self.walk_slot(slot, now, full, expired) {
                self.cursor += step;
                return Progress::More;
            }
        }
        self.cursor = now;
        Progress::Done
    }

    fn len(&self) -> usize {
        self.len
    }

    fn entries_visited(&self) -> u64 {
        self.entries_visited
    }

    fn heap_bytes(&self) -> usize {
        let arrays = self.slots.iter().chain(&self.spare);
        let entries = self.filed.capacity() + arrays.map(Vec::capacity).sum::<usize>();
        let slots = self.slots.capacity() + self.spare.capacity();
        self.deadlines.capacity() * size_of::<u64>()
            + entries * size_of::<u32>()
            + slots * size_of::<Vec<u32>>()
    }
}
