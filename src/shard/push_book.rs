//! The account of each push: what has become of it for every session that it was meant for.
//!
//! Two bits a session say whether it is still to be written, and whether a receipt may still come.
//! A broadcast keeps them as bitmaps by session index until the last receipt has come; a push to a
//! single session as two flags. Accounts are bounded in number and in time: a receipt that comes
//! after its push was forgotten is a stray one, and the push stays unconfirmed.
//!
//! Invariant: bits of an index are cleared when its session is released, before another has it.

use std::collections::{HashMap, VecDeque};

use crate::limits::{
    BROADCASTS_TRACKED_MAX, HANDLER_MESSAGES_TRACKED_MAX, PUSH_TRACKED_FOR, PUSHES_TRACKED_MAX,
};
use crate::mutants::{Mutant, is};
use crate::session::{PushDrop, SessionKey};
use crate::time::Timestamp;

/// What has become of one push: `requested` is the sum of the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushAccount {
    /// Sessions that it is meant for. While a broadcast is still being handed out, the sessions
    /// that it has not come to yet are counted here and as pending; those that go before it comes
    /// to them leave both.
    pub requested: u64,
    /// Whose receipt has come.
    pub acknowledged: u64,
    /// Written to the kernel, without a receipt. A WebSocket never sends one.
    pub unconfirmed: u64,
    /// Waiting, or being sent.
    pub pending: u64,
    /// Never sent, by [`PushDrop`].
    pub dropped: [u64; PushDrop::COUNT],
}

impl PushAccount {
    /// Adds another shard's part.
    pub fn add(&mut self, other: &PushAccount) {
        self.requested += other.requested;
        self.acknowledged += other.acknowledged;
        self.unconfirmed += other.unconfirmed;
        self.pending += other.pending;
        for (sum, value) in self.dropped.iter_mut().zip(other.dropped) {
            *sum += value;
        }
    }
}

/// What a receipt was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receipt {
    /// For what has been written.
    Counted,
    /// For what is being written: the receipt has overtaken the completion of the send.
    Early,
    /// For nothing that this session was sent.
    Stray,
}

/// A set of session indices.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn set(&mut self, index: u32) {
        let word = index as usize / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (index % 64);
    }

    fn has(&self, index: u32) -> bool {
        self.0.get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Whether it was in the set.
    fn clear(&mut self, index: u32) -> bool {
        let was = self.has(index);
        if was {
            self.0[index as usize / 64] &= !(1 << (index % 64));
        }
        was
    }
}

#[derive(Debug)]
enum Marks {
    One { key: SessionKey, pending: bool, open: bool },
    Many { pending: Bits, open: Bits },
}

impl Marks {
    fn set(&mut self, key: SessionKey, acknowledges: bool) {
        match self {
            Marks::One { pending, open, .. } => (*pending, *open) = (true, acknowledges),
            Marks::Many { pending, open } => {
                pending.set(key.index);
                if acknowledges {
                    open.set(key.index);
                }
            }
        }
    }

    fn is_pending(&self, key: SessionKey) -> bool {
        match self {
            Marks::One { key: one, pending, .. } => *one == key && *pending,
            Marks::Many { pending, .. } => pending.has(key.index),
        }
    }

    fn clear_pending(&mut self, key: SessionKey) {
        match self {
            Marks::One { pending, .. } => *pending = false,
            Marks::Many { pending, .. } => drop(pending.clear(key.index)),
        }
    }

    fn is_open(&self, key: SessionKey) -> bool {
        match self {
            Marks::One { key: one, open, .. } => *one == key && *open,
            Marks::Many { open, .. } => open.has(key.index),
        }
    }

    fn close(&mut self, key: SessionKey) {
        match self {
            Marks::One { open, .. } => *open = false,
            Marks::Many { open, .. } => drop(open.clear(key.index)),
        }
    }
}

#[derive(Debug)]
struct Entry {
    account: PushAccount,
    marks: Marks,
    /// Sessions that a broadcast may still come to.
    expected: u64,
    since: Timestamp,
}

/// The accounts of one shard.
#[derive(Debug, Default)]
pub(super) struct PushBook {
    entries: HashMap<u64, Entry>,
    singles: VecDeque<u64>,
    broadcasts: VecDeque<u64>,
    groups: VecDeque<u64>,
}

impl PushBook {
    /// Opens the account of a push to one session.
    pub(super) fn open_single(&mut self, id: u64, key: SessionKey, now: Timestamp) {
        if self.singles.len() >= PUSHES_TRACKED_MAX {
            forget_oldest(&mut self.singles, &mut self.entries);
        }
        self.singles.push_back(id);
        let marks = Marks::One { key, pending: false, open: false };
        self.entries
            .insert(id, Entry { account: PushAccount::default(), marks, expected: 0, since: now });
    }

    /// Opens the account of a broadcast that will come to `expected` sessions at most.
    pub(super) fn open_broadcast(&mut self, id: u64, expected: u64, now: Timestamp) {
        if self.broadcasts.len() >= BROADCASTS_TRACKED_MAX {
            forget_oldest(&mut self.broadcasts, &mut self.entries);
        }
        self.broadcasts.push_back(id);
        let marks = Marks::Many { pending: Bits::default(), open: Bits::default() };
        self.entries
            .insert(id, Entry { account: PushAccount::default(), marks, expected, since: now });
    }

    /// Opens the account of a message to several sessions, unless it is open already.
    pub(super) fn open_group(&mut self, id: u64, now: Timestamp) {
        if self.entries.contains_key(&id) {
            return;
        }
        if self.groups.len() >= HANDLER_MESSAGES_TRACKED_MAX {
            forget_oldest(&mut self.groups, &mut self.entries);
        }
        self.groups.push_back(id);
        let marks = Marks::Many { pending: Bits::default(), open: Bits::default() };
        self.entries
            .insert(id, Entry { account: PushAccount::default(), marks, expected: 0, since: now });
    }

    /// A broadcast has come to the end of the table.
    pub(super) fn handed_out(&mut self, id: u64) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.expected = 0;
            entry.tidy();
        }
    }

    /// The push is to be sent to this session, which may send a receipt or cannot.
    pub(super) fn requested(&mut self, id: u64, key: SessionKey, acknowledges: bool) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.account.requested += 1;
        entry.account.pending += 1;
        entry.expected = entry.expected.saturating_sub(1);
        entry.marks.set(key, acknowledges);
    }

    /// Whether the push waits for this session.
    pub(super) fn is_pending(&self, id: u64, key: SessionKey) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.marks.is_pending(key))
    }

    /// The push, if this session is one of those it waits for: one that was forgotten and pushed
    /// anew knows nothing of what is still on its way from before.
    fn pending(&mut self, id: u64, key: SessionKey) -> Option<&mut Entry> {
        self.entries.get_mut(&id).filter(|entry| entry.marks.is_pending(key))
    }

    /// It will not be sent.
    pub(super) fn dropped(&mut self, id: u64, key: SessionKey, reason: PushDrop) {
        let Some(entry) = self.pending(id, key) else { return };
        entry.marks.clear_pending(key);
        entry.marks.close(key);
        entry.account.pending -= 1;
        entry.account.dropped[reason as usize] += 1;
        entry.tidy();
    }

    /// It has been written. Whether the receipt has come before.
    pub(super) fn written(&mut self, id: u64, key: SessionKey, acknowledges: bool) -> bool {
        let Some(entry) = self.pending(id, key) else { return false };
        let early = acknowledges && !entry.marks.is_open(key);
        entry.marks.clear_pending(key);
        entry.account.pending -= 1;
        match early {
            true => entry.account.acknowledged += 1,
            false => entry.account.unconfirmed += 1,
        }
        entry.tidy();
        early
    }

    /// A receipt has come; `sending` says whether the session has a message in flight.
    pub(super) fn acknowledge(&mut self, id: u64, key: SessionKey, sending: bool) -> Receipt {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.marks.is_open(key)) else {
            return Receipt::Stray;
        };
        if entry.marks.is_pending(key) {
            if !sending {
                return Receipt::Stray;
            }
            entry.marks.close(key);
            return Receipt::Early;
        }
        if !is(Mutant::PushAckTwice) {
            entry.marks.close(key);
        }
        entry.account.unconfirmed -= 1;
        entry.account.acknowledged += 1;
        entry.tidy();
        Receipt::Counted
    }

    /// The session has gone for good: no receipt of its heir counts for it.
    pub(super) fn released(&mut self, key: SessionKey) {
        for id in self.broadcasts.iter().chain(&self.groups) {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.marks.clear_pending(key);
                entry.marks.close(key);
            }
        }
    }

    /// The account as it is now, unless it is unknown or forgotten.
    pub(super) fn account(&self, id: u64) -> Option<PushAccount> {
        self.entries.get(&id).map(|entry| PushAccount {
            requested: entry.account.requested + entry.expected,
            pending: entry.account.pending + entry.expected,
            ..entry.account.clone()
        })
    }

    /// Forgets what is too old. Those that are still being handed out are younger than that.
    pub(super) fn forget_old(&mut self, now: Timestamp) {
        for queue in [&mut self.singles, &mut self.broadcasts, &mut self.groups] {
            while let Some(entry) = queue.front().and_then(|id| self.entries.get(id))
                && entry.expected == 0
                && now.since(entry.since) >= PUSH_TRACKED_FOR
            {
                forget_oldest(queue, &mut self.entries);
            }
        }
    }
}

impl Entry {
    /// Gives the bitmaps back when nothing more can come.
    fn tidy(&mut self) {
        let account = &self.account;
        if self.expected == 0
            && account.pending == 0
            && account.unconfirmed == 0
            && let Marks::Many { .. } = self.marks
        {
            self.marks = Marks::Many { pending: Bits::default(), open: Bits::default() };
        }
    }
}

fn forget_oldest(queue: &mut VecDeque<u64>, entries: &mut HashMap<u64, Entry>) {
    if let Some(id) = queue.pop_front() {
        entries.remove(&id);
    }
}
