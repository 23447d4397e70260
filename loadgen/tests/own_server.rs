//! The generator with a server of its own, both started as a user would.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may as well panic")]

mod generator;
mod server;

use std::fs;
use std::process::Command;
use std::time::Duration;

use generator::{Outcome, finish, spawn, start, turn, unhurried};
use rustix::process::{Pid, Signal, kill_process};

#[track_caller]
fn expect_clean(outcome: &Outcome, opened: f64, expired: f64) {
    assert_eq!(outcome.code, Some(0), "{} {}", outcome.stderr, outcome.report);
    let numbers = [
        ("connections.opened", opened),
        ("expiry.expired", expired),
        ("expiry.false", 0.0),
        ("expiry.missed", 0.0),
        ("heartbeats.missing", 0.0),
        ("generator.stale_completions", 0.0),
    ];
    for (path, expected) in numbers {
        let found = outcome.number(path);
        assert!((found - expected).abs() < 0.5, "{path} is {found}: {}", outcome.report);
    }
    let laws = outcome.report["laws"].as_array().unwrap();
    assert!(laws.len() > 15, "the server's laws and those shared with it are stated: {laws:?}");
    assert!(laws.iter().all(|law| law["holds"] == true), "{laws:?}");
}

#[test]
fn a_clean_run_balances_on_both_sides() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    let outcome =
        finish(start("-c 500 --connect-rate 2k -i 300ms --idle-timeout 2s --silent 2% -d 1s"));
    expect_clean(&outcome, 500.0, 10.0);
    assert!(outcome.number("server.rss_bytes") > 0.0);
    assert!(outcome.number("rtt_us.count") > 1_000.0);
    assert_eq!(outcome.report["engine"], "uring");
}

/// The interval is asked for in HELLO, and what WELCOME grants is kept and held to.
#[test]
fn a_negotiated_interval_is_kept_and_so_is_the_timeout_that_follows() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    let flags = "-c 200 -i 400ms --negotiate --silent 5% -d 3s";
    let outcome = finish(start(&format!("{flags} --server-args=--heartbeat-min=300ms")));
    expect_clean(&outcome, 200.0, 10.0);
    assert!((outcome.number("heartbeats.interval_ms") - 400.0).abs() < 0.5, "{}", outcome.report);
    assert!((outcome.number("expiry.idle_timeout_ms") - 1_200.0).abs() < 0.5);
}

/// A herd beats as one until the server tells it to scatter.
#[test]
fn a_herd_is_seen_and_follows_what_adjust_says() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    let flags = "-c 400 --connect-rate 10k --phase herd --jitter 0% -i 2s --idle-timeout 6s \
                 --warmup 4500ms -d 4s";
    let herd = unhurried(flags);
    expect_clean(&herd, 400.0, 0.0);
    let flat = unhurried(&format!("{flags} --server-args=--flatten"));
    expect_clean(&flat, 400.0, 0.0);
    let (before, after) =
        (herd.number("heartbeats.peak_to_mean"), flat.number("heartbeats.peak_to_mean"));
    assert!(before > 6.0 && after < before / 2.0, "{before} {after}");
    assert!(flat.number("heartbeats.adjusted") > 100.0 && herd.number("heartbeats.adjusted") < 0.5);
}

/// The same plan and the same judgement over WebSocket, with both kinds of heartbeats.
#[test]
fn a_clean_run_over_websocket_balances_too() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    for heartbeat in ["text", "control"] {
        let flags = format!(
            "--protocol ws --ws-heartbeat {heartbeat} -c 500 --connect-rate 2k -i 300ms \
             --idle-timeout 2s --silent 2% -d 1s"
        );
        let outcome = finish(start(&flags));
        expect_clean(&outcome, 500.0, 10.0);
        assert_eq!(outcome.report["protocol"], "ws");
        assert_eq!(outcome.number("server.counters.upgrades"), 500.0);
        assert_eq!(outcome.number("connections.closed_by_server.close 1001"), 10.0);
    }
}

/// Clients whose gaps are often longer than the server's interval are pinged by it and answer, and
/// the silent are found all the same. A PONG is no heartbeat: every account balances.
#[test]
fn the_servers_pings_are_answered() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    for protocol in ["tcp", "ws"] {
        let outcome = finish(start(&format!(
            "--protocol {protocol} -c 200 --connect-rate 2k -i 1s --jitter 50% --idle-timeout 2s \
             --silent 5% -d 3s --server-args=--server-ping"
        )));
        expect_clean(&outcome, 200.0, 10.0);
        // The silent are asked too, and say nothing.
        let pongs = outcome.number("server.counters.pongs_received");
        let pings = outcome.number("server.counters.server_pings_sent");
        assert!(pongs > 100.0 && pings >= pongs + 10.0, "{pings} PINGs, {pongs} PONGs");
    }
}

/// Storms, churn, data, clients that do not read and silent ones all at once: exactly the silent
/// are expired, and everybody else is back at the end.
#[test]
fn a_rough_run_balances_on_both_sides() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    for protocol in ["tcp", "ws"] {
        let outcome = finish(start(&format!(
            "--protocol {protocol} -c 1k --connect-rate 4k -i 300ms --idle-timeout 2s --silent 2% \
             -d 3s --at 500ms:storm:40% --at 1s:storm:20% --churn 100 --data 200 --slow 2% \
             --reconnect exp:100ms..500ms,full-jitter"
        )));
        expect_clean(&outcome, 1_000.0, 20.0);
        assert_eq!(outcome.number("reconnect.away"), 0.0);
        assert!(outcome.number("reconnect.killed") > 400.0, "{}", outcome.report["reconnect"]);
        assert!(outcome.number("slow.clients") >= 18.0);
    }
}

/// Everybody is pushed to, and later told to go, while some are silent and some do not read: every
/// receipt is counted on both sides, nobody is closed who must not be, and the server ends itself.
#[test]
fn a_broadcast_and_a_drain_balance_on_both_sides() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    // All is pushed before the first of the silent can have been expired, 1.7 s after the start.
    for protocol in ["tcp", "ws"] {
        let outcome = finish(start(&format!(
            "--protocol {protocol} -c 500 --connect-rate 4k -i 300ms --idle-timeout 2s --silent 2% \
             --slow 2% -d 5s --at 500ms:broadcast:64 --at 1s:broadcast:1KiB:500ms \
             --at 3500ms:drain:1s --slo push.latency.max<10s \
             --slo events.2.affected_within_ms<10000"
        )));
        expect_clean(&outcome, 500.0, 10.0);
        let slow = outcome.number("slow.clients");
        let expected = 2.0 * (490.0 - slow);
        assert_eq!(outcome.number("push.expected"), expected);
        assert_eq!(outcome.number("push.received"), expected);
        assert_eq!(outcome.number("push.server.requested"), 1_000.0);
        let acked = if protocol == "tcp" { expected } else { 0.0 };
        assert_eq!(outcome.number("push.acked"), acked);
        assert_eq!(outcome.number("push.server.acknowledged"), acked);
        assert_eq!(outcome.number("reconnect.drained"), 490.0 - slow);
    }
}

/// A limit of 200 descriptors makes several rings necessary on both sides.
#[test]
fn several_rings_are_one_generator() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    let run = "ulimit -n 200; exec \"$0\" -c 800 -i 300ms --idle-timeout 2s --silent 1% -d 1s -o -";
    let mut command = Command::new("sh");
    command.args(["-c", run, env!("CARGO_BIN_EXE_loadgen")]);
    let outcome = finish(spawn(command));
    expect_clean(&outcome, 800.0, 8.0);
    assert!(outcome.number("generator.rings") >= 4.0);
}

/// The answers of a whole second come at once: buffers run out and are waited for, no answer is
/// lost, nobody is expired, and the latencies tell of the pause.
#[test]
fn a_server_that_was_stopped_shows_in_the_latencies() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    let child = start("-c 3k -i 300ms --idle-timeout 5s -d 4s");
    std::thread::sleep(Duration::from_millis(2_000));
    let server = only_child(child.id());
    kill_process(server, Signal::STOP).unwrap();
    std::thread::sleep(Duration::from_millis(1_000));
    kill_process(server, Signal::CONT).unwrap();
    let outcome = finish(child);
    expect_clean(&outcome, 3_000.0, 0.0);
    assert!(outcome.number("rtt_us.max") > 800_000.0, "{}", outcome.report["rtt_us"]);
    assert!(outcome.number("rtt_us.p50") < 100_000.0, "{}", outcome.report["rtt_us"]);
}

fn only_child(parent: u32) -> Pid {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let children = fs::read_to_string(path).unwrap();
    Pid::from_raw(children.split_whitespace().next().unwrap().parse().unwrap()).unwrap()
}

#[test]
fn flags_that_the_server_refuses_are_usage() {
    if server::is_missing() {
        return;
    }
    let outcome = finish(start("-c 10 --server-args=--nonsense"));
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
}
