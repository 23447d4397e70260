//! Durations, counted in HdrHistograms of microseconds.
//!
//! Heartbeats are timed from the moment they were *due*, not from when they were sent: a generator
//! that waits for a slow server would otherwise leave out just the slow ones (coordinated omission,
//! G. Tene).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

/// Longer durations are counted as this one.
pub const LONGEST_US: u64 = 3_600_000_000;

/// A histogram of durations: 0.1 to 1 % precise, about 100 KB.
#[derive(Clone, Debug)]
pub struct Latency {
    micros: Histogram<u32>,
    /// Exact, as no bucket is.
    max_us: u64,
    min_us: u64,
}

/// What a report says of a histogram. `null` where nothing was counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LatencySummary {
    /// How many were counted.
    pub count: u64,
    /// Median.
    pub p50: Option<u64>,
    /// 90th percentile.
    pub p90: Option<u64>,
    /// 99th percentile.
    pub p99: Option<u64>,
    /// 99.9th percentile.
    pub p999: Option<u64>,
    /// The longest.
    pub max: Option<u64>,
}

impl Latency {
    /// An empty histogram of `digits` significant digits.
    ///
    /// # Panics
    /// If `digits` is not 1 to 5.
    pub fn new(digits: u8) -> Latency {
        let micros = Histogram::new_with_bounds(1, LONGEST_US, digits)
            .expect("the bounds are constant and valid");
        Latency { micros, max_us: 0, min_us: u64::MAX }
    }

    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.max_us = self.max_us.max(us);
        self.min_us = self.min_us.min(us);
        self.micros.saturating_record(us.min(LONGEST_US));
    }

    /// Adds what `other` has counted.
    ///
    /// # Panics
    /// If it was made with more significant digits than `new` allows.
    pub fn add(&mut self, other: &Latency) {
        self.max_us = self.max_us.max(other.max_us);
        self.min_us = self.min_us.min(other.min_us);
        self.micros.add(&other.micros).expect("all histograms have the same bounds");
    }

    /// How often each value was counted, as the histogram knows values.
    pub fn counts(&self) -> Vec<(u64, u32)> {
        if self.count() == 0 {
            return Vec::new();
        }
        self.micros
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect()
    }

    /// Forgets everything, and keeps the memory.
    pub fn reset(&mut self) {
        (self.max_us, self.min_us) = (0, u64::MAX);
        self.micros.reset();
    }

    /// All of it, for other programs and for `loadgen merge`; `None` if nothing was counted.
    pub fn encoded(&self) -> Option<Encoded> {
        let mut bytes = Vec::new();
        // Neither memory nor this histogram's few values can fail to be written.
        V2DeflateSerializer::new().serialize(&self.micros, &mut bytes).ok()?;
        let (min_us, max_us) = (self.min_us()?, self.max_us()?);
        Some(Encoded { min_us, max_us, v2_deflate: BASE64.encode(bytes) })
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.micros.len()
    }

    /// A percentile in microseconds, if anything was counted.
    pub fn percentile_us(&self, percentile: f64) -> Option<u64> {
        (self.count() > 0)
            .then(|| self.micros.value_at_percentile(percentile).clamp(self.min_us, self.max_us))
    }

    /// The shortest in microseconds, if anything was counted.
    pub fn min_us(&self) -> Option<u64> {
        (self.count() > 0).then_some(self.min_us)
    }

    /// The longest in microseconds, if anything was counted.
    pub fn max_us(&self) -> Option<u64> {
        (self.count() > 0).then_some(self.max_us)
    }

    /// The whole distribution at percentiles that halve the distance to 100; empty if nothing was
    /// counted.
    pub fn distribution(&self) -> Vec<PercentileUs> {
        let counted = self.count();
        let mut distribution = Vec::new();
        let mut beyond = 1.0;
        // Beyond the last that was counted there is nothing to tell.
        while beyond * counted as f64 >= 1.0 {
            for part in [1.0, 0.84, 0.71, 0.59] {
                let percentile = 100.0 * (1.0 - beyond * part);
                let us = self.percentile_us(percentile);
                distribution.extend(us.map(|us| PercentileUs { percentile, us }));
            }
            beyond /= 2.0;
        }
        let max = self.max_us().map(|us| PercentileUs { percentile: 100.0, us });
        distribution.extend(max);
        distribution
    }

    /// The figures for a report.
    pub fn summary(&self) -> LatencySummary {
        LatencySummary {
            count: self.count(),
            p50: self.percentile_us(50.0),
            p90: self.percentile_us(90.0),
            p99: self.percentile_us(99.0),
            p999: self.percentile_us(99.9),
            max: self.max_us(),
        }
    }
}

/// A histogram of microseconds, as HdrHistogram's tools read it, with its exact ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encoded {
    pub min_us: u64,
    pub max_us: u64,
    /// HdrHistogram's encoding V2, deflated, in base64.
    pub v2_deflate: String,
}

impl Encoded {
    /// The histogram.
    ///
    /// # Errors
    /// If it is none of ours.
    pub fn decode(&self) -> Result<Latency> {
        let micros: Histogram<u32> = decode(&self.v2_deflate)?;
        let ours = micros.high() == LONGEST_US && micros.sigfig() <= 3;
        ensure!(ours && !micros.is_empty(), "a histogram of another program");
        ensure!(self.min_us <= self.max_us, "a histogram whose shortest is its longest");
        Ok(Latency { micros, max_us: self.max_us, min_us: self.min_us })
    }
}

/// A histogram out of HdrHistogram's encoding V2, in base64.
///
/// # Errors
/// If it is none.
pub fn decode<C: hdrhistogram::Counter>(base64: &str) -> Result<Histogram<C>> {
    let bytes = BASE64.decode(base64).context("a histogram that is no base64")?;
    let read = Deserializer::new().deserialize(&mut bytes.as_slice());
    read.context("a histogram that cannot be read")
}

/// So many percent took at most so long.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PercentileUs {
    pub percentile: f64,
    pub us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_distribution() {
        let (mut low, mut high) = (Latency::new(3), Latency::new(3));
        (1..=500).for_each(|us| low.record(Duration::from_micros(us)));
        (501..=1_000).for_each(|us| high.record(Duration::from_micros(us)));
        low.add(&high);
        let summary = low.summary();
        assert_eq!((summary.count, summary.p50, summary.p99), (1_000, Some(500), Some(990)));
        assert_eq!((low.min_us(), summary.max), (Some(1), Some(1_000)));
        let distribution = low.distribution();
        assert!(distribution.is_sorted_by(|a, b| a.percentile < b.percentile && a.us <= b.us));
        let median = distribution.iter().find(|point| point.percentile >= 50.0);
        assert_eq!(median.map(|point| point.us), Some(500));
        assert_eq!(distribution.last(), Some(&PercentileUs { percentile: 100.0, us: 1_000 }));
        assert_eq!(Latency::new(2).distribution(), []);
    }

    #[test]
    fn what_is_encoded_is_decoded_to_the_same() {
        let mut latency = Latency::new(2);
        assert_eq!(latency.encoded(), None);
        for us in [3, 777, 777, 1_234_567, u64::MAX] {
            latency.record(Duration::from_micros(us));
        }
        let encoded = latency.encoded().unwrap();
        let again = encoded.decode().unwrap();
        assert_eq!(again.counts(), latency.counts());
        assert_eq!((again.min_us(), again.max_us()), (Some(3), Some(u64::MAX)));
        latency.reset();
        assert_eq!((latency.count(), latency.min_us()), (0, None));
        latency.add(&again);
        latency.add(&again);
        assert_eq!(latency.count(), 10);
        for bad in ["", "AAAA", "?", "HISTFAAAAA"] {
            let bad = Encoded { v2_deflate: bad.to_owned(), ..encoded.clone() };
            assert!(bad.decode().is_err());
        }
    }

    #[test]
    fn nothing_has_no_percentile() {
        let summary = Latency::new(2).summary();
        assert_eq!((summary.count, summary.p50, summary.max), (0, None, None));
    }

    #[test]
    fn the_endless_is_counted_too() {
        let mut latency = Latency::new(2);
        latency.record(Duration::MAX);
        assert_eq!(latency.count(), 1);
    }
}
