//! `heartwheel doctor` as a user runs it, and what `serve` says of its host at its start.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const SHORT: Option<&str> = Some("not-enough");

fn doctor(flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartwheel"));
    command.arg("doctor").args(flags).output().expect("it runs")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("one line of JSON")
}

#[test]
fn a_hundred_connections_are_no_matter_and_a_billion_are() {
    let few = doctor(&["-c", "100", "--json"]);
    let found = json(&few);
    assert_eq!(few.status.code(), Some(0), "{found:#}");
    assert_eq!(found["enough"], true);
    assert_eq!(found["verdict"], "ENOUGH");
    let many = doctor(&["-c", "1g", "-i", "10s", "--both-ends", "--json"]);
    let found = json(&many);
    assert_eq!(many.status.code(), Some(1), "{found:#}");
    assert_eq!(found["enough"], false);
    assert_eq!(found["ends"], "both");
    assert_eq!(found["rings"], Value::Null, "no number of rings holds so many");
    let verdict = found["verdict"].as_str().expect("a verdict");
    assert!(verdict.contains("NOT ENOUGH") && verdict.contains("memory"), "{verdict}");
}

#[test]
fn the_keys_of_the_json_are_stable() {
    let found = json(&doctor(&["-c", "200k", "--both-ends", "--json"]));
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect();
    let mut top: Vec<String> = keys(&found);
    top.sort();
    let expected = [
        "budget",
        "checks",
        "connections",
        "ends",
        "enough",
        "heartbeat_interval_ms",
        "rings",
        "verdict",
        "version",
    ];
    assert_eq!(top, expected);
    let mut check: Vec<String> = keys(&found["checks"][0]);
    check.sort();
    let expected =
        ["command", "effect", "kind", "name", "needed", "present", "status", "wanted", "why"];
    assert_eq!(check, expected);
    for name in ["RLIMIT_NOFILE", "fs.file-max", "seccomp", "io_uring", "cores", "memory"] {
        let checks = found["checks"].as_array().expect("checks");
        assert!(checks.iter().any(|check| check["name"] == name), "{name} in {checks:#?}");
    }
}

#[test]
fn the_text_has_the_verdict_first_and_no_colour_in_a_pipe() {
    let output = doctor(&["-c", "1g"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with("NOT ENOUGH: "), "{text}");
    assert!(!text.contains('\x1b'), "{text:?}");
    assert!(text.contains("$ "), "with commands: {text}");
    assert!(text.contains("memory, as predicted"), "{text}");
}

/// With the limit that it advises it is content, and with one less it is not.
#[test]
fn a_limit_of_this_process_is_seen_and_its_advice_is_right() {
    let limit = |descriptors: u64| {
        let script = format!("ulimit -n {descriptors}; exec \"$0\" doctor -c 5k --json");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_heartwheel")]);
        json(&command.output().expect("sh runs"))["checks"][0].clone()
    };
    let low = limit(40);
    assert_eq!((low["name"].as_str(), low["status"].as_str()), (Some("RLIMIT_NOFILE"), SHORT));
    let command = low["command"].as_str().expect("a command");
    let advised: Option<u64> = command.split(' ').find_map(|word| word.parse().ok());
    let advised = advised.unwrap_or_else(|| panic!("a number in {command}"));
    assert_eq!(limit(advised)["status"], "enough");
    assert_eq!(limit(advised - 1)["status"].as_str(), SHORT);
}

/// One source address has 64,512 ports at most towards one server.
#[test]
fn clients_alone_are_bounded_by_their_ports() {
    let output = doctor(&["-c", "70k", "--clients", "--json"]);
    let found = json(&output);
    assert_eq!((output.status.code(), found["ends"].as_str()), (Some(1), Some("clients")));
    let verdict = found["verdict"].as_str().expect("a verdict");
    assert!(verdict.contains("net.ipv4.ip_local_port_range"), "{verdict}");
    assert!(!verdict.contains("reserved_ports"), "{verdict}");
}

#[test]
fn nonsense_is_usage() {
    for flags in
        [&["-c", "many"][..], &["--listen", "7400"], &["-i", "soon"], &["--clients", "--both-ends"]]
    {
        assert_eq!(doctor(flags).status.code(), Some(2), "{flags:?}");
    }
}

#[test]
fn serve_says_in_one_line_what_will_bite() {
    let serve = |connections: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_heartwheel"))
            .args(["serve", "--listen", "tcp://127.0.0.1:0", "--admin", "off"])
            .args(["--shards", "1", "--max-connections", connections])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut ready).expect("ready");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our own child");
        let output = child.wait_with_output().expect("it ends");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let few = serve("100");
    assert!(!few.contains("falls short"), "{few}");
    // No host's defaults have room for two million sockets in TIME_WAIT.
    let many = serve("4m");
    let lines: Vec<&str> = many.lines().filter(|line| line.contains("falls short")).collect();
    assert_eq!(lines.len(), 1, "{many}");
    assert!(lines[0].contains("heartwheel doctor -c 4000000"), "{many}");
}
