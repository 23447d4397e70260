//! The session table: a slab with generations, so that what was meant for a former session of the
//! same index is recognised.
//!
//! Cost: one cache line per look-up, 64 bytes per session. Memory for the whole capacity is
//! reserved at the start and becomes resident as it is first used, so the table never moves.

use std::fmt;

use slab::Slab;

use super::Session;
use crate::limits::GENERATIONS;
use crate::mutants::{Mutant, is};

/// A session within its shard: its index, and which life of that index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// The dense, reused index: what sweepers know.
    pub index: u32,
    /// Below [`GENERATIONS`].
    pub generation: u32,
}

/// A session's public name: `shard:8 | generation:24 | index:32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub u64);

impl SessionId {
    /// The name of `key` in `shard`.
    pub const fn new(shard: u8, key: SessionKey) -> SessionId {
        SessionId((shard as u64) << 56 | (key.generation as u64) << 32 | key.index as u64)
    }

    /// The shard's number.
    pub const fn shard(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// The key within the shard.
    pub const fn key(self) -> SessionKey {
        SessionKey { index: self.0 as u32, generation: (self.0 >> 32) as u32 & (GENERATIONS - 1) }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The sessions of one shard.
#[derive(Debug)]
pub struct SessionTable<C> {
    slab: Slab<Session<C>>,
    next_generation: u32,
    /// One past the highest index that was ever used.
    indices_end: u32,
}

impl<C> SessionTable<C> {
    /// An empty table with room for `capacity` sessions.
    pub fn with_capacity(capacity: usize) -> SessionTable<C> {
        SessionTable { slab: Slab::with_capacity(capacity), next_generation: 1, indices_end: 0 }
    }

    /// Adds a session. Generations are dealt out by a counter of the whole table: an index repeats
    /// one only after 16 million sessions.
    pub fn insert(&mut self, mut session: Session<C>) -> SessionKey {
        let generation = self.next_generation;
        self.next_generation = (generation + 1) % GENERATIONS;
        session.generation = generation;
        let index = self.slab.insert(session) as u32;
        self.indices_end = self.indices_end.max(index + 1);
        SessionKey { index, generation }
    }

    /// All sessions there ever were have had an index below this.
    pub fn indices_end(&self) -> u32 {
        self.indices_end
    }

    /// The generation that the next session will have.
    pub fn next_generation(&self) -> u32 {
        self.next_generation
    }

    /// The session, unless it has gone.
    #[inline]
    pub fn get(&self, key: SessionKey) -> Option<&Session<C>> {
        self.slab.get(key.index as usize).filter(|session| is_of(session, key))
    }

    /// The session, unless it has gone.
    #[inline]
    pub fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session<C>> {
        self.slab.get_mut(key.index as usize).filter(|session| is_of(session, key))
    }

    /// The key of whoever lives at `index` now.
    pub fn key_at(&self, index: u32) -> Option<SessionKey> {
        let session = self.slab.get(index as usize)?;
        Some(SessionKey { index, generation: session.generation })
    }

    /// Removes the session, unless it has gone already.
    pub fn remove(&mut self, key: SessionKey) -> Option<Session<C>> {
        self.get(key)?;
        self.slab.try_remove(key.index as usize)
    }

    /// All indices lie below this.
    pub fn capacity(&self) -> usize {
        self.slab.capacity()
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// The keys of all sessions, from the lowest index on.
    pub fn keys(&self) -> impl Iterator<Item = SessionKey> {
        self.slab.iter().map(|(index, session)| SessionKey {
            index: index as u32,
            generation: session.generation,
        })
    }
}

/// Whether this is the life of the index that the key means.
#[inline]
fn is_of<C>(session: &Session<C>, key: SessionKey) -> bool {
    session.generation == key.generation || is(Mutant::StaleGeneration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Protocol;
    use crate::time::Timestamp;

    fn session(connection: u64) -> Session<u64> {
        Session::new(connection, Protocol::Tcp, Timestamp::ZERO, 1)
    }

    fn table_of(count: u64) -> (SessionTable<u64>, Vec<SessionKey>) {
        let mut table = SessionTable::with_capacity(4);
        let keys = (0..count).map(|connection| table.insert(session(connection))).collect();
        (table, keys)
    }

    #[test]
    fn a_reused_index_does_not_answer_to_its_former_key() {
        let (mut table, keys) = table_of(3);
        assert_eq!(table.remove(keys[1]).map(|session| session.connection), Some(1));
        let heir = table.insert(session(9));
        assert_eq!(heir.index, keys[1].index, "a slab reuses the last free index");
        assert!(table.get(keys[1]).is_none() && table.remove(keys[1]).is_none());
        assert_eq!(table.get(heir).map(|session| session.connection), Some(9));
    }

    #[test]
    fn a_public_id_leads_back_to_its_key() {
        let key = SessionKey { index: 0xdead_beef, generation: GENERATIONS - 1 };
        let id = SessionId::new(255, key);
        assert_eq!((id.shard(), id.key()), (255, key));
    }
}
