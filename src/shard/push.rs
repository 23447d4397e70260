//! Pushing: one message, encoded once for each protocol, to one session or to all.
//!
//! A broadcast goes through the table by a cursor, a bounded number of sessions a turn, no faster
//! than it is to be spread, so heartbeats go on meanwhile. It is for the sessions that were open,
//! and had spoken, when it was asked for; who comes later is not part of it.
//!
//! Invariant: requested = acknowledged + unconfirmed + dropped + pending, at any time: the counters
//! follow what is queued, written and dropped, whether the push's account is still kept or not.

use std::sync::Arc;
use std::time::Duration;

use super::output::queue_message;
use super::pace::Pace;
use super::push_book::PushAccount;
use super::{Context, PushDrop, Shard};
use crate::limits::{
    BROADCASTS_TRACKED_MAX, GENERATIONS, PACE_INDICES_PER_TURN_MAX, PUSH_BYTES_MAX,
    PUSHES_PER_TURN_MAX,
};
use crate::mutants::{Mutant, is};
use crate::outgoing::{Outgoing, PUSH_ID_BYTES};
use crate::protocol::Protocol;
use crate::protocol::frame::Frame;
use crate::protocol::websocket::{HEADER_BYTES_MAX, Opcode, encode_header};
use crate::session::{Phase, Sending, Session, SessionKey};
use crate::sweep::Sweeper;
use crate::time::Timestamp;

/// A message to push, encoded for both protocols; clones share it.
#[derive(Clone, Debug)]
pub struct PushMessage {
    id: u64,
    tcp: Arc<[u8]>,
    websocket: Arc<[u8]>,
}

/// A message that does not fit a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {0} bytes; {PUSH_BYTES_MAX} are the most")]
pub struct PushTooLong(pub usize);

impl PushMessage {
    /// Encodes `message`, to be acknowledged by `id`.
    ///
    /// # Errors
    /// If it is longer than [`PUSH_BYTES_MAX`].
    pub fn new(id: u64, message: &[u8]) -> Result<PushMessage, PushTooLong> {
        if message.len() > PUSH_BYTES_MAX {
            return Err(PushTooLong(message.len()));
        }
        let frame = Frame::Push { id, message };
        let mut tcp = vec![0; PUSH_ID_BYTES + frame.encoded_bytes()];
        tcp[..PUSH_ID_BYTES].copy_from_slice(&id.to_be_bytes());
        frame.encode(&mut tcp[PUSH_ID_BYTES..]);
        let opcode =
            if simdutf8::basic::from_utf8(message).is_ok() { Opcode::Text } else { Opcode::Binary };
        let mut header = [0; HEADER_BYTES_MAX];
        let header_bytes = encode_header(opcode, message.len() as u64, None, &mut header);
        let websocket = [&id.to_be_bytes()[..], &header[..header_bytes], message].concat();
        Ok(PushMessage { id, tcp: tcp.into(), websocket: websocket.into() })
    }

    /// By which it is acknowledged.
    pub fn id(&self) -> u64 {
        self.id
    }

    fn outgoing(&self, protocol: Protocol) -> Outgoing {
        Outgoing::push(Arc::clone(match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::WebSocket => &self.websocket,
        }))
    }
}

/// Why a push was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushRefused {
    /// The session has gone, or is being closed.
    #[error("the session has gone")]
    Gone,
    /// It has sent nothing yet, or its upgrade is not complete.
    #[error("the session has sent nothing yet")]
    NotLive,
    /// Too many broadcasts are still being handed out.
    #[error("{BROADCASTS_TRACKED_MAX} broadcasts are being handed out; wait for one to end")]
    TooMany,
}

/// A broadcast on its way through the table.
#[derive(Debug)]
pub(super) struct Broadcast {
    message: PushMessage,
    pace: Pace,
    begun: Timestamp,
    /// The generation of the first session that is not part of it.
    generation: u32,
}

impl Broadcast {
    fn includes<C>(&self, session: &Session<C>) -> bool {
        // Generations wrap around, so they only tell apart what was opened at the same moment.
        let age = self.generation.wrapping_sub(session.generation) % GENERATIONS;
        let is_older = session.opened_at < self.begun
            || session.opened_at == self.begun && (1..GENERATIONS / 2).contains(&age);
        (is_older || is(Mutant::BroadcastToNewcomers)) && session.phase == Phase::Live
    }
}

impl<S: Sweeper, C> Shard<S, C> {
    /// Pushes a message to one session.
    ///
    /// # Errors
    /// If it has gone or cannot be pushed to yet; then nothing but that is counted.
    pub fn push(
        &mut self,
        key: SessionKey,
        message: &PushMessage,
        now: Timestamp,
    ) -> Result<PushAccount, PushRefused> {
        if let Err(refused) = self.check_live(key) {
            self.counters.pushes_refused += 1;
            return Err(refused);
        }
        self.pushes.open_single(message.id, key, now);
        self.push_to(key, message, now);
        Ok(self.pushes.account(message.id).unwrap_or_default())
    }

    /// Pushes a message that others may be pushed as well, under one account. Whether it does: not
    /// to one who has gone, nor to one to whom the same message is still on its way, since the
    /// account knows each session once.
    pub(super) fn push_grouped(
        &mut self,
        key: SessionKey,
        message: &PushMessage,
        now: Timestamp,
    ) -> bool {
        if self.check_live(key).is_err() || self.pushes.is_pending(message.id, key) {
            return false;
        }
        self.pushes.open_group(message.id, now);
        self.push_to(key, message, now);
        true
    }

    fn check_live(&self, key: SessionKey) -> Result<(), PushRefused> {
        match self.sessions.get(key).map(|session| session.phase) {
            Some(Phase::Live) => Ok(()),
            Some(Phase::AwaitingProxy | Phase::AwaitingHello) => Err(PushRefused::NotLive),
            _ => Err(PushRefused::Gone),
        }
    }

    /// Begins to push a message to every session that is open now, spread over a time.
    ///
    /// # Errors
    /// If too many broadcasts are on their way already.
    pub fn broadcast(
        &mut self,
        message: PushMessage,
        spread: Duration,
        now: Timestamp,
    ) -> Result<PushAccount, PushRefused> {
        if self.broadcasts.len() >= BROADCASTS_TRACKED_MAX {
            self.counters.pushes_refused += 1;
            return Err(PushRefused::TooMany);
        }
        let id = message.id;
        let pace = Pace::new(now, spread, self.sessions.indices_end());
        let generation = self.sessions.next_generation();
        self.pushes.open_broadcast(id, self.counters.open, now);
        self.broadcasts.push_back(Broadcast { message, pace, begun: now, generation });
        Ok(self.pushes.account(id).unwrap_or_default())
    }

    /// What has become of a push, unless it is unknown or forgotten.
    pub fn push_account(&self, id: u64) -> Option<PushAccount> {
        self.pushes.account(id)
    }

    /// Hands out what is due of the broadcasts, up to a turn's share.
    pub(super) fn go_on_broadcasting(&mut self, now: Timestamp) {
        let (mut pushes, mut looks) = (PUSHES_PER_TURN_MAX, PACE_INDICES_PER_TURN_MAX);
        let mut broadcasts = std::mem::take(&mut self.broadcasts);
        for broadcast in &mut broadcasts {
            let target = broadcast.pace.target(now);
            while broadcast.pace.cursor < target && pushes > 0 && looks > 0 {
                let index = broadcast.pace.cursor;
                broadcast.pace.cursor += 1;
                looks -= 1;
                let Some(key) = self.sessions.key_at(index) else { continue };
                if self.sessions.get(key).is_some_and(|session| broadcast.includes(session)) {
                    pushes -= 1;
                    self.push_to(key, &broadcast.message, now);
                    broadcast.pace.cursor += u32::from(is(Mutant::BroadcastSkipsNeighbour));
                }
            }
            if broadcast.pace.is_done() {
                self.pushes.handed_out(broadcast.message.id);
            }
        }
        broadcasts.retain(|broadcast| !broadcast.pace.is_done());
        self.broadcasts = broadcasts;
    }

    /// When a broadcast has to go on, if any has to.
    pub(super) fn next_broadcast_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.broadcasts.iter().filter_map(|broadcast| broadcast.pace.next_at(now)).min()
    }

    fn push_to(&mut self, key: SessionKey, message: &PushMessage, now: Timestamp) {
        let Some((session, mut context)) = self.split(key, now) else { return };
        let acknowledges = session.protocol == Protocol::Tcp;
        context.pushes.requested(message.id, key, acknowledges);
        context.counters.pushes_requested += 1;
        context.counters.pushes_pending += 1;
        let outgoing = message.outgoing(session.protocol);
        match queue_message(session, outgoing, &mut context) {
            Ok(()) => self.refile(key, now),
            // It is closed by its stall timeout; until then it may still begin to read.
            Err(_) => context.push_dropped(message.id, PushDrop::SendQueueFull),
        }
    }
}

impl Context<'_> {
    /// A push will not be sent.
    pub(super) fn push_dropped(&mut self, id: u64, reason: PushDrop) {
        self.pushes.dropped(id, self.key, reason);
        self.counters.pushes_pending -= 1;
        self.counters.pushes_dropped[reason as usize] += 1;
    }

    /// A push has been written.
    pub(super) fn push_written(&mut self, id: u64, protocol: Protocol) {
        let acknowledged = self.pushes.written(id, self.key, protocol == Protocol::Tcp);
        self.counters.pushes_pending -= 1;
        match acknowledged {
            true => self.counters.pushes_acknowledged += 1,
            false => self.counters.pushes_unconfirmed += 1,
        }
    }

    /// A receipt has come.
    pub(super) fn push_acknowledged(&mut self, id: u64, sending: Sending) {
        use super::push_book::Receipt;
        self.counters.push_acks_received += 1;
        let is_sending = matches!(sending, Sending::Item { .. });
        match self.pushes.acknowledge(id, self.key, is_sending) {
            Receipt::Counted => {
                self.counters.pushes_unconfirmed -= 1;
                self.counters.pushes_acknowledged += 1;
            }
            Receipt::Early => {}
            Receipt::Stray => self.counters.push_acks_stray += 1,
        }
    }
}
