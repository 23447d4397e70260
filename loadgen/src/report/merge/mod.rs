//! One report out of those of the generators that have played the parts of one plan.
//!
//! Counts add. Rates add where they were measured at the same time. Percentiles are taken from the
//! sum of the histograms, never from other percentiles. Laws and SLOs are judged over the sum; what
//! a part has to say for itself (a law that it broke, that it was interrupted or void) stays.

mod alike;
mod hosts;
mod sections;
mod series;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

pub use self::series::RttOverTime;
use super::{Histograms, Law, PartSection, Report, VERSION, verdict};
use crate::latency::{Encoded, Latency};
use crate::plan::share_of;
use crate::slo;

/// Joins the reports of all parts, in any order; `names` are what they are called in complaints.
/// Round trips over time come from HDR logs, if there are any.
///
/// # Errors
/// If they are not all the parts of one plan, with what differs.
pub fn merge(
    names: &[String],
    mut parts: Vec<Report>,
    rtt: Option<&RttOverTime>,
    command: &str,
) -> Result<Report> {
    alike::check(names, &parts)?;
    parts.sort_by_key(|part| part.part);
    let parts = parts.as_slice();
    let histograms = Merged::new(parts)?;
    let first = parts.first().context("no report")?;
    let mut report = Report {
        version: VERSION,
        notes: notes(parts),
        target: first.target.clone(),
        protocol: first.protocol.clone(),
        engine: first.engine.clone(),
        sweep: first.sweep.clone(),
        seed: first.seed,
        part: None,
        parts: parts.iter().filter_map(section).collect(),
        environment: hosts::environment(parts, command),
        requested: first.requested.clone(),
        times: sections::times(parts),
        connections: sections::connections(parts),
        connect: sections::connect(parts, &histograms),
        heartbeats: sections::heartbeats(parts),
        rtt_us: histograms.rtt.summary(),
        expiry: sections::expiry(parts, &histograms),
        push: sections::push(parts, &histograms),
        events: sections::events(parts, &histograms),
        reconnect: sections::reconnect(parts, &histograms),
        slow: sections::slow(parts),
        data: sections::data(parts),
        server: sections::server(parts),
        generator: sections::generator(parts, &histograms),
        host: hosts::host(parts),
        kernel: hosts::kernel(parts),
        rtt_distribution: histograms.rtt.distribution(),
        series: series::merge(parts, rtt),
        histograms: histograms.encoded(),
        ..Report::default()
    };
    report.laws = laws(parts, &report);
    let numbers = serde_json::to_value(&report).unwrap_or(Value::Null);
    for outcome in &first.slo {
        report.slo.push(slo::parse(&outcome.expression)?.judge(&numbers));
    }
    verdict::of_parts(&mut report);
    Ok(report)
}

/// The histograms of all parts, added.
struct Merged {
    rtt: Latency,
    connect: Latency,
    send_lateness: Latency,
    turn: Latency,
    expiry_lateness: Latency,
    silence: Latency,
    push: Latency,
    reconnect: Latency,
    rtt_windows: Vec<Latency>,
}

impl Merged {
    fn new(parts: &[Report]) -> Result<Merged> {
        let windows = parts.iter().map(|part| part.histograms.rtt_windows.len()).max();
        let rtt_windows = (0..windows.unwrap_or(0)).map(|window| {
            sum(parts, 2, |part| part.histograms.rtt_windows.get(window)?.as_ref(), |_| None)
        });
        let of = |digits, pick: fn(&Histograms) -> &Option<Encoded>, count: fn(&Report) -> u64| {
            sum(parts, digits, |part| pick(&part.histograms).as_ref(), |part| Some(count(part)))
        };
        Ok(Merged {
            rtt: of(3, |all| &all.rtt, |part| part.rtt_us.count)?,
            connect: of(2, |all| &all.connect, |part| part.connect.latency_us.count)?,
            send_lateness: of(
                2,
                |all| &all.send_lateness,
                |part| part.generator.send_lateness_us.count,
            )?,
            turn: of(2, |all| &all.turn, |part| part.generator.turn_us.count)?,
            expiry_lateness: sum(
                parts,
                3,
                |part| part.histograms.expiry_lateness.as_ref(),
                |_| None,
            )?,
            silence: sum(parts, 3, |part| part.histograms.silence.as_ref(), |_| None)?,
            push: of(2, |all| &all.push, |part| part.push.latency_us.count)?,
            reconnect: of(2, |all| &all.reconnect, |part| part.reconnect.latency_us.count)?,
            rtt_windows: rtt_windows.collect::<Result<_>>()?,
        })
    }

    fn encoded(&self) -> Histograms {
        Histograms {
            rtt: self.rtt.encoded(),
            connect: self.connect.encoded(),
            send_lateness: self.send_lateness.encoded(),
            turn: self.turn.encoded(),
            expiry_lateness: self.expiry_lateness.encoded(),
            silence: self.silence.encoded(),
            push: self.push.encoded(),
            reconnect: self.reconnect.encoded(),
            rtt_windows: self.rtt_windows.iter().map(Latency::encoded).collect(),
            beats_per_tenth: None,
        }
    }
}

/// The sum of a histogram over all parts; each must hold as many values as its part `counted`.
fn sum<'a>(
    parts: &'a [Report],
    digits: u8,
    pick: impl Fn(&'a Report) -> Option<&'a Encoded>,
    counted: impl Fn(&Report) -> Option<u64>,
) -> Result<Latency> {
    let mut sum = Latency::new(digits);
    for report in parts {
        let part = report.part.map_or(0, |part| part.number);
        let found = pick(report).map(Encoded::decode).transpose();
        let found = found.with_context(|| format!("part {part}"))?;
        let count = found.as_ref().map_or(0, Latency::count);
        let counted = counted(report).unwrap_or(count);
        ensure!(
            count == counted,
            "part {part}: a histogram of {count} values, of which its report has counted {counted}"
        );
        if let Some(found) = found {
            sum.add(&found);
        }
    }
    Ok(sum)
}

fn section(report: &Report) -> Option<PartSection> {
    Some(PartSection {
        part: report.part?,
        verdict: report.verdict.clone(),
        exit_code: report.exit_code,
        reasons: report.reasons.clone(),
        requested: report.connections.requested,
        opened: report.connections.opened,
        environment: report.environment.clone(),
        generator: report.generator.clone(),
    })
}

/// Two parts more than this apart were not in the steady state together, in seconds.
const TOGETHER_S: f64 = 1.0;

fn notes(parts: &[Report]) -> Vec<String> {
    let mut notes = Vec::new();
    for report in parts {
        let number = report.part.map_or(0, |part| part.number);
        notes.extend(report.notes.iter().map(|note| format!("part {number}: {note}")));
        let alone = report.slo.iter().filter(|slo| !slo.holds);
        notes.extend(alone.map(|slo| {
            let value = slo.value.map_or("no value".to_owned(), |value| value.to_string());
            format!("part {number} alone: SLO {} does not hold (it is {value})", slo.expression)
        }));
    }
    let apart = sections::steady_apart_s(parts);
    if apart.is_some_and(|apart| apart > TOGETHER_S) {
        notes.push(format!(
            "the steady states of the parts began within {:.1} s: rates are sums of rates of \
             different times",
            apart.unwrap_or(0.0)
        ));
    }
    notes
}

/// Each law over the sum, and what the parts together owe to the plan.
fn laws(parts: &[Report], report: &Report) -> Vec<Law> {
    let mut laws: Vec<Law> = Vec::new();
    for law in parts.iter().flat_map(|part| &part.laws) {
        match laws.iter_mut().find(|sum| sum.name == law.name) {
            // What holds in each part holds over their sum, and what does not is no better for
            // being made up for by another part.
            Some(sum) => {
                sum.holds &= law.holds;
                sum.left = plus(&sum.left, &law.left);
                sum.right = plus(&sum.right, &law.right);
            }
            None => laws.push(law.clone()),
        }
    }
    let mut equal = |name: &str, left: u64, right: u64| {
        let (name, holds) = (name.to_owned(), left == right);
        laws.push(Law { name, holds, left: left.into(), right: right.into() });
    };
    let (wanted, connections) = (&report.requested, &report.connections);
    equal("connections of all parts = of the plan", connections.requested, wanted.connections);
    let held = parts.iter().all(|part| part.times.steady_unix_s.is_some());
    if held && connections.opened == connections.requested {
        let silent = share_of(wanted.connections as u32, wanted.silent);
        equal("silent by plan = silenced", u64::from(silent), report.expiry.silenced);
    }
    laws
}

fn plus(left: &Value, right: &Value) -> Value {
    match (left.as_u64(), right.as_u64()) {
        (Some(left), Some(right)) => (left + right).into(),
        _ => left.as_f64().zip(right.as_f64()).map_or(Value::Null, |(a, b)| (a + b).into()),
    }
}
