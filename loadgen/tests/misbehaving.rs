//! The generator against servers that misbehave on purpose: each time the right number of the
//! report and the exit code must tell. A judge that never convicts is worth nothing.

mod generator;
mod rogue;

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use generator::{Outcome, finish, start, turn};
use rogue::{IDLE_TIMEOUT, Manners, serve};
use rustix::process::{Pid, Signal, kill_process};

/// A run of 40 clients, 4 of which fall silent, against such a server.
fn judge(manners: Manners, more: &str) -> Outcome {
    let address = serve(manners);
    let _turn = turn();
    finish(start(&format!("--target tcp://{address} -c 40 --silent 10% -d 1s {more}")))
}

#[track_caller]
fn expect(outcome: &Outcome, code: i32, numbers: &[(&str, f64)]) {
    assert_eq!(outcome.code, Some(code), "{} {}", outcome.stderr, outcome.report);
    assert_eq!(outcome.report["exit_code"], code);
    for &(path, expected) in numbers {
        let found = outcome.number(path);
        assert!((found - expected).abs() < 0.5, "{path} is {found}: {}", outcome.report);
    }
}

/// Whether the reasons of the verdict name this.
fn blames(outcome: &Outcome, what: &str) -> bool {
    outcome.report["reasons"].to_string().contains(what)
}

#[test]
fn a_server_that_behaves_passes() {
    let outcome = judge(Manners::GOOD, "--slo rtt.p50<100ms --slo expiry.lateness.p50<1s");
    let numbers = [
        ("connections.opened", 40.0),
        ("connections.open_at_end", 36.0),
        ("connections.closed_by_server.fin", 4.0),
        ("expiry.silenced", 4.0),
        ("expiry.expired", 4.0),
        ("expiry.missed", 0.0),
        ("expiry.false", 0.0),
        ("heartbeats.missing", 0.0),
        ("heartbeats.interval_ms", 300.0),
        ("expiry.idle_timeout_ms", 1_500.0),
    ];
    expect(&outcome, 0, &numbers);
    assert_eq!(outcome.report["verdict"], "passed");
    assert!(outcome.number("heartbeats.acked") > 200.0, "{}", outcome.report);
    // The wanted second would have been too short for the silent to be expired.
    assert!(outcome.report["notes"].to_string().contains("raised from 1s to 2.6s"));
}

#[test]
fn answers_in_single_bytes_are_put_together() {
    expect(&judge(Manners { dribbles: true, ..Manners::GOOD }, ""), 0, &[("expiry.expired", 4.0)]);
}

#[test]
fn late_answers_break_an_slo() {
    let late = Manners { answers_after: Duration::from_millis(100), ..Manners::GOOD };
    let outcome = judge(late, "--slo rtt.p50<50ms");
    expect(&outcome, 99, &[("expiry.expired", 4.0), ("heartbeats.missing", 0.0)]);
    assert!(outcome.number("rtt_us.p50") >= 100_000.0 && blames(&outcome, "SLO: rtt.p50<50ms"));
}

#[test]
fn an_early_expiry_is_false() {
    let early = Manners { expires_after: Some(IDLE_TIMEOUT / 2), ..Manners::GOOD };
    let outcome = judge(early, "");
    let numbers =
        [("expiry.false", 4.0), ("expiry.false_early", 4.0), ("expiry.false_healthy", 0.0)];
    expect(&outcome, 99, &numbers);
    assert!(blames(&outcome, "closed early or in good health"));
}

#[test]
fn a_late_expiry_is_measured() {
    let late =
        Manners { expires_after: Some(IDLE_TIMEOUT + Duration::from_millis(600)), ..Manners::GOOD };
    let outcome = judge(late, "--slo expiry.lateness_ms.max<=300");
    expect(&outcome, 99, &[("expiry.expired", 4.0), ("expiry.false", 0.0)]);
    assert!(outcome.number("expiry.lateness_ms.min") >= 600.0);
    assert!(outcome.number("expiry.lateness_ms.max") < 1_100.0);
}

#[test]
fn a_very_late_expiry_breaks_a_law() {
    let late = Manners {
        expires_after: Some(IDLE_TIMEOUT + Duration::from_millis(1_600)),
        ..Manners::GOOD
    };
    let address = serve(late);
    let _turn = turn();
    let outcome = finish(start(&format!("--target tcp://{address} -c 40 --silent 10% -d 5s")));
    expect(&outcome, 99, &[("expiry.expired", 4.0), ("expiry.missed", 0.0)]);
    assert!(blames(&outcome, "expired later than a tick and 1 s"));
}

#[test]
fn a_forgotten_expiry_is_missed() {
    let outcome = judge(Manners { expires_after: None, ..Manners::GOOD }, "");
    let numbers =
        [("expiry.missed", 4.0), ("expiry.expired", 0.0), ("connections.open_at_end", 40.0)];
    expect(&outcome, 99, &numbers);
    assert!(blames(&outcome, "silenced = expired"));
}

#[test]
fn a_healthy_client_that_is_closed_is_false() {
    let closes = Manners { closes: Some((7, Duration::from_millis(1_000))), ..Manners::GOOD };
    // Nobody falls silent here, so that the seventh surely is in good health.
    let address = serve(closes);
    let _turn = turn();
    let outcome = finish(start(&format!("--target tcp://{address} -c 40 -d 2s")));
    let numbers = [("expiry.false_healthy", 1.0), ("expiry.silenced", 0.0)];
    expect(&outcome, 99, &numbers);
}

#[test]
fn heartbeats_without_an_answer_are_missing() {
    let outcome = judge(Manners { pong: None, ..Manners::GOOD }, "");
    expect(&outcome, 99, &[("heartbeats.acked", 0.0), ("expiry.expired", 4.0)]);
    assert!(outcome.number("heartbeats.missing") > 100.0);
    assert!(blames(&outcome, "heartbeats sent = answered"));
}

#[test]
fn clients_that_are_not_welcomed_are_not_open() {
    let outcome = judge(Manners { welcomes: false, ..Manners::GOOD }, "--open-timeout 500ms");
    expect(&outcome, 100, &[("connections.opened", 0.0)]);
    assert_eq!(outcome.report["connections"]["failed"]["no WELCOME or upgrade in time"], 40);
}

#[test]
fn a_broken_protocol_is_no_answer() {
    let outcome = judge(Manners { pong: Some(&[0, 1, 0]), ..Manners::GOOD }, "");
    expect(&outcome, 99, &[("heartbeats.acked", 0.0)]);
    assert!(outcome.number("connections.closed_by_us") >= 36.0);
}

#[test]
fn nobody_listening_is_not_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let _turn = turn();
    let outcome = finish(start(&format!("--target tcp://{address} -c 40 -d 1s")));
    expect(&outcome, 100, &[("connections.opened", 0.0)]);
    assert_eq!(outcome.report["connections"]["failed"]["connection refused"], 40);
}

#[test]
fn an_interrupt_ends_a_run_in_good_order() {
    let address = serve(Manners::GOOD);
    let _turn = turn();
    let child = start(&format!("--target tcp://{address} -c 40 -d 1h"));
    std::thread::sleep(Duration::from_millis(1_200));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let outcome = finish(child);
    let numbers = [("connections.open_at_end", 40.0), ("connections.closed_by_us", 40.0)];
    expect(&outcome, 105, &numbers);
    assert_eq!(outcome.report["verdict"], "interrupted");
}

/// Holds a generator up for a while, in the middle of its steady state.
fn held_up(pause: Duration) -> Outcome {
    let address = serve(Manners::GOOD);
    let _turn = turn();
    let child = start(&format!("--target tcp://{address} -c 40 -d 5s --warmup 1s"));
    // The run must not be over when it goes on: then nobody would be to blame for anything.
    std::thread::sleep(Duration::from_millis(1_700));
    kill_process(Pid::from_child(&child), Signal::STOP).expect("it runs");
    std::thread::sleep(pause);
    kill_process(Pid::from_child(&child), Signal::CONT).expect("it is there");
    finish(child)
}

#[test]
fn a_generator_that_was_held_up_says_that_the_run_is_void() {
    let outcome = held_up(Duration::from_millis(700));
    expect(&outcome, 101, &[("expiry.false", 0.0), ("connections.open_at_end", 40.0)]);
    assert_eq!(outcome.report["generator"]["saturated"], true);
    assert!(blames(&outcome, "sent") && blames(&outcome, "after they were due"));
}

/// Everybody was rightly expired in the meantime: the server must not be blamed for it.
#[test]
fn a_generator_that_slept_through_the_timeout_blames_itself() {
    let outcome = held_up(Duration::from_millis(2_500));
    expect(&outcome, 101, &[("expiry.false", 0.0), ("expiry.our_delay", 40.0)]);
    assert!(blames(&outcome, "their heartbeats were not sent in time"));
}

#[test]
fn a_bare_echo_needs_no_hello() {
    let address = serve(Manners { welcomes: false, ..Manners::GOOD });
    let _turn = turn();
    let flags = "--no-hello -i 300ms --idle-timeout 1500ms --silent 10% -c 40 -d 1s --server-pid";
    let own = std::process::id();
    let outcome = finish(start(&format!("--target tcp://{address} {flags} {own}")));
    expect(&outcome, 0, &[("expiry.expired", 4.0), ("heartbeats.missing", 0.0)]);
    assert!(outcome.number("server.rss_bytes") > 0.0);
}

/// The kernel knows a connection of the server that this run has not opened.
#[test]
fn a_connection_that_is_not_ours_breaks_a_law() {
    let address = serve(Manners { expires_after: None, ..Manners::GOOD });
    let stranger = TcpStream::connect(address).unwrap();
    let _turn = turn();
    let own = std::process::id();
    let flags = format!("--target tcp://{address} -c 40 -d 1s --server-pid {own}");
    let outcome = finish(start(&flags));
    expect(&outcome, 99, &[("connections.open_at_end", 40.0)]);
    assert!(blames(&outcome, "established at the server"), "{}", outcome.report["reasons"]);
    assert!(blames(&outcome, "(41 against 40)"), "{}", outcome.report["reasons"]);
    drop(stranger);
    let outcome = finish(start(&flags));
    expect(&outcome, 0, &[("connections.open_at_end", 40.0)]);
    let laws = outcome.report["laws"].to_string();
    assert!(laws.contains("established at the server"), "{laws}");
}

#[test]
fn a_bad_command_line_is_usage() {
    for flags in
        ["--slo rtt.p98<5ms", "-c 0", "--nonsense", "--no-hello", "-i 5s --idle-timeout 5s"]
    {
        let outcome = finish(start(flags));
        assert_eq!(outcome.code, Some(2), "{flags}: {}", outcome.stderr);
        assert!(!outcome.stderr.is_empty());
    }
}
