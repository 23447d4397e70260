//! Bounds for numbers of the report: `rtt.p99<5ms`, `expiry.false==0`, `server.cpu_s<=10`.
//!
//! A path names the numbers of the report as its JSON does. A name's unit may be left out where the
//! bound has one: `rtt.p99<5ms` is `rtt_us.p99<5000`.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::report::{EventSection, Report};
use crate::units;

/// A parsed expression.
#[derive(Clone, Debug)]
pub struct Slo {
    text: String,
    path: Vec<String>,
    relation: Relation,
    bound: Bound,
}

/// What became of an expression.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SloOutcome {
    /// As it was written.
    pub expression: String,
    /// Whether it holds; what has no value does not.
    pub holds: bool,
    /// The value in the report's own unit.
    pub value: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Relation {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
    NotEqual,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    Plain(f64),
    Seconds(f64),
    Bytes(f64),
}

const RELATIONS: [(&str, Relation); 7] = [
    ("<=", Relation::AtMost),
    (">=", Relation::AtLeast),
    ("==", Relation::Equal),
    ("!=", Relation::NotEqual),
    ("<", Relation::Less),
    (">", Relation::More),
    ("=", Relation::Equal),
];

/// The units that names in a report end in, with what one of them is in seconds or bytes.
const UNITS: [(&str, f64); 4] = [("_us", 1e-6), ("_ms", 1e-3), ("_s", 1.0), ("_bytes", 1.0)];

/// Parses an expression.
///
/// # Errors
/// If it is none.
pub fn parse(text: &str) -> Result<Slo> {
    let at = text.find(['<', '>', '=', '!']).context("no <, <=, >, >=, == or !=")?;
    let (path, rest) = text.split_at(at);
    let Some((sign, relation)) = RELATIONS.into_iter().find(|(sign, _)| rest.starts_with(sign))
    else {
        bail!("no <, <=, >, >=, == or !=");
    };
    let path: Vec<String> = path.trim().split('.').map(str::to_owned).collect();
    ensure!(path.iter().all(|name| !name.is_empty()), "an empty name in the path");
    let bound = parse_bound(&rest[sign.len()..])?;
    Ok(Slo { text: text.to_owned(), path, relation, bound })
}

fn parse_bound(text: &str) -> Result<Bound> {
    let (number, unit) = units::split(text)?;
    Ok(match unit {
        "" => Bound::Plain(number),
        "k" => Bound::Plain(number * 1e3),
        "%" => Bound::Plain(number / 100.0),
        "B" => Bound::Bytes(number),
        "KiB" => Bound::Bytes(number * 1024.0),
        "MiB" => Bound::Bytes(number * 1024.0 * 1024.0),
        "GiB" => Bound::Bytes(number * 1024.0 * 1024.0 * 1024.0),
        _ => Bound::Seconds(units::parse_duration(text)?.as_secs_f64()),
    })
}

impl Slo {
    /// Whether the report of a run with so many events has such a number, of a fitting unit.
    ///
    /// # Errors
    /// If it has none.
    pub fn check(&self, events: usize) -> Result<()> {
        let events = vec![EventSection::default(); events];
        let empty = serde_json::to_value(Report { events, ..Report::default() })?;
        let found = find(&empty, &self.path)
            .with_context(|| format!("--slo '{}': the report has no such number", self.text))?;
        ensure!(
            matches!(found.value, Value::Null | Value::Number(_)),
            "--slo '{}': that is no number",
            self.text
        );
        let fits = match (self.bound, found.unit) {
            (Bound::Plain(_), _) => true,
            (Bound::Seconds(_), Some((unit, _))) => unit != "_bytes",
            (Bound::Bytes(_), Some((unit, _))) => unit == "_bytes",
            (_, None) => false,
        };
        ensure!(fits, "--slo '{}': that number has another unit", self.text);
        Ok(())
    }

    /// The unit that its number has in a report, if that has it: `_us`, `_ms`, `_s` or `_bytes`.
    pub fn unit(&self, report: &Value) -> Option<&'static str> {
        find(report, &self.path)?.unit.map(|(unit, _)| unit)
    }

    /// Holds it against a report.
    pub fn judge(&self, report: &Value) -> SloOutcome {
        let found = find(report, &self.path);
        let value = found.as_ref().and_then(|found| found.value.as_f64());
        let bound = match (self.bound, found.and_then(|found| found.unit)) {
            (Bound::Plain(bound), _) => bound,
            (Bound::Seconds(bound) | Bound::Bytes(bound), unit) => {
                bound / unit.map_or(1.0, |(_, one)| one)
            }
        };
        let holds = value.is_some_and(|value| match self.relation {
            Relation::Less => value < bound,
            Relation::AtMost => value <= bound,
            Relation::More => value > bound,
            Relation::AtLeast => value >= bound,
            Relation::Equal => (value - bound).abs() < 1e-9,
            Relation::NotEqual => (value - bound).abs() >= 1e-9,
        });
        SloOutcome { expression: self.text.clone(), holds, value }
    }
}

/// What the value of an expression is counted in by the report: `us`, `ms`, `s` or `bytes`.
pub fn unit_of(expression: &str, report: &Value) -> Option<&'static str> {
    let slo = parse(expression).ok()?;
    Some(find(report, &slo.path)?.unit?.0.trim_start_matches('_'))
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

struct Found<'a> {
    value: &'a Value,
    unit: Option<(&'static str, f64)>,
}

/// A number that counts by reason is 0 while its reason has not occurred.
static ZERO: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| Value::from(0));
/// The objects of a report whose names are reasons.
const BY_REASON: [&str; 5] = ["failed", "closed_by_server", "rearmed", "missing_by", "dropped"];

fn find<'a>(report: &'a Value, path: &[String]) -> Option<Found<'a>> {
    let mut found = Found { value: report, unit: None };
    let mut above = "";
    for name in path {
        if let Some(entries) = found.value.as_array() {
            let number: usize = name.parse().ok()?;
            found = Found { value: entries.get(number)?, unit: found.unit };
            continue;
        }
        let object = found.value.as_object()?;
        let with_unit = UNITS
            .into_iter()
            .find_map(|unit| Some((object.get(&format!("{name}{}", unit.0))?, Some(unit))));
        let (value, unit) = match (object.get(name), with_unit) {
            (Some(value), _) => (value, own_unit(name)),
            (None, Some(with_unit)) => with_unit,
            (None, None) if BY_REASON.contains(&above) => (&*ZERO, None),
            (None, None) => return None,
        };
        found = Found { value, unit: unit.or(found.unit) };
        above = name;
    }
    Some(found)
}

/// The unit that a whole name states: `max_us`, `cpu_us_per_heartbeat`, but not `rate_per_s`.
fn own_unit(name: &str) -> Option<(&'static str, f64)> {
    let measure = name.split_once("_per_").map_or(name, |(measure, _)| measure);
    UNITS.into_iter().find(|(unit, _)| measure.ends_with(unit))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(expression: &str) -> bool {
        let report = json!({
            "rtt_us": {"p99": 4_900, "max": null},
            "expiry": {"false": 0, "lateness_ms": {"max": 104.5}},
            "server": {"cpu_s": 8.5, "rss_bytes": 1_048_576},
            "connections": {"opened": 200_000, "failed": {"reset": 3}},
        });
        parse(expression).unwrap().judge(&report).holds
    }

    #[test]
    fn units_are_converted_to_the_reports_own() {
        assert!(holds("rtt.p99<5ms") && holds("rtt_us.p99<5000") && holds("rtt.p99 <= 4900us"));
        assert!(!holds("rtt.p99<4ms") && !holds("rtt.p99>5ms"));
        assert!(holds("expiry.lateness_ms.max<=200ms") && holds("expiry.lateness.max<0.2s"));
        assert!(holds("server.cpu<10s") && holds("server.cpu_s<10") && holds("server.rss<=1MiB"));
    }

    #[test]
    fn counts_and_reasons() {
        assert!(holds("connections.opened>=200k") && holds("expiry.false==0"));
        assert!(holds("connections.failed.reset<=3") && holds("connections.failed.refused=0"));
        assert!(!holds("connections.failed.reset!=3"));
    }

    #[test]
    fn what_has_no_value_does_not_hold() {
        assert!(!holds("rtt.max<1h") && !holds("rtt.nonsense<1h"));
    }

    #[test]
    fn a_real_report_has_these_numbers() {
        for good in [
            "rtt.p999<5ms",
            "expiry.lateness_ms.max<=200",
            "expiry.missed==0",
            "kernel.softnet_drops==0",
            "server.rss_bytes_per_connection<128",
            "server.cpu_us_per_heartbeat<20us",
            "generator.rss_bytes<1GiB",
            "connections.failed.reset==0",
            "connect.rate_per_s>=40k",
            "events.0.recovered_after_ms<30000",
            "events.0.recovered_after<30s",
            "events.0.rtt_p999_ratio<=3",
            "push.latency.max<15s",
            "push.server.dropped.stalled==0",
            "push.server.pending==0",
        ] {
            parse(good).unwrap().check(1).unwrap();
        }
        for bad in
            ["rtt.p98<5ms", "rtt<5ms", "rtt.p99<5MiB", "expiry.false<5ms", "connect.rate_per_s<5ms"]
        {
            assert!(parse(bad).unwrap().check(1).is_err(), "{bad}");
        }
        for bad in ["rtt.p99", "<5", "a..b<5", "a<x", "a!5"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
