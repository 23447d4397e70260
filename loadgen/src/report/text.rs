//! The report as a person reads it: the verdict first.

use std::fmt::Write as _;

use super::Report;
use crate::latency::LatencySummary;
use crate::stats::AFTER_THE_END;
use crate::units::{grouped, time};

/// Some twenty lines.
pub fn summary(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_all(report, &mut out);
    out
}

fn write_all(report: &Report, out: &mut String) -> std::fmt::Result {
    let connections = &report.connections;
    let expiry = &report.expiry;
    writeln!(
        out,
        "\n{}: {} of {} clients open, {} of {} silent ones expired, {} falsely closed, {} missed",
        report.verdict.to_uppercase(),
        grouped(connections.opened),
        grouped(connections.requested),
        grouped(expiry.expired),
        grouped(expiry.silenced),
        grouped(expiry.falsely),
        grouped(expiry.missed),
    )?;
    report.reasons.iter().try_for_each(|reason| writeln!(out, "  ! {reason}"))?;
    report.notes.iter().try_for_each(|note| writeln!(out, "  note: {note}"))?;
    writeln!(out)?;
    write_load(report, out)?;
    write_scenario(report, out)?;
    write_cost(report, out)?;
    let laws = report.laws.iter().filter(|law| law.holds).count();
    let slos = report.slo.iter().filter(|slo| slo.holds).count();
    write!(out, "  laws         {laws} of {} hold", report.laws.len())?;
    if !report.slo.is_empty() {
        write!(out, ";  SLOs  {slos} of {} hold", report.slo.len())?;
    }
    writeln!(out)
}

fn write_load(report: &Report, out: &mut String) -> std::fmt::Result {
    let (connect, heartbeats) = (&report.connect, &report.heartbeats);
    let expiry = &report.expiry;
    write!(out, "  server       {}", report.target)?;
    if let (Some(engine), Some(sweep)) = (&report.engine, &report.sweep) {
        write!(out, ", engine {engine}, sweep {sweep}")?;
    }
    if let Some(part) = report.part {
        let all = grouped(report.requested.connections);
        write!(out, "\n  part         {} of {}, of {all} clients in all", part.number, part.of)?;
    }
    if !report.parts.is_empty() {
        write!(out, "\n  generators   {}", report.parts.len())?;
    }
    write!(
        out,
        "\n  connecting   {:.1} s, {}/s of {}/s planned, latency {}",
        connect.seconds,
        grouped(connect.rate_per_s.round() as u64),
        grouped(connect.planned_rate_per_s),
        latency(&connect.latency_us),
    )?;
    if connect.behind_plan_s > 0.5 {
        write!(out, "; {:.1} s behind the plan", connect.behind_plan_s)?;
    }
    for (reason, count) in &report.connections.failed {
        write!(out, "\n               {} failed: {reason}", grouped(*count))?;
    }
    writeln!(
        out,
        "\n  heartbeats   {} sent, {} answered, {} missing; {}/s in the steady state",
        grouped(heartbeats.sent),
        grouped(heartbeats.acked),
        grouped(heartbeats.missing),
        grouped(heartbeats.rate_per_s.round() as u64),
    )?;
    writeln!(out, "  round trip   {}, from when they were due", latency(&report.rtt_us))?;
    if let (Some(p50), Some(max)) = (expiry.lateness_ms.p50, expiry.lateness_ms.max) {
        writeln!(out, "  expiry       at most {p50:.1} ms late (median), {max:.1} ms (all)")?;
    }
    let closed = report.connections.closed_by_server.iter();
    // While we close ours, the server may well expire those who no longer beat.
    for (reason, count) in closed.filter(|(reason, _)| *reason != AFTER_THE_END) {
        writeln!(out, "               {} closed by the server: {reason}", grouped(*count))?;
    }
    Ok(())
}

fn write_scenario(report: &Report, out: &mut String) -> std::fmt::Result {
    let (push, reconnect, slow) = (&report.push, &report.reconnect, &report.slow);
    let ms = |ms: Option<u64>| ms.map_or("?".to_owned(), |ms| time(ms * 1_000));
    for event in &report.events {
        writeln!(
            out,
            "  {:<12} at {}: {} affected, {} recovered after {}; round trip p99.9 {} before, {} \
             during",
            event.kind,
            time(event.at_ms * 1_000),
            grouped(event.affected),
            grouped(event.recovered),
            ms(event.recovered_after_ms),
            event.rtt_p999_before_us.map_or("?".to_owned(), time),
            event.rtt_p999_during_us.map_or("?".to_owned(), time),
        )?;
    }
    if push.broadcasts > 0 {
        writeln!(
            out,
            "  push         {} expected, {} received, {} acknowledged, {} missing, {} twice; {}",
            grouped(push.expected),
            grouped(push.received),
            grouped(push.acked),
            grouped(push.missing),
            grouped(push.duplicates),
            latency(&push.latency_us),
        )?;
    }
    if reconnect.lost > 0 {
        writeln!(
            out,
            "  coming back  {} killed, {} churned, {} drained; {} of {} back, {} attempts failed",
            grouped(reconnect.killed),
            grouped(reconnect.churned),
            grouped(reconnect.drained),
            grouped(reconnect.reopened),
            grouped(reconnect.lost),
            grouped(reconnect.failed.values().sum()),
        )?;
    }
    if slow.clients > 0 {
        writeln!(
            out,
            "  not reading  {} clients, {} closed by the server, {} open at the end",
            grouped(slow.clients),
            grouped(slow.closed_by_server),
            grouped(slow.open_at_end),
        )?;
    }
    Ok(())
}

fn write_cost(report: &Report, out: &mut String) -> std::fmt::Result {
    let (server, generator) = (&report.server, &report.generator);
    let kernel = &report.kernel;
    if let (Some(rss), Some(cores)) = (server.rss_bytes, server.cpu_cores) {
        writeln!(
            out,
            "  server       {} us of CPU per heartbeat, {cores:.2} cores; {} MiB, {} B per \
             connection",
            number(server.cpu_us_per_heartbeat),
            rss >> 20,
            number(server.rss_bytes_per_connection),
        )?;
    }
    writeln!(
        out,
        "  generator    {} us of CPU per heartbeat, {:.2} cores; {} MiB, {} B per connection; \
         sends late by {}",
        number(generator.cpu_us_per_heartbeat),
        generator.cpu_cores,
        generator.rss_bytes >> 20,
        number(generator.rss_bytes_per_connection),
        latency(&generator.send_lateness_us),
    )?;
    writeln!(
        out,
        "  kernel       {} B per connection; {} retransmits, {} softnet drops, {} listen overflows",
        number(kernel.bytes_per_connection),
        grouped(kernel.retransmits),
        grouped(kernel.softnet_drops),
        grouped(kernel.listen_overflows),
    )
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "?".to_owned(),
        Some(value) if value.abs() < 100.0 => format!("{value:.1}"),
        Some(value) => grouped(value.round() as u64),
    }
}

fn latency(summary: &LatencySummary) -> String {
    match (summary.p50, summary.p99, summary.p999, summary.max) {
        (Some(p50), Some(p99), Some(p999), Some(max)) => {
            let [p50, p99, p999, max] = [p50, p99, p999, max].map(time);
            format!("p50 {p50}, p99 {p99}, p99.9 {p999}, max {max}")
        }
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_comes_first() {
        let mut report = Report { verdict: "passed".to_owned(), ..Report::default() };
        (report.connections.requested, report.connections.opened) = (2_000, 2_000);
        let text = summary(&report);
        assert!(text.trim_start().starts_with("PASSED: 2,000 of 2,000 clients open"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 160), "{text}");
    }
}
