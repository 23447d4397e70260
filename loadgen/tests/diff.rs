//! `loadgen diff`: the report of a real run against itself, and against what it might have been.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may as well panic")]

#[path = "generator/files.rs"]
mod files;
mod generator;
mod rogue;

use std::sync::OnceLock;

use files::{Folder, again_while_void};
use generator::{Outcome, finish, start, turn};
use rogue::{Manners, serve};
use serde_json::{Value, json};

/// The report of a run that passed.
fn report() -> Value {
    static REPORT: OnceLock<Value> = OnceLock::new();
    let run = || {
        let address = serve(Manners::GOOD);
        let _turn = turn();
        let flags = format!("--target tcp://{address} -c 40 --silent 10% -d 1s --slo rtt.p99<10s");
        let is_void = |outcome: &Outcome| outcome.code == Some(101);
        let outcome = again_while_void(is_void, || finish(start(&flags)));
        assert_eq!(outcome.code, Some(0), "{} {}", outcome.stderr, outcome.report);
        assert!(outcome.number("expiry.expired") > 3.5, "{}", outcome.report);
        outcome.report
    };
    REPORT.get_or_init(run).clone()
}

/// What diff says if that report becomes another one: exit code, standard output and error.
fn diff(change: impl FnOnce(&mut Value), flags: &str) -> (Option<i32>, String, String) {
    let folder = Folder::new();
    let mut new = report();
    folder.write("old.json", &new);
    change(&mut new);
    folder.write("new.json", &new);
    folder.loadgen(format!("diff old.json new.json {flags}").trim())
}

/// Multiplies the numbers at these pointers.
fn times(report: &mut Value, factor: f64, pointers: &[&str]) {
    for pointer in pointers {
        let number = report.pointer_mut(pointer).unwrap();
        // Far above what counts as noise, whatever it was.
        let changed = (number.as_f64().unwrap() + 1e6) * factor;
        *number = if number.is_u64() { json!(changed as u64) } else { json!(changed) };
    }
}

#[test]
fn a_run_is_no_worse_than_itself() {
    let (code, out, err) = diff(|_| {}, "");
    assert_eq!(code, Some(0), "{out} {err}");
    assert!(out.starts_with("NO REGRESSION: 0 worse, 0 better, "), "{out}");
    assert!(!out.contains("unlike"), "{out}");
    assert!(out.contains("0 in both: connections.failed, ") && !out.contains("-0"), "{out}");
    for number in ["rtt_us.p99 ", "connections.opened ", "expiry.lateness_ms.p50 "] {
        assert!(out.contains(number), "{number}: {out}");
    }
}

#[test]
fn slower_is_worse_and_tolerances_say_by_how_much() {
    let p99 = |factor| move |report: &mut Value| times(report, factor, &["/rtt_us/p99"]);
    let (code, out, _) = diff(p99(1.5), "");
    assert_eq!(code, Some(99), "{out}");
    assert!(out.starts_with("REGRESSED: 1 worse") && out.contains("  ! rtt_us.p99: "), "{out}");

    // The old one is a million smaller: judge against a report that is as large.
    let folder = Folder::new();
    let (mut old, mut new) = (report(), report());
    times(&mut old, 1.0, &["/rtt_us/p99", "/heartbeats/rate_per_s"]);
    times(&mut new, 1.2, &["/rtt_us/p99"]);
    times(&mut new, 0.8, &["/heartbeats/rate_per_s"]);
    folder.write("old.json", &old);
    folder.write("new.json", &new);
    for (flags, code, worse) in [
        ("", 99, 2),
        (" --tolerance 25%", 0, 0),
        (" --allow rtt.p99=25%", 99, 1),
        (" --allow rtt.p99=25% --allow heartbeats=25%", 0, 0),
        (" --tolerance 25% --allow rtt.p99=10%", 99, 1),
        (" --allow rtt=10% --allow rtt.p99=25% --allow heartbeats.rate_per_s=1", 0, 0),
    ] {
        let (found, out, err) = folder.loadgen(&format!("diff old.json new.json{flags}"));
        assert_eq!(found, Some(code), "{flags}: {out} {err}");
        assert!(out.contains(&format!(": {worse} worse, 0 better")), "{flags}: {out}");
    }
    // What got worse one way has got better the other.
    let (code, out, _) = folder.loadgen("diff new.json old.json");
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains(" 2 better"), "{out}");
}

#[test]
fn one_false_expiry_is_worse_than_none() {
    let (code, out, _) = diff(|report| report["expiry"]["false"] = json!(1), "--tolerance 1000%");
    assert_eq!(code, Some(99), "{out}");
    assert!(out.contains("! expiry.false: 0 -> 1 (from 0, "), "{out}");
}

#[test]
fn laws_and_slos_and_the_verdict_have_no_tolerance() {
    let broken = |report: &mut Value| {
        report["laws"][0]["holds"] = json!(false);
        report["slo"][0]["holds"] = json!(false);
        report["verdict"] = json!("failed");
        report["exit_code"] = json!(99);
        report["reasons"] = json!(["law: it was"]);
    };
    let (code, out, _) = diff(broken, "--tolerance 1000%");
    assert_eq!(code, Some(99), "{out}");
    assert!(out.contains("! verdict: passed -> failed (law: it was)"), "{out}");
    assert!(out.contains("! law: requested = opened + failed"), "{out}");
    assert!(out.contains("! SLO: rtt.p99<10s held"), "{out}");
}

#[test]
fn unlike_runs_are_compared_with_a_warning() {
    let other = |report: &mut Value| {
        report["environment"]["kernel"] = json!("2.6.32");
        report["requested"]["silent"] = json!(0.5);
    };
    let (code, out, _) = diff(other, "");
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("warning: unlike runs: environment kernel: "), "{out}");
    assert!(out.contains("warning: unlike runs: requested silent: 0.1 -> 0.5"), "{out}");
}

#[test]
fn for_programs_it_is_json() {
    let (code, out, _) = diff(|report| times(report, 2.0, &["/rtt_us/p50"]), "--json");
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &found["exit_code"]), (Some(99), &json!(99)));
    assert_eq!(found["verdict"], "regressed");
    let numbers = found["numbers"].as_array().unwrap();
    let p50 = numbers.iter().find(|number| number["path"] == "rtt_us.p50").unwrap();
    assert_eq!(p50["judgement"], "worse", "{p50}");
    assert!(p50["change"].as_f64().unwrap() > 0.1, "{p50}");
}

#[test]
fn an_older_report_is_read_and_what_is_none_is_refused() {
    let older = |report: &mut Value| {
        let fields = report.as_object_mut().unwrap();
        for name in ["histograms", "times", "part", "parts", "series"] {
            assert!(fields.remove(name).is_some(), "{name}");
        }
    };
    let (code, out, err) = diff(older, "");
    assert_eq!(code, Some(0), "{out} {err}");
    let folder = Folder::new();
    folder.write("good.json", &report());
    folder.write("newer.json", &json!({"version": 2, "verdict": "passed"}));
    folder.write("other.json", &json!({"name": "x"}));
    for (words, complaint) in [
        ("good.json absent.json", "absent.json: No such file"),
        ("good.json newer.json", "a report of version 2; this program reads version 1"),
        ("other.json good.json", "no report of loadgen"),
        ("good.json", "required arguments were not provided"),
        ("good.json good.json --allow rtt.p98=5%", "no number that is compared has the path"),
        ("good.json good.json --tolerance fast", "does not begin with a number"),
    ] {
        let (code, out, err) = folder.loadgen(&format!("diff {words}"));
        assert_eq!(code, Some(2), "{words}: {out} {err}");
        assert!(err.contains(complaint), "{words}: {err}");
    }
}
