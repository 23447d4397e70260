//! The ring engine: one thread, one shard, a group of io_uring instances.
//!
//! The first ring of the group sleeps for all: the others signal an eventfd that it reads, and so
//! does the mailbox. It sleeps until a batch of completions is there, or a short time has passed
//! with at least one, or the next tick is due. Then every ring that has something is entered.
//!
//! Cost of a heartbeat: its share of one or two `io_uring_enter`, three completions (poll, receive,
//! send), two cache lines (session, deadline). No allocation, no lock, no log line; the clock is
//! read once after each enter.
//! Needs Linux 6.1; 6.12 for the minimum wait.

mod completions;
mod connection;
mod member;
mod polling;

use std::os::fd::AsFd;
use std::time::Duration;

pub use self::connection::Connection;
use self::member::{Member, server_ring};
use crate::engine::housekeeper::Housekeeper;
use crate::engine::{
    EngineConfig, EngineCounters, EngineError, EngineReport, Mailbox, Tuning, pin_to,
};
use crate::limits::{COMPLETIONS_PER_BATCH, ENTERS_PER_TURN_MAX, READS_PER_TURN_MAX};
use crate::mutants::{Mutant, is};
use crate::ring::{
    BufferAccount, Completion, Op, Ring, RingCounters, RingError, RingFace, RingRole, Tag, Wait,
};
use crate::shard::{Effect, Shard};
use crate::sweep::{Progress, Sweeper};
use crate::time::{Clock, TickLength, Timestamp};

/// The ring that sleeps.
const MAIN: usize = 0;

/// A shard and the rings that carry its connections.
pub struct UringEngine<S, R: RingFace = Ring> {
    clock: Clock,
    house: Housekeeper,
    tuning: Tuning,
    members: Vec<Member<R>>,
    shard: Shard<S, Connection>,
    mailbox: Mailbox,
    counters: EngineCounters,
    batch: Vec<Completion<R::Buffer>>,
    effects: Vec<Effect>,
    woken: bool,
    /// When the shard has to go on with what is spread over time.
    work_at: Option<Timestamp>,
    /// Something was left undone in the last turn.
    unfinished: bool,
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
        let role = match shard.needs_addresses() {
            true => RingRole::AskingServer,
            false => RingRole::Server,
        };
        let rings = (0..config.listeners.len())
            .map(|_| server_ring(role, &config.tuning))
            .collect::<Result<Vec<_>, _>>()?;
        UringEngine::over(rings, config, clock, tick, shard, mailbox)
    }
}

impl<S: Sweeper, R: RingFace> UringEngine<S, R> {
    /// The engine over rings that are there, as many as `config` has lists of listeners.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn over(
        rings: Vec<R>,
        config: EngineConfig,
        clock: Clock,
        tick: TickLength,
        shard: Shard<S, Connection>,
        mailbox: Mailbox,
    ) -> Result<UringEngine<S, R>, EngineError> {
        let mut members = Vec::with_capacity(rings.len());
        for (ring, listeners) in rings.into_iter().zip(config.listeners) {
            if members.len() != MAIN {
                ring.signal_by(mailbox.bell())?;
            }
            members.push(Member::new(ring, listeners, &config.tuning));
        }
        Ok(UringEngine {
            clock,
            house: Housekeeper::new(clock, tick, config.status),
            tuning: config.tuning,
            members,
            shard,
            mailbox,
            counters: EngineCounters::default(),
            batch: Vec::with_capacity(COMPLETIONS_PER_BATCH),
            effects: Vec::new(),
            woken: false,
            work_at: None,
            unfinished: false,
        })
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// If a ring fails as a whole.
    pub fn run(mut self) -> Result<EngineReport, EngineError> {
        self.start();
        while !self.finished() {
            self.turn()?;
        }
        Ok(self.publish())
    }

    /// What comes before the first turn.
    pub fn start(&mut self) {
        for member in &mut self.members {
            member.arm_listeners();
        }
        self.listen_to_bell();
    }

    /// One turn of the loop: from one sleep to the next.
    ///
    /// # Errors
    /// If a ring fails as a whole.
    pub fn turn(&mut self) -> Result<(), EngineError> {
        self.counters.turns += 1;
        self.sleep(self.unfinished)?;
        let now = self.clock.now();
        let heard_until = self.collect(now)?;
        let heard_until =
            if is(Mutant::HeardUntilIgnored) { self.clock.now() } else { heard_until };
        self.unfinished = heard_until < now;
        if self.sweep(heard_until) == Progress::More {
            self.unfinished = true;
        }
        self.keep_house(now);
        self.unfinished |= self.work(now);
        self.unfinished |= self.members.iter().any(|member| !member.put_off.is_empty());
        Ok(())
    }

    /// Submits what the main ring has queued and sleeps, unless there is work to do at once.
    fn sleep(&mut self, unfinished: bool) -> Result<(), RingError> {
        let busy =
            unfinished || (0..self.members.len()).any(|index| self.needs_visit(index, false));
        let wait = if busy {
            Wait::No
        } else {
            Wait::For {
                completions: self.tuning.wait_completions,
                min: self.tuning.wait_min,
                max: self.sleep_max(),
            }
        };
        self.members[MAIN].hasty = false;
        self.members[MAIN].ring.enter(wait)
    }

    fn sleep_max(&self) -> Duration {
        let now = self.clock.now();
        let work_at = self.work_at.map_or(Duration::MAX, |at| at.since(now));
        self.house.sleep_max(now).min(work_at)
    }

    /// Has the shard go on with what is spread over time; whether there is more to do at once.
    fn work(&mut self, now: Timestamp) -> bool {
        self.work_at = self.shard.work(now);
        self.apply_effects();
        self.work_at.is_some_and(|at| at <= now)
    }

    /// Enters every ring that has something and handles its completions. Everything that had
    /// arrived before the time that this gives back has been handled: time may pass up to there.
    fn collect(&mut self, now: Timestamp) -> Result<Timestamp, RingError> {
        let sweep_due = self.house.is_sweep_due(now);
        for index in 0..self.members.len() {
            // Nothing had arrived if this ring has nothing for us, looked at after `now` was read.
            let mut heard_until = Some(now);
            let mut visits = 0;
            self.members[index].quiet = 0;
            self.read_put_off(index);
            while self.needs_visit(index, sweep_due) {
                if visits == ENTERS_PER_TURN_MAX {
                    heard_until = None;
                    self.counters.busy_turns += 1;
                    break;
                }
                visits += 1;
                self.members[index].tired = visits > READS_PER_TURN_MAX;
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
        member.ring.has_completions()
            || member.has_deferred(sweep_due)
            || Self::needs_submit(index, member, sweep_due)
    }

    fn needs_submit(index: usize, member: &mut Member<R>, sweep_due: bool) -> bool {
        !member.starved.is_empty()
            || (index != MAIN || sweep_due || member.hasty) && member.ring.has_submissions()
    }

    /// One enter of one ring, unless all is in its queue already, and all its completions.
    fn visit(&mut self, index: usize, sweep_due: bool) -> Result<(), RingError> {
        self.rearm_starved(index);
        let member = &mut self.members[index];
        let entered =
            member.has_deferred(sweep_due) || Self::needs_submit(index, member, sweep_due);
        if entered {
            member.hasty = false;
            member.ring.enter(Wait::No)?;
            member.quiet = match member.ring.has_completions() {
                true => 0,
                false => member.quiet + 1,
            };
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

    fn sweep(&mut self, now: Timestamp) -> Progress {
        let progress = self.house.sweep(&mut self.shard, &mut self.counters, now);
        self.apply_effects();
        progress
    }

    /// What is done once a turn: publishing, commands, accepts that rest, stopping.
    fn keep_house(&mut self, now: Timestamp) {
        if self.house.take_publish_due(now) {
            self.publish();
        }
        for member in &mut self.members {
            member.resume_accepting(now);
        }
        if std::mem::take(&mut self.woken) {
            // Later than whatever was opened in this turn.
            let now = self.clock.now();
            while let Some(command) = self.mailbox.take() {
                if let Some(timeout) = command.obey(&mut self.shard, now) {
                    self.house.stop(now, timeout);
                }
            }
            self.apply_effects();
        }
        if self.house.is_stopping() {
            for member in &mut self.members {
                member.stop_accepting();
            }
        }
    }

    /// The shard, to be looked at between two turns.
    pub fn shard(&self) -> &Shard<S, Connection> {
        &self.shard
    }

    /// What the engine has counted beside its shard.
    pub fn counters(&self) -> &EngineCounters {
        &self.counters
    }

    /// Whether the engine was told to stop and everybody has gone, or has had the time to go.
    pub fn finished(&self) -> bool {
        if !self.house.is_stopping() {
            return false;
        }
        let gone = self.shard.is_empty()
            && self.members.iter().all(|member| member.is_empty() && !member.is_accepting());
        gone || self.house.is_overdue(self.clock.now())
    }

    /// Has the main ring read the eventfd: one signal, one completion.
    fn listen_to_bell(&mut self) {
        let tag = Tag::new(Op::Wake, 0, 0);
        self.members[MAIN].begun();
        self.members[MAIN].ring.read_wake(self.mailbox.bell().as_fd(), tag);
    }

    /// Brings the account up to date and publishes it.
    pub fn publish(&mut self) -> EngineReport {
        let mut ring = RingCounters::default();
        let counters = &mut self.counters;
        (counters.buffers, counters.buffers_free, counters.buffers_held) = (0, 0, 0);
        counters.operations_in_flight = 0;
        for member in &mut self.members {
            ring.add(&member.ring.counters());
            let BufferAccount { total, free, held } = member.count_buffers();
            counters.buffers += u64::from(total);
            counters.buffers_free += u64::from(free);
            counters.buffers_held += u64::from(held);
            counters.operations_in_flight =
                counters.operations_in_flight.wrapping_add(member.in_flight());
        }
        self.house.publish(&mut self.shard, &mut self.counters, ring)
    }
}
