//! The oracle of the gate: who is let in and who is turned away, by the bounds that all shards
//! share, and from where clients come.

use std::collections::BTreeMap;

use super::world::World;
use crate::ring::Name;
use crate::session::Refusal;
use crate::shard::Bounds;
use crate::time::Timestamp;

/// Households of each kind.
const HOUSEHOLDS: u64 = 6;

/// What a nanosecond of waiting is worth where newcomers come at a bounded rate.
const NANOS_PER_S: u64 = 1_000_000_000;

/// From where a client comes. The simulator knows its household, and need not look for it in the
/// address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Home {
    household: Household,
    /// What the kernel tells.
    pub(super) name: Name,
}

/// A number, and whether it is one of IPv6.
type Household = (u8, bool);

impl Home {
    fn new(number: u8, kind: u64, rest: u64) -> Home {
        let mut name = [0; 28];
        let is_ipv6 = kind == 2;
        let family = if kind == 0 { libc::AF_INET } else { libc::AF_INET6 };
        name[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        match kind {
            0 => name[4..8].copy_from_slice(&[10, 0, 0, number]),
            // As a listener of IPv6 is told an address of IPv4.
            1 => name[18..24].copy_from_slice(&[0xff, 0xff, 10, 0, 0, number]),
            _ => {
                name[8..16].copy_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, number]);
                name[16..24].copy_from_slice(&rest.to_be_bytes());
            }
        }
        Home { household: (number, is_ipv6), name }
    }
}

/// What the gate has to have come to.
#[derive(Debug)]
pub(super) struct Gate {
    bounds: Bounds,
    inside: usize,
    by_household: BTreeMap<Household, u32>,
    /// How much time newcomers have saved up, as of then.
    saved_ns: u64,
    saved_at: Timestamp,
    /// The process has more memory than it may, as far as the shard was told.
    is_short_of_memory: bool,
    /// That is about to change.
    memory_turns: bool,
    /// Who was turned away, by reason.
    pub(super) rejected: [u64; Refusal::COUNT],
}

impl Gate {
    pub(super) fn new(bounds: Bounds) -> Gate {
        Gate {
            bounds,
            inside: 0,
            by_household: BTreeMap::new(),
            saved_ns: u64::MAX,
            saved_at: Timestamp::ZERO,
            is_short_of_memory: false,
            memory_turns: false,
            rejected: [0; Refusal::COUNT],
        }
    }

    pub(super) fn asks_names(&self) -> bool {
        self.bounds.per_address_max.is_some()
    }

    pub(super) fn watches_memory(&self) -> bool {
        self.bounds.memory_bytes_max.is_some()
    }

    /// How much memory the shard is told before a turn that the process has. In that turn nothing
    /// that is told later matters.
    pub(super) fn tell_memory(&mut self) -> u64 {
        self.is_short_of_memory ^= std::mem::take(&mut self.memory_turns);
        if self.is_short_of_memory { u64::MAX } else { 0 }
    }

    fn enter(&mut self, household: Option<Household>, now: Timestamp) -> Result<(), Refusal> {
        if self.asks_names() && household.is_none() {
            return Err(Refusal::AddressUnknown);
        }
        let of_household = household.map_or(0, |of| *self.by_household.entry(of).or_default());
        if self.bounds.per_address_max.is_some_and(|max| of_household == max) {
            return Err(Refusal::MaxPerIp);
        }
        if self.is_short_of_memory {
            return Err(Refusal::MemoryLimit);
        }
        if self.inside == self.bounds.connections_max {
            return Err(Refusal::MaxConnections);
        }
        self.spend(now)?;
        self.inside += 1;
        if let Some(household) = household {
            *self.by_household.entry(household).or_default() += 1;
        }
        Ok(())
    }

    /// Whoever comes spends what one newcomer costs, if so much has been saved.
    fn spend(&mut self, now: Timestamp) -> Result<(), Refusal> {
        let Some(rate) = self.bounds.accept_rate else { return Ok(()) };
        let cost_ns = NANOS_PER_S / u64::from(rate.per_s);
        let elapsed_ns = now.since(self.saved_at).as_nanos() as u64;
        let most_ns = cost_ns * u64::from(rate.burst);
        self.saved_ns = self.saved_ns.saturating_add(elapsed_ns).min(most_ns);
        self.saved_at = now;
        self.saved_ns = self.saved_ns.checked_sub(cost_ns).ok_or(Refusal::AcceptRate)?;
        Ok(())
    }

    fn leave(&mut self, household: Option<Household>) {
        self.inside -= 1;
        if let Some(count) = household.and_then(|of| self.by_household.get_mut(&of)) {
            *count -= 1;
        }
    }
}

impl World {
    /// From where the next client comes, if anybody asks.
    pub(super) fn any_home(&mut self) -> Option<Home> {
        if !self.gate.asks_names() {
            return None;
        }
        let number = self.random.within(1, HOUSEHOLDS) as u8;
        Some(Home::new(number, self.random.within(0, 2), self.random.bits()))
    }

    /// The engine knows of a newcomer all that it will: he is let in, or he is not.
    pub(super) fn comes_in(&mut self, id: usize, is_name_known: bool) {
        let now = self.now();
        self.tally.accepted += 1;
        let household = self.peers[id].home.filter(|_| is_name_known).map(|home| home.household);
        match self.gate.enter(household, now) {
            Ok(()) => {
                self.peers[id].opened_at = Some(now);
                self.peers[id].note_activity(now);
            }
            Err(refusal) => {
                self.peers[id].refusal = Some(refusal);
                self.gate.rejected[refusal as usize] += 1;
                self.exercise(refusal.name());
            }
        }
    }

    /// The engine learns that the close of a session's connection has ended.
    pub(super) fn leaves(&mut self, id: usize) {
        let household = self.peers[id].home.map(|home| home.household);
        // A server that stops turns away some of whom this gate has thought that they are in.
        if !self.stopping {
            self.gate.leave(household);
        }
    }

    /// The engine uses a newcomer's connection, or closes it at once. From when on a server that
    /// stops lets nobody in does not show.
    pub(super) fn judge_gate(&mut self, id: usize, is_let_in: bool) {
        match (self.peers[id].refusal, is_let_in) {
            _ if self.stopping => {}
            (Some(refusal), true) => {
                self.violate(format!("{id} is let in, in spite of {}", refusal.name()));
            }
            (None, false) => self.violate(format!("{id} is turned away for nothing")),
            _ => {}
        }
    }

    /// Memory runs short, or comes back.
    pub(super) fn turn_memory(&mut self) {
        self.gate.memory_turns = true;
        self.fault("short of memory, or not any more");
    }
}
