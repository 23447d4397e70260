//! What goes out to a session: replies to heartbeats from static memory, everything else from a
//! bounded queue; one send in flight.
//!
//! Invariant: `pongs_unanswered` = replies in flight + replies in the outbox + `pongs_pending`, and
//! the pending ones go out after all that is in the outbox.

use std::sync::Arc;

use super::context::Context;
use super::ping::ping;
use super::pongs::pongs;
use super::stall::list_sender;
use super::{Activity, CloseReason, Counters, Effect, PushDrop, Shard};
use crate::limits::{PENDING_PONGS_MAX, SMALL_BUFFER_POOL_MAX};
use crate::mutants::{Mutant, is};
use crate::outgoing::{Outgoing, SMALL_BUFFER_BYTES, SmallBuffer};
use crate::protocol::Protocol;
use crate::session::{Item, Phase, Sending, ServerPing, Session, SessionKey};
use crate::sweep::Sweeper;
use crate::time::Timestamp;

/// Small buffers for reuse, so that a heartbeat with a payload allocates nothing either.
#[derive(Default)]
pub(super) struct BufferPool {
    free: Vec<SmallBuffer>,
}

impl BufferPool {
    /// Lays out `length` bytes by `write`, in a buffer of the pool if they fit.
    pub(super) fn write(&mut self, length: usize, write: impl FnOnce(&mut [u8])) -> Outgoing {
        if length <= SMALL_BUFFER_BYTES {
            let mut buffer = self.take();
            write(&mut buffer[..length]);
            return Outgoing::small(buffer, length);
        }
        // Laid out where it stays: a large message is copied once.
        let mut message: Arc<[u8]> = std::iter::repeat_n(0, length).collect();
        if let Some(bytes) = Arc::get_mut(&mut message) {
            write(bytes);
        }
        Outgoing::shared(message)
    }

    fn take(&mut self) -> SmallBuffer {
        self.free.pop().unwrap_or_else(|| Box::new([0; SMALL_BUFFER_BYTES]))
    }

    fn give_back(&mut self, outgoing: Outgoing) {
        if let Outgoing::Small { buffer, .. } = outgoing
            && self.free.len() < SMALL_BUFFER_POOL_MAX
        {
            self.free.push(buffer);
        }
    }
}

/// Counts a heartbeat that is to be answered.
///
/// # Errors
/// If more than [`PENDING_PONGS_MAX`] wait already.
fn note_heartbeat<C>(
    session: &mut Session<C>,
    context: &mut Context<'_>,
) -> Result<(), CloseReason> {
    session.pongs_unanswered += 1;
    context.counters.heartbeats_pending += 1;
    let counted = session.pongs_unanswered + u8::from(is(Mutant::FloodOffByOne));
    if counted > PENDING_PONGS_MAX && !is(Mutant::FloodBoundMissed) {
        return Err(CloseReason::PingFlood);
    }
    Ok(())
}

/// Queues the reply to a heartbeat without a payload: static bytes, sent together with others.
///
/// # Errors
/// If more than [`PENDING_PONGS_MAX`] wait already.
pub(super) fn queue_static_pong<C>(
    session: &mut Session<C>,
    context: &mut Context<'_>,
) -> Result<(), CloseReason> {
    note_heartbeat(session, context)?;
    session.pongs_pending += 1;
    Ok(())
}

/// Queues the reply to a heartbeat, made for it.
///
/// # Errors
/// If more than [`PENDING_PONGS_MAX`] wait already, or the queue is full.
pub(super) fn queue_pong<C>(
    session: &mut Session<C>,
    outgoing: Outgoing,
    context: &mut Context<'_>,
) -> Result<(), CloseReason> {
    note_heartbeat(session, context)?;
    push_item(session, Item { outgoing, pongs: 1 }, context)
}

/// Queues what answers no heartbeat.
///
/// # Errors
/// If the queue is full.
pub(super) fn queue_message<C>(
    session: &mut Session<C>,
    outgoing: Outgoing,
    context: &mut Context<'_>,
) -> Result<(), CloseReason> {
    push_item(session, Item { outgoing, pongs: 0 }, context)
}

/// Sends at once if nothing else is being sent or waits. Otherwise appends to the outbox, behind
/// the replies that were pending before; the first item always fits, whatever its size.
fn push_item<C>(
    session: &mut Session<C>,
    item: Item,
    context: &mut Context<'_>,
) -> Result<(), CloseReason> {
    if !session.has_output() {
        session.sending = Sending::Item { pongs: item.pongs };
        list_sender(session, context.key, context.senders);
        context.effects.push(Effect::Send { key: context.key, outgoing: item.outgoing });
        return Ok(());
    }
    let pending = std::mem::take(&mut session.pongs_pending);
    let outbox = session.outbox.get_or_insert_default();
    if pending > 0 {
        let bytes = pongs(session.protocol, pending, 0);
        outbox.push(Item { outgoing: Outgoing::Static(bytes), pongs: pending });
    }
    let queued_bytes = outbox.queued_bytes();
    let full =
        queued_bytes > 0 && queued_bytes + item.outgoing.len() > context.policy.send_queue_bytes;
    if full && !is(Mutant::QueueBoundMissed) {
        return Err(CloseReason::SendQueueFull);
    }
    outbox.push(item);
    context.counters.send_queue_bytes += (outbox.queued_bytes() - queued_bytes) as u64;
    Ok(())
}

impl<S: Sweeper, C> Shard<S, C> {
    /// The send that an [`Effect::Send`] asked for has ended: with a number of bytes, or not at
    /// all. `outgoing` is what was sent, unless it was static.
    pub fn sent(
        &mut self,
        key: SessionKey,
        outgoing: Option<Outgoing>,
        result: Result<usize, SendFailed>,
        now: Timestamp,
    ) {
        self.latest = now;
        let Some(session) = self.sessions.get_mut(key) else {
            self.counters.stale_events += 1;
            return;
        };
        let sending = std::mem::replace(&mut session.sending, Sending::Nothing);
        let push = outgoing.as_ref().and_then(Outgoing::push_id);
        let sent_bytes = result.unwrap_or(0);
        self.counters.bytes_sent += sent_bytes as u64;
        let rest = match sending {
            Sending::Pongs { count, skip } => {
                rest_of_pongs(session.protocol, count, skip, sent_bytes)
            }
            Sending::Ping { skip } => rest_of_ping(session.protocol, skip, sent_bytes),
            Sending::Item { .. } => outgoing.and_then(|mut outgoing| {
                outgoing.advance(sent_bytes);
                if outgoing.is_empty() {
                    self.buffers.give_back(outgoing);
                    return None;
                }
                Some(outgoing)
            }),
            Sending::Nothing => None,
        };
        if session.phase == Phase::Closing || result.is_err() {
            let answered = rest.is_none() && result.is_ok();
            let reason = match session.phase {
                Phase::Closing => session.parting,
                Phase::Flushing if session.parting != CloseReason::PeerClosed => session.parting,
                _ => CloseReason::PeerReset,
            };
            let end = if answered { Ok(()) } else { Err(reason) };
            settle(session, sending, end, &mut self.counters);
            self.settle_push(key, push, answered, now);
            self.close(key, reason);
            return;
        }
        let rest = rest.filter(|_| !is(Mutant::RestLost));
        match rest {
            Some(rest) => self.resend(key, sending, rest, sent_bytes, now),
            None => {
                settle(session, sending, Ok(()), &mut self.counters);
                self.settle_push(key, push, true, now);
                self.sent_whole(key, sending, now);
            }
        }
    }

    /// Accounts for a push whose send has ended, if it was one.
    fn settle_push(&mut self, key: SessionKey, push: Option<u64>, written: bool, now: Timestamp) {
        let Some(id) = push else { return };
        let Some((session, mut context)) = self.split(key, now) else { return };
        match written {
            true => context.push_written(id, session.protocol),
            false => context.push_dropped(id, PushDrop::SessionClosed),
        }
    }

    /// Sends what a short send has left over.
    fn resend(
        &mut self,
        key: SessionKey,
        sending: Sending,
        rest: Outgoing,
        sent_bytes: usize,
        now: Timestamp,
    ) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        self.counters.short_sends += 1;
        session.sending = match sending {
            Sending::Pongs { count, skip } => {
                Sending::Pongs { count, skip: skip + sent_bytes as u8 }
            }
            Sending::Ping { skip } => Sending::Ping { skip: skip + sent_bytes as u8 },
            other => other,
        };
        if let (Some(outbox), true) = (&mut session.outbox, sent_bytes > 0) {
            outbox.stalled_until = None;
        }
        if session.phase == Phase::Flushing && sent_bytes > 0 {
            session.last_activity = now;
        }
        list_sender(session, key, &mut self.senders);
        self.effects.push(Effect::Send { key, outgoing: rest });
        self.refile(key, now);
    }

    /// Everything of one send has gone: goes on with the next.
    fn sent_whole(&mut self, key: SessionKey, sent: Sending, now: Timestamp) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let mut changed = false;
        if let Some(outbox) = &mut session.outbox {
            changed = outbox.stalled_until.take().is_some();
            if outbox.is_empty() {
                session.outbox = None;
                changed = true;
            }
        }
        // Our own question is no sign of the other's life.
        let is_ping = matches!(sent, Sending::Ping { .. }) && !is(Mutant::PingIsActivity);
        let is_activity = self.policy.activity == Activity::Any && !is_ping;
        if is_activity || session.phase == Phase::Flushing {
            session.note_activity(now);
            changed = true;
        }
        if changed {
            self.refile(key, now);
        }
        if matches!(sent, Sending::Ping { .. }) {
            self.asked(key, now);
        }
        self.flush(key, now);
    }

    /// Starts the next send, if none is in flight and something waits. Closes who was only kept
    /// for what was on its way to him.
    pub(super) fn flush(&mut self, key: SessionKey, now: Timestamp) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.sending != Sending::Nothing && !is(Mutant::TwoSends) {
            return;
        }
        let next = session.outbox.as_mut().and_then(|outbox| {
            let queued_bytes = outbox.queued_bytes();
            let item = outbox.pop();
            self.counters.send_queue_bytes -= (queued_bytes - outbox.queued_bytes()) as u64;
            item
        });
        let outgoing = match next {
            Some(Item { outgoing: Outgoing::Static(bytes), pongs }) => {
                session.sending = Sending::Pongs { count: pongs, skip: 0 };
                Outgoing::Static(bytes)
            }
            Some(Item { outgoing, pongs }) => {
                session.sending = Sending::Item { pongs };
                list_sender(session, key, &mut self.senders);
                outgoing
            }
            None if session.pongs_pending > 0 => {
                let count = std::mem::take(&mut session.pongs_pending);
                session.sending = Sending::Pongs { count, skip: 0 };
                Outgoing::Static(pongs(session.protocol, count, 0))
            }
            None if session.server_ping == ServerPing::Pending => {
                session.server_ping = match is(Mutant::AskedTwice) {
                    true => ServerPing::NotDue,
                    false => ServerPing::Sent,
                };
                session.sending = Sending::Ping { skip: 0 };
                list_sender(session, key, &mut self.senders);
                Outgoing::Static(ping(session.protocol))
            }
            None if session.phase == Phase::Flushing => {
                self.flushed(key, now);
                return;
            }
            None => return,
        };
        if session.phase == Phase::Flushing {
            list_sender(session, key, &mut self.senders);
        }
        self.effects.push(Effect::Send { key, outgoing });
    }

    /// Forgets what waited for a session that is being closed. What is in flight is settled by its
    /// completion.
    pub(super) fn drop_output(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let outbox = session.outbox.take();
        let queued_bytes = outbox.as_ref().map_or(0, |outbox| outbox.queued_bytes());
        self.counters.send_queue_bytes -= queued_bytes as u64;
        for id in outbox.iter().flat_map(|outbox| outbox.push_ids()) {
            if is(Mutant::PushLostAtClose) {
                continue;
            }
            self.pushes.dropped(id, key, PushDrop::SessionClosed);
            self.counters.pushes_pending -= 1;
            self.counters.pushes_dropped[PushDrop::SessionClosed as usize] += 1;
        }
        session.pongs_pending = 0;
        session.server_ping = ServerPing::NotDue;
        let in_flight = pongs_of(session.sending);
        let dropped = session.pongs_unanswered - in_flight;
        session.pongs_unanswered = in_flight;
        self.counters.heartbeats_pending -= u64::from(dropped);
        self.counters.heartbeats_dropped[session.parting as usize] += u64::from(dropped);
    }
}

/// The engine could not send: the connection is broken, or the send was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendFailed;

/// What is left of `count` replies of which `skip` bytes were written before, and `sent` now.
fn rest_of_pongs(protocol: Protocol, count: u8, skip: u8, sent: usize) -> Option<Outgoing> {
    let rest = pongs(protocol, count, usize::from(skip) + sent);
    (!rest.is_empty()).then_some(Outgoing::Static(rest))
}

/// What is left of our PING.
fn rest_of_ping(protocol: Protocol, skip: u8, sent: usize) -> Option<Outgoing> {
    let rest = &ping(protocol)[usize::from(skip) + sent..];
    (!rest.is_empty()).then_some(Outgoing::Static(rest))
}

fn pongs_of(sending: Sending) -> u8 {
    match sending {
        Sending::Nothing | Sending::Ping { .. } => 0,
        Sending::Pongs { count, .. } => count,
        Sending::Item { pongs } => pongs,
    }
}

/// Accounts for the heartbeats that a send which has ended was to answer: it did, or the session is
/// closed for this reason.
fn settle<C>(
    session: &mut Session<C>,
    sending: Sending,
    end: Result<(), CloseReason>,
    counters: &mut Counters,
) {
    let pongs = pongs_of(sending);
    session.pongs_unanswered -= pongs;
    counters.heartbeats_pending -= u64::from(pongs);
    counters.server_pings_sent += u64::from(end.is_ok() && matches!(sending, Sending::Ping { .. }));
    match end {
        Ok(()) => {
            let times = 1 + u64::from(is(Mutant::PongCountedTwice));
            counters.heartbeats_answered += times * u64::from(pongs);
        }
        Err(reason) => counters.heartbeats_dropped[reason as usize] += u64::from(pongs),
    }
}
