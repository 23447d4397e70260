//! Which numbers of a report matter, which way they get better, and what change of them is none.

use anyhow::{Context, Result, ensure};

use crate::units;

/// Which way a number gets better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// When it falls.
    Less,
    /// When it rises.
    More,
    /// When it falls; but it hangs on a single moment, so it is judged only if `--allow` names it.
    LessIfAllowed,
}

use Better::{Less, LessIfAllowed, More};

/// One number.
#[derive(Clone, Debug)]
pub struct Rule {
    /// As the report's JSON names it.
    pub path: String,
    pub better: Better,
    /// A change by no more than this, in the number's own unit, is none.
    pub floor: f64,
}

const RULES: [(&str, Better, f64); 49] = [
    ("connections.opened", More, 0.0),
    ("connections.failed", Less, 0.0),
    ("connect.rate_per_s", More, 0.0),
    ("connect.behind_plan_s", Less, 0.5),
    ("connect.latency_us.p50", Less, 100.0),
    ("connect.latency_us.p99", Less, 100.0),
    ("connect.latency_us.max", LessIfAllowed, 100.0),
    ("heartbeats.rate_per_s", More, 0.0),
    ("heartbeats.missing", Less, 0.0),
    ("heartbeats.sent_late", Less, 100.0),
    ("heartbeats.peak_to_mean", Less, 0.1),
    ("rtt_us.p50", Less, 50.0),
    ("rtt_us.p90", Less, 50.0),
    ("rtt_us.p99", Less, 50.0),
    ("rtt_us.p999", Less, 50.0),
    ("rtt_us.max", LessIfAllowed, 50.0),
    ("expiry.missed", Less, 0.0),
    ("expiry.false", Less, 0.0),
    ("expiry.our_delay", Less, 0.0),
    ("expiry.undecided", Less, 0.0),
    ("expiry.lateness_ms.p50", Less, 1.0),
    ("expiry.lateness_ms.p99", Less, 1.0),
    ("expiry.lateness_ms.max", LessIfAllowed, 1.0),
    ("push.missing", Less, 0.0),
    ("push.duplicates", Less, 0.0),
    ("push.latency_us.p50", Less, 100.0),
    ("push.latency_us.p99", Less, 100.0),
    ("push.latency_us.max", LessIfAllowed, 100.0),
    ("reconnect.away", Less, 0.0),
    ("reconnect.failed", Less, 0.0),
    ("reconnect.latency_us.p99", Less, 100.0),
    ("slow.closed_by_server", Less, 0.0),
    ("server.cpu_us_per_heartbeat", Less, 0.1),
    ("server.cpu_cores", LessIfAllowed, 0.01),
    ("server.rss_bytes_per_connection", Less, 1.0),
    ("server.rss_idle_bytes", LessIfAllowed, 1e6),
    ("generator.cpu_us_per_heartbeat", Less, 0.1),
    ("generator.rss_bytes_per_connection", Less, 1.0),
    ("generator.send_lateness_us.p99", Less, 500.0),
    ("generator.send_lateness_us.max", LessIfAllowed, 500.0),
    ("generator.send_errors", Less, 0.0),
    ("kernel.bytes_per_connection", Less, 16.0),
    ("kernel.listen_overflows", Less, 0.0),
    ("kernel.listen_drops", Less, 0.0),
    ("kernel.retransmits", Less, 10.0),
    ("kernel.syncookies_sent", Less, 0.0),
    ("kernel.memory_pressures", Less, 0.0),
    ("kernel.softnet_drops", Less, 0.0),
    ("kernel.softnet_squeezed", LessIfAllowed, 0.0),
];

const OF_AN_EVENT: [(&str, Better, f64); 3] = [
    ("recovered_after_ms", Less, 100.0),
    ("rtt_p999_during_us", Less, 500.0),
    ("rtt_p999_ratio", Less, 0.2),
];

/// The rules for reports of so many events.
pub fn rules(events: usize) -> Vec<Rule> {
    let rule = |path: String, better, floor| Rule { path, better, floor };
    let of_all = RULES.map(|(path, better, floor)| rule(path.to_owned(), better, floor));
    let of_events = (0..events).flat_map(|event| {
        OF_AN_EVENT
            .map(|(name, better, floor)| rule(format!("events.{event}.{name}"), better, floor))
    });
    of_all.into_iter().chain(of_events).collect()
}

/// `--allow PATH=P`.
#[derive(Clone, Debug, PartialEq)]
pub struct Allowance {
    pub path: String,
    /// The share by which these numbers may get worse.
    pub share: f64,
}

/// Parses `rtt.p99=25%`.
///
/// # Errors
/// If it is something else, or no number that is judged has such a path.
pub fn parse_allowance(text: &str) -> Result<Allowance> {
    let (path, share) = text.split_once('=').context("write it like rtt.p99=25%")?;
    let allowance = Allowance { path: path.trim().to_owned(), share: parse_tolerance(share)? };
    let known = rules(crate::limits::EVENTS_MAX).iter().any(|rule| allowance.covers(&rule.path));
    ensure!(known, "no number that is compared has the path `{path}`");
    Ok(allowance)
}

/// Parses a share that may be more than all: `10%`, `2.5`.
///
/// # Errors
/// If it is something else.
pub fn parse_tolerance(text: &str) -> Result<f64> {
    let (number, unit) = units::split(text)?;
    let share = match unit {
        "%" => number / 100.0,
        "" => number,
        _ => anyhow::bail!("`{unit}` is no unit of shares; use %"),
    };
    ensure!(share.is_finite() && share >= 0.0, "`{text}` is out of range");
    Ok(share)
}

impl Allowance {
    /// Whether it is for the number at `path`, or for all below it. As in an SLO, a name's unit may
    /// be left out.
    pub fn covers(&self, path: &str) -> bool {
        let bare = |name: &str| {
            let units = ["_us", "_ms", "_s", "_bytes"];
            let found = units.into_iter().find_map(|unit| name.strip_suffix(unit));
            found.unwrap_or(name).to_owned()
        };
        let mut names = path.split('.');
        self.path
            .split('.')
            .all(|wanted| names.next().is_some_and(|name| name == wanted || bare(name) == wanted))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::report::{EventSection, Report};

    /// A rule whose number was renamed would never find anything again.
    #[test]
    fn every_rule_is_for_a_number_of_the_report() {
        let report = Report { events: vec![EventSection::default()], ..Report::default() };
        let report = serde_json::to_value(report).unwrap();
        for rule in rules(1) {
            let pointer = format!("/{}", rule.path.replace('.', "/"));
            let found = report.pointer(&pointer).unwrap_or_else(|| panic!("{}", rule.path));
            assert!(matches!(found, Value::Null | Value::Number(_) | Value::Object(_)));
        }
    }

    #[test]
    fn allowances_cover_what_they_name() {
        let allowance = parse_allowance("rtt.p99=25%").unwrap();
        assert!(allowance.covers("rtt_us.p99") && (allowance.share - 0.25).abs() < 1e-9);
        assert!(!allowance.covers("rtt_us.p999") && !allowance.covers("push.latency_us.p99"));
        assert!(parse_allowance("connect.latency=2").unwrap().covers("connect.latency_us.p50"));
        assert!(parse_allowance("events.0.recovered_after=300%").is_ok());
        for bad in ["rtt.p99", "rtt.p98=5%", "rtt.p99=-5%", "rtt.p99=5ms", "=5%"] {
            assert!(parse_allowance(bad).is_err(), "{bad}");
        }
    }
}
