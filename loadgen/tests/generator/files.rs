//! A folder of a test's own, and programs that work on files in it.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

/// A run that a busy machine has made void says nothing: it is made again.
pub fn again_while_void<T>(is_void: impl Fn(&T) -> bool, mut run: impl FnMut() -> T) -> T {
    const RUNS_MAX: usize = 4;
    let mut outcome = run();
    for _ in 1..RUNS_MAX {
        if !is_void(&outcome) {
            break;
        }
        outcome = run();
    }
    outcome
}

/// A folder that goes with the test.
pub struct Folder(PathBuf);

impl Folder {
    /// An empty one.
    pub fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("loadgen-test-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Writes a report into it.
    pub fn write(&self, name: &str, report: &Value) {
        fs::write(self.0.join(name), report.to_string()).unwrap();
    }

    /// Runs `loadgen` in it: exit code, standard output, standard error.
    pub fn loadgen(&self, words: &str) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
        let output = command.args(words.split(' ')).current_dir(&self.0).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
