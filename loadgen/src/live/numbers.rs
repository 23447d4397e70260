//! The numbers of a report as far as they are known while the run goes on, for the SLOs.
//!
//! A number that is not known yet is left out, not 0: an SLO on it can neither hold nor fail.
//! Percentiles are known within 12 %.

use heartwheel::time::Timestamp;
use serde_json::{Value, json};

use super::model::Look;
use super::shown::{Cost, Percentiles, Shown};
use crate::detail::Glimpse;
use crate::stats::Snapshot;

/// As the report has them at its end; `steady` is how things were when the steady state began.
pub fn of(look: &Look, steady: Option<&Look>, shown: &Shown) -> Value {
    let Snapshot { opened, reopened, sent, acked, written_off, .. } = look.snapshot;
    let passed = steady.map(|steady| (look.at.saturating_sub(steady.at)).as_secs_f64());
    let beats = steady.map(|steady| acked.saturating_sub(steady.snapshot.acked));
    let rate = passed.zip(beats).filter(|(s, _)| *s > 0.0).map(|(s, beats)| beats as f64 / s);
    let process = |cost: &Cost| {
        let cpu_s = passed.zip(cost.cores_steady).map(|(passed, cores)| passed * cores);
        let beats = beats.filter(|&beats| beats > 0);
        json!({
            "cpu_s": cpu_s,
            "cpu_cores": cost.cores_steady,
            "cpu_us_per_heartbeat": cpu_s.zip(beats).map(|(s, beats)| s * 1e6 / beats as f64),
            "rss_bytes": cost.bytes,
            "rss_bytes_per_connection": cost.bytes_per_connection,
        })
    };
    let connecting = look.phase == "connecting";
    json!({
        "connections": {
            "requested": shown.connections.wanted,
            "opened": opened,
            "reopened": reopened,
            "failed": look.detail.failed,
        },
        "connect": {
            // Later it stands still, and only the workers know when the last one was open.
            "rate_per_s": connecting
                .then(|| opened as f64 / look.at.as_secs_f64().max(1e-9)),
        },
        "heartbeats": {
            "due": sent,
            "sent": sent,
            "acked": acked,
            "missing": sent.saturating_sub(acked + written_off),
            "sent_late": look.snapshot.sent_late,
            "rate_per_s": rate,
            "interval_ms": shown.beats.interval_ms,
        },
        "rtt_us": steady.map(|_| percentiles(&shown.rtt_all)),
        "expiry": {
            "silenced": shown.oracle.silenced,
            "expired": shown.oracle.expired,
            "missed": shown.oracle.missed,
            "false": shown.oracle.falsely,
            "our_delay": shown.oracle.our_delay,
            "lateness_ms": { "max": shown.oracle.late_max_us.map(|us| us as f64 / 1e3) },
            "idle_timeout_ms": shown.beats.idle_timeout_ms,
        },
        "events": look.events.iter().enumerate().map(|(number, _)| event(look, number))
            .collect::<Vec<_>>(),
        "reconnect": {
            "lost": look.snapshot.lost,
            "reopened": reopened,
            "away": look.snapshot.lost.saturating_sub(reopened),
        },
        "server": process(&shown.server),
        "generator": process(&shown.generator),
        "kernel": look.seen.kernel.map(|_| &shown.kernel),
    })
}

fn percentiles(rtt: &Percentiles) -> Value {
    let Percentiles { count, p50, p90, p99, p999, max } = rtt;
    json!({ "count": count, "p50": p50, "p90": p90, "p99": p99, "p999": p999, "max": max })
}

fn event(look: &Look, number: usize) -> Value {
    let Glimpse { affected, last_affected, to_recover, recovered, last_recovered } =
        look.detail.events.get(number).copied().unwrap_or_default();
    let began = look.steady_at.map(|at| at + look.events[number].at);
    let after = |at: Timestamp| {
        began.map(|began| at.since(look.start).saturating_sub(began).as_millis() as u64)
    };
    let done = to_recover > 0 && recovered >= to_recover;
    json!({
        "affected": affected,
        "affected_within_ms": after(last_affected).filter(|_| affected > 0),
        "recovered": recovered,
        "recovered_after_ms": after(last_recovered).filter(|_| done),
    })
}
