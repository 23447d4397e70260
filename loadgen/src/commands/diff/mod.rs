//! `loadgen diff OLD NEW`: two reports side by side, and whether the new one is worse.
//!
//! A number is worse if it has changed for the worse by more than its tolerance and by more than a
//! floor below which changes are noise. A law or an SLO that held, and does not, is worse without
//! any tolerance. What makes the runs unlike is named, for it may be the reason.

mod rules;
mod unlike;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use self::rules::{Allowance, Better, Rule, parse_allowance, parse_tolerance, rules};
use crate::report::{self, Report};
use crate::units::grouped;

/// A regression.
const REGRESSED: u8 = 99;

const EXAMPLES: &str = "\
Examples:
  loadgen diff before.json after.json
  loadgen diff before.json after.json --tolerance 5% --allow rtt.p99=25% --allow connect=50%

Exit: 0 nothing is worse, 2 a report cannot be read, 99 something is worse.";

/// Compare two reports, and fail if the new one is worse
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Diff {
    /// The report to compare with
    pub old: PathBuf,

    /// The report to judge
    pub new: PathBuf,

    /// The share by which any number may get worse
    #[arg(long, value_name = "P", default_value = "10%", value_parser = parse_tolerance)]
    pub tolerance: f64,

    /// Another share for one number, or for all below a path; the more exact path wins; repeatable
    #[arg(long, value_name = "PATH=P", value_parser = parse_allowance)]
    pub allow: Vec<Allowance>,

    /// One line of JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    pub version: u32,
    /// `regressed`, or `no regression`.
    pub verdict: &'static str,
    pub exit_code: u8,
    /// What is worse.
    pub regressions: Vec<String>,
    /// What makes the two runs unlike.
    pub unlike: Vec<String>,
    pub numbers: Vec<Change>,
}

/// One number, old and new.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    pub path: String,
    pub old: Option<f64>,
    pub new: Option<f64>,
    /// By how much of the old one it has risen; `null` if that was 0, or one is absent.
    pub change: Option<f64>,
    /// The share by which it may get worse; `null` if it is only shown.
    pub tolerance: Option<f64>,
    /// `same`, `better`, `worse`, `absent` (in one of them), or `shown` (and not judged).
    pub judgement: &'static str,
}

impl Diff {
    /// Compares; 0 or [`REGRESSED`].
    ///
    /// # Errors
    /// If one of them is no report.
    pub fn run(&self) -> Result<u8> {
        let (old, new) = (report::read(&self.old)?, report::read(&self.new)?);
        let comparison = self.compare(&old, &new)?;
        let text = match self.json {
            true => serde_json::to_string(&comparison)? + "\n",
            false => show(&comparison),
        };
        std::io::stdout().write_all(text.as_bytes()).context("writing to standard output")?;
        Ok(comparison.exit_code)
    }

    fn compare(&self, old: &Report, new: &Report) -> Result<Comparison> {
        let events = old.events.len().min(new.events.len());
        let (old_numbers, new_numbers) = (serde_json::to_value(old)?, serde_json::to_value(new)?);
        let numbers: Vec<Change> = rules(events)
            .iter()
            .map(|rule| {
                let (old, new) = (value(&old_numbers, rule), value(&new_numbers, rule));
                change(rule, self.tolerance_of(rule), old, new)
            })
            .filter(|change| change.old.is_some() || change.new.is_some())
            .collect();
        let mut regressions = broken(old, new);
        regressions.extend(numbers.iter().filter(|change| change.judgement == "worse").map(told));
        let verdict = if regressions.is_empty() { "no regression" } else { "regressed" };
        Ok(Comparison {
            version: 1,
            verdict,
            exit_code: if regressions.is_empty() { 0 } else { REGRESSED },
            regressions,
            unlike: unlike::unlike(old, new),
            numbers,
        })
    }

    /// `None` if it is only shown.
    fn tolerance_of(&self, rule: &Rule) -> Option<f64> {
        let allowed = self.allow.iter().filter(|allowance| allowance.covers(&rule.path));
        let allowed = allowed.max_by_key(|allowance| allowance.path.split('.').count());
        match (allowed, rule.better) {
            (Some(allowance), _) => Some(allowance.share),
            (None, Better::LessIfAllowed) => None,
            (None, Better::Less | Better::More) => Some(self.tolerance),
        }
    }
}

/// What counts by reason is summed.
fn value(report: &Value, rule: &Rule) -> Option<f64> {
    match report.pointer(&format!("/{}", rule.path.replace('.', "/")))? {
        Value::Object(reasons) => {
            // A sum of nothing is -0.
            Some(reasons.values().filter_map(Value::as_f64).fold(0.0, |sum, count| sum + count))
        }
        found => found.as_f64(),
    }
}

fn change(rule: &Rule, tolerance: Option<f64>, old: Option<f64>, new: Option<f64>) -> Change {
    let pair = old.zip(new);
    let share = pair.filter(|(old, _)| *old != 0.0).map(|(old, new)| (new - old) / old.abs());
    let judgement = match (pair, tolerance) {
        (None, _) => "absent",
        (Some(_), None) => "shown",
        (Some((old, new)), Some(tolerance)) => {
            let room = (old.abs() * tolerance).max(rule.floor);
            let worse_by = if rule.better == Better::More { old - new } else { new - old };
            // Shares are no exact numbers: neither are their bounds.
            let room = room * (1.0 + 1e-9);
            if worse_by > room {
                "worse"
            } else if worse_by < -room {
                "better"
            } else {
                "same"
            }
        }
    };
    Change { path: rule.path.clone(), old, new, change: share, tolerance, judgement }
}

/// The verdict, laws and SLOs, for which there is no tolerance.
fn broken(old: &Report, new: &Report) -> Vec<String> {
    let mut broken = Vec::new();
    if old.exit_code == 0 && new.exit_code != 0 {
        let reasons = new.reasons.join("; ");
        broken.push(format!("verdict: {} -> {} ({reasons})", old.verdict, new.verdict));
    }
    for law in new.laws.iter().filter(|law| !law.holds) {
        if !old.laws.iter().any(|before| before.name == law.name && !before.holds) {
            broken.push(format!("law: {} ({} against {})", law.name, law.left, law.right));
        }
    }
    for slo in new.slo.iter().filter(|slo| !slo.holds) {
        if old.slo.iter().any(|before| before.expression == slo.expression && before.holds) {
            let value = slo.value.map_or("no value".to_owned(), number);
            broken.push(format!("SLO: {} held, and is {value} now", slo.expression));
        }
    }
    broken
}

fn told(change: &Change) -> String {
    format!(
        "{}: {} -> {} ({}, {:.0} % allowed)",
        change.path,
        change.old.map_or("-".to_owned(), number),
        change.new.map_or("-".to_owned(), number),
        percent(change),
        change.tolerance.unwrap_or(0.0) * 100.0
    )
}

fn show(comparison: &Comparison) -> String {
    let judged = comparison.numbers.iter().filter(|change| change.tolerance.is_some()).count();
    let better = comparison.numbers.iter().filter(|change| change.judgement == "better").count();
    let mut out = format!(
        "{}: {} worse, {better} better, {judged} numbers judged\n",
        comparison.verdict.to_uppercase(),
        comparison.regressions.len(),
    );
    // Writing to a string does not fail.
    for regression in &comparison.regressions {
        let _ = writeln!(out, "  ! {regression}");
    }
    for what in &comparison.unlike {
        let _ = writeln!(out, "  warning: unlike runs: {what}");
    }
    let _ = writeln!(out, "\n{:<36} {:>14} {:>14} {:>10}", "", "old", "new", "change");
    let is_zero = |change: &&Change| change.old == Some(0.0) && change.new == Some(0.0);
    for change in comparison.numbers.iter().filter(|change| !is_zero(change)) {
        let mark = match change.judgement {
            "same" => "",
            "shown" => "not judged",
            other => other,
        };
        let line = format!(
            "{:<36} {:>14} {:>14} {:>10}  {mark}",
            change.path,
            change.old.map_or("-".to_owned(), number),
            change.new.map_or("-".to_owned(), number),
            percent(change),
        );
        let _ = writeln!(out, "{}", line.trim_end());
    }
    let zero: Vec<&str> =
        comparison.numbers.iter().filter(is_zero).map(|change| change.path.as_str()).collect();
    if !zero.is_empty() {
        let _ = writeln!(out, "0 in both: {}", zero.join(", "));
    }
    out
}

fn percent(change: &Change) -> String {
    match (change.change, change.old.zip(change.new)) {
        (Some(share), _) => format!("{:+.1} %", share * 100.0),
        (None, Some((_, new))) if new != 0.0 => "from 0".to_owned(),
        _ => String::new(),
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1_000.0 && value >= 0.0 => grouped(value.round() as u64),
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(better: Better, floor: f64, old: f64, new: f64) -> &'static str {
        let rule = Rule { path: "x".to_owned(), better, floor };
        let tolerance = (better != Better::LessIfAllowed).then_some(0.1);
        change(&rule, tolerance, Some(old), Some(new)).judgement
    }

    #[test]
    fn worse_is_beyond_the_tolerance_and_the_floor_in_the_bad_direction() {
        use Better::{Less, LessIfAllowed, More};
        assert_eq!(judged(Less, 0.0, 100.0, 110.0), "same");
        assert_eq!(judged(Less, 0.0, 100.0, 110.1), "worse");
        assert_eq!(judged(Less, 0.0, 100.0, 89.0), "better");
        assert_eq!(judged(More, 0.0, 100.0, 89.0), "worse");
        assert_eq!(judged(More, 0.0, 100.0, 111.0), "better");
        assert_eq!(judged(Less, 50.0, 100.0, 150.0), "same", "noise");
        assert_eq!(judged(Less, 50.0, 100.0, 151.0), "worse");
        assert_eq!(judged(Less, 0.0, 0.0, 1.0), "worse", "one of none is infinitely more");
        assert_eq!(judged(LessIfAllowed, 0.0, 1.0, 9.0), "shown");
        let rule = Rule { path: "x".to_owned(), better: Less, floor: 0.0 };
        assert_eq!(change(&rule, Some(0.1), Some(1.0), None).judgement, "absent");
    }
}
