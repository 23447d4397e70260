//! The phases of a run, one after the other, and what is announced and asked for in between.

use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use heartwheel::time::Timestamp;

use crate::by_hand::ByHand;
use crate::cli::Cli;
use crate::crew::Crew;
use crate::host::{cores, kernel, process, sockets};
use crate::limits;
use crate::live::Live;
use crate::run::{Steady, steady_at};
use crate::scenario::Kind;
use crate::scenario::admin::{Admin, Answer};
use crate::series::Series;
use crate::server::Server;
use crate::stats::Snapshot;
use crate::worker::Task;

/// A worker has ended before its time; it knows why.
pub struct WorkerFailed;

/// What the phases left behind.
#[derive(Default)]
pub struct Ending {
    /// `None` if it was never reached.
    pub steady: Option<Steady>,
    /// The server ended although it was not to.
    pub server_died: Option<ExitStatus>,
    /// Connections after the steady state, while nothing opened or closed: as the kernel counts
    /// them on the server's side, and as we do. `None` if the server is not on this host.
    pub established: Option<(u64, u64)>,
    /// What else should be known.
    pub notes: Vec<String>,
}

/// Leads a run through its phases.
pub struct Conductor<'a> {
    pub cli: &'a Cli,
    pub task: &'a Task,
    pub crew: Crew,
    pub server: Option<Server>,
    pub server_pid: Option<u32>,
    pub live: Live,
    /// How it went over time.
    pub series: Series,
    pub interrupted: Arc<AtomicBool>,
    /// Whoever asks the control plane, until the last accounts are read.
    pub admin: Option<Admin>,
    /// The next event that has not been announced.
    pub next_event: usize,
    /// The server was told to drain: it may end.
    pub draining: bool,
    /// What the server answered to each event.
    pub answers: Vec<Answer>,
    /// What was ordered at the live view.
    pub by_hand: ByHand,
}

impl Conductor<'_> {
    /// All phases, from connecting to closing.
    ///
    /// # Errors
    /// If a worker has failed.
    pub fn conduct(&mut self) -> Result<Ending, WorkerFailed> {
        let mut ending = Ending::default();
        if self.cli.start_at.is_some() {
            let start = self.task.start;
            self.watch("waiting", &mut ending, |now, _| now >= start)?;
        }
        self.connect(&mut ending)?;
        if self.crew.snapshot().open() > 0 && self.goes_on(&mut ending) {
            let warm = self.warm_at(&mut ending);
            self.live.expect(self.task.clock.now(), warm);
            self.watch("warming up", &mut ending, |now, _| now >= warm)?;
            self.hold(&mut ending)?;
        }
        self.fall_quiet(&mut ending)?;
        self.answers = self.admin.take().map(Admin::finish).unwrap_or_default();
        self.count_established(&mut ending);
        self.close()?;
        Ok(ending)
    }

    /// When the steady state is to begin: with those of all other parts, if this is not too late.
    fn warm_at(&self, ending: &mut Ending) -> Timestamp {
        let soonest = self.task.clock.now() + self.cli.warmup;
        if self.cli.start_at.is_none() {
            return soonest;
        }
        let common = self.task.common_steady_at(self.cli.warmup);
        if soonest > common + limits::SLEEP_MAX {
            ending.notes.push(format!(
                "the steady state began {:.1} s later than that of the other parts was planned: \
                 connecting took so long",
                soonest.since(common).as_secs_f64()
            ));
        }
        common.max(soonest)
    }

    fn connect(&mut self, ending: &mut Ending) -> Result<(), WorkerFailed> {
        let all = u64::from(self.cli.own_connections());
        let planned = self.task.plan.connect_after(self.cli.connections);
        let patience = limits::CONNECTING_EXTRA + self.cli.open_timeout;
        let deadline = self.task.start + planned + patience;
        let settled = |snapshot: &Snapshot| snapshot.opened + snapshot.failed >= all;
        let task = self.task;
        let over =
            |now: Timestamp| task.orders.connect_delay().is_some_and(|late| now >= deadline + late);
        self.watch("connecting", ending, |now, snapshot| settled(snapshot) || over(now))?;
        self.resume(self.task.clock.now());
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
        let now = self.task.clock.now();
        let common = self.task.common_steady_at(self.cli.warmup);
        // All parts at the same time, if it was kept.
        let kept = self.cli.start_at.is_some() && now <= common + limits::SLEEP_MAX;
        let from = if kept { common } else { now } + 2 * limits::SLEEP_MAX;
        self.task.orders.steady_at.store(from.as_nanos(), Ordering::Relaxed);
        self.live.expect(from, from + length);
        self.watch("holding", ending, |now, _| now >= from)?;
        let generator = process::sample(std::process::id()).unwrap_or_default();
        let server = self.server_pid.and_then(process::sample);
        let cores = cores::sample(self.server_pid);
        let first = self.crew.snapshot();

        self.watch("holding", ending, |now, _| now >= from + length)?;
        let last = self.crew.snapshot();
        let until = self.task.clock.now();
        let server_now = self.server_pid.and_then(process::sample);
        let generator_now = process::sample(std::process::id()).unwrap_or_default();
        let cores_now = cores::sample(self.server_pid);
        ending.steady = Some(Steady {
            length: until.since(from),
            acked: last.acked - first.acked,
            server_cpu: server.zip(server_now).map(|(then, now)| now.cpu.saturating_sub(then.cpu)),
            generator_cpu: generator_now.cpu.saturating_sub(generator.cpu),
            server: server_now,
            generator: generator_now,
            kernel: kernel::sample(),
            host: cores::section(&cores, &cores_now, self.server_pid),
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
        self.live.expect(from, deadline);
        self.watch_to_the_end("last answers", ending, |now, snapshot| {
            now >= seen
                && (snapshot.acked + snapshot.written_off >= snapshot.sent || now >= deadline)
        })
    }

    /// Asks the kernel how many connections the server has, and compares. A close may be on its way
    /// still, so it is asked again until both agree, for a second at most.
    fn count_established(&mut self, ending: &mut Ending) {
        // Of several generators each knows its own connections only.
        let all_are_ours = self.cli.part.is_none();
        let is_here = all_are_ours && self.server_pid.is_some_and(sockets::are_those_of);
        if !is_here || self.draining || !self.goes_on(ending) {
            return;
        }
        for _ in 0..limits::SOCKET_COUNTS_MAX {
            match sockets::established(self.task.target) {
                Ok(kernel) => ending.established = Some((kernel, self.crew.snapshot().open())),
                Err(error) => {
                    ending.notes.push(format!("the kernel does not tell its sockets: {error}"));
                    return;
                }
            }
            if ending.established.is_some_and(|(kernel, ours)| kernel == ours) {
                return;
            }
            std::thread::sleep(limits::SOCKET_COUNT_PAUSE);
        }
    }

    fn close(&mut self) -> Result<(), WorkerFailed> {
        self.task.orders.close_at.store(self.task.clock.now().as_nanos(), Ordering::Relaxed);
        while !self.crew.all_ended() {
            std::thread::sleep(Duration::from_millis(5));
            let mut snapshot = self.crew.snapshot();
            snapshot.gone = snapshot.opened.saturating_sub(snapshot.alive);
            self.series.look("closing", &snapshot, &self.crew, self.server_pid);
            self.live.show("closing", &snapshot, &self.crew);
            self.heed_wishes("closing");
        }
        self.live.end_watch();
        if self.server.is_some() {
            // So that it sees the last of our FINs before its SIGTERM.
            std::thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    }

    /// Looks on until `until` holds, or the run is over for another reason.
    fn watch(
        &mut self,
        phase: &'static str,
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
        phase: &'static str,
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
            self.heed_wishes(phase);
            if ending.server_died.is_none() {
                let ended = self.server.as_mut().and_then(Server::ended);
                ending.server_died = ended.filter(|status| !(self.draining && status.success()));
                if ending.server_died.is_some() {
                    return Ok(());
                }
            }
            self.series.look(phase, &snapshot, &self.crew, self.server_pid);
            self.live.show(phase, &snapshot, &self.crew);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Says which events begin, and has the server asked for those that are its own.
    fn announce_events(&mut self) {
        let Some(steady_at) = steady_at(self.task) else { return };
        let quiet = self.task.orders.quiet_at.load(Ordering::Relaxed) != u64::MAX;
        let events = &self.task.scenario.events;
        while let Some(event) = events.get(self.next_event) {
            let later = self.next_event >= events.planned();
            if later || quiet || self.task.clock.now() < steady_at + event.at {
                break;
            }
            self.begin_event(self.next_event);
            self.next_event += 1;
        }
    }

    /// Event number `number` begins now.
    pub fn begin_event(&mut self, number: usize) {
        let Some(event) = self.task.scenario.events.get(number) else { return };
        self.live.announce(&format!("--- {:?} of the steady state: {}", event.at, event.kind));
        self.draining |= matches!(event.kind, Kind::Drain(_));
        if let Some(admin) = &self.admin {
            admin.ask(number);
        }
    }

    fn goes_on(&self, ending: &mut Ending) -> bool {
        !self.interrupted.load(Ordering::Relaxed) && ending.server_died.is_none()
    }
}
