//! The strategies by name, and one type that can be any of them without dynamic dispatch.

use std::fmt;
use std::str::FromStr;

use super::{
    BlockWheel, Btree, DenseScan, EagerWheel, HierarchicalWheel, LazyHeap, LazyWheel, LruList,
    MapScan, Progress, Sweeper,
};
use crate::time::Tick;

/// Makes [`Strategy`] and [`AnySweeper`] from one list, so that no strategy can be forgotten.
macro_rules! strategies {
    (default $default:ident; $($strategy:ident, $name:literal, $summary:literal;)+) => {
        /// A way to find the expired. Its name is what `--sweep` takes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Strategy {
            $(#[doc = concat!("`", $name, "`: ", $summary, ".")] $strategy,)+
        }

        impl Strategy {
            /// The strategy that wins the comparison in `docs/SWEEP.md`.
            pub const DEFAULT: Strategy = Strategy::$default;

            /// Every strategy, the simplest first.
            pub const ALL: &[Strategy] = &[$(Strategy::$strategy,)+];

            /// The name that `--sweep` takes.
            pub const fn name(self) -> &'static str {
                match self { $(Strategy::$strategy => $name,)+ }
            }

            /// What it does, in a line.
            pub const fn summary(self) -> &'static str {
                match self { $(Strategy::$strategy => $summary,)+ }
            }
        }

        /// A sweeper of any strategy. The choice is a `match`, so calls can be inlined.
        ///
        /// A touch asks for the default first, and leaves the others to a call: going through
        /// a jump table would cost it half as much again as the touch itself.
        #[derive(Debug)]
        pub enum AnySweeper {
            $(#[doc = concat!("`", $name, "`.")] $strategy($strategy),)+
        }

        impl AnySweeper {
            /// A sweeper with room for the indices below `capacity`, at the tick `start`.
            pub fn new(strategy: Strategy, capacity: usize, start: Tick) -> AnySweeper {
                match strategy {
                    $(Strategy::$strategy => {
                        AnySweeper::$strategy($strategy::new(capacity, start))
                    })+
                }
            }

            #[inline(never)]
            fn touch_any(&mut self, index: u32, deadline: Tick) {
                match self { $(AnySweeper::$strategy(sweeper) => sweeper.touch(index, deadline),)+ }
            }

            /// Which strategy this is.
            pub const fn strategy(&self) -> Strategy {
                match self { $(AnySweeper::$strategy(_) => Strategy::$strategy,)+ }
            }
        }

        impl Sweeper for AnySweeper {
            #[inline]
            fn insert(&mut self, index: u32, deadline: Tick) {
                match self {
                    $(AnySweeper::$strategy(sweeper) => sweeper.insert(index, deadline),)+
                }
            }

            #[inline]
            fn touch(&mut self, index: u32, deadline: Tick) {
                if let AnySweeper::$default(sweeper) = self {
                    sweeper.touch(index, deadline);
                } else {
                    self.touch_any(index, deadline);
                }
            }

            #[inline]
            fn remove(&mut self, index: u32) {
                match self { $(AnySweeper::$strategy(sweeper) => sweeper.remove(index),)+ }
            }

            #[inline]
            fn advance(&mut self, now: Tick, budget: usize, expired: &mut Vec<u32>) -> Progress {
                match self {
                    $(AnySweeper::$strategy(sweeper) => sweeper.advance(now, budget, expired),)+
                }
            }

            fn len(&self) -> usize {
                match self { $(AnySweeper::$strategy(sweeper) => sweeper.len(),)+ }
            }

            fn entries_visited(&self) -> u64 {
                match self { $(AnySweeper::$strategy(sweeper) => sweeper.entries_visited(),)+ }
            }

            fn heap_bytes(&self) -> usize {
                match self { $(AnySweeper::$strategy(sweeper) => sweeper.heap_bytes(),)+ }
            }
        }
    };
}

strategies! {
    default BlockWheel;
    MapScan, "map-scan", "a locked hash map, every session visited under the lock";
    DenseScan, "dense-scan", "one dense array of deadlines, compared in full with vectors";
    LazyHeap, "binary-heap", "a heap of deadlines that may be out of date, checked on top";
    Btree, "btree", "an ordered set of all deadlines, always exact";
    LruList, "lru-list", "one list by last activity: for timeouts that are all equal";
    EagerWheel, "eager-wheel", "a hashed timing wheel, relinked on every touch: O(expired)";
    LazyWheel, "lazy-wheel", "a hashed timing wheel that looks again when a slot comes round";
    HierarchicalWheel, "hierarchical-wheel", "wheels of 64 slots, each 64 times coarser";
    BlockWheel, "block-wheel", "a hashed timing wheel of cache lines full of deadlines";
}

impl Default for Strategy {
    fn default() -> Strategy {
        Strategy::DEFAULT
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Strategy {
    type Err = UnknownStrategy;

    fn from_str(name: &str) -> Result<Strategy, UnknownStrategy> {
        let known = Strategy::ALL.iter().find(|strategy| strategy.name() == name);
        known.copied().ok_or_else(|| UnknownStrategy { name: name.to_owned() })
    }
}

/// A name that no strategy has. The message lists those that there are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown sweep strategy '{name}': it is one of {}", names())]
pub struct UnknownStrategy {
    name: String,
}

fn names() -> String {
    Strategy::ALL.iter().map(|strategy| strategy.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_strategy_is_known_by_its_name() {
        for &strategy in Strategy::ALL {
            assert_eq!(strategy.to_string().parse(), Ok(strategy));
            assert_eq!(AnySweeper::new(strategy, 0, Tick(7)).strategy(), strategy);
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_all_that_there_are() {
        let error = "wheel".parse::<Strategy>().expect_err("no such strategy").to_string();
        assert!(error.contains("'wheel'"), "{error}");
        assert!(Strategy::ALL.iter().all(|known| error.contains(known.name())), "{error}");
    }
}
