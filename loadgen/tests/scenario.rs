//! Events, churn, data and clients that do not read, against a server that behaves and against ones
//! that do not: the report must tell, and the oracle must not blame the innocent.

mod generator;
mod rogue;

use generator::{Outcome, finish, start, turn};
use rogue::{Control, Manners, RETRY_AFTER, serve, serve_with_admin};

const CLIENTS: f64 = 200.0;

/// A run that a busy machine has made void (exit 101) says nothing: it is made again.
const RUNS_MAX: usize = 3;

/// A run of 200 clients, 5 % of which fall silent, against such a server.
fn run(manners: Manners, flags: &str) -> Outcome {
    let _turn = turn();
    let once = || {
        let (address, admin) = serve_with_admin(manners);
        finish(start(&format!(
            "--target tcp://{address} --target-admin {admin} -c 200 --silent 5% -d 3s {flags}"
        )))
    };
    let mut outcome = once();
    for _ in 1..RUNS_MAX {
        if outcome.code != Some(101) {
            break;
        }
        outcome = once();
    }
    outcome
}

#[track_caller]
fn expect(outcome: &Outcome, code: i32, numbers: &[(&str, f64)]) {
    assert_eq!(outcome.code, Some(code), "{} {}", outcome.stderr, outcome.report);
    for &(path, expected) in numbers {
        let found = outcome.number(path);
        assert!((found - expected).abs() < 0.5, "{path} is {found}: {}", outcome.report);
    }
}

fn blames(outcome: &Outcome, what: &str) -> bool {
    outcome.report["reasons"].to_string().contains(what)
}

/// A number of the first event.
fn of_event(outcome: &Outcome, name: &str) -> f64 {
    let value = &outcome.report["events"][0][name];
    value.as_f64().unwrap_or_else(|| panic!("{name} is {value}: {}", outcome.report))
}

#[test]
fn half_are_killed_and_come_back() {
    let outcome = run(
        Manners::GOOD,
        "--at 500ms:storm:50% --reconnect exp:100ms..500ms,full-jitter \
         --slo events.0.recovered_after_ms<10000 --slo events.0.recovered_after<10s",
    );
    let numbers = [
        ("expiry.expired", 10.0),
        ("expiry.false", 0.0),
        ("reconnect.away", 0.0),
        ("heartbeats.missing", 0.0),
        ("connections.open_at_end", CLIENTS - 10.0),
    ];
    expect(&outcome, 0, &numbers);
    let killed = outcome.number("reconnect.killed");
    assert!((80.0..=100.0).contains(&killed), "half of those who are not silent: {killed}");
    assert_eq!(of_event(&outcome, "affected"), killed);
    assert_eq!(of_event(&outcome, "recovered"), killed);
    assert!(of_event(&outcome, "rtt_p999_during_us") > 0.0);
    assert_eq!(outcome.number("connections.closed_by_us"), CLIENTS - 10.0 + killed);
    assert!(outcome.stderr.contains("storm: 50 % are killed"), "{}", outcome.stderr);
}

/// The same seed kills the same, whatever the threads.
#[test]
fn a_storm_is_planned() {
    let killed = |more: &str| {
        let outcome = run(Manners::GOOD, &format!("--at 100ms:storm:30% {more}"));
        outcome.number("reconnect.killed")
    };
    assert_eq!(killed("--seed 9 --threads 1"), killed("--seed 9 --threads 2"));
}

#[test]
fn a_server_that_takes_nobody_back_leaves_them_away() {
    let manners = Manners { takes_at_most: 200, ..Manners::GOOD };
    let outcome = run(
        manners,
        "--at 500ms:storm:50% --reconnect exp:50ms..200ms,full-jitter \
         --slo events.0.recovered_after_ms<10000",
    );
    expect(&outcome, 99, &[("reconnect.reopened", 0.0), ("expiry.false", 0.0)]);
    assert_eq!(outcome.number("reconnect.away"), outcome.number("reconnect.killed"));
    assert!(outcome.report["reconnect"]["failed"].as_object().is_some_and(|f| !f.is_empty()));
    assert!(blames(&outcome, "events.0.recovered_after_ms<10000 (it has no value)"));
}

#[test]
fn whoever_is_drained_comes_back_no_earlier_than_told() {
    let outcome = run(Manners::GOOD, "--at 500ms:drain --reconnect exp:1ms..200ms,full-jitter");
    let numbers = [("reconnect.drained", CLIENTS), ("expiry.false", 0.0), ("reconnect.away", 0.0)];
    expect(&outcome, 0, &numbers);
    assert_eq!(of_event(&outcome, "affected"), CLIENTS, "the silent are told, too");
    assert_eq!(outcome.number("reconnect.reopened"), CLIENTS - 10.0, "but they do not come back");
    // Without the server's word nobody would have waited for more than a millisecond.
    let back_after = of_event(&outcome, "recovered_after_ms");
    assert!(back_after >= RETRY_AFTER.as_millis() as f64, "{back_after}");
}

#[test]
fn a_good_bye_that_nobody_asked_for_is_no_drain() {
    let outcome =
        run(Manners { control: Control::Confuses, ..Manners::GOOD }, "--at 500ms:broadcast:64");
    expect(&outcome, 99, &[("reconnect.drained", 0.0)]);
    assert!(blames(&outcome, "opened = open at the end"), "{}", outcome.report["reasons"]);
}

#[test]
fn a_broadcast_is_accounted_for_on_both_sides() {
    let outcome = run(
        Manners::GOOD,
        "--at 500ms:broadcast:64 --at 1s:broadcast:1KiB --slo push.latency.max<5s \
         --slo push.server.pending==20",
    );
    let expected = 2.0 * (CLIENTS - 10.0);
    let numbers = [
        ("push.broadcasts", 2.0),
        ("push.expected", expected),
        ("push.received", expected),
        ("push.acked", expected),
        ("push.missing", 0.0),
        ("push.duplicates", 0.0),
        ("push.latency_us.count", expected),
        ("expiry.false", 0.0),
    ];
    // The rogue has one account for all its pushes, so that the SLO on the sum fails.
    expect(&outcome, 99, &numbers);
    assert!(blames(&outcome, "push.server.pending"));
    let reasons = outcome.report["reasons"].as_array().map_or(0, Vec::len);
    assert_eq!(reasons, 1, "{}", outcome.report["reasons"]);
    assert!(outcome.number("push.server.acknowledged") >= expected);
}

#[test]
fn a_push_that_was_lost_is_missing() {
    let manners = Manners { control: Control::Loses, ..Manners::GOOD };
    let outcome = run(manners, "--at 500ms:broadcast:64");
    // The first three may be silent ones.
    let missing = outcome.number("push.missing");
    assert!((1.0..=3.0).contains(&missing), "{missing}");
    expect(&outcome, 99, &[("push.missing_by.not received", missing)]);
    assert!(blames(&outcome, "did not receive"));
}

#[test]
fn a_push_that_came_twice_is_told() {
    let manners = Manners { control: Control::Doubles, ..Manners::GOOD };
    let outcome = run(manners, "--at 500ms:broadcast:64");
    expect(&outcome, 99, &[("push.missing", 0.0), ("push.duplicates", CLIENTS - 10.0)]);
    assert!(blames(&outcome, "received twice"));
}

#[test]
fn an_account_that_does_not_add_up_is_a_broken_law() {
    let manners = Manners { control: Control::Boasts, ..Manners::GOOD };
    let outcome = run(manners, "--at 500ms:broadcast:64");
    expect(&outcome, 99, &[("push.missing", 0.0)]);
    assert!(blames(&outcome, "server: pushes requested"), "{}", outcome.report["reasons"]);
}

#[test]
fn a_control_plane_that_refuses_fails_the_run() {
    let manners = Manners { control: Control::Refuses, ..Manners::GOOD };
    let outcome = run(manners, "--at 500ms:broadcast:64 --at 1s:drain");
    expect(&outcome, 99, &[("push.expected", CLIENTS - 10.0)]);
    assert!(blames(&outcome, "503 not now") && blames(&outcome, "drain at 1s"));
}

#[test]
fn churn_closes_and_opens_again() {
    let outcome = run(Manners::GOOD, "--churn 100");
    let numbers = [("expiry.expired", 10.0), ("expiry.false", 0.0)];
    expect(&outcome, 0, &numbers);
    let churned = outcome.number("reconnect.churned");
    let skipped = outcome.number("reconnect.churn_skipped");
    assert!((250.0..=310.0).contains(&(churned + skipped)), "3 s of 100/s: {churned} {skipped}");
    let away = outcome.number("reconnect.away");
    assert_eq!(outcome.number("connections.reopened") + away, churned);
    assert!(away < 5.0, "only the last ones may not be back: {away}");
}

#[test]
fn those_who_do_not_read_may_be_closed_and_nobody_else() {
    for arming in ["receive", "poll"] {
        let closes = Some((7, std::time::Duration::from_millis(1_500)));
        let address = serve(Manners { closes, ..Manners::GOOD });
        let _turn = turn();
        let flags = format!("--target tcp://{address} -c 20 -d 2s --slow 100% --arming {arming}");
        let outcome = finish(start(&flags));
        let numbers = [
            ("slow.clients", 20.0),
            ("slow.closed_by_server", 1.0),
            ("slow.open_at_end", 19.0),
            ("expiry.false", 0.0),
            ("heartbeats.acked", 0.0),
            ("heartbeats.missing", 0.0),
        ];
        expect(&outcome, 0, &numbers);
        assert!(outcome.number("slow.heartbeats") > 60.0, "they go on to send them");
    }
}

#[test]
fn data_stands_in_for_heartbeats() {
    let outcome = run(Manners::GOOD, "--data 4k --warmup 400ms");
    expect(&outcome, 0, &[("expiry.expired", 10.0), ("expiry.false", 0.0)]);
    assert!(outcome.number("data.sent") > 8_000.0, "{}", outcome.report["data"]);
    // 20 messages a second and client: an interval of 300 ms without one is rare.
    let rate = outcome.number("heartbeats.rate_per_s");
    assert!(rate < 60.0, "without data there are 633 a second: {rate}");
}

#[test]
fn a_bad_scenario_is_usage_and_names_the_cure() {
    for (flags, cure) in [
        ("--at 5s:flood", "5s:"),
        ("--at 5s:storm", "30s:storm:50%"),
        ("--at 30s:drain -d 30s", "raise -d"),
        ("--at 1s:broadcast:100MiB", "B or KiB"),
        ("--at 1s:broadcast:64KiB", "65526 bytes"),
        ("--at 1s:drain --target tcp://127.0.0.1:9", "--target-admin ADDR:PORT"),
        ("--at 1s:drain --server-args=--admin=off", "--admin off"),
        ("--reconnect 1s", "exp:1s..30s,full-jitter"),
        ("--slo events.0.recovered_after_ms<1", "no such number"),
    ] {
        let outcome = finish(start(flags));
        assert_eq!(outcome.code, Some(2), "{flags}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(cure), "{flags}: {}", outcome.stderr);
    }
}
