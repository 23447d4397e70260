//! How a shard's counters are read by others while it runs: a sequence lock with a single writer.
//!
//! The shard writes about ten times a second and never waits; a reader that meets a write in
//! progress reads again. What is read is one moment of one shard, so the laws hold in it exactly.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::{EngineCounters, EngineReport};
use crate::ring::RingCounters;
use crate::shard::{CloseReason, Counters, PushDrop, Refusal, Totals};

const TOTALS: usize = Totals::NAMES.len();
const REJECTED: usize = Refusal::COUNT;
const CLOSED: usize = CloseReason::COUNT;
const HEARTBEATS_DROPPED: usize = CloseReason::COUNT;
const PUSHES_DROPPED: usize = PushDrop::COUNT;
const ENGINE: usize = EngineCounters::NAMES.len();
const RING: usize = RingCounters::NAMES.len();
const VALUES: usize =
    TOTALS + REJECTED + CLOSED + HEARTBEATS_DROPPED + PUSHES_DROPPED + ENGINE + RING;

/// One shard's counters, as it published them last.
#[derive(Debug)]
pub struct Status {
    /// Odd while a write is in progress.
    sequence: AtomicU64,
    values: [AtomicU64; VALUES],
}

impl Default for Status {
    fn default() -> Status {
        Status { sequence: AtomicU64::new(0), values: [const { AtomicU64::new(0) }; VALUES] }
    }
}

impl Status {
    /// Publishes a report. Only the shard that the status belongs to may do so.
    pub fn write(&self, report: &EngineReport) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        let counters = &report.counters;
        let values = counters
            .totals
            .values()
            .into_iter()
            .chain(counters.rejected)
            .chain(counters.closed)
            .chain(counters.heartbeats_dropped)
            .chain(counters.pushes_dropped)
            .chain(report.engine.values())
            .chain(report.ring.values());
        for (place, value) in self.values.iter().zip(values) {
            place.store(value, Ordering::Relaxed);
        }
        self.sequence.store(sequence + 2, Ordering::Release);
    }

    /// What was published last.
    pub fn read(&self) -> EngineReport {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let values = self.values.each_ref().map(|value| value.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before {
                return split(&values);
            }
            std::hint::spin_loop();
        }
    }
}

fn split(values: &[u64; VALUES]) -> EngineReport {
    let mut values = values.iter().copied();
    EngineReport {
        counters: Counters {
            totals: Totals::from_values(take(&mut values)),
            rejected: take(&mut values),
            closed: take(&mut values),
            heartbeats_dropped: take(&mut values),
            pushes_dropped: take(&mut values),
        },
        engine: EngineCounters::from_values(take(&mut values)),
        ring: RingCounters::from_values(take(&mut values)),
    }
}

fn take<const N: usize>(values: &mut impl Iterator<Item = u64>) -> [u64; N] {
    std::array::from_fn(|_| values.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn report(value: u64) -> EngineReport {
        let mut report = EngineReport::default();
        report.counters.totals.accepted = value;
        report.counters.closed[CLOSED - 1] = value;
        report.ring.enters = value;
        report
    }

    #[test]
    fn what_is_written_is_read() {
        let status = Status::default();
        status.write(&report(7));
        assert_eq!(status.read(), report(7));
    }

    #[test]
    fn no_reader_sees_half_a_write() {
        let status = Arc::new(Status::default());
        let stop = Arc::new(AtomicBool::new(false));
        let writer = std::thread::spawn({
            let (status, stop) = (Arc::clone(&status), Arc::clone(&stop));
            move || {
                let mut value = 0;
                while !stop.load(Ordering::Relaxed) {
                    value += 1;
                    status.write(&report(value));
                }
            }
        });
        // An interpreter needs fewer to see a race, and has no time for more.
        for _ in 0..if cfg!(miri) { 10 } else { 2_000 } {
            let seen = status.read();
            assert_eq!(seen, report(seen.ring.enters));
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer ends");
    }
}
