//! The peers of the comparison, held to the same oracle as far as their contracts go.

#[path = "../../benches/sweep_peers/mod.rs"]
mod sweep_peers;

use heartwheel::sweep::Sweeper;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use sweep_peers::*;

use crate::script::{self, Step};

/// Enough for the indices of all scripts.
const CAPACITY: usize = 2_000;

fn hold<S: Sweeper>(name: &str, peer: S, script: &[Step]) -> Result<(), TestCaseError> {
    script::run_modest(peer, START, script)
        .map_err(|fault| TestCaseError::fail(format!("{name}: {fault}")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn peers_with_a_budget_do_as_the_oracle_says(script in script::modest(true)) {
        hold("nexus-wheel", NexusWheel::new(CAPACITY), &script)?;
        let (runtime, _entered) = enter_paused_runtime();
        hold("delay-queue", TokioDelayQueue::new(CAPACITY, runtime), &script)?;
    }

    #[test]
    fn peers_without_a_budget_do_as_the_oracle_says(script in script::modest(false)) {
        hold("hash-wheel", HashWheel::new(), &script)?;
        let (runtime, _entered) = enter_paused_runtime();
        hold("tokio-sleep", TokioSleeps::new(CAPACITY, runtime), &script)?;
    }

    #[test]
    fn the_peer_with_one_timeout_does_as_the_oracle_says(
        script in script::modest_with_timeout(250),
    ) {
        hold("nexus-queue", NexusQueue::new(CAPACITY, 250), &script)?;
    }
}
