//! What a worker shows of itself beside its numbers: counts by reason, and what came of events.
//!
//! Cost: a worker writes it when it publishes, without waiting and without allocating, unless a
//! reason is new; nobody but a view reads it.

use heartwheel::time::Timestamp;

use crate::stats::{Reasons, Stats};

/// Of one worker, or of all.
#[derive(Clone, Debug, Default)]
pub struct Detail {
    /// Clients that never opened, by reason.
    pub failed: Reasons,
    /// By the numbers of the events.
    pub events: Vec<Glimpse>,
}

/// What came of an event so far; see [`Happened`](crate::scenario::account::Happened).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Glimpse {
    pub affected: u64,
    pub last_affected: Timestamp,
    pub to_recover: u64,
    pub recovered: u64,
    pub last_recovered: Timestamp,
}

impl Detail {
    /// Shows what has been counted by now.
    pub fn show(&mut self, stats: &Stats) {
        if self.failed.values().sum::<u64>() != stats.failed_total() {
            for (reason, count) in &stats.failed {
                *self.failed.entry(reason).or_default() = *count;
            }
        }
        self.events.clear();
        self.events.extend(stats.scene.events.iter().map(|happened| Glimpse {
            affected: happened.affected,
            last_affected: happened.last_affected,
            to_recover: happened.to_recover,
            recovered: happened.recovered,
            last_recovered: happened.last_recovered,
        }));
    }

    /// Adds that of another worker.
    pub fn add(&mut self, other: &Detail) {
        other.failed.iter().for_each(|(reason, count)| {
            *self.failed.entry(reason).or_default() += count;
        });
        let events = self.events.len().max(other.events.len());
        self.events.resize(events, Glimpse::default());
        for (total, part) in self.events.iter_mut().zip(&other.events) {
            total.affected += part.affected;
            total.last_affected = total.last_affected.max(part.last_affected);
            total.to_recover += part.to_recover;
            total.recovered += part.recovered;
            total.last_recovered = total.last_recovered.max(part.last_recovered);
        }
    }
}
