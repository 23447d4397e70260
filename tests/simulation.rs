//! The real engine on a simulated kernel: a few hundred seeds, each in virtual time.
//!
//! `HEARTWHEEL_SEED=N cargo test --test simulation` replays one.

use std::time::Duration;

use heartwheel::engine::simulated::simulate;

const SEEDS: u64 = 200;
const CHAOS: Duration = Duration::from_secs(60);

/// The one seed to run, if the environment names one.
fn seed_wanted() -> Option<u64> {
    let seed = std::env::var("HEARTWHEEL_SEED").ok()?;
    Some(seed.parse().expect("HEARTWHEEL_SEED is a number"))
}

#[test]
fn every_seed_keeps_every_promise() {
    let seeds = seed_wanted().map_or(1..=SEEDS, |seed| seed..=seed);
    for seed in seeds {
        if let Err(violation) = simulate(seed, CHAOS) {
            panic!("seed {seed}: {violation}");
        }
    }
}
