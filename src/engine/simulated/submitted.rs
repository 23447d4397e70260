//! What the simulated kernel does with each submission.

use super::kernel::{Kernel, Link, NONE, Request, Sending};
use crate::outgoing::Outgoing;
use crate::ring::{Completion, Op, Tag};

impl Kernel {
    pub(super) fn execute(&mut self, ring: usize, request: Request) {
        match request {
            Request::Accept { tag } => self.rings[ring].accept = Some(tag),
            Request::Wake { tag } => self.rings[ring].wake = Some(tag),
            Request::Arm { slot, tag } => {
                let Some(link) = self.rings[ring].slots[slot as usize] else { return };
                if self.links[link].armed.replace(tag).is_some() {
                    self.violated(format!("{tag:?} armed twice"));
                }
                self.touch(link);
            }
            Request::ReceiveOnce { slot, tag } => {
                let Some(link) = self.rings[ring].slots[slot as usize] else { return };
                self.receive(link, tag, false);
            }
            Request::Send { slot, outgoing, tag } => {
                let Some(link) = self.rings[ring].slots[slot as usize] else { return };
                let since = self.now();
                let sending = Sending { tag, outgoing, sent: 0, since, seen_at: None };
                self.links[link].sending = Some(sending);
                if self.chance(30) {
                    self.faults.choked += 1;
                    self.choke(link);
                }
                self.go_on_sending(link);
            }
            Request::Cancel { target, tag } => self.cancel(ring, target, tag),
            Request::Close { slot, tag } => self.close(ring, slot, tag),
        }
    }

    fn close(&mut self, ring: usize, slot: u32, tag: Tag) {
        let Some(link) = self.rings[ring].slots[slot as usize].take() else { return };
        let Link { armed, writing, reading, .. } = &self.links[link];
        if armed.is_some() || *writing > 0 || *reading > 0 {
            self.violated(format!("{tag:?}: slot {slot} closed with something in flight"));
        }
        self.links[link].closed = true;
        self.links[link].slot = None;
        self.post(ring, link, tag, 0, false);
        self.closed_by_server(link);
    }

    fn cancel(&mut self, ring: usize, target: Tag, tag: Tag) {
        if target.op == Op::Accept {
            let result = match self.rings[ring].accept.take() {
                Some(accept) => {
                    self.post(ring, NONE, accept, -libc::ECANCELED, false);
                    0
                }
                None => -libc::ENOENT,
            };
            self.post(ring, NONE, tag, result, false);
            return;
        }
        if let Some(link) = self.owner(ring, target).filter(|_| self.random.per_mille(200)) {
            self.faults.overtaken += 1;
            self.process(link);
        }
        let Some(link) = self.owner(ring, target) else {
            self.post(ring, NONE, tag, -libc::ENOENT, false);
            return;
        };
        let late = self.chance(100);
        self.post(ring, link, tag, if late { -libc::EALREADY } else { 0 }, false);
        if self.links[link].armed == Some(target) {
            self.links[link].armed = None;
            self.post(ring, link, target, -libc::ECANCELED, false);
        } else {
            self.end_send(link, Some(-libc::ECANCELED));
        }
    }

    /// Ends the send in flight: with what was sent, or with `error` if that is nothing.
    fn end_send(&mut self, link: usize, error: Option<i32>) {
        let Link { ring, sending, .. } = &mut self.links[link];
        let Some(Sending { tag, outgoing, sent, .. }) = sending.take() else { return };
        let result = error.filter(|_| sent == 0).unwrap_or(sent as i32);
        let outgoing = (!matches!(outgoing, Outgoing::Static(_))).then_some(outgoing);
        let completion = Completion { tag, result, more: false, buffer: None, outgoing };
        self.rings[*ring].ready.push_back((link, completion));
        self.links[link].account.sent_whole = error.is_none();
    }

    pub(super) fn go_on_sending(&mut self, number: usize) {
        let limit = match self.chance(50) {
            true => self.random.between(1, 4) as usize,
            false => usize::MAX,
        };
        let link = &mut self.links[number];
        let Some(sending) = &mut link.sending else { return };
        if link.rst {
            self.end_send(number, Some(-libc::ECONNRESET));
            return;
        }
        if link.choked || link.room == 0 {
            return;
        }
        let whole = matches!(sending.outgoing, Outgoing::Static(_));
        let bytes = &sending.outgoing.as_bytes()[sending.sent..];
        let count = bytes.len().min(link.room).min(if whole { usize::MAX } else { limit });
        let right = link.account.wrote(&bytes[..count]);
        sending.sent += count;
        link.room = link.room.saturating_sub(if link.room == usize::MAX { 0 } else { count });
        let complete = sending.sent == sending.outgoing.len();
        self.faults.short_sends += u64::from(!complete);
        if complete {
            self.end_send(number, None);
        } else if !whole {
            self.end_send(number, Some(0));
        }
        if !right {
            let account =
                format!("connection {number}: wrong bytes: {:?}", self.links[number].account);
            self.violated(account);
        }
    }
}
