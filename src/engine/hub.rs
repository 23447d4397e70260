//! What the engines with a task per connection have in common: the shard that their tasks share,
//! and the task that makes time pass.
//!
//! All run on one thread, so sharing costs a borrow and no lock. Each connection has a [`Link`], by
//! which whoever calls the shard leaves it what the shard wants: bytes to send, or to close.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;

use super::housekeeper::Housekeeper;
use super::{EngineCounters, EngineReport, Mailbox, Status, peer_address};
use crate::limits::QUIET_ROUNDS;
use crate::outgoing::Outgoing;
use crate::protocol::Protocol;
use crate::ring::RingCounters;
use crate::session::SessionKey;
use crate::shard::{Effect, ReceiveEnd, Refusal, SendFailed, Shard};
use crate::sweep::{Progress, Sweeper};
use crate::sys;
use crate::time::{Clock, TickLength, Timestamp};

/// What the shard wants of a connection's task.
#[derive(Default)]
pub struct Link {
    outgoing: Cell<Option<Outgoing>>,
    closing: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Link {
    /// The bytes to send next.
    pub(super) fn take_outgoing(&self) -> Option<Outgoing> {
        self.outgoing.take()
    }

    /// Whether the shard has given the connection up.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Ready when there is something for the task; otherwise the task is woken when there is.
    pub(super) fn poll_news(&self, context: &mut Context<'_>) -> Poll<()> {
        let outgoing = self.outgoing.take();
        let news = outgoing.is_some() || self.closing.get();
        self.outgoing.set(outgoing);
        if news {
            return Poll::Ready(());
        }
        self.waker.set(Some(context.waker().clone()));
        Poll::Pending
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// One thread's shard, and what goes with it.
pub(super) struct Hub<S> {
    clock: Clock,
    house: RefCell<Housekeeper>,
    shard: RefCell<Shard<S, Rc<Link>>>,
    effects: RefCell<Vec<Effect>>,
    counters: RefCell<EngineCounters>,
    /// Events of any kind so far: tells whether a round was quiet.
    events: Cell<u64>,
    /// Rounds after which everybody has had his turn.
    rounds_max: u32,
    /// A command was obeyed: there may be something new to do.
    news: Notify,
    /// The engine was told to end.
    stopping: Notify,
}

impl<S: Sweeper> Hub<S> {
    pub(super) fn new(
        clock: Clock,
        tick: TickLength,
        shard: Shard<S, Rc<Link>>,
        status: Arc<Status>,
        rounds_max: u32,
    ) -> Rc<Hub<S>> {
        Rc::new(Hub {
            clock,
            house: RefCell::new(Housekeeper::new(clock, tick, status)),
            shard: RefCell::new(shard),
            effects: RefCell::default(),
            counters: RefCell::default(),
            events: Cell::new(0),
            rounds_max,
            news: Notify::new(),
            stopping: Notify::new(),
        })
    }

    /// A connection was accepted.
    pub(super) fn opened(
        &self,
        link: &Rc<Link>,
        protocol: Protocol,
        from: SocketAddr,
    ) -> Result<SessionKey, Refusal> {
        let (now, from) = (self.clock.now(), Some(peer_address(from)));
        self.shard.borrow_mut().opened_from(Rc::clone(link), protocol, from, now)
    }

    /// Bytes came. The clock is read here: after they have arrived.
    pub(super) fn received(&self, key: SessionKey, bytes: &[u8]) {
        self.note_event();
        self.shard.borrow_mut().received(key, bytes, self.clock.now());
        self.apply_effects();
    }

    /// No more bytes will come.
    pub(super) fn receive_ended(&self, key: SessionKey, end: ReceiveEnd) {
        self.note_event();
        self.shard.borrow_mut().receive_ended(key, end, self.clock.now());
        self.apply_effects();
    }

    /// A send has ended.
    pub(super) fn sent(&self, key: SessionKey, outgoing: Outgoing, result: io::Result<usize>) {
        self.note_event();
        let result = result.map_err(|_| SendFailed);
        self.shard.borrow_mut().sent(key, Some(outgoing), result, self.clock.now());
        self.apply_effects();
    }

    /// The connection is closed.
    pub(super) fn released(&self, key: SessionKey) {
        self.shard.borrow_mut().released(key);
    }

    /// Changes the engine's own counters.
    pub(super) fn count(&self, change: impl FnOnce(&mut EngineCounters)) {
        change(&mut self.counters.borrow_mut());
    }

    fn note_event(&self) {
        self.events.set(self.events.get() + 1);
    }

    fn apply_effects(&self) {
        let mut effects = self.effects.borrow_mut();
        let mut shard = self.shard.borrow_mut();
        shard.take_effects(&mut effects);
        for effect in effects.drain(..) {
            let (Effect::Send { key, .. } | Effect::Close { key }) = &effect;
            let Some(link) = shard.connection_mut(*key) else { continue };
            match effect {
                Effect::Send { outgoing, .. } => link.outgoing.set(Some(outgoing)),
                Effect::Close { .. } => link.closing.set(true),
            }
            link.wake();
        }
    }

    /// Makes time pass, tick by tick, until everybody has gone after a stop.
    ///
    /// `round` is the engine's way to let the other tasks run once: when it returns, whatever they
    /// asked of the kernel before has been asked, and what the kernel had ready has been seen.
    pub(super) async fn run(&self, round: impl AsyncFn()) -> EngineReport {
        loop {
            let now = self.clock.now();
            if self.is_stopping() {
                self.work(now);
                self.publish_if_due();
                self.sweep(&round).await;
                if self.shard.borrow().is_empty() || self.house.borrow().is_overdue(now) {
                    return self.publish();
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            let work_at = self.work(now);
            let sleep_max = self.house.borrow().sleep_max(now);
            let sleep_max = work_at.map_or(sleep_max, |at| sleep_max.min(at.since(now)));
            if sleep_max.is_zero() {
                round().await;
            } else {
                tokio::select! {
                    () = tokio::time::sleep(sleep_max) => {}
                    () = self.news.notified() => {}
                }
            }
            self.sweep(&round).await;
            self.publish_if_due();
        }
    }

    /// Gives up whoever is due, after everything that had arrived before has been read.
    async fn sweep(&self, round: &impl AsyncFn()) {
        let now = self.clock.now();
        if !self.house.borrow().is_sweep_due(now) {
            return;
        }
        if !self.drain(round).await {
            // All have had their turn many times over; some send faster than they are read.
            self.count(|counters| counters.busy_turns += 1);
        }
        loop {
            let progress = self.house.borrow_mut().sweep(
                &mut self.shard.borrow_mut(),
                &mut self.counters.borrow_mut(),
                now,
            );
            self.apply_effects();
            if progress == Progress::Done {
                return;
            }
            round().await;
        }
    }

    /// Lets the other tasks run until they find no more to read; whether that came. The runtime
    /// looks for what has become readable between two of our turns, but not for all at once.
    async fn drain(&self, round: &impl AsyncFn()) -> bool {
        let mut quiet = 0;
        for _ in 0..self.rounds_max {
            let before = self.events.get();
            round().await;
            quiet = if self.events.get() == before { quiet + 1 } else { 0 };
            if quiet == QUIET_ROUNDS {
                return true;
            }
        }
        false
    }

    /// Does what the control plane and the main thread want.
    pub(super) async fn obey(&self, mailbox: &Mailbox) -> io::Result<()> {
        let bell = sys::watch(mailbox.bell())?;
        loop {
            let mut ready = bell.readable().await?;
            // Fails only if nobody has rung: then there is nothing to clear.
            let _ = rustix::io::read(mailbox.bell(), &mut [0; 8]);
            ready.clear_ready();
            let now = self.clock.now();
            while let Some(command) = mailbox.take() {
                if let Some(timeout) = command.obey(&mut self.shard.borrow_mut(), now) {
                    self.house.borrow_mut().stop(now, timeout);
                }
            }
            self.apply_effects();
            self.news.notify_one();
            if self.is_stopping() {
                self.stopping.notify_waiters();
            }
        }
    }

    /// Waits until the engine is told to end.
    pub(super) async fn stopping(&self) {
        if !self.is_stopping() {
            self.stopping.notified().await;
        }
    }

    /// Has the shard go on with what is spread over time; when there is more to do.
    fn work(&self, now: Timestamp) -> Option<Timestamp> {
        let work_at = self.shard.borrow_mut().work(now);
        self.apply_effects();
        work_at
    }

    /// Whether newcomers are still accepted.
    pub(super) fn is_accepting(&self) -> bool {
        !self.is_stopping()
    }

    fn is_stopping(&self) -> bool {
        self.house.borrow().is_stopping()
    }

    fn publish_if_due(&self) {
        let due = self.house.borrow_mut().take_publish_due(self.clock.now());
        if due {
            self.publish();
        }
    }

    fn publish(&self) -> EngineReport {
        let (mut shard, mut counters) = (self.shard.borrow_mut(), self.counters.borrow_mut());
        self.house.borrow().publish(&mut shard, &mut counters, RingCounters::default())
    }
}
