//! `loadgen find-capacity` as a user starts it, where the capacity is known beforehand.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may as well panic")]

mod generator;
mod server;

use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use generator::{Outcome, finish, spawn, turn};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Short steps: a second or so each.
const SHORT: &str = "-i 300ms --idle-timeout 10s -d 400ms --settle 100ms --connect-rate 5k";

fn search(flags: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.arg("find-capacity").args(flags.split_whitespace()).args(["-o", "-"]);
    spawn(command)
}

/// A search that this machine had the time for: one that ran into its CPU is made again.
fn unhurried(start: impl Fn() -> Child) -> Outcome {
    let mut outcome = finish(start());
    for _ in 0..3 {
        let limiter = outcome.report["limiter"].as_str().unwrap_or("");
        if limiter.ends_with("cpu") || limiter.starts_with("generator") {
            outcome = finish(start());
        }
    }
    outcome
}

fn steps(report: &Value) -> Vec<(u64, &str, usize)> {
    let steps = report["steps"].as_array().unwrap().iter();
    steps
        .map(|step| {
            let attempts = step["attempts"].as_array().unwrap().len();
            (step["connections"].as_u64().unwrap(), step["outcome"].as_str().unwrap(), attempts)
        })
        .collect()
}

/// The server takes 300: everything up to there holds, and nothing above.
#[test]
fn a_limit_of_the_server_is_found_and_named() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    let flags =
        format!("{SHORT} --from 100 --max 2k --tolerance 10% --server-args=--max-connections=300");
    let outcome = unhurried(|| search(&flags));
    let report = &outcome.report;
    assert_eq!(outcome.code, Some(0), "{} {report}", outcome.stderr);
    assert_eq!(report["limiter"], "server-limit", "{}", outcome.stderr);
    assert!((273.0..=300.0).contains(&outcome.number("capacity")), "{}", outcome.stderr);
    assert!(outcome.number("fails_at") > 300.0);
    assert!(report["evidence"].as_str().unwrap().contains("max_connections"), "{report}");
    assert!(report["answer"].as_str().unwrap().starts_with("capacity: "), "{report}");
    let steps = steps(report);
    assert_eq!(steps[..3], [(100, "held", 1), (200, "held", 1), (400, "failed", 2)]);
    assert!(outcome.stderr.contains("once more"), "{}", outcome.stderr);
    // The evidence: the numbers that were judged, of each run.
    let first = &report["steps"][0]["attempts"][0]["report"];
    assert_eq!(first["connections"]["opened"], 100);
}

/// Without -o the answer is one line, and the page has every step.
#[test]
fn the_answer_is_one_line() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    let page = std::env::temp_dir().join(format!("loadgen-capacity-{}.html", std::process::id()));
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
        command.arg("find-capacity").args(SHORT.split_whitespace());
        command.args(["--from", "50", "--max", "100", "--html"]).arg(&page);
        spawn(command).wait_with_output().unwrap()
    };
    let told = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let mut output = run();
    for _ in 0..3 {
        // This machine had no time for it.
        if told(&output).contains("limited by") {
            output = run();
        }
    }
    let told = told(&output);
    let progress = String::from_utf8_lossy(&output.stderr);
    assert_eq!(told.lines().count(), 1, "{told}");
    let html = fs::read_to_string(&page);
    let _ = fs::remove_file(&page);
    let html = html.unwrap();
    assert!(html.contains("Steps") && html.contains("<td>50</td>"), "{html}");
    assert!(!html.contains("<script") && html.ends_with("</html>\n"));
    assert!(progress.contains("step  1"), "{progress}");
    assert_eq!(output.status.code(), Some(0), "{told} {progress}");
    assert!(told.starts_with("capacity: at least 100 connections ("), "{told}");
    assert!(told.contains("--max: no limit was reached"), "{told}");
}

/// With so few descriptors there are not enough rings: that is known beforehand, and told.
#[test]
fn too_few_descriptors_are_foreseen_and_named() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    let run = format!(
        "ulimit -n 64; exec \"$0\" find-capacity {SHORT} --from 50 --max 100k --tolerance 20% -o -"
    );
    let start = || {
        let mut command = Command::new("sh");
        command.args(["-c", &run, env!("CARGO_BIN_EXE_loadgen")]);
        spawn(command)
    };
    let outcome = unhurried(start);
    let report = &outcome.report;
    assert_eq!(outcome.code, Some(0), "{} {report}", outcome.stderr);
    assert_eq!(report["limiter"], "descriptors", "{}", outcome.stderr);
    assert!(report["evidence"].as_str().unwrap().contains("RLIMIT_NOFILE"), "{report}");
    assert!(steps(report).iter().any(|&(_, outcome, runs)| outcome == "foreseen" && runs == 0));
    assert!(outcome.number("capacity") < outcome.number("fails_at"));
}

/// A host must not be driven out of memory to learn that it has no more.
#[test]
fn memory_that_is_not_there_is_not_tried() {
    let outcome = finish(search("--from 1000m --max 4000m"));
    let report = &outcome.report;
    assert_eq!(outcome.code, Some(100), "{} {report}", outcome.stderr);
    assert_eq!(report["limiter"], "memory", "{report}");
    assert_eq!(report["verdict"], "first failed");
    assert_eq!(steps(report), [(1_000_000_000, "foreseen", 0)]);
}

/// One source address has 64,511 ports towards a server, wherever that is.
#[test]
fn ports_that_are_not_there_are_foreseen_and_named() {
    let target = "--target tcp://127.0.0.1:9 --source-ips 127.0.0.2";
    let outcome = finish(search(&format!("{target} --from 70k --max 80k")));
    let report = &outcome.report;
    assert_eq!(outcome.code, Some(100), "{} {report}", outcome.stderr);
    assert_eq!(report["limiter"], "ports", "{report}");
    assert_eq!(steps(report), [(70_000, "foreseen", 0)]);
}

/// In a namespace of its own an accept queue of two places overflows: clients are not opened, and
/// the kernel's own count says why.
#[test]
fn an_accept_queue_that_overflows_is_named() {
    if server::is_missing() {
        return;
    }
    let may = Command::new("unshare").args(["--net", "ip", "link", "set", "lo", "up"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        eprintln!("NOT TESTED: needs root, ip and unshare");
        return;
    }
    let _turn = turn();
    let run = "ip link set lo up && echo 2 > /proc/sys/net/core/somaxconn || exit 77
               exec \"$0\" find-capacity -i 1s --idle-timeout 10s -d 400ms --settle 100ms \
                   --connect-rate 20k --open-timeout 700ms --from 500 --max 4k -o -";
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", run, env!("CARGO_BIN_EXE_loadgen")]);
    let outcome = finish(spawn(command));
    let report = &outcome.report;
    assert_eq!(outcome.code, Some(100), "{} {report}", outcome.stderr);
    assert_eq!(report["limiter"], "accept-queue", "{}", outcome.stderr);
    assert_eq!(steps(report), [(500, "failed", 2)]);
    assert!(outcome.stderr.contains("net.core.somaxconn is 2"), "{}", outcome.stderr);
}

const WELCOME: [u8; 19] = [0, 17, 2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 1, 44, 0, 0, 0xea, 0x60];

/// A server that answers one heartbeat at a time, and takes its time for each.
fn serve_one_by_one(each: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let counter = Arc::new(Mutex::new(()));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let counter = Arc::clone(&counter);
            thread::spawn(move || attend(stream, &counter, each));
        }
    });
    address
}

fn attend(mut stream: TcpStream, counter: &Mutex<()>, each: Duration) {
    stream.set_nodelay(true).unwrap();
    let mut bytes = [0; 64];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        let one_at_a_time = || {
            let _mine = counter.lock().unwrap();
            thread::sleep(each);
        };
        if answer(&mut stream, &bytes[..count], one_at_a_time).is_err() {
            return;
        }
    }
}

/// Answers the frames in `bytes`, and for each heartbeat does what that takes first.
fn answer(stream: &mut TcpStream, bytes: &[u8], heartbeat: impl Fn()) -> io::Result<()> {
    let mut rest = bytes;
    while let [_, length, kind, ..] = *rest {
        rest = rest.get(usize::from(length) + 2..).unwrap_or(&[]);
        match kind {
            1 => stream.write_all(&WELCOME)?,
            3 => {
                heartbeat();
                stream.write_all(&[0, 1, 4])?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// It answers less than 500 heartbeats a second: at 300 ms from each client, 150 clients. More of
/// them wait ever longer, while nobody's CPU is used up.
#[test]
fn an_slo_that_breaks_is_named_if_nothing_else_is_at_its_end() {
    let address = serve_one_by_one(Duration::from_millis(2));
    let _turn = turn();
    let flags = format!(
        "--target tcp://{address} --server-pid {} -i 300ms -d 1500ms --settle 100ms \
         --connect-rate 5k --from 40 --max 1k --tolerance 20% --slo rtt.p50<100ms",
        std::process::id()
    );
    let outcome = unhurried(|| search(&flags));
    let report = &outcome.report;
    assert_eq!(outcome.code, Some(0), "{} {report}", outcome.stderr);
    assert!((40.0..200.0).contains(&outcome.number("capacity")), "{}", outcome.stderr);
    let limiter = report["limiter"].as_str().unwrap();
    assert_eq!(limiter, "slo", "{}", outcome.stderr);
    let answer = report["answer"].as_str().unwrap();
    assert!(answer.contains("rtt.p50<100ms is "), "{answer}");
}

/// The same in one thread, which is busy for as long as each heartbeat takes.
fn serve_in_one_thread(each: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut streams: Vec<TcpStream> = Vec::new();
        loop {
            let fresh = std::iter::from_fn(|| listener.accept().ok());
            streams.extend(fresh.map(|(stream, _)| {
                stream.set_nonblocking(true).unwrap();
                stream.set_nodelay(true).unwrap();
                stream
            }));
            let mut was_idle = true;
            streams.retain_mut(|stream| look_after(stream, each, &mut was_idle));
            if was_idle {
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
    address
}

/// Answers whatever has come. Whether the client is still there.
fn look_after(stream: &mut TcpStream, each: Duration, was_idle: &mut bool) -> bool {
    let mut bytes = [0; 64];
    let count = match stream.read(&mut bytes) {
        Ok(0) => return false,
        Ok(count) => count,
        Err(error) => return error.kind() == ErrorKind::WouldBlock,
    };
    *was_idle = false;
    let busy = || {
        let begun = Instant::now();
        while begun.elapsed() < each {
            std::hint::spin_loop();
        }
    };
    answer(stream, &bytes[..count], busy).is_ok()
}

/// One thread has time for 1,000 heartbeats a second, which is 300 clients: no core is wanted by
/// anybody else, so it is the server's CPU that ends.
#[test]
fn a_server_whose_thread_is_always_busy_is_named() {
    let address = serve_in_one_thread(Duration::from_millis(1));
    let _turn = turn();
    let flags = format!(
        "--target tcp://{address} --server-pid {} -i 300ms -d 2s --settle 100ms --connect-rate 1k \
         --from 100 --max 1k --tolerance 20% --slo rtt.p50<100ms",
        std::process::id()
    );
    let mut outcome = finish(search(&flags));
    for _ in 0..3 {
        if outcome.report["limiter"] != "server-cpu" {
            outcome = finish(search(&flags));
        }
    }
    let report = &outcome.report;
    assert_eq!(outcome.code, Some(0), "{} {report}", outcome.stderr);
    assert_eq!(report["limiter"], "server-cpu", "{}", outcome.stderr);
    assert!((150.0..400.0).contains(&outcome.number("capacity")), "{}", outcome.stderr);
    let evidence = report["evidence"].as_str().unwrap();
    assert!(evidence.contains("its busiest thread was busy for"), "{evidence}");
    assert!(report["answer"].as_str().unwrap().contains("the server's CPU"), "{report}");
}

/// Both programs on one core: more heartbeats than it has time for, and nothing else at its end.
#[test]
fn a_core_that_both_programs_use_up_is_named() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    let run = || {
        let mut command = Command::new("taskset");
        command.args(["-c", "0", env!("CARGO_BIN_EXE_loadgen"), "find-capacity"]);
        let flags = "-i 300ms --idle-timeout 10s -d 1s --settle 100ms --connect-rate 5k \
                     --from 2k --max 100k --tolerance 100% --slo rtt.p50<50ms -o -";
        command.args(flags.split_whitespace());
        finish(spawn(command))
    };
    let mut outcome = run();
    for _ in 0..2 {
        // Others ran on that core too.
        if outcome.report["limiter"] != "host-cpu" {
            outcome = run();
        }
    }
    let report = &outcome.report;
    assert_eq!(outcome.code, Some(0), "{} {report}", outcome.stderr);
    assert_eq!(report["limiter"], "host-cpu", "{}", outcome.stderr);
    let evidence = report["evidence"].as_str().unwrap();
    assert!(evidence.contains("of 1 cores were used"), "{evidence}");
}

/// An interrupt ends the run that goes on in good order, and what was learnt is told.
#[test]
fn an_interrupt_ends_the_search_and_leaves_nothing_behind() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    let child = search("-i 300ms --idle-timeout 10s -d 1h --from 60 --max 100");
    let run = only_child(child.id());
    let server = only_child(run);
    thread::sleep(Duration::from_millis(500));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(105), "{} {}", outcome.stderr, outcome.report);
    assert_eq!(outcome.report["verdict"], "interrupted");
    assert_eq!(steps(&outcome.report), [(60, "interrupted", 1)]);
    assert!(!Path::new(&format!("/proc/{server}")).exists(), "the server is gone");
}

fn only_child(parent: u32) -> u32 {
    let began = Instant::now();
    let path = format!("/proc/{parent}/task/{parent}/children");
    loop {
        let children = fs::read_to_string(&path).unwrap();
        if let Some(child) = children.split_whitespace().next() {
            return child.parse().unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{parent} starts nobody");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_bad_command_line_is_usage() {
    for flags in [
        "",
        "--max 5k -c 1k",
        "--from 5k --max 1k",
        "--from 0 --max 1k",
        "--max 5k --slo nonsense<5",
        "--max 5k --steps 0",
        "--max 5k --server-args=--nonsense --from 10",
    ] {
        if flags.contains("server-args") && server::is_missing() {
            continue;
        }
        let outcome = finish(search(flags));
        assert_eq!(outcome.code, Some(2), "{flags}: {}", outcome.stderr);
        assert!(!outcome.stderr.is_empty());
    }
}
