//! What a shard counts, and the laws by which its counters must balance.
//!
//! Every counter has a single writer, its shard; sums over shards are made by whoever reads.

use std::ops::{Deref, DerefMut};

use serde::Serialize;

use crate::counters::counters;
use crate::session::{CloseReason, PushDrop, Refusal};

counters! {
    /// The totals of a shard, or of several added up. All but the gauges only grow.
    Totals {
        /// Connections that the kernel accepted for us.
        accepted: sum,
        /// Sessions opened.
        opened: sum,
        /// Sessions that are open now.
        open: gauge,
        /// Connections whose close has completed.
        released: sum,
        /// Entries of the session table: the open and those whose close has not completed.
        table_entries: gauge,
        /// Sessions that the sweeper knows.
        sweeper_entries: gauge,
        /// Bytes that came from clients of open sessions.
        bytes_received: sum,
        /// Bytes that came for sessions that were being closed already.
        bytes_ignored: sum,
        /// Bytes that the kernel took from us.
        bytes_sent: sum,
        /// Upgrades to WebSocket that were granted.
        upgrades: sum,
        /// Whole, legal frames; of a WebSocket whole messages and control frames.
        frames_received: sum,
        /// HELLOs among them.
        hellos_received: sum,
        /// PINGs among them.
        heartbeats_received: sum,
        /// Heartbeats whose reply the kernel took.
        heartbeats_answered: sum,
        /// Heartbeats whose reply has not been sent yet.
        heartbeats_pending: gauge,
        /// PINGs of our own that the kernel took (`--server-ping`).
        server_pings_sent: sum,
        /// PONGs received.
        pongs_received: sum,
        /// DATA messages received.
        data_received: sum,
        /// DATA messages queued to be sent back.
        data_echoed: sum,
        /// PUSH_ACKs received.
        push_acks_received: sum,
        /// Clients that were told other times for their heartbeats.
        adjusts_sent: sum,
        /// Heartbeats in the last whole heartbeat interval.
        heartbeats_per_interval: gauge,
        /// The most of them that came in one tick.
        heartbeats_per_tick_peak: gauge,
        /// Ticks in that interval.
        ticks_per_interval: gauge,
        /// Headers of the PROXY protocol that were read.
        proxy_headers_received: sum,
        /// PUSH_ACKs for what this session was not sent, or had acknowledged, or is forgotten.
        push_acks_stray: sum,
        /// Pushes that were to go to a session: one for each session of a broadcast.
        pushes_requested: sum,
        /// Those that the client has acknowledged.
        pushes_acknowledged: sum,
        /// Those that the kernel has taken, and of which no receipt has come.
        pushes_unconfirmed: gauge,
        /// Those that wait or are being sent.
        pushes_pending: gauge,
        /// Pushes that were not taken: to a session that had gone or could not be pushed to yet, or
        /// a broadcast beside too many others.
        pushes_refused: sum,
        /// Pushes that a handler wanted for sessions that have gone or cannot be pushed to.
        handler_pushes_refused: sum,
        /// Sessions that were told that the server is going.
        drain_notices: sum,
        /// Memory that messages keep which wait behind a send, in bytes.
        send_queue_bytes: gauge,
        /// Sends that took only a part of their bytes.
        short_sends: sum,
        /// Events for sessions that have gone.
        stale_events: sum,
        /// Sessions expired before their time; must stay 0.
        expired_early: sum,
        /// Sessions expired after a whole sweep had passed over their time; must stay 0.
        expired_late: sum,
        /// The greatest lateness of an expiry so far, in microseconds.
        expiry_lateness_us_max: max,
        /// The sum of the lateness of all expiries, in microseconds.
        expiry_lateness_us_sum: sum,
        /// Entries that the sweeper has looked at.
        sweep_entries_visited: sum,
        /// Times that a sweep ran out of budget and was continued in a later turn.
        sweeps_continued: sum,
    }
}

/// Everything that a shard counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Totals of all kinds.
    pub totals: Totals,
    /// Connections turned away, by [`Refusal`].
    pub rejected: [u64; Refusal::COUNT],
    /// Sessions closed, by [`CloseReason`].
    pub closed: [u64; CloseReason::COUNT],
    /// Heartbeats whose session was closed before the reply was sent, by the reason for that.
    pub heartbeats_dropped: [u64; CloseReason::COUNT],
    /// Pushes that were never sent, by [`PushDrop`].
    pub pushes_dropped: [u64; PushDrop::COUNT],
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            totals: Totals::default(),
            rejected: [0; Refusal::COUNT],
            closed: [0; CloseReason::COUNT],
            heartbeats_dropped: [0; CloseReason::COUNT],
            pushes_dropped: [0; PushDrop::COUNT],
        }
    }
}

impl Deref for Counters {
    type Target = Totals;

    fn deref(&self) -> &Totals {
        &self.totals
    }
}

impl DerefMut for Counters {
    fn deref_mut(&mut self) -> &mut Totals {
        &mut self.totals
    }
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
        self.totals.add(&other.totals);
        add_each(&mut self.rejected, &other.rejected);
        add_each(&mut self.closed, &other.closed);
        add_each(&mut self.heartbeats_dropped, &other.heartbeats_dropped);
        add_each(&mut self.pushes_dropped, &other.pushes_dropped);
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

    /// The laws that hold between any two turns of the loop.
    pub fn laws(&self) -> Vec<Law> {
        vec![
            Law::new(
                "accepted = opened + rejected",
                self.accepted,
                self.opened + self.rejected_total(),
            ),
            Law::new("opened = open + closed", self.opened, self.open + self.closed_total()),
            Law::new(
                "opened = in the table + released",
                self.opened,
                self.table_entries + self.released,
            ),
            Law::new("open = in the sweeper", self.open, self.sweeper_entries),
            Law::new(
                "heartbeats received = answered + dropped + pending",
                self.heartbeats_received,
                self.heartbeats_answered
                    + self.heartbeats_dropped.iter().sum::<u64>()
                    + self.heartbeats_pending,
            ),
            Law::new(
                "pushes requested = acknowledged + unconfirmed + dropped + pending",
                self.pushes_requested,
                self.pushes_acknowledged
                    + self.pushes_unconfirmed
                    + self.pushes_dropped.iter().sum::<u64>()
                    + self.pushes_pending,
            ),
            Law::new("sessions expired before their time = 0", self.expired_early, 0),
            Law::new(
                "sessions expired after the first sweep that was to = 0",
                self.expired_late,
                0,
            ),
        ]
    }
}

fn add_each<const N: usize>(sums: &mut [u64; N], values: &[u64; N]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each counter that a law speaks of, changed alone, breaks a law.
    #[test]
    fn no_counter_of_a_law_can_be_wrong_alone() {
        assert!(Counters::default().laws().iter().all(|law| law.holds));
        let spoken_of = [
            "accepted",
            "opened",
            "open",
            "released",
            "table_entries",
            "sweeper_entries",
            "heartbeats_received",
            "heartbeats_answered",
            "heartbeats_pending",
            "pushes_requested",
            "pushes_acknowledged",
            "pushes_unconfirmed",
            "pushes_pending",
            "expired_early",
            "expired_late",
        ];
        for name in spoken_of {
            let place = Totals::NAMES.iter().position(|other| *other == name).expect("a counter");
            let mut values = Totals::default().values();
            values[place] = 1;
            let totals = Totals::from_values(values);
            let laws = Counters { totals, ..Counters::default() }.laws();
            let broken = laws.iter().find(|law| !law.holds).expect(name);
            assert_eq!(broken.left.abs_diff(broken.right), 1, "both sides are named: {broken:?}");
        }
        for change in [
            |counters: &mut Counters| counters.rejected[0] = 1,
            |counters: &mut Counters| counters.closed[0] = 1,
            |counters: &mut Counters| counters.heartbeats_dropped[0] = 1,
            |counters: &mut Counters| counters.pushes_dropped[0] = 1,
        ] {
            let mut counters = Counters::default();
            change(&mut counters);
            assert!(counters.laws().iter().any(|law| !law.holds), "{counters:?}");
        }
    }
}
