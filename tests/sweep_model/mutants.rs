//! Planted faults: a test that never fails proves nothing, so these must be seen to fail.

use heartwheel::sweep::{AnySweeper, Progress, Strategy, Sweeper};
use heartwheel::time::Tick;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::script;

/// What is wrong with a [`Mutant`].
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Fires a tick before the deadline.
    OneTickEarly,
    /// Fires a tick after it.
    OneTickLate,
    /// Keeps 16 bits of a deadline without a thought: what is far away fires early.
    Truncates,
    /// Does not move an entry when its deadline becomes earlier.
    IgnoresEarlier,
    /// Says that all is done when the budget is spent.
    ForgetsTheRest,
    /// Does not notice removals.
    KeepsTheRemoved,
    /// Reports the last one twice.
    Stutters,
}

const FAULTS: &[Fault] = &[
    Fault::OneTickEarly,
    Fault::OneTickLate,
    Fault::Truncates,
    Fault::IgnoresEarlier,
    Fault::ForgetsTheRest,
    Fault::KeepsTheRemoved,
    Fault::Stutters,
];

/// A real sweeper with a planted fault.
struct Mutant {
    fault: Fault,
    sweeper: AnySweeper,
    deadlines: Vec<Tick>,
    now: Tick,
}

impl Mutant {
    fn new(fault: Fault, strategy: Strategy, start: Tick) -> Mutant {
        let sweeper = AnySweeper::new(strategy, 2_000, start);
        Mutant { fault, sweeper, deadlines: vec![Tick::NEVER; 2_000], now: start }
    }

    fn mutated(&self, deadline: Tick) -> Tick {
        let ahead = deadline.0.saturating_sub(self.now.0);
        match self.fault {
            Fault::Truncates if deadline != Tick::NEVER => {
                Tick(self.now.0.saturating_add(ahead & 0xffff))
            }
            _ => deadline,
        }
    }
}

impl Sweeper for Mutant {
    fn insert(&mut self, index: u32, deadline: Tick) {
        self.deadlines[index as usize] = deadline;
        self.sweeper.insert(index, self.mutated(deadline));
    }

    fn touch(&mut self, index: u32, deadline: Tick) {
        let old = std::mem::replace(&mut self.deadlines[index as usize], deadline);
        if !matches!(self.fault, Fault::IgnoresEarlier) || deadline >= old {
            self.sweeper.touch(index, self.mutated(deadline));
        }
    }

    fn remove(&mut self, index: u32) {
        if !matches!(self.fault, Fault::KeepsTheRemoved) {
            self.sweeper.remove(index);
        }
    }

    fn advance(&mut self, now: Tick, budget: usize, expired: &mut Vec<u32>) -> Progress {
        self.now = now;
        let (now, first) = match self.fault {
            Fault::OneTickEarly => (Tick(now.0.saturating_add(1)), expired.len()),
            Fault::OneTickLate => (Tick(now.0.saturating_sub(1)), expired.len()),
            _ => (now, expired.len()),
        };
        let progress = self.sweeper.advance(now, budget, expired);
        match self.fault {
            Fault::ForgetsTheRest => Progress::Done,
            Fault::Stutters if expired.len() > first => {
                expired.extend_from_within(expired.len() - 1..);
                progress
            }
            _ => progress,
        }
    }

    fn len(&self) -> usize {
        self.sweeper.len()
    }

    fn entries_visited(&self) -> u64 {
        self.sweeper.entries_visited()
    }

    fn heap_bytes(&self) -> usize {
        self.sweeper.heap_bytes()
    }
}

#[test]
fn every_planted_fault_is_seen() {
    for &fault in FAULTS {
        for strategy in [Strategy::DEFAULT, Strategy::LazyHeap] {
            let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
            let mut runner = TestRunner::new_with_rng(config, deterministic());
            let outcome = runner.run(&script::script(), |(start, script)| {
                let mutant = Mutant::new(fault, strategy, start);
                script::run(mutant, start, &script).map_err(TestCaseError::fail)
            });
            assert!(outcome.is_err(), "{fault:?} in {strategy} went unseen");
        }
    }
}

/// The same scripts every time: whether a fault is seen is no matter of luck.
fn deterministic() -> proptest::test_runner::TestRng {
    proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha)
}
