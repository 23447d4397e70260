//! `eager-wheel`: a hashed timing wheel of sessions, each always in the slot of its deadline.
//!
//! ```text
//! touch(i, d):  if d != deadline[i]: unlink i, link it into slot[d mod W]
//! remove(i):    unlink i
//! advance(now): for each slot from the last present to now: report all in it
//! ```
//!
//! A touch within the same tick as the last has the same deadline and changes nothing: a session
//! is relinked once a tick at most, however much it talks.
//!
//! Cost: insert, touch and remove O(1), but relinking writes to three or four sessions' lines;
//! advance Theta(ticks + expired), the truest O(expired) of all. A timeout beyond a revolution
//! costs one more look each revolution. 16 bytes a session, and 4 a slot.
//!
//! Source: Varghese and Lauck, "Hashed and hierarchical timing wheels", SOSP 1987, scheme 6.

use super::wheel::{Turn, Wheel};
use super::{Progress, Sweeper, slots_for};
use crate::time::Tick;

/// See the [module](self).
#[derive(Debug)]
pub struct EagerWheel {
    /// Ticks. Whoever is due [`Tick::NEVER`] is not on the wheel.
    deadlines: Vec<u64>,
    wheel: Wheel,
    len: usize,
    entries_visited: u64,
}

impl EagerWheel {
    /// A wheel for the indices below `capacity`, at the tick `start`.
    pub fn new(capacity: usize, start: Tick) -> EagerWheel {
        EagerWheel {
            deadlines: vec![0; capacity],
            wheel: Wheel::new(slots_for(capacity), capacity, start.0),
            len: 0,
            entries_visited: 0,
        }
    }

    #[cold]
    fn grow(&mut self, index: u32) {
        let capacity = (index as usize + 1).next_power_of_two();
        self.deadlines.resize(capacity, 0);
        self.wheel.grow(capacity);
    }

    fn file(&mut self, index: u32, deadline: Tick) {
        self.deadlines[index as usize] = deadline.0;
        if deadline != Tick::NEVER {
            self.wheel.file(index, deadline.0);
        }
    }

    fn unlink(&mut self, index: u32) {
        if self.deadlines[index as usize] != Tick::NEVER.0 {
            self.wheel.unlink(index);
        }
    }
}

impl Sweeper for EagerWheel {
    fn insert(&mut self, index: u32, deadline: Tick) {
        if index as usize >= self.deadlines.len() {
            self.grow(index);
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
        let now = now.0.max(self.wheel.cursor());
        let first = expired.len();
        let full = first.saturating_add(budget);
        let progress = self.wheel.walk(now, |index| {
            self.entries_visited += 1;
            let deadline = self.deadlines[index as usize];
            if deadline > now {
                return Turn::Until(deadline);
            }
            if expired.len() == full {
                return Turn::Stay;
            }
            expired.push(index);
            Turn::Gone
        });
        self.len -= expired.len() - first;
        progress
    }

    fn len(&self) -> usize {
        self.len
    }

    fn entries_visited(&self) -> u64 {
        self.entries_visited
    }

    fn heap_bytes(&self) -> usize {
        self.deadlines.capacity() * size_of::<u64>() + self.wheel.heap_bytes()
    }
}
