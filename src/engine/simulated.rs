//! A simulator: the real engine's loop, shard, codecs and sweepers on a simulated kernel, among
//! simulated clients, in virtual time; everything follows from one seed.
//!
//! [`simulate`] runs one seed: first a time in which everything goes wrong that may (faults of the
//! kernel, clients of every kind, mass death, partitions), then one in which nothing does, then a
//! stop. A naive oracle says at each step what ought to happen. What is found wrong comes back with
//! the seed, which replays the run to the byte.
//!
//! What is modelled, and what is not, stands in `docs/decisions/0005-simulator.md`.

mod account;
mod behaviour;
mod client;
mod farewell;
mod fate;
mod gate;
mod held_up;
mod kernel;
mod lateness;
mod operations;
mod oracle;
mod peer;
mod pushes;
mod random;
mod ring;
mod setup;
mod time;
mod web_socket;
mod world;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::catch_unwind;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;

use self::farewell::Draining;
use self::fate::Order;
use self::random::Random;
use self::ring::SimulatedRing;
pub use self::setup::{BOUNDED, CROWDS, Seeds};
use self::setup::{Rates, Rules, Sizes, TICKS_MS, make_engine, rates, rules, sizes};
use self::world::{Event, World};
use super::uring::UringEngine;
use super::{Command, EngineReport, MailSender};
use crate::shard::{Law, PushAccount, PushMessage, PushRefused};
use crate::sweep::{AnySweeper, Strategy};
use crate::time::Timestamp;

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
    /// How often the parts of the server that have to be reached were, by name.
    pub exercised: BTreeMap<&'static str, u64>,
    /// A hash over everything that the engine was told and has asked for.
    pub trace: u64,
}

impl Outcome {
    /// Adds another world's.
    pub fn add(&mut self, other: &Outcome) {
        self.simulated += other.simulated;
        self.turns += other.turns;
        self.heartbeats += other.heartbeats;
        self.sessions += other.sessions;
        self.expiries += other.expiries;
        for (&name, count) in &other.faults {
            *self.faults.entry(name).or_default() += count;
        }
        for (&name, count) in &other.exercised {
            *self.exercised.entry(name).or_default() += count;
        }
        self.trace ^= other.trace;
    }
}

/// The first thing that went wrong in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The seed that shows it again.
    pub seed: u64,
    /// With so much time of faults.
    pub chaos: Duration,
    /// What it is.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { seed, chaos, what } = self;
        let ms = chaos.as_millis();
        write!(f, "{what}; replay it with scripts/simulate --seeds 1 --from {seed} --length {ms}ms")
    }
}

impl std::error::Error for Violation {}

/// How often the laws are looked at that need the gauges brought up to date.
const LAWS_EVERY_TURNS: u64 = 64;

/// How long worlds with each of [`TICKS_MS`] run, among each other.
const LENGTHS: [f64; TICKS_MS.len()] = [1.0, 8.0, 40.0, 40.0];

type Engine = UringEngine<AnySweeper, SimulatedRing>;

/// Runs one seed: `chaos` of virtual time in which everything goes wrong, and then the rest.
///
/// # Errors
/// What the oracle found wrong first, a panic included.
pub fn simulate(seed: u64, chaos: Duration) -> Result<Outcome, Violation> {
    catch_unwind(|| Simulation::new(seed, chaos).run()).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let what = format!("a panic: {}", text.unwrap_or_default());
        Err(Violation { seed, chaos, what })
    })
}

/// How long to run a seed so that all take about as long, if they run for `mean` on the whole: a
/// world with short ticks has many turns. In whole milliseconds.
pub fn fitting_length(seed: u64, mean: Duration) -> Duration {
    let mut random = Random::new(seed);
    let sizes = sizes(seed, &mut random);
    let tick = rules(&mut random, &sizes).tick.as_duration();
    let at = TICKS_MS.iter().position(|&ms| Duration::from_millis(ms) == tick).unwrap_or(0);
    let share = LENGTHS[at] / LENGTHS.iter().sum::<f64>() * LENGTHS.len() as f64;
    Duration::from_millis(mean.mul_f64(share).as_millis() as u64)
}

/// A question to the shard that it has not answered.
struct Asked {
    id: u64,
    /// The only one whom the push is for.
    peer: Option<usize>,
    answer: oneshot::Receiver<Result<PushAccount, PushRefused>>,
}

struct Simulation {
    seed: u64,
    chaos: Duration,
    world: Rc<RefCell<World>>,
    engine: Engine,
    mail: MailSender,
    asked: VecDeque<Asked>,
    drain: Option<oneshot::Receiver<u64>>,
    stops_in_chaos: bool,
    drain_spread: Duration,
    busy_turns: u64,
    turns: u64,
}

impl Simulation {
    fn new(seed: u64, chaos: Duration) -> Simulation {
        let mut random = Random::new(seed);
        let sizes = sizes(seed, &mut random);
        let rules = rules(&mut random, &sizes);
        let rates = rates(&mut random, &rules, chaos);
        let world = Rc::new(RefCell::new(World::new(seed, sizes, rates, rules)));
        let strategy = random.pick(Strategy::ALL);
        let stops_in_chaos = random.chance(300);
        let drain_spread = Duration::from_millis(random.pick(&[0, 0, 500, 3_000, 8_000]));
        let (engine, mail) = make_engine(&world, &mut random, strategy, &sizes, &rules)
            .unwrap_or_else(|error| panic!("seed {seed}: no engine: {error}"));
        Simulation {
            seed,
            chaos,
            world,
            engine,
            mail,
            asked: VecDeque::new(),
            drain: None,
            stops_in_chaos,
            drain_spread,
            busy_turns: 0,
            turns: 0,
        }
    }

    fn run(mut self) -> Result<Outcome, Violation> {
        let end = Timestamp::ZERO + self.chaos;
        self.engine.start();
        {
            let mut world = self.world.borrow_mut();
            world.schedule(Timestamp::from_nanos(1), Event::Fate);
        }
        self.turn_until(end)?;
        self.judge_account()?;
        if !self.stops_in_chaos {
            self.calm()?;
            self.judge_account()?;
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
        self.send_orders();
        if let Err(error) = self.engine.turn() {
            return Err(self.violation(error.to_string()));
        }
        self.hear_answers();
        let mut world = self.world.borrow_mut();
        world.forget_old_accounts(self.engine.shard());
        let mut closes = std::mem::take(&mut world.closes);
        for (key, peer) in closes.drain(..) {
            match self.engine.shard().session(key) {
                Some(session) => world.judge_reason(peer, session.parting),
                None => world.violate(format!("{key:?} is gone before its close has ended")),
            }
        }
        world.closes = closes;
        world.judge_counters(self.engine.shard().counters());
        world.judge_push_counters(self.engine.shard().counters());
        world.judge_buffers();
        let busy_turns = self.engine.counters().busy_turns;
        let heard_all = busy_turns == self.busy_turns;
        self.busy_turns = busy_turns;
        if heard_all {
            world.judge_lateness();
            world.judge_broadcasts();
            world.judge_notices();
        }
        drop(world);
        self.turns += 1;
        // Bringing the whole account up to date costs more than the turn: now and then will do.
        if self.turns.is_multiple_of(LAWS_EVERY_TURNS) {
            return self.judge_account();
        }
        self.found()
    }

    /// What was found wrong.
    fn found(&self) -> Result<(), Violation> {
        let found = self.world.borrow_mut().violation.take();
        found.map_or(Ok(()), |what| Err(self.violation(what)))
    }

    fn violation(&self, what: String) -> Violation {
        Violation { seed: self.seed, chaos: self.chaos, what }
    }

    /// Tells the shard what an administrator wants.
    fn send_orders(&mut self) {
        let mut world = self.world.borrow_mut();
        world.turn_begins = true;
        world.rings.iter_mut().for_each(|ring| ring.enters = 0);
        world.end_closes();
        if world.gate.watches_memory() {
            self.engine.shard().note_memory(world.gate.tell_memory());
        }
        let mut orders = std::mem::take(&mut world.orders);
        for order in orders.drain(..) {
            let (reply, answer) = oneshot::channel();
            let command = match order {
                Order::Kick(key) => Command::Kick { key, reply: oneshot::channel().0 },
                Order::Push { id, peer, key, message } => {
                    self.asked.push_back(Asked { id, peer: Some(peer), answer });
                    Command::Push { key, message: push_message(id, &message), reply }
                }
                Order::Broadcast { id, spread, message } => {
                    self.asked.push_back(Asked { id, peer: None, answer });
                    Command::Broadcast { message: push_message(id, &message), spread, reply }
                }
            };
            self.mail.send(command);
            world.ring_bell();
        }
        world.orders = orders;
    }

    /// Has the oracle know what the shard has taken in this turn.
    fn hear_answers(&mut self) {
        let mut world = self.world.borrow_mut();
        while let Some(Asked { id, peer, answer }) = self.asked.front_mut() {
            let Ok(answer) = answer.try_recv() else { break };
            let answer = answer.as_ref().map_err(|refused| *refused);
            match *peer {
                Some(peer) => world.push_answered(*id, peer, answer),
                None => world.broadcast_answered(*id, answer),
            }
            self.asked.pop_front();
        }
        if self.drain.as_mut().is_some_and(|drain| drain.try_recv().is_ok()) {
            let turn_now = world.turn_now;
            if let Some(draining) = &mut world.draining {
                draining.begun = draining.begun.max(turn_now);
                draining.turns = Some(0);
            }
        }
    }

    /// The laws that need every gauge brought up to date.
    fn judge_account(&mut self) -> Result<(), Violation> {
        let report = self.engine.publish();
        let shard = self.engine.shard();
        let mut world = self.world.borrow_mut();
        let mut laws = report.laws();
        let counters = &report.counters;
        laws.push(Law::new(
            "heartbeats pending, counted anew",
            counters.heartbeats_pending,
            shard.count_pending(),
        ));
        laws.push(Law::new(
            "send queue bytes, counted anew",
            counters.send_queue_bytes,
            shard.count_queued_bytes(),
        ));
        laws.extend(world.laws(&report));
        for law in laws.iter().filter(|law| !law.holds) {
            world.violate(format!("{law:?}"));
        }
        world.judge_queues(shard);
        if counters.open >= 1_000 {
            world.exercise("a thousand sessions at once");
        }
        drop(world);
        self.found()
    }

    /// No more faults: whoever does not behave dies out, and the healthy are all there.
    fn calm(&mut self) -> Result<(), Violation> {
        let end = {
            let mut world = self.world.borrow_mut();
            world.chaos = false;
            for at in 0..world.live.len() {
                let id = world.live[at];
                let client = &mut world.peers[id];
                client.dead |= !client.behaviour.is_healthy();
            }
            world.forget_dead_who_wait();
            let rules = world.rules;
            let longest =
                rules.idle_timeout_max().max(rules.hello_timeout).max(rules.frame_timeout);
            // In a crowd some wait to be accepted until others have gone.
            let waits = if world.sizes.is_crowd { longest } else { Duration::ZERO };
            let patience = waits + longest + rules.stall_timeout + rules.tick.as_duration() * 4;
            // The last partition may still last.
            world.now().max(world.partition_until) + patience + Duration::from_secs(5)
        };
        self.turn_until(end)?;
        let report = self.engine.publish();
        self.world.borrow_mut().judge_calm(report.counters.open);
        self.found()
    }

    /// The server is told to stop: everybody goes, in good time, whatever else happens meanwhile.
    fn stop(mut self) -> Result<Outcome, Violation> {
        let spread = self.drain_spread;
        let (reply, answer) = oneshot::channel();
        let (begun, patience) = {
            let mut world = self.world.borrow_mut();
            let begun = world.now();
            world.stopping = true;
            world.draining = Some(Draining { spread, begun, turns: None });
            world.chaos &= !spread.is_zero();
            // Pauses would have to be added to the time that it may take.
            (world.rates.paused, world.rates.paused_within) = (0, 0);
            world.pause_again = false;
            world.ring_bell();
            let rules = world.rules;
            let last = rules.stall_timeout + rules.tick.as_duration() * 2;
            (begun, spread + last + Duration::from_secs(10))
        };
        let timeout = patience + Duration::from_secs(30);
        self.mail.send(Command::Drain { spread, timeout, reply: Some(reply) });
        self.drain = Some(answer);
        while !self.engine.finished() {
            self.turn()?;
            let mut world = self.world.borrow_mut();
            let elapsed = world.now().since(begun);
            world.chaos &= elapsed < spread;
            if elapsed > patience {
                drop(world);
                return Err(self.violation("the stop is not obeyed".to_owned()));
            }
        }
        self.judge_account()?;
        let report = self.engine.publish();
        let world = self.world.borrow();
        if let Some(wrong) = what_is_left(&report, &world) {
            return Err(self.violation(format!("after the stop: {wrong}")));
        }
        Ok(Outcome {
            simulated: world.now().since(Timestamp::ZERO),
            turns: report.engine.turns,
            heartbeats: report.counters.heartbeats_received,
            sessions: report.counters.opened,
            expiries: world.tally.expiries,
            faults: world.faults.clone(),
            exercised: world.exercised.clone(),
            trace: world.trace,
        })
    }
}

/// What ought not to be there any more when the engine has ended.
fn what_is_left(report: &EngineReport, world: &World) -> Option<String> {
    let counters = &report.counters;
    let left = [
        ("sessions in the table", counters.table_entries),
        ("sessions open", counters.open),
        ("pushes pending", counters.pushes_pending),
        ("heartbeats pending", counters.heartbeats_pending),
        ("bytes in queues", counters.send_queue_bytes),
        ("buffers astray", world.buffers_astray() as u64),
    ];
    let (what, count) = left.into_iter().find(|(_, count)| *count > 0)?;
    Some(format!("{what}: {count}"))
}

fn push_message(id: u64, message: &[u8]) -> PushMessage {
    PushMessage::new(id, message).expect("the simulator's messages are short")
}
