//! What a seed makes of the world and of the server in it: sizes, faults, rules.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::Engine;
use super::random::Random;
use super::ring::SimulatedRing;
use super::world::World;
use crate::engine::uring::UringEngine;
use crate::engine::{Arming, EngineConfig, EngineError, MailSender, Status, Tuning, mailbox};
use crate::limits::ACCEPTS_PER_TURN;
use crate::protocol::Protocol;
use crate::shard::{AcceptRate, Activity, Admission, Bounds, Policy, Shard};
use crate::socket::Listener;
use crate::sweep::{AnySweeper, Strategy};
use crate::time::{Tick, TickLength};

/// A world with so much time of faults is a long one.
const LONG: Duration = Duration::from_secs(60);

/// The lengths of a tick.
pub(super) const TICKS_MS: [u64; 4] = [1, 10, 100, 1_000];

/// Seeds at equal distances: their worlds are of a special kind.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    first: u64,
    every: u64,
}

/// These worlds are crowds: thousands of clients at a time, on large rings.
pub const CROWDS: Seeds = Seeds { first: 25, every: 25 };

/// These bound who may come in, beside the room that there is.
pub const BOUNDED: Seeds = Seeds { first: 3, every: 7 };

impl Seeds {
    /// Whether `seed` is one of them.
    pub const fn include(self, seed: u64) -> bool {
        seed >= self.first && (seed - self.first).is_multiple_of(self.every)
    }

    /// The one that comes `number` after the first of those not below `from`.
    pub const fn nth(self, from: u64, number: u64) -> u64 {
        let skipped = from.saturating_sub(self.first).div_ceil(self.every);
        self.first + (skipped + number) * self.every
    }
}

/// The sizes of a simulated server and of its world.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Thousands of clients at a time, on large rings.
    pub(super) is_crowd: bool,
    pub(super) rings: usize,
    pub(super) slots: u32,
    pub(super) submission_entries: usize,
    pub(super) completion_entries: usize,
    pub(super) buffers: u16,
    pub(super) buffer_bytes: u32,
    pub(super) clients: usize,
    pub(super) bounds: Bounds,
}

/// How often faults happen, in a thousand cases.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    pub(super) multishot_ends: u32,
    pub(super) accept_fails: u32,
    pub(super) late: u32,
    pub(super) late_us_max: u64,
    pub(super) short_send: u32,
    pub(super) partial_read: u32,
    pub(super) leave_work: u32,
    pub(super) stale_flag: u32,
    pub(super) interrupted: u32,
    pub(super) slow: u32,
    pub(super) paused: u32,
    pub(super) paused_within: u32,
    pub(super) pause_ms_max: u64,
    pub(super) healthy: u32,
    pub(super) reconnect: u32,
    pub(super) come_back: u32,
    pub(super) fate_ms_max: u64,
    /// How many of the healthy are such as beat sixteen times at once, and often.
    pub(super) bursts: u32,
}

/// What the oracle knows of the server's policy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) tick: TickLength,
    pub(super) idle_timeout: Duration,
    pub(super) heartbeat_interval: Duration,
    pub(super) hello_timeout: Duration,
    pub(super) frame_timeout: Duration,
    pub(super) stall_timeout: Duration,
    pub(super) frame_bytes_max: usize,
    pub(super) echo: bool,
    pub(super) expiry: bool,
    pub(super) server_ping: bool,
    pub(super) heartbeat_min: Duration,
    pub(super) heartbeat_max: Duration,
    /// The timeout in intervals, times ten.
    pub(super) timeout_tenths: u64,
    pub(super) send_queue_bytes: usize,
    pub(super) activity: Activity,
    /// The tables are so small that even the healthy may wait for a place for longer than the
    /// server then waits for them.
    pub(super) is_harsh: bool,
}

impl Rules {
    /// The interval and the timeout of a client that wants to beat every `wanted_ms`.
    pub(super) fn terms(&self, wanted_ms: u32) -> (Duration, Duration) {
        if wanted_ms == 0 {
            return (self.heartbeat_interval, self.idle_timeout);
        }
        let tick_tenths_ms = self.tick.as_duration().as_millis() as u64 * 10;
        let least_ms = match self.server_ping {
            true => (tick_tenths_ms * 4).div_ceil(self.timeout_tenths - 10),
            false => tick_tenths_ms.div_ceil(self.timeout_tenths),
        };
        let min_ms = least_ms.max(self.heartbeat_min.as_millis() as u64);
        let max_ms = min_ms.max(self.heartbeat_max.as_millis() as u64);
        let interval_ms = u64::from(wanted_ms).clamp(min_ms, max_ms);
        let timeout_ms = (interval_ms * self.timeout_tenths).div_ceil(10);
        (Duration::from_millis(interval_ms), Duration::from_millis(timeout_ms))
    }

    /// The longest silence that anybody may agree on.
    pub(super) fn idle_timeout_max(&self) -> Duration {
        self.idle_timeout.max(self.terms(u32::MAX).1)
    }
}

pub(super) fn sizes(seed: u64, random: &mut Random) -> Sizes {
    let mut sizes = sizes_of_few(random);
    if CROWDS.include(seed) {
        sizes = sizes_of_crowd(random, sizes);
    }
    sizes.bounds.connections_max = sizes.slots as usize * sizes.rings;
    if BOUNDED.include(seed) {
        sizes.bounds = bounds(seed, &sizes);
    }
    sizes
}

fn sizes_of_crowd(random: &mut Random, few: Sizes) -> Sizes {
    Sizes {
        is_crowd: true,
        slots: random.pick(&[500, 2_000, 4_000]),
        submission_entries: 256,
        completion_entries: random.pick(&[64, 512, 4_096]),
        buffers: random.pick(&[16, 64, 1_024]),
        clients: random.within(1_000, 3_000) as usize,
        ..few
    }
}

fn sizes_of_few(random: &mut Random) -> Sizes {
    let completion_entries = random.pick(&[8, 16, 64, 512]);
    Sizes {
        is_crowd: false,
        rings: random.within(1, 3) as usize,
        slots: random.pick(&[6, 20, 60]),
        submission_entries: random.pick(&[4, 16, 256]),
        completion_entries,
        buffers: random.pick(&[2, 2, 4, 16, 64]),
        buffer_bytes: random.pick(&[16, 64, 256]),
        clients: random.within(4, 60) as usize,
        bounds: Bounds::connections(0),
    }
}

/// Drawn by dice of its own, so that the worlds without bounds are what they were before there were
/// any.
fn bounds(seed: u64, sizes: &Sizes) -> Bounds {
    let mut random = Random::new(!seed);
    let room = sizes.bounds.connections_max as u64;
    let some = sizes.clients as u64;
    let least = if random.chance(500) { room / 4 + 1 } else { room };
    let rate = AcceptRate {
        per_s: random.within(1, some * 2) as u32,
        burst: random.within(1, some / 2) as u32,
    };
    let per_address_max = random.within(1, some / 4) as u32;
    Bounds {
        connections_max: random.within(least, room) as usize,
        per_address_max: random.chance(500).then_some(per_address_max),
        accept_rate: random.chance(500).then_some(rate),
        // Nobody has so much.
        memory_bytes_max: random.chance(500).then_some(u64::MAX - 1),
    }
}

pub(super) fn rules(random: &mut Random, sizes: &Sizes) -> Rules {
    let tick_ms = random.pick(&TICKS_MS);
    // Thousands in a thousand ticks a second would take too long.
    let tick_ms = if sizes.is_crowd { tick_ms.max(TICKS_MS[2]) } else { tick_ms };
    let idle_timeout_ms = random.pick(&[2_000, 5_000, 30_000]);
    let ms = Duration::from_millis;
    let expiry = random.chance(950);
    // As the configuration demands it: time for an answer.
    let may_ping = expiry && tick_ms * 4 <= idle_timeout_ms / 3 * 2;
    Rules {
        tick: TickLength::new(ms(tick_ms)),
        idle_timeout: ms(idle_timeout_ms),
        heartbeat_interval: ms(idle_timeout_ms / 3),
        hello_timeout: ms(random.within(1_000, 10_000)),
        frame_timeout: ms(random.within(500, 10_000)),
        stall_timeout: ms(random.within(1_000, 15_000)),
        frame_bytes_max: random.pick(&[300, 2_000]),
        echo: random.chance(500),
        expiry,
        server_ping: may_ping && random.chance(400),
        heartbeat_min: ms(random.pick(&[200, 1_000])),
        heartbeat_max: ms(idle_timeout_ms / 2),
        timeout_tenths: random.pick(&[20, 25, 30, 40]),
        send_queue_bytes: 6_000,
        activity: random.pick(&[Activity::Receive, Activity::Any]),
        is_harsh: sizes.slots as usize * sizes.rings < sizes.clients * 2,
    }
}

/// Some seeds have hardly any faults, some many of one kind.
pub(super) fn rates(random: &mut Random, rules: &Rules, chaos: Duration) -> Rates {
    // A long world may have calm times, and is to see heartbeats above all.
    let is_long = chaos >= LONG;
    let late = random.pick(&[0, 100, 300, 600]);
    let mut rate = |most: u64| random.pick(&[0, 0, 1, 2]) * random_part(most);
    Rates {
        multishot_ends: rate(200),
        accept_fails: rate(100),
        late,
        late_us_max: 200_000,
        short_send: rate(400),
        partial_read: rate(300),
        leave_work: rate(500),
        stale_flag: rate(300),
        interrupted: rate(200),
        slow: rate(100),
        paused: rate(30),
        paused_within: rate(8),
        pause_ms_max: rules.idle_timeout.as_millis() as u64 * 3,
        healthy: 500,
        reconnect: rate(100),
        come_back: 300,
        fate_ms_max: if is_long { random.pick(&[2_000, 20_000, 120_000]) } else { 2_000 },
        bursts: if is_long {
            random.pick(&[0, 300, 600, 900])
        } else {
            random.pick(&[0, 0, 0, 500])
        },
    }
}

fn random_part(most: u64) -> u32 {
    most as u32 / 2
}

pub(super) fn make_engine(
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
        send_queue_bytes: rules.send_queue_bytes,
        server_ping: rules.server_ping,
        heartbeat_min: rules.heartbeat_min,
        heartbeat_max: rules.heartbeat_max,
        timeout_factor: rules.timeout_tenths as f64 / 10.0,
        frame_bytes_max: rules.frame_bytes_max,
        echo: rules.echo,
        ..Policy::default()
    };
    let capacity = sizes.slots as usize * sizes.rings;
    let sweeper = AnySweeper::new(strategy, capacity, Tick(0));
    let shard = Shard::new(0, policy, Admission::with(sizes.bounds), sweeper, capacity);
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
            accepts_per_turn: random.pick(&[1, 2, ACCEPTS_PER_TURN]),
        },
        status: Arc::new(Status::default()),
    };
    let clock = world.borrow().time.clock();
    let rings = (0..sizes.rings).map(|number| SimulatedRing::new(world, number)).collect();
    let engine = UringEngine::over(rings, config, clock, rules.tick, shard, mailbox)?;
    Ok((engine, mail))
}
