//! What the simulated kernel does when a ring is entered: it accepts, receives and reports.

use super::kernel::{Kernel, NONE};
use super::ring::Loan;
use crate::ring::{Completion, Op, Tag};

impl Kernel {
    pub(super) fn run_deferred(&mut self, ring: usize) {
        if ring == 0 && self.bell && self.rings[0].wake.is_some() {
            self.bell = false;
            if let Some(tag) = self.rings[0].wake.take() {
                self.post(0, NONE, tag, 8, false);
            }
        }
        self.accept(ring);
        while !self.rings[ring].dirty.is_empty() {
            if !self.rings[ring].ready.is_empty() && self.chance(100) {
                self.faults.late += 1;
                return;
            }
            let at = self.random.below(self.rings[ring].dirty.len() as u64) as usize;
            let link = self.rings[ring].dirty.swap_remove(at);
            self.links[link].dirty = false;
            self.process(link);
        }
    }

    fn accept(&mut self, ring: usize) {
        while let Some(tag) = self.rings[ring].accept {
            let Some(link) = self.rings[ring].backlog.pop_front() else { return };
            let more = !self.chance(50);
            let free = self.rings[ring].slots.iter().position(Option::is_none);
            let result = if self.chance(20) {
                self.faults.accepts_failed += 1;
                -self.random.pick(&[libc::ECONNABORTED, libc::EMFILE, libc::ENOMEM])
            } else {
                free.map_or(-libc::ENFILE, |slot| slot as i32)
            };
            match u32::try_from(result) {
                Ok(slot) => {
                    self.rings[ring].slots[slot as usize] = Some(link);
                    self.links[link].slot = Some(slot);
                }
                Err(_) => {
                    self.faults.table_full += u64::from(result == -libc::ENFILE);
                    self.links[link].closed = true;
                    self.closed_by_server(link);
                }
            }
            let more = more && result >= 0;
            if !more {
                self.rings[ring].accept = None;
            }
            self.post(ring, link, tag, result, more);
        }
    }

    /// Looks after a connection to which something has happened.
    pub(super) fn process(&mut self, number: usize) {
        self.go_on_sending(number);
        let link = &self.links[number];
        let Some(tag) = link.armed else { return };
        let ends = link.fin || link.rst;
        if link.inbox.is_empty() && !ends {
            return;
        }
        if tag.op == Op::Receive {
            self.receive(number, tag, true);
            return;
        }
        let mut events = libc::POLLIN as i32;
        events |= if ends { libc::POLLRDHUP as i32 } else { 0 };
        let more = !self.chance(50);
        if !more {
            self.faults.multishots_ended += 1;
            self.links[number].armed = None;
        }
        self.post(self.links[number].ring, number, tag, events, more);
    }

    /// Receives what is there: for a multishot all of it, else at most one buffer full.
    pub(super) fn receive(&mut self, number: usize, tag: Tag, multishot: bool) {
        let ring = self.links[number].ring;
        loop {
            let starved = self.rings[ring].lent >= u32::from(self.tuning.buffers);
            let whole = !self.chance(100);
            let most = if whole { u64::from(self.tuning.buffer_bytes) } else { 1 };
            let ends = multishot && self.chance(50);
            let link = &mut self.links[number];
            let (result, bytes) = if link.rst {
                (-libc::ECONNRESET, None)
            } else if link.inbox.is_empty() {
                match (link.fin, multishot) {
                    (true, _) => (0, None),
                    (false, true) => return,
                    (false, false) => (-libc::EAGAIN, None),
                }
            } else if starved {
                self.faults.starved += 1;
                (-libc::ENOBUFS, None)
            } else {
                // One that polls is not told again of what a short receive leaves.
                let most =
                    if multishot { most as usize } else { self.tuning.buffer_bytes as usize };
                let count = link.inbox.len().min(most);
                (count as i32, Some(link.inbox.drain(..count).collect::<Vec<u8>>()))
            };
            let more = multishot && result > 0 && !ends;
            self.faults.multishots_ended += u64::from(ends && result > 0);
            if multishot && !more {
                self.links[number].armed = None;
            }
            if bytes.is_some() {
                self.rings[ring].lent += 1;
                self.rings[ring].held += 1;
            }
            let buffer = bytes.map(Loan);
            let completion = Completion { tag, result, more, buffer, outgoing: None };
            self.rings[ring].ready.push_back((number, completion));
            if !more {
                return;
            }
        }
    }
}
