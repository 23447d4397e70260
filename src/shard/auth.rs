//! Who is let in: tickets, and which of them have been used.
//!
//! Shared by all shards, since a ticket that one has seen may be shown to another. Touched once
//! when a session begins, never on a heartbeat's path.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::limits::SPENT_TICKETS_MAX;
use crate::protocol::ticket::{KeyRing, MAC_BYTES, TicketError};
use crate::session::CloseReason;
use crate::time::Timestamp;

/// The keys, the time, and the tickets that are spent.
#[derive(Debug)]
pub struct Auth {
    keys: KeyRing,
    unix_at_zero: Duration,
    spent: Mutex<Spent>,
}

impl Auth {
    /// `unix_at_zero`: what a wall clock showed at the origin of all timestamps, since 1970. A
    /// shard has no wall clock: it is taken to go on like the shard's own from there.
    pub fn new(keys: KeyRing, unix_at_zero: Duration) -> Arc<Auth> {
        Arc::new(Auth { keys, unix_at_zero, spent: Mutex::new(Spent::new(SPENT_TICKETS_MAX)) })
    }

    /// Whether a token lets its bearer in now. A ticket with a nonce does so once.
    ///
    /// # Errors
    /// Why it does not.
    pub(super) fn admit(&self, token: &[u8], now: Timestamp) -> Result<(), CloseReason> {
        if token.is_empty() {
            return Err(CloseReason::AuthMissing);
        }
        let (ticket, mac) = self.keys.open(token).map_err(|error| match error {
            TicketError::Malformed => CloseReason::AuthMalformed,
            TicketError::Forged => CloseReason::AuthForged,
        })?;
        let unix_s = (self.unix_at_zero + now.since(Timestamp::ZERO)).as_secs();
        if ticket.exp <= unix_s {
            return Err(CloseReason::AuthExpired);
        }
        if ticket.nonce.is_none() {
            return Ok(());
        }
        // Nothing is called with the lock held that could panic.
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.spend(mac, ticket.exp, unix_s)
    }
}

/// The front of a MAC: 128 bits tell tickets apart.
type Name = [u8; 16];

/// The tickets with a nonce that were used and have not expired yet.
#[derive(Debug)]
struct Spent {
    names_max: usize,
    names: HashSet<Name>,
    /// By the second in which they expire, the first on top.
    by_expiry: BinaryHeap<Reverse<(u64, Name)>>,
}

impl Spent {
    fn new(names_max: usize) -> Spent {
        Spent { names_max, names: HashSet::new(), by_expiry: BinaryHeap::new() }
    }

    fn spend(&mut self, mac: [u8; MAC_BYTES], exp: u64, unix_s: u64) -> Result<(), CloseReason> {
        while let Some(Reverse((expired, name))) = self.by_expiry.peek().copied()
            && expired <= unix_s
        {
            self.by_expiry.pop();
            self.names.remove(&name);
        }
        let mut name: Name = [0; 16];
        name.copy_from_slice(&mac[..16]);
        if self.names.contains(&name) {
            return Err(CloseReason::AuthReplayed);
        }
        // One that cannot be remembered could be used again.
        if self.names.len() >= self.names_max {
            return Err(CloseReason::AuthSpentFull);
        }
        self.names.insert(name);
        self.by_expiry.push(Reverse((exp, name)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u64) -> [u8; MAC_BYTES] {
        let mut mac = [0; MAC_BYTES];
        mac[..8].copy_from_slice(&number.to_ne_bytes());
        mac
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten_when_it_has_expired() {
        let count = 1_000;
        let mut spent = Spent::new(count as usize);
        for number in 0..count {
            assert_eq!(spent.spend(name(number), 100 + number % 2, 50), Ok(()));
        }
        assert_eq!(spent.spend(name(3), 101, 50), Err(CloseReason::AuthReplayed));
        assert_eq!(spent.spend(name(count), 101, 99), Err(CloseReason::AuthSpentFull));
        assert_eq!(spent.spend(name(count), 101, 100), Ok(()));
        assert_eq!(spent.names.len(), 501);
        assert_eq!(spent.names.len(), spent.by_expiry.len());
        assert_eq!(spent.spend(name(3), 101, 100), Err(CloseReason::AuthReplayed));
    }
}
