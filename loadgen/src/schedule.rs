//! Whose turn it is: a hashed timing wheel of the generator's own, with ticks of a millisecond.
//!
//! It is lazy: traffic only moves a client's `due`, and the client is filed anew when the wheel
//! comes by where it was. It is written apart from the server's sweepers on purpose: the judge must
//! not share a bug with the judged.
//!
//! Invariant: a filed client stands in exactly one list, that of a tick no later than its due.
//! Cost: 24 B a client; filing, postponing and forgetting O(1); a tick costs its list.
//! Source: Varghese and Lauck 1987, scheme 6.

use std::time::Duration;

use heartwheel::time::{TickLength, Timestamp};

/// The length of a tick in milliseconds.
pub const TICK_MS: u64 = 1;
/// Lists; a due time further off than this many ticks goes round more than once.
const LISTS: usize = 1 << 15;
/// No client, no list.
const NONE: u32 = u32::MAX;

/// The wheel.
pub struct Schedule {
    tick: TickLength,
    /// The first client of each list.
    heads: Box<[u32]>,
    entries: Vec<Entry>,
    /// All ticks up to this one have been visited.
    visited: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    due: Timestamp,
    /// The tick it is filed at; `NONE` if it is not filed. 32 bits of milliseconds are 49 days.
    tick: u32,
    next: u32,
    previous: u32,
}

impl Schedule {
    /// A wheel for `clients` that starts to turn at `now`.
    pub fn new(clients: usize, now: Timestamp) -> Schedule {
        let tick = TickLength::new(Duration::from_millis(TICK_MS));
        let entry = Entry { due: Timestamp::ZERO, tick: NONE, next: NONE, previous: NONE };
        Schedule {
            tick,
            heads: vec![NONE; LISTS].into_boxed_slice(),
            entries: vec![entry; clients],
            visited: tick.current(now).0,
        }
    }

    /// When `client` is or was due.
    pub fn due(&self, client: u32) -> Timestamp {
        self.entries[client as usize].due
    }

    /// Makes `client` due at `due`, sooner or later than before.
    pub fn file(&mut self, client: u32, due: Timestamp) {
        self.entries[client as usize].due = due;
        let tick = self.tick_of(due);
        if self.entries[client as usize].tick <= tick {
            // Filed early enough (`NONE` is the largest number): the wheel will file it anew.
            return;
        }
        self.forget(client);
        self.link(client, tick);
    }

    /// Makes `client` due at `due` if it is filed, and not later already: all that traffic costs.
    pub fn postpone(&mut self, client: u32, due: Timestamp) {
        let entry = &mut self.entries[client as usize];
        entry.due = entry.due.max(due);
    }

    /// Takes `client` out, wherever it is filed.
    pub fn forget(&mut self, client: u32) {
        let Entry { tick, next, previous, .. } = self.entries[client as usize];
        if tick == NONE {
            return;
        }
        match previous {
            NONE => self.heads[list(tick)] = next,
            previous => self.entries[previous as usize].next = next,
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        self.entries[client as usize].tick = NONE;
    }

    /// Appends to `due` everyone who is due at `now`; they are filed no longer.
    pub fn advance(&mut self, now: Timestamp, due: &mut Vec<u32>) {
        let current = self.tick.current(now).0;
        // After a stall of more than a turn, each list need be visited only once.
        let first = (self.visited + 1).max((current + 1).saturating_sub(LISTS as u64));
        for tick in first..=current {
            self.visited = tick;
            self.visit(list(tick as u32), now, current, due);
        }
        self.visited = self.visited.max(current);
    }

    fn visit(&mut self, list: usize, now: Timestamp, current: u64, due: &mut Vec<u32>) {
        let mut client = std::mem::replace(&mut self.heads[list], NONE);
        while client != NONE {
            let entry = &mut self.entries[client as usize];
            let (next, tick) = (entry.next, entry.tick);
            entry.tick = NONE;
            if entry.due <= now {
                due.push(client);
            } else if u64::from(tick) > current {
                self.link(client, tick);
            } else {
                let tick = self.tick_of(self.entries[client as usize].due);
                self.link(client, tick);
            }
            client = next;
        }
    }

    /// When the next list that is not empty comes by, looking no further than `horizon`.
    pub fn next_turn(&self, now: Timestamp, horizon: Duration) -> Timestamp {
        let end = now + horizon;
        let last = self.tick.current(end).0.min(self.visited + LISTS as u64);
        (self.visited + 1..=last)
            .find(|&tick| self.heads[list(tick as u32)] != NONE)
            .map_or(end, |tick| self.tick.start(heartwheel::time::Tick(tick)))
    }

    /// The tick to file `due` at: never one that has been visited.
    fn tick_of(&self, due: Timestamp) -> u32 {
        let tick = self.tick.deadline(due).0.max(self.visited + 1);
        tick.min(u64::from(NONE - 1)) as u32
    }

    fn link(&mut self, client: u32, tick: u32) {
        let head = std::mem::replace(&mut self.heads[list(tick)], client);
        let entry = &mut self.entries[client as usize];
        (entry.tick, entry.next, entry.previous) = (tick, head, NONE);
        if head != NONE {
            self.entries[head as usize].previous = client;
        }
    }
}

fn list(tick: u32) -> usize {
    tick as usize % LISTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_nanos(ms * 1_000_000)
    }

    /// Compares with a plain table, over random operations, steps and stalls.
    #[test]
    fn agrees_with_a_plain_table() {
        const CLIENTS: u32 = 200;
        let mut schedule = Schedule::new(CLIENTS as usize, at(0));
        let mut table: Vec<Option<Timestamp>> = vec![None; CLIENTS as usize];
        let mut random = 1u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let mut now = 0;
        let mut filed_at = [0; CLIENTS as usize];
        for _ in 0..20_000 {
            let client = next(u64::from(CLIENTS)) as u32;
            let spread = if next(50) == 0 { 100_000 } else { 500 };
            let due = at(now + next(spread));
            match next(8) {
                0..=2 => {
                    schedule.file(client, due);
                    filed_at[client as usize] = now;
                    table[client as usize] = Some(due);
                }
                3 | 4 => {
                    schedule.postpone(client, due);
                    if let Some(planned) = &mut table[client as usize] {
                        *planned = due.max(*planned);
                    }
                }
                5 => {
                    schedule.forget(client);
                    table[client as usize] = None;
                }
                _ => {
                    now += if next(200) == 0 { 70_000 } else { next(20) };
                    let mut found = Vec::new();
                    schedule.advance(at(now), &mut found);
                    found.sort_unstable();
                    let expected: Vec<u32> = (0..CLIENTS)
                        .filter(|&i| table[i as usize].is_some_and(|due| due <= at(now)))
                        .collect();
                    // Who was filed in this very tick for what was past already waits for the next.
                    let mut late = expected.iter().filter(|i| !found.contains(i));
                    assert!(late.all(|&i| filed_at[i as usize] == now), "late, at {now}");
                    assert!(found.iter().all(|i| expected.contains(i)), "early: {found:?}");
                    found.iter().for_each(|&i| table[i as usize] = None);
                }
            }
        }
    }

    #[test]
    fn postponing_takes_effect_where_the_wheel_comes_by() {
        let mut schedule = Schedule::new(2, at(0));
        let mut due = Vec::new();
        schedule.file(0, at(10));
        schedule.postpone(0, at(15));
        schedule.postpone(1, at(1));
        schedule.advance(at(14), &mut due);
        assert!(due.is_empty());
        schedule.advance(at(15), &mut due);
        assert_eq!((due.as_slice(), schedule.due(0)), (&[0][..], at(15)));
    }

    #[test]
    fn an_earlier_time_is_not_missed_and_the_next_turn_is_known() {
        let mut schedule = Schedule::new(1, at(0));
        schedule.file(0, at(40_000));
        schedule.file(0, at(20));
        assert_eq!(schedule.next_turn(at(0), Duration::from_millis(100)), at(20));
        let mut due = Vec::new();
        schedule.advance(at(20), &mut due);
        assert_eq!(due, [0]);
        assert_eq!(schedule.next_turn(at(20), Duration::from_millis(100)), at(120));
    }
}
