//! The counters in Prometheus' text format, through the `metrics` facade.
//!
//! Names follow from the counters' own: `_total` for what only grows, base units, and a label for
//! the shard. Nothing accumulates here: each scrape sets all values from what was published.

use metrics::{Label, counter, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::engine::{EngineCounters, EngineReport};
use crate::logging;
use crate::ring::RingCounters;
use crate::shard::{CloseReason, PushDrop, Refusal, Totals};
use crate::sys;

/// One scrape.
pub(super) fn render(reports: &[EngineReport], push_bodies_refused: u64) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        for (shard, report) in reports.iter().enumerate() {
            record(&shard.to_string(), report);
        }
        let help = "Messages to push that were too long.";
        metrics::describe_counter!("heartwheel_push_bodies_refused_total", help);
        counter!("heartwheel_push_bodies_refused_total").absolute(push_bodies_refused);
        let help = "Lines of the log that were not written.";
        metrics::describe_counter!("heartwheel_log_lines_suppressed_total", help);
        counter!("heartwheel_log_lines_suppressed_total").absolute(logging::suppressed_total());
        if let Some(bytes) = sys::resident_bytes() {
            metrics::describe_gauge!("process_resident_memory_bytes", "Resident memory size.");
            gauge!("process_resident_memory_bytes").set(bytes as f64);
        }
    });
    handle.render()
}

/// Records every counter of a set.
macro_rules! record_set {
    ($shard:expr, $prefix:expr, $set:ty, $values:expr) => {
        for (index, value) in $values.values().into_iter().enumerate() {
            let metric = metric($prefix, <$set>::NAMES[index], <$set>::GAUGES[index]);
            record_one($shard, metric, <$set>::HELP[index], value);
        }
    };
}

fn record(shard: &str, report: &EngineReport) {
    let counters = &report.counters;
    record_set!(shard, "", Totals, counters.totals);
    record_set!(shard, "", EngineCounters, report.engine);
    record_set!(shard, "ring_", RingCounters, report.ring);
    let closes = || CloseReason::ALL.iter().map(|reason| (reason.name(), *reason));
    record_by_reason(
        shard,
        "heartwheel_sessions_closed_total",
        "Sessions closed, by reason.",
        closes().map(|(name, reason)| (name, counters.closed_for(reason))),
    );
    record_by_reason(
        shard,
        "heartwheel_connections_rejected_total",
        "Connections turned away, by reason.",
        Refusal::ALL.iter().map(|reason| (reason.name(), counters.rejected[*reason as usize])),
    );
    record_by_reason(
        shard,
        "heartwheel_heartbeats_dropped_total",
        "Heartbeats whose session was closed before the reply was sent, by the reason for that.",
        closes().map(|(name, reason)| (name, counters.heartbeats_dropped[reason as usize])),
    );
    record_by_reason(
        shard,
        "heartwheel_pushes_dropped_total",
        "Pushes never sent, by reason.",
        PushDrop::ALL
            .iter()
            .map(|reason| (reason.name(), counters.pushes_dropped[*reason as usize])),
    );
}

/// Records a counter that has a value for each reason.
fn record_by_reason(
    shard: &str,
    metric: &'static str,
    help: &'static str,
    counts: impl Iterator<Item = (&'static str, u64)>,
) {
    metrics::describe_counter!(metric, help);
    for (reason, count) in counts {
        counter!(metric, labels(shard, Some(reason))).absolute(count);
    }
}

fn record_one(shard: &str, metric: Metric, help: &str, value: u64) {
    let (help, labels) = (help.trim().to_owned(), labels(shard, None));
    match metric {
        Metric::Counter(name) => {
            metrics::describe_counter!(name.clone(), help);
            counter!(name, labels).absolute(value);
        }
        Metric::Gauge(name, scale) => {
            metrics::describe_gauge!(name.clone(), help);
            gauge!(name, labels).set(value as f64 * scale);
        }
    }
}

fn labels(shard: &str, reason: Option<&'static str>) -> Vec<Label> {
    let mut labels = vec![Label::new("shard", shard.to_owned())];
    labels.extend(reason.map(|reason| Label::new("reason", reason)));
    labels
}

enum Metric {
    Counter(String),
    /// With the factor that makes base units of it.
    Gauge(String, f64),
}

/// The metric of a counter. Times are counted in microseconds and told in seconds; the exporter's
/// counters are whole numbers, so a sum of times is a gauge that happens only to grow.
fn metric(prefix: &str, name: &str, is_gauge: bool) -> Metric {
    if name == "open" {
        return Metric::Gauge("heartwheel_sessions_open".to_owned(), 1.0);
    }
    if is_gauge {
        return Metric::Gauge(format!("heartwheel_{prefix}{name}"), 1.0);
    }
    match name.split_once("_us") {
        Some((base, "" | "_sum")) => {
            Metric::Gauge(format!("heartwheel_{prefix}{base}_seconds_total"), 1e-6)
        }
        Some((base, which)) => {
            Metric::Gauge(format!("heartwheel_{prefix}{base}_seconds{which}"), 1e-6)
        }
        None => Metric::Counter(format!("heartwheel_{prefix}{name}_total")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_names_every_counter_in_base_units() {
        let mut report = EngineReport::default();
        report.counters.totals.accepted = 5;
        report.counters.totals.open = 3;
        report.counters.closed[CloseReason::Expired as usize] = 2;
        report.engine.cpu_us = 1_500_000;
        let text = render(&[report], 0);
        for line in [
            "heartwheel_accepted_total{shard=\"0\"} 5",
            "heartwheel_sessions_open{shard=\"0\"} 3",
            "heartwheel_sessions_closed_total{shard=\"0\",reason=\"expired\"} 2",
            "heartwheel_cpu_seconds_total{shard=\"0\"} 1.5",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
        assert!(text.contains("# TYPE heartwheel_accepted_total counter"), "{text}");
        assert!(text.contains("# HELP heartwheel_turns_total Turns of the loop."), "{text}");
    }
}
