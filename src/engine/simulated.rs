//! A simulator: the real engine's loop, shard, codecs and sweepers on a simulated kernel, among
//! simulated clients, in virtual time; everything follows from one seed.
//!
//! [`simulate`] runs one seed: first a time in which everything goes wrong that may (faults of the
//! kernel, clients of every kind, mass death, partitions), then one in which nothing does, then a
//! stop. A naive oracle says at each step what ought to happen. What is found wrong comes back with
//! the seed, which replays the run to the byte.
//!
//! What is modelled, and what is not, stands in `docs/decisions/0005-simulator.md`.

mod client;
mod kernel;
mod operations;
mod oracle;
mod peer;
mod random;
mod ring;
mod time;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

use self::random::Random;
use self::ring::SimulatedRing;
use self::world::{Event, World};
use super::uring::UringEngine;
use super::{Arming, Command, EngineConfig, EngineError, MailSender, Status, Tuning, mailbox};
use crate::limits::DRAIN_TIMEOUT;
use crate::protocol::Protocol;
use crate::shard::{Activity, Admission, Policy, Shard};
use crate::socket::Listener;
use crate::sweep::{AnySweeper, Strategy};
use crate::time::{Tick, TickLength, Timestamp};

/// The sizes of a simulated server and of its world.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    rings: usize,
    slots: u32,
    submission_entries: usize,
    completion_entries: usize,
    buffers: u16,
    buffer_bytes: u32,
    clients: usize,
}

/// How often faults happen, in a thousand cases.
#[derive(Clone, Copy, Debug)]
struct Rates {
    multishot_ends: u32,
    accept_fails: u32,
    late: u32,
    late_us_max: u64,
    short_send: u32,
    partial_read: u32,
    leave_work: u32,
    stale_flag: u32,
    interrupted: u32,
    slow: u32,
    paused: u32,
    pause_ms_max: u64,
    healthy: u32,
    reconnect: u32,
    come_back: u32,
}

/// What the oracle knows of the server's policy.
#[derive(Clone, Copy, Debug)]
struct Rules {
    tick: TickLength,
    idle_timeout: Duration,
    heartbeat_interval: Duration,
    hello_timeout: Duration,
    frame_timeout: Duration,
    stall_timeout: Duration,
    frame_bytes_max: usize,
    echo: bool,
    expiry: bool,
    activity: Activity,
    /// The tables are so small that even the healthy may wait for a place for longer than the
    /// server then waits for them.
    is_harsh: bool,
}

/// What a run of one seed has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How much time has passed in it.
    pub simulated: Duration,
    /// Turns of the engine's loop.
    pub turns: u64,
    /// Heartbeats received.
    pub heartbeats: u64,
    /// Sessions opened.
    pub sessions: u64,
    /// Sessions given up because a deadline had passed.
    pub expiries: u64,
    /// Faults that were injected, by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// A hash over everything that the engine was told and has asked for.
    pub trace: u64,
}

/// The first thing that went wrong in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The seed that shows it again.
    pub seed: u64,
    /// What it is.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; replay it with HEARTWHEEL_SEED={}", self.what, self.seed)
    }
}

impl std::error::Error for Violation {}

/// How often the laws are looked at that need the gauges brought up to date.
const LAWS_EVERY_TURNS: u64 = 64;

type Engine = UringEngine<AnySweeper, SimulatedRing>;

/// Runs one seed: `chaos` of virtual time in which everything goes wrong, and then the rest.
///
/// # Errors
/// What the oracle found wrong first.
pub fn simulate(seed: u64, chaos: Duration) -> Result<Outcome, Violation> {
    Simulation::new(seed).run(chaos)
}

struct Simulation {
    seed: u64,
    world: Rc<RefCell<World>>,
    engine: Engine,
    mail: MailSender,
    stops_in_chaos: bool,
    busy_turns: u64,
    turns: u64,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut random = Random::new(seed);
        let sizes = sizes(&mut random);
        let rules = rules(&mut random, &sizes);
        let world =
            Rc::new(RefCell::new(World::new(seed, sizes, rates(&mut random, &rules), rules)));
        let strategy = random.pick(Strategy::ALL);
        let stops_in_chaos = random.chance(200);
        let (engine, mail) = make_engine(&world, &mut random, strategy, &sizes, &rules)
            .unwrap_or_else(|error| panic!("seed {seed}: no engine: {error}"));
        Simulation { seed, world, engine, mail, stops_in_chaos, busy_turns: 0, turns: 0 }
    }

    fn run(mut self, chaos: Duration) -> Result<Outcome, Violation> {
        let end = Timestamp::ZERO + chaos;
        self.engine.start();
        {
            let mut world = self.world.borrow_mut();
            world.schedule(Timestamp::from_nanos(1), Event::Fate);
        }
        self.turn_until(end)?;
        if !self.stops_in_chaos {
            self.calm()?;
        }
        self.stop()
    }

    fn turn_until(&mut self, end: Timestamp) -> Result<(), Violation> {
        while self.world.borrow().now() < end {
            self.turn()?;
        }
        Ok(())
    }

    /// One turn of the engine, and the oracle's opinion of it.
    fn turn(&mut self) -> Result<(), Violation> {
        {
            let mut world = self.world.borrow_mut();
            world.turn_begins = true;
            world.end_closes();
            for key in std::mem::take(&mut world.kicks) {
                self.mail.send(Command::Kick { key, reply: oneshot::channel().0 });
                world.ring_bell();
            }
        }
        if let Err(error) = self.engine.turn() {
            return Err(self.violation(error.to_string()));
        }
        // Bringing the whole account up to date costs more than the turn: now and then will do.
        self.turns += 1;
        let laws =
            self.turns.is_multiple_of(LAWS_EVERY_TURNS).then(|| self.engine.publish().laws());
        let mut world = self.world.borrow_mut();
        for law in laws.into_iter().flatten().filter(|law| !law.holds) {
            world.violate(format!("{law:?}"));
        }
        for (key, peer) in std::mem::take(&mut world.closes) {
            match self.engine.shard().session(key) {
                Some(session) => world.judge_reason(peer, session.parting),
                None => world.violate(format!("{key:?} is gone before its close has ended")),
            }
        }
        world.judge_counters(self.engine.shard().counters());
        let held: u32 = world.rings.iter().map(|ring| ring.held()).sum();
        if held > 0 {
            world.violate(format!("{held} buffers are held between turns"));
        }
        let busy_turns = self.engine.counters().busy_turns;
        let heard_all = busy_turns == self.busy_turns;
        self.busy_turns = busy_turns;
        if heard_all {
            world.judge_lateness();
        }
        let found = world.violation.take();
        drop(world);
        found.map_or(Ok(()), |what| Err(self.violation(what)))
    }

    fn violation(&self, what: String) -> Violation {
        Violation { seed: self.seed, what }
    }

    /// No more faults: whoever does not behave dies out, and the healthy are all there.
    fn calm(&mut self) -> Result<(), Violation> {
        let end = {
            let mut world = self.world.borrow_mut();
            world.chaos = false;
            let ids = world.live.clone();
            for id in ids {
                let client = &mut world.peers[id];
                client.dead |= !client.behaviour.is_healthy();
            }
            world.forget_dead_who_wait();
            let rules = world.rules;
            let longest = rules.idle_timeout.max(rules.hello_timeout).max(rules.frame_timeout);
            let patience = longest + rules.stall_timeout + rules.tick.as_duration() * 4;
            // The last partition may still last.
            world.now().max(world.partition_until) + patience + Duration::from_secs(5)
        };
        self.turn_until(end)?;
        let report = self.engine.publish();
        let mut world = self.world.borrow_mut();
        let rules = world.rules;
        let all = world.live.iter().copied();
        let connected: Vec<_> = all.filter(|&id| world.peers[id].place.is_some()).collect();
        let dead = connected.iter().filter(|&&id| world.peers[id].dead).count();
        let (open, counted) = (connected.len() as u64, report.counters.open);
        if world.anybody_waits() {
            world.violate("somebody waits to be accepted, and there is room".to_owned());
        }
        if open != counted {
            world.violate(format!("{open} clients are connected, and {counted} sessions open"));
        }
        if dead > 0 && rules.expiry {
            world.violate(format!("{dead} dead clients are still there"));
        }
        let waiting = world.live.iter().filter(|&&id| world.waits_for_reply(id)).count();
        if waiting > 0 {
            world.violate(format!("{waiting} clients have waited long for their replies"));
        }
        let found = world.violation.take();
        drop(world);
        found.map_or(Ok(()), |what| Err(self.violation(what)))
    }

    /// The server is told to stop: everybody goes, in good time.
    fn stop(mut self) -> Result<Outcome, Violation> {
        let (spread, timeout) = (Duration::ZERO, DRAIN_TIMEOUT);
        self.mail.send(Command::Drain { spread, timeout, reply: None });
        let overdue = {
            let mut world = self.world.borrow_mut();
            world.stopping = true;
            world.chaos = false;
            world.ring_bell();
            world.now() + DRAIN_TIMEOUT
        };
        while !self.engine.finished() {
            self.turn()?;
            if self.world.borrow().now() > overdue + Duration::from_secs(1) {
                return Err(self.violation("the stop is not obeyed".to_owned()));
            }
        }
        let report = self.engine.publish();
        let world = self.world.borrow();
        let ring = report.ring;
        let left = [
            ("sessions in the table", report.counters.table_entries),
            ("sessions open", report.counters.open),
            ("buffers astray", world.buffers_astray() as u64),
            ("turns past the stop's timeout", u64::from(world.now() >= overdue)),
            (
                "operations of which nobody knows",
                (ring.submissions - ring.terminal_completions).abs_diff(world.in_flight()),
            ),
        ];
        if let Some((what, count)) = left.into_iter().find(|(_, count)| *count > 0) {
            return Err(self.violation(format!("after the stop: {what}: {count}")));
        }
        Ok(Outcome {
            simulated: world.now().since(Timestamp::ZERO),
            turns: report.engine.turns,
            heartbeats: report.counters.heartbeats_received,
            sessions: report.counters.opened,
            expiries: world.tally.expiries,
            faults: world.faults.clone(),
            trace: world.trace,
        })
    }
}

fn sizes(random: &mut Random) -> Sizes {
    let completion_entries = random.pick(&[8, 16, 64, 512]);
    Sizes {
        rings: random.within(1, 3) as usize,
        slots: random.pick(&[6, 20, 60]),
        submission_entries: random.pick(&[4, 16, 256]),
        completion_entries,
        buffers: random.pick(&[2, 4, 16, 64]),
        buffer_bytes: random.pick(&[16, 64, 256]),
        clients: random.within(4, 60) as usize,
    }
}

fn rules(random: &mut Random, sizes: &Sizes) -> Rules {
    let tick_ms = random.pick(&[1, 10, 100, 1_000]);
    let idle_timeout_ms = random.pick(&[2_000, 5_000, 30_000]);
    let ms = Duration::from_millis;
    Rules {
        tick: TickLength::new(ms(tick_ms)),
        idle_timeout: ms(idle_timeout_ms),
        heartbeat_interval: ms(idle_timeout_ms / 3),
        hello_timeout: ms(random.within(1_000, 10_000)),
        frame_timeout: ms(random.within(500, 10_000)),
        stall_timeout: ms(random.within(1_000, 15_000)),
        frame_bytes_max: random.pick(&[300, 2_000]),
        echo: random.chance(500),
        expiry: random.chance(950),
        activity: random.pick(&[Activity::Receive, Activity::Any]),
        is_harsh: sizes.slots as usize * sizes.rings < sizes.clients * 2,
    }
}

/// Some seeds have hardly any faults, some many of one kind.
fn rates(random: &mut Random, rules: &Rules) -> Rates {
    let mut rate = |most: u64| random.pick(&[0, 0, 1, 2]) * random_part(most);
    Rates {
        multishot_ends: rate(200),
        accept_fails: rate(100),
        late: rate(400),
        late_us_max: 200_000,
        short_send: rate(400),
        partial_read: rate(300),
        leave_work: rate(500),
        stale_flag: rate(300),
        interrupted: rate(200),
        slow: rate(100),
        paused: rate(10),
        pause_ms_max: rules.idle_timeout.as_millis() as u64 * 3,
        healthy: 500,
        reconnect: rate(100),
        come_back: 300,
    }
}

fn random_part(most: u64) -> u32 {
    most as u32 / 2
}

fn make_engine(
    world: &Rc<RefCell<World>>,
    random: &mut Random,
    strategy: Strategy,
    sizes: &Sizes,
    rules: &Rules,
) -> Result<(Engine, MailSender), EngineError> {
    let setup = |what| move |source| EngineError::Setup { what, source };
    let (mail, mailbox) = mailbox().map_err(setup("making a mailbox"))?;
    let policy = Policy {
        tick: rules.tick,
        heartbeat_interval: rules.heartbeat_interval,
        idle_timeout: rules.idle_timeout,
        activity: rules.activity,
        expiry: rules.expiry,
        hello_timeout: rules.hello_timeout,
        frame_timeout: rules.frame_timeout,
        stall_timeout: rules.stall_timeout,
        send_queue_bytes: 4_000,
        frame_bytes_max: rules.frame_bytes_max,
        echo: rules.echo,
        ..Policy::default()
    };
    let capacity = sizes.slots as usize * sizes.rings;
    let sweeper = AnySweeper::new(strategy, capacity, Tick(0));
    let shard = Shard::new(0, policy, Admission::new(capacity), sweeper, capacity);
    // Stand-ins: the simulated rings know listeners by their number.
    let stand_in = || -> Result<OwnedFd, EngineError> {
        let made = eventfd(0, EventfdFlags::CLOEXEC).map_err(std::io::Error::from);
        made.map_err(setup("making an eventfd"))
    };
    let mut listeners = Vec::new();
    for _ in 0..sizes.rings {
        listeners.push(vec![
            Listener { protocol: Protocol::Tcp, socket: stand_in()? },
            Listener { protocol: Protocol::WebSocket, socket: stand_in()? },
        ]);
    }
    let config = EngineConfig {
        core: None,
        listeners,
        tuning: Tuning {
            slots: sizes.slots,
            completion_entries: sizes.completion_entries as u32,
            buffers: sizes.buffers,
            buffer_bytes: sizes.buffer_bytes,
            arming: random.pick(&[Arming::Receive, Arming::Poll]),
            wait_completions: random.pick(&[1, 8, 64]),
            wait_min: Duration::from_micros(random.pick(&[0, 1_000])),
        },
        status: Arc::new(Status::default()),
    };
    let clock = world.borrow().time.clock();
    let rings = (0..sizes.rings).map(|number| SimulatedRing::new(world, number)).collect();
    let engine = UringEngine::over(rings, config, clock, rules.tick, shard, mailbox)?;
    Ok((engine, mail))
}
