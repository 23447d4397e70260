//! Comparing a block of 64 lanes at once: with AVX-512, with AVX2, and plainly.
//!
//! Invariant: all ways give the same answers. The plain one is the definition; the tests hold the
//! others to it.
//!
//! Cost of a look at 64 lanes of 16 bits in a row: about 4 ns with vectors, 70 ns without.
//!
//! `unsafe` is needed twice a way: to call a function that is compiled for instructions which not
//! every processor has, and to load a vector from an array. Arithmetic on vectors is safe.
#![allow(unsafe_code, reason = "vector loads, and calls of functions for detected instructions")]

use super::blocks::{BLOCK_LANES, Block};
use super::dial::{FIRST, OFF_DIAL};

/// The instructions that blocks are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vectors(Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Vectors {
    /// None: what every processor can do.
    pub const SCALAR: Vectors = Vectors(Level::Scalar);

    /// All that this processor can do, the best first.
    pub fn available() -> impl Iterator<Item = Vectors> {
        #[cfg(target_arch = "x86_64")]
        let found = [
            is_x86_feature_detected!("avx512bw").then_some(Vectors(Level::Avx512)),
            is_x86_feature_detected!("avx2").then_some(Vectors(Level::Avx2)),
            Some(Vectors::SCALAR),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let found = [Some(Vectors::SCALAR)];
        found.into_iter().flatten()
    }

    /// The best that this processor can do.
    pub fn detect() -> Vectors {
        Vectors::available().next().unwrap_or(Vectors::SCALAR)
    }

    /// A name for tables.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Level::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
        }
    }

    /// Compares the positions of `block` on a dial whose hand is at `hand`. Due are those that
    /// are not further than `limit` ticks ahead.
    #[inline]
    pub(super) fn judge(self, block: &Block<u16>, hand: u16, limit: u16) -> Verdict {
        match self.0 {
            Level::Scalar => judge_scalar(block, hand, limit),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Vectors` of this level is made only where AVX2 has been detected.
            Level::Avx2 => unsafe { x86::judge_avx2(block, hand, limit) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Vectors` of this level is made only where AVX-512BW has been detected.
            Level::Avx512 => unsafe { x86::judge_avx512(block, hand, limit) },
        }
    }

    /// A bit for each lane of `block` that is at least 1 and at most `now + 1`.
    #[inline]
    pub(super) fn due(self, block: &Block<u32>, now: u32) -> u64 {
        match self.0 {
            Level::Scalar => due_scalar(block, now),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Vectors` of this level is made only where AVX2 has been detected.
            Level::Avx2 => unsafe { x86::due_avx2(block, now) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Vectors` of this level is made only where AVX-512BW has been detected,
            // of which AVX-512F is a part.
            Level::Avx512 => unsafe { x86::due_avx512(block, now) },
        }
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

fn judge_scalar(block: &Block<u16>, hand: u16, limit: u16) -> Verdict {
    let mut verdict = Verdict { due: 0, earliest: OFF_DIAL };
    for (bit, &lane) in block.iter().enumerate() {
        // The values that are not on the dial lie between its end and its beginning: whoever is
        // behind the hand is a revolution ahead, less those.
        let behind = if lane < hand { FIRST } else { 0 };
        let distance = lane.wrapping_sub(hand).wrapping_sub(behind);
        let distance = if lane < FIRST { OFF_DIAL } else { distance };
        let is_due = distance <= limit;
        verdict.due |= u64::from(is_due) << bit;
        verdict.earliest = verdict.earliest.min(if is_due { OFF_DIAL } else { distance });
    }
    verdict
}

fn due_scalar(block: &Block<u32>, now: u32) -> u64 {
    // An empty lane is zero, and its predecessor the largest of all.
    let is_due = |lane: u32| lane.wrapping_sub(1) <= now;
    let bits = block.iter().enumerate().map(|(bit, &lane)| u64::from(is_due(lane)) << bit);
    bits.fold(0, |due, bit| due | bit)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{BLOCK_LANES, Block, FIRST, Verdict};

    const WIDE_BYTES: usize = size_of::<__m512i>();
    const HALF_BYTES: usize = size_of::<__m256i>();

    #[inline]
    #[target_feature(enable = "avx512bw")]
    fn load_wide<T: Copy, const PART: usize>(block: &Block<T>) -> __m512i {
        const { assert!((PART + 1) * WIDE_BYTES <= BLOCK_LANES * size_of::<T>()) };
        // SAFETY: the part lies within the array, and the load asks for no alignment.
        unsafe { _mm512_loadu_si512(block.as_ptr().cast::<__m512i>().add(PART)) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load_half<T: Copy, const PART: usize>(block: &Block<T>) -> __m256i {
        const { assert!((PART + 1) * HALF_BYTES <= BLOCK_LANES * size_of::<T>()) };
        // SAFETY: the part lies within the array, and the load asks for no alignment.
        unsafe { _mm256_loadu_si256(block.as_ptr().cast::<__m256i>().add(PART)) }
    }

    #[target_feature(enable = "avx512bw")]
    pub(super) fn judge_avx512(block: &Block<u16>, hand: u16, limit: u16) -> Verdict {
        let (low, low_left) = judge_32(load_wide::<_, 0>(block), hand, limit);
        let (high, high_left) = judge_32(load_wide::<_, 1>(block), hand, limit);
        let left = _mm512_min_epu16(low_left, high_left);
        let left =
            _mm256_min_epu16(_mm512_castsi512_si256(left), _mm512_extracti64x4_epi64::<1>(left));
        Verdict { due: u64::from(high) << 32 | u64::from(low), earliest: least_of_16(left) }
    }

    /// The due of 32 lanes, and the distances of the others: the due are OFF_DIAL among these.
    #[inline]
    #[target_feature(enable = "avx512bw")]
    fn judge_32(lanes: __m512i, hand: u16, limit: u16) -> (u32, __m512i) {
        let hand = _mm512_set1_epi16(hand as i16);
        let first = _mm512_set1_epi16(FIRST as i16);
        let limit = _mm512_set1_epi16(limit as i16);
        let off_dial = _mm512_set1_epi16(-1);
        let distance = _mm512_sub_epi16(lanes, hand);
        let is_behind = _mm512_cmplt_epu16_mask(lanes, hand);
        let distance = _mm512_mask_sub_epi16(distance, is_behind, distance, first);
        let is_off = _mm512_cmplt_epu16_mask(lanes, first);
        let distance = _mm512_mask_mov_epi16(distance, is_off, off_dial);
        let is_due = _mm512_cmple_epu16_mask(distance, limit);
        (is_due, _mm512_mask_mov_epi16(distance, is_due, off_dial))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn least_of_16(values: __m256i) -> u16 {
        let low = _mm256_castsi256_si128(values);
        let least = _mm_minpos_epu16(_mm_min_epu16(low, _mm256_extracti128_si256::<1>(values)));
        _mm_cvtsi128_si32(least) as u16
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn judge_avx2(block: &Block<u16>, hand: u16, limit: u16) -> Verdict {
        let (due_0, left_0) = judge_16(load_half::<_, 0>(block), hand, limit);
        let (due_1, left_1) = judge_16(load_half::<_, 1>(block), hand, limit);
        let (due_2, left_2) = judge_16(load_half::<_, 2>(block), hand, limit);
        let (due_3, left_3) = judge_16(load_half::<_, 3>(block), hand, limit);
        let left =
            _mm256_min_epu16(_mm256_min_epu16(left_0, left_1), _mm256_min_epu16(left_2, left_3));
        let due = u64::from(bits_of_32(due_2, due_3)) << 32 | u64::from(bits_of_32(due_0, due_1));
        Verdict { due, earliest: least_of_16(left) }
    }

    /// The due of 16 lanes as all ones, and the distances of the others. AVX2 compares signed
    /// numbers only; `a <= b` is `min(a, b) == a`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn judge_16(lanes: __m256i, hand: u16, limit: u16) -> (__m256i, __m256i) {
        let hand = _mm256_set1_epi16(hand as i16);
        let first = _mm256_set1_epi16(FIRST as i16);
        let last_off = _mm256_set1_epi16(FIRST as i16 - 1);
        let limit = _mm256_set1_epi16(limit as i16);
        let is_ahead = _mm256_cmpeq_epi16(_mm256_max_epu16(lanes, hand), lanes);
        let behind = _mm256_andnot_si256(is_ahead, first);
        let distance = _mm256_sub_epi16(_mm256_sub_epi16(lanes, hand), behind);
        let is_off = _mm256_cmpeq_epi16(_mm256_min_epu16(lanes, last_off), lanes);
        let distance = _mm256_or_si256(distance, is_off);
        let is_due = _mm256_cmpeq_epi16(_mm256_min_epu16(distance, limit), distance);
        (is_due, _mm256_or_si256(distance, is_due))
    }

    /// A bit for each 16-bit lane that is all ones.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn bits_of_32(low: __m256i, high: __m256i) -> u32 {
        // Packing interleaves quarters; the permutation puts them in order again.
        let bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(low, high));
        _mm256_movemask_epi8(bytes) as u32
    }

    #[target_feature(enable = "avx512bw")]
    pub(super) fn due_avx512(block: &Block<u32>, now: u32) -> u64 {
        let one = _mm512_set1_epi32(1);
        let now = _mm512_set1_epi32(now as i32);
        let due = |lanes| u64::from(_mm512_cmple_epu32_mask(_mm512_sub_epi32(lanes, one), now));
        due(load_wide::<_, 0>(block))
            | due(load_wide::<_, 1>(block)) << 16
            | due(load_wide::<_, 2>(block)) << 32
            | due(load_wide::<_, 3>(block)) << 48
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn due_avx2(block: &Block<u32>, now: u32) -> u64 {
        let one = _mm256_set1_epi32(1);
        let now = _mm256_set1_epi32(now as i32);
        let due = |lanes| {
            let before = _mm256_sub_epi32(lanes, one);
            let is_due = _mm256_cmpeq_epi32(_mm256_min_epu32(before, now), before);
            u64::from(_mm256_movemask_ps(_mm256_castsi256_ps(is_due)) as u32)
        };
        due(load_half::<_, 0>(block))
            | due(load_half::<_, 1>(block)) << 8
            | due(load_half::<_, 2>(block)) << 16
            | due(load_half::<_, 3>(block)) << 24
            | due(load_half::<_, 4>(block)) << 32
            | due(load_half::<_, 5>(block)) << 40
            | due(load_half::<_, 6>(block)) << 48
            | due(load_half::<_, 7>(block)) << 56
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::dial::{Dial, HORIZON_TICKS};
    use super::*;

    /// An interpreter has no time for all blocks.
    const STRIDE: usize = if cfg!(miri) { 113 * BLOCK_LANES } else { BLOCK_LANES };

    const EDGES: &[u16] = &[0, 1, 2, 3, 4, 100, 0x7ffe, 0x7fff, 0x8000, 0x8001, 65_533, 65_535];

    #[test]
    fn a_verdict_agrees_with_the_dial() {
        let mut dial = Dial::new();
        dial.turn(65_500);
        let mut block = [super::super::dial::EMPTY; BLOCK_LANES];
        let ahead = [0, 20, 21, 22, 50, HORIZON_TICKS as u16 - 1];
        for (lane, &distance) in block.iter_mut().skip(7).zip(&ahead) {
            *lane = dial.lane(distance);
        }
        let verdict = judge_scalar(&block, dial.hand(), 21);
        assert_eq!(verdict, Verdict { due: 0b111 << 7, earliest: 22 });
    }

    #[test]
    fn every_position_is_judged_alike_by_all() {
        for &hand in EDGES.iter().filter(|&&hand| hand >= FIRST) {
            for &limit in &EDGES[..EDGES.len() - 2] {
                for first in (0..=u16::MAX).step_by(STRIDE) {
                    let block = std::array::from_fn(|bit| first + bit as u16);
                    let expected = judge_scalar(&block, hand, limit);
                    for vectors in Vectors::available() {
                        assert_eq!(vectors.judge(&block, hand, limit), expected, "{vectors:?}");
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn all_ways_give_the_same_verdict(
            lanes in prop::collection::vec(prop_oneof![any::<u16>(), select(EDGES)], BLOCK_LANES),
            hand in prop_oneof![FIRST..=u16::MAX, Just(FIRST), Just(u16::MAX)],
            limit in prop_oneof![0..HORIZON_TICKS as u16, 0..4u16],
        ) {
            let block = lanes.try_into().expect("64 lanes");
            let expected = judge_scalar(&block, hand, limit);
            for vectors in Vectors::available() {
                prop_assert_eq!(vectors.judge(&block, hand, limit), expected);
            }
        }

        #[test]
        fn all_ways_find_the_same_due(
            lanes in prop::collection::vec(
                prop_oneof![any::<u32>(), Just(0), Just(u32::MAX), 1..5u32],
                BLOCK_LANES,
            ),
            now in prop_oneof![any::<u32>(), 0..5u32],
        ) {
            let block = lanes.try_into().expect("64 lanes");
            for vectors in Vectors::available() {
                prop_assert_eq!(vectors.due(&block, now), due_scalar(&block, now));
            }
        }
    }
}
