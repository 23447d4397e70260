//! What a shard counts, and the laws by which its counters must balance.
//!
//! Every counter has a single writer, its shard; sums over shards are made by whoever reads.

use serde::Serialize;

use super::reason::{CloseReason, Refusal};

/// The counters of a shard, or of several added up. All only grow, but `open`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that the kernel accepted for us.
    pub accepted: u64,
    /// Connections turned away, by [`Refusal`].
    pub rejected: [u64; Refusal::COUNT],
    /// Sessions opened.
    pub opened: u64,
    /// Sessions that are open now.
    pub open: u64,
    /// Sessions closed, by [`CloseReason`].
    pub closed: [u64; CloseReason::COUNT],
    /// Connections whose close has completed.
    pub released: u64,
    /// Bytes that came from clients of open sessions.
    pub bytes_received: u64,
    /// Bytes that came for sessions that were being closed already.
    pub bytes_ignored: u64,
    /// Bytes that the kernel took from us.
    pub bytes_sent: u64,
    /// Whole, legal frames.
    pub frames_received: u64,
    /// HELLOs among them.
    pub hellos_received: u64,
    /// PINGs among them.
    pub heartbeats_received: u64,
    /// Heartbeats whose reply the kernel took.
    pub heartbeats_answered: u64,
    /// Heartbeats whose session was closed before the reply was sent.
    pub heartbeats_dropped: u64,
    /// PONGs received.
    pub pongs_received: u64,
    /// DATA messages received.
    pub data_received: u64,
    /// DATA messages queued to be sent back.
    pub data_echoed: u64,
    /// PUSH_ACKs received.
    pub push_acks_received: u64,
    /// Sends that took only a part of their bytes.
    pub short_sends: u64,
    /// Events for sessions that have gone.
    pub stale_events: u64,
    /// Sessions expired before their time; must stay 0.
    pub expired_early: u64,
    /// The greatest lateness of an expiry so far, in microseconds.
    pub expiry_lateness_us_max: u64,
    /// The sum of the lateness of all expiries, in microseconds.
    pub expiry_lateness_us_sum: u64,
    /// Entries that the sweeper has looked at.
    pub sweep_entries_visited: u64,
    /// Times that a sweep ran out of budget and was continued in a later turn.
    pub sweeps_continued: u64,
}

/// Two sides that must be equal.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Law {
    /// What is claimed.
    pub name: String,
    /// Whether both sides are equal.
    pub holds: bool,
    /// The left side.
    pub left: u64,
    /// The right side.
    pub right: u64,
}

impl Law {
    /// The claim that `left` equals `right`.
    pub fn new(name: &str, left: u64, right: u64) -> Law {
        Law { name: name.to_owned(), holds: left == right, left, right }
    }
}

impl Counters {
    /// Adds another shard's counters.
    pub fn add(&mut self, other: &Counters) {
        let Counters {
            accepted,
            rejected,
            opened,
            open,
            closed,
            released,
            bytes_received,
            bytes_ignored,
            bytes_sent,
            frames_received,
            hellos_received,
            heartbeats_received,
            heartbeats_answered,
            heartbeats_dropped,
            pongs_received,
            data_received,
            data_echoed,
            push_acks_received,
            short_sends,
            stale_events,
            expired_early,
            expiry_lateness_us_max,
            expiry_lateness_us_sum,
            sweep_entries_visited,
            sweeps_continued,
        } = other;
        self.accepted += accepted;
        add_each(&mut self.rejected, rejected);
        self.opened += opened;
        self.open += open;
        add_each(&mut self.closed, closed);
        self.released += released;
        self.bytes_received += bytes_received;
        self.bytes_ignored += bytes_ignored;
        self.bytes_sent += bytes_sent;
        self.frames_received += frames_received;
        self.hellos_received += hellos_received;
        self.heartbeats_received += heartbeats_received;
        self.heartbeats_answered += heartbeats_answered;
        self.heartbeats_dropped += heartbeats_dropped;
        self.pongs_received += pongs_received;
        self.data_received += data_received;
        self.data_echoed += data_echoed;
        self.push_acks_received += push_acks_received;
        self.short_sends += short_sends;
        self.stale_events += stale_events;
        self.expired_early += expired_early;
        self.expiry_lateness_us_max = self.expiry_lateness_us_max.max(*expiry_lateness_us_max);
        self.expiry_lateness_us_sum += expiry_lateness_us_sum;
        self.sweep_entries_visited += sweep_entries_visited;
        self.sweeps_continued += sweeps_continued;
    }

    /// Sessions closed, whatever the reason.
    pub fn closed_total(&self) -> u64 {
        self.closed.iter().sum()
    }

    /// Connections turned away, whatever the reason.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().sum()
    }

    /// Sessions closed for `reason`.
    pub fn closed_for(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize]
    }

    /// The laws that hold at any moment between two turns of the loop. `unanswered` is the number
    /// of heartbeats whose replies wait in sessions that are open.
    pub fn laws(&self, unanswered: u64) -> Vec<Law> {
        vec![
            Law::new(
                "accepted = opened + rejected",
                self.accepted,
                self.opened + self.rejected_total(),
            ),
            Law::new("opened = open + closed", self.opened, self.open + self.closed_total()),
            Law::new(
                "heartbeats received = answered + dropped + pending",
                self.heartbeats_received,
                self.heartbeats_answered + self.heartbeats_dropped + unanswered,
            ),
            Law::new("no session expired before its time", self.expired_early, 0),
        ]
    }
}

fn add_each<const N: usize>(sums: &mut [u64; N], values: &[u64; N]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}
