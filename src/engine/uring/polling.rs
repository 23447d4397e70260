//! How connections wait for bytes by default: a multishot poll each, and a receive of what is there
//! whenever it fires.
//!
//! A poll that is armed costs the kernel 606 bytes less than a receive that is armed, and a
//! heartbeat one operation more: `docs/ENGINES.md` has the figures.
//!
//! Invariant: after a completion of the poll something reads until the socket is empty, or until
//! the connection is given up; so no byte stays behind unseen.

use super::UringEngine;
use super::completions::{key_of, tag_of};
use crate::mutants::{Mutant, is};
use crate::ring::{Completion, Op, RingFace};
use crate::session::SessionKey;
use crate::shard::ReceiveEnd;
use crate::sweep::Sweeper;
use crate::time::Timestamp;

/// What a poll says when the peer has closed its side, or the connection has failed.
const END_EVENTS: i32 = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as i32;

impl<S: Sweeper, R: RingFace> UringEngine<S, R> {
    pub(super) fn on_poll(&mut self, completion: &Completion<R::Buffer>, now: Timestamp) {
        let key = key_of(completion.tag);
        let Some(connection) = self.shard.connection_mut(key) else {
            self.shard.count_stale();
            return;
        };
        let ended = completion.result > 0 && completion.result & END_EVENTS != 0;
        if ended && !is(Mutant::EndForgotten) {
            connection.set_hanging_up();
        }
        if !completion.more {
            if std::mem::replace(&mut connection.armed, false) {
                self.members[usize::from(connection.ring)].ended();
            }
            if connection.closing() {
                self.go_on_closing(key);
                return;
            }
            if completion.result < 0 {
                self.shard.receive_ended(key, ReceiveEnd::Failed, now);
                return;
            }
            self.counters.receives_rearmed += 1;
            self.arm(key);
        }
        self.read(key);
    }

    /// Queues a receive of what is there.
    pub(super) fn read(&mut self, key: SessionKey) {
        let Some(connection) = self.shard.connection_mut(key) else { return };
        if connection.begin_reading() {
            let member = &mut self.members[usize::from(connection.ring)];
            member.begun();
            member.hasty = true;
            member.ring.receive_once(connection.slot, tag_of(Op::ReceiveOnce, key));
        }
    }

    /// The same for a connection that was read in this turn: now, or in the next turn. It has just
    /// shown life, so time may pass for it meanwhile.
    fn read_more(&mut self, ring: usize, key: SessionKey) {
        match self.members[ring].tired {
            true => {
                self.shard.note_unread(key, true);
                self.members[ring].put_off.push(key);
            }
            false => self.read(key),
        }
    }

    /// Goes on reading those that were put off.
    pub(super) fn read_put_off(&mut self, ring: usize) {
        self.members[ring].tired = false;
        let mut put_off = std::mem::take(&mut self.members[ring].put_off);
        for key in put_off.drain(..) {
            self.shard.note_unread(key, false);
            self.read(key);
        }
        self.members[ring].put_off = put_off;
    }

    pub(super) fn on_receive_once(
        &mut self,
        ring: usize,
        completion: Completion<R::Buffer>,
        now: Timestamp,
    ) {
        let Completion { tag, result, buffer, .. } = completion;
        let key = key_of(tag);
        if let Some(buffer) = buffer {
            let bytes = self.members[ring].ring.bytes(&buffer);
            if !bytes.is_empty() {
                self.shard.received(key, bytes, now);
            }
            self.members[ring].ring.release(buffer);
        }
        let Some(connection) = self.shard.connection_mut(key) else {
            self.shard.count_stale();
            return;
        };
        if connection.reading() {
            self.members[ring].ended();
        }
        let again = connection.end_reading();
        if connection.closing() {
            self.go_on_closing(key);
            return;
        }
        let unread = connection.hanging_up() && result > 0;
        // A full buffer: there may be more, for which the poll does not fire again.
        let filled = usize::try_from(result)
            .is_ok_and(|count| count == self.tuning.buffer_bytes as usize)
            && !is(Mutant::FullBufferForgotten);
        match -result {
            0 => {
                connection.set_ended();
                self.shard.receive_ended(key, ReceiveEnd::Closed, now);
            }
            libc::ENOBUFS => {
                self.counters.receives_starved += 1;
                self.members[ring].starved.push_back(key);
            }
            libc::EAGAIN if !again => {}
            error if error > 0 && error != libc::EAGAIN => {
                connection.set_ended();
                self.shard.receive_ended(key, ReceiveEnd::Failed, now);
            }
            _ if is(Mutant::ReadAgainForgotten) => {}
            _ if again || filled || unread => self.read_more(ring, key),
            _ => {}
        }
    }
}
