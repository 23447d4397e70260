//! One run of one contender: the timed steps, and the check of every answer.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, ensure};
use heartwheel::sweep::{Progress, Sweeper};
use heartwheel::time::Tick;

use crate::memory;
use crate::plan::Plan;
use crate::preemption::Times;
use crate::scenario::Scenario;

/// What came out of one run.
#[derive(Debug, Default)]
pub struct Sample {
    pub insert_ns: f64,
    pub touch_ns: f64,
    /// Of each measured tick, in ascending order.
    pub tick_ns: Vec<u64>,
    pub touches: usize,
    pub expired: usize,
    pub visited_per_tick: f64,
    /// Ticks that anybody was reported after the deadline.
    pub lateness_max_ticks: u64,
    pub bytes_per_session: f64,
    /// Timed steps that the kernel interrupted; they are not in the figures.
    pub disturbed: usize,
    /// The longest single call of `advance`, and how many there were.
    pub call_ns_max: u64,
    pub calls: usize,
}

/// Runs `plan` through the sweeper that `make` makes.
///
/// # Errors
/// A wrong answer.
pub fn run<S: Sweeper>(
    scenario: &Scenario,
    plan: &Plan,
    make: impl FnOnce() -> S,
) -> anyhow::Result<Sample> {
    let mut cache = Evictor::new(scenario.is_evicted);
    let mut expired = Vec::with_capacity(scenario.sessions as usize);
    let bytes_before = memory::live_bytes();
    let mut sweeper = make();
    let begin = Instant::now();
    for &(session, deadline) in &plan.filings {
        sweeper.insert(session, Tick(deadline.into()));
    }
    let mut sample = Sample {
        insert_ns: begin.elapsed().as_nanos() as f64 / plan.filings.len() as f64,
        ..Sample::default()
    };
    warm_up(scenario, plan, &mut sweeper)?;
    let visited_before = sweeper.entries_visited();
    let overhead_ns = timer_overhead_ns();
    let (mut touching, mut sweeping) = (Times::default(), Times::default());
    for (measured, expiries) in plan.expiries.iter().enumerate() {
        let now = scenario.warmup_ticks() + 1 + measured as u32;
        let beats = plan.beats(now);
        cache.evict();
        touching.time(beats.len(), overhead_ns, || {
            measured_touches(&mut sweeper, beats, Tick((now + scenario.timeout).into()));
        });
        sample.touches += beats.len();
        cache.evict();
        sweeping.time(1, overhead_ns, || {
            measured_advance(&mut sweeper, Tick(now.into()), usize::MAX, &mut expired);
        });
        expired.sort_unstable();
        ensure!(expired == *expiries, "wrong answer at tick {now}");
        sample.expired += expired.len();
        for session in expired.drain(..) {
            sweeper.insert(session, Tick((now + scenario.timeout).into()));
        }
    }
    let visited = sweeper.entries_visited() - visited_before;
    sample.visited_per_tick = visited as f64 / plan.expiries.len() as f64;
    let bytes = memory::live_bytes() - bytes_before;
    sample.bytes_per_session = bytes as f64 / f64::from(scenario.sessions);
    sample.touch_ns = touching.ns_per_operation();
    sample.tick_ns = sweeping.sorted_ns();
    sample.disturbed = touching.disturbed() + sweeping.disturbed();
    sample.call_ns_max = sample.tick_ns.last().copied().unwrap_or(0);
    sample.calls = plan.expiries.len();
    Ok(sample)
}

/// Goes through the ticks before the measured ones. Nobody expires in these, so time may move in
/// strides where timeouts are long.
fn warm_up<S: Sweeper>(scenario: &Scenario, plan: &Plan, sweeper: &mut S) -> anyhow::Result<()> {
    let stride = (scenario.timeout / 256).clamp(1, 128);
    let mut expired = Vec::new();
    for now in 1..=scenario.warmup_ticks() {
        for &session in plan.beats(now) {
            sweeper.touch(session, Tick((now + scenario.timeout).into()));
        }
        if now % stride == 0 || now == scenario.warmup_ticks() {
            sweeper.advance(Tick(now.into()), usize::MAX, &mut expired);
            ensure!(expired.is_empty(), "early at tick {now}: {expired:?}");
        }
    }
    Ok(())
}

/// Everybody expires in one tick.
///
/// # Errors
/// A wrong answer.
pub fn run_mass<S: Sweeper>(
    scenario: &Scenario,
    make: impl FnOnce() -> S,
) -> anyhow::Result<Sample> {
    let bytes_before = memory::live_bytes();
    let mut sweeper = make();
    let due = Tick(scenario.timeout.into());
    let begin = Instant::now();
    (0..scenario.sessions).for_each(|session| sweeper.insert(session, due));
    let mut sample = Sample {
        insert_ns: begin.elapsed().as_nanos() as f64 / f64::from(scenario.sessions),
        bytes_per_session: (memory::live_bytes() - bytes_before) as f64
            / f64::from(scenario.sessions),
        ..Sample::default()
    };
    // Touched by what the loop does with it: the pages of the list are not what is measured.
    let mut expired = vec![u32::MAX; scenario.sessions as usize];
    expired.clear();
    for now in 1..scenario.timeout {
        sweeper.advance(Tick(now.into()), scenario.budget, &mut expired);
    }
    ensure!(expired.is_empty(), "early");
    let visited_before = sweeper.entries_visited();
    let mut total_ns = 0;
    loop {
        let begin = Instant::now();
        let progress = measured_advance(&mut sweeper, due, scenario.budget, &mut expired);
        let call_ns = begin.elapsed().as_nanos() as u64;
        total_ns += call_ns;
        sample.call_ns_max = sample.call_ns_max.max(call_ns);
        sample.calls += 1;
        if progress == Progress::Done {
            break;
        }
    }
    expired.sort_unstable();
    let is_right = expired.iter().copied().eq(0..scenario.sessions);
    is_right.then_some(()).context("wrong answer")?;
    sample.tick_ns = vec![total_ns];
    sample.expired = expired.len();
    sample.visited_per_tick = (sweeper.entries_visited() - visited_before) as f64;
    Ok(sample)
}

/// A function of its own, so that callgrind can be told to count in here only.
#[inline(never)]
fn measured_touches<S: Sweeper>(sweeper: &mut S, beats: &[u32], deadline: Tick) {
    for &session in beats {
        sweeper.touch(session, deadline);
    }
}

/// As [`measured_touches`].
#[inline(never)]
fn measured_advance<S: Sweeper>(
    sweeper: &mut S,
    now: Tick,
    budget: usize,
    expired: &mut Vec<u32>,
) -> Progress {
    sweeper.advance(now, budget, expired)
}

/// What two readings of the clock with nothing in between take.
fn timer_overhead_ns() -> u64 {
    let readings = (0..100).map(|_| Instant::now().elapsed().as_nanos() as u64);
    readings.min().unwrap_or(0)
}

/// Empties the caches by reading more than they hold.
struct Evictor {
    memory: Vec<u64>,
}

impl Evictor {
    const BYTES: usize = 96 << 20;

    fn new(is_active: bool) -> Evictor {
        Evictor { memory: vec![1; if is_active { Self::BYTES / 8 } else { 0 }] }
    }

    fn evict(&mut self) {
        self.memory.iter_mut().step_by(8).for_each(|word| *word += 1);
        black_box(&self.memory);
    }
}
