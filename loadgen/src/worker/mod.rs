//! A worker: one thread, pinned to a core, that plays its share of the clients.
//!
//! The loop is [`Worker::run`]. A turn connects whom the plan wants connected, beats for whom the
//! schedule says, enters the rings that have work, and sleeps in the main ring until the next
//! client's turn, letting completions gather for a millisecond.
//!
//! Invariants: a slot is closed only when nothing in flight names it (cancel, wait for the last
//! completion, close), and a completion of a former life of a slot is recognised by its
//! generation. No allocation per heartbeat; the clock is read once per ring visit.

mod acting;
mod beating;
mod client;
mod closing;
mod group;
mod opening;
mod reading;
mod receiving;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use anyhow::Result;
use heartwheel::engine::Arming;
use heartwheel::outgoing::Outgoing;
use heartwheel::ring::{Completion, Op, Wait};
use heartwheel::time::{Clock, Timestamp};

use self::acting::Progress;
use self::client::{Client, State};
use self::group::Group;
use crate::addresses::{SourceShare, Sources};
use crate::hdr::{self, Cutter};
use crate::limits;
use crate::part::{Part, Share};
use crate::plan::Plan;
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::stats::{Published, Stats};
use crate::wire::{Buffers, Incoming, Wire};

/// When the phases begin, in nanoseconds of the clock; `u64::MAX` while that is not known.
#[derive(Debug)]
pub struct Orders {
    /// The steady state: it is measured, and the silent fall silent.
    pub steady_at: AtomicU64,
    /// No more heartbeats.
    pub quiet_at: AtomicU64,
    /// Everything is closed.
    pub close_at: AtomicU64,
    /// Whoever has not been tried is not tried any more.
    pub give_up: AtomicBool,
    /// When the server was asked for each event of the scenario.
    pub acted_at: Box<[AtomicU64]>,
    /// How much later than planned the clients connect that have not yet, in nanoseconds;
    /// `u64::MAX` while nobody is to connect.
    pub connect_delay: AtomicU64,
}

impl Orders {
    /// How much later than planned clients connect; `None` while nobody is to.
    pub fn connect_delay(&self) -> Option<Duration> {
        let nanos = self.connect_delay.load(Ordering::Relaxed);
        (nanos != u64::MAX).then(|| Duration::from_nanos(nanos))
    }

    /// Nothing is ordered yet.
    pub fn new() -> Orders {
        Orders {
            steady_at: AtomicU64::new(u64::MAX),
            quiet_at: AtomicU64::new(u64::MAX),
            close_at: AtomicU64::new(u64::MAX),
            give_up: AtomicBool::new(false),
            acted_at: (0..limits::EVENTS_MAX).map(|_| AtomicU64::new(u64::MAX)).collect(),
            connect_delay: AtomicU64::new(0),
        }
    }
}

/// What all workers share.
#[derive(Debug)]
pub struct Task {
    /// When each client acts.
    pub plan: Plan,
    /// Which of them are played here.
    pub part: Part,
    /// What happens beside the heartbeats.
    pub scenario: Scenario,
    /// Where to.
    pub target: SocketAddr,
    /// Where from.
    pub sources: Sources,
    /// How the server is spoken to.
    pub wire: Wire,
    /// Overrides the interval that the server tells.
    pub interval: Option<Duration>,
    /// The server's rule, where it does not tell.
    pub idle_timeout: Option<Duration>,
    /// How late after its time the server may expire a client.
    pub tick: Duration,
    /// How long opening a connection may take.
    pub open_timeout: Duration,
    /// The slots of a ring at most.
    pub slots_per_ring: u32,
    /// How clients wait for what comes.
    pub arming: Arming,
    /// How many workers there are.
    pub workers: usize,
    /// The time that all agree on.
    pub clock: Clock,
    /// When the first client connects.
    pub start: Timestamp,
    /// What the coordinator wants.
    pub orders: Orders,
    /// Where what was measured in each second goes, if it is wanted.
    pub hdr: Option<SyncSender<hdr::Message>>,
}

impl Task {
    /// What a wall clock shows at `at`, since 1970.
    pub fn unix(&self, at: Timestamp) -> Duration {
        self.clock.unix_at_origin() + at.since(Timestamp::ZERO)
    }

    /// When all parts of a plan that begin together enter the steady state together, if nobody is
    /// late: after the last planned connect, and after `warmup`.
    pub fn common_steady_at(&self, warmup: Duration) -> Timestamp {
        let connected = self.start + self.plan.connect_after(self.plan.clients);
        connected + limits::COMMON_STEADY_AFTER + warmup
    }
}

/// An attempt to open a connection that may take too long.
struct Attempt {
    client: u32,
    generation: u32,
    deadline: Timestamp,
}

/// The phases as of this turn.
#[derive(Clone, Copy)]
struct Phases {
    steady_at: Timestamp,
    quiet_at: Timestamp,
    close_at: Timestamp,
}

/// One thread's share of the clients.
pub struct Worker {
    task: Arc<Task>,
    share: Share,
    cutter: Option<Cutter>,
    published: Arc<Published>,
    clients: Vec<Client>,
    schedule: Schedule,
    group: Group,
    sources: SourceShare,
    phases: Phases,
    stats: Stats,
    /// When the loop went on after it had stood still.
    held_up_at: Option<Timestamp>,
    /// The next client that has not been tried yet.
    next: u32,
    /// Whoever has not been tried when that was over has failed.
    gave_up: bool,
    /// Clients to be tried again: from another address, or because they come back.
    again: VecDeque<u32>,
    progress: Progress,
    /// Attempts in the order of their deadlines, the finished ones among them included.
    attempts: VecDeque<Attempt>,
    opening: u32,
    /// Slots that are not empty.
    alive: u32,
    closes_in_flight: u32,
    /// The next client to be closed at the end.
    close_next: u32,
    stock_taken: bool,
    /// Beginnings of messages; hardly ever is there one.
    partials: HashMap<u32, Vec<u8>>,
    /// Messages behind a send in flight; hardly ever is there one.
    outboxes: HashMap<u32, VecDeque<Outgoing>>,
    buffers: Buffers,
    woken: Timestamp,
    publish_at: Timestamp,
    // Reused by every turn, so that a turn allocates nothing.
    batch: Vec<Completion>,
    incoming: Vec<Incoming>,
    due: Vec<u32>,
}

impl Worker {
    /// Worker `number` with its rings; to be called on its own thread.
    ///
    /// # Errors
    /// If the kernel refuses the rings, with the cure.
    pub fn new(task: Arc<Task>, number: usize, published: Arc<Published>) -> Result<Worker> {
        let share = task.part.share(number, task.workers);
        let mine = share.count(task.plan.clients) as usize;
        let hdr = task.hdr.clone();
        let now = task.clock.now();
        let never = Timestamp::from_nanos(u64::MAX);
        Ok(Worker {
            share,
            cutter: hdr.map(|log| Cutter::new(log, number, task.start)),
            published,
            clients: vec![Client::new(); mine],
            schedule: Schedule::new(mine, now),
            group: Group::new(mine as u32, task.slots_per_ring, task.arming)?,
            sources: task.sources.share(number, task.workers),
            phases: Phases { steady_at: never, quiet_at: never, close_at: never },
            held_up_at: None,
            stats: Stats::new(task.scenario.events.planned()),
            next: 0,
            gave_up: false,
            again: VecDeque::new(),
            progress: Progress::default(),
            attempts: VecDeque::new(),
            opening: 0,
            alive: 0,
            closes_in_flight: 0,
            close_next: 0,
            stock_taken: false,
            partials: HashMap::new(),
            outboxes: HashMap::new(),
            buffers: Buffers::default(),
            woken: now,
            publish_at: now,
            batch: Vec::with_capacity(limits::COMPLETIONS_PER_BATCH),
            incoming: Vec::new(),
            due: Vec::new(),
            task,
        })
    }

    /// Plays until everything has been closed.
    ///
    /// # Errors
    /// If a ring as a whole fails.
    pub fn run(mut self) -> Result<Stats> {
        loop {
            let now = self.task.clock.now();
            if let Some(cutter) = &mut self.cutter {
                cutter.cut(&mut self.stats, now);
            }
            self.read_orders();
            self.open_whom_the_plan_wants(now);
            self.beat_for_whom_it_is_time(now);
            self.act(now);
            if now >= self.phases.close_at && self.close_some(now) {
                break;
            }
            self.publish(now);
            for ring in 1..self.group.len() {
                if self.group.has_work(ring) {
                    self.visit(ring, Wait::No)?;
                }
            }
            let wait = self.rest();
            self.woken = self.visit(0, wait)?;
        }
        if let Some(cutter) = self.cutter.take() {
            cutter.finish(&mut self.stats);
        }
        self.stats.left_open = u64::from(self.alive);
        Ok(self.stats)
    }

    /// How many rings this worker has.
    pub fn rings(&self) -> usize {
        self.group.len()
    }

    fn read_orders(&mut self) {
        let orders = &self.task.orders;
        let read = |order: &AtomicU64| Timestamp::from_nanos(order.load(Ordering::Relaxed));
        self.phases = Phases {
            steady_at: read(&orders.steady_at),
            quiet_at: read(&orders.quiet_at),
            close_at: read(&orders.close_at),
        };
        if orders.give_up.load(Ordering::Relaxed) {
            self.give_up_opening();
        }
    }

    /// Enters one ring and handles what it brings; returns when that was collected.
    fn visit(&mut self, ring: usize, wait: Wait) -> Result<Timestamp> {
        let before = self.task.clock.now();
        self.group.enter(ring, wait)?;
        let now = self.task.clock.now();
        if now.since(before) >= limits::HELD_UP {
            self.held_up_at = Some(now);
        }
        let mut batch = std::mem::take(&mut self.batch);
        loop {
            let more = self.group.collect(ring, &mut batch);
            for completion in batch.drain(..) {
                self.handle(ring, completion, now);
            }
            if !more {
                break;
            }
        }
        self.batch = batch;
        Ok(now)
    }

    fn handle(&mut self, ring: usize, completion: Completion, now: Timestamp) {
        let tag = completion.tag;
        if tag.op == Op::Wake {
            return self.group.arm_wake();
        }
        let known = self.clients.get(tag.index as usize);
        if known.is_none_or(|client| client.generation != tag.generation) {
            self.stats.stale += 1;
            if let Some(buffer) = completion.buffer {
                self.group.release(ring, buffer);
            }
            return;
        }
        match tag.op {
            Op::Connect | Op::ConnectSetup => self.connected(tag.index, completion.result, now),
            Op::Receive | Op::ReceiveOnce => self.received(ring, completion, now),
            Op::Send => self.sent(tag.index, completion.result, completion.outgoing),
            Op::Close => self.closed(tag.index, now),
            Op::ResetSetup => self.reset_failed(tag.index),
            Op::Poll => self.polled(&completion, now),
            Op::Cancel | Op::Wake | Op::PeerName | Op::Accept | Op::SendOwned => {}
        }
    }

    /// How long to sleep: until the next client's turn, but at least as long as it takes for
    /// completions to gather, and not at all if there is work.
    fn rest(&mut self) -> Wait {
        let now = self.task.clock.now();
        if now >= self.phases.steady_at && now < self.phases.quiet_at {
            self.stats.turn.record(now.since(self.woken));
        }
        if self.group.is_in_a_hurry() {
            return Wait::No;
        }
        let turn = self.schedule.next_turn(now, limits::SLEEP_MAX).min(self.next_opening(now));
        let turn = turn.min(self.next_act(now));
        let gather = self.gather();
        let max =
            turn.since(now).max(if gather > limits::GATHER { gather } else { Duration::ZERO });
        if max.is_zero() {
            return Wait::No;
        }
        // Until the next turn nothing is lost by letting completions gather.
        let min = gather.min(max.saturating_sub(Duration::from_micros(1)));
        Wait::For { completions: limits::COMPLETIONS_WORTH_WAKING, min, max }
    }

    /// Each visit of a ring costs a system call: the more rings, the more should be there for it.
    fn gather(&self) -> Duration {
        let eights = self.group.len().div_ceil(8) as u32;
        (limits::GATHER * eights).min(limits::GATHER_MAX)
    }

    /// The number in the plan of a client of this worker.
    fn planned(&self, client: u32) -> u32 {
        self.share.planned(client)
    }

    fn publish(&mut self, now: Timestamp) {
        if now < self.publish_at {
            return;
        }
        self.publish_at = now + limits::PUBLISH_EVERY;
        let (stats, published) = (&self.stats, &self.published);
        let write = |value: &AtomicU64, count: u64| value.store(count, Ordering::Relaxed);
        write(&published.opened, stats.opened);
        write(&published.failed, stats.failed_total());
        let closed = stats.closed_by_server_total() + stats.closed_by_us;
        write(&published.gone, closed - stats.scene.reopened);
        write(&published.written_off, stats.scene.cut_off + stats.scene.unread);
        write(&published.expired, stats.expired);
        write(&published.false_expiries, stats.early + stats.healthy_closed);
        write(&published.sent, stats.sent);
        write(&published.acked, stats.acked);
        write(&published.alive, u64::from(self.alive));
        write(&published.silenced, stats.silenced);
        write(&published.missed, stats.missed);
        write(&published.our_delay, stats.our_delay);
        write(&published.sent_late, stats.sent_late);
        write(&published.lost, stats.scene.lost);
        write(&published.reopened, stats.scene.reopened);
        write(&published.late_max_us, stats.expiry_lateness.max_us().unwrap_or(0));
        // Whoever reads it just now will see the next one.
        if let Ok(mut detail) = published.detail.try_lock() {
            detail.show(stats);
        }
    }
}
