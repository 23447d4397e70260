//! Planted bugs: the simulator must catch every one of them, within a bounded number of seeds.
//!
//! `cargo test --features mutants --test mutants -- --nocapture` prints the table.
#![cfg(feature = "mutants")]

use std::time::Duration;

use heartwheel::engine::simulated::simulate;
use heartwheel::mutants::{Mutant, plant};

const SEEDS_MAX: u64 = 200;
const CHAOS: Duration = Duration::from_secs(10);

/// The first seed that shows the bug, and how.
fn caught(mutant: Mutant) -> Option<(u64, String)> {
    plant(Some(mutant));
    let caught = (1..=SEEDS_MAX).find_map(|seed| {
        let violation = simulate(seed, CHAOS).err()?;
        Some((seed, violation.what))
    });
    plant(None);
    caught
}

#[test]
fn every_planted_bug_is_caught() {
    // A panic of the engine is a way to be caught, and no news.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    println!("{:<22} {:>4}  shown by", "mutant", "seed");
    for &mutant in Mutant::ALL {
        match caught(mutant) {
            Some((seed, what)) => {
                let what: String = what.chars().take(100).collect();
                println!("{:<22} {seed:>4}  {what}", format!("{mutant:?}"));
            }
            None => {
                println!("{:<22}    -  MISSED", format!("{mutant:?}"));
                missed.push(mutant);
            }
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not caught in {SEEDS_MAX} seeds: {missed:?}");
}

#[test]
fn without_a_planted_bug_the_same_seeds_pass() {
    for seed in 1..=SEEDS_MAX {
        if let Err(violation) = simulate(seed, CHAOS) {
            panic!("seed {seed}: {violation}");
        }
    }
}
