//! `btree`: all deadlines in a B-tree, in order.
//!
//! ```text
//! touch(i, d):  tree.remove((deadline[i], i)); deadline[i] = d; tree.insert((d, i))
//! remove(i):    tree.remove((deadline[i], i))
//! advance(now): while the first (d, i) of the tree has d <= now: take it out, report i
//! ```
//!
//! Cost: insert, touch and remove O(log N), each a walk down a tree that is larger than the cache;
//! advance Theta(1 + expired), exact, and without any wheel's horizon. A touch within the same tick
//! as the last changes nothing. About 32 bytes a session.
//!
//! Source: the ordered set of deadlines of many event loops (nginx has it as a red-black tree).

use std::collections::BTreeSet;

use super::{Progress, Sweeper};
use crate::time::Tick;

/// See the [module](self).
#[derive(Debug)]
pub struct Btree {
    /// Ticks, by index.
    deadlines: Vec<u64>,
    /// Whoever is due one day; not those who are due [`Tick::NEVER`].
    order: BTreeSet<(Tick, u32)>,
    len: usize,
    entries_visited: u64,
}

impl Btree {
    /// A tree for the indices below `capacity`. Where time starts does not matter to it.
    pub fn new(capacity: usize, _start: Tick) -> Btree {
        Btree { deadlines: vec![0; capacity], order: BTreeSet::new(), len: 0, entries_visited: 0 }
    }

    fn file(&mut self, index: u32, deadline: Tick) {
        self.deadlines[index as usize] = deadline.0;
        if deadline != Tick::NEVER {
            self.order.insert((deadline, index));
        }
    }

    fn take_out(&mut self, index: u32) {
        let deadline = Tick(self.deadlines[index as usize]);
        let was_filed = self.order.remove(&(deadline, index));
        debug_assert!(was_filed || deadline == Tick::NEVER, "{index} is not filed");
    }
}

impl Sweeper for Btree {
    fn insert(&mut self, index: u32, deadline: Tick) {
        if index as usize >= self.deadlines.len() {
            self.deadlines.resize((index as usize + 1).next_power_of_two(), 0);
        }
        self.file(index, deadline);
        self.len += 1;
    }

    fn touch(&mut self, index: u32, deadline: Tick) {
        if self.deadlines[index as usize] != deadline.0 {
            self.take_out(index);
            self.file(index, deadline);
        }
    }

    fn remove(&mut self, index: u32) {
        self.take_out(index);
        self.len -= 1;
    }

    fn advance(&mut self, now: Tick, budget: usize, expired: &mut Vec<u32>) -> Progress {
        let full = expired.len().saturating_add(budget);
        while let Some(&(deadline, index)) = self.order.first() {
            self.entries_visited += 1;
            if deadline > now {
                break;
            }
            if expired.len() == full {
                return Progress::More;
            }
            self.order.pop_first();
            expired.push(index);
            self.len -= 1;
        }
        Progress::Done
    }

    fn len(&self) -> usize {
        self.len
    }

    fn entries_visited(&self) -> u64 {
        self.entries_visited
    }

    /// The tree does not tell: its nodes are taken to be two thirds full, as they are on average
    /// after random insertions.
    fn heap_bytes(&self) -> usize {
        self.deadlines.capacity() * size_of::<u64>()
            + self.order.len() * size_of::<(Tick, u32)>() * 3 / 2
    }
}
