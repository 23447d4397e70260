//! The oracle's account: the engine's counters against the tally, and the laws that hold between
//! any two turns.

use std::time::Duration;

use super::kernel::Whereabouts;
use super::peer::Reading;
use super::world::World;
use crate::engine::EngineReport;
use crate::engine::uring::Connection;
use crate::shard::{Counters, Law, Shard};
use crate::sweep::AnySweeper;

/// A short message keeps a whole buffer, which may reach so far over the bound.
const SMALL_BUFFER_BYTES: u64 = 128;

impl World {
    /// The laws of the rings: of operations and of buffers.
    pub(super) fn laws(&self, report: &EngineReport) -> Vec<Law> {
        let ring = &report.ring;
        let in_flight = self.in_flight();
        let operations = Law::new(
            "submissions = terminal completions + in flight",
            ring.submissions,
            ring.terminal_completions + in_flight,
        );
        let places = || self.rings.iter().flat_map(|ring| &ring.buffers);
        let count =
            |which: &[Whereabouts]| places().filter(|place| which.contains(place)).count() as u64;
        let queues =
            self.rings.iter().flat_map(|ring| ring.completions.iter().chain(&ring.overflow));
        let on_their_way = queues.filter(|cqe| cqe.buffer.is_some()).count() as u64;
        let free = count(&[Whereabouts::Free, Whereabouts::Released]);
        let buffers = Law::new(
            "buffers = free + held + on their way",
            places().count() as u64,
            free + report.engine.buffers_held + on_their_way,
        );
        vec![operations, buffers]
    }

    /// No buffer is held between two turns.
    pub(super) fn judge_buffers(&mut self) {
        let held: u32 = self.rings.iter().map(|ring| ring.held).sum();
        if held > 0 {
            self.violate(format!("{held} buffers are held between turns"));
        }
    }

    /// Nobody's queue is beyond its bound, be he one who never reads.
    pub(super) fn judge_queues(&mut self, shard: &Shard<AnySweeper, Connection>) {
        let rules = self.rules;
        let bound = rules.send_queue_bytes.max(rules.frame_bytes_max + 2) as u64;
        let now = self.now();
        for at in 0..self.live.len() {
            let id = self.live[at];
            let Some(view) = self.peers[id].key.and_then(|key| shard.view(key, now)) else {
                continue;
            };
            if view.queued_bytes > bound + SMALL_BUFFER_BYTES {
                let bytes = view.queued_bytes;
                self.violate(format!("{bytes} bytes are queued for {id}, and {bound} may be"));
            }
            if view.queued_bytes > bound / 2 {
                self.exercise("queue more than half full");
            }
        }
    }

    /// After a calm time: all who live are there, have got what they wait for, and nobody else.
    pub(super) fn judge_calm(&mut self, counted: u64) {
        let all = self.live.iter().copied();
        let connected: Vec<_> = all.filter(|&id| self.peers[id].place.is_some()).collect();
        let dead = connected.iter().filter(|&&id| self.peers[id].dead).count();
        let open = connected.len() as u64;
        if self.anybody_waits() {
            self.violate("somebody waits to be accepted, and there is room".to_owned());
        }
        if open != counted {
            self.violate(format!("{open} clients are connected, and {counted} sessions open"));
        }
        if dead > 0 && self.rules.expiry {
            self.violate(format!("{dead} dead clients are still there"));
        }
        let waiting = self.live.iter().filter(|&&id| self.waits_for_reply(id)).count();
        if waiting > 0 {
            self.violate(format!("{waiting} clients have waited long for their replies"));
        }
        let waiting = self.live.iter().filter(|&&id| self.waits_for_push(id)).count();
        if waiting > 0 {
            self.violate(format!("{waiting} clients have waited long for what they are pushed"));
        }
    }

    /// Whether a reading client has been waiting for its replies for longer than a while.
    pub(super) fn waits_for_reply(&self, id: usize) -> bool {
        let client = &self.peers[id];
        let waits = client.place.is_some() && client.is_heard() && !client.expected.is_empty();
        let reads = client.reading == Reading::Fast && !client.dead;
        // A PING that goes out at this moment is nothing that it waits for.
        let waits = waits && !(client.asked.is_some() && client.expected.len() <= 3);
        waits && reads && self.now() > client.last_activity + Duration::from_secs(2)
    }

    /// Holds the engine's counters against the tally.
    pub(super) fn judge_counters(&mut self, counters: &Counters) {
        let tally = self.tally;
        let exact = [
            ("accepted", counters.accepted, tally.accepted),
            ("heartbeats_received", counters.heartbeats_received, tally.heartbeats),
            ("heartbeats_answered", counters.heartbeats_answered, tally.answered),
            ("bytes_sent", counters.bytes_sent, tally.bytes_sent),
            ("hellos_received", counters.hellos_received, tally.hellos),
            ("upgrades", counters.upgrades, tally.upgrades),
            ("pongs_received", counters.pongs_received, tally.pongs),
            ("server_pings_sent", counters.server_pings_sent, tally.server_pings),
            ("stale_events", counters.stale_events, 0),
        ];
        for (name, counted, right) in exact {
            // Whose turn to go has come is heard no more, which shows only in what he is sent.
            let is_right = match self.stopping {
                true => counted <= right,
                false => counted == right,
            };
            if !is_right {
                self.violate(format!("{name} is {counted}, and ought to be {right}"));
            }
        }
        if counters.rejected != self.gate.rejected && !self.stopping {
            let (counted, right) = (counters.rejected, self.gate.rejected);
            self.violate(format!("rejected are {counted:?}, and ought to be {right:?}"));
        }
        let low = if self.stopping { 0 } else { tally.bytes_received };
        let high = tally.bytes_received + tally.doubtful;
        if !(low..=high).contains(&counters.bytes_received) {
            let counted = counters.bytes_received;
            self.violate(format!("bytes_received is {counted}, and ought to be {low} to {high}"));
        }
    }
}
