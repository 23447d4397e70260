//! Clients hear the same, whichever way they wait for it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may as well panic")]

mod generator;
mod server;

use generator::{finish, start, turn, unhurried};

/// Everything that can arrive at a client: answers, messages longer than a buffer, the end of an
/// expiry, of a storm and of a churned connection, and nothing for those who do not read.
#[track_caller]
fn hears_everything(arming: &str, protocol: &str) {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    let outcome = unhurried(&format!(
        "--arming {arming} --protocol {protocol} -c 400 --connect-rate 2k -i 300ms \
         --idle-timeout 2s --silent 5% --slow 5% --churn 40 \
         --reconnect exp:50ms..200ms,full-jitter \
         --at 300ms:broadcast:64 --at 900ms:broadcast:1KiB --at 1500ms:storm:25% -d 3s",
    ));
    assert_eq!(outcome.code, Some(0), "{} {}", outcome.stderr, outcome.report);
    for (path, expected) in [
        ("connections.opened", 400.0),
        ("expiry.expired", 20.0),
        ("expiry.false", 0.0),
        ("expiry.missed", 0.0),
        ("heartbeats.missing", 0.0),
        ("push.duplicates", 0.0),
        ("reconnect.away", 0.0),
        ("generator.stale_completions", 0.0),
    ] {
        let found = outcome.number(path);
        assert!((found - expected).abs() < 0.5, "{path} is {found}: {}", outcome.report);
    }
    // Whoever was churned or killed meanwhile has missed it, nobody else.
    let missing = outcome.report["push"]["missing_by"].to_string();
    assert!(!missing.contains("not received"), "{missing}");
    // Some of the slow are silent as well.
    assert!(outcome.number("slow.clients") > 10.0, "{}", outcome.report);
    assert!(outcome.number("push.received") > 600.0, "{}", outcome.report);
    assert!(outcome.number("reconnect.killed") > 50.0, "{}", outcome.report);
    let laws = outcome.report["laws"].as_array().unwrap();
    assert!(laws.len() > 15 && laws.iter().all(|law| law["holds"] == true), "{laws:?}");
}

#[test]
fn a_receive_that_stays_armed_hears_everything() {
    hears_everything("receive", "tcp");
    hears_everything("receive", "ws");
}

#[test]
fn a_poll_that_stays_armed_hears_everything() {
    hears_everything("poll", "tcp");
    hears_everything("poll", "ws");
}

/// A message to all of them at once needs more buffers than there are: nobody's is lost.
#[test]
fn whoever_finds_no_buffer_is_served_when_there_is_one() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    for arming in ["receive", "poll"] {
        let flags = "-c 8k --connect-rate 10k -i 1s --idle-timeout 5s -d 2s --threads 1";
        let outcome = unhurried(&format!("--arming {arming} {flags} --at 500ms:broadcast:1KiB"));
        assert_eq!(outcome.code, Some(0), "{} {}", outcome.stderr, outcome.report);
        assert_eq!(outcome.number("heartbeats.missing"), 0.0, "{}", outcome.report);
        assert_eq!(outcome.number("push.received"), 8_000.0, "{}", outcome.report);
        let starved = &outcome.report["generator"]["rearmed"]["no buffers"];
        assert!(starved.as_u64().is_some_and(|count| count > 0), "{arming}: {starved}");
    }
}

#[test]
fn another_way_is_usage() {
    let outcome = finish(start("--arming guess -c 1"));
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("receive or poll"), "{}", outcome.stderr);
}
