//! How a run went over time: a bounded number of looks at what the workers show.
//!
//! Invariant: never more than [`SERIES_POINTS_MAX`] points, and no allocation while the run lasts.
//! Points hold sums since the beginning, so when there are too many, every second one is dropped
//! and the interval is doubled, and no heartbeat is lost.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use heartwheel::host::kib_field;
use serde::{Deserialize, Serialize};

use crate::crew::Crew;
use crate::host::process;
use crate::limits::{SERIES_INTERVAL_MIN, SERIES_POINTS_MAX};
use crate::stats::Snapshot;

/// Eight buckets for each octave of microseconds, up to 2^28: a value is known to 12 %.
pub const BUCKETS: usize = 26 * 8;
const BUCKETS_PER_OCTAVE_BITS: u32 = 3;

/// A coarse histogram that one thread fills while another reads it.
#[derive(Debug)]
pub struct Buckets([AtomicU64; BUCKETS]);

impl Default for Buckets {
    fn default() -> Buckets {
        Buckets(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Buckets {
    /// Counts one; to be called by one thread only.
    pub fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let count = &self.0[bucket(us)];
        // No other thread writes, so no locked instruction is needed.
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Adds them to `sums`, which wrap.
    pub fn add_to(&self, sums: &mut [u32; BUCKETS]) {
        for (sum, count) in sums.iter_mut().zip(&self.0) {
            *sum = sum.wrapping_add(count.load(Ordering::Relaxed) as u32);
        }
    }
}

fn bucket(us: u64) -> usize {
    if us < 1 << BUCKETS_PER_OCTAVE_BITS {
        return us as usize;
    }
    let shift = us.ilog2() - BUCKETS_PER_OCTAVE_BITS;
    let index = ((shift as usize) << BUCKETS_PER_OCTAVE_BITS) + (us >> shift) as usize;
    index.min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn bucket_max_us(index: usize) -> u64 {
    let octave = index >> BUCKETS_PER_OCTAVE_BITS;
    if octave == 0 {
        return index as u64;
    }
    let shift = octave - 1;
    (((index - (shift << BUCKETS_PER_OCTAVE_BITS)) as u64 + 1) << shift) - 1
}

/// One look.
#[derive(Clone, Copy)]
struct Point {
    at_s: f64,
    phase: &'static str,
    snapshot: Snapshot,
    server: Option<process::ProcessSample>,
    generator: Option<process::ProcessSample>,
    available_bytes: Option<u64>,
    rtt: [u32; BUCKETS],
}

/// All looks so far.
pub struct Series {
    started: Instant,
    interval: Duration,
    next: Duration,
    points: Vec<Point>,
}

impl Series {
    /// None yet; its memory is taken now, so that it counts with the program, not with the clients.
    pub fn new() -> Series {
        let empty = Point {
            at_s: 0.0,
            phase: "",
            snapshot: Snapshot::default(),
            server: None,
            generator: None,
            available_bytes: None,
            rtt: [0; BUCKETS],
        };
        let mut points = vec![empty; SERIES_POINTS_MAX];
        points.clear();
        Series {
            started: Instant::now(),
            interval: SERIES_INTERVAL_MIN,
            next: Duration::ZERO,
            points,
        }
    }

    /// Looks, if it is time.
    pub fn look(
        &mut self,
        phase: &'static str,
        snapshot: &Snapshot,
        crew: &Crew,
        server: Option<u32>,
    ) {
        let passed = self.started.elapsed();
        if passed < self.next {
            return;
        }
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        self.push(Point {
            at_s: passed.as_secs_f64(),
            phase,
            snapshot: *snapshot,
            server: server.and_then(process::glance),
            generator: process::glance(std::process::id()),
            available_bytes: kib_field(&meminfo, "MemAvailable:"),
            rtt: crew.round_trips(),
        });
        self.next = passed + self.interval;
    }

    fn push(&mut self, point: Point) {
        if self.points.len() == SERIES_POINTS_MAX {
            let mut number = 0;
            self.points.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.interval *= 2;
        }
        self.points.push(point);
    }

    /// The columns for a report.
    pub fn section(&self) -> SeriesSection {
        let mut section =
            SeriesSection { interval_s: self.interval.as_secs_f64(), ..SeriesSection::default() };
        let first_available = self.points.first().and_then(|point| point.available_bytes);
        let mut last: Option<&Point> = None;
        for point in &self.points {
            if section.phases.last().is_none_or(|phase| phase.name != point.phase) {
                section.phases.push(Phase { name: point.phase.to_owned(), from_s: point.at_s });
            }
            section.add(point, last, first_available);
            last = Some(point);
        }
        section
    }
}

/// When a phase began.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Phase {
    /// As the progress lines call it.
    pub name: String,
    /// Counted from the beginning.
    pub from_s: f64,
}

/// The run over time, column by column; rates and percentiles are those since the look before.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SeriesSection {
    /// Between two looks.
    pub interval_s: f64,
    pub phases: Vec<Phase>,
    pub at_s: Vec<f64>,
    pub open: Vec<u64>,
    pub failed: Vec<u64>,
    pub opened_per_s: Vec<f64>,
    pub sent_per_s: Vec<f64>,
    pub acked_per_s: Vec<f64>,
    pub expired: Vec<u64>,
    pub falsely_closed: Vec<u64>,
    /// Within 12 %; `null` where nothing was answered.
    pub rtt_p50_us: Vec<Option<u64>>,
    pub rtt_p99_us: Vec<Option<u64>>,
    pub rtt_max_us: Vec<Option<u64>>,
    pub server_cpu_cores: Vec<Option<f64>>,
    pub generator_cpu_cores: Vec<Option<f64>>,
    pub server_rss_bytes: Vec<Option<u64>>,
    pub generator_rss_bytes: Vec<Option<u64>>,
    /// What has become of the memory that was available at the first look, whoever took it.
    pub host_taken_bytes: Vec<Option<u64>>,
}

impl SeriesSection {
    fn add(&mut self, point: &Point, last: Option<&Point>, first_available: Option<u64>) {
        let (now, seconds) = (&point.snapshot, last.map_or(0.0, |last| point.at_s - last.at_s));
        let then = last.map(|last| last.snapshot).unwrap_or_default();
        let round = |number: f64| (number * 1e3).round() / 1e3;
        let per_s = |now: u64, then: u64| match seconds > 0.0 {
            true => round(now.saturating_sub(then) as f64 / seconds),
            false => 0.0,
        };
        self.at_s.push(round(point.at_s));
        self.open.push(now.open());
        self.failed.push(now.failed);
        self.opened_per_s.push(per_s(now.opened, then.opened));
        self.sent_per_s.push(per_s(now.sent, then.sent));
        self.acked_per_s.push(per_s(now.acked, then.acked));
        self.expired.push(now.expired);
        self.falsely_closed.push(now.false_expiries);
        let mut rtt = point.rtt;
        let before = last.map_or([0; BUCKETS], |last| last.rtt);
        rtt.iter_mut().zip(before).for_each(|(now, then)| *now = now.wrapping_sub(then));
        self.rtt_p50_us.push(percentile_us(&rtt, 0.5));
        self.rtt_p99_us.push(percentile_us(&rtt, 0.99));
        self.rtt_max_us.push(percentile_us(&rtt, 1.0));
        let cores = |now: Option<process::ProcessSample>, then: Option<process::ProcessSample>| {
            let (now, then) = now.zip(then)?;
            (seconds > 0.0).then(|| round(now.cpu.saturating_sub(then.cpu).as_secs_f64() / seconds))
        };
        self.server_cpu_cores.push(cores(point.server, last.and_then(|last| last.server)));
        self.generator_cpu_cores.push(cores(point.generator, last.and_then(|last| last.generator)));
        self.server_rss_bytes.push(point.server.map(|sample| sample.rss_bytes));
        self.generator_rss_bytes.push(point.generator.map(|sample| sample.rss_bytes));
        let taken = first_available.zip(point.available_bytes);
        self.host_taken_bytes.push(taken.map(|(first, now)| first.saturating_sub(now)));
    }
}

/// A percentile of a coarse histogram: the upper end of its bucket.
pub fn percentile_us(counts: &[u32; BUCKETS], share: f64) -> Option<u64> {
    let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    let rank = ((total as f64 * share).ceil() as u64).max(1);
    let mut seen = 0;
    let found = counts.iter().position(|&count| {
        seen += u64::from(count);
        seen >= rank
    });
    found.map(bucket_max_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(number: u64, rtt: [u32; BUCKETS]) -> Point {
        let snapshot = Snapshot { opened: number, sent: 10 * number, ..Snapshot::default() };
        let at_s = number as f64;
        let (server, generator, available_bytes) = (None, None, None);
        Point { at_s, phase: "holding", snapshot, server, generator, available_bytes, rtt }
    }

    #[test]
    fn every_value_lies_within_its_bucket() {
        for us in (0..4_000).chain([65_535, 1 << 20, 99_999_999]) {
            let index = bucket(us);
            assert!(us <= bucket_max_us(index), "{us}");
            assert!(index == 0 || us > bucket_max_us(index - 1), "{us}");
            assert!((bucket_max_us(index) - us) as f64 <= us as f64 / 8.0, "{us}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn points_are_bounded_and_nothing_is_lost() {
        let mut series = Series::new();
        let many = 10 * SERIES_POINTS_MAX as u64;
        for number in 0..=many {
            let mut rtt = [0; BUCKETS];
            rtt[bucket(100)] = number as u32;
            series.push(point(number, rtt));
        }
        let section = series.section();
        let points = section.at_s.len();
        assert!((SERIES_POINTS_MAX / 2..=SERIES_POINTS_MAX).contains(&points), "{points}");
        assert!(section.interval_s > SERIES_INTERVAL_MIN.as_secs_f64());
        assert_eq!(section.at_s.first(), Some(&0.0));
        assert_eq!(section.open.last(), Some(&many));
        assert!(section.sent_per_s[1..].iter().all(|&rate| (rate - 10.0).abs() < 1e-6));
        assert_eq!(section.rtt_p50_us[0], None, "nothing was answered yet");
        assert!(section.rtt_p50_us[1..].iter().all(|&us| us == Some(bucket_max_us(bucket(100)))));
        assert_eq!(section.phases.len(), 1);
    }

    #[test]
    fn percentiles_of_a_window_are_not_those_of_all() {
        let mut series = Series::new();
        let buckets = Buckets::default();
        (0..99).for_each(|_| buckets.record(Duration::from_micros(100)));
        buckets.record(Duration::from_millis(50));
        let mut first = [0; BUCKETS];
        buckets.add_to(&mut first);
        series.push(point(0, [0; BUCKETS]));
        series.push(point(1, first));
        buckets.record(Duration::from_micros(7));
        let mut second = [0; BUCKETS];
        buckets.add_to(&mut second);
        series.push(point(2, second));
        let section = series.section();
        assert!(section.rtt_max_us[1] >= Some(50_000) && section.rtt_p50_us[1] < Some(120));
        assert_eq!((section.rtt_p99_us[2], section.rtt_max_us[2]), (Some(7), Some(7)));
    }
}
