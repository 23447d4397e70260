//! Runs simulated worlds, one seed after another: see `scripts/simulate --help`.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use heartwheel::engine::simulated::{Faults, simulate};

const USAGE: &str = "simulate [--seeds N] [--from SEED] [--hours H]
  --seeds N    worlds to run (default 200)
  --from SEED  the first seed (default 0)
  --hours H    virtual hours of faults in all, shared by the worlds (default: 60 s each)";

struct Plan {
    seeds: u64,
    from: u64,
    hours: Option<f64>,
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Plan> {
    let mut plan = Plan { seeds: 200, from: 0, hours: None };
    while let Some(name) = arguments.next() {
        let value = arguments.next()?;
        match name.as_str() {
            "--seeds" => plan.seeds = value.parse().ok().filter(|seeds| *seeds > 0)?,
            "--from" => plan.from = value.parse().ok()?,
            "--hours" => {
                let hours = value.parse().ok().filter(|hours| (0.0..=1e9).contains(hours))?;
                plan.hours = Some(hours);
            }
            _ => return None,
        }
    }
    Some(plan)
}

fn main() -> ExitCode {
    let Some(Plan { seeds, from, hours }) = parse(std::env::args().skip(1)) else {
        println!("{USAGE}");
        return ExitCode::from(2);
    };
    let storm = match hours {
        Some(hours) => Duration::from_secs_f64(hours * 3_600.0 / seeds as f64),
        None => Duration::from_secs(60),
    };
    let begun = Instant::now();
    let (mut simulated, mut heartbeats, mut closed) = (Duration::ZERO, 0, 0);
    let mut faults = Faults::default();
    let mut violations = 0;
    for seed in from..from.saturating_add(seeds) {
        let outcome = match simulate(seed, storm) {
            Ok(outcome) => outcome,
            Err(error) => {
                println!("seed {seed}: {error}");
                return ExitCode::FAILURE;
            }
        };
        for violation in &outcome.violations {
            println!("seed {seed}: {violation}");
        }
        violations += outcome.violations.len();
        simulated += outcome.simulated;
        heartbeats += outcome.report.counters.totals.heartbeats_answered;
        closed += outcome.report.counters.closed.iter().sum::<u64>();
        faults.add(&outcome.faults);
    }
    let hours = simulated.as_secs_f64() / 3_600.0;
    println!("seeds {from} to {}, {:.0?}", from + (seeds - 1), begun.elapsed());
    println!("simulated hours    {hours:.1}");
    println!("heartbeats         {heartbeats}");
    println!("sessions closed    {closed}");
    println!("faults             {}", faults.values().iter().sum::<u64>());
    for (name, count) in Faults::NAMES.iter().zip(faults.values()) {
        println!("  {name:<18}{count}");
    }
    let verdict = if violations == 0 { "PASS" } else { "FAIL" };
    println!("{verdict}: {violations} violations");
    ExitCode::from(u8::from(violations > 0))
}
