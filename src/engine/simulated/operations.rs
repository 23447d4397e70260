//! What the simulated kernel does with each operation, and what it asks of whoever queues one: the
//! engine's duties, from `docs/decisions/0002-closing-by-cancel.md` and `io_uring(7)`.

use std::time::Duration;

use super::kernel::{Cqe, Sending, Source, Sqe, Whereabouts};
use super::world::World;
use crate::limits::{ACCEPT_PAUSE, SLOT_HEADROOM_DIVISOR};
use crate::outgoing::Outgoing;
use crate::ring::{Name, Op, Tag};
use crate::session::SessionKey;
use crate::time::Timestamp;

/// The index in the tag of the close of a connection that never became a session.
pub(super) const NOBODY: u32 = u32::MAX;

const END_EVENTS: i32 = (libc::POLLRDHUP | libc::POLLIN) as i32;

impl World {
    /// Looks whether the engine may ask for this now.
    pub(super) fn judge(&mut self, ring: usize, sqe: &Sqe) {
        let (slot, tag) = match sqe {
            Sqe::Accept { tag } | Sqe::ReadWake { tag } => (None, *tag),
            Sqe::Receive { slot, tag }
            | Sqe::ReceiveOnce { slot, tag }
            | Sqe::Poll { slot, tag }
            | Sqe::PeerName { slot, tag }
            | Sqe::Send { slot, tag, .. }
            | Sqe::Close { slot, tag } => (Some(*slot), *tag),
            Sqe::Cancel { target, tag } => {
                self.nameless += 1;
                self.note_given_up(ring, *target);
                self.note(&[self.now().as_nanos(), tag.to_bits()]);
                return;
            }
        };
        self.note(&[self.now().as_nanos(), tag.to_bits(), slot.map_or(u64::MAX, u64::from)]);
        self.nameless += u64::from(tag.index == NOBODY);
        if tag.index != NOBODY && !self.rings[ring].alive.insert(tag.to_bits()) {
            self.violate(format!("{tag:?} is queued while it is in flight"));
        }
        // What was collected together with the failure may be answered before it is seen.
        let now = self.now();
        let rests = |at: Timestamp| at < now && now < at + ACCEPT_PAUSE;
        if tag.op == Op::Accept && self.rings[ring].exhausted_at.is_some_and(rests) {
            self.violate("accepting goes on at once after descriptors had run out".to_owned());
        }
        if let Some(slot) = slot {
            self.judge_slot(ring, slot, tag, sqe);
        }
    }

    fn judge_slot(&mut self, ring: usize, slot: u32, tag: Tag, sqe: &Sqe) {
        let state = &mut self.rings[ring].slots[slot as usize];
        let Some(peer) = state.peer else {
            self.violate(format!("{tag:?} on slot {slot}, which is not open"));
            return;
        };
        if tag.op == Op::PeerName {
            state.in_flight += 1;
            if state.owner.is_some() || !self.gate.asks_names() {
                self.violate(format!("{tag:?}: he is known, or nobody has to be asked"));
            }
            return;
        }
        let owner = *state.owner.get_or_insert((tag.index, tag.generation));
        let (in_flight, is_closing) = (state.in_flight, state.closing);
        self.judge_gate(peer, tag.index != NOBODY);
        let mut wrong = Vec::new();
        if owner != (tag.index, tag.generation) {
            wrong.push("another session's slot is used");
        }
        if is_closing {
            wrong.push("a slot is used after its close was queued");
        }
        if tag.op == Op::Close {
            if in_flight > 0 {
                wrong.push("a slot is closed while something is in flight on it");
            }
            self.rings[ring].slots[slot as usize].closing = true;
            if tag.index != NOBODY {
                self.closing_begins(peer);
                let key = SessionKey { index: tag.index, generation: tag.generation };
                self.closes.push((key, peer));
            }
        } else {
            self.rings[ring].slots[slot as usize].in_flight += 1;
            self.peers[peer].key =
                Some(SessionKey { index: tag.index, generation: tag.generation });
            self.indices_end = self.indices_end.max(tag.index + 1);
        }
        for what in wrong {
            self.violate(format!("{what}: {tag:?}, slot {slot} of ring {ring}"));
        }
        if let Sqe::Send { outgoing, .. } = sqe {
            self.judge_send(peer, outgoing.as_bytes());
        }
    }

    /// A cancellation is how the engine begins to close.
    fn note_given_up(&mut self, ring: usize, target: Tag) {
        if target.op == Op::Accept {
            return;
        }
        let owner = Some((target.index, target.generation));
        let slot = self.rings[ring].slots.iter().find(|slot| slot.owner == owner);
        if let Some(peer) = slot.and_then(|slot| slot.peer) {
            self.closing_begins(peer);
        }
    }

    pub(super) fn submit(&mut self, ring: usize, sqe: Sqe) {
        match sqe {
            Sqe::Accept { tag } => {
                let listener = &mut self.rings[ring].listeners[tag.index as usize];
                listener.armed.push_back(tag);
                if !listener.backlog.is_empty() {
                    self.run_source(ring, Source::Accept(tag.index));
                }
            }
            Sqe::Receive { slot, tag } => self.submit_receive(ring, slot, tag),
            Sqe::ReceiveOnce { slot, tag } => self.receive_once(ring, slot, tag),
            Sqe::Poll { slot, tag } => {
                self.rings[ring].slots[slot as usize].poll = Some(tag);
                self.run_source(ring, Source::Poll(slot));
            }
            Sqe::Send { slot, tag, outgoing } => {
                let whole = matches!(outgoing, Outgoing::Static(_));
                let now = self.now();
                let state = &mut self.rings[ring].slots[slot as usize];
                if let Some(peer) = state.peer {
                    self.peers[peer].send_begun = now;
                    self.peers[peer].blocked_since = (!whole).then_some(now);
                }
                state.sending = Some(Sending { tag, outgoing, sent: 0, whole });
                self.run_source(ring, Source::Send(slot));
            }
            Sqe::PeerName { slot, tag } => self.tell_name(ring, slot, tag),
            Sqe::Close { slot, tag } => self.close(ring, slot, tag),
            Sqe::Cancel { target, tag } => self.cancel(ring, target, tag),
            Sqe::ReadWake { tag } => self.wait_for_bell(tag),
        }
    }

    pub(super) fn run_source(&mut self, ring: usize, source: Source) {
        match source {
            Source::Accept(listener) => self.accept(ring, listener),
            Source::Receive(slot) => self.receive(ring, slot),
            Source::Poll(slot) => self.poll(ring, slot),
            Source::Send(slot) => self.send(ring, slot),
            Source::Wake => self.answer_wake(),
        }
    }

    fn accept(&mut self, ring: usize, listener: u32) {
        loop {
            let place = &mut self.rings[ring].listeners[listener as usize];
            let Some(&tag) = place.armed.front() else { return };
            let Some(&peer) = place.backlog.front() else { return };
            let failed = if self.strikes("EMFILE", self.rates.accept_fails) {
                Some(libc::EMFILE)
            } else if self.strikes("ECONNABORTED", self.rates.accept_fails) {
                Some(libc::ECONNABORTED)
            } else if self.rings[ring].free_slot().is_none() {
                self.fault("ENFILE");
                Some(libc::ENFILE)
            } else {
                None
            };
            if let Some(errno) = failed {
                self.rings[ring].listeners[listener as usize].armed.pop_front();
                self.post(ring, Cqe::last(tag, -errno));
                if errno == libc::EMFILE {
                    // Whoever waits has roused one accept, and that has failed.
                    return;
                }
                self.rings[ring].listeners[listener as usize].backlog.pop_front();
                self.disconnect(peer);
                continue;
            }
            let Some(slot) = self.rings[ring].free_slot() else { return };
            let state = &mut self.rings[ring];
            state.listeners[listener as usize].backlog.pop_front();
            state.slots[slot as usize].peer = Some(peer);
            self.peers[peer].place = Some((ring, slot));
            state.listeners[listener as usize].armed.pop_front();
            let cqe = Cqe::last(tag, slot as i32);
            self.post(ring, Cqe { slot: Some(slot), peer: Some(peer), ..cqe });
        }
    }

    /// Of a connection that was reset the kernel knows no name any more.
    fn tell_name(&mut self, ring: usize, slot: u32, tag: Tag) {
        let Some(peer) = self.rings[ring].slots[slot as usize].peer else { return };
        let fails = self.peers[peer].reset || self.strikes("ENOTCONN", self.rates.accept_fails);
        let result = if fails { -libc::ENOTCONN } else { size_of::<Name>() as i32 };
        let cqe = Cqe { slot: Some(slot), peer: Some(peer), ..Cqe::last(tag, result) };
        self.post_sooner_or_later(ring, cqe);
    }

    fn submit_receive(&mut self, ring: usize, slot: u32, tag: Tag) {
        let state = &mut self.rings[ring];
        if state.free_buffer_exists() {
            state.slots[slot as usize].receive = Some(tag);
            self.receive(ring, slot);
            return;
        }
        self.fault("ENOBUFS");
        let peer = self.rings[ring].slots[slot as usize].peer;
        let cqe = Cqe::last(tag, -libc::ENOBUFS);
        self.post(ring, Cqe { slot: Some(slot), peer, ..cqe });
    }

    fn receive(&mut self, ring: usize, slot: u32) {
        loop {
            let place = &self.rings[ring].slots[slot as usize];
            let (Some(tag), Some(peer)) = (place.receive, place.peer) else { return };
            let about = Cqe { slot: Some(slot), peer: Some(peer), ..Cqe::last(tag, 0) };
            let client = &self.peers[peer];
            let is_empty = client.arrived == 0;
            let end = match (is_empty || client.reset, client.reset, client.fin) {
                (false, ..) => None,
                (true, true, _) => Some(-libc::ECONNRESET),
                (true, false, true) => Some(0),
                (true, false, false) => return,
            };
            if let Some(result) = end {
                self.rings[ring].slots[slot as usize].receive = None;
                self.post(ring, Cqe { result, ..about });
                return;
            }
            let Some(buffer) = self.rings[ring].free_buffer() else {
                self.fault("ENOBUFS");
                self.rings[ring].slots[slot as usize].receive = None;
                self.post(ring, Cqe { result: -libc::ENOBUFS, ..about });
                return;
            };
            let most = self.sizes.buffer_bytes as usize;
            let partial = self.strikes("partial read", self.rates.partial_read);
            let most = if partial { self.random.below(most) + 1 } else { most };
            let mut bytes = self.spare_bytes();
            self.peers[peer].read(most, &mut bytes);
            self.unread -= bytes.len();
            let more = self.goes_on(ring);
            if !more {
                self.rings[ring].slots[slot as usize].receive = None;
            }
            let result = bytes.len() as i32;
            self.post(ring, Cqe { result, more, buffer: Some((buffer, bytes)), ..about });
        }
    }

    fn receive_once(&mut self, ring: usize, slot: u32, tag: Tag) {
        let Some(peer) = self.rings[ring].slots[slot as usize].peer else { return };
        let about = Cqe { slot: Some(slot), peer: Some(peer), ..Cqe::last(tag, 0) };
        let Some(picked) = self.rings[ring].free_buffer() else {
            self.fault("ENOBUFS");
            self.post(ring, Cqe { result: -libc::ENOBUFS, ..about });
            return;
        };
        let mut bytes = self.spare_bytes();
        let client = &mut self.peers[peer];
        let (result, buffer) = if client.reset {
            (-libc::ECONNRESET, None)
        } else if client.arrived > 0 {
            client.read(self.sizes.buffer_bytes as usize, &mut bytes);
            self.unread -= bytes.len();
            (bytes.len() as i32, Some((picked, bytes)))
        } else if client.fin {
            let with_buffer = self.strikes("end with a buffer", 300);
            (0, with_buffer.then(|| (picked, Vec::new())))
        } else {
            (-libc::EAGAIN, None)
        };
        if buffer.is_none() {
            self.rings[ring].buffers[usize::from(picked)] = Whereabouts::Free;
        }
        self.post(ring, Cqe { result, buffer, ..about });
    }

    fn poll(&mut self, ring: usize, slot: u32) {
        let place = &self.rings[ring].slots[slot as usize];
        let (Some(tag), Some(peer)) = (place.poll, place.peer) else { return };
        let client = &self.peers[peer];
        let mut mask = if client.arrived == 0 { 0 } else { i32::from(libc::POLLIN) };
        if client.fin {
            mask |= END_EVENTS;
        }
        if client.reset {
            mask |= END_EVENTS | i32::from(libc::POLLERR | libc::POLLHUP);
        }
        if mask == 0 {
            return;
        }
        let more = self.goes_on(ring);
        if !more {
            self.rings[ring].slots[slot as usize].poll = None;
        }
        let cqe = Cqe::last(tag, mask);
        self.post(ring, Cqe { more, slot: Some(slot), peer: Some(peer), ..cqe });
    }

    fn send(&mut self, ring: usize, slot: u32) {
        let place = &mut self.rings[ring].slots[slot as usize];
        let Some(peer) = place.peer else { return };
        let Some(mut sending) = place.sending.take() else { return };
        if self.peers[peer].reset {
            let result = if sending.sent > 0 { sending.sent as i32 } else { -libc::EPIPE };
            self.end_send(ring, slot, sending, result);
            return;
        }
        let left = sending.outgoing.len() - sending.sent;
        let mut count = left.min(self.peers[peer].room);
        if !sending.whole && count > 1 && self.strikes("short send", self.rates.short_send) {
            count = self.random.below(count - 1) + 1;
        }
        self.take(peer, count);
        sending.sent += count;
        if count == left || !sending.whole && count > 0 {
            let result = sending.sent as i32;
            self.end_send(ring, slot, sending, result);
            return;
        }
        self.fault("send blocked");
        self.rings[ring].slots[slot as usize].sending = Some(sending);
    }

    fn end_send(&mut self, ring: usize, slot: u32, sending: Sending, result: i32) {
        let peer = self.rings[ring].slots[slot as usize].peer;
        let Sending { tag, outgoing, .. } = sending;
        let cqe = Cqe { outgoing: Some(outgoing), ..Cqe::last(tag, result) };
        self.post_sooner_or_later(ring, Cqe { slot: Some(slot), peer, ..cqe });
    }

    fn cancel(&mut self, ring: usize, target: Tag, tag: Tag) {
        let found = self.find(ring, target);
        let first = self.random.chance(500);
        let mut result = if found { 0 } else { -libc::ENOENT };
        if !found {
            self.fault("cancel found nothing");
        }
        if found && target.op == Op::Send && self.strikes("EALREADY", 200) {
            result = -libc::EALREADY;
        }
        if first {
            self.post(ring, Cqe::last(tag, result));
        }
        if found {
            self.end_by_cancel(ring, target);
        }
        if !first {
            self.post_sooner_or_later(ring, Cqe::last(tag, result));
        }
    }

    fn slot_of(&self, ring: usize, target: Tag) -> Option<u32> {
        let owner = Some((target.index, target.generation));
        self.rings[ring].slots.iter().position(|slot| slot.owner == owner).map(|slot| slot as u32)
    }

    fn find(&self, ring: usize, target: Tag) -> bool {
        if target.op == Op::Accept {
            return self.rings[ring].listeners[target.index as usize].armed.contains(&target);
        }
        let Some(slot) = self.slot_of(ring, target) else { return false };
        let place = &self.rings[ring].slots[slot as usize];
        match target.op {
            Op::Receive => place.receive == Some(target),
            Op::Poll => place.poll == Some(target),
            Op::Send => place.sending.as_ref().is_some_and(|sending| sending.tag == target),
            _ => false,
        }
    }

    fn end_by_cancel(&mut self, ring: usize, target: Tag) {
        if target.op == Op::Accept {
            let armed = &mut self.rings[ring].listeners[target.index as usize].armed;
            armed.retain(|tag| *tag != target);
            self.post(ring, Cqe::last(target, -libc::ECANCELED));
            return;
        }
        let Some(slot) = self.slot_of(ring, target) else { return };
        let place = &mut self.rings[ring].slots[slot as usize];
        let peer = place.peer;
        if target.op == Op::Send {
            let Some(sending) = place.sending.take() else { return };
            let sent = sending.sent as i32;
            self.end_send(ring, slot, sending, if sent > 0 { sent } else { -libc::ECANCELED });
            return;
        }
        place.receive = None;
        place.poll = None;
        let cqe = Cqe { slot: Some(slot), peer, ..Cqe::last(target, -libc::ECANCELED) };
        self.post_sooner_or_later(ring, cqe);
    }

    /// The slot is free at once; that the close has ended is learnt in a later turn, so that the
    /// oracle can still ask the session for its reason.
    fn close(&mut self, ring: usize, slot: u32, tag: Tag) {
        let state = &mut self.rings[ring];
        let place = std::mem::take(&mut state.slots[slot as usize]);
        state.last_freed = Some(slot);
        state.ready.retain(|source| {
            let (Source::Receive(of) | Source::Poll(of) | Source::Send(of)) = source else {
                return true;
            };
            *of != slot
        });
        if let Some(peer) = place.peer {
            self.disconnect(peer);
        }
        self.closing_completions.push((ring, Cqe { peer: place.peer, ..Cqe::last(tag, 0) }));
    }

    /// The server's side of a connection has gone.
    fn disconnect(&mut self, peer: usize) {
        self.unread -= std::mem::take(&mut self.peers[peer].arrived);
        self.peers[peer].place = None;
        self.peers[peer].closed = true;
        let delay = Duration::from_micros(self.peers[peer].latency_us);
        self.after(delay, super::world::Event::Gone(peer));
    }

    /// The closes of the last turn have ended.
    pub(super) fn end_closes(&mut self) {
        for (ring, cqe) in std::mem::take(&mut self.closing_completions) {
            self.post_sooner_or_later(ring, cqe);
        }
    }

    /// Whoever died before he was accepted is accepted no more.
    pub(super) fn forget_dead_who_wait(&mut self) {
        let queues = self.rings.iter_mut().flat_map(|ring| &mut ring.listeners);
        for listening in queues {
            listening.backlog.retain(|&peer| !self.peers[peer].dead);
        }
    }

    /// Operations whose last completion the engine has not collected.
    pub(super) fn in_flight(&self) -> u64 {
        self.nameless + self.rings.iter().map(|ring| ring.alive.len() as u64).sum::<u64>()
    }

    /// Whether somebody waits to be accepted by a ring that has room for him.
    pub(super) fn anybody_waits(&self) -> bool {
        self.rings.iter().any(|ring| {
            let free = ring.slots.iter().filter(|slot| slot.peer.is_none()).count();
            let kept_free = ring.slots.len() / SLOT_HEADROOM_DIVISOR as usize + 3;
            let waiting = ring.listeners.iter().any(|listening| !listening.backlog.is_empty());
            waiting && free > kept_free
        })
    }

    /// Counts where the buffers of a ring are: those that neither side has are lost.
    pub(super) fn buffers_astray(&self) -> usize {
        let places = self.rings.iter().flat_map(|ring| &ring.buffers);
        places.filter(|place| !matches!(place, Whereabouts::Free | Whereabouts::Released)).count()
    }
}
