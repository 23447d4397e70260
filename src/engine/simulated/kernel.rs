//! What the simulated kernel keeps of each ring: queues, slots, buffers, listeners.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use crate::outgoing::Outgoing;
use crate::ring::{BufferAccount, RingCounters, Tag};
use crate::time::Timestamp;

/// An operation on its way to the kernel.
#[derive(Debug)]
pub(super) enum Sqe {
    Accept { tag: Tag },
    Receive { slot: u32, tag: Tag },
    ReceiveOnce { slot: u32, tag: Tag },
    Poll { slot: u32, tag: Tag },
    PeerName { slot: u32, tag: Tag },
    Send { slot: u32, tag: Tag, outgoing: Outgoing },
    Close { slot: u32, tag: Tag },
    Cancel { target: Tag, tag: Tag },
    ReadWake { tag: Tag },
}

/// A completion on its way to the engine.
#[derive(Debug)]
pub(super) struct Cqe {
    pub(super) tag: Tag,
    pub(super) result: i32,
    pub(super) more: bool,
    /// A provided buffer, and what was written to it.
    pub(super) buffer: Option<(u16, Vec<u8>)>,
    pub(super) outgoing: Option<Outgoing>,
    /// Whom it is about.
    pub(super) slot: Option<u32>,
    pub(super) peer: Option<usize>,
}

impl Cqe {
    pub(super) fn last(tag: Tag, result: i32) -> Cqe {
        Cqe { tag, result, more: false, buffer: None, outgoing: None, slot: None, peer: None }
    }
}

/// Something that the kernel will look into when the ring is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Accept(u32),
    Receive(u32),
    Poll(u32),
    Send(u32),
    Wake,
}

/// A send that has not ended.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) tag: Tag,
    pub(super) outgoing: Outgoing,
    pub(super) sent: usize,
    /// MSG_WAITALL: it ends only when all has gone.
    pub(super) whole: bool,
}

/// A direct descriptor.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) peer: Option<usize>,
    /// Index and generation in the tags of this descriptor's operations.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) receive: Option<Tag>,
    pub(super) poll: Option<Tag>,
    pub(super) sending: Option<Sending>,
    /// Operations whose last completion the engine has not collected.
    pub(super) in_flight: u32,
    /// A close is queued.
    pub(super) closing: bool,
}

/// A listening socket of one ring.
#[derive(Debug, Default)]
pub(super) struct Listening {
    /// Accepts of one connection each.
    pub(super) armed: VecDeque<Tag>,
    pub(super) backlog: VecDeque<usize>,
}

/// Where a provided buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    Free,
    InQueue,
    Held,
    Released,
}

/// A hash of tags, quick and the same in every run.
#[derive(Debug, Default)]
pub(super) struct TagHasher(u64);

impl Hasher for TagHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, bits: u64) {
        self.0 = (self.0 ^ bits).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// One ring.
pub(super) struct RingState {
    pub(super) submissions: VecDeque<Sqe>,
    pub(super) submissions_max: usize,
    pub(super) completions: VecDeque<Cqe>,
    pub(super) completions_max: usize,
    pub(super) overflow: VecDeque<Cqe>,
    pub(super) ready: Vec<Source>,
    /// So many of them were left over, and come first.
    pub(super) left_over: usize,
    /// The flag that something is deferred was not taken back.
    pub(super) stale_flag: bool,
    pub(super) slots: Vec<Slot>,
    pub(super) last_freed: Option<u32>,
    pub(super) buffers: Vec<Whereabouts>,
    /// How many of them the engine holds.
    pub(super) held: u32,
    /// Some were given back since the last enter.
    pub(super) has_released: bool,
    /// Enters in this turn of the loop.
    pub(super) enters: usize,
    pub(super) signals_bell: bool,
    pub(super) listeners: Vec<Listening>,
    pub(super) counters: RingCounters,
    pub(super) alive: HashSet<u64, BuildHasherDefault<TagHasher>>,
    /// When the engine last learnt that descriptors had run out.
    pub(super) exhausted_at: Option<Timestamp>,
}

impl RingState {
    pub(super) fn new(sizes: &super::Sizes) -> RingState {
        RingState {
            submissions: VecDeque::new(),
            submissions_max: sizes.submission_entries,
            completions: VecDeque::new(),
            completions_max: sizes.completion_entries,
            overflow: VecDeque::new(),
            ready: Vec::new(),
            left_over: 0,
            stale_flag: false,
            slots: (0..sizes.slots).map(|_| Slot::default()).collect(),
            last_freed: None,
            buffers: vec![Whereabouts::Free; usize::from(sizes.buffers)],
            held: 0,
            has_released: false,
            enters: 0,
            signals_bell: false,
            listeners: (0..2).map(|_| Listening::default()).collect(),
            counters: RingCounters::default(),
            alive: HashSet::default(),
            exhausted_at: None,
        }
    }

    pub(super) fn free_buffer(&mut self) -> Option<u16> {
        let id = self.buffers.iter().position(|place| *place == Whereabouts::Free)?;
        self.buffers[id] = Whereabouts::InQueue;
        Some(id as u16)
    }

    pub(super) fn free_buffer_exists(&self) -> bool {
        self.buffers.contains(&Whereabouts::Free)
    }

    pub(super) fn held(&self) -> u32 {
        self.buffers.iter().filter(|place| **place == Whereabouts::Held).count() as u32
    }

    /// Where the buffers are, unless completions that wait may have brought some.
    pub(super) fn buffer_account(&self) -> Option<BufferAccount> {
        let idle = self.completions.is_empty() && self.overflow.is_empty();
        let is_free =
            |place: &&Whereabouts| matches!(place, Whereabouts::Free | Whereabouts::Released);
        let free = self.buffers.iter().filter(is_free).count() as u32;
        let total = self.buffers.len() as u32;
        idle.then(|| BufferAccount { total, free, held: self.held() })
    }

    /// The slot that the next accepted connection gets: often the one that was freed last.
    pub(super) fn free_slot(&self) -> Option<u32> {
        let is_free = |slot: u32| self.slots[slot as usize].peer.is_none();
        self.last_freed
            .filter(|&slot| is_free(slot))
            .or_else(|| (0..self.slots.len() as u32).find(|&slot| is_free(slot)))
    }

    pub(super) fn has_room(&self) -> bool {
        self.completions.len() < self.completions_max && self.overflow.is_empty()
    }
}
