//! Deadlines as 16-bit numbers on a dial, and the blocks of 64 that they are stored in.
//!
//! A lane is a position on a dial of [`HORIZON_TICKS`] positions; the hand points at the present.
//! Three values are not on the dial. Zero is one of them, so that fresh zero pages are empty lanes.
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

/// Lanes in a block: the set of the due is one `u64`, and a block two cache lines side by side.
pub(super) const BLOCK_LANES: usize = 64;

/// The deadlines of 64 neighbouring sessions.
pub(super) type Block = [u16; BLOCK_LANES];

/// Where the present is on the dial. Distances are ticks ahead of the hand.
#[derive(Clone, Copy, Debug)]
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
    #[inline]
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

/// All blocks in one array, each at the start of a cache line.
#[derive(Debug)]
pub(super) struct Blocks {
    lanes: Vec<u16>,
    /// The lanes before the first block: what alignment takes.
    skipped: usize,
}

impl Blocks {
    const BYTES: usize = size_of::<Block>();

    /// `count` blocks of empty lanes. No page of them is touched.
    pub(super) fn new(count: usize) -> Blocks {
        let lanes = vec![EMPTY; (count + 1) * BLOCK_LANES];
        // Where this may not be known (an interpreter of Rust), unaligned blocks will do.
        let skipped = lanes.as_ptr().align_offset(Self::BYTES).min(BLOCK_LANES);
        Blocks { lanes, skipped }
    }

    /// How many blocks there are.
    pub(super) fn count(&self) -> usize {
        self.lanes.len() / BLOCK_LANES - 1
    }

    /// Makes room for `count` blocks, by moving all to a new array: alignment may differ there.
    pub(super) fn grow(&mut self, count: usize) {
        let old = std::mem::replace(self, Blocks::new(count));
        let used = old.count() * BLOCK_LANES;
        self.lanes[self.skipped..][..used].copy_from_slice(&old.lanes[old.skipped..][..used]);
    }

    #[inline]
    pub(super) fn lane_mut(&mut self, index: u32) -> &mut u16 {
        &mut self.lanes[self.skipped + index as usize]
    }

    #[inline]
    pub(super) fn block_mut(&mut self, block: u32) -> &mut Block {
        let start = self.skipped + block as usize * BLOCK_LANES;
        self.lanes[start..].first_chunk_mut().expect("the array ends with a whole block")
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.lanes.capacity() * size_of::<u16>()
    }
}

/// What a look at a block tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// A bit for each lane that is due.
    pub(super) due: u64,
    /// The distance of the earliest lane that is not due yet, or [`OFF_DIAL`].
    pub(super) earliest: u16,
}

/// Compares the lanes of `block`, with the hand at `hand`: due are those not further than `limit`.
pub(super) fn judge(block: &Block, hand: u16, limit: u16) -> Verdict {
    let dial = Dial { hand };
    let mut verdict = Verdict { due: 0, earliest: OFF_DIAL };
    for (bit, &lane) in block.iter().enumerate() {
        let distance = if lane < FIRST { OFF_DIAL } else { dial.distance(lane) };
        if distance <= limit {
            verdict.due |= 1 << bit;
        } else {
            verdict.earliest = verdict.earliest.min(distance);
        }
    }
    verdict
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

    #[test]
    fn blocks_keep_their_lanes_when_they_grow() {
        let mut blocks = Blocks::new(3);
        for index in 0..3 * BLOCK_LANES as u32 {
            *blocks.lane_mut(index) = index as u16 + FIRST;
        }
        blocks.grow(1_000);
        assert_eq!(blocks.count(), 1_000);
        assert_eq!(blocks.block_mut(2)[63], 191 + FIRST);
        assert_eq!(*blocks.block_mut(3), [EMPTY; BLOCK_LANES]);
        assert!(blocks.block_mut(1).as_ptr().addr().is_multiple_of(128));
    }
}
