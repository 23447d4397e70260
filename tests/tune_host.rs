//! `scripts/tune-host` as a user runs it, in network namespaces of its own, so that nothing of this
//! host is changed.
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A state file that is gone at the end.
struct State(PathBuf);

impl State {
    fn new(name: &str) -> State {
        State(std::env::temp_dir().join(format!("tune-host-{}-{name}.json", std::process::id())))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs a shell script in a new network and mount namespace; `tune` in it is the script, with this
/// build's doctor and this state file, and `somaxconn` tells the value.
fn in_namespace(state: &State, script: &str) -> Option<Output> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bin = Path::new(env!("CARGO_BIN_EXE_heartwheel")).parent().expect("a folder");
    let prelude = "tune() { \"$TUNE\" --bin \"$BIN\" --state \"$STATE\" \"$@\"; }\n\
                   somaxconn() { echo \"somaxconn=$(cat /proc/sys/net/core/somaxconn)\"; }\n\
                   echo 64 > /proc/sys/net/core/somaxconn || exit 77\n";
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", &format!("{prelude}{script}")])
        .env("TUNE", root.join("scripts/tune-host"))
        .env("BIN", bin)
        .env("STATE", &state.0)
        .output()
        .expect("unshare runs");
    let has_python = Command::new("python3").arg("--version").output().is_ok();
    if !has_python || (!rustix::process::geteuid().is_root() && !output.status.success()) {
        eprintln!("NOT TESTED: tune-host needs python3, and a namespace needs root");
        return None;
    }
    Some(output)
}

fn told(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn without_apply_it_only_prints() {
    let state = State::new("print");
    let Some(output) = in_namespace(&state, "tune -c 5k && somaxconn") else { return };
    let (out, err) = told(&output);
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("sysctl -w net.core.somaxconn=4096   # was: 64"), "{out}");
    assert!(out.contains("somaxconn=64\n"), "{out}");
    assert!(!state.0.exists());
}

#[test]
fn applied_is_enough_and_undone_is_as_before() {
    let state = State::new("apply");
    let script = "tune -c 200 --apply && somaxconn && tune -c 5k --apply && somaxconn &&
                  \"$BIN/heartwheel\" doctor -c 5k && cat \"$STATE\" && tune --undo && somaxconn";
    let Some(output) = in_namespace(&state, script) else { return };
    let (out, err) = told(&output);
    assert!(output.status.success(), "{out}{err}");
    let values: Vec<&str> = out.lines().filter(|line| line.starts_with("somaxconn=")).collect();
    assert_eq!(values, ["somaxconn=200", "somaxconn=4096", "somaxconn=64"], "{out}");
    assert!(out.contains("\nENOUGH\n"), "the doctor is content: {out}");
    assert!(!state.0.exists(), "nothing is left to restore");
}

#[test]
fn undone_though_nobody_reads_what_it_says() {
    let state = State::new("unread");
    let script = "tune -c 5k --apply && somaxconn; tune --undo >/dev/full 2>&1; somaxconn";
    let Some(output) = in_namespace(&state, script) else { return };
    let (out, err) = told(&output);
    assert!(out.ends_with("somaxconn=4096\nsomaxconn=64\n"), "{out}{err}");
    assert!(!state.0.exists(), "nothing is left to restore");
}

#[test]
fn what_is_read_only_is_told_and_does_no_harm() {
    let state = State::new("read-only");
    let script = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys || exit 77
                  tune -c 5k --apply && somaxconn";
    let Some(output) = in_namespace(&state, script) else { return };
    let (out, err) = told(&output);
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert!(err.contains("net.core.somaxconn stays as it is: Read-only"), "{err}");
    assert!(out.contains("somaxconn=64"), "{out}");
    assert!(!state.0.exists(), "nothing was changed, so nothing is to be restored");
}

#[test]
fn another_namespace_is_not_restored_into() {
    let state = State::new("other");
    let script = "tune -c 5k --apply &&
                  unshare --net \"$TUNE\" --bin \"$BIN\" --state \"$STATE\" --undo
                  echo \"exit=$?\"; somaxconn";
    let Some(output) = in_namespace(&state, script) else { return };
    let (out, err) = told(&output);
    assert!(out.contains("exit=1") && out.contains("somaxconn=4096"), "{out}");
    assert!(err.contains("another network namespace"), "{err}");
    assert!(state.0.exists(), "it may still be undone where it was done");
}

#[test]
fn nonsense_is_usage() {
    let state = State::new("usage");
    let script = "for flags in '' '--undo -c 5' '--undo --apply' '-c many'; do
                      tune $flags; echo \"exit=$?\"
                  done";
    let Some(output) = in_namespace(&state, script) else { return };
    let (out, _) = told(&output);
    assert_eq!(out.matches("exit=2").count(), 4, "{out}");
}
