//! A run from its beginning to its end: start the server, connect, warm up, hold, fall quiet,
//! close, stop the server, judge.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use heartwheel::host::{Ends, Needs, raise_descriptor_limit, start_warning};
use heartwheel::ring::probe_client;
use heartwheel::time::{Clock, Timestamp};

use crate::addresses::Sources;
use crate::by_hand::ByHand;
use crate::cli::Cli;
use crate::conductor::{Conductor, WorkerFailed};
use crate::crew::Crew;
use crate::hdr::HdrLog;
use crate::host::cores::{self, HostSection};
use crate::host::kernel::{self, KernelSample};
use crate::host::process::{self, ProcessSample};
use crate::live::{Card, Live};
use crate::plan::Plan;
use crate::report::{self, Evidence, Report};
use crate::scenario::admin::Admin;
use crate::scenario::{Events, Scenario};
use crate::series::Series;
use crate::server::Server;
use crate::target::Target;
use crate::worker::{Orders, Task};
use crate::{foreign, limits};

/// The steady state, as it was measured from outside.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steady {
    /// How long it lasted.
    pub length: Duration,
    /// Heartbeats that were answered in it.
    pub acked: u64,
    /// CPU time of the server in it.
    pub server_cpu: Option<Duration>,
    /// CPU time of this process in it.
    pub generator_cpu: Duration,
    /// The server at its end.
    pub server: Option<ProcessSample>,
    /// This process at its end.
    pub generator: ProcessSample,
    /// The kernel at its end.
    pub kernel: KernelSample,
    /// Who used the cores in it, and what the host had left at its end.
    pub host: HostSection,
    /// Connections that were open at its end.
    pub open: u64,
}

/// The state of things before the first client connects.
#[derive(Clone, Copy, Debug, Default)]
pub struct Baseline {
    /// The server, idle.
    pub server: Option<ProcessSample>,
    /// This process, before it has made its tables and rings.
    pub generator: ProcessSample,
    /// The kernel.
    pub kernel: KernelSample,
    /// Processes that it has killed for want of memory.
    pub oom_kills: Option<u64>,
}

/// Runs what `cli` describes.
///
/// # Errors
/// If the run could not be made at all. What went wrong within it stands in the report.
pub fn run(cli: &Cli) -> Result<Report> {
    let interrupted = watch_for_interrupts()?;
    let descriptors = raise_descriptor_limit().context("raising RLIMIT_NOFILE")?;
    probe_client()?;
    let mut live = Live::new(cli);
    let server = match &cli.target {
        Some(_) => None,
        None => Some(Server::start(cli, &live)?),
    };
    let server_pid = server.as_ref().map(Server::pid).or(cli.server_pid);
    let (series, begun) = (Series::new(), SystemTime::now());
    let generator = process::sample(std::process::id()).unwrap_or_default();
    let mut task = task(cli, server.as_ref(), descriptors)?;
    let hdr = hdr_log(cli, &mut task)?;
    let task = Arc::new(task);
    let warnings = warnings(cli, &task);
    warnings.iter().for_each(|warning| live.say(&format!("warning: {warning}")));
    let admin_address = admin_address(cli, server.as_ref(), &live)?;
    live.warm_up(admin_address);
    let baseline = Baseline {
        server: server_pid.and_then(process::sample),
        generator,
        kernel: kernel::sample(),
        oom_kills: cores::oom_kills(),
    };

    let admin = admin_address.map(|address| Admin::start(address, Arc::clone(&task)));
    let admin = admin.transpose()?;
    let crew = Crew::start(&task)?;
    let rings = crew.rings;
    let card = card(cli, server.as_ref(), &task, baseline, admin_address.is_some());
    live.open(card, &task, server_pid, admin_address, &interrupted)?;
    let mut conductor = Conductor {
        cli,
        task: &task,
        crew,
        server,
        server_pid,
        live,
        series,
        interrupted,
        admin,
        next_event: 0,
        draining: false,
        answers: Vec::new(),
        by_hand: ByHand::default(),
    };
    let ending = conductor.conduct();
    let Conductor { crew, server, live, series, interrupted, answers, by_hand, .. } = conductor;
    let last = crew.snapshot();
    let terms_ms = (last.interval_ms, last.idle_timeout_ms);
    let mut ending = match ending {
        Ok(ending) => ending,
        Err(WorkerFailed) => return Err(crew.first_error()),
    };
    let mut stats = crew.join()?;
    let hdr_failure = hdr.and_then(|hdr| hdr.finish().err());
    // A key may have ordered one that no worker has seen before the end.
    (0..task.scenario.events.iter().count()).for_each(|event| stats.make_room(event));
    let ready = server.as_ref().map(|server| server.ready.clone());
    let last_words = server.filter(|_| ending.server_died.is_none()).map(Server::stop);
    ending.notes.extend(by_hand.notes.iter().cloned());
    // The terminal is as it was before anything else is written.
    drop(live);
    Ok(report::build(&Evidence {
        cli,
        task: &task,
        warnings,
        baseline,
        steady: ending.steady,
        stats,
        kernel_end: kernel::sample(),
        rings,
        ready,
        last_words,
        server_died: ending.server_died,
        hdr_failure,
        established: ending.established,
        notes: ending.notes,
        interrupted: interrupted.load(Ordering::Relaxed),
        server_pid,
        answers,
        series: series.section(),
        begun: begun.duration_since(UNIX_EPOCH).unwrap_or_default(),
        steady_at: steady_at(&task),
        terms_ms,
        paused: by_hand.paused(task.clock.now()),
    }))
}

/// The log of `--hdr`, if it is wanted.
fn hdr_log(cli: &Cli, task: &mut Task) -> Result<Option<HdrLog>> {
    let Some(path) = &cli.hdr else { return Ok(None) };
    let log = HdrLog::start(path, task.workers, task.unix(task.start))?;
    task.hdr = Some(log.intake());
    Ok(Some(log))
}

/// When the steady state began, if it did.
pub fn steady_at(task: &Task) -> Option<Timestamp> {
    let at = task.orders.steady_at.load(Ordering::Relaxed);
    (at != u64::MAX).then(|| Timestamp::from_nanos(at))
}

/// Where the control plane is, if anything is asked of it: by events, or by the live view.
fn admin_address(cli: &Cli, server: Option<&Server>, live: &Live) -> Result<Option<SocketAddr>> {
    let needed = Scenario::needs_admin(&cli.at);
    match (cli.target_admin, server) {
        _ if !needed && !live.is_view() => Ok(None),
        (Some(address), _) => Ok(Some(address)),
        (None, Some(server)) if needed => server.admin().map(Some),
        (None, Some(server)) => Ok(server.admin().ok()),
        (None, None) => Ok(None),
    }
}

/// What the live view is told beforehand.
fn card(
    cli: &Cli,
    server: Option<&Server>,
    task: &Task,
    baseline: Baseline,
    asks_server: bool,
) -> Card {
    let kind = server.map(|server| format!("own, {}, {}", server.ready.engine, server.ready.sweep));
    Card {
        target: format!("{}://{}", task.wire.name(), task.target),
        server_kind: kind.unwrap_or_default(),
        wanted: u64::from(cli.connections),
        connect_rate_per_s: u64::from(cli.connect_rate),
        sends_data: cli.data > 0,
        comes_back: cli.reconnect.is_some() || cli.churn > 0,
        tick: cli.tick,
        asks_server,
        slos: cli.slo.clone(),
        baseline,
    }
}

/// A flag that is set when this program is told to end.
///
/// # Errors
/// If the kernel refuses.
pub fn watch_for_interrupts() -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The way to the end is bounded, and our server must not be left behind: no second signal
        // cuts it short.
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .context("watching for signals")?;
    }
    Ok(interrupted)
}

fn task(cli: &Cli, server: Option<&Server>, descriptors: u64) -> Result<Task> {
    let own = server.map(|server| Target::of(cli.spoken(), server.address));
    let Some(chosen) = cli.target.clone().or(own) else {
        unreachable!("without a target there is a server of our own")
    };
    let target = chosen.address;
    let clock = Clock::new();
    let most = u64::from(heartwheel::limits::SLOTS_PER_RING_MAX);
    // Direct descriptors do not count as the process's own: the limit bounds each ring's table.
    let slots = descriptors.clamp(1, most);
    let wanted = cli.interval.filter(|_| cli.negotiate);
    let interval_ms = wanted.map_or(0, |interval| interval.as_millis() as u32);
    let plan = Plan {
        seed: cli.seed,
        clients: cli.connections,
        connect_rate_per_s: cli.connect_rate,
        jitter: cli.jitter,
        silent: cli.silent_count(),
        phase: cli.phase,
    };
    let scenario = Scenario {
        plan,
        slow: cli.slow_count(),
        churn_per_s: cli.churn,
        data_per_s: cli.data,
        reconnect: cli.reconnect,
        events: Events::new(&cli.at),
    };
    // A port that was closed here lingers in TIME_WAIT: enough of them that none is needed twice.
    let all = u64::from(cli.connections) + scenario.reopenings(cli.duration);
    let opened = all.div_ceil(u64::from(cli.own_part().of));
    let opened = u32::try_from(opened).unwrap_or(u32::MAX);
    let orders = Orders::new();
    Ok(Task {
        plan,
        part: cli.own_part(),
        scenario,
        target,
        sources: Sources::new(&cli.source_addresses()?, target, opened),
        wire: cli.foreign.wire(cli, &chosen, interval_ms)?,
        // What was asked for is only a wish.
        interval: cli.interval.filter(|_| !cli.negotiate),
        idle_timeout: foreign::idle_timeout(cli),
        tick: cli.tick,
        open_timeout: cli.open_timeout,
        slots_per_ring: slots as u32,
        arming: cli.arming,
        workers: cli.workers(),
        clock,
        start: match cli.start_at {
            None => clock.now() + Duration::from_millis(50),
            Some(at) => Timestamp::ZERO + at.saturating_sub(clock.unix_at_origin()),
        },
        orders,
        hdr: None,
    })
}

fn warnings(cli: &Cli, task: &Task) -> Vec<String> {
    let capacity = task.sources.capacity();
    let needs = Needs {
        connections: u64::from(cli.own_connections()),
        interval: cli.interval.unwrap_or(limits::INTERVAL_PRESUMED),
        ends: if task.target.ip().is_loopback() { Ends::Both } else { Ends::Clients },
        listen: Vec::new(),
        kernel_picks_ports: capacity.is_none(),
    };
    let mut warnings: Vec<String> = start_warning(&needs).into_iter().collect();
    // A port that is closed here is free again after a minute (TIME_WAIT).
    let all = u64::from(cli.connections) + 60 * u64::from(cli.churn);
    let needed = all.div_ceil(u64::from(cli.own_part().of));
    if let Some(capacity) = capacity.filter(|&capacity| capacity < needed) {
        warnings.push(format!(
            "the source addresses have {capacity} ports, {needed} are needed: name more \
             --source-ips",
        ));
    }
    warnings
}
