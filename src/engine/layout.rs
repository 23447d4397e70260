//! How many rings hold a given number of connections, and of what size.
//!
//! A hash spreads the connections over the listeners, so a ring gets about `n` = connections /
//! rings of them, with a standard deviation of about the square root of `n`. Slots for `n` and six
//! of those deviations are never filled by chance (one time in a billion).

use crate::limits::{DESCRIPTORS_RESERVED, RINGS_PER_SHARD_MAX, SHARDS_MAX, SLOTS_PER_RING_MAX};

/// The rings of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Rings of each shard.
    pub rings_per_shard: usize,
    /// Direct-descriptor slots of each ring.
    pub slots: u32,
    /// Connections that all rings together can hold.
    pub capacity: usize,
}

/// The wanted number of connections does not fit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DoesNotFit {
    /// The process's limit bounds each ring's table.
    #[error(
        "{connections} connections need more than {RINGS_PER_SHARD_MAX} rings per shard, which is \
         the most: RLIMIT_NOFILE of {descriptor_limit} bounds each ring's table; raise it \
         (`ulimit -n`, LimitNOFILE=), or lower --max-connections, or use more --shards"
    )]
    Descriptors {
        /// How many were wanted.
        connections: usize,
        /// RLIMIT_NOFILE.
        descriptor_limit: u64,
    },
    /// What was said of each ring's table bounds it.
    #[error(
        "{connections} connections do not fit into {RINGS_PER_SHARD_MAX} rings per shard, which \
         is the most, of --ring-slots {slots}, of which a few are kept free: raise it, or leave it \
         out"
    )]
    Slots {
        /// How many were wanted.
        connections: usize,
        /// `--ring-slots`.
        slots: u32,
    },
}

impl Layout {
    /// The fewest rings that hold `connections`, or as many as `rings_per_shard` says.
    ///
    /// # Errors
    /// If more rings would be needed than there may be.
    pub fn new(
        connections: usize,
        shards: usize,
        descriptor_limit: u64,
        rings_per_shard: Option<usize>,
        slots: Option<u32>,
    ) -> Result<Layout, DoesNotFit> {
        let table_max = u32::try_from(descriptor_limit).unwrap_or(u32::MAX).min(SLOTS_PER_RING_MAX);
        let slots_max = slots.unwrap_or(table_max).min(table_max);
        let does_not_fit = match slots {
            Some(slots) if slots < table_max => DoesNotFit::Slots { connections, slots },
            _ => DoesNotFit::Descriptors { connections, descriptor_limit },
        };
        let fewest = (1..=RINGS_PER_SHARD_MAX)
            .find(|rings| slots_for(connections, shards * rings) <= u64::from(slots_max))
            .unwrap_or(RINGS_PER_SHARD_MAX + 1);
        let rings = rings_per_shard.unwrap_or(fewest);
        if rings > RINGS_PER_SHARD_MAX {
            return Err(does_not_fit);
        }
        let wanted = u32::try_from(slots_for(connections, shards * rings)).unwrap_or(u32::MAX);
        let slots = slots.unwrap_or(wanted).min(slots_max);
        let capacity = connections_in(slots) * shards * rings;
        if capacity == 0 {
            return Err(does_not_fit);
        }
        Ok(Layout { rings_per_shard: rings, slots, capacity: capacity.min(connections) })
    }

    /// The lowest limit of descriptors under which `connections` fit at all: those of the tables,
    /// and those of the process itself.
    pub fn descriptor_limit_min(connections: usize, shards: usize, listeners: usize) -> u64 {
        let fits = |limit: u64| {
            Layout::new(connections, shards, limit, None, None).is_ok_and(|layout| {
                let rings = layout.rings_per_shard * shards;
                layout.capacity >= connections && own_descriptors(rings, shards, listeners) <= limit
            })
        };
        let (mut low, mut high) = (1, u64::from(SLOTS_PER_RING_MAX));
        while low < high {
            let middle = u64::midpoint(low, high);
            if fits(middle) { high = middle } else { low = middle + 1 }
        }
        low
    }
}

/// The shards of an engine whose threads have descriptor tables of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskLayout {
    /// Threads.
    pub shards: usize,
    /// Connections that each can hold.
    pub slots: u32,
    /// Connections that all can hold.
    pub capacity: usize,
}

impl TaskLayout {
    /// As many shards as there are cores, or more where RLIMIT_NOFILE makes it necessary.
    ///
    /// # Errors
    /// If more shards would be needed than there may be.
    pub fn new(
        connections: usize,
        shards: Option<usize>,
        cores: usize,
        descriptor_limit: u64,
    ) -> Result<TaskLayout, DoesNotFit> {
        let slots_max = descriptor_limit.saturating_sub(DESCRIPTORS_RESERVED);
        let fits = |shards: usize| slots_for(connections, shards) <= slots_max;
        let fewest = (cores.max(1)..=SHARDS_MAX).find(|&shards| fits(shards));
        let Some(shards) = shards.or(fewest) else {
            return Err(DoesNotFit::Descriptors { connections, descriptor_limit });
        };
        let wanted = slots_for(connections, shards).min(slots_max);
        let slots = u32::try_from(wanted).unwrap_or(u32::MAX);
        let capacity = (connections_in(slots) * shards).min(connections);
        Ok(TaskLayout { shards, slots, capacity })
    }
}

/// Descriptors of the process beside those of connections: each ring and its listeners, each
/// shard's eventfd, and what the process has anyway.
pub fn own_descriptors(rings: usize, shards: usize, listeners: usize) -> u64 {
    (rings * (1 + listeners) + shards) as u64 + DESCRIPTORS_RESERVED / 4
}

/// Slots that each of `rings` needs for its share of `connections`.
fn slots_for(connections: usize, rings: usize) -> u64 {
    let share = connections.div_ceil(rings) as u64;
    // 3 % are kept empty: accepting rests before a table is full.
    let with_skew = share + 6 * share.isqrt() + 16;
    with_skew + with_skew / 32
}

/// Connections that a ring of so many slots takes as its share: the inverse of `slots_for`.
fn connections_in(slots: u32) -> usize {
    (0..=slots as usize).rev().find(|&share| slots_for(share, 1) <= u64::from(slots)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_grow_with_the_connections_and_not_with_a_generous_limit() {
        let layout = |connections, limit| Layout::new(connections, 2, limit, None, None);
        let small = layout(10_000, 20_000).expect("fits");
        assert_eq!(small.rings_per_shard, 1);
        assert!(small.slots < 6_000, "{small:?}");
        let large = layout(200_000, 20_000).expect("fits");
        assert_eq!((large.rings_per_shard, large.capacity), (6, 200_000));
        let generous = layout(200_000, 1 << 20).expect("fits");
        assert_eq!(generous.rings_per_shard, 1);
        assert!(layout(100_000_000, 1_024).is_err());
    }

    #[test]
    fn the_lowest_limit_fits_and_one_less_does_not() {
        for connections in [10, 5_000, 1_000_000, 10_000_000] {
            let limit = Layout::descriptor_limit_min(connections, 2, 2);
            let layout = Layout::new(connections, 2, limit, None, None).expect("fits");
            assert_eq!(layout.capacity, connections);
            assert!(own_descriptors(layout.rings_per_shard * 2, 2, 2) <= limit);
            let less = Layout::new(connections, 2, limit - 1, None, None);
            let own = |layout: Layout| own_descriptors(layout.rings_per_shard * 2, 2, 2);
            assert!(less.map_or(true, |layout| own(layout) > limit - 1), "{connections}: {limit}");
        }
    }

    #[test]
    fn rings_given_by_hand_bound_the_capacity() {
        let layout = Layout::new(100_000, 1, 20_000, Some(2), None).expect("fits");
        assert!(layout.capacity < 40_000 && layout.capacity > 36_000, "{layout:?}");
    }
}
