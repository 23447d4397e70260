//! `lru-list`: one list in the order of deadlines, which is that of the last activity as long as
//! all timeouts are equal.
//!
//! ```text
//! touch(i, d):  unlink i
//!               after = the last of the list; while deadline[after] > d: go back
//!               link i behind it
//! remove(i):    unlink i
//! advance(now): while the first of the list has deadline <= now: unlink it, report it
//! ```
//!
//! Cost: insert, touch and remove O(1) with equal timeouts, and three or four lines written;
//! advance Theta(1 + expired), exact, and without a horizon. With timeouts that differ, insert
//! and touch walk past all who are due later: O(N). 16 bytes a session.
//!
//! Source: memcached's and Redis's idle lists; gnutella-era servers; every LRU cache.

use super::{Progress, Sweeper};
use crate::time::Tick;

const NEXT: usize = 0;
const PREVIOUS: usize = 1;

/// The node between the last and the first. A session's node is its index plus 1; the links of
/// a fresh array are zero, and so is this: an empty ring.
const ENDS: u32 = 0;

/// See the [module](self).
#[derive(Debug)]
pub struct LruList {
    /// Ticks, by node. Whoever is due [`Tick::NEVER`] is not in the list.
    deadlines: Vec<u64>,
    /// `[next, previous]`, by node.
    links: Vec<[u32; 2]>,
    len: usize,
    entries_visited: u64,
}

impl LruList {
    /// A list for the indices below `capacity`. Where time starts does not matter to it.
    pub fn new(capacity: usize, _start: Tick) -> LruList {
        LruList {
            deadlines: vec![0; capacity + 1],
            links: vec![[ENDS; 2]; capacity + 1],
            len: 0,
            entries_visited: 0,
        }
    }

    fn link(&mut self, node: u32, deadline: Tick) {
        self.deadlines[node as usize] = deadline.0;
        if deadline == Tick::NEVER {
            return;
        }
        let mut before = self.links[ENDS as usize][PREVIOUS];
        // The deadline of `ENDS` is 0: it stops the walk.
        while self.deadlines[before as usize] > deadline.0 {
            before = self.links[before as usize][PREVIOUS];
        }
        let after = std::mem::replace(&mut self.links[before as usize][NEXT], node);
        self.links[after as usize][PREVIOUS] = node;
        self.links[node as usize] = [after, before];
    }

    fn unlink(&mut self, node: u32) {
        if self.deadlines[node as usize] != Tick::NEVER.0 {
            let [next, previous] = self.links[node as usize];
            self.links[previous as usize][NEXT] = next;
            self.links[next as usize][PREVIOUS] = previous;
        }
    }
}

impl Sweeper for LruList {
    fn insert(&mut self, index: u32, deadline: Tick) {
        let node = index + 1;
        if node as usize >= self.links.len() {
            let nodes = (node as usize + 1).next_power_of_two();
            self.deadlines.resize(nodes, 0);
            self.links.resize(nodes, [ENDS; 2]);
        }
        self.link(node, deadline);
        self.len += 1;
    }

    fn touch(&mut self, index: u32, deadline: Tick) {
        let node = index + 1;
        if self.deadlines[node as usize] != deadline.0 {
            self.unlink(node);
            self.link(node, deadline);
        }
    }

    fn remove(&mut self, index: u32) {
        self.unlink(index + 1);
        self.len -= 1;
    }

    fn advance(&mut self, now: Tick, budget: usize, expired: &mut Vec<u32>) -> Progress {
        let full = expired.len().saturating_add(budget);
        loop {
            let node = self.links[ENDS as usize][NEXT];
            if node == ENDS {
                return Progress::Done;
            }
            self.entries_visited += 1;
            if self.deadlines[node as usize] > now.0 {
                return Progress::Done;
            }
            if expired.len() == full {
                return Progress::More;
            }
            self.unlink(node);
            expired.push(node - 1);
            self.len -= 1;
        }
    }

    fn len(&self) -> usize {
        self.len
    }

    fn entries_visited(&self) -> u64 {
        self.entries_visited
    }

    fn heap_bytes(&self) -> usize {
        self.deadlines.capacity() * size_of::<u64>() + self.links.capacity() * size_of::<[u32; 2]>()
    }
}
