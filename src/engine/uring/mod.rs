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
            let heard_until = self.collect(now)?;
            unfinished = heard_until < now;
            if self.sweep(heard_until) == Progress::More {
                unfinished = true;
            }
            self.keep_house(now);
        }
        Ok(self.publish())
    }

    /// Submits what the main ring has queued and sleeps, unless there is work to do at once.
    fn sleep(&mut self, unfinished: bool) -> Result<(), RingError> {
        let busy =
            unfinished || (0..self.members.len()).any(|index| self.needs_visit(index, false));
        let wait = if busy {
            Wait::No
        } else {
            let now = self.clock.now();
            let next_tick = self.tick.start(self.tick.deadline(now + Duration::from_nanos(1)));
            Wait::For {
                completions: self.tuning.wait_completions,
                min: self.tuning.wait_min,
                // Publishing, and accepts that rest, do not wait for a long tick.
                max: next_tick.since(now).min(PUBLISH_INTERVAL),
            }
        };
        self.members[MAIN].ring.enter(wait)
    }

    /// Enters every ring that has something and handles its completions. Everything that had
    /// arrived before the time that this gives back has been handled: time may pass up to there.
    fn collect(&mut self, now: Timestamp) -> Result<Timestamp, RingError> {
        let sweep_due = self.tick.current(now) != self.swept;
        for index in 0..self.members.len() {
            // Nothing had arrived if this ring has nothing for us, looked at after `now` was read.
            let mut heard_until = Some(now);
            let mut visits = 0;
            while self.needs_visit(index, sweep_due) {
                if visits == ENTERS_PER_TURN_MAX {
                    heard_until = None;
                    self.counters.busy_turns += 1;
                    break;
                }
                visits += 1;
                self.visit(index, sweep_due)?;
            }
            let member = &mut self.members[index];
            member.heard_until = heard_until.unwrap_or(member.heard_until);
        }
        Ok(self.members.iter().map(|member| member.heard_until).min().unwrap_or(now))
    }

    /// Whether a ring has something for us. What the main ring has only to submit can wait for
    /// the enter with which it goes to sleep, unless a sweep is due: a receive that is to be armed
    /// may find bytes that had arrived before.
    fn needs_visit(&mut self, index: usize, sweep_due: bool) -> bool {
        let member = &mut self.members[index];
        member.ring.has_completions() || Self::needs_enter(index, member, sweep_due)
    }

    fn needs_enter(index: usize, member: &mut Member, sweep_due: bool) -> bool {
        member.ring.has_deferred()
            || !member.starved.is_empty()
            || (index != MAIN || sweep_due) && member.ring.has_submissions()
    }

    /// One enter of one ring, unless all is in its queue already, and all its completions.
    fn visit(&mut self, index: usize, sweep_due: bool) -> Result<(), RingError> {
        self.rearm_starved(index);
        let member = &mut self.members[index];
        if Self::needs_enter(index, member, sweep_due) {
            member.ring.enter(Wait::No)?;
        }
        let mut batch = std::mem::take(&mut self.batch);
        loop {
            let more = self.members[index].ring.collect(&mut batch, COMPLETIONS_PER_BATCH);
            // Read after the completions were taken: what they bring had arrived by then.
            let now = self.clock.now();
            for completion in batch.drain(..) {
                self.handle(index, completion, now);
            }
            self.apply_effects();
            if !more {
                break;
            }
        }
        self.batch = batch;
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
                    self.stop_by.get_or_insert(now + STOP_TIMEOUT);
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
