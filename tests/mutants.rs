//! Every planted bug is found by the simulator: `cargo test --features mutants --test mutants`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use heartwheel::engine::simulated::simulate;
use heartwheel::mutants::{Mutant, plant};

const SEEDS: u64 = 60;
const STORM: Duration = Duration::from_secs(60);

/// How the first seed that notices it has noticed it.
fn caught(mutant: Mutant) -> Option<(u64, String)> {
    plant(Some(mutant));
    let found = (0..SEEDS).find_map(|seed| {
        let outcome = catch_unwind(AssertUnwindSafe(|| simulate(seed, STORM)));
        match outcome {
            Ok(outcome) => {
                let violations = outcome.expect("a descriptor for the mailbox").violations;
                violations.into_iter().next().map(|violation| (seed, violation))
            }
            Err(_) => Some((seed, "a panic".to_owned())),
        }
    });
    plant(None);
    found
}

#[test]
fn the_simulator_finds_every_planted_bug() {
    let mut missed = Vec::new();
    for &mutant in Mutant::ALL {
        match caught(mutant) {
            Some((seed, how)) => {
                let how: String = how.chars().take(60).collect();
                println!("{:<22} seed {seed:>3}  {how}", format!("{mutant:?}"));
            }
            None => missed.push(mutant),
        }
    }
    assert!(missed.is_empty(), "not found in {SEEDS} seeds: {missed:?}");
}
