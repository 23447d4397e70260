//! What the ring engine does with each completion, and with each effect.

use super::connection::{Connection, Step};
use super::member::NOBODY;
use super::{MAIN, UringEngine};
use crate::engine::Arming;
use crate::mutants::{Mutant, is};
use crate::protocol::address::PeerAddress;
use crate::ring::{Completion, Op, RingFace, Tag};
use crate::session::SessionKey;
use crate::shard::{Effect, ReceiveEnd, Refusal, SendFailed};
use crate::sweep::Sweeper;
use crate::time::Timestamp;

/// The key of the session that a tag speaks of.
pub(super) fn key_of(tag: Tag) -> SessionKey {
    SessionKey { index: tag.index, generation: tag.generation }
}

pub(super) fn tag_of(op: Op, key: SessionKey) -> Tag {
    Tag::new(op, key.generation, key.index)
}

impl<S: Sweeper, R: RingFace> UringEngine<S, R> {
    pub(super) fn handle(
        &mut self,
        ring: usize,
        completion: Completion<R::Buffer>,
        now: Timestamp,
    ) {
        match completion.tag.op {
            Op::Receive => self.on_receive(ring, completion, now),
            Op::Poll => self.on_poll(&completion, now),
            Op::ReceiveOnce => self.on_receive_once(ring, completion, now),
            Op::Send => self.on_send(completion, now),
            Op::Accept => self.on_accept(ring, &completion, now),
            Op::Close => self.on_close(ring, completion.tag),
            Op::PeerName => self.on_peer_name(ring, &completion, now),
            Op::Wake => {
                self.woken = true;
                self.members[MAIN].ended();
                if !is(Mutant::WakeNotRearmed) {
                    self.listen_to_bell();
                }
            }
            // One that found nothing was overtaken by the end of its target.
            Op::Cancel => self.members[ring].ended(),
            Op::Connect | Op::ConnectSetup | Op::ResetSetup | Op::SendOwned => {
                debug_assert!(false, "a server opens no connections: {:?}", completion.tag);
            }
        }
    }

    fn on_receive(&mut self, ring: usize, completion: Completion<R::Buffer>, now: Timestamp) {
        let Completion { tag, result, more, buffer, .. } = completion;
        let key = key_of(tag);
        let had_bytes = buffer.is_some();
        if let Some(buffer) = buffer {
            let bytes = self.members[ring].ring.bytes(&buffer);
            self.shard.received(key, bytes, now);
            if !is(Mutant::BufferNotReturned) {
                self.members[ring].ring.release(buffer);
            }
        }
        if more {
            return;
        }
        let Some(connection) = self.shard.connection_mut(key) else {
            if !had_bytes {
                self.shard.count_stale();
            }
            return;
        };
        if std::mem::replace(&mut connection.armed, false) {
            self.members[ring].ended();
        }
        if connection.closing() {
            self.go_on_closing(key);
            return;
        }
        match result {
            1.. => {
                self.counters.receives_rearmed += 1;
                if !is(Mutant::RearmForgotten) {
                    self.arm(key);
                }
            }
            0 => self.shard.receive_ended(key, ReceiveEnd::Closed, now),
            error if error == -libc::ENOBUFS => {
                // No buffer was free. Armed at once it would fail again: wait for the buffers.
                self.counters.receives_starved += 1;
                if !is(Mutant::StarvedForgotten) {
                    self.members[ring].starved.push_back(key);
                }
            }
            _ => self.shard.receive_ended(key, ReceiveEnd::Failed, now),
        }
    }

    fn on_send(&mut self, completion: Completion<R::Buffer>, now: Timestamp) {
        let key = key_of(completion.tag);
        if let Some(connection) = self.shard.connection_mut(key)
            && connection.sending()
        {
            connection.set_sending(false);
            self.members[usize::from(connection.ring)].ended();
        }
        let result = usize::try_from(completion.result).map_err(|_| SendFailed);
        self.shard.sent(key, completion.outgoing, result, now);
        self.go_on_closing(key);
    }

    fn on_accept(&mut self, ring: usize, completion: &Completion<R::Buffer>, now: Timestamp) {
        let member = &mut self.members[ring];
        member.accept_ended(completion.tag);
        match completion.result {
            slot @ 0.. => {
                let slot = slot as u32;
                member.slot_taken(now, &mut self.counters);
                match self.shard.needs_addresses() {
                    true => member.ask_peer_name(slot, completion.tag.index),
                    false => self.open(ring, slot, completion.tag.index, None, now),
                }
            }
            error if error == -libc::ENFILE => {
                // The table was full: the kernel has accepted this client and dropped it.
                self.shard.refused(Refusal::RingFull);
                member.pause_accepting(now, &mut self.counters);
            }
            error if error == -libc::ECANCELED => {}
            error => {
                self.counters.accept_errors += 1;
                if !is_of_one_connection(-error) {
                    member.pause_accepting(now, &mut self.counters);
                }
            }
        }
        if !is(Mutant::AcceptNotRearmed) {
            self.members[ring].arm_listeners();
        }
    }

    /// The kernel has told from where the connection in a slot comes, or has not.
    fn on_peer_name(&mut self, ring: usize, completion: &Completion<R::Buffer>, now: Timestamp) {
        let name = self.members[ring].ring.take_peer_name(completion);
        let from = name.and_then(|name| PeerAddress::from_sockaddr(&*name));
        let Tag { index: slot, generation: listener, .. } = completion.tag;
        self.members[ring].ended();
        self.open(ring, slot, listener, from, now);
    }

    /// Makes a session of an accepted connection, or closes it.
    fn open(
        &mut self,
        ring: usize,
        slot: u32,
        listener: u32,
        from: Option<PeerAddress>,
        now: Timestamp,
    ) {
        let member = &mut self.members[ring];
        let protocol = member.protocol(listener);
        let connection = Connection::new(ring as u16, slot);
        match self.shard.opened_from(connection, protocol, from, now) {
            Ok(key) => self.arm(key),
            Err(_refusal) => member.close(slot, Tag::new(Op::Close, 0, NOBODY)),
        }
    }

    fn on_close(&mut self, ring: usize, tag: Tag) {
        if !is(Mutant::SlotNotFreed) {
            self.members[ring].slot_freed();
        }
        if tag.index != NOBODY && !is(Mutant::ReleaseForgotten) {
            self.shard.released(key_of(tag));
        }
    }

    /// Turns what the shard wants into submissions.
    pub(super) fn apply_effects(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        self.shard.take_effects(&mut effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { key, outgoing } => {
                    let Some(connection) = self.shard.connection_mut(key) else { continue };
                    connection.set_sending(true);
                    let member = &mut self.members[usize::from(connection.ring)];
                    member.begun();
                    member.ring.send(connection.slot, outgoing, tag_of(Op::Send, key));
                }
                Effect::Close { key } => self.begin_closing(key),
            }
        }
        self.effects = effects;
    }

    fn begin_closing(&mut self, key: SessionKey) {
        let Some(connection) = self.shard.connection_mut(key) else { return };
        connection.set_closing();
        if is(Mutant::CloseWithoutCancel) {
            connection.armed = false;
        }
        if is(Mutant::CloseWithoutWaiting) {
            connection.set_sending(false);
        }
        let member = &mut self.members[usize::from(connection.ring)];
        if connection.armed {
            let op = match self.tuning.arming {
                Arming::Receive => Op::Receive,
                Arming::Poll => Op::Poll,
            };
            member.cancel(tag_of(op, key), tag_of(Op::Cancel, key));
        }
        if connection.sending() {
            member.cancel_send(tag_of(Op::Send, key), tag_of(Op::Cancel, key));
        }
        self.go_on_closing(key);
    }

    /// Closes a connection that was given up, once nothing is in flight on it.
    pub(super) fn go_on_closing(&mut self, key: SessionKey) {
        let Some(connection) = self.shard.connection_mut(key) else { return };
        if connection.next_step() == Step::Close {
            let member = &mut self.members[usize::from(connection.ring)];
            member.close(connection.slot, tag_of(Op::Close, key));
        }
    }

    /// Has the kernel report what the peer sends, from now on.
    pub(super) fn arm(&mut self, key: SessionKey) {
        let Some(connection) = self.shard.connection_mut(key) else { return };
        if connection.armed || connection.closing() {
            return;
        }
        connection.armed = true;
        let member = &mut self.members[usize::from(connection.ring)];
        member.begun();
        match self.tuning.arming {
            Arming::Receive => {
                member.ring.receive_multishot(connection.slot, tag_of(Op::Receive, key));
            }
            Arming::Poll => member.ring.poll_multishot(connection.slot, tag_of(Op::Poll, key)),
        }
    }

    /// Arms receives that found no buffer, as many as there are buffers: what was handled since has
    /// given them back, and the enter that follows lets the kernel have them.
    pub(super) fn rearm_starved(&mut self, ring: usize) {
        for _ in 0..self.tuning.buffers {
            let Some(key) = self.members[ring].starved.pop_front() else { return };
            match self.tuning.arming {
                Arming::Receive => self.arm(key),
                Arming::Poll => self.read(key),
            }
            // There are bytes for it: they are not to wait until the ring that sleeps does so.
            self.members[ring].hasty |= !is(Mutant::StarvedLast);
        }
    }
}

/// Whether an accept has failed for a reason of the one connection that it was about
/// (`accept(2)`): the next may succeed at once.
fn is_of_one_connection(errno: i32) -> bool {
    let of_one = [
        libc::ECONNABORTED,
        libc::EPROTO,
        libc::ENETDOWN,
        libc::ENETUNREACH,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
        libc::ENOPROTOOPT,
        libc::EOPNOTSUPP,
        libc::ETIMEDOUT,
        libc::EINTR,
        libc::EAGAIN,
    ];
    of_one.contains(&errno)
}

const _: () = assert!(MAIN == 0, "the main ring is made first");
