//! The answer in one line, and the evidence for it: every load, every run of it, and what was
//! judged.
//!
//! Its JSON is an interface: names are added, never changed (`version` 1).

use std::time::Instant;

use serde::Serialize;
use serde_json::Value;

use super::FindCapacity;
use super::facts::Facts;
use super::limiter::{Limiter, Strength, Suspect};
use super::rules;
use super::search::{Ending, Search};
use crate::units::grouped;

/// What an interrupted run exits with.
const INTERRUPTED: u8 = 105;
/// What a run exits with that did not reach its load.
const NOT_REACHED: u8 = 100;

/// Columns of a report that the evidence leaves out: they are long, and no limit is judged by them
/// alone.
const LEFT_OUT: [&str; 5] = ["series", "rtt_distribution", "histograms", "environment", "notes"];

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Of this format.
    pub version: u32,
    /// What this is: `find-capacity`.
    pub kind: &'static str,
    /// In one line.
    pub answer: String,
    /// `found`, `max held`, `first failed`, `steps used up` or `interrupted`.
    pub verdict: &'static str,
    /// What this program exits with.
    pub exit_code: u8,
    /// The largest load that held.
    pub capacity: Option<u32>,
    /// The smallest that did not, or would not.
    pub fails_at: Option<u32>,
    /// What that ran into.
    pub limiter: Option<Limiter>,
    /// Why that is said.
    pub evidence: Option<String>,
    /// What moves this limit.
    pub cure: Option<&'static str>,
    /// Answered in a second at the largest load that held.
    pub heartbeats_per_s: Option<f64>,
    /// What was wanted.
    pub requested: Requested,
    /// How long it took.
    pub seconds: f64,
    /// The command that repeats it.
    pub command: String,
    /// The machine, as a run's report has it.
    pub environment: Value,
    /// What else should be known.
    pub notes: Vec<String>,
    /// Every load, in the order in which they were tried.
    pub steps: Vec<Step>,
}

/// What was wanted.
#[derive(Clone, Debug, Serialize)]
pub struct Requested {
    /// The first load.
    pub min: u32,
    /// The largest.
    pub max: u32,
    /// As a share.
    pub tolerance: f64,
    /// At most.
    pub steps: u32,
    /// Between two runs.
    pub settle_s: f64,
    /// For which each load is held.
    pub duration_s: f64,
    /// The bounds that had to hold.
    pub slo: Vec<String>,
}

/// What became of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It held.
    Held,
    /// It failed twice.
    Failed,
    /// It was known that it would not hold.
    Foreseen,
    /// It was not finished.
    Interrupted,
}

/// One load.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Counted from 1.
    pub number: usize,
    /// The load.
    pub connections: u32,
    /// Why it was tried.
    pub why: String,
    /// What became of it.
    pub outcome: Outcome,
    /// What it ran into, the likeliest first; of the last run.
    pub suspects: Vec<Suspect>,
    /// Its runs: a second one if the first failed.
    pub attempts: Vec<Attempt>,
}

/// One run of a load.
#[derive(Clone, Debug, Serialize)]
pub struct Attempt {
    /// `passed`, `failed`, `not reached`, `void`, `interrupted` or `not made`.
    pub verdict: String,
    /// What did not hold, in words.
    pub broke: Vec<String>,
    /// What it ran into, the likeliest first.
    pub suspects: Vec<Suspect>,
    /// Its report, without what is the same for all and its columns over time.
    pub report: Value,
    #[serde(skip)]
    environment: Value,
}

impl Step {
    /// To be tried.
    pub fn new(number: usize, connections: u32, why: String) -> Step {
        let (suspects, attempts) = (Vec::new(), Vec::new());
        Step { number, connections, why, outcome: Outcome::Held, suspects, attempts }
    }

    /// Not to be tried.
    pub fn foreseen(number: usize, connections: u32, why: String, suspect: Suspect) -> Step {
        let step = Step::new(number, connections, why);
        Step { outcome: Outcome::Foreseen, suspects: vec![suspect], ..step }
    }

    fn last(&self) -> Option<&Attempt> {
        self.attempts.last()
    }

    fn exit_code(&self) -> u8 {
        let report = self.last().map(|attempt| &attempt.report);
        let code = report.and_then(|report| report["exit_code"].as_u64());
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(NOT_REACHED)
    }
}

impl Attempt {
    /// A run that has a report.
    pub fn new(mut report: Value, suspects: Vec<Suspect>) -> Attempt {
        let facts = Facts(&report);
        let slos = rules::broken(facts).into_iter();
        // A report tells its SLOs among its reasons, without their units.
        let reasons = facts.texts("reasons").filter(|reason| !reason.starts_with("SLO:"));
        let broke: Vec<String> = slos.chain(reasons.map(str::to_owned)).collect();
        let verdict = facts.verdict().to_owned();
        let environment = report["environment"].take();
        if let Some(report) = report.as_object_mut() {
            LEFT_OUT.iter().for_each(|name| drop(report.remove(*name)));
        }
        Attempt { verdict, broke, suspects, report, environment }
    }

    /// A limit was named before anybody connected.
    pub fn was_refused(&self) -> bool {
        let certain = |suspect: &Suspect| suspect.strength == Strength::Certain;
        self.report.is_null() && self.suspects.first().is_some_and(certain)
    }

    /// A run that could not be made.
    pub fn not_made(suspect: Suspect) -> Attempt {
        Attempt {
            verdict: "not made".to_owned(),
            broke: vec![suspect.evidence.clone()],
            suspects: vec![suspect],
            report: Value::Null,
            environment: Value::Null,
        }
    }
}

impl Record {
    /// Of a search that is over, or was interrupted.
    pub fn new(
        command: &FindCapacity,
        search: &Search,
        ending: Option<Ending>,
        mut steps: Vec<Step>,
        began: Instant,
    ) -> Record {
        let attempts = steps.iter_mut().flat_map(|step| &mut step.attempts);
        let environments = attempts.map(|attempt| attempt.environment.take());
        let environment = environments.filter(|found| !found.is_null()).last();
        let of = |load: Option<u32>| steps.iter().find(|step| Some(step.connections) == load);
        let (capacity, fails_at) = (search.capacity(), search.limit());
        let held = of(capacity).and_then(Step::last);
        let failed = of(fails_at);
        let suspect = failed.and_then(|step| step.suspects.first());
        let heartbeats_per_s =
            held.and_then(|held| Facts(&held.report).number("heartbeats.rate_per_s"));
        let exit_code = match ending {
            None => INTERRUPTED,
            Some(Ending::FirstFailed) => failed.map_or(NOT_REACHED, Step::exit_code),
            Some(_) => 0,
        };
        let run = &command.run;
        Record {
            version: 1,
            kind: "find-capacity",
            answer: answer(ending, capacity, heartbeats_per_s, failed),
            verdict: match ending {
                None => "interrupted",
                Some(Ending::Found) => "found",
                Some(Ending::MaxHeld) => "max held",
                Some(Ending::FirstFailed) => "first failed",
                Some(Ending::StepsUsedUp) => "steps used up",
            },
            exit_code,
            capacity,
            fails_at,
            limiter: suspect.map(|suspect| suspect.limiter),
            evidence: suspect.map(|suspect| suspect.evidence.clone()),
            cure: suspect.map(|suspect| suspect.limiter.cure()),
            heartbeats_per_s,
            requested: Requested {
                min: command.min,
                max: command.max,
                tolerance: command.tolerance,
                steps: command.steps,
                settle_s: command.settle.as_secs_f64(),
                duration_s: run.duration.as_secs_f64(),
                slo: run.slo.iter().map(ToString::to_string).collect(),
            },
            seconds: began.elapsed().as_secs_f64(),
            command: crate::report::command(),
            environment: environment.unwrap_or_default(),
            notes: Vec::new(),
            steps,
        }
    }
}

/// The answer in one line.
fn answer(
    ending: Option<Ending>,
    capacity: Option<u32>,
    heartbeats_per_s: Option<f64>,
    failed: Option<&Step>,
) -> String {
    let count = |load: u32| grouped(u64::from(load));
    let held = capacity.map(|load| {
        let rate = heartbeats_per_s.map(|rate| grouped(rate.round() as u64));
        let rate = rate.map_or(String::new(), |rate| format!(" ({rate} heartbeats/s)"));
        format!("{} connections{rate}", count(load))
    });
    let held = held.unwrap_or_else(|| "unknown".to_owned());
    let limited = failed.map_or(String::new(), limited);
    match (ending, failed) {
        (None, _) => format!("capacity: interrupted; so far {held}{limited}"),
        (Some(Ending::MaxHeld), _) => {
            format!("capacity: at least {held}, which is --max: no limit was reached")
        }
        (Some(Ending::FirstFailed), Some(step)) => {
            format!("capacity: below {} connections{limited}", count(step.connections))
        }
        (Some(Ending::StepsUsedUp), _) => {
            format!("capacity: at least {held}{limited}; --steps are used up")
        }
        (Some(_), _) => format!("capacity: {held}{limited}"),
    }
}

/// What the smallest load that did not hold ran into.
fn limited(step: &Step) -> String {
    let Some(suspect) = step.suspects.first() else { return String::new() };
    let load = grouped(u64::from(step.connections));
    let mut told = format!(", limited by {}: {}", suspect.limiter.told(), suspect.evidence);
    match step.last() {
        None => told += &format!(" (for {load}, which were not tried)"),
        Some(run) => match run.broke.first() {
            Some(broke) if !suspect.evidence.contains(broke) => {
                told += &format!("; at {load}: {broke}");
            }
            _ => told += &format!(" (at {load})"),
        },
    }
    // One line, whatever a report or a program has said.
    told.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn step(outcome: Outcome, suspect: Suspect, broke: &str) -> Step {
        let attempt =
            Attempt { broke: vec![broke.to_owned()], ..Attempt::not_made(suspect.clone()) };
        let attempts = if outcome == Outcome::Foreseen { Vec::new() } else { vec![attempt] };
        let step = Step::new(9, 88_000, "why".to_owned());
        Step { outcome, suspects: vec![suspect], attempts, ..step }
    }

    #[test]
    fn every_ending_has_its_line() {
        let busy = "its busiest thread was busy for 99 % of the time";
        let server = Suspect::strong(Limiter::ServerCpu, busy);
        let failed = step(Outcome::Failed, server, "rtt.p99<5ms is 31.2 ms");
        let told = answer(Some(Ending::Found), Some(84_000), Some(2_803.4), Some(&failed));
        let expected = format!(
            "capacity: 84,000 connections (2,803 heartbeats/s), limited by the server's CPU: \
             {busy}; at 88,000: rtt.p99<5ms is 31.2 ms"
        );
        assert_eq!(told, expected);
        let told = answer(Some(Ending::StepsUsedUp), Some(84_000), None, Some(&failed));
        assert!(told.starts_with("capacity: at least 84,000 connections, limited by"), "{told}");
        let told = answer(Some(Ending::FirstFailed), None, None, Some(&failed));
        assert!(told.starts_with("capacity: below 88,000 connections, limited by"), "{told}");
        let told = answer(Some(Ending::MaxHeld), Some(84_000), Some(9.0), None);
        assert!(told.contains("at least 84,000 connections (9 heartbeats/s), which is --max"));
        let told = answer(None, None, None, None);
        assert_eq!(told, "capacity: interrupted; so far unknown");

        let memory = Suspect::certain(Limiter::Memory, "900 MiB are needed\n");
        let foreseen = step(Outcome::Foreseen, memory, "");
        let told = answer(Some(Ending::Found), Some(84_000), None, Some(&foreseen));
        assert!(told.ends_with("900 MiB are needed  (for 88,000, which were not tried)"), "{told}");
        assert_eq!(told.lines().count(), 1);
    }

    #[test]
    fn a_run_tells_what_broke_once_and_in_units() {
        let report = json!({
            "verdict": "failed",
            "exit_code": 99,
            "rtt_us": {"p99": 31_250},
            "reasons": ["law: a (1 against 2)", "SLO: rtt.p99<5ms (it is 31250)"],
            "slo": [{"expression": "rtt.p99<5ms", "holds": false, "value": 31_250.0}],
            "series": {"at_s": [1, 2]},
            "environment": {"cores": 2},
        });
        let attempt = Attempt::new(report, Vec::new());
        assert_eq!(attempt.broke, ["rtt.p99<5ms is 31.2 ms", "law: a (1 against 2)"]);
        assert_eq!(attempt.report["rtt_us"]["p99"], 31_250);
        assert!(attempt.report.get("series").is_none());
        assert_eq!(attempt.environment["cores"], 2);
    }
}
