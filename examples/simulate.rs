//! Runs many seeds of the simulator and says what they have come to: `scripts/simulate` starts it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a report is what it is for")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use heartwheel::engine::simulated::{BOUNDED, CROWDS, Outcome, Seeds, fitting_length, simulate};

/// Simulates the server: the real loop, shard, codecs and sweepers, on a simulated kernel, among
/// clients of every kind, in virtual time.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// How many simulated hours of faults, all seeds together: those with short ticks get less.
    #[arg(long, default_value_t = 100.0)]
    hours: f64,
    /// How long each seed runs, instead of its share of the hours: to replay one.
    #[arg(long, value_parser = humantime::parse_duration)]
    length: Option<Duration>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many seeds to run at a time.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Only worlds of thousands of clients: each 25th seed.
    #[arg(long)]
    crowds: bool,
    /// Only worlds that bound who may come in: each 7th seed.
    #[arg(long, conflicts_with = "crowds")]
    bounded: bool,
    /// Go on after a seed that fails, and list them all.
    #[arg(long)]
    keep_going: bool,
}

/// How often a line of progress is printed.
const PROGRESS_EVERY: Duration = Duration::from_secs(20);

struct Run {
    arguments: Arguments,
    begun: Instant,
    next: AtomicU64,
    failed: AtomicBool,
    account: Mutex<Account>,
}

#[derive(Default)]
struct Account {
    total: Outcome,
    seeds: u64,
    violations: u64,
    told: Duration,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let run = Run {
        begun: Instant::now(),
        next: AtomicU64::new(0),
        failed: AtomicBool::new(false),
        account: Mutex::default(),
        arguments,
    };
    thread::scope(|scope| {
        for _ in 0..run.arguments.threads.max(1) {
            scope.spawn(|| run.work());
        }
    });
    run.report();
    if run.failed.into_inner() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

impl Arguments {
    /// The seed to run as the one with this number.
    fn seed(&self, number: u64) -> u64 {
        let nth = |seeds: Seeds| seeds.nth(self.from, number);
        match (self.crowds, self.bounded) {
            (true, _) => nth(CROWDS),
            (_, true) => nth(BOUNDED),
            _ => self.from + number,
        }
    }
}

impl Run {
    /// Takes one seed after the other.
    fn work(&self) {
        let arguments = &self.arguments;
        let mean_s = arguments.hours * 3_600.0 / arguments.seeds.max(1) as f64;
        let mean = Duration::from_secs_f64(mean_s);
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let ended = self.failed.load(Ordering::Relaxed) && !arguments.keep_going;
            if number >= arguments.seeds || ended {
                return;
            }
            let seed = arguments.seed(number);
            let length = arguments.length.unwrap_or_else(|| fitting_length(seed, mean));
            let outcome = simulate(seed, length);
            let mut account = self.account.lock().expect("nobody panics with it");
            account.seeds += 1;
            match outcome {
                Ok(outcome) => account.total.add(&outcome),
                Err(violation) => {
                    account.violations += 1;
                    println!("seed {seed}: {violation}");
                    self.failed.store(true, Ordering::Relaxed);
                }
            }
            let elapsed = self.begun.elapsed();
            if elapsed - account.told >= PROGRESS_EVERY {
                account.told = elapsed;
                progress(&account, elapsed);
            }
        }
    }

    fn report(&self) {
        let account = self.account.lock().expect("nobody panics with it");
        let (total, took_s) = (&account.total, self.begun.elapsed().as_secs_f64());
        let hours = total.simulated.as_secs_f64() / 3_600.0;
        let faults = total.faults.values().sum::<u64>();
        let rate = |count: f64| count / took_s / self.arguments.threads.max(1) as f64;
        println!("seeds               {}", account.seeds);
        println!("simulated hours     {hours:.1}");
        println!("turns of the loop   {}", total.turns);
        println!("sessions            {}", total.sessions);
        println!("heartbeats          {}", total.heartbeats);
        println!("expiries            {}", total.expiries);
        println!("faults injected     {faults}");
        by_count(&total.faults);
        println!("reached             {}", total.exercised.len());
        by_count(&total.exercised);
        println!("took                {took_s:.1} s in {} threads", self.arguments.threads);
        println!(
            "a thread and second {:.2} simulated hours, {:.0} heartbeats, {:.0} faults",
            rate(hours),
            rate(total.heartbeats as f64),
            rate(faults as f64)
        );
        let verdict = if account.violations == 0 { "PASS" } else { "FAIL" };
        println!("verdict: {verdict}, {} violations", account.violations);
    }
}

fn progress(account: &Account, elapsed: Duration) {
    let total = &account.total;
    eprintln!(
        "{:>5} s: {} seeds, {:.0} hours, {:.1}m heartbeats, {:.1}m faults, {} violations",
        elapsed.as_secs(),
        account.seeds,
        total.simulated.as_secs_f64() / 3_600.0,
        total.heartbeats as f64 / 1e6,
        total.faults.values().sum::<u64>() as f64 / 1e6,
        account.violations
    );
}

fn by_count(counts: &BTreeMap<&'static str, u64>) {
    let sorted: BTreeMap<_, _> = counts.iter().map(|(name, n)| ((n, name), n)).collect();
    for ((_, name), count) in sorted.iter().rev() {
        println!("  {count:>12}  {name}");
    }
}
