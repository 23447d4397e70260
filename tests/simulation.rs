//! The ring engine's loop in simulated worlds. `HEARTWHEEL_SEED=n` runs one alone, to the byte as
//! it was.

use std::time::Duration;

use heartwheel::engine::simulated::{Outcome, simulate};

const SEEDS: u64 = 200;
const STORM: Duration = Duration::from_secs(60);

fn run(seed: u64) -> Outcome {
    let outcome = simulate(seed, STORM).expect("a descriptor for the mailbox");
    let first: Vec<_> = outcome.violations.iter().take(3).collect();
    assert!(first.is_empty(), "HEARTWHEEL_SEED={seed}: {first:#?}");
    outcome
}

#[test]
fn no_world_breaks_a_promise() {
    if let Ok(seed) = std::env::var("HEARTWHEEL_SEED") {
        run(seed.parse().expect("a number"));
        return;
    }
    let (mut heartbeats, mut expired) = (0, 0);
    for seed in 0..SEEDS {
        let outcome = run(seed);
        heartbeats += outcome.report.counters.totals.heartbeats_answered;
        expired += outcome.report.counters.closed.iter().sum::<u64>();
    }
    assert!(heartbeats > 10_000 && expired > 1_000, "worlds were busy: {heartbeats} {expired}");
}

/// The process was paused within a turn: the sweep at its end is of the time before the pause, and
/// a send that had begun after it was taken for stalled since then.
#[test]
fn a_send_that_began_after_a_pause_is_not_stalled_at_once() {
    for seed in [33, 137, 258] {
        run(seed);
    }
}

#[test]
fn a_seed_replays_its_world() {
    for seed in [3, 20] {
        let (one, two) = (run(seed), run(seed));
        assert_eq!((one.trace, one.faults), (two.trace, two.faults), "seed {seed}");
    }
    assert_ne!(run(3).trace, run(4).trace);
}
