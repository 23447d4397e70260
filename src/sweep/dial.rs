//! Deadlines as 16-bit positions on a dial.
//!
//! A dial has [`HORIZON_TICKS`] positions; its hand points at the present. Three values of a lane
//! are not on the dial. Zero is one of them, so that fresh zero pages are empty lanes.
//!
//! Invariant: every deadline on the dial lies at the hand or less than one revolution ahead of it,
//! so a position says which tick it means. Whatever is due moves off before the hand passes it.

/// No session.
pub(super) const EMPTY: u16 = 0;
/// A session that is never due.
pub(super) const NEVER: u16 = 1;
/// A session whose deadline is a revolution ahead or more: it is kept elsewhere, in full.
pub(super) const FAR: u16 = 2;
/// The first position on the dial.
pub(super) const FIRST: u16 = 3;

/// The ticks of one revolution.
pub(super) const HORIZON_TICKS: u64 = (1 << 16) - FIRST as u64;

/// The distance that stands for lanes that are not on the dial: none of them is ever due.
pub(super) const OFF_DIAL: u16 = u16::MAX;

const _: () = assert!(HORIZON_TICKS <= OFF_DIAL as u64, "distances stay below OFF_DIAL");

/// Where the present is on the dial. Distances are ticks ahead of the hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dial {
    hand: u16,
}

impl Dial {
    pub(super) fn new() -> Dial {
        Dial { hand: FIRST }
    }

    /// The position that the hand points at.
    pub(super) fn hand(self) -> u16 {
        self.hand
    }

    /// The lane of a deadline `distance` ticks ahead, which must be less than a revolution.
    #[inline]
    pub(super) fn lane(self, distance: u16) -> u16 {
        debug_assert!(u64::from(distance) < HORIZON_TICKS);
        let (lane, wrapped) = self.hand.overflowing_add(distance);
        if wrapped { lane + FIRST } else { lane }
    }

    /// How many ticks ahead `lane` is: the inverse of [`Dial::lane`]. It must be on the dial.
    /// (Outside of tests it is `Vectors::judge` that needs to know, of 64 lanes at once.)
    #[cfg(test)]
    pub(super) fn distance(self, lane: u16) -> u16 {
        debug_assert!(lane >= FIRST);
        let (distance, wrapped) = lane.overflowing_sub(self.hand);
        if wrapped { distance - FIRST } else { distance }
    }

    /// Turns the hand by any number of ticks.
    pub(super) fn turn(&mut self, ticks: u64) {
        self.hand = self.lane((ticks % HORIZON_TICKS) as u16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_and_distances_are_inverse_all_around_the_dial() {
        for turned in [0, 1, 100, HORIZON_TICKS - 2, HORIZON_TICKS - 1, HORIZON_TICKS, 1 << 40] {
            let mut dial = Dial::new();
            dial.turn(turned);
            for distance in (0..HORIZON_TICKS as u16).step_by(7) {
                let lane = dial.lane(distance);
                assert!(lane >= FIRST);
                assert_eq!(dial.distance(lane), distance);
            }
        }
    }

    #[test]
    fn turning_the_hand_brings_every_lane_nearer() {
        let mut dial = Dial::new();
        dial.turn(HORIZON_TICKS - 50);
        let lane = dial.lane(100);
        dial.turn(99);
        assert_eq!(dial.distance(lane), 1);
    }
}
