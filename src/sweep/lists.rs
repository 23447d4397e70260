//! Many doubly linked lists over dense indices, in two plain arrays: the chains of the wheels.
//!
//! Invariant: a node is in one list at most. All zeroes means that nothing is linked, so that the
//! arrays can be reserved for millions of nodes without touching one page.
//!
//! Cost: 4 bytes a list, 8 bytes a node; every operation but `take` is O(1).

/// No node, or no list.
const NONE: u32 = 0;

/// Marks a `PREVIOUS` that names a list, of which the node is the first, and not a node.
const IS_LIST: u32 = 1 << 31;

const NEXT: usize = 0;
const PREVIOUS: usize = 1;

/// Lists of nodes. A node is any index below 2^31 - 1.
#[derive(Debug)]
pub(super) struct Lists {
    /// The first node of each list, plus 1.
    heads: Vec<u32>,
    /// `[next node + 1, previous node + 1 or IS_LIST | list]`; pairs, since they are read together.
    links: Vec<[u32; 2]>,
}

impl Lists {
    pub(super) fn new(lists: usize, nodes: usize) -> Lists {
        assert!(lists < IS_LIST as usize, "too many lists");
        Lists { heads: vec![NONE; lists], links: vec![[NONE; 2]; nodes] }
    }

    /// Makes room for nodes up to `nodes - 1`.
    pub(super) fn grow(&mut self, nodes: usize) {
        self.links.resize(nodes, [NONE; 2]);
    }

    pub(super) fn first(&self, list: usize) -> Option<u32> {
        self.heads[list].checked_sub(1)
    }

    pub(super) fn is_linked(&self, node: u32) -> bool {
        self.links[node as usize][PREVIOUS] != NONE
    }

    /// Puts `node`, which is in no list, at the front of `list`.
    pub(super) fn push(&mut self, list: usize, node: u32) {
        debug_assert!(!self.is_linked(node), "linked twice");
        let next = self.heads[list];
        if next != NONE {
            self.links[next as usize - 1][PREVIOUS] = node + 1;
        }
        self.links[node as usize] = [next, IS_LIST | list as u32];
        self.heads[list] = node + 1;
    }

    /// Takes `node` out of its list. Says which list that leaves empty, if it does.
    pub(super) fn unlink(&mut self, node: u32) -> Option<usize> {
        debug_assert!(self.is_linked(node), "unlinked twice");
        let [next, previous] = std::mem::take(&mut self.links[node as usize]);
        if next != NONE {
            self.links[next as usize - 1][PREVIOUS] = previous;
        }
        if previous & IS_LIST == 0 {
            self.links[previous as usize - 1][NEXT] = next;
            return None;
        }
        let list = (previous & !IS_LIST) as usize;
        self.heads[list] = next;
        (next == NONE).then_some(list)
    }

    /// Takes all nodes out of `list` and appends them to `nodes`.
    pub(super) fn take(&mut self, list: usize, nodes: &mut Vec<u32>) {
        let mut next = std::mem::take(&mut self.heads[list]);
        while next != NONE {
            let node = next - 1;
            nodes.push(node);
            next = std::mem::take(&mut self.links[node as usize])[NEXT];
        }
    }

    /// Empties all lists.
    pub(super) fn clear(&mut self) {
        self.heads.fill(NONE);
        self.links.fill([NONE; 2]);
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.heads.capacity() * size_of::<u32>() + self.links.capacity() * size_of::<[u32; 2]>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_leave_from_the_front_the_middle_and_the_end() {
        let mut lists = Lists::new(2, 8);
        for node in [3, 0, 7, 5] {
            lists.push(1, node);
        }
        assert_eq!(lists.unlink(0), None);
        assert_eq!(lists.unlink(5), None);
        assert_eq!(lists.unlink(3), None);
        assert_eq!(lists.first(1), Some(7));
        assert_eq!(lists.unlink(7), Some(1));
        assert_eq!(lists.first(1), None);
        assert!((0..8).all(|node| !lists.is_linked(node)));
    }

    #[test]
    fn a_whole_list_is_taken_and_its_nodes_can_be_linked_again() {
        let mut lists = Lists::new(1, 4);
        (0..4).for_each(|node| lists.push(0, node));
        let mut taken = vec![9];
        lists.take(0, &mut taken);
        assert_eq!(taken, [9, 3, 2, 1, 0]);
        lists.push(0, 2);
        assert_eq!(lists.first(0), Some(2));
    }
}
