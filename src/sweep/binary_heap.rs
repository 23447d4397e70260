//! `binary-heap`: a heap of deadlines that may be out of date, and an array of those that are not.
//!
//! ```text
//! touch(i, d):  earlier = d < deadline[i]; deadline[i] = d
//!               if earlier and i is filed after d: push (d, i)     # the old entry is now stale
//! remove(i):    deadline[i] = NEVER                                # so is its entry
//! advance(now): while the first (f, i) of the heap has f <= now:
//!                 if it is stale: drop it
//!                 elif deadline[i] <= now: take it out, report i
//!                 else: replace it by (deadline[i], i)
//! ```
//!
//! Cost: insert O(log N), touch and remove mostly one store; advance Theta((expired + re-checks)
//! log N), with as many re-checks as the lazy wheel has: N / T to N / (T - h) a tick. Exact, and
//! without a horizon. 32 bytes a session; when more than half are stale, they are swept out.
//!
//! Source: the timer heap of libevent, libuv and Go, with lazy deletion as in asyncio.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::{Progress, Sweeper};
use crate::time::Tick;

const NEVER: u64 = Tick::NEVER.0;

/// Of `filed`: not filed. Other values are the tick plus 1.
const NOWHERE: u64 = 0;

/// Stale entries that are let be whatever their share.
const STALE_MIN: usize = 1_024;

/// See the [module](self).
#[derive(Debug)]
pub struct LazyHeap {
    /// Ticks; also `NEVER` where there is no session.
    deadlines: Vec<u64>,
    /// The tick of each index's valid entry, plus 1.
    filed: Vec<u64>,
    heap: BinaryHeap<Reverse<(u64, u32)>>,
    len: usize,
    entries_visited: u64,
}

impl LazyHeap {
    /// A heap for the indices below `capacity`. Where time starts does not matter to it.
    pub fn new(capacity: usize, _start: Tick) -> LazyHeap {
        LazyHeap {
            deadlines: vec![0; capacity],
            filed: vec![NOWHERE; capacity],
            heap: BinaryHeap::new(),
            len: 0,
            entries_visited: 0,
        }
    }

    /// Sees to it that `index` is looked at when `deadline` is due, or before.
    fn file_by(&mut self, index: u32, deadline: u64) {
        let filed = &mut self.filed[index as usize];
        if deadline != NEVER && (*filed == NOWHERE || deadline < *filed - 1) {
            *filed = deadline + 1;
            self.heap.push(Reverse((deadline, index)));
        }
    }

    /// Drops all stale entries when they are more than half. Each was pushed once, so this adds
    /// a constant to the cost of a push.
    fn drop_stale(&mut self) {
        if self.heap.len() > 2 * self.len + STALE_MIN {
            let LazyHeap { deadlines, filed, .. } = self;
            self.heap.retain(|&Reverse((tick, index))| {
                let filed = &mut filed[index as usize];
                let is_valid = *filed == tick + 1;
                let is_session = deadlines[index as usize] != NEVER;
                if is_valid && !is_session {
                    *filed = NOWHERE;
                }
                is_valid && is_session
            });
        }
    }
}

impl Sweeper for LazyHeap {
    fn insert(&mut self, index: u32, deadline: Tick) {
        if index as usize >= self.deadlines.len() {
            let capacity = (index as usize + 1).next_power_of_two();
            self.deadlines.resize(capacity, 0);
            self.filed.resize(capacity, NOWHERE);
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
        self.drop_stale();
        let full = expired.len().saturating_add(budget);
        while let Some(mut top) = self.heap.peek_mut() {
            self.entries_visited += 1;
            let Reverse((tick, index)) = *top;
            if tick > now.0 {
                break;
            }
            let deadline = &mut self.deadlines[index as usize];
            let filed = &mut self.filed[index as usize];
            if *filed == tick + 1 && *deadline != NEVER {
                if *deadline > now.0 {
                    *filed = *deadline + 1;
                    *top = Reverse((*deadline, index));
                    continue;
                }
                if expired.len() == full {
                    return Progress::More;
                }
                expired.push(index);
                *deadline = NEVER;
                self.len -= 1;
            }
            if *filed == tick + 1 {
                *filed = NOWHERE;
            }
            PeekMut::pop(top);
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
        (self.deadlines.capacity() + self.filed.capacity()) * size_of::<u64>()
            + self.heap.capacity() * size_of::<Reverse<(u64, u32)>>()
    }
}
