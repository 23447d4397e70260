//! Which load to try next: doubled until one fails, then half way between the largest that held and
//! the smallest that did not.
//!
//! Pure: outcomes go in, loads come out. Invariant: what is tried lies strictly between what held
//! and what failed, so the search ends, after log2(max / from) + log2(1 / tolerance) steps or so.

use crate::units::grouped;

/// The bounds of a search.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The first load; nothing below it is tried.
    pub from: u32,
    /// The largest.
    pub max: u32,
    /// What held and what did not may lie so far apart, as a share of what held.
    pub tolerance: f64,
    /// Loads that are really tried at most.
    pub steps: u32,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try this load, for this reason.
    Try(u32, String),
    /// It is over.
    Done(Ending),
}

/// Why a search is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// What held and what failed are close enough.
    Found,
    /// The largest load held.
    MaxHeld,
    /// The first load failed already.
    FirstFailed,
    /// They lie further apart than wanted, and there are no steps left.
    StepsUsedUp,
}

/// A search that goes on.
#[derive(Clone, Debug)]
pub struct Search {
    bounds: Bounds,
    held: Option<u32>,
    failed: Option<u32>,
    foreseen: bool,
    tried: u32,
}

impl Search {
    /// Nothing is known yet.
    pub fn new(bounds: Bounds) -> Search {
        Search { bounds, held: None, failed: None, foreseen: false, tried: 0 }
    }

    /// A load was tried, and held.
    pub fn held(&mut self, load: u32) {
        self.tried += 1;
        self.held = self.held.max(Some(load));
    }

    /// A load was tried, and did not hold.
    pub fn failed(&mut self, load: u32) {
        self.tried += 1;
        self.note_failed(load, false);
    }

    /// A load need not be tried: it is known that it would not hold.
    pub fn foreseen(&mut self, load: u32) {
        self.note_failed(load, true);
    }

    fn note_failed(&mut self, load: u32, foreseen: bool) {
        if self.failed.is_none_or(|failed| load <= failed) {
            (self.failed, self.foreseen) = (Some(load), foreseen);
        }
    }

    /// The largest load that held.
    pub fn capacity(&self) -> Option<u32> {
        self.held
    }

    /// The smallest that did not.
    pub fn limit(&self) -> Option<u32> {
        self.failed
    }

    /// What to do next.
    pub fn next(&self) -> Next {
        let Bounds { from, max, steps, .. } = self.bounds;
        let (load, why) = match (self.held, self.failed) {
            (None, None) => (from.min(max), "the first".to_owned()),
            (None, Some(_)) => return Next::Done(Ending::FirstFailed),
            (Some(held), None) if held >= max => return Next::Done(Ending::MaxHeld),
            (Some(held), None) => {
                let load = held.saturating_mul(2).min(max);
                let what = if load == max { "--max" } else { "doubled" };
                (load, format!("{what}: {} held", grouped(u64::from(held))))
            }
            (Some(held), Some(failed)) if self.is_close(held, failed) => {
                return Next::Done(Ending::Found);
            }
            (Some(held), Some(failed)) => (middle(held, failed), self.told(held, failed)),
        };
        match self.tried >= steps {
            true if self.held.is_some() => Next::Done(Ending::StepsUsedUp),
            _ => Next::Try(load, why),
        }
    }

    fn is_close(&self, held: u32, failed: u32) -> bool {
        let apart = failed.saturating_sub(held);
        apart <= 1 || f64::from(apart) <= f64::from(held) * self.bounds.tolerance
    }

    fn told(&self, held: u32, failed: u32) -> String {
        let what = if self.foreseen { "would not" } else { "did not" };
        let [held, failed] = [held, failed].map(|load| grouped(u64::from(load)));
        format!("between {held}, which held, and {failed}, which {what}")
    }
}

/// About half way, rounded to three digits as long as it stays within.
fn middle(held: u32, failed: u32) -> u32 {
    let exact = u32::midpoint(held, failed);
    let unit = 10u32.pow(exact.max(1).ilog10().saturating_sub(2));
    let round = exact / unit * unit;
    if round > held { round } else { exact.max(held + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches where everything up to `capacity` holds, and from `foreseen` on is known not to;
    /// the loads that were really tried, the end, what held and what did not.
    fn search(
        bounds: Bounds,
        capacity: u32,
        foreseen: u32,
    ) -> (Vec<u32>, Ending, Option<u32>, Option<u32>) {
        let mut search = Search::new(bounds);
        let mut tried = Vec::new();
        for _ in 0..200 {
            match search.next() {
                Next::Try(load, _) if load >= foreseen => search.foreseen(load),
                Next::Try(load, _) => {
                    tried.push(load);
                    if load <= capacity { search.held(load) } else { search.failed(load) }
                }
                Next::Done(ending) => {
                    return (tried, ending, search.capacity(), search.limit());
                }
            }
        }
        panic!("it does not end: {tried:?}");
    }

    fn bounds(from: u32, max: u32) -> Bounds {
        Bounds { from, max, tolerance: 0.05, steps: 30 }
    }

    #[test]
    fn loads_are_doubled_and_then_halved() {
        let (tried, ending, held, failed) = search(bounds(1_000, 1_000_000), 13_370, u32::MAX);
        assert_eq!(tried, [1_000, 2_000, 4_000, 8_000, 16_000, 12_000, 14_000, 13_000, 13_500]);
        assert_eq!((ending, held, failed), (Ending::Found, Some(13_000), Some(13_500)));
    }

    #[test]
    fn ends_at_both_bounds() {
        let (tried, ending, held, failed) = search(bounds(1_000, 5_000), u32::MAX, u32::MAX);
        assert_eq!(tried, [1_000, 2_000, 4_000, 5_000]);
        assert_eq!((ending, held, failed), (Ending::MaxHeld, Some(5_000), None));
        let (tried, ending, held, failed) = search(bounds(1_000, 5_000), 999, u32::MAX);
        assert_eq!((tried, ending), (vec![1_000], Ending::FirstFailed));
        assert_eq!((held, failed), (None, Some(1_000)));
        let (tried, ending, ..) = search(bounds(7, 7), 7, u32::MAX);
        assert_eq!((tried, ending), (vec![7], Ending::MaxHeld));
    }

    #[test]
    fn what_is_foreseen_is_not_tried_and_takes_no_step() {
        let (tried, ending, held, failed) = search(bounds(1_000, 1 << 30), u32::MAX, 3_210);
        assert!(tried.iter().all(|&load| load < 3_210), "{tried:?}");
        assert_eq!(ending, Ending::Found);
        let (held, failed) = (held.unwrap(), failed.unwrap());
        assert!(held < 3_210 && failed >= 3_210 && failed - held <= held / 20, "{held} {failed}");
        let (tried, ending, ..) = search(bounds(1_000, 2_000), u32::MAX, 1);
        assert_eq!((tried.len(), ending), (0, Ending::FirstFailed));
    }

    #[test]
    fn steps_are_bounded_and_what_was_learnt_is_kept() {
        let few = Bounds { steps: 4, ..bounds(1_000, 1_000_000) };
        let (tried, ending, held, failed) = search(few, 3_100, u32::MAX);
        assert_eq!(tried, [1_000, 2_000, 4_000, 3_000]);
        assert_eq!((ending, held, failed), (Ending::StepsUsedUp, Some(3_000), Some(4_000)));
    }

    /// For any bounds the answer is right, and as close as it says.
    #[test]
    fn the_answer_lies_within_the_tolerance() {
        let capacities = [1, 2, 3, 9, 10, 99, 101, 1_999, 65_537, 999_999, 4_000_000_000];
        for (from, tolerance) in [(1, 0.0), (1, 0.05), (2, 0.5), (700, 0.01), (4_096, 0.0)] {
            for capacity in capacities.into_iter().filter(|&capacity| capacity >= from) {
                let bounds = Bounds { from, max: u32::MAX, tolerance, steps: 99 };
                let (tried, ending, held, failed) = search(bounds, capacity, u32::MAX);
                let (held, failed) = (held.unwrap(), failed.unwrap());
                assert_eq!(ending, Ending::Found);
                assert!(held <= capacity && capacity < failed, "{held} {capacity} {failed}");
                let apart = f64::from(failed - held);
                assert!(apart <= 1.0 || apart <= f64::from(held) * tolerance);
                let mut all = tried.clone();
                all.sort_unstable();
                all.dedup();
                assert_eq!(all.len(), tried.len(), "nothing is tried twice");
            }
        }
    }

    #[test]
    fn a_middle_lies_within_and_is_round() {
        for (held, failed, expected) in
            [(1_000, 2_000, 1_500), (84_000, 88_123, 86_000), (3, 5, 4), (9_990, 10_050, 10_000)]
        {
            assert_eq!(middle(held, failed), expected);
        }
        assert_eq!(middle(10_001, 10_003), 10_002);
    }
}
