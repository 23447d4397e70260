//! How connections wait for bytes by default: a multishot poll each, and a receive of what is there
//! whenever it fires.
//!
//! A poll that is armed costs the kernel 610 bytes less than a receive that is armed, and a
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
            connection.armed = false;
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
            member.hasty = true;
            member.ring.receive_once(connection.slot, tag_of(Op::ReceiveOnce, key));
        }
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
            _ if again || filled || unread => self.read(key),
            _ => {}
        }
    }
}
