//! One model test for all: every sweep strategy is held to a naive oracle.

mod mutants;
mod named;
mod oracle;
mod peers;
mod script;

use heartwheel::sweep::{AnySweeper, BlockWheel, Strategy, Vectors};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

/// An interpreter has no time for all.
const CASES: u32 = if cfg!(miri) { 3 } else { 300 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, ..ProptestConfig::default() })]

    #[test]
    fn every_strategy_does_as_the_oracle_says(
        (start, script) in script::script(),
        capacity in prop_oneof![Just(0usize), Just(100), Just(1_000)],
    ) {
        for &strategy in Strategy::ALL {
            let sweeper = AnySweeper::new(strategy, capacity, start);
            script::run(sweeper, start, &script)
                .map_err(|fault| TestCaseError::fail(format!("{strategy}: {fault}")))?;
        }
    }

    #[test]
    fn the_block_wheel_gives_the_same_answers_with_any_instructions(
        (start, script) in script::script(),
    ) {
        for vectors in Vectors::available() {
            let sweeper = BlockWheel::with_vectors(200, start, vectors);
            script::run(sweeper, start, &script)
                .map_err(|fault| TestCaseError::fail(format!("{}: {fault}", vectors.name())))?;
        }
    }
}
