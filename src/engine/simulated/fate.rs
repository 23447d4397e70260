//! What befalls many at once, and what an administrator asks for.

use std::time::Duration;

use super::behaviour::Behaviour;
use super::pushes::Push;
use super::world::{Event, World};
use crate::session::SessionKey;

/// What the shard is told before the next turn.
#[derive(Debug)]
pub(super) enum Order {
    Kick(SessionKey),
    Push { id: u64, peer: usize, key: SessionKey, message: Vec<u8> },
    Broadcast { id: u64, spread: Duration, message: Vec<u8> },
}

/// Pushes that wait for one who reads, in bytes: so many that his queue never runs full.
const PUSH_BYTES_OUT_MAX: usize = 1_200;

impl World {
    /// Something befalls many clients at once; and there are always some.
    pub(super) fn fate(&mut self) {
        if !self.chaos {
            return;
        }
        while self.live.len() < self.sizes.clients / 2 && !self.stopping {
            self.spawn_any();
        }
        if self.gate.watches_memory() && self.random.chance(300) {
            self.turn_memory();
        }
        match self.random.below(12) {
            0 => {
                self.fault("mass death");
                for id in self.live.clone() {
                    if self.random.chance(400) {
                        self.peers[id].dead = true;
                    }
                }
            }
            1 if !self.stopping => {
                self.fault("mass connect");
                while self.live.len() < self.sizes.clients {
                    self.spawn_any();
                }
            }
            2 => {
                self.fault("partition");
                let most = self.rules.idle_timeout.as_millis() as u64 * 3 / 2;
                let millis = self.random.within(1, most);
                let heals_at = self.now() + Duration::from_millis(millis);
                self.partition_until = self.partition_until.max(heals_at);
            }
            3 => {
                // Somebody, or somebody who has long gone.
                let id = self.random.below(self.peers.len());
                if let Some(key) = self.peers[id].key {
                    self.fault("kick");
                    self.peers[id].kicked = true;
                    self.orders.push(Order::Kick(key));
                }
            }
            4 => self.push_to_some(),
            5 => self.push_to_the_unreading(),
            6 => {
                let count = if self.random.chance(100) { 20 } else { self.random.within(1, 3) };
                for _ in 0..count {
                    self.broadcast();
                }
            }
            _ if !self.stopping => self.spawn_any(),
            _ => {}
        }
        let millis = self.random.within(10, self.rates.fate_ms_max);
        self.after(Duration::from_millis(millis), Event::Fate);
    }

    /// Pushes to a few, of whom some have gone or have not begun.
    fn push_to_some(&mut self) {
        for _ in 0..self.random.within(1, 8) {
            let gone = self.random.chance(100);
            let id = match gone || self.live.is_empty() {
                true => self.random.below(self.peers.len()),
                false => self.live[self.random.below(self.live.len())],
            };
            let length = self.random.within(0, 120) as usize;
            if self.peers[id].is_exact() && !self.has_room_for_push(id, length) {
                continue;
            }
            self.push_message(id, length);
        }
    }

    /// More than its bound to those who do not read.
    fn push_to_the_unreading(&mut self) {
        for id in self.live.clone() {
            if matches!(self.peers[id].behaviour, Behaviour::Unreading | Behaviour::Deaf) {
                for _ in 0..self.random.within(1, 12) {
                    let length = self.random.within(0, 1_500) as usize;
                    self.push_message(id, length);
                }
            }
        }
    }

    fn push_message(&mut self, peer: usize, length: usize) {
        let Some(key) = self.peers[peer].key else { return };
        let (id, message) = self.new_message(length);
        let push = Push::new(id, &message, Some(peer), Duration::ZERO);
        self.peers[peer].owed_push_bytes += push.len();
        self.pushes.active.insert(id, push);
        self.orders.push(Order::Push { id, peer, key, message });
    }

    fn broadcast(&mut self) {
        let length = self.random.within(0, 20) as usize;
        let mut ids = self.live.iter();
        if ids.any(|&id| self.peers[id].is_exact() && !self.has_room_for_push(id, length)) {
            return;
        }
        let spread = Duration::from_millis(self.random.pick(&[0, 0, 20, 1_000, 5_000]));
        let (id, message) = self.new_message(length);
        let push = Push::new(id, &message, None, spread);
        self.pushes.broadcast_bytes += push.len();
        self.pushes.active.insert(id, push);
        self.orders.push(Order::Broadcast { id, spread, message });
    }

    /// A message like no other, text or not.
    fn new_message(&mut self, length: usize) -> (u64, Vec<u8>) {
        self.pushes.last_id += 1;
        let id = self.pushes.last_id;
        let mut message = format!("{id:08x}").into_bytes();
        if self.random.chance(300) {
            message.push(0xff);
        }
        message.resize(message.len() + length, b'x');
        (id, message)
    }

    fn has_room_for_push(&self, id: usize, length: usize) -> bool {
        let waiting = self.peers[id].owed_push_bytes + self.pushes.broadcast_bytes;
        waiting + length + 20 <= PUSH_BYTES_OUT_MAX
    }
}
