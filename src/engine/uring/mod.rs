//! The ring engine: one thread, one shard, a group of io_uring instances.
//!
//! The first ring of the group sleeps for all: the others signal an eventfd that it reads, and so
//! does the mailbox. It sleeps until a batch of completions is there, or a short time has passed
//! with at least one, or the next tick is due. Then every ring that has something is entered.
//!
//! Cost of a heartbeat: its share of one or two `io_uring_enter`, two completions (receive, send),
//! two cache lines (the session, its deadline). No allocation, no lock, no log line; the clock is
//! read once after each enter.
//! Needs Linux 6.1; 6.12 for the minimum wait.

mod completions;
mod connection;
mod member;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;

pub use self::connection::Connection;
use self::member::Member;
use crate::engine::{
    EngineConfig, EngineCounters, EngineError, EngineReport, Mailbox, Status, Tuning, pin_to,
    thread_cpu_us,
};
use crate::limits::{
    COMPLETIONS_PER_BATCH, ENTERS_PER_TURN_MAX, EXPIRED_PER_TURN_MAX, PUBLISH_INTERVAL,
    STOP_TIMEOUT, SWEEP_US_MAX,
};
use crate::ring::{Completion, Op, RingCounters, RingError, Tag, Wait};
use crate::shard::{Effect, Shard};
use crate::sweep::{Progress, Sweeper};
use crate::time::{Clock, Tick, TickLength, Timestamp};

/// The ring that sleeps.
const MAIN: usize = 0;

/// A shard and the rings that carry its connections.
pub struct UringEngine<S> {
    clock: Clock,
    tick: TickLength,
    tuning: Tuning,
    members: Vec<Member>,
    shard: Shard<S, Connection>,
    mailbox: Mailbox,
    counters: EngineCounters,
    batch: Vec<Completion>,
    effects: Vec<Effect>,
    /// The tick up to which everybody who was due has been given up.
    swept: Tick,
    sweep_us: Histogram<u32>,
    woken: bool,
    status: Arc<Status>,
    publish_at: Timestamp,
    stop_by: Option<Timestamp>,
}

impl<S: Sweeper> UringEngine<S> {
    /// Makes the rings. To be called on the thread that will run the engine.
    ///
    /// # Errors
    /// If the kernel refuses a ring, with the cure.
    pub fn new(
        config: EngineConfig,
        clock: Clock,
        tick: TickLength,
        shard: Shard<S, Connection>,
        mailbox: Mailbox,
    ) -> Result<UringEngine<S>, EngineError> {
        if let Some(core) = config.core {
            pin_to(core)
                .map_err(|source| EngineError::Setup { what: "pinning a thread", source })?;
        }
        let mut members = Vec::with_capacity(config.listeners.len());
        for listeners in config.listeners {
            let member = Member::new(listeners, &config.tuning)?;
            if members.len() != MAIN {
                member.ring.signal_by(mailbox.bell())?;
            }
            members.push(member);
        }
        Ok(UringEngine {
            clock,
            tick,
            tuning: config.tuning,
            members,
            shard,
            mailbox,
            counters: EngineCounters::default(),
            batch: Vec::with_capacity(COMPLETIONS_PER_BATCH),
            effects: Vec::new(),
            swept: Tick::NEVER,
            sweep_us: Histogram::new_with_bounds(1, SWEEP_US_MAX, 2)
                .expect("the bounds are constant"),
            woken: false,
            status: config.status,
            publish_at: Timestamp::ZERO,
            stop_by: None,
        })
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// If a ring fails as a whole.
    pub fn run(mut self) -> Result<EngineReport, EngineError> {
        for member in &mut self.members {
            member.arm_listeners();
        }
        self.listen_to_bell();
        let mut unfinished = false;
        while !self.finished() {
            self.counters.turns += 1;
            self.sleep(unfinished)?;
            let now = self.clock.now();
            unfinished = !self.collect()?;
            if unfinished {
                self.counters.busy_turns += 1;
            } else {
                // All that had arrived before `now` has been seen: time may pass.
                unfinished = self.sweep(now) == Progress::More;
            }
            self.keep_house(now);
        }
        Ok(self.publish())
    }

    /// Submits what the main ring has queued and sleeps, unless there is work to do at once.
    fn sleep(&mut self, unfinished: bool) -> Result<(), RingError> {
        let busy = unfinished || (0..self.members.len()).any(|index| self.needs_visit(index));
        let wait = if busy {
            Wait::No
        } else {
            let now = self.clock.now();
            let next_tick = self.tick.start(self.tick.deadline(now + Duration::from_nanos(1)));
            Wait::For {
                completions: self.tuning.wait_completions,
                min: self.tuning.wait_min,
                max: next_tick.since(now),
            }
        };
        self.members[MAIN].ring.enter(wait)
    }

    /// Enters every ring that has something and handles its completions. Whether everything that
    /// had arrived when the turn began is done.
    fn collect(&mut self) -> Result<bool, RingError> {
        let mut done = true;
        for index in 0..self.members.len() {
            let mut enters = 0;
            while self.needs_visit(index) {
                if enters == ENTERS_PER_TURN_MAX {
                    done = false;
                    break;
                }
                enters += 1;
                self.visit(index)?;
            }
        }
        Ok(done)
    }

    /// Whether a ring has something for us. What the main ring has only to submit can wait for
    /// the enter with which it goes to sleep.
    fn needs_visit(&mut self, index: usize) -> bool {
        let ring = &mut self.members[index].ring;
        ring.has_completions() || ring.has_deferred() || index != MAIN && ring.has_submissions()
    }

    /// One enter of one ring, unless all is in its queue already, and all its completions.
    fn visit(&mut self, index: usize) -> Result<(), RingError> {
        let ring = &mut self.members[index].ring;
        if ring.has_deferred() || index != MAIN && ring.has_submissions() {
            ring.enter(Wait::No)?;
        }
        // Read after the enter: whatever it brought had arrived by then.
        let now = self.clock.now();
        let mut batch = std::mem::take(&mut self.batch);
        loop {
            let more = self.members[index].ring.collect(&mut batch, COMPLETIONS_PER_BATCH);
            for completion in batch.drain(..) {
                self.handle(index, completion, now);
            }
            self.apply_effects();
            if !more {
                break;
            }
        }
        self.batch = batch;
        self.rearm_starved(index);
        Ok(())
    }

    /// Gives up whoever is due, once a tick, and in the turns after that until all are.
    fn sweep(&mut self, now: Timestamp) -> Progress {
        let tick = self.tick.current(now);
        if tick == self.swept {
            return Progress::Done;
        }
        let begun = self.clock.now();
        let progress = self.shard.advance(now);
        let took = self.clock.now().since(begun);
        if progress == Progress::Done {
            self.swept = tick;
        }
        self.apply_effects();
        self.counters.sweeps += 1;
        // A value beyond the histogram's range counts as its greatest.
        self.sweep_us.saturating_record(took.as_micros() as u64);
        progress
    }

    /// What is done once a turn: publishing, commands, accepts that rest, stopping.
    fn keep_house(&mut self, now: Timestamp) {
        if now >= self.publish_at {
            self.publish_at = now + PUBLISH_INTERVAL;
            self.publish();
        }
        for member in &mut self.members {
            member.resume_accepting(now);
        }
        if std::mem::take(&mut self.woken) {
            while let Some(command) = self.mailbox.take() {
                if command.obey(&mut self.shard, now) {
                    self.stop_by = Some(now + STOP_TIMEOUT);
                }
            }
            self.apply_effects();
        }
        if self.stop_by.is_some() {
            for member in &mut self.members {
                member.stop_accepting();
            }
            self.shard.stop(EXPIRED_PER_TURN_MAX);
            self.apply_effects();
        }
    }

    /// Whether the engine was told to stop and everybody has gone, or has had the time to go.
    fn finished(&self) -> bool {
        let Some(stop_by) = self.stop_by else { return false };
        let gone = self.shard.is_empty()
            && self.members.iter().all(|member| member.is_empty() && !member.is_accepting());
        gone || self.clock.now() >= stop_by
    }

    /// Has the main ring read the eventfd: one signal, one completion.
    fn listen_to_bell(&mut self) {
        let tag = Tag::new(Op::Wake, 0, 0);
        self.members[MAIN].ring.read_wake(self.mailbox.bell().as_fd(), tag);
    }

    /// Brings the account up to date and publishes it.
    fn publish(&mut self) -> EngineReport {
        let mut ring = RingCounters::default();
        self.counters.buffers_held = 0;
        for member in &self.members {
            ring.add(&member.ring.counters());
            self.counters.buffers_held += u64::from(member.ring.buffers_held());
        }
        self.counters.sweep_us_p50 = self.sweep_us.value_at_quantile(0.5);
        self.counters.sweep_us_p99 = self.sweep_us.value_at_quantile(0.99);
        self.counters.sweep_us_p999 = self.sweep_us.value_at_quantile(0.999);
        self.counters.sweep_us_max = self.sweep_us.max();
        self.counters.cpu_us = thread_cpu_us();
        let counters = self.shard.publish().clone();
        let report = EngineReport { counters, engine: self.counters, ring };
        self.status.write(&report);
        report
    }
}
