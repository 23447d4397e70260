//! `--part K/N` and `loadgen merge`: several generators play one plan at a time, and what they
//! report is joined.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may as well panic")]

#[path = "generator/files.rs"]
mod files;
mod generator;
mod rogue;

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use files::{Folder, again_while_void};
use generator::{Outcome, finish, start, turn};
use rogue::{Manners, serve};
use serde_json::{Value, json};

const PARTS: usize = 3;

fn soon() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3
}

/// All parts of one plan, at a time, against one server.
fn play(folder: &Folder, flags: &str) -> Vec<Outcome> {
    let _turn = turn();
    let is_void =
        |outcomes: &Vec<Outcome>| outcomes.iter().any(|outcome| outcome.code == Some(101));
    again_while_void(is_void, || play_once(folder, flags))
}

fn play_once(folder: &Folder, flags: &str) -> Vec<Outcome> {
    let address = serve(Manners::GOOD);
    let start_at = soon();
    let children: Vec<_> = (1..=PARTS)
        .map(|part| {
            start(&format!(
                "--target tcp://{address} --part {part}/{PARTS} --start-at {start_at} --threads 2 \
                 --hdr {} {flags}",
                folder.file(&format!("{part}.hdr"))
            ))
        })
        .collect();
    let outcomes: Vec<Outcome> = children.into_iter().map(finish).collect();
    for (number, outcome) in outcomes.iter().enumerate() {
        assert!(outcome.report.is_object(), "{}", outcome.stderr);
        folder.write(&format!("{}.json", number + 1), &outcome.report);
    }
    outcomes
}

fn sum(outcomes: &[Outcome], path: &str) -> f64 {
    outcomes.iter().map(|outcome| outcome.number(path)).sum()
}

fn number(report: &Value, path: &str) -> f64 {
    let value = path.split('.').fold(report, |value, name| &value[name]);
    value.as_f64().unwrap_or_else(|| panic!("{path} is {value}"))
}

#[track_caller]
fn expect_refusal(folder: &Folder, words: &str, complaint: &str) {
    let (code, out, err) = folder.loadgen(&format!("merge {words}"));
    assert_eq!(code, Some(2), "{words}: {out} {err}");
    assert!(err.contains(complaint), "{words}: {err}");
}

/// Changes a report, under another name.
fn changed(folder: &Folder, from: &str, to: &str, change: impl FnOnce(&mut Value)) {
    let text = fs::read_to_string(folder.path().join(from)).unwrap();
    let mut report = serde_json::from_str(&text).unwrap();
    change(&mut report);
    folder.write(to, &report);
}

#[test]
fn all_parts_together_are_the_plan() {
    let folder = Folder::new();
    // 61 clients on three generators, 6 of which fall silent; each part alone has too few, and
    // the sum has enough.
    let outcomes = play(
        &folder,
        "-c 61 --connect-rate 61 --silent 10% -d 3s --at 1s:storm:20% --slo connections.opened>=61",
    );
    let opened: Vec<f64> = outcomes.iter().map(|o| o.number("connections.opened")).collect();
    assert_eq!(opened, [21.0, 20.0, 20.0], "{}", outcomes[0].stderr);
    assert!(outcomes.iter().all(|o| o.code == Some(99)), "no part has 61: {}", outcomes[0].report);
    for outcome in &outcomes {
        assert_eq!(outcome.report["requested"], outcomes[0].report["requested"]);
        let late =
            outcome.number("times.steady_unix_s") - outcomes[0].number("times.steady_unix_s");
        assert!(
            late.abs() < 1.0 || outcome.report["notes"].to_string().contains("later"),
            "{late}"
        );
    }

    let (code, out, err) = folder.loadgen(
        "merge 3.json 1.json 2.json --hdr 3.hdr 1.hdr 2.hdr -o all.json --html all.html \
         --hdr-out all.hdr",
    );
    let merged = fs::read_to_string(folder.path().join("all.json")).unwrap();
    let merged: Value = serde_json::from_str(&merged).unwrap();
    assert_eq!(code, Some(0), "{out} {err} {merged}");
    assert!(out.trim_start().starts_with("PASSED: 61 of 61 clients open, 6 of 6 silent"), "{out}");
    assert_eq!((&merged["version"], &merged["part"]), (&json!(1), &Value::Null));
    assert_eq!(merged["parts"].as_array().unwrap().len(), PARTS);
    assert!(merged["notes"].to_string().contains("part 2 alone: SLO connections.opened>=61"));
    for (path, expected) in [
        ("connections.requested", 61.0),
        ("connections.opened", 61.0),
        ("expiry.silenced", 6.0),
        ("expiry.expired", 6.0),
        ("expiry.false", 0.0),
    ] {
        assert!((number(&merged, path) - expected).abs() < 0.5, "{path}: {merged}");
    }
    for path in [
        "heartbeats.sent",
        "heartbeats.acked",
        "rtt_us.count",
        "connect.latency_us.count",
        "generator.send_lateness_us.count",
        "reconnect.killed",
        "generator.bytes_sent",
        "heartbeats.rate_per_s",
        "generator.cpu_s",
    ] {
        let expected = sum(&outcomes, path);
        let found = number(&merged, path);
        assert!(expected > 0.0 && (found - expected).abs() < 1e-3, "{path}: {found} {expected}");
    }
    let longest = outcomes.iter().map(|o| o.number("rtt_us.max")).fold(0.0, f64::max);
    assert_eq!(number(&merged, "rtt_us.max"), longest);
    let medians = outcomes.iter().map(|o| o.number("rtt_us.p50"));
    let (least, most) = (medians.clone().fold(f64::MAX, f64::min), medians.fold(0.0, f64::max));
    let median = number(&merged, "rtt_us.p50");
    assert!((least..=most).contains(&median), "{median} of {least} to {most}");
    let storm = &merged["events"][0];
    assert_eq!(storm["affected"].as_f64(), Some(number(&merged, "reconnect.killed")));
    assert!(merged["laws"].to_string().contains("silent by plan = silenced"));
    assert!(merged["laws"].as_array().unwrap().iter().all(|law| law["holds"] == true), "{merged}");

    let series = &merged["series"];
    let p99 = series["rtt_p99_us"].as_array().unwrap();
    assert!(p99.iter().filter(|value| value.is_number()).count() >= 3, "from the logs: {series}");
    let page = fs::read_to_string(folder.path().join("all.html")).unwrap();
    assert!(page.contains(">passed</span>61 of 61") && page.contains("loadgen merge 3.json"));
    assert!(page.contains("part 3 of 3") && page.contains("20 of 20"), "each generator");
    let log = fs::read_to_string(folder.path().join("all.hdr")).unwrap();
    assert!(log.lines().filter(|line| line.starts_with("Tag=rtt,")).count() >= 3, "{log}");
    let (code, out, err) = folder.loadgen("diff all.json all.json");
    assert_eq!(code, Some(0), "{out} {err}");

    refuses_what_is_not_the_parts_of_one_plan(&folder);
    the_worst_verdict_counts(&folder);
}

fn refuses_what_is_not_the_parts_of_one_plan(folder: &Folder) {
    expect_refusal(folder, "1.json 3.json", "parts are missing: 2/3");
    expect_refusal(folder, "1.json 2.json 2.json", "2.json and 2.json are both part 2 of 3");
    expect_refusal(folder, "all.json", "all.json is the report of a whole plan");
    expect_refusal(folder, "1.json 2.json 3.json --hdr 1.hdr 2.hdr", "2 HDR logs for 3 reports");
    let swapped = "1.json 2.json 3.json --hdr 2.hdr 1.hdr 3.hdr";
    expect_refusal(folder, swapped, "is it the log of another run?");
    expect_refusal(folder, "1.json 2.json 3.json --hdr 1.hdr 2.hdr 3.json", "no interval log");
    let change = |change: fn(&mut Value)| changed(folder, "2.json", "other.json", change);
    change(|report| {
        report["seed"] = json!(2);
        report["requested"]["connections"] = json!(62);
        report["target"] = json!("tcp://192.0.2.1:1");
    });
    expect_refusal(
        folder,
        "1.json other.json 3.json",
        "the seed is 1 in 1.json and 2 in other.json",
    );
    expect_refusal(folder, "1.json other.json 3.json", "the requested connections is 61 in 1.json");
    expect_refusal(folder, "1.json other.json 3.json", "the target is tcp://127.0.0.1:");
    change(|report| report["part"]["of"] = json!(4));
    expect_refusal(folder, "1.json other.json 3.json", "the number of parts is 3 in 1.json and 4");
    changed(folder, "1.json", "huge.json", |r| r["part"] = json!({"number": 1, "of": u32::MAX}));
    expect_refusal(folder, "huge.json", "huge.json is part 1 of 4294967295");
    change(|report| report["histograms"]["rtt"] = Value::Null);
    expect_refusal(folder, "1.json other.json 3.json", "part 2: a histogram of 0 values");
    change(|report| report["histograms"]["rtt"]["v2_deflate"] = json!("bm9uc2Vuc2U="));
    expect_refusal(folder, "1.json other.json 3.json", "part 2: a histogram that cannot be read");
}

fn the_worst_verdict_counts(folder: &Folder) {
    let merged = |change: fn(&mut Value)| {
        changed(folder, "2.json", "worse.json", change);
        let (code, out, err) = folder.loadgen("merge 1.json worse.json 3.json -o -");
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out} {err}"));
        (code, report["reasons"].to_string())
    };
    let (code, reasons) = merged(|report| {
        report["verdict"] = json!("void");
        report["exit_code"] = json!(101);
        report["generator"]["saturated_by"] = json!("late");
    });
    assert_eq!(code, Some(101), "{reasons}");
    assert!(reasons.contains("the generator was the bottleneck: part 2: late"), "{reasons}");
    let (code, reasons) = merged(|report| report["verdict"] = json!("interrupted"));
    assert_eq!(code, Some(105), "{reasons}");
    assert!(reasons.contains("interrupted: part 2"), "{reasons}");
    // A law that one part broke, however the numbers add up.
    let (code, reasons) = merged(|report| report["laws"][2]["holds"] = json!(false));
    assert_eq!(code, Some(99), "{reasons}");
    assert!(reasons.contains("law: heartbeats sent = answered"), "{reasons}");
    let (code, reasons) = merged(|report| {
        report["connections"]["opened"] = json!(19);
        report["histograms"]["connect"] = json!(null);
        report["connect"]["latency_us"]["count"] = json!(0);
    });
    assert_eq!(code, Some(100), "{reasons}");
    assert!(reasons.contains("60 of 61 connections were opened"), "{reasons}");
    // A client that fell silent nowhere is missed in the sum only.
    let (code, reasons) = merged(|report| {
        let silenced = report["expiry"]["silenced"].as_u64().unwrap();
        report["expiry"]["silenced"] = json!(silenced - 1);
    });
    assert_eq!(code, Some(99), "{reasons}");
    assert!(reasons.contains("law: silent by plan = silenced (6 against 5)"), "{reasons}");
}

#[test]
fn a_part_that_cannot_be_played_is_refused() {
    let folder = Folder::new();
    let ahead = soon() + 60;
    for (flags, complaint) in [
        (format!("--part 2/3 --start-at {ahead}"), "--target"),
        ("--part 2/3 --target tcp://127.0.0.1:7".to_owned(), "--start-at"),
        (format!("--part 4/3 --start-at {ahead} --target tcp://127.0.0.1:7"), "1/3 to 3/3"),
        (format!("--part 3/3 -c 2 --start-at {ahead} --target tcp://127.0.0.1:7"), "no clients"),
        ("--start-at 2001-01-01T00:00:00Z".to_owned(), "in the past"),
        ("--start-at 2999-01-01T00:00:00Z".to_owned(), "more than"),
        (
            format!(
                "--part 1/2 --start-at {ahead} --target tcp://127.0.0.1:7 --target-admin \
                 127.0.0.1:8 --at 1s:drain"
            ),
            "one request for the whole server",
        ),
    ] {
        let (code, out, err) = folder.loadgen(&flags);
        assert_eq!(code, Some(2), "{flags}: {out} {err}");
        assert!(err.contains(complaint), "{flags}: {err}");
    }
}
