//! Whether reports are all the parts of one plan.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::limits::PARTS_MAX;
use crate::report::{Report, differences};

/// Checks it; `names` are what the reports are called.
///
/// # Errors
/// If they are not, with all that differs, or the parts that are missing.
pub fn check(names: &[String], reports: &[Report]) -> Result<()> {
    let (first, of_first) = (reports.first().context("no report")?, &names[0]);
    let mut differ = Vec::new();
    for (report, name) in reports.iter().zip(names).skip(1) {
        for (what, one, other) in compare(first, report) {
            differ.push(format!("{what} is {one} in {of_first} and {other} in {name}"));
        }
    }
    ensure!(differ.is_empty(), "not the parts of one plan: {}", differ.join("; "));
    complete(names, reports)
}

fn compare(one: &Report, other: &Report) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let mut same = |what: &str, one: String, other: String| {
        if one != other {
            found.push((what.to_owned(), one, other));
        }
    };
    let events = |report: &Report| {
        let told = report.events.iter().map(|event| format!("{}ms:{}", event.at_ms, event.kind));
        format!("[{}]", told.collect::<Vec<_>>().join(" "))
    };
    let slos = |report: &Report| {
        let told = report.slo.iter().map(|slo| format!("'{}'", slo.expression));
        format!("[{}]", told.collect::<Vec<_>>().join(" "))
    };
    let of = |report: &Report| report.part.map_or(0, |part| part.of).to_string();
    same("the seed", one.seed.to_string(), other.seed.to_string());
    same("the target", one.target.clone(), other.target.clone());
    same("the protocol", one.protocol.clone(), other.protocol.clone());
    same("the number of parts", of(one), of(other));
    same("the list of events", events(one), events(other));
    same("the list of SLOs", slos(one), slos(other));
    let requested = differences(&one.requested, &other.requested);
    let requested = requested
        .into_iter()
        .map(|(name, one, other)| (format!("the requested {name}"), one, other));
    found.extend(requested);
    found
}

fn complete(names: &[String], reports: &[Report]) -> Result<()> {
    let mut seen = BTreeMap::new();
    let mut of = 0;
    for (report, name) in reports.iter().zip(names) {
        let part = report.part.with_context(|| {
            format!("{name} is the report of a whole plan: only parts (--part K/N) can be merged")
        })?;
        of = part.of;
        ensure!(
            of <= PARTS_MAX && (1..=of).contains(&part.number),
            "{name} is part {} of {of}",
            part.number
        );
        if let Some(twin) = seen.insert(part.number, name) {
            anyhow::bail!("{twin} and {name} are both part {} of {of}", part.number);
        }
    }
    let missing: Vec<String> =
        (1..=of).filter(|number| !seen.contains_key(number)).map(|n| format!("{n}/{of}")).collect();
    ensure!(missing.is_empty(), "parts are missing: {}", missing.join(", "));
    Ok(())
}
