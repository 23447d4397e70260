//! What is shown without a terminal: a line on standard error now and then.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::stats::Snapshot;
use crate::units::grouped;

/// How often, while connecting or ending.
const BUSY_EVERY: Duration = Duration::from_secs(1);
/// How often, while holding.
const HOLDING_EVERY: Duration = Duration::from_secs(5);

/// Writes the lines.
pub struct Lines {
    wanted: u64,
    started: Instant,
    shown: Instant,
    last: Snapshot,
}

impl Lines {
    /// Nothing has been shown yet.
    pub fn new(wanted: u64) -> Lines {
        let now = Instant::now();
        Lines { wanted, started: now, shown: now, last: Snapshot::default() }
    }

    /// The state of things, if it is time.
    pub fn show(&mut self, phase: &str, now: &Snapshot) {
        let every = if phase == "holding" { HOLDING_EVERY } else { BUSY_EVERY };
        let passed = self.shown.elapsed();
        if passed < every {
            return;
        }
        self.shown = Instant::now();
        let rate = |new: u64, old: u64| {
            grouped((new.saturating_sub(old) as f64 / passed.as_secs_f64()).round() as u64)
        };
        let mut line = format!(
            "{:>5.1} s  {phase:<10} {} of {} open",
            self.started.elapsed().as_secs_f64(),
            grouped(now.open()),
            grouped(self.wanted),
        );
        if phase == "connecting" {
            line += &format!(", {}/s", rate(now.opened, self.last.opened));
        }
        line += &format!(", {} heartbeats/s", rate(now.acked, self.last.acked));
        for (count, what) in [
            (now.failed, "failed"),
            (now.expired, "expired"),
            (now.false_expiries, "FALSELY closed"),
            (now.sent.saturating_sub(now.acked + 1_000), "unanswered"),
        ] {
            if count > 0 {
                line += &format!(", {} {what}", grouped(count));
            }
        }
        self.last = *now;
        say(&line);
    }
}

/// A line that stands for itself.
pub fn say(text: &str) {
    // Nothing can be done about a standard error that is gone.
    let _ = writeln!(std::io::stderr(), "{text}");
}
