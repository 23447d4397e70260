//! A hashed timing wheel of intrusive lists: what `eager-wheel` and `block-wheel` turn.
//!
//! Invariant: a node lies in the slot of a tick that is not before the cursor and not after the
//! node's own tick. So its slot's turn comes in time; that it may come too soon costs a look.
//!
//! Cost: 4 bytes a slot, 8 bytes a node; filing and unlinking are O(1).

use super::Progress;
use super::lists::Lists;

/// What becomes of a node that has been looked at.
pub(super) enum Turn {
    /// It leaves the wheel.
    Gone,
    /// It is to be looked at again at this tick, which is later than the present.
    Until(u64),
    /// It stays where it is, and so does the cursor: there was no room for what it had to report.
    Stay,
}

/// Tells the slot of a tick.
#[derive(Clone, Copy)]
pub(super) struct Slots {
    present: u64,
    mask: u64,
}

impl Slots {
    /// The slot for `tick`, or for the last tick before it that the wheel has a slot for.
    pub(super) fn slot(self, tick: u64) -> usize {
        let ahead = tick.saturating_sub(self.present).min(self.mask);
        (self.present.wrapping_add(ahead) & self.mask) as usize
    }
}

/// Nodes in slots, and the tick that is now.
#[derive(Debug)]
pub(super) struct Wheel {
    slots: Lists,
    mask: u64,
    cursor: u64,
    /// The nodes of the slot whose turn it is; kept for its memory.
    turn: Vec<u32>,
}

impl Wheel {
    /// A wheel of `slots`, which must be a power of two, for the nodes below `nodes`.
    pub(super) fn new(slots: usize, nodes: usize, start: u64) -> Wheel {
        assert!(slots.is_power_of_two(), "a slot is found by a mask");
        let mask = slots as u64 - 1;
        Wheel { slots: Lists::new(slots, nodes), mask, cursor: start, turn: Vec::new() }
    }

    pub(super) fn grow(&mut self, nodes: usize) {
        self.slots.grow(nodes);
    }

    /// The present, unless an advance was cut short: then the slots before it are done.
    #[inline]
    pub(super) fn cursor(&self) -> u64 {
        self.cursor
    }

    #[cfg(test)]
    fn is_filed(&self, node: u32) -> bool {
        self.slots.is_linked(node)
    }

    /// The slots as they look at `present`, which is where a walk files nodes that stay.
    pub(super) fn slots_seen_from(&self, present: u64) -> Slots {
        Slots { present, mask: self.mask }
    }

    /// Files `node`, which must not be filed, for `tick`. Returns the slot.
    pub(super) fn file(&mut self, node: u32, tick: u64) -> usize {
        let slot = self.slots_seen_from(self.cursor).slot(tick);
        self.slots.push(slot, node);
        slot
    }

    pub(super) fn unlink(&mut self, node: u32) {
        self.slots.unlink(node);
    }

    /// How many ticks from the cursor it is the turn of `slot`.
    pub(super) fn ticks_to(&self, slot: usize) -> u64 {
        (slot as u64).wrapping_sub(self.cursor) & self.mask
    }

    /// Takes all nodes out.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
    }

    /// Moves the cursor on to `now` while no node is filed.
    pub(super) fn skip_to(&mut self, now: u64) {
        self.cursor = now;
    }

    /// Looks at every node in the slots from the cursor to `now`; all slots once, if that is more
    /// than a revolution. Moves the cursor past the slots that are done.
    pub(super) fn walk(&mut self, now: u64, mut visit: impl FnMut(u32) -> Turn) -> Progress {
        for step in 0..=(now - self.cursor).min(self.mask) {
            let slot = (self.cursor.wrapping_add(step) & self.mask) as usize;
            if self.slots.first(slot).is_some() && !self.walk_slot(slot, now, &mut visit) {
                self.cursor += step;
                return Progress::More;
            }
        }
        self.cursor = now;
        Progress::Done
    }

    /// Looks at every node in `slot`, and says whether all are done. The slot is emptied first:
    /// after a revolution without a turn a node may come back to this same slot.
    fn walk_slot(&mut self, slot: usize, now: u64, visit: &mut impl FnMut(u32) -> Turn) -> bool {
        let mut turn = std::mem::take(&mut self.turn);
        self.slots.take(slot, &mut turn);
        let slots = self.slots_seen_from(now);
        let mut done = turn.len();
        for (position, &node) in turn.iter().enumerate() {
            match visit(node) {
                Turn::Gone => {}
                Turn::Until(tick) => self.slots.push(slots.slot(tick), node),
                Turn::Stay => {
                    done = position;
                    break;
                }
            }
        }
        for &node in turn[done..].iter().rev() {
            self.slots.push(slot, node);
        }
        let is_done = done == turn.len();
        turn.clear();
        self.turn = turn;
        is_done
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.slots.heap_bytes() + self.turn.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_beyond_a_revolution_is_seen_in_time_even_after_a_jump() {
        let mut wheel = Wheel::new(16, 4, 5);
        wheel.file(2, 1_000);
        let mut seen = Vec::new();
        for now in [6, 40, 41, 999, 1_000] {
            wheel.walk(now, |node| {
                seen.push((now, node));
                if now < 1_000 { Turn::Until(1_000) } else { Turn::Gone }
            });
        }
        assert_eq!(seen.last(), Some(&(1_000, 2)));
        assert!(!wheel.is_filed(2));
    }

    #[test]
    fn a_walk_that_is_cut_short_goes_on_where_it_was() {
        let mut wheel = Wheel::new(16, 4, 0);
        (0..4).for_each(|node| _ = wheel.file(node, 3));
        let mut room = 2;
        let progress = wheel.walk(9, |_| {
            room -= 1;
            if room >= 0 { Turn::Gone } else { Turn::Stay }
        });
        assert_eq!(progress, Progress::More);
        assert_eq!(wheel.cursor(), 3);
        assert_eq!((0..4).filter(|&node| wheel.is_filed(node)).count(), 2);
        assert_eq!(wheel.walk(9, |_| Turn::Gone), Progress::Done);
        assert_eq!(wheel.cursor(), 9);
    }
}
