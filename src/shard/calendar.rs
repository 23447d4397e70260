//! When the clients are going to beat, and how a herd is scattered.
//!
//! ```text
//! a client that keeps `interval` has shown life at `now`:
//!   slot = that of now + interval
//!   if planned[slot] is over the mean:   try a few others between now and then
//!                                        the emptiest of them, if it is emptier: tell the client
//!   planned[slot] += 1
//! a slot that has passed is set to 0
//! ```
//!
//! It only sees when clients do beat, so it needs no memory of each, flattens herds of any origin,
//! and works with intervals that differ. A client is only ever asked to come earlier than it would
//! have, so that nobody comes near the timeout by it.
//!
//! Invariant: `total` is the sum of `planned`, and nothing is planned for slots that have passed.
//! Cost: O(1) for a beat, four bytes a slot; deterministic.

use std::time::Duration;

use super::policy::Policy;
use crate::limits::{CALENDAR_PROBES, CALENDAR_SLACK, CALENDAR_SLOTS, SLOTS_PER_INTERVAL};
use crate::time::Timestamp;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Calendar {
    planned: Box<[u32]>,
    total: u64,
    slot_ns: u64,
    /// The slot of the present: those before it have been cleared.
    present: u64,
    /// How many random numbers were drawn.
    draws: u64,
}

impl Calendar {
    /// An empty calendar, with slots of a tick at least.
    pub(super) fn new(policy: &Policy) -> Calendar {
        let slot = (policy.heartbeat_interval / SLOTS_PER_INTERVAL).max(policy.tick.as_duration());
        Calendar {
            planned: vec![0; CALENDAR_SLOTS].into_boxed_slice(),
            total: 0,
            slot_ns: slot.as_nanos() as u64,
            present: 0,
            draws: 0,
        }
    }

    /// Plans the next beat of a client that keeps `interval` and has shown life now. If there is a
    /// better time than an interval from now: how long until then.
    pub(super) fn plan(&mut self, now: Timestamp, interval: Duration) -> Option<Duration> {
        self.clear_until(now.as_nanos() / self.slot_ns);
        let own = (now + interval).as_nanos() / self.slot_ns;
        let slots = own - self.present;
        if slots == 0 || slots >= CALENDAR_SLOTS as u64 {
            return None;
        }
        let mean = self.total / slots;
        let mut best = own;
        if u64::from(self.at(own)) > mean + mean / 4 + CALENDAR_SLACK {
            for _ in 0..CALENDAR_PROBES {
                let other = self.present + 1 + self.draw() % slots;
                if self.at(other) < self.at(best) {
                    best = other;
                }
            }
        }
        self.planned[(best % CALENDAR_SLOTS as u64) as usize] += 1;
        self.total += 1;
        if best == own {
            return None;
        }
        // Anywhere in the slot: those who are told the same slot are not to come at once either.
        let at_ns = best * self.slot_ns + self.draw() % self.slot_ns;
        Some(Timestamp::from_nanos(at_ns).since(now).min(interval))
    }

    fn at(&self, slot: u64) -> u32 {
        self.planned[(slot % CALENDAR_SLOTS as u64) as usize]
    }

    fn clear_until(&mut self, present: u64) {
        let last = present.min(self.present + CALENDAR_SLOTS as u64);
        for slot in self.present..last {
            let planned = &mut self.planned[(slot % CALENDAR_SLOTS as u64) as usize];
            self.total -= u64::from(std::mem::take(planned));
        }
        self.present = self.present.max(present);
    }

    /// A number that looks random (SplitMix64).
    fn draw(&mut self) -> u64 {
        self.draws = self.draws.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.draws;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::TickLength;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn calendar() -> Calendar {
        let tick = TickLength::new(Duration::from_millis(100));
        Calendar::new(&Policy { tick, heartbeat_interval: INTERVAL, ..Policy::default() })
    }

    /// The most beats in a tenth of a second over the mean of them, in each of `rounds` intervals,
    /// of clients that begin within 200 ms of each other.
    fn peaks(rounds: u64, calendar: &mut Option<Calendar>) -> Vec<f64> {
        const CLIENTS: u64 = 5_000;
        let mut next: Vec<u64> = (0..CLIENTS).map(|client| client * 40_000).collect();
        let mut beats = vec![0_u32; 100 * rounds as usize];
        let mut order: Vec<(u64, usize)> = Vec::new();
        let end = rounds * 10_000_000_000;
        order.extend(next.iter().copied().zip(0..));
        let mut queue = std::collections::BinaryHeap::new();
        queue.extend(order.into_iter().map(std::cmp::Reverse));
        while let Some(std::cmp::Reverse((at, client))) = queue.pop() {
            if at >= end {
                break;
            }
            beats[(at / 100_000_000) as usize] += 1;
            let now = Timestamp::from_nanos(at);
            let told = calendar.as_mut().and_then(|calendar| calendar.plan(now, INTERVAL));
            next[client] = at + told.unwrap_or(INTERVAL).as_nanos() as u64;
            queue.push(std::cmp::Reverse((next[client], client)));
        }
        let intervals = beats.chunks(100);
        intervals
            .map(|beats| {
                let mean = f64::from(beats.iter().sum::<u32>()) / beats.len() as f64;
                f64::from(beats.iter().copied().max().unwrap_or(0)) / mean
            })
            .collect()
    }

    #[test]
    fn a_herd_is_scattered_within_an_interval_and_stays_so() {
        let untouched = peaks(5, &mut None);
        assert!(untouched.iter().all(|&peak| peak > 45.0), "a herd to begin with: {untouched:?}");
        let flattened = peaks(5, &mut Some(calendar()));
        assert!(flattened[2..].iter().all(|&peak| peak < 2.0), "{flattened:?}");
    }

    #[test]
    fn nobody_is_told_to_come_later_than_an_interval() {
        let mut calendar = calendar();
        for client in 0..10_000_u64 {
            let now = Timestamp::from_nanos(client * 1_000);
            let interval = INTERVAL.mul_f64(1.0 + (client % 7) as f64);
            if let Some(told) = calendar.plan(now, interval) {
                assert!(told <= interval && told > Duration::ZERO, "{told:?} {interval:?}");
            }
        }
    }

    #[test]
    fn the_total_is_the_sum_after_any_jump() {
        let mut calendar = calendar();
        let mut at = 0;
        for step in 0..2_000_u64 {
            at += [0, 1, 99_000_000, 7_000_000_000, 5_000_000_000_000][(step % 5) as usize];
            calendar.plan(Timestamp::from_nanos(at), INTERVAL * (1 + step as u32 % 50));
            let sum: u64 = calendar.planned.iter().map(|&count| u64::from(count)).sum();
            assert_eq!(calendar.total, sum);
        }
    }
}
