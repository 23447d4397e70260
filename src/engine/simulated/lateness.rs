//! The oracle's patience: how soon whoever is due is given up, and whatever has arrived is heard.

use super::peer::{Peer, Reading};
use super::world::World;
use crate::limits::{EXPIRED_PER_TURN_MAX, GOODBYE_TIMEOUT, READS_PER_TURN_MAX};
use crate::session::CloseReason;
use crate::time::Timestamp;

/// Turns of the loop that may pass after a deadline's tick before the session is given up; one more
/// for each harvest of [`EXPIRED_PER_TURN_MAX`].
const LATE_TURNS_MAX: u32 = 2;

/// A receive of the ring that sleeps which has ended is armed again by the next sleep: for so many
/// turns nobody looks whether something is there.
const REARM_TURNS_MAX: u32 = 1;

impl World {
    /// In how many turns that hear everything else somebody may not be heard. Who has found no
    /// buffer is served in the same turn, or the turn counts as busy. So what is left is deferred
    /// work that an enter leaves for the next turn, because the half of it that it did has brought
    /// nothing: what is left over comes first then, so it is halved from turn to turn.
    fn unheard_turns_max(&self) -> u32 {
        let sources_max = self.sizes.slots + 3;
        let halvings = sources_max.ilog2() + 1;
        REARM_TURNS_MAX + if self.rates.leave_work > 0 { halvings } else { 0 }
    }

    /// Whether so much was read in this turn that whoever has more is put off to the next: few and
    /// small buffers as here bring that about.
    pub(super) fn is_putting_off(&self) -> bool {
        self.rings.iter().any(|ring| ring.enters > READS_PER_TURN_MAX)
    }

    /// After a turn in which everything was heard: nobody who is due is still there.
    pub(super) fn judge_lateness(&mut self) {
        // A server that stops has a deadline of its own for everybody.
        if self.stopping {
            return;
        }
        let tick = self.rules.tick;
        // Time runs out at the beginning of a tick; between two only the unheard are of interest.
        let present = Some(tick.current(self.turn_now));
        let is_new = std::mem::replace(&mut self.judged_tick, present) != present;
        if !is_new && self.unread == 0 && !self.has_suspects {
            return;
        }
        self.has_suspects = false;
        let begun = |due: Timestamp| tick.start(tick.deadline(due));
        let unheard_turns_max = self.unheard_turns_max();
        let is_putting_off = self.is_putting_off();
        let late_turns_max = LATE_TURNS_MAX + (self.live.len() / EXPIRED_PER_TURN_MAX) as u32;
        let now = self.now();
        for at in 0..self.live.len() {
            let id = self.live[at];
            let client = &mut self.peers[id];
            if is_new && client.blocked_since.is_some() {
                // It can be noticed in the first sweep after it has begun.
                client.block_noticed.get_or_insert(now);
            }
            let client = &self.peers[id];
            if client.place.is_none() || client.key.is_none() || client.given_up_at.is_some() {
                continue;
            }
            let ended = (client.fin || client.reset) && !client.end_seen;
            let is_quiet = client.arrived == 0 && !ended && client.late_turns == 0;
            // A look at everybody in every turn would take too long.
            if self.sizes.is_crowd && !is_new && is_quiet {
                self.peers[id].unheard_turns = 0;
                continue;
            }
            // The time in which the server was held up may be added.
            let stalled = |since| since + self.rules.stall_timeout + self.held_up.most_since(since);
            let stall =
                client.block_noticed.map(|since| begun(stalled(since)) + tick.as_duration() * 2);
            let last = match client.verdict {
                Some((reason, at)) => {
                    let slow = client.reading == Reading::Slow;
                    let since = client.send_begun.max(client.send_ended).max(at);
                    let flushed = match reason {
                        CloseReason::PeerClosed => stalled(since),
                        _ => since + self.rules.stall_timeout,
                    };
                    (!slow).then(|| begun(flushed + GOODBYE_TIMEOUT * 2))
                }
                None => {
                    let latest = self.dues(client).into_iter().flatten().map(|due| due.latest);
                    latest.flatten().chain(self.ask_due(client)).map(begun).min()
                }
            };
            let late = self.rules.expiry
                && last.into_iter().chain(stall).any(|last| self.turn_now >= last);
            let client = &mut self.peers[id];
            let unheard = client.is_heard()
                && (client.arrived > 0 || ended)
                && client.last_arrival.max(client.end_arrived) <= self.turn_now;
            if client.arrived > 0 || is_putting_off {
                // What is missed of it may be among that: it is looked at in the tick after.
                client.excused_until = self.turn_now + tick.as_duration() * 2;
                client.late_turns = 0;
            }
            let late = late && self.turn_now >= client.excused_until;
            self.has_suspects |= late || ended;
            client.late_turns = if late { client.late_turns + 1 } else { 0 };
            client.unheard_turns = if unheard { client.unheard_turns + 1 } else { 0 };
            if client.unheard_turns > unheard_turns_max {
                let told = format!("{id}, {:?}, is not heard", client.behaviour);
                self.violate(told);
                return;
            }
            if client.late_turns > late_turns_max {
                let told = format!(
                    "{id}, {:?}, is late to be given up: {last:?}, stalled {stall:?}",
                    client.behaviour
                );
                self.violate(told);
            }
        }
    }

    /// When it has to be asked for a sign of life, if nothing else is on its way to it.
    fn ask_due(&self, client: &Peer) -> Option<Timestamp> {
        let asks = self.rules.server_ping
            && client.first_done
            && client.asked.is_none()
            && client.has_no_output();
        asks.then(|| client.last_activity + client.interval)
    }
}
