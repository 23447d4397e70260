//! The application's hook: what a service that is built on this library does with its sessions.
//!
//! A handler belongs to one shard and runs on its thread, so it needs no lock. It is called when a
//! session is opened, sends a message, or is closed, and for letters that other threads send; never
//! for a heartbeat. It wants pushes by [`Actions`]; they are carried out after it has returned.
//! It must not block: all sessions of the shard wait for it.

use std::collections::VecDeque;

use super::push::{PushMessage, PushTooLong};
use super::{CloseReason, Context, Shard};
use crate::limits::{GENERATION_BITS, HANDLER_PUSHES_MAX};
use crate::session::SessionId;
use crate::sweep::Sweeper;
use crate::time::Timestamp;

/// What an application does with the sessions of one shard. Every method has a default that does
/// nothing.
pub trait Handler {
    /// A session was opened. It can be pushed to from its first frame on (a WebSocket: from its
    /// upgrade on).
    fn opened(&mut self, session: SessionId, actions: &mut Actions) {
        let _ = (session, actions);
    }

    /// A DATA message of the TCP protocol has come, or a message of a WebSocket but text `ping`.
    fn message(&mut self, session: SessionId, message: &[u8], actions: &mut Actions) {
        let _ = (session, message, actions);
    }

    /// A session is closed; its id will not come again. Once for each that was opened.
    fn closed(&mut self, session: SessionId, reason: CloseReason, actions: &mut Actions) {
        let _ = (session, reason, actions);
    }

    /// Another thread has sent a letter to all shards.
    fn letter(&mut self, letter: &[u8], actions: &mut Actions) {
        let _ = (letter, actions);
    }
}

/// What a handler wants.
#[derive(Debug, Default)]
pub struct Actions {
    shard: u8,
    messages: u64,
    pushes: VecDeque<(SessionId, PushMessage)>,
    /// Pushes beyond [`HANDLER_PUSHES_MAX`] that waited at a time.
    overflowed: u64,
}

impl Actions {
    /// A message to push, encoded once however many sessions it is pushed to.
    ///
    /// # Errors
    /// If it is longer than [`PUSH_BYTES_MAX`](crate::limits::PUSH_BYTES_MAX).
    pub fn message(&mut self, message: &[u8]) -> Result<PushMessage, PushTooLong> {
        self.messages += 1;
        // Beside the control plane's ids, which are small, and those of other shards.
        let id = 1 << 52 | u64::from(self.shard) << (52 - 8) | self.messages;
        PushMessage::new(id, message)
    }

    /// Pushes `message` to a session of this shard. To one that has gone, that has sent nothing
    /// yet, or that is another shard's, it is not sent; that is counted. Nor is it sent to one to
    /// whom the same message is still on its way: a message is told apart from another by its id.
    pub fn push(&mut self, session: SessionId, message: &PushMessage) {
        match self.pushes.len() < HANDLER_PUSHES_MAX {
            true => self.pushes.push_back((session, message.clone())),
            false => self.overflowed += 1,
        }
    }
}

const _: () = assert!(GENERATION_BITS == 24, "a session's id has its shard in the top byte");

/// The handler, if there is one, and what it wants.
#[derive(Default)]
pub(super) struct Application {
    handler: Option<Box<dyn Handler>>,
    actions: Actions,
}

impl Application {
    pub(super) fn call(&mut self, call: impl FnOnce(&mut dyn Handler, &mut Actions)) {
        if let Some(handler) = &mut self.handler {
            call(handler.as_mut(), &mut self.actions);
        }
    }
}

impl Context<'_> {
    /// Lets the handler know of a message.
    pub(super) fn hand_over(&mut self, message: &[u8]) {
        let id = self.id();
        self.application.call(|handler, actions| handler.message(id, message, actions));
    }
}

impl<S: Sweeper, C> Shard<S, C> {
    /// Has `handler` know what happens to the sessions from now on.
    pub fn set_handler(&mut self, handler: Box<dyn Handler>) {
        let actions = Actions { shard: self.number, ..Actions::default() };
        self.application = Application { handler: Some(handler), actions };
    }

    /// Gives a letter to the handler.
    pub fn deliver_letter(&mut self, letter: &[u8], now: Timestamp) {
        self.application.call(|handler, actions| handler.letter(letter, actions));
        self.act(now);
    }

    /// Does what the handler has wanted.
    pub(super) fn act(&mut self, now: Timestamp) {
        if self.application.handler.is_none() {
            return;
        }
        let overflowed = std::mem::take(&mut self.application.actions.overflowed);
        self.counters.handler_pushes_refused += overflowed;
        while let Some((session, message)) = self.application.actions.pushes.pop_front() {
            let pushed =
                session.shard() == self.number && self.push_grouped(session.key(), &message, now);
            self.counters.handler_pushes_refused += u64::from(!pushed);
        }
    }
}
