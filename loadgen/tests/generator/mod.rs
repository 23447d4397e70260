//! The generator, started as a user would.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may as well panic")]

use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// What a generator left behind.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code.
    pub code: Option<i32>,
    /// Its report.
    pub report: Value,
    /// Its complaints.
    pub stderr: String,
}

impl Outcome {
    /// A number of the report by its path.
    pub fn number(&self, path: &str) -> f64 {
        let value = path.split('.').fold(&self.report, |value, name| &value[name]);
        value.as_f64().unwrap_or_else(|| panic!("{path} is {value}: {}", self.report))
    }
}

/// Generators run one at a time: several at once on a small machine would be late.
static TURN: Mutex<()> = Mutex::new(());

/// Waits until it is this test's turn.
pub fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a generator.
#[allow(dead_code, reason = "not every test that shares this module starts a plain run")]
pub fn start(flags: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(flags.split_whitespace()).args(["--report", "-"]);
    spawn(command)
}

/// Starts whatever becomes a generator.
pub fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for a generator's end.
pub fn finish(child: Child) -> Outcome {
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code(),
        report: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A run that this machine had the time for: one that was void (exit 101) is made again.
#[allow(dead_code, reason = "not every test that shares this module judges times")]
pub fn unhurried(flags: &str) -> Outcome {
    let mut outcome = finish(start(flags));
    for _ in 0..3 {
        if outcome.code == Some(101) {
            outcome = finish(start(flags));
        }
    }
    outcome
}
