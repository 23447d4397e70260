//! The runs of all parts over one time.
//!
//! Parts look at themselves at times of their own. Here they are looked at, at common times: what
//! is counted is what the look before showed, and rates are taken from sums that grow evenly
//! between looks, so that no heartbeat is lost or counted twice. Percentiles of a moment come from
//! the HDR logs; without those they are not known.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;

use crate::latency::LONGEST_US;
use crate::limits::SERIES_POINTS_MAX;
use crate::report::Report;
use crate::series::{Phase, SeriesSection};

/// Round trips of each second, by the time that the second began, since 1970 and in milliseconds.
#[derive(Default)]
pub struct RttOverTime(BTreeMap<u64, Vec<(u64, u64)>>);

impl RttOverTime {
    /// Adds those of the second that began at `unix_ms`.
    pub fn add(&mut self, unix_ms: u64, histogram: &Histogram<u64>) {
        let counts = histogram.iter_recorded();
        let counts = counts.map(|step| (step.value_iterated_to(), step.count_at_value()));
        self.0.entry(unix_ms).or_default().extend(counts);
    }

    /// Median and 99th percentile of those that began from `from_s` on, and before `until_s`.
    fn percentiles(&self, from_s: f64, until_s: f64) -> Result<(Option<u64>, Option<u64>)> {
        let (from, until) = ((from_s * 1e3).max(0.0) as u64, (until_s * 1e3).max(0.0) as u64);
        let mut sum = Histogram::<u64>::new_with_bounds(1, LONGEST_US, 3)?;
        for &(value, count) in self.0.range(from..until.max(from)).flat_map(|(_, counts)| counts) {
            sum.record_n(value, count).map_err(|error| anyhow!("{error}"))?;
        }
        let at = |percentile| (!sum.is_empty()).then(|| sum.value_at_percentile(percentile));
        Ok((at(50.0), at(99.0)))
    }
}

/// One part, shifted to the common time.
struct Curve<'a> {
    report: &'a Report,
    at_s: Vec<f64>,
}

impl<'a> Curve<'a> {
    fn new(report: &'a Report, begun_unix_s: f64) -> Curve<'a> {
        let shift = report.times.begun_unix_s - begun_unix_s;
        let at_s = report.series.at_s.iter().map(|at| at + shift).collect();
        Curve { report, at_s }
    }

    fn end_s(&self) -> f64 {
        self.at_s.last().copied().unwrap_or(0.0)
    }

    fn has_server(&self) -> bool {
        self.report.series.server_rss_bytes.iter().any(Option::is_some)
    }

    /// The look at `at_s` or before.
    fn look(&self, at_s: f64) -> Option<usize> {
        self.at_s.partition_point(|&at| at <= at_s).checked_sub(1)
    }

    /// The sum of a rate until `at_s`; `rates[i]` holds from look i - 1 until look i.
    fn integral(&self, rates: &dyn Fn(usize) -> f64, at_s: f64) -> f64 {
        let Some(last) = self.look(at_s) else { return 0.0 };
        let whole = (1..=last).map(|look| rates(look) * (self.at_s[look] - self.at_s[look - 1]));
        let rest = match last + 1 < self.at_s.len() {
            true => rates(last + 1) * (at_s - self.at_s[last]),
            false => 0.0,
        };
        whole.sum::<f64>() + rest
    }
}

/// All parts over one time.
pub fn merge(parts: &[Report], rtt: Option<&RttOverTime>) -> SeriesSection {
    let begun = parts.iter().map(|part| part.times.begun_unix_s).reduce(f64::min).unwrap_or(0.0);
    let curves: Vec<Curve<'_>> = parts.iter().map(|part| Curve::new(part, begun)).collect();
    let end_s = curves.iter().map(Curve::end_s).reduce(f64::max).unwrap_or(0.0);
    let finest = parts.iter().map(|part| part.series.interval_s).reduce(f64::max).unwrap_or(1.0);
    let interval_s = finest.max(end_s / (SERIES_POINTS_MAX - 2) as f64).max(1e-3);
    let mut section = SeriesSection { interval_s, phases: phases(&curves), ..Default::default() };
    for number in 0..=(end_s / interval_s).ceil() as usize {
        add(&mut section, &curves, number as f64 * interval_s, interval_s);
        let now = begun + number as f64 * interval_s;
        let percentiles = rtt.and_then(|rtt| rtt.percentiles(now - interval_s, now).ok());
        let (p50, p99) = percentiles.unwrap_or_default();
        section.rtt_p50_us.push(p50);
        section.rtt_p99_us.push(p99);
    }
    section
}

/// Those of the first part: with a common start they are those of all.
fn phases(curves: &[Curve<'_>]) -> Vec<Phase> {
    let Some(first) = curves.first() else { return Vec::new() };
    let own = first.report.series.at_s.first().copied().unwrap_or(0.0);
    let shift = first.at_s.first().map_or(0.0, |at| at - own);
    let phases = first.report.series.phases.iter();
    phases.map(|phase| Phase { name: phase.name.clone(), from_s: phase.from_s + shift }).collect()
}

fn add(section: &mut SeriesSection, curves: &[Curve<'_>], at_s: f64, interval_s: f64) {
    let round = |number: f64| (number * 1e3).round() / 1e3;
    let count = |pick: fn(&SeriesSection) -> &Vec<u64>, lasts: bool| -> u64 {
        let shown = curves.iter().filter(|curve| lasts || at_s <= curve.end_s() + interval_s);
        let values =
            shown.filter_map(|curve| pick(&curve.report.series).get(curve.look(at_s)?).copied());
        values.sum()
    };
    let rate = |pick: fn(&SeriesSection) -> &Vec<f64>| -> f64 {
        let of = |curve: &Curve<'_>| {
            let rates = |look| pick(&curve.report.series).get(look).copied().unwrap_or(0.0);
            curve.integral(&rates, at_s) - curve.integral(&rates, at_s - interval_s)
        };
        round(curves.iter().map(of).sum::<f64>() / interval_s)
    };
    let longest = curves.iter().flat_map(|curve| {
        let looks = curve.at_s.iter().zip(&curve.report.series.rtt_max_us);
        looks.filter(|&(&at, _)| at > at_s - interval_s && at <= at_s).filter_map(|(_, &us)| us)
    });
    section.at_s.push(round(at_s));
    section.open.push(count(|series| &series.open, false));
    section.failed.push(count(|series| &series.failed, true));
    section.opened_per_s.push(rate(|series| &series.opened_per_s));
    section.sent_per_s.push(rate(|series| &series.sent_per_s));
    section.acked_per_s.push(rate(|series| &series.acked_per_s));
    section.expired.push(count(|series| &series.expired, true));
    section.falsely_closed.push(count(|series| &series.falsely_closed, true));
    section.rtt_max_us.push(longest.max());

    // The server has been measured by one of them for all, and a host's memory by each for all.
    let all: Vec<&Curve<'_>> = curves.iter().collect();
    let server: Vec<&Curve<'_>> =
        curves.iter().filter(|curve| curve.has_server()).take(1).collect();
    let mut hosts: Vec<&Curve<'_>> = Vec::new();
    for curve in curves {
        let boot_id = &curve.report.environment.boot_id;
        let same = |other: &&Curve<'_>| other.report.environment.boot_id == *boot_id;
        if boot_id.is_empty() || !hosts.iter().any(same) {
            hosts.push(curve);
        }
    }
    section.server_cpu_cores.push(cores(&server, |series| &series.server_cpu_cores, at_s));
    section.generator_cpu_cores.push(cores(&all, |series| &series.generator_cpu_cores, at_s));
    section.server_rss_bytes.push(bytes(&server, |series| &series.server_rss_bytes, at_s));
    section.generator_rss_bytes.push(bytes(&all, |series| &series.generator_rss_bytes, at_s));
    section.host_taken_bytes.push(bytes(&hosts, |series| &series.host_taken_bytes, at_s));
}

type Column<T> = fn(&SeriesSection) -> &Vec<Option<T>>;

fn cores(curves: &[&Curve<'_>], pick: Column<f64>, at_s: f64) -> Option<f64> {
    let shown = curves.iter().filter(|curve| at_s <= curve.end_s());
    let values = shown
        .filter_map(|curve| pick(&curve.report.series).get(curve.look(at_s)?).copied().flatten());
    values.reduce(|sum, value| sum + value).map(|sum| (sum * 1e3).round() / 1e3)
}

fn bytes(curves: &[&Curve<'_>], pick: Column<u64>, at_s: f64) -> Option<u64> {
    let shown = curves.iter().filter(|curve| at_s <= curve.end_s());
    let values = shown
        .filter_map(|curve| pick(&curve.report.series).get(curve.look(at_s)?).copied().flatten());
    values.reduce(|sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A part that looks every `interval_s`, and has `per_s` heartbeats answered in a second.
    fn part(begun_unix_s: f64, interval_s: f64, looks: usize, per_s: f64, open: u64) -> Report {
        let mut report = Report::default();
        report.times.begun_unix_s = begun_unix_s;
        report.series = SeriesSection {
            interval_s,
            at_s: (0..looks).map(|look| look as f64 * interval_s).collect(),
            open: vec![open; looks],
            failed: vec![1; looks],
            expired: (0..looks as u64).collect(),
            falsely_closed: vec![0; looks],
            opened_per_s: vec![0.0; looks],
            sent_per_s: vec![per_s; looks],
            acked_per_s: vec![per_s; looks],
            rtt_max_us: (0..looks as u64).map(Some).collect(),
            generator_rss_bytes: vec![Some(1_000); looks],
            ..SeriesSection::default()
        };
        report
    }

    #[test]
    fn nothing_is_lost_or_counted_twice_over_time() {
        let parts = [part(100.0, 0.5, 21, 10.0, 7), part(101.3, 0.7, 11, 20.0, 5)];
        let series = merge(&parts, None);
        let points = series.at_s.len();
        assert!(series.acked_per_s.len() == points && series.rtt_p99_us.len() == points);
        let all: f64 = series.acked_per_s.iter().map(|rate| rate * series.interval_s).sum();
        assert!((all - (10.0 * 10.0 + 7.0 * 20.0)).abs() < 0.1, "{all}");
        assert_eq!((series.open[0], series.open.iter().max()), (7, Some(&12)));
        assert_eq!((series.failed.last(), series.expired.last()), (Some(&2), Some(&30)));
        assert_eq!(series.rtt_max_us.iter().flatten().max(), Some(&20));
        assert_eq!(series.generator_rss_bytes.iter().flatten().max(), Some(&2_000));
        assert!(series.server_rss_bytes.iter().all(Option::is_none));
        assert!(series.rtt_p99_us.iter().all(Option::is_none), "percentiles cannot be added");
    }

    #[test]
    fn percentiles_of_a_moment_come_from_the_logs() {
        let mut rtt = RttOverTime::default();
        let mut histogram = Histogram::<u64>::new_with_bounds(1, LONGEST_US, 3).unwrap();
        histogram.record_n(100, 99).unwrap();
        histogram.record_n(900, 1).unwrap();
        rtt.add(103_000, &histogram);
        histogram.record_n(900, 200).unwrap();
        rtt.add(105_000, &histogram);
        let series = merge(&[part(100.0, 1.0, 11, 10.0, 7)], Some(&rtt));
        let known: Vec<_> = series.rtt_p50_us.iter().zip(&series.rtt_p99_us).collect();
        assert_eq!((known[4], known[6]), ((&Some(100), &Some(100)), (&Some(900), &Some(900))));
        assert_eq!(known[5], (&None, &None));
    }

    #[test]
    fn long_runs_have_no_more_points_than_one_generator_has() {
        let points = merge(&[part(0.0, 0.25, 40_000, 1.0, 1)], None).at_s.len();
        assert!(points <= SERIES_POINTS_MAX, "{points}");
    }
}
