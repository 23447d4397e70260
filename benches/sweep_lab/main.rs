//! The sweep laboratory: every strategy and every peer through the same simulated life, in turns.
//!
//! ```text
//! cargo bench --bench sweep_lab -- sessions=1_000_000 expiring-ppm=100 repeats=5
//! ```
//!
//! Writes one line of CSV for each run to standard output. `scripts/bench-sweep` calls this for
//! whole series and makes tables and plots of it; `benches/METHODOLOGY.md` says what is measured.

mod measure;
mod memory;
mod plan;
mod preemption;
mod scenario;
#[path = "../sweep_peers/mod.rs"]
mod sweep_peers;

use std::io::{Write, stdout};

use anyhow::Context;
use heartwheel::sweep::{
    AnySweeper, BlockWheel, Btree, DenseScan, EagerWheel, HierarchicalWheel, LazyHeap, LazyWheel,
    LruList, MapScan, Strategy, Sweeper, Vectors,
};
use heartwheel::time::Tick;

use measure::Sample;
use plan::Plan;
use scenario::Scenario;
use sweep_peers::{
    HashWheel, NexusQueue, NexusWheel, TokioDelayQueue, TokioSleeps, enter_paused_runtime,
};

const COLUMNS: &str = "contender,sessions,timeout,gap_min,gap_max,expiring_ppm,phase,order,cache,\
    budget,repeat,ticks,touches,expired,insert_ns,touch_ns,tick_us_mean,tick_us_p50,tick_us_p99,\
    tick_us_max,visited_per_tick,lateness_max_ticks,bytes_per_session,total_ns_per_session_second,\
    calls,call_us_max,disturbed";

/// Ticks in a second, for the total: the server's own tick is 100 ms.
const TICKS_PER_SECOND: f64 = 10.0;

const PEERS: &[&str] = &["nexus-wheel", "nexus-queue", "delay-queue", "hash-wheel", "tokio-sleep"];

fn main() -> anyhow::Result<()> {
    let mut scenario = Scenario::from_args(std::env::args().skip(1))?;
    if scenario.contenders.is_empty() {
        scenario.contenders = all_contenders();
    }
    let plan = Plan::new(&scenario);
    let mut out = stdout().lock();
    writeln!(out, "{COLUMNS}")?;
    for repeat in 0..scenario.repeats {
        for contender in &scenario.contenders {
            let sample = run(contender, &scenario, &plan).with_context(|| contender.to_owned())?;
            writeln!(out, "{}", row(contender, &scenario, repeat, &sample))?;
        }
    }
    Ok(())
}

/// Every strategy and every peer, the block wheel also with lesser instructions, and through the
/// `AnySweeper` that a server has.
fn all_contenders() -> Vec<String> {
    let strategies = Strategy::ALL.iter().map(|strategy| strategy.name().to_owned());
    let lesser = Vectors::available().skip(1);
    let vectors = lesser.map(|vectors| format!("block-wheel/{}", vectors.name()));
    let peers = PEERS.iter().map(|&peer| peer.to_owned());
    strategies.chain(vectors).chain(["block-wheel/any".to_owned()]).chain(peers).collect()
}

fn run(contender: &str, scenario: &Scenario, plan: &Plan) -> anyhow::Result<Sample> {
    if let Ok(strategy) = contender.parse() {
        return run_strategy(strategy, scenario, plan);
    }
    let capacity = scenario.sessions as usize;
    let timeout = scenario.timeout.into();
    match contender {
        "block-wheel/any" => {
            simulate(scenario, plan, || AnySweeper::new(Strategy::BlockWheel, capacity, Tick(0)))
        }
        "nexus-wheel" => simulate(scenario, plan, || NexusWheel::new(capacity)),
        "nexus-queue" => simulate(scenario, plan, || NexusQueue::new(capacity, timeout)),
        "hash-wheel" => simulate(scenario, plan, HashWheel::new),
        "delay-queue" => {
            let (runtime, _entered) = enter_paused_runtime();
            simulate(scenario, plan, || TokioDelayQueue::new(capacity, runtime))
        }
        "tokio-sleep" => {
            let (runtime, _entered) = enter_paused_runtime();
            simulate(scenario, plan, || TokioSleeps::new(capacity, runtime))
        }
        vectors => {
            let name = vectors.strip_prefix("block-wheel/").context("no such contender")?;
            let vectors = Vectors::available().find(|vectors| vectors.name() == name);
            let vectors = vectors.context("this processor has no such instructions")?;
            let make = || BlockWheel::with_vectors(capacity, Tick(0), vectors);
            simulate(scenario, plan, make)
        }
    }
}

/// Strategies are run as the types that they are, so that none pays for being chosen by name.
fn run_strategy(strategy: Strategy, scenario: &Scenario, plan: &Plan) -> anyhow::Result<Sample> {
    let capacity = scenario.sessions as usize;
    let start = Tick(0);
    match strategy {
        Strategy::MapScan => simulate(scenario, plan, || MapScan::new(capacity, start)),
        Strategy::DenseScan => simulate(scenario, plan, || DenseScan::new(capacity, start)),
        Strategy::LazyHeap => simulate(scenario, plan, || LazyHeap::new(capacity, start)),
        Strategy::Btree => simulate(scenario, plan, || Btree::new(capacity, start)),
        Strategy::LruList => simulate(scenario, plan, || LruList::new(capacity, start)),
        Strategy::EagerWheel => simulate(scenario, plan, || EagerWheel::new(capacity, start)),
        Strategy::LazyWheel => simulate(scenario, plan, || LazyWheel::new(capacity, start)),
        Strategy::HierarchicalWheel => {
            simulate(scenario, plan, || HierarchicalWheel::new(capacity, start))
        }
        Strategy::BlockWheel => simulate(scenario, plan, || BlockWheel::new(capacity, start)),
    }
}

fn simulate<S: Sweeper>(
    scenario: &Scenario,
    plan: &Plan,
    make: impl FnOnce() -> S,
) -> anyhow::Result<Sample> {
    if scenario.ticks == 0 {
        measure::run_mass(scenario, make)
    } else {
        measure::run(scenario, plan, make)
    }
}

fn row(contender: &str, scenario: &Scenario, repeat: u32, sample: &Sample) -> String {
    let ticks = &sample.tick_ns;
    let percentile = |percent: usize| ticks[(ticks.len() - 1) * percent / 100] as f64 / 1e3;
    let mean_ns = ticks.iter().sum::<u64>() as f64 / ticks.len() as f64;
    let touching_ns = sample.touch_ns * sample.touches as f64 / sample.calls as f64;
    let total = (mean_ns + touching_ns) / f64::from(scenario.sessions) * TICKS_PER_SECOND;
    let order = if scenario.is_sequential { "sequential" } else { "random" };
    let cache = if scenario.is_evicted { "evicted" } else { "hot" };
    let budget = if scenario.budget == usize::MAX { 0 } else { scenario.budget };
    let Scenario { sessions, timeout, gap_min, gap_max, expiring_ppm, phase, .. } = scenario;
    let phase = format!("{phase:?}").to_lowercase();
    let Sample { touches, expired, insert_ns, touch_ns, lateness_max_ticks, calls, .. } = sample;
    let Sample { visited_per_tick, bytes_per_session, call_ns_max, .. } = sample;
    format!(
        "{contender},{sessions},{timeout},{gap_min},{gap_max},{expiring_ppm},{phase},{order},\
         {cache},{budget},{repeat},{},{touches},{expired},{insert_ns:.2},{touch_ns:.3},{:.3},\
         {:.3},{:.3},{:.3},{visited_per_tick:.2},{lateness_max_ticks},{bytes_per_session:.3},\
         {total:.4},{calls},{:.3},{}",
        sample.calls,
        mean_ns / 1e3,
        percentile(50),
        percentile(99),
        percentile(100),
        *call_ns_max as f64 / 1e3,
        sample.disturbed,
    )
}
