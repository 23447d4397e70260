//! What is told while the search goes on: what is tried and why, and what came of it.
//!
//! On a terminal the progress of a run is one line that changes; elsewhere it is left out.

use std::io::{IsTerminal as _, Write as _};

use super::FindCapacity;
use super::facts::Facts;
use super::limiter::Suspect;
use super::record::Attempt;
use crate::units::grouped;

/// The longest line that changes: it must not be wrapped.
const STATUS_COLUMNS: usize = 78;

/// Tells it on standard error.
pub struct Progress {
    changes: bool,
    shown: bool,
    seconds_each: f64,
}

impl Progress {
    /// Nothing has been told. `plain`: no line that changes.
    pub fn new(plain: bool) -> Progress {
        let changes = !plain && std::io::stderr().is_terminal();
        Progress { changes, shown: false, seconds_each: 0.0 }
    }

    /// A line that stays.
    pub fn line(&mut self, text: &str) {
        self.clear();
        // Nothing can be done about a standard error that is gone.
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    fn result(&mut self, text: &str) {
        self.line(&format!("        {text}"));
    }

    /// The line that changes.
    pub fn status(&mut self, text: &str) {
        // Warnings were told for all runs, and the log of a server is for those who run it alone.
        if !self.changes || text.starts_with("warning:") || text.contains(" INFO ") {
            return;
        }
        let text: String = text.trim().chars().take(STATUS_COLUMNS - 8).collect();
        self.shown = true;
        let _ = write!(std::io::stderr(), "\r\x1b[2K        {text}");
        let _ = std::io::stderr().flush();
    }

    /// It goes.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }

    /// What is searched for.
    pub fn begin(&mut self, command: &FindCapacity) {
        let run = &command.run;
        self.seconds_each = (run.duration + run.warmup).as_secs_f64() + 2.0;
        let slos: Vec<String> = run.slo.iter().map(ToString::to_string).collect();
        let judged = match slos.is_empty() {
            true => "no --slo: a load holds if everybody opens and the laws hold".to_owned(),
            false => {
                format!("a load holds if everybody opens, the laws hold and {}", slos.join(", "))
            }
        };
        self.line(&format!(
            "find-capacity: {} to {} connections, within {:.0} %; {judged}",
            grouped(u64::from(command.min)),
            grouped(u64::from(command.max)),
            command.tolerance * 100.0,
        ));
    }

    /// What comes next; it takes as long as so many that connect in a second make it take.
    pub fn step(&mut self, number: usize, load: u32, why: &str, connect_rate: Option<u32>) {
        let seconds = |rate: u32| self.seconds_each + f64::from(load) / f64::from(rate.max(1));
        let time =
            connect_rate.map_or(String::new(), |rate| format!("; about {:.0} s", seconds(rate)));
        let load = grouped(u64::from(load));
        self.line(&format!("step {number:>2} {load:>9} connections ({why}){time}"));
    }

    /// It need not be tried.
    pub fn foreseen(&mut self, suspect: &Suspect) {
        self.result(&format!("not tried: {}: {}", suspect.limiter.told(), suspect.evidence));
    }

    /// It held.
    pub fn held(&mut self, facts: Facts<'_>) {
        let number = |path: &str| facts.number(path);
        let ms =
            |path: &str| number(path).map_or("?".to_owned(), |us| format!("{:.1} ms", us / 1e3));
        let cores = |side: &str| {
            let cores = number(&format!("{side}.cpu_cores"));
            cores.map_or("?".to_owned(), |cores| format!("{cores:.2}"))
        };
        self.result(&format!(
            "held: {} heartbeats/s, rtt p99 {}, server {} cores, load generator {}",
            grouped(number("heartbeats.rate_per_s").unwrap_or(0.0).round() as u64),
            ms("rtt_us.p99"),
            cores("server"),
            cores("generator"),
        ));
    }

    /// It could not even begin.
    pub fn refused(&mut self, suspects: &[Suspect]) {
        self.failed("refused", suspects, None);
    }

    /// It did not, for the first time.
    pub fn once_more(&mut self, suspects: &[Suspect], attempt: Option<&Attempt>) {
        self.failed("did not hold", suspects, attempt);
        self.result("once more, for it may have been noise: a failure counts if it is seen twice");
    }

    /// And did not for the second time.
    pub fn failed_again(&mut self, suspects: &[Suspect], attempt: Option<&Attempt>) {
        self.failed("did not hold again", suspects, attempt);
    }

    /// What moves the limit that was found.
    pub fn end(&mut self, cure: Option<&str>) {
        if let Some(cure) = cure {
            self.line(&format!("what moves this limit: {cure}"));
        }
    }

    fn failed(&mut self, what: &str, suspects: &[Suspect], attempt: Option<&Attempt>) {
        let broke = attempt.map(|attempt| attempt.broke.as_slice()).unwrap_or_default();
        let more = match broke.len() {
            0 | 1 => String::new(),
            many => format!("; and {} more", many - 1),
        };
        let first = broke.first().map(String::as_str).unwrap_or_default();
        let suspect = suspects.first();
        // The evidence may be the same again.
        if suspect.is_none_or(|suspect| first.is_empty() || !suspect.evidence.contains(first)) {
            self.result(&format!("{what}: {first}{more}"));
        }
        if let Some(suspect) = suspect {
            let why = format!("limited by {}: {}", suspect.limiter.told(), suspect.evidence);
            self.result(&why);
        }
    }
}
