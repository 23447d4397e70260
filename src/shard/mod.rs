//! The sans-IO core: events and `now` go in, effects come out.
//!
//! A shard owns its sessions, their deadlines and its counters. It reads no clock and knows no
//! descriptor, so the same code runs under every engine and in tests with virtual time.
//!
//! # One heartbeat
//! The engine calls [`Shard::received`] with the bytes; [`tcp`] finds a PING in them; the session's
//! deadline moves (`refile`), and an [`Effect::Send`] with the reply waits for the engine. Nothing
//! is allocated, locked or logged on that way.
//!
//! # One silent session
//! The engine calls [`Shard::advance`]; the sweeper reports the index; an [`Effect::Close`] waits
//! for the engine, which calls [`Shard::released`] when the connection is gone.
//!
//! # Invariants
//! - A session is in the sweeper exactly as long as it is not [`Phase::Closing`].
//! - An index is reused only after `released`: until then the engine may still report on it.

mod admission;
mod auth;
mod beats;
mod calendar;
mod closing;
mod context;
mod counters;
mod deadline;
mod drain;
mod handler;
mod output;
mod pace;
mod ping;
mod policy;
mod pongs;
mod proxied;
mod push;
mod push_book;
mod stall;
mod tcp;
mod terms;
mod unread;
mod view;
mod websocket;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

pub use self::admission::{AcceptRate, Admission, Bounds};
pub use self::auth::Auth;
use self::beats::BeatMeter;
use self::calendar::Calendar;
use self::closing::End;
use self::context::Context;
pub use self::counters::{Counters, Law, Totals};
use self::deadline::DeadlineCache;
use self::drain::Drain;
use self::handler::Application;
pub use self::handler::{Actions, Handler};
use self::output::BufferPool;
pub use self::output::SendFailed;
pub use self::policy::{Activity, Policy};
use self::push::Broadcast;
pub use self::push::{PushMessage, PushRefused, PushTooLong};
pub use self::push_book::PushAccount;
use self::push_book::PushBook;
use self::stall::HeldUp;
pub use self::view::SessionView;
use crate::limits::EXPIRED_PER_TURN_MAX;
use crate::mutants::{Mutant, is};
use crate::outgoing::Outgoing;
use crate::protocol::Protocol;
use crate::protocol::address::PeerAddress;
pub use crate::session::{CloseReason, PushDrop, Refusal};
use crate::session::{Phase, Session, SessionId, SessionKey, SessionTable};
use crate::sweep::{Progress, Sweeper};
use crate::time::{Tick, Timestamp};

/// What the engine has to do.
#[derive(Debug)]
pub enum Effect {
    /// Send these bytes and call [`Shard::sent`] afterwards. One at a time per session.
    Send {
        /// To whom.
        key: SessionKey,
        /// What.
        outgoing: Outgoing,
    },
    /// Receive no more, let what is in flight end, close, and call [`Shard::released`].
    Close {
        /// Whom.
        key: SessionKey,
    },
}

/// How the receiving side of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveEnd {
    /// The peer has closed its sending side.
    Closed,
    /// The connection has failed.
    Failed,
}

/// One thread's share of the sessions. `C` is the engine's handle of a connection.
pub struct Shard<S, C> {
    number: u8,
    policy: Policy,
    admission: Arc<Admission>,
    sessions: SessionTable<C>,
    sweeper: S,
    counters: Counters,
    effects: Vec<Effect>,
    buffers: BufferPool,
    deadlines: DeadlineCache,
    /// Sessions with a send of their own in flight since the last tick: the stalled among them.
    senders: Vec<SessionKey>,
    held_up: HeldUp,
    beats: BeatMeter,
    /// Where heartbeats are flattened.
    calendar: Option<Box<Calendar>>,
    /// Whom a limit counts each session for, by its index; empty where none does.
    counted_for: Vec<PeerAddress>,
    expired: Vec<u32>,
    application: Application,
    pushes: PushBook,
    /// Those that have not come to the end of the table.
    broadcasts: VecDeque<Broadcast>,
    /// Once the server is stopping.
    drain: Option<Drain>,
    /// The latest time that was told: a sweep may be of an earlier one.
    latest: Timestamp,
    /// The tick by which everybody who was due has been given up.
    swept: Option<Tick>,
}

impl<S: Sweeper, C> Shard<S, C> {
    /// An empty shard with room for `capacity` sessions.
    pub fn new(
        number: u8,
        policy: Policy,
        admission: Arc<Admission>,
        sweeper: S,
        capacity: usize,
    ) -> Shard<S, C> {
        let calendar = policy.flatten.then(|| Box::new(Calendar::new(&policy)));
        Shard {
            number,
            beats: BeatMeter::new(&policy),
            calendar,
            counted_for: Vec::new(),
            policy,
            admission,
            sessions: SessionTable::with_capacity(capacity),
            sweeper,
            counters: Counters::default(),
            effects: Vec::new(),
            buffers: BufferPool::default(),
            deadlines: DeadlineCache::default(),
            senders: Vec::new(),
            held_up: HeldUp::default(),
            expired: Vec::new(),
            application: Application::default(),
            pushes: PushBook::default(),
            broadcasts: VecDeque::new(),
            drain: None,
            latest: Timestamp::ZERO,
            swept: None,
        }
    }

    /// A connection was accepted: it becomes a session, or is refused; then close it.
    ///
    /// # Errors
    /// Why it was refused; that is counted already.
    pub fn opened(
        &mut self,
        connection: C,
        protocol: Protocol,
        now: Timestamp,
    ) -> Result<SessionKey, Refusal> {
        self.opened_from(connection, protocol, None, now)
    }

    /// The same, and from where it came. To be called where [`Shard::needs_addresses`].
    ///
    /// # Errors
    /// Why it was refused; that is counted already.
    pub fn opened_from(
        &mut self,
        connection: C,
        protocol: Protocol,
        from: Option<PeerAddress>,
        now: Timestamp,
    ) -> Result<SessionKey, Refusal> {
        self.counters.accepted += 1;
        let phase = match self.admit(from, now) {
            Ok(phase) => phase,
            Err(refusal) => {
                self.counters.rejected[refusal as usize] += 1;
                return Err(refusal);
            }
        };
        let idle_timeout_ms = millis(self.policy.idle_timeout);
        let mut session = Session::new(connection, protocol, now, idle_timeout_ms);
        session.phase = phase;
        let deadline = self.policy.deadline(&session);
        let key = self.sessions.insert(session);
        self.counters.opened += u64::from(!is(Mutant::OpenedNotCounted));
        self.counters.open += 1;
        let id = SessionId::new(self.number, key);
        self.application.call(|handler, actions| handler.opened(id, actions));
        self.sweeper.insert(key.index, deadline);
        if let (Phase::AwaitingHello, Some(from)) = (phase, from) {
            self.note_counted_for(key, from);
        }
        Ok(key)
    }

    /// A connection was lost before it could become a session.
    pub fn refused(&mut self, refusal: Refusal) {
        self.counters.accepted += 1;
        self.counters.rejected[refusal as usize] += 1;
    }

    /// Bytes came.
    pub fn received(&mut self, key: SessionKey, bytes: &[u8], now: Timestamp) {
        self.latest = now;
        let Some(session) = self.sessions.get_mut(key) else {
            self.counters.stale_events += 1;
            return;
        };
        if matches!(session.phase, Phase::Flushing | Phase::Lingering | Phase::Closing) {
            self.counters.bytes_ignored += bytes.len() as u64;
            return;
        }
        session.note_activity(now);
        self.counters.bytes_received += bytes.len() as u64;
        let bytes = match session.phase {
            Phase::AwaitingProxy => match self.receive_header(key, bytes, now) {
                Some(rest) => rest,
                None => return,
            },
            _ => bytes,
        };
        let Some((session, mut context)) = self.split(key, now) else { return };
        let outcome = match session.protocol {
            Protocol::Tcp => tcp::receive(session, bytes, &mut context).map_err(End::Close),
            Protocol::WebSocket => websocket::receive(session, bytes, &mut context),
        };
        match outcome {
            Ok(()) => {
                self.refile(key, now);
                self.flush(key, now);
            }
            Err(End::Close(reason)) => self.close(key, reason),
            Err(End::Part(reason, farewell)) => self.say_goodbye(key, reason, farewell, now),
        }
        self.act(now);
    }

    /// A session, and what it may reach of the shard.
    fn split(&mut self, key: SessionKey, now: Timestamp) -> Option<(&mut Session<C>, Context<'_>)> {
        let session = self.sessions.get_mut(key)?;
        let context = Context {
            policy: &self.policy,
            counters: &mut self.counters,
            buffers: &mut self.buffers,
            effects: &mut self.effects,
            senders: &mut self.senders,
            calendar: self.calendar.as_deref_mut(),
            pushes: &mut self.pushes,
            application: &mut self.application,
            shard: self.number,
            key,
            now,
        };
        Some((session, context))
    }

    /// No more bytes will come. What is on its way to a peer that has only closed its sending side
    /// is still sent, within the stall timeout.
    pub fn receive_ended(&mut self, key: SessionKey, end: ReceiveEnd, now: Timestamp) {
        let Some(session) = self.sessions.get_mut(key) else {
            self.counters.stale_events += 1;
            return;
        };
        match (session.phase, end) {
            (Phase::Closing, _) => {}
            (Phase::Flushing, ReceiveEnd::Closed) => {}
            (Phase::Flushing | Phase::Lingering, _) => {
                let reason = match (session.parting, end) {
                    (CloseReason::PeerClosed, ReceiveEnd::Failed) => CloseReason::PeerReset,
                    (reason, _) => reason,
                };
                self.close(key, reason);
            }
            (_, ReceiveEnd::Failed) => self.close(key, CloseReason::PeerReset),
            (_, ReceiveEnd::Closed) if session.has_output() => {
                self.part(key, CloseReason::PeerClosed, now);
            }
            (_, ReceiveEnd::Closed) => self.close(key, CloseReason::PeerClosed),
        }
    }

    /// The engine has closed the connection and will not report on it again.
    pub fn released(&mut self, key: SessionKey) {
        match self.sessions.remove(key) {
            Some(session) => {
                debug_assert_eq!(session.phase, Phase::Closing, "only the closed are released");
                self.admission.leave();
                self.forget_counted_for(key);
                self.pushes.released(key);
                self.counters.released += 1;
            }
            None => self.counters.stale_events += 1,
        }
    }

    /// Time has come to `now`, and all that arrived before was reported: gives up whoever is due.
    /// Whether it got to the end; if not, call again in the next turn.
    pub fn advance(&mut self, now: Timestamp) -> Progress {
        self.mark_stalled(now);
        self.beats.tick(self.policy.tick.current(now), &mut self.counters);
        self.pushes.forget_old(now);
        let mut expired = std::mem::take(&mut self.expired);
        let tick = self.policy.tick.current(now);
        let progress = self.sweeper.advance(tick, EXPIRED_PER_TURN_MAX, &mut expired);
        if is(Mutant::ExpiredForgotten) && expired.len() > 1 {
            expired.pop();
        }
        for index in expired.drain(..) {
            if let Some(key) = self.sessions.key_at(index) {
                self.overdue(key, now);
            }
        }
        self.expired = expired;
        if progress == Progress::Done {
            self.swept = Some(tick);
        }
        self.counters.sweeps_continued += u64::from(progress == Progress::More);
        progress
    }

    /// Tells what time it is. A sweep is of the time up to which everything was heard, and after a
    /// pause of the process that may be long ago: what begins with it is to have its whole time.
    pub fn note_present(&mut self, now: Timestamp) {
        self.latest = self.latest.max(now);
    }

    /// What time it is at least, in a sweep or a turn of this time.
    fn present(&self, now: Timestamp) -> Timestamp {
        self.latest.max(now)
    }

    /// Goes on with what is spread over time, up to a turn's share. When to call it again, if there
    /// is more to do: `now` means in the next turn.
    pub fn work(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.act(now);
        if self.broadcasts.is_empty() && self.drain.is_none() {
            return None;
        }
        self.go_on_broadcasting(now);
        if self.is_stopping() && !is(Mutant::StopLeavesSessions) {
            self.stop(EXPIRED_PER_TURN_MAX, now);
        }
        let next = [self.next_broadcast_at(now), self.next_drain_at(now)];
        next.into_iter().flatten().min()
    }

    fn is_open(&self, key: SessionKey) -> bool {
        self.sessions.get(key).is_some_and(|session| session.phase != Phase::Closing)
    }

    /// The engine's handle of a connection, unless the session has gone.
    pub fn connection_mut(&mut self, key: SessionKey) -> Option<&mut C> {
        self.sessions.get_mut(key).map(|session| &mut session.connection)
    }

    /// The session, unless it has gone.
    pub fn session(&self, key: SessionKey) -> Option<&Session<C>> {
        self.sessions.get(key)
    }

    /// Takes the oldest effects out into `effects`, which should be empty.
    pub fn take_effects(&mut self, effects: &mut Vec<Effect>) {
        std::mem::swap(&mut self.effects, effects);
    }

    /// What this shard has counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The shard's counters, for events that only the engine sees.
    pub fn count_stale(&mut self) {
        self.counters.stale_events += 1;
    }

    /// Sessions in the table, those that are being closed included.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// What this shard has counted, its gauges brought up to date.
    pub fn publish(&mut self) -> &Counters {
        self.counters.table_entries = self.sessions.len() as u64;
        self.counters.sweeper_entries = self.sweeper.len() as u64;
        self.counters.sweep_entries_visited = self.sweeper.entries_visited();
        &self.counters
    }

    /// The sum of all sessions' unanswered heartbeats, counted anew: what the gauge must show.
    pub fn count_pending(&self) -> u64 {
        let sessions = self.sessions.keys().filter_map(|key| self.sessions.get(key));
        sessions.map(|session| u64::from(session.pongs_unanswered)).sum()
    }

    /// The memory that all outboxes keep, counted anew: what the gauge must show.
    pub fn count_queued_bytes(&self) -> u64 {
        let sessions = self.sessions.keys().filter_map(|key| self.sessions.get(key));
        let outboxes = sessions.filter_map(|session| session.outbox.as_ref());
        outboxes.map(|outbox| outbox.queued_bytes() as u64).sum()
    }

    /// Files the session's present deadline.
    fn refile(&mut self, key: SessionKey, now: Timestamp) {
        let Some(session) = self.sessions.get(key) else { return };
        if is(Mutant::RefileForgotten) {
            return;
        }
        let deadline = match session {
            Session { phase: Phase::Live, partial: None, outbox: None, .. } => self.deadlines.idle(
                &self.policy,
                self.policy.silence_ms(session),
                session.last_activity,
                now,
            ),
            _ => self.policy.deadline(session),
        };
        self.sweeper.touch(key.index, deadline);
    }
}

/// A duration in whole milliseconds, as the wire has it: rounded up, so that nobody is early.
fn millis(duration: Duration) -> u32 {
    let fraction_ms = u64::from(duration.subsec_nanos().div_ceil(1_000_000));
    u32::try_from(duration.as_secs().saturating_mul(1_000).saturating_add(fraction_ms))
        .unwrap_or(u32::MAX)
}
