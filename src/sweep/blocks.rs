//! Dense arrays in blocks of 64 lanes, each block at the start of a cache line.

/// Lanes in a block: the set of the due is one `u64`.
pub(super) const BLOCK_LANES: usize = 64;

/// The lanes of 64 neighbouring sessions.
pub(super) type Block<T> = [T; BLOCK_LANES];

/// All blocks in one array. Zero is a lane without a session, so fresh zero pages are empty.
#[derive(Debug)]
pub(super) struct Blocks<T> {
    lanes: Vec<T>,
    /// The lanes before the first block: what alignment takes.
    skipped: usize,
    /// Blocks up to the last that was ever written to.
    used: u32,
}

impl<T: Copy + Default> Blocks<T> {
    /// Blocks for `capacity` lanes. No page of them is touched: the kernel's zero pages take
    /// memory only when they are written to.
    pub(super) fn new(capacity: usize) -> Blocks<T> {
        let lanes = vec![T::default(); (capacity.div_ceil(BLOCK_LANES) + 1) * BLOCK_LANES];
        // Where addresses are not known (in an interpreter of Rust), unaligned blocks will do.
        let skipped = lanes.as_ptr().align_offset(size_of::<Block<T>>()).min(BLOCK_LANES);
        Blocks { lanes, skipped, used: 0 }
    }

    /// How many blocks there are.
    pub(super) fn count(&self) -> usize {
        self.lanes.len() / BLOCK_LANES - 1
    }

    /// Blocks up to the last that was ever written to.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// Makes sure that `index` has a lane, and is among the blocks that are used. Returns whether
    /// the array grew: it is moved then, since alignment may differ in a new one.
    pub(super) fn reserve(&mut self, index: u32) -> bool {
        self.used = self.used.max(index / BLOCK_LANES as u32 + 1);
        let grows = self.used as usize > self.count();
        if grows {
            let capacity = (index as usize + 1).next_power_of_two();
            let old = std::mem::replace(self, Blocks { used: self.used, ..Blocks::new(capacity) });
            let lanes = old.count() * BLOCK_LANES;
            self.lanes[self.skipped..][..lanes].copy_from_slice(&old.lanes[old.skipped..][..lanes]);
        }
        grows
    }

    #[inline]
    pub(super) fn lane_mut(&mut self, index: u32) -> &mut T {
        &mut self.lanes[self.skipped + index as usize]
    }

    #[inline]
    pub(super) fn block_mut(&mut self, block: u32) -> &mut Block<T> {
        let start = self.skipped + block as usize * BLOCK_LANES;
        self.lanes[start..].first_chunk_mut().expect("the array ends with a whole block")
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.lanes.capacity() * size_of::<T>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_keep_their_lanes_when_they_grow() {
        let mut blocks = Blocks::<u16>::new(192);
        for index in 0..192 {
            assert!(!blocks.reserve(index));
            *blocks.lane_mut(index) = index as u16 + 1;
        }
        assert_eq!((blocks.count(), blocks.used()), (3, 3));
        assert!(blocks.reserve(50_000));
        assert_eq!((blocks.count(), blocks.used()), (1_024, 782));
        assert_eq!(blocks.block_mut(2)[63], 192);
        assert_eq!(*blocks.block_mut(3), [0; BLOCK_LANES]);
    }

    #[cfg(not(miri))]
    #[test]
    fn a_block_starts_where_a_cache_line_does() {
        assert!(Blocks::<u16>::new(100).block_mut(1).as_ptr().addr().is_multiple_of(128));
        assert!(Blocks::<u32>::new(100).block_mut(1).as_ptr().addr().is_multiple_of(256));
    }
}
