//! `--hdr`: an interval log that HdrHistogram's own reader reads, and that holds what the report
//! says.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may as well panic")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

#[path = "generator/files.rs"]
mod files;
mod generator;
mod rogue;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use files::{Folder, again_while_void};
use generator::{Outcome, finish, start, turn};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use rogue::{Manners, serve};

/// The sum of each tag, and the intervals that it has lines for.
fn read(log: &str) -> BTreeMap<String, (Histogram<u64>, Vec<u64>)> {
    let mut found: BTreeMap<String, (Histogram<u64>, Vec<u64>)> = BTreeMap::new();
    let mut based = false;
    for entry in IntervalLogIterator::new(log.as_bytes()) {
        match entry.unwrap() {
            LogEntry::StartTime(at) | LogEntry::BaseTime(at) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                assert!(at < now && now - at < Duration::from_secs(600), "{at:?}");
                based = true;
            }
            LogEntry::Interval(line) => {
                assert!(based, "times count from something");
                assert_eq!(line.duration(), Duration::from_secs(1));
                let engine = base64::engine::general_purpose::STANDARD;
                let bytes = engine.decode(line.encoded_histogram()).unwrap();
                let histogram: Histogram<u64> =
                    Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
                assert!((line.max() * 1e3 - histogram.max() as f64).abs() < 1.0, "in milliseconds");
                let tag = line.tag().unwrap().to_string();
                let begun = line.start_timestamp();
                assert_eq!(begun.subsec_millis(), 0, "whole seconds from the start");
                match found.get_mut(&tag) {
                    Some((sum, intervals)) => {
                        sum.add(&histogram).unwrap();
                        intervals.push(begun.as_secs());
                    }
                    None => drop(found.insert(tag, (histogram, vec![begun.as_secs()]))),
                }
            }
        }
    }
    found
}

#[test]
fn the_log_holds_second_by_second_what_the_report_sums_up() {
    let address = serve(Manners::GOOD);
    let folder = Folder::new();
    let _turn = turn();
    let flags = format!(
        "--target tcp://{address} -c 60 --connect-rate 60 --silent 10% -d 4s --threads 2 --hdr {}",
        folder.file("log.hdr")
    );
    let is_void = |outcome: &Outcome| outcome.code == Some(101);
    let outcome = again_while_void(is_void, || finish(start(&flags)));
    assert_eq!(outcome.code, Some(0), "{} {}", outcome.stderr, outcome.report);
    let tags = read(&fs::read_to_string(folder.file("log.hdr")).unwrap());
    for (tag, summary) in [
        ("rtt", "rtt_us"),
        ("connect", "connect.latency_us"),
        ("send_lateness", "generator.send_lateness_us"),
    ] {
        let (sum, intervals) = &tags[tag];
        assert_eq!(sum.len() as f64, outcome.number(&format!("{summary}.count")), "{tag}");
        // The report knows the longest exactly, a histogram to its precision.
        for (name, percentile) in [("p50", 50.0), ("p99", 99.0)] {
            let expected = outcome.number(&format!("{summary}.{name}"));
            let longest = outcome.number(&format!("{summary}.max"));
            let found = (sum.value_at_percentile(percentile) as f64).min(longest);
            assert!((found - expected).abs() < 1.0, "{tag} {name}: {found}, {expected}");
        }
        assert!(intervals.is_sorted(), "{tag}: {intervals:?}");
    }
    assert_eq!(tags["expiry_lateness"].0.len(), 6);
    // Connecting takes a second, and the steady state at least four.
    assert!((1..=2).contains(&tags["connect"].1.len()), "{:?}", tags["connect"].1);
    let seconds = tags["rtt"].1.len();
    assert!((4..=7).contains(&seconds) && !tags["rtt"].1.contains(&0), "{:?}", tags["rtt"].1);
    assert_eq!(tags.len(), 4);
    windows_add_up(&folder.file("log.hdr"), &tags["rtt"].0);
}

/// `scripts/hdr-windows`: two windows have all that the log has.
fn windows_add_up(log: &str, whole: &Histogram<u64>) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/hdr-windows");
    let told = Command::new(script).args([log, "0-3", "3-600"]).output();
    let Some(told) = told.ok().filter(|told| told.status.code() != Some(3)) else {
        eprintln!("NOT TESTED: scripts/hdr-windows needs python3 and hdrhistogram from PyPI");
        return;
    };
    let text = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&told.stderr));
    // "     0 to      3 s       1,234      1.5 …": count, p50, p99, p99.9, max.
    let rows: Vec<Vec<f64>> = text
        .lines()
        .skip(1)
        .map(|line| {
            let (_, numbers) = line.split_once(" s ").expect("a window, then numbers");
            numbers.split_whitespace().map(|n| n.replace(',', "").parse().unwrap()).collect()
        })
        .collect();
    let longest_ms = rows.iter().map(|row| row[4]).fold(0.0, f64::max);
    assert_eq!(rows.len(), 2, "{text}");
    assert_eq!(rows[0][0] + rows[1][0], whole.len() as f64, "{text}");
    // Two digits of precision there, and a tenth of a millisecond written.
    let expected_ms = whole.max() as f64 / 1e3;
    assert!((longest_ms - expected_ms).abs() <= 0.1 + expected_ms / 50.0, "{text} {expected_ms}");
}

#[test]
fn a_log_that_cannot_be_written_is_a_complaint_before_the_run() {
    let address = serve(Manners::GOOD);
    let _turn = turn();
    let flags = format!("--target tcp://{address} -c 5 -d 1s --hdr /nowhere/at/all");
    let outcome = finish(start(&flags));
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("/nowhere/at/all"), "{}", outcome.stderr);
}

/// Written at once, a line at a time: what a run has measured does not go with it.
#[test]
fn a_full_disk_does_not_cost_the_report() {
    if !std::path::Path::new("/dev/full").exists() {
        eprintln!("NOT TESTED: there is no /dev/full");
        return;
    }
    let address = serve(Manners::GOOD);
    let _turn = turn();
    let flags = format!("--target tcp://{address} -c 5 -d 1s --hdr /dev/full");
    let is_void = |outcome: &Outcome| outcome.code == Some(101);
    let outcome = again_while_void(is_void, || finish(start(&flags)));
    assert_eq!(outcome.code, Some(99), "{}", outcome.stderr);
    assert!(outcome.report["reasons"].to_string().contains("/dev/full"), "{}", outcome.report);
    assert!(outcome.number("heartbeats.acked") > 0.0);
}
