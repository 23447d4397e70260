//! A world from one seed: the ring engine's own loop over a kernel, a network and clients that
//! exist only in memory and in virtual time, with a naive oracle beside it.
//!
//! A stormy phase with faults of every kind is followed by a calm one, in which everybody must come
//! to be served, and by a stop, after which the account must balance.

mod deferred;
mod kernel;
mod oracle;
mod peers;
mod random;
mod ring;
mod submitted;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use self::kernel::Kernel;
use self::peers::{Event, Peer};
use self::random::Random;
use self::ring::SimulatedRing;
use super::uring::UringEngine;
use super::{Arming, Command, EngineConfig, EngineReport, Status, Tuning, mailbox};
use crate::counters::counters;
use crate::limits::{DRAIN_TIMEOUT, WAIT_COMPLETIONS, WAIT_MIN};
use crate::protocol::Protocol;
use crate::shard::{Admission, Policy, Shard};
use crate::socket::Listener;
use crate::sweep::{AnySweeper, Strategy};
use crate::time::{Clock, Tick, TickLength, Timestamp};

counters! {
    /// What the simulated kernel and network did to the engine, by kind.
    Faults {
        /// Accepts that failed.
        accepts_failed: sum,
        /// Connections that were dropped because a table was full.
        table_full: sum,
        /// Multishot requests that ended for no reason of their own.
        multishots_ended: sum,
        /// Receives that found no buffer.
        starved: sum,
        /// Sends that wrote a part only.
        short_sends: sum,
        /// Peers that took nothing for a while.
        choked: sum,
        /// Completions that one enter left to the next.
        late: sum,
        /// Cancellations that something had overtaken.
        overtaken: sum,
        /// Pauses of the whole process.
        stalls: sum,
        /// Mass deaths, mass connects, partitions.
        upheavals: sum,
    }
}

/// What a run has come to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// A hash over every completion and its time.
    pub trace: u64,
    /// Virtual time that has passed.
    pub simulated: Duration,
    /// What was done to the engine.
    pub faults: Faults,
    /// The engine's account at its end.
    pub report: EngineReport,
    /// What went wrong; empty if all is well.
    pub violations: Vec<String>,
}

/// The sizes and rules that a seed stands for.
struct Plan {
    strategy: Strategy,
    rings: usize,
    peers: usize,
    limit: usize,
    tuning: Tuning,
    policy: Policy,
}

impl Plan {
    fn new(seed: u64, random: &mut Random) -> Plan {
        let strategy = Strategy::ALL[seed as usize % Strategy::ALL.len()];
        let arming = [Arming::Receive, Arming::Poll][(seed as usize / Strategy::ALL.len()) % 2];
        let tuning = Tuning {
            slots: random.between(8, 40) as u32,
            completion_entries: 64,
            buffers: random.pick(&[2, 4, 16]),
            buffer_bytes: random.pick(&[4, 16, 128]),
            arming,
            wait_completions: WAIT_COMPLETIONS,
            wait_min: WAIT_MIN,
        };
        let policy = Policy {
            tick: TickLength::new(Duration::from_millis(random.pick(&[20, 100, 250]))),
            heartbeat_interval: Duration::from_millis(2_000),
            idle_timeout: Duration::from_millis(random.pick(&[4_500, 6_000])),
            hello_timeout: Duration::from_millis(random.pick(&[1_500, 9_000])),
            frame_timeout: Duration::from_millis(1_300),
            stall_timeout: Duration::from_millis(2_500),
            send_queue_bytes: 300,
            frame_bytes_max: 4_096,
            echo: random.per_mille(600),
            ..Policy::default()
        };
        let (rings, peers) = (random.between(1, 3) as usize, random.between(4, 30) as usize);
        Plan { strategy, rings, peers, limit: random.between(6, 60) as usize, tuning, policy }
    }
}

/// Runs the world of `seed`: `storm` of virtual time with faults, then a calm.
///
/// # Errors
/// If there is no descriptor left for the mailbox.
pub fn simulate(seed: u64, storm: Duration) -> io::Result<Outcome> {
    let mut random = Random::new(seed);
    let plan = Plan::new(seed, &mut random);
    // Eight bytes for each world: the clock is copied about, and must not dangle.
    let nanos: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(1_234_567)));
    let clock = Clock::simulated(nanos);
    let Plan { strategy, rings, peers, limit, tuning, policy } = plan;
    let kernel = Kernel::new(random, nanos, rings, tuning, policy.clone());
    let kernel = Rc::new(RefCell::new(kernel));
    let (mail, mailbox) = mailbox()?;
    let listener = || -> io::Result<Vec<Listener>> {
        let socket = std::fs::File::open("/dev/null")?.into();
        Ok(vec![Listener { protocol: Protocol::Tcp, socket }])
    };
    let config = EngineConfig {
        core: None,
        listeners: (0..rings).map(|_| listener()).collect::<io::Result<_>>()?,
        tuning,
        status: Arc::new(Status::default()),
    };
    let capacity = tuning.slots as usize * rings;
    let sweeper = AnySweeper::new(strategy, capacity, Tick(0));
    let tick = policy.tick;
    let shard = Shard::new(0, policy, Admission::new(limit), sweeper, capacity);
    let faces = (0..rings).map(|number| SimulatedRing { kernel: Rc::clone(&kernel), number });
    let engine = UringEngine::over(faces.collect(), config, clock, tick, shard, mailbox)
        .map_err(io::Error::other)?;
    let mut world = World { engine, kernel, clock };
    world.populate(peers);
    world.engine.start();
    world.run_until(clock.now() + storm)?;
    world.calm_down();
    world.run_until(clock.now() + Duration::from_secs(25))?;
    let room = tuning.slots as usize - 2;
    world.judge_the_calm(peers.min(limit).min(room));
    world.kernel.borrow_mut().stop();
    let (spread, timeout) = (Duration::from_secs(seed % 3), DRAIN_TIMEOUT);
    mail.send(Command::Drain { spread, timeout, reply: None });
    world.kernel.borrow_mut().ring_bell();
    world.finish()
}

struct World {
    engine: UringEngine<AnySweeper, SimulatedRing>,
    kernel: Rc<RefCell<Kernel>>,
    clock: Clock,
}

impl World {
    fn populate(&mut self, peers: usize) {
        let mut kernel = self.kernel.borrow_mut();
        for peer in 0..peers {
            kernel.peers.push(Peer::new());
            kernel.schedule_in_ms(1, 3_000, Event::Connect(peer));
        }
        kernel.schedule_in_ms(2_000, 20_000, Event::Upheaval);
    }

    fn turn(&mut self) -> io::Result<()> {
        self.kernel.borrow_mut().begin_turn();
        self.engine.turn().map_err(io::Error::other)?;
        let broken: Vec<String> = self
            .engine
            .publish()
            .laws()
            .iter()
            .filter(|law| !law.holds)
            .map(|law| format!("{law:?}"))
            .collect();
        for law in broken {
            self.kernel.borrow_mut().violated(law);
        }
        Ok(())
    }

    fn is_hopeless(&self) -> bool {
        !self.kernel.borrow().violations.is_empty()
    }

    fn run_until(&mut self, until: Timestamp) -> io::Result<()> {
        while self.clock.now() < until && !self.is_hopeless() {
            self.turn()?;
        }
        Ok(())
    }

    fn calm_down(&mut self) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.stormy = false;
        kernel.schedule_in_ms(1, 2, Event::Upheaval);
    }

    /// After the calm, somebody is served at least, and all who are open are.
    fn judge_the_calm(&mut self, least: usize) {
        let report = self.engine.publish();
        let open = report.counters.totals.open;
        let mut kernel = self.kernel.borrow_mut();
        if (open as usize) < least && kernel.violations.is_empty() {
            kernel.violated(format!("only {open} are open after the calm, {least} could be"));
        }
    }

    fn finish(mut self) -> io::Result<Outcome> {
        let by = self.clock.now() + Duration::from_secs(60);
        while !self.engine.finished() && self.clock.now() < by && !self.is_hopeless() {
            self.turn()?;
        }
        let report = self.engine.publish();
        let mut kernel = self.kernel.borrow_mut();
        if !kernel.violations.is_empty() {
            kernel.explain(&report.counters.closed);
        } else {
            let counters = &report.counters;
            let pings: u64 = kernel.links.iter().map(|link| link.account.pings).sum();
            let sure: u64 = kernel.links.iter().map(|link| link.account.pings_sure).sum();
            let received = counters.totals.heartbeats_received;
            let ends = [counters.totals.open, counters.totals.table_entries];
            let in_flight = report.ring.submissions - report.ring.terminal_completions;
            let closed = counters.closed;
            if ends != [0, 0] {
                kernel.violated(format!("open and in the table after the stop: {ends:?}"));
            }
            if received < sure || received > pings {
                kernel.violated(format!("{sure} to {pings} heartbeats read, {received} counted"));
            }
            if in_flight != 1 {
                kernel.violated(format!("{in_flight} in flight; only the bell's read may be"));
            }
            kernel.explain(&closed);
        }
        let simulated = Duration::from_nanos(self.clock.now().as_nanos().saturating_sub(1_234_567));
        Ok(Outcome {
            trace: kernel.trace,
            simulated,
            faults: kernel.faults,
            report,
            violations: std::mem::take(&mut kernel.violations),
        })
    }
}
