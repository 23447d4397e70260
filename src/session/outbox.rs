//! What waits to be sent to one session, while an earlier send is in flight.
//!
//! Invariant: `queued_bytes` is the sum of the queue. An outbox exists only while it is needed: it
//! is dropped when the last item has been sent.

use std::collections::VecDeque;
use std::time::Duration;

use crate::outgoing::{Outgoing, SMALL_BUFFER_BYTES};
use crate::time::Timestamp;

/// One thing to send.
#[derive(Debug)]
pub struct Item {
    /// The bytes.
    pub outgoing: Outgoing,
    /// How many heartbeats they answer.
    pub pongs: u8,
}

/// A queue of things to send.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: VecDeque<Item>,
    queued_bytes: usize,
    /// The peer takes nothing; if that has not changed by then, the session is given up.
    pub stalled_until: Option<Timestamp>,
    /// For how long the server itself had been held up, all in all, when that was set.
    pub held_up_before: Duration,
}

impl Outbox {
    /// Appends an item.
    pub fn push(&mut self, item: Item) {
        self.queued_bytes += cost(&item.outgoing);
        self.queue.push_back(item);
    }

    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<Item> {
        let item = self.queue.pop_front()?;
        self.queued_bytes -= cost(&item.outgoing);
        Some(item)
    }

    /// The memory that what waits keeps, in bytes, not counting what is in flight.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// The pushes that wait.
    pub fn push_ids(&self) -> impl Iterator<Item = u64> {
        self.queue.iter().filter_map(|item| item.outgoing.push_id())
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// What an item counts for: a short message keeps a whole buffer, static bytes keep nothing.
fn cost(outgoing: &Outgoing) -> usize {
    match outgoing {
        Outgoing::Static(_) => 0,
        Outgoing::Small { .. } => SMALL_BUFFER_BYTES,
        Outgoing::Shared { .. } | Outgoing::Push { .. } => outgoing.len(),
    }
}
