//! `map-scan`: a locked hash map, every session visited under the lock. The baseline.
//!
//! ```text
//! touch(i, d):  lock; map[i].deadline = d
//! advance(now): lock; for each (i, d) of map: if d <= now: report i, remove it
//! ```
//!
//! Cost: insert, touch and remove are a lock and a hash-map operation each; advance is Theta(N)
//! and holds the lock all the while. About 40 bytes a session (an allocator's powers of two
//! permitting).
//!
//! Source: what most articles on heartbeat servers begin with, `Mutex<HashMap<id, last_seen>>`
//! and a periodic task that walks it. One thread owns a sweeper here, so the lock is never
//! contended: the figures flatter the original.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Progress, Sweeper};
use crate::time::Tick;

/// Hashed without a random key, so that a run can be repeated.
type Sessions = HashMap<u32, Tick, BuildHasherDefault<DefaultHasher>>;

/// See the [module](self).
#[derive(Debug)]
pub struct MapScan {
    sessions: Mutex<Sessions>,
    entries_visited: u64,
}

impl MapScan {
    /// Capacity and start are of no concern to a map: it grows as it needs to.
    pub fn new(_capacity: usize, _start: Tick) -> MapScan {
        MapScan { sessions: Mutex::default(), entries_visited: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sweeper for MapScan {
    fn insert(&mut self, index: u32, deadline: Tick) {
        let previous = self.lock().insert(index, deadline);
        debug_assert!(previous.is_none(), "{index} was filed already");
    }

    fn touch(&mut self, index: u32, deadline: Tick) {
        let previous = self.lock().insert(index, deadline);
        debug_assert!(previous.is_some(), "{index} is not filed");
    }

    fn remove(&mut self, index: u32) {
        let previous = self.lock().remove(&index);
        debug_assert!(previous.is_some(), "{index} is not filed");
    }

    fn advance(&mut self, now: Tick, budget: usize, expired: &mut Vec<u32>) -> Progress {
        let mut sessions = self.lock();
        let full = expired.len().saturating_add(budget);
        let mut progress = Progress::Done;
        let mut visited = 0;
        let first = expired.len();
        for (&index, &deadline) in sessions.iter() {
            visited += 1;
            if deadline <= now && deadline != Tick::NEVER {
                if expired.len() == full {
                    progress = Progress::More;
                    break;
                }
                expired.push(index);
            }
        }
        for index in &expired[first..] {
            sessions.remove(index);
        }
        drop(sessions);
        self.entries_visited += visited;
        progress
    }

    fn len(&self) -> usize {
        self.lock().len()
    }

    fn entries_visited(&self) -> u64 {
        self.entries_visited
    }

    fn heap_bytes(&self) -> usize {
        // A byte of control and the pair for each bucket; 7 of 8 buckets may be used.
        self.lock().capacity() * 8 / 7 * (size_of::<(u32, Tick)>() + 1)
    }
}
