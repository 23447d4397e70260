//! A run from its beginning to its end: start the server, connect, warm up, hold, fall quiet,
//! close, stop the server, judge.

use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use heartwheel::protocol::Protocol;
use heartwheel::ring::probe_client;
use heartwheel::time::{Clock, Timestamp};

use crate::addresses::Sources;
use crate::cli::Cli;
use crate::crew::Crew;
use crate::host::advice::{self, Needs};
use crate::host::kernel::{self, KernelSample};
use crate::host::process::{self, ProcessSample};
use crate::limits;
use crate::live::Live;
use crate::plan::Plan;
use crate::report::{self, Evidence, Report};
use crate::scenario::admin::{Admin, Answer};
use crate::scenario::{Kind, Scenario};
use crate::server::Server;
use crate::stats::Snapshot;
use crate::wire::Wire;
use crate::worker::{Orders, Task};

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
}

/// Runs what `cli` describes.
///
/// # Errors
/// If the run could not be made at all. What went wrong within it stands in the report.
pub fn run(cli: &Cli) -> Result<Report> {
    let interrupted = watch_for_interrupts()?;
    let descriptors = advice::raise_descriptor_limit();
    probe_client()?;
    let mut live = Live::new(u64::from(cli.connections));
    let server = match cli.target {
        Some(_) => None,
        None => Some(Server::start(cli)?),
    };
    let server_pid = server.as_ref().map(Server::pid).or(cli.server_pid);
    let generator = process::sample(std::process::id()).unwrap_or_default();
    let task = Arc::new(task(cli, server.as_ref(), descriptors)?);
    let warnings = warnings(cli, &task);
    warnings.iter().for_each(|warning| live.say(&format!("warning: {warning}")));
    let baseline = Baseline {
        server: server_pid.and_then(process::sample),
        generator,
        kernel: kernel::sample(),
    };

    let admin = admin(cli, server.as_ref(), &task)?;
    let crew = Crew::start(&task)?;
    let rings = crew.rings;
    let mut conductor = Conductor {
        cli,
        task: &task,
        crew,
        server,
        server_pid,
        live,
        interrupted,
        admin,
        next_event: 0,
        draining: false,
        answers: Vec::new(),
    };
    let ending = conductor.conduct();
    let Conductor { crew, server, interrupted, answers, .. } = conductor;
    let last = crew.snapshot();
    let terms_ms = (last.interval_ms, last.idle_timeout_ms);
    let ending = match ending {
        Ok(ending) => ending,
        Err(WorkerFailed) => return Err(crew.first_error()),
    };
    let stats = crew.join()?;
    let ready = server.as_ref().map(|server| server.ready.clone());
    let last_words = server.filter(|_| ending.server_died.is_none()).map(Server::stop);
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
        notes: ending.notes,
        interrupted: interrupted.load(Ordering::Relaxed),
        server_pid,
        answers,
        steady_at: steady_at(&task),
        terms_ms,
    }))
}

fn steady_at(task: &Task) -> Option<Timestamp> {
    let at = task.orders.steady_at.load(Ordering::Relaxed);
    (at != u64::MAX).then(|| Timestamp::from_nanos(at))
}

/// Whoever asks the control plane, if anything is asked of it.
fn admin(cli: &Cli, server: Option<&Server>, task: &Arc<Task>) -> Result<Option<Admin>> {
    if !Scenario::needs_admin(&cli.at) {
        return Ok(None);
    }
    let address = match (cli.target_admin, server) {
        (Some(address), _) => address,
        (None, Some(server)) => server.admin()?,
        (None, None) => unreachable!("checked: a target needs --target-admin"),
    };
    Admin::start(address, Arc::clone(task)).map(Some)
}

fn watch_for_interrupts() -> Result<Arc<AtomicBool>> {
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
    let target = match (cli.target, server) {
        (Some(target), _) => target.address,
        (None, Some(server)) => server.address,
        (None, None) => unreachable!("without a target there is a server of our own"),
    };
    let clock = Clock::new();
    let most = u64::from(heartwheel::limits::SLOTS_PER_RING_MAX);
    // Direct descriptors do not count as the process's own: the limit bounds each ring's table.
    let slots = descriptors.clamp(1, most);
    let interval_ms = cli.interval.map_or(0, |interval| interval.as_millis() as u32);
    let plan = Plan {
        seed: cli.seed,
        clients: cli.connections,
        connect_rate_per_s: cli.connect_rate,
        jitter: cli.jitter,
        silent: cli.silent_count(),
    };
    let scenario = Scenario {
        plan,
        slow: cli.slow_count(),
        churn_per_s: cli.churn,
        data_per_s: cli.data,
        reconnect: cli.reconnect,
        events: cli.events(),
    };
    // A port that was closed here lingers in TIME_WAIT: enough of them that none is needed twice.
    let opened = u64::from(cli.connections) + scenario.reopenings(cli.duration);
    let opened = u32::try_from(opened).unwrap_or(u32::MAX);
    let orders = Orders::new(scenario.events.len());
    Ok(Task {
        plan,
        scenario,
        target,
        sources: Sources::new(&cli.source_addresses()?, target, opened),
        wire: match cli.spoken() {
            Protocol::Tcp => Wire::tcp(!cli.no_hello, interval_ms),
            Protocol::WebSocket => Wire::websocket(&target.to_string(), cli.ws_heartbeat, cli.seed),
        },
        interval: cli.interval,
        idle_timeout: cli.idle_timeout,
        tick: cli.tick,
        open_timeout: cli.open_timeout,
        slots_per_ring: slots as u32,
        workers: cli.workers(),
        clock,
        start: clock.now() + Duration::from_millis(50),
        orders,
    })
}

fn warnings(cli: &Cli, task: &Task) -> Vec<String> {
    let capacity = task.sources.capacity();
    let needs = Needs {
        connections: u64::from(cli.connections),
        both_ends: task.target.ip().is_loopback(),
        kernel_ports: capacity.is_none(),
    };
    let mut warnings = advice::warnings(needs);
    // A port that is closed here is free again after a minute (TIME_WAIT).
    let needed = u64::from(cli.connections) + 60 * u64::from(cli.churn);
    if let Some(capacity) = capacity.filter(|&capacity| capacity < needed) {
        warnings.push(format!(
            "the source addresses have {capacity} ports, {needed} are needed: name more \
             --source-ips",
        ));
    }
    warnings
}

/// A worker has ended before its time; it knows why.
struct WorkerFailed;

/// What the phases left behind.
#[derive(Default)]
struct Ending {
    steady: Option<Steady>,
    server_died: Option<ExitStatus>,
    notes: Vec<String>,
}

struct Conductor<'a> {
    cli: &'a Cli,
    task: &'a Task,
    crew: Crew,
    server: Option<Server>,
    server_pid: Option<u32>,
    live: Live,
    interrupted: Arc<AtomicBool>,
    admin: Option<Admin>,
    /// The next event that has not been announced.
    next_event: usize,
    /// The server was told to drain: it may end.
    draining: bool,
    answers: Vec<Answer>,
}

impl Conductor<'_> {
    fn conduct(&mut self) -> Result<Ending, WorkerFailed> {
        let mut ending = Ending::default();
        self.connect(&mut ending)?;
        if self.crew.snapshot().open() > 0 && self.goes_on(&mut ending) {
            let warm = self.task.clock.now() + self.cli.warmup;
            self.watch("warming up", &mut ending, |now, _| now >= warm)?;
            self.hold(&mut ending)?;
        }
        self.fall_quiet(&mut ending)?;
        self.answers = self.admin.take().map(Admin::finish).unwrap_or_default();
        self.close()?;
        Ok(ending)
    }

    fn connect(&mut self, ending: &mut Ending) -> Result<(), WorkerFailed> {
        let all = u64::from(self.cli.connections);
        let planned = self.task.plan.connect_after(self.cli.connections);
        let patience = limits::CONNECTING_EXTRA + self.cli.open_timeout;
        let deadline = self.task.start + planned + patience;
        let settled = |snapshot: &Snapshot| snapshot.opened + snapshot.failed >= all;
        self.watch("connecting", ending, |now, snapshot| settled(snapshot) || now >= deadline)?;
        if !settled(&self.crew.snapshot()) && !self.interrupted.load(Ordering::Relaxed) {
            ending.notes.push(format!(
                "connecting was given up {} s after the plan's end",
                patience.as_secs()
            ));
        }
        self.task.orders.give_up.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn hold(&mut self, ending: &mut Ending) -> Result<(), WorkerFailed> {
        let length = self.steady_length(ending);
        // Far enough ahead for every worker to know it in time.
        let from = self.task.clock.now() + 2 * limits::SLEEP_MAX;
        self.task.orders.steady_at.store(from.as_nanos(), Ordering::Relaxed);
        self.watch("holding", ending, |now, _| now >= from)?;
        let generator = process::sample(std::process::id()).unwrap_or_default();
        let server = self.server_pid.and_then(process::sample);
        let first = self.crew.snapshot();

        self.watch("holding", ending, |now, _| now >= from + length)?;
        let last = self.crew.snapshot();
        let until = self.task.clock.now();
        let server_now = self.server_pid.and_then(process::sample);
        let generator_now = process::sample(std::process::id()).unwrap_or_default();
        ending.steady = Some(Steady {
            length: until.since(from),
            acked: last.acked - first.acked,
            server_cpu: server.zip(server_now).map(|(then, now)| now.cpu.saturating_sub(then.cpu)),
            generator_cpu: generator_now.cpu.saturating_sub(generator.cpu),
            server: server_now,
            generator: generator_now,
            kernel: kernel::sample(),
            open: last.open(),
        });
        Ok(())
    }

    /// As long as wanted, but long enough for the silent to be expired.
    fn steady_length(&self, ending: &mut Ending) -> Duration {
        let wanted = self.cli.duration;
        let snapshot = self.crew.snapshot();
        let interval = Duration::from_millis(snapshot.interval_ms);
        let timeout = Duration::from_millis(snapshot.idle_timeout_ms);
        if !timeout.is_zero() && interval.mul_f64(1.0 + self.cli.jitter) >= timeout {
            ending.notes.push(format!(
                "the interval {interval:?} with its jitter reaches the idle timeout {timeout:?}: \
                 healthy clients may be expired"
            ));
        }
        let needed = timeout + self.cli.tick + limits::EXPIRY_GRACE;
        if self.task.plan.silent == 0 || wanted >= needed {
            return wanted;
        }
        ending.notes.push(format!(
            "the steady state was raised from {wanted:?} to {needed:?}: idle timeout + tick + {:?}",
            limits::EXPIRY_GRACE
        ));
        needed
    }

    fn fall_quiet(&mut self, ending: &mut Ending) -> Result<(), WorkerFailed> {
        let from = self.task.clock.now();
        self.task.orders.quiet_at.store(from.as_nanos(), Ordering::Relaxed);
        // The workers see it, and publish, within twice their longest sleep.
        let seen = from + 2 * limits::SLEEP_MAX;
        let deadline = from + limits::LAST_ANSWERS_MAX;
        self.watch_to_the_end("last answers", ending, |now, snapshot| {
            now >= seen
                && (snapshot.acked + snapshot.written_off >= snapshot.sent || now >= deadline)
        })
    }

    fn close(&mut self) -> Result<(), WorkerFailed> {
        self.task.orders.close_at.store(self.task.clock.now().as_nanos(), Ordering::Relaxed);
        while !self.crew.all_ended() {
            std::thread::sleep(Duration::from_millis(5));
            let mut snapshot = self.crew.snapshot();
            snapshot.gone = snapshot.opened.saturating_sub(snapshot.alive);
            self.live.show("closing", &snapshot);
        }
        if self.server.is_some() {
            // So that it sees the last of our FINs before its SIGTERM.
            std::thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    }

    /// Looks on until `until` holds, or the run is over for another reason.
    fn watch(
        &mut self,
        phase: &str,
        ending: &mut Ending,
        until: impl Fn(Timestamp, &Snapshot) -> bool,
    ) -> Result<(), WorkerFailed> {
        if !self.goes_on(ending) {
            return Ok(());
        }
        let interrupted = Arc::clone(&self.interrupted);
        self.watch_to_the_end(phase, ending, |now, snapshot| {
            until(now, snapshot) || interrupted.load(Ordering::Relaxed)
        })
    }

    fn watch_to_the_end(
        &mut self,
        phase: &str,
        ending: &mut Ending,
        until: impl Fn(Timestamp, &Snapshot) -> bool,
    ) -> Result<(), WorkerFailed> {
        loop {
            let snapshot = self.crew.snapshot();
            if until(self.task.clock.now(), &snapshot) {
                return Ok(());
            }
            if self.crew.any_ended() {
                return Err(WorkerFailed);
            }
            self.announce_events();
            if ending.server_died.is_none() {
                let ended = self.server.as_mut().and_then(Server::ended);
                ending.server_died = ended.filter(|status| !(self.draining && status.success()));
                if ending.server_died.is_some() {
                    return Ok(());
                }
            }
            self.live.show(phase, &snapshot);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Says which events begin, and has the server asked for those that are its own.
    fn announce_events(&mut self) {
        let Some(steady_at) = steady_at(self.task) else { return };
        let quiet = self.task.orders.quiet_at.load(Ordering::Relaxed) != u64::MAX;
        while let Some(event) = self.task.scenario.events.get(self.next_event) {
            if quiet || self.task.clock.now() < steady_at + event.at {
                break;
            }
            let what = match event.kind {
                Kind::Storm(share) => format!("storm: {:.0} % are killed", share * 100.0),
                Kind::Drain(_) => "drain: the server is told to".to_owned(),
                Kind::Broadcast(bytes, _) => format!("broadcast of {bytes} B to everybody"),
            };
            self.live.say(&format!("--- {:?} of the steady state: {what}", event.at));
            self.draining |= matches!(event.kind, Kind::Drain(_));
            if let Some(admin) = &self.admin {
                admin.ask(self.next_event);
            }
            self.next_event += 1;
        }
    }

    fn goes_on(&self, ending: &mut Ending) -> bool {
        !self.interrupted.load(Ordering::Relaxed) && ending.server_died.is_none()
    }
}
