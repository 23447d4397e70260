//! The sections of the report, each out of those of all parts.

use super::Merged;
use crate::report::build::lateness;
use crate::report::{
    Connect, Connections, Data, EventSection, Expiry, GeneratorSection, Heartbeats, Push,
    Reconnect, Report, ServerSection, Slow, Times,
};
use crate::scenario::account::Account;
use crate::stats::{Counts, peak_to_mean};

fn sum(parts: &[Report], pick: impl Fn(&Report) -> u64) -> u64 {
    parts.iter().map(pick).sum()
}

fn total(parts: &[Report], pick: impl Fn(&Report) -> f64) -> f64 {
    parts.iter().map(pick).sum()
}

fn counts(parts: &[Report], pick: impl Fn(&Report) -> &Counts) -> Counts {
    let mut sum = Counts::new();
    for (reason, count) in parts.iter().flat_map(pick) {
        *sum.entry(reason.clone()).or_default() += count;
    }
    sum
}

fn least(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.reduce(f64::min)
}

fn most(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.reduce(f64::max)
}

/// How far apart the steady states of the parts began.
pub fn steady_apart_s(parts: &[Report]) -> Option<f64> {
    let begun = || parts.iter().filter_map(|part| part.times.steady_unix_s);
    most(begun()).zip(least(begun())).map(|(last, first)| last - first)
}

pub fn times(parts: &[Report]) -> Times {
    let begun = least(parts.iter().filter_map(|part| part.times.steady_unix_s));
    let ended = most(parts.iter().filter_map(|part| {
        part.times.steady_unix_s.zip(part.times.steady_s).map(|(from, length)| from + length)
    }));
    let add = |pick: fn(&Times) -> Option<u64>| {
        parts.iter().filter_map(|part| pick(&part.times)).reduce(|sum, count| sum + count)
    };
    let first = |pick: fn(&Times) -> f64| {
        least(parts.iter().map(|part| pick(&part.times))).unwrap_or_default()
    };
    Times {
        begun_unix_s: first(|times| times.begun_unix_s),
        start_unix_s: first(|times| times.start_unix_s),
        steady_unix_s: begun,
        steady_s: begun.zip(ended).map(|(begun, ended)| ended - begun),
        steady_acked: add(|times| times.steady_acked),
        steady_open: add(|times| times.steady_open),
    }
}

pub fn connections(parts: &[Report]) -> Connections {
    Connections {
        requested: sum(parts, |part| part.connections.requested),
        opened: sum(parts, |part| part.connections.opened),
        reopened: sum(parts, |part| part.connections.reopened),
        failed: counts(parts, |part| &part.connections.failed),
        open_at_end: sum(parts, |part| part.connections.open_at_end),
        closed_by_server: counts(parts, |part| &part.connections.closed_by_server),
        closed_by_us: sum(parts, |part| part.connections.closed_by_us),
        sources_skipped: sum(parts, |part| part.connections.sources_skipped),
    }
}

/// From the first connect of any to the last opening of any.
pub fn connect(parts: &[Report], merged: &Merged) -> Connect {
    let begun = least(parts.iter().map(|part| part.times.start_unix_s)).unwrap_or_default();
    let ended = parts.iter().map(|part| part.times.start_unix_s + part.connect.seconds);
    let seconds = most(ended).unwrap_or_default() - begun;
    let opened = sum(parts, |part| part.connections.opened);
    Connect {
        seconds,
        rate_per_s: if seconds > 0.0 { opened as f64 / seconds } else { 0.0 },
        planned_rate_per_s: parts.first().map_or(0, |part| part.requested.connect_rate_per_s),
        behind_plan_s: most(parts.iter().map(|part| part.connect.behind_plan_s)).unwrap_or(0.0),
        paused_s: most(parts.iter().map(|part| part.connect.paused_s)).unwrap_or(0.0),
        latency_us: merged.connect.summary(),
    }
}

pub fn heartbeats(parts: &[Report]) -> Heartbeats {
    Heartbeats {
        due: sum(parts, |part| part.heartbeats.due),
        sent: sum(parts, |part| part.heartbeats.sent),
        acked: sum(parts, |part| part.heartbeats.acked),
        cut_off: sum(parts, |part| part.heartbeats.cut_off),
        unread: sum(parts, |part| part.heartbeats.unread),
        missing: sum(parts, |part| part.heartbeats.missing),
        sent_late: sum(parts, |part| part.heartbeats.sent_late),
        adjusted: sum(parts, |part| part.heartbeats.adjusted),
        peak_to_mean: peak(parts),
        stray: sum(parts, |part| part.heartbeats.stray),
        rate_per_s: total(parts, |part| part.heartbeats.rate_per_s),
        interval_ms: parts.iter().filter_map(|part| part.heartbeats.interval_ms).min(),
    }
}

/// Heartbeats of the same tenth of a second are added, so the tenths must be the same.
fn peak(parts: &[Report]) -> Option<f64> {
    if steady_apart_s(parts)? > 0.05 {
        return None;
    }
    let mut tenths: Vec<u32> = Vec::new();
    for part in parts {
        let beats = part.histograms.beats_per_tenth.as_deref()?.split(',');
        for (tenth, beats) in beats.enumerate() {
            let beats: u32 = beats.parse().ok()?;
            match tenths.get_mut(tenth) {
                Some(sum) => *sum = sum.saturating_add(beats),
                None => tenths.push(beats),
            }
        }
    }
    peak_to_mean(&tenths)
}

pub fn expiry(parts: &[Report], merged: &Merged) -> Expiry {
    Expiry {
        silenced: sum(parts, |part| part.expiry.silenced),
        expired: sum(parts, |part| part.expiry.expired),
        missed: sum(parts, |part| part.expiry.missed),
        falsely: sum(parts, |part| part.expiry.falsely),
        false_early: sum(parts, |part| part.expiry.false_early),
        false_healthy: sum(parts, |part| part.expiry.false_healthy),
        our_delay: sum(parts, |part| part.expiry.our_delay),
        undecided: sum(parts, |part| part.expiry.undecided),
        idle_timeout_ms: parts.iter().filter_map(|part| part.expiry.idle_timeout_ms).max(),
        lateness_ms: lateness(&merged.expiry_lateness),
        silence_ms: lateness(&merged.silence),
        method: parts.first().map(|part| part.expiry.method.clone()).unwrap_or_default(),
    }
}

/// Parts ask for no broadcasts; what the server pushes of itself is counted.
pub fn push(parts: &[Report], merged: &Merged) -> Push {
    Push {
        broadcasts: parts.iter().map(|part| part.push.broadcasts).max().unwrap_or(0),
        expected: sum(parts, |part| part.push.expected),
        received: sum(parts, |part| part.push.received),
        acked: sum(parts, |part| part.push.acked),
        missing: sum(parts, |part| part.push.missing),
        missing_by: counts(parts, |part| &part.push.missing_by),
        duplicates: sum(parts, |part| part.push.duplicates),
        unexpected: sum(parts, |part| part.push.unexpected),
        latency_us: merged.push.summary(),
        server: parts.first().map(|part| part.push.server.clone()).unwrap_or_default(),
    }
}

pub fn events(parts: &[Report], merged: &Merged) -> Vec<EventSection> {
    let windows = Account { windows: merged.rtt_windows.clone(), ..Account::new(0) };
    let first = parts.first().map(|part| part.events.as_slice()).unwrap_or_default();
    (0..first.len()).map(|number| event(parts, number, first, &windows)).collect()
}

/// Which of the events are earlier than this one, the latest first.
fn earlier(events: &[EventSection], number: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..events.len()).collect();
    order.sort_by_key(|&other| events[other].at_ms);
    let own_place = order.iter().position(|&other| other == number).unwrap_or(0);
    order.truncate(own_place);
    order.reverse();
    order
}

fn event(
    parts: &[Report],
    number: usize,
    events: &[EventSection],
    windows: &Account,
) -> EventSection {
    let (first, earlier) = (&events[number], earlier(events, number));
    let all = || parts.iter().filter_map(move |part| part.events.get(number));
    let back = all().all(|event| event.affected == 0 || event.recovered_after_ms.is_some());
    let before = windows.calm(&earlier).and_then(|rtt| rtt.percentile_us(99.9));
    let during = windows.during(number).and_then(|rtt| rtt.percentile_us(99.9));
    let failures: Vec<&str> = all().filter_map(|event| event.failure.as_deref()).collect();
    EventSection {
        at_ms: first.at_ms,
        kind: first.kind.clone(),
        affected: all().map(|event| event.affected).sum(),
        affected_within_ms: all().filter_map(|event| event.affected_within_ms).max(),
        recovered: all().map(|event| event.recovered).sum(),
        recovered_after_ms: all()
            .filter_map(|event| event.recovered_after_ms)
            .max()
            .filter(|_| back),
        rtt_p999_before_us: before,
        rtt_p999_during_us: during,
        rtt_p999_ratio: before.zip(during).map(|(one, other)| other as f64 / one.max(1) as f64),
        failure: (!failures.is_empty()).then(|| failures.join("; ")),
    }
}

pub fn reconnect(parts: &[Report], merged: &Merged) -> Reconnect {
    Reconnect {
        lost: sum(parts, |part| part.reconnect.lost),
        reopened: sum(parts, |part| part.reconnect.reopened),
        away: sum(parts, |part| part.reconnect.away),
        failed: counts(parts, |part| &part.reconnect.failed),
        latency_us: merged.reconnect.summary(),
        churned: sum(parts, |part| part.reconnect.churned),
        churn_skipped: sum(parts, |part| part.reconnect.churn_skipped),
        killed: sum(parts, |part| part.reconnect.killed),
        drained: sum(parts, |part| part.reconnect.drained),
        drained_silent: sum(parts, |part| part.reconnect.drained_silent),
    }
}

pub fn slow(parts: &[Report]) -> Slow {
    Slow {
        clients: sum(parts, |part| part.slow.clients),
        closed_by_server: sum(parts, |part| part.slow.closed_by_server),
        open_at_end: sum(parts, |part| part.slow.open_at_end),
        heartbeats: sum(parts, |part| part.slow.heartbeats),
    }
}

pub fn data(parts: &[Report]) -> Data {
    Data {
        sent: sum(parts, |part| part.data.sent),
        received: sum(parts, |part| part.data.received),
    }
}

fn us_per_heartbeat(cpu_s: f64, parts: &[Report]) -> Option<f64> {
    let acked = sum(parts, |part| part.times.steady_acked.unwrap_or(0));
    (acked > 0).then(|| cpu_s * 1e6 / acked as f64)
}

/// There is one server: whoever had its process (`--server-pid`) has measured it for all.
pub fn server(parts: &[Report]) -> ServerSection {
    let mut section = parts
        .iter()
        .find(|part| part.server.rss_bytes.is_some())
        .map(|part| part.server.clone())
        .unwrap_or_default();
    section.cpu_us_per_heartbeat = section.cpu_s.and_then(|cpu_s| us_per_heartbeat(cpu_s, parts));
    let open = sum(parts, |part| part.times.steady_open.unwrap_or(0));
    section.rss_bytes_per_connection = section
        .rss_idle_bytes
        .zip(section.rss_bytes)
        .filter(|_| open > 0)
        .map(|(idle, rss)| (rss as f64 - idle as f64) / open as f64);
    section
}

pub fn generator(parts: &[Report], merged: &Merged) -> GeneratorSection {
    let cpu_s = total(parts, |part| part.generator.cpu_s);
    let open = sum(parts, |part| part.times.steady_open.unwrap_or(0));
    let grown = total(parts, |part| {
        let each = part.generator.rss_bytes_per_connection.unwrap_or(0.0);
        each * part.times.steady_open.unwrap_or(0) as f64
    });
    let saturated = parts.iter().filter_map(|part| {
        let why = part.generator.saturated_by.as_ref()?;
        Some(format!("part {}: {why}", part.part?.number))
    });
    let saturated: Vec<String> = saturated.collect();
    GeneratorSection {
        cpu_s,
        cpu_cores: total(parts, |part| part.generator.cpu_cores),
        cpu_us_per_heartbeat: us_per_heartbeat(cpu_s, parts),
        rss_bytes: sum(parts, |part| part.generator.rss_bytes),
        rss_bytes_per_connection: (open > 0).then(|| grown / open as f64),
        threads: parts.iter().map(|part| part.generator.threads).sum(),
        rings: parts.iter().map(|part| part.generator.rings).sum(),
        saturated: !saturated.is_empty(),
        saturated_by: (!saturated.is_empty()).then(|| saturated.join("; ")),
        send_lateness_us: merged.send_lateness.summary(),
        turn_us: merged.turn.summary(),
        send_errors: sum(parts, |part| part.generator.send_errors),
        bytes_sent: sum(parts, |part| part.generator.bytes_sent),
        bytes_received: sum(parts, |part| part.generator.bytes_received),
        rearmed: counts(parts, |part| &part.generator.rearmed),
        stale_completions: sum(parts, |part| part.generator.stale_completions),
    }
}
