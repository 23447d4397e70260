//! The clients of the simulated world, the well-behaved and the others.

use std::cmp::Reverse;
use std::time::Duration;

use super::kernel::Kernel;
use crate::time::Timestamp;

/// Something that happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// This client connects.
    Connect(usize),
    /// This client does what it does, if it still has this connection.
    Act(usize, usize),
    /// A connection takes bytes again.
    Unchoke(usize),
    /// Many die or come at once, or the network breaks or heals.
    Upheaval,
}

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Healthy,
    Silent,
    Mute,
    Dribbling,
    HalfFrame,
    Garbage,
    KindZero,
    LengthZero,
    Oversize,
    Flooding,
    Deaf,
    HalfClosing,
    Resetting,
    ConnectClosing,
    Talking,
}

const MANNERS: [Manner; 15] = [
    Manner::Healthy,
    Manner::Silent,
    Manner::Mute,
    Manner::Dribbling,
    Manner::HalfFrame,
    Manner::Garbage,
    Manner::KindZero,
    Manner::LengthZero,
    Manner::Oversize,
    Manner::Flooding,
    Manner::Deaf,
    Manner::HalfClosing,
    Manner::Resetting,
    Manner::ConnectClosing,
    Manner::Talking,
];

/// A client.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) manner: Manner,
    pub(super) link: Option<usize>,
    /// What it has done on this connection.
    acts: u32,
    /// Bytes that the broken network holds back.
    held_back: Vec<u8>,
}

impl Peer {
    pub(super) fn new() -> Peer {
        Peer { manner: Manner::Healthy, link: None, acts: 0, held_back: Vec::new() }
    }
}

fn ping(payload: usize) -> Vec<u8> {
    let mut bytes = vec![0, payload as u8 + 1, 3];
    bytes.extend((0..payload).map(|at| at as u8));
    bytes
}

impl Kernel {
    pub(super) fn schedule(&mut self, at: Timestamp, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at.as_nanos(), self.sequence, event)));
    }

    pub(super) fn schedule_in_ms(&mut self, first: u64, last: u64, event: Event) {
        let micros = self.random.between(first * 1_000, last * 1_000);
        self.schedule(self.now() + Duration::from_micros(micros), event);
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Connect(peer) => self.begin(peer),
            Event::Act(peer, link) if self.peers[peer].link == Some(link) => self.act(peer, link),
            Event::Act(..) => {}
            Event::Unchoke(link) => {
                self.links[link].choked = false;
                self.touch(link);
            }
            Event::Upheaval => self.upheaval(),
        }
    }

    fn begin(&mut self, peer: usize) {
        if self.peers[peer].link.is_some() || self.stopping {
            return;
        }
        let manner = match self.stormy && self.random.per_mille(600) {
            true => self.random.pick(&MANNERS),
            false => Manner::Healthy,
        };
        let room = if manner == Manner::Deaf { 40 } else { usize::MAX };
        let link = self.connect(peer, room);
        self.peers[peer] = Peer { manner, link: Some(link), acts: 0, held_back: Vec::new() };
        self.act(peer, link);
    }

    /// For a moment the peer of a connection takes nothing.
    pub(super) fn choke(&mut self, link: usize) {
        self.links[link].choked = true;
        self.schedule_in_ms(1, 900, Event::Unchoke(link));
    }

    fn write(&mut self, peer: usize, bytes: &[u8]) {
        if self.partitioned {
            self.peers[peer].held_back.extend_from_slice(bytes);
            return;
        }
        let Some(link) = self.peers[peer].link else { return };
        let now = self.now();
        let mut all = std::mem::take(&mut self.peers[peer].held_back);
        all.extend_from_slice(bytes);
        if !all.is_empty() {
            self.links[link].account.arrived(all.len(), now);
            self.links[link].inbox.extend(all);
            self.touch(link);
        }
    }

    fn leave(&mut self, peer: usize, reset: bool) {
        let Some(link) = self.peers[peer].link.take() else { return };
        if reset {
            self.links[link].rst = true;
            self.links[link].inbox.clear();
            self.links[link].account.reset();
        } else {
            self.links[link].fin = true;
        }
        self.touch(link);
        self.schedule_in_ms(1, 4_000, Event::Connect(peer));
    }

    /// The server has closed or dropped a connection.
    pub(super) fn closed_by_server(&mut self, link: usize) {
        let peer = self.links[link].peer;
        if self.peers[peer].link == Some(link) {
            self.peers[peer].link = None;
            self.schedule_in_ms(1, 4_000, Event::Connect(peer));
        }
    }

    fn act(&mut self, peer: usize, link: usize) {
        if !self.stormy && self.peers[peer].manner != Manner::Healthy {
            self.leave(peer, true);
            return;
        }
        let acts = self.peers[peer].acts;
        self.peers[peer].acts += 1;
        let interval_ms = self.policy.heartbeat_interval.as_millis() as u64;
        let mut next_ms = (interval_ms - 50, interval_ms);
        match self.peers[peer].manner {
            Manner::Healthy => {
                let payload = if self.random.per_mille(300) { 9 } else { 0 };
                self.write(peer, &ping(payload));
            }
            Manner::Silent if acts < 2 => self.write(peer, &ping(0)),
            Manner::Silent | Manner::Mute => {}
            Manner::Dribbling => {
                self.write(peer, &ping(0)[acts as usize % 3..][..1]);
                next_ms = (1, 700);
            }
            Manner::HalfFrame => {
                let bytes = ping(20);
                self.write(peer, if acts == 0 { &bytes } else { &bytes[..7] });
                next_ms = if acts == 0 { next_ms } else { (60_000, 60_000) };
            }
            Manner::Garbage => self.write(peer, &[0, 9, 99, 1, 2, 3]),
            Manner::KindZero => self.write(peer, &[0, 1, 3, 0, 2, 0]),
            Manner::LengthZero => self.write(peer, &[0, 1, 3, 0, 0]),
            Manner::Oversize => self.write(peer, &[255, 255, 7]),
            Manner::Flooding => {
                let count = self.random.between(1, 40) as usize;
                self.write(peer, &ping(0).repeat(count));
                next_ms = (1, 300);
            }
            Manner::Deaf => {
                self.write(peer, &ping(0));
                self.write(peer, &[[0, 41, 7].as_slice(), &[5; 40]].concat());
                next_ms = (100, 1_500);
            }
            Manner::Talking => {
                let size = self.random.between(0, 200) as usize;
                let frame = [[0, size as u8 + 1, 7].as_slice(), &vec![acts as u8; size]].concat();
                self.write(peer, &frame);
                next_ms = (10, 900);
            }
            Manner::HalfClosing if acts == 0 => self.write(peer, &ping(3)),
            Manner::HalfClosing => {
                self.write(peer, &ping(0));
                self.leave(peer, false);
            }
            Manner::Resetting if acts == 0 => self.write(peer, &ping(3)),
            Manner::Resetting => self.leave(peer, true),
            Manner::ConnectClosing => {
                let reset = self.random.per_mille(500);
                self.leave(peer, reset);
            }
        }
        self.schedule_in_ms(next_ms.0, next_ms.1, Event::Act(peer, link));
    }

    fn upheaval(&mut self) {
        if self.partitioned {
            self.partitioned = false;
            for peer in 0..self.peers.len() {
                self.write(peer, &[]);
            }
        }
        if !self.stormy {
            return;
        }
        self.faults.upheavals += 1;
        match self.random.below(3) {
            0 => self.partitioned = true,
            1 => {
                for peer in 0..self.peers.len() {
                    if self.random.per_mille(700) {
                        self.leave(peer, true);
                    }
                }
            }
            _ => {
                for peer in 0..self.peers.len() {
                    self.schedule_in_ms(1, 2, Event::Connect(peer));
                }
            }
        }
        self.schedule_in_ms(1_000, 15_000, Event::Upheaval);
    }
}
