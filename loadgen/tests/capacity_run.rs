//! `scripts/capacity-run --netns` as a user runs it, and loadgen's warning on a poor host.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may as well panic")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const CHILD_HASH: &str = "/proc/sys/net/ipv4/tcp_child_ehash_entries";
/// No other namespace has so many.
const BUCKETS: &str = "16384";

/// What this test needs is not here; says so.
fn is_impossible() -> bool {
    let beside = Path::new(env!("CARGO_BIN_EXE_loadgen")).with_file_name("heartwheel");
    let works = |program: &str, flags: &[&str]| {
        let run = Command::new(program).args(flags).stderr(Stdio::null()).output();
        run.is_ok_and(|output| output.status.success())
    };
    let possible = beside.exists()
        && rustix::process::geteuid().is_root()
        && works("ip", &["netns"])
        && works("unshare", &["--net", "true"])
        && works("python3", &["--version"])
        && fs::OpenOptions::new().write(true).open(CHILD_HASH).is_ok();
    if !possible {
        eprintln!("NOT TESTED: needs root, ip, unshare, python3, Linux 6.1 and `cargo build`");
    }
    !possible
}

/// Starts the script with these flags of loadgen.
fn start(flags: &str) -> Child {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let bin = Path::new(env!("CARGO_BIN_EXE_loadgen")).parent().unwrap();
    Command::new(root.join("scripts/capacity-run"))
        .args(["--netns", "--hash-entries", BUCKETS, "--bin"])
        .arg(bin)
        .arg("--")
        .args(flags.split(' '))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn namespaces() -> String {
    let output = Command::new("ip").arg("netns").output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn told(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_run_has_its_own_hash_and_leaves_nothing_behind() {
    if is_impossible() {
        return;
    }
    let before = fs::read_to_string(CHILD_HASH).unwrap();
    let child = start("-c 300 -i 300ms --idle-timeout 2s -d 1s -o - --no-live");
    let name = format!("heartwheel-{}", child.id());
    let output = child.wait_with_output().unwrap();
    let (out, err) = told(&output);
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(err.contains(&format!("TCP hash of {BUCKETS} buckets")), "{err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["connections"]["opened"], 300);
    // How to repeat all of it, and what the namespace hides.
    let here = &report["environment"];
    let command = "scripts/capacity-run --netns --hash-entries 16384 -- -c 300 -i 300ms";
    assert!(here["command"].as_str().unwrap().starts_with(command), "{here}");
    let tcp_mem = fs::read_to_string("/proc/sys/net/ipv4/tcp_mem").unwrap();
    let tcp_mem: Vec<&str> = tcp_mem.split_whitespace().collect();
    assert_eq!(here["tcp_mem_pages"], tcp_mem.join(" "));
    assert_eq!(fs::read_to_string(CHILD_HASH).unwrap(), before);
    assert!(!namespaces().contains(&name), "{}", namespaces());
}

#[test]
fn a_run_that_is_stopped_cleans_up_too() {
    if is_impossible() {
        return;
    }
    let before = fs::read_to_string(CHILD_HASH).unwrap();
    let child = start("-c 300 -i 300ms --idle-timeout 2s -d 5m -o - --no-live");
    let name = format!("heartwheel-{}", child.id());
    let begun = Instant::now();
    let processes = || {
        let output = Command::new("ip").args(["netns", "pids", &name]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().count()
    };
    // The load generator and its server.
    while processes() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never ran");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_millis(500));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(105), "{}", told(&output).1);
    assert_eq!(fs::read_to_string(CHILD_HASH).unwrap(), before);
    assert!(!namespaces().contains(&name), "{}", namespaces());
}

/// The host is played by a namespace of its own, so that nothing of the real one is changed.
#[test]
fn tuned_for_the_run_and_restored_after_it() {
    if is_impossible() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let bin = Path::new(env!("CARGO_BIN_EXE_loadgen")).parent().unwrap();
    let script = "ip link set lo up && echo 16 > /proc/sys/net/core/somaxconn || exit 77
                  \"$0\" --netns --tune --hash-entries 0 --bin \"$1\" -- \
                      -c 200 -i 300ms --idle-timeout 2s -d 1s -o - --no-live
                  echo \"exit=$? somaxconn=$(cat /proc/sys/net/core/somaxconn)\" >&2";
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-c", script]);
    let output = command.arg(root.join("scripts/capacity-run")).arg(bin).output().unwrap();
    let (_, err) = told(&output);
    let applied = err.find("sysctl -w net.core.somaxconn=200").unwrap_or_else(|| panic!("{err}"));
    let undone = err.find("sysctl -w net.core.somaxconn=16").unwrap_or_else(|| panic!("{err}"));
    assert!(applied < undone, "{err}");
    assert!(err.contains("exit=0 somaxconn=16"), "{err}");
}

#[test]
fn a_poor_host_is_told_in_one_line_and_in_the_report() {
    if is_impossible() {
        return;
    }
    let script = "ip link set lo up && echo 16 > /proc/sys/net/core/somaxconn &&
                  exec \"$0\" -c 200 -i 300ms --idle-timeout 2s -d 1s -o - --no-live";
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", script, env!("CARGO_BIN_EXE_loadgen")]);
    let output = command.output().unwrap();
    let (out, err) = told(&output);
    let warnings: Vec<&str> = err.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(warnings.len(), 1, "{err}");
    assert!(warnings[0].contains("net.core.somaxconn is 16 connections, needed: 200"), "{err}");
    assert!(out.contains("net.core.somaxconn is 16"), "{out}");
}
