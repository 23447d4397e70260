//! Runs many seeds of the simulator and says what they have come to: `scripts/simulate` starts it.

#![allow(clippy::print_stdout, reason = "a report is what it is for")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use heartwheel::engine::simulated::{Outcome, simulate};

/// Simulates the server: the real loop, shard, codecs and sweepers, on a simulated kernel, among
/// clients of every kind, in virtual time.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// How many simulated hours of faults, all seeds together.
    #[arg(long, default_value_t = 100.0)]
    hours: f64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Go on after a seed that fails, and list them all.
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seconds = arguments.hours * 3_600.0 / arguments.seeds.max(1) as f64;
    let begun = Instant::now();
    let mut total = Outcome::default();
    let mut violations = 0;
    let mut seeds = 0;
    for seed in arguments.from..arguments.from.saturating_add(arguments.seeds) {
        seeds += 1;
        match simulate(seed, Duration::from_secs_f64(seconds)) {
            Ok(outcome) => add(&mut total, &outcome),
            Err(violation) => {
                violations += 1;
                println!("seed {seed}: {violation}");
                if !arguments.keep_going {
                    break;
                }
            }
        }
    }
    report(&total, seeds, violations, begun.elapsed());
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn add(total: &mut Outcome, outcome: &Outcome) {
    total.simulated += outcome.simulated;
    total.turns += outcome.turns;
    total.heartbeats += outcome.heartbeats;
    total.sessions += outcome.sessions;
    total.expiries += outcome.expiries;
    for (&name, count) in &outcome.faults {
        *total.faults.entry(name).or_default() += count;
    }
}

fn report(total: &Outcome, seeds: u64, violations: u64, took: Duration) {
    println!("seeds               {seeds}");
    println!("simulated hours     {:.1}", total.simulated.as_secs_f64() / 3_600.0);
    println!("turns of the loop   {}", total.turns);
    println!("sessions            {}", total.sessions);
    println!("heartbeats          {}", total.heartbeats);
    println!("expiries            {}", total.expiries);
    println!("faults injected     {}", total.faults.values().sum::<u64>());
    let by_count: BTreeMap<_, _> = total.faults.iter().map(|(name, n)| ((n, name), n)).collect();
    for ((_, name), count) in by_count.iter().rev() {
        println!("  {count:>12}  {name}");
    }
    println!("took                {:.1} s", took.as_secs_f64());
    let verdict = if violations == 0 { "PASS" } else { "FAIL" };
    println!("verdict: {verdict}, {violations} violations");
}
