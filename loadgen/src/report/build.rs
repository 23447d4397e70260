//! From what was counted and measured to the report.

use std::env;
use std::fs;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Result;
use heartwheel::time::Timestamp;
use serde_json::Value;

use super::{
    Connect, Connections, Environment, Expiry, GeneratorSection, Heartbeats, Lateness, Report,
    Requested, ServerSection, Times, VERSION, events, histograms, laws, verdict,
};
use crate::cli::Cli;
use crate::foreign;
use crate::host::cores::{self, HostSection};
use crate::host::kernel::{self, KernelSample};
use crate::latency::Latency;
use crate::limits;
use crate::run::{Baseline, Steady};
use crate::scenario::admin::Answer;
use crate::series::SeriesSection;
use crate::server::{Final, Ready};
use crate::stats::{Stats, named};
use crate::worker::Task;

/// All that a run leaves behind.
pub struct Evidence<'a> {
    pub cli: &'a Cli,
    pub task: &'a Task,
    pub warnings: Vec<String>,
    pub baseline: Baseline,
    /// `None` if it was never reached.
    pub steady: Option<Steady>,
    pub stats: Stats,
    pub kernel_end: KernelSample,
    pub rings: usize,
    pub ready: Option<Ready>,
    /// `None` if the server is not ours.
    pub last_words: Option<Result<Final>>,
    pub server_died: Option<ExitStatus>,
    /// Why the HDR log could not be written.
    pub hdr_failure: Option<anyhow::Error>,
    /// As the kernel counts, and as we do.
    pub established: Option<(u64, u64)>,
    pub notes: Vec<String>,
    pub interrupted: bool,
    pub server_pid: Option<u32>,
    /// What the server answered to each event.
    pub answers: Vec<Answer>,
    /// How it went over time.
    pub series: SeriesSection,
    /// What the times of the series count from, since 1970.
    pub begun: Duration,
    /// When the steady state began, if it did.
    pub steady_at: Option<Timestamp>,
    /// Interval and idle timeout as the clients kept them, in milliseconds; 0 if not known.
    pub terms_ms: (u64, u64),
    /// How long nobody connected because a key wanted it.
    pub paused: Duration,
}

const ORACLE_METHOD: &str = "early: only if the end was seen before (last bytes sent + idle \
                             timeout), so an expiry that is early by less than the network's \
                             delay passes; lateness: an upper bound that contains both network \
                             delays and the time until this loop looked, about a millisecond or \
                             two on one host";

/// Puts the report together.
pub fn build(evidence: &Evidence<'_>) -> Report {
    let Evidence { cli, task, stats, ready, .. } = evidence;
    let mut broken = Vec::new();
    let last_words = match &evidence.last_words {
        Some(Ok(last_words)) => Some(last_words),
        Some(Err(error)) => {
            broken.push(format!("{error:#}"));
            None
        }
        None => None,
    };
    if let Some(status) = last_words.and_then(|words| words.failure) {
        broken.push(format!("the server ended with {status}"));
    }
    if let Some(status) = evidence.server_died {
        broken.push(format!("the server ended during the run ({status})"));
    }
    broken.extend(evidence.hdr_failure.iter().map(|error| format!("{error:#}")));
    let mut laws = laws::own(u64::from(cli.own_connections()), stats);
    laws.extend(evidence.established.map(|(kernel, ours)| laws::established(kernel, ours)));
    let gentle = task.scenario.is_gentle();
    laws.extend(last_words.map(|words| laws::shared(stats, words, gentle)).unwrap_or_default());
    let push = events::push(evidence);
    let acknowledges = task.wire.acknowledges() && last_words.is_some() && gentle;
    laws.extend(laws::pushes(&push, acknowledges));
    for (event, answer) in task.scenario.events.iter().zip(&evidence.answers) {
        let failed = answer.failure.iter();
        broken.extend(failed.map(|why| format!("{} at {:?}: {why}", event.kind.name(), event.at)));
    }
    let mut notes = evidence.warnings.clone();
    notes.extend(evidence.notes.iter().cloned());
    notes.extend(foreign::notes(cli, stats));

    let mut report = Report {
        version: VERSION,
        notes,
        target: format!("{}://{}", task.wire.name(), task.target),
        protocol: task.wire.name().to_owned(),
        engine: ready.as_ref().map(|ready| ready.engine.clone()),
        sweep: ready.as_ref().map(|ready| ready.sweep.clone()),
        seed: cli.seed,
        part: cli.part,
        times: times(evidence),
        environment: environment(task),
        requested: requested(cli),
        connections: connections(cli, stats),
        connect: connect(evidence),
        heartbeats: heartbeats(evidence),
        rtt_us: stats.rtt.summary(),
        expiry: expiry(evidence),
        push,
        events: events::events(evidence),
        reconnect: events::reconnect(evidence),
        slow: events::slow(evidence),
        data: events::data(evidence),
        server: server(evidence, last_words),
        generator: generator(evidence),
        host: host(evidence),
        kernel: kernel(evidence),
        laws,
        rtt_distribution: stats.rtt.distribution(),
        series: evidence.series.clone(),
        histograms: histograms::histograms(evidence),
        ..Report::default()
    };
    // A report always serializes: it has neither maps with odd keys nor failing serializers.
    let numbers = serde_json::to_value(&report).unwrap_or(Value::Null);
    report.slo = cli.slo.iter().map(|slo| slo.judge(&numbers)).collect();
    verdict::pass(&mut report, evidence.interrupted, broken);
    report
}

/// The command that a script like `scripts/capacity-run` was given.
pub const STARTED_BY: &str = "LOADGEN_STARTED_BY";

fn environment(task: &Task) -> Environment {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let sysctl = |name: &str| {
        let value = read(&format!("/proc/sys/{name}"));
        value.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    // In a network namespace some values of the host do not show; who has made it may tell them.
    let of_host = |name: &str, told: &str| match sysctl(name) {
        hidden if hidden.is_empty() => env::var(told).unwrap_or_default(),
        shown => shown,
    };
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    Environment {
        command: command(),
        loadgen: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: sysctl("kernel/osrelease"),
        boot_id: sysctl("kernel/random/boot_id"),
        network_namespace: fs::read_link("/proc/self/ns/net")
            .map(|link| link.display().to_string())
            .unwrap_or_default(),
        cpu: model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown").to_owned(),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        memory_bytes: heartwheel::host::kib_field(&read("/proc/meminfo"), "MemTotal:").unwrap_or(0),
        descriptors_max: u64::from(task.slots_per_ring),
        tcp_mem_pages: of_host("net/ipv4/tcp_mem", "LOADGEN_TCP_MEM"),
        netdev_max_backlog: of_host("net/core/netdev_max_backlog", "LOADGEN_NETDEV_MAX_BACKLOG"),
        somaxconn: sysctl("net/core/somaxconn"),
    }
}

/// How this program was started, or whatever has started it for its sake. Where it lies is nobody's
/// business.
pub fn command() -> String {
    if let Ok(command) = env::var(STARTED_BY) {
        return command;
    }
    let words = env::args().skip(1).map(|word| quoted(&word));
    std::iter::once("loadgen".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// As a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=,%@+".contains(letter);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

fn requested(cli: &Cli) -> Requested {
    let millis = |duration: Duration| duration.as_millis() as u64;
    Requested {
        connections: u64::from(cli.connections),
        connect_rate_per_s: u64::from(cli.connect_rate),
        interval_ms: cli.interval.map(millis),
        jitter: cli.jitter,
        duration_s: cli.duration.as_secs_f64(),
        warmup_s: cli.warmup.as_secs_f64(),
        silent: cli.silent,
        idle_timeout_ms: cli.idle_timeout.map(millis),
        tick_ms: millis(cli.tick),
        phase: Some(cli.phase),
        negotiate: cli.negotiate,
        churn_per_s: u64::from(cli.churn),
        slow: cli.slow,
        data_per_s: u64::from(cli.data),
        reconnect_ms: cli.reconnect.map(|backoff| (millis(backoff.first), millis(backoff.most))),
        start_at_unix_s: cli.start_at.map(|at| at.as_secs_f64()),
    }
}

fn times(evidence: &Evidence<'_>) -> Times {
    let Evidence { task, steady, .. } = evidence;
    let unix_s = |at: Duration| (at.as_secs_f64() * 1e3).round() / 1e3;
    Times {
        begun_unix_s: unix_s(evidence.begun),
        start_unix_s: unix_s(task.unix(task.start)),
        steady_unix_s: evidence.steady_at.map(|at| unix_s(task.unix(at))),
        steady_s: steady.map(|steady| steady.length.as_secs_f64()),
        steady_acked: steady.map(|steady| steady.acked),
        steady_open: steady.map(|steady| steady.open),
    }
}

fn connections(cli: &Cli, stats: &Stats) -> Connections {
    Connections {
        requested: u64::from(cli.own_connections()),
        opened: stats.opened,
        reopened: stats.scene.reopened,
        failed: named(&stats.failed),
        open_at_end: stats.open_at_end,
        closed_by_server: named(&stats.closed_by_server),
        closed_by_us: stats.closed_by_us,
        sources_skipped: stats.sources_skipped,
    }
}

fn connect(evidence: &Evidence<'_>) -> Connect {
    let Evidence { cli, task, stats, .. } = evidence;
    let took = stats.last_opened.since(task.start);
    let planned = task.plan.connect_after(cli.connections);
    let seconds = took.as_secs_f64();
    let connecting = took.saturating_sub(evidence.paused).as_secs_f64();
    Connect {
        seconds,
        rate_per_s: if connecting > 0.0 { stats.opened as f64 / connecting } else { 0.0 },
        planned_rate_per_s: u64::from(cli.connect_rate.div_ceil(cli.own_part().of)),
        behind_plan_s: took.saturating_sub(planned + evidence.paused).as_secs_f64(),
        paused_s: evidence.paused.as_secs_f64(),
        latency_us: stats.connect.summary(),
    }
}

fn heartbeats(evidence: &Evidence<'_>) -> Heartbeats {
    let Evidence { stats, steady, terms_ms, .. } = evidence;
    Heartbeats {
        due: stats.due,
        sent: stats.sent,
        acked: stats.acked,
        cut_off: stats.scene.cut_off,
        unread: stats.scene.unread,
        missing: stats.sent.saturating_sub(stats.acked + stats.scene.cut_off + stats.scene.unread),
        sent_late: stats.sent_late,
        adjusted: stats.adjusts,
        peak_to_mean: stats.peak_to_mean(),
        stray: stats.stray_pongs,
        rate_per_s: steady.map_or(0.0, |steady| per(steady.acked as f64, steady.length)),
        interval_ms: (terms_ms.0 > 0).then_some(terms_ms.0),
    }
}

fn expiry(evidence: &Evidence<'_>) -> Expiry {
    let Evidence { stats, terms_ms, .. } = evidence;
    Expiry {
        silenced: stats.silenced,
        expired: stats.expired,
        missed: stats.missed,
        falsely: stats.early + stats.healthy_closed,
        false_early: stats.early,
        false_healthy: stats.healthy_closed,
        our_delay: stats.our_delay,
        undecided: stats.undecided,
        idle_timeout_ms: (terms_ms.1 > 0).then_some(terms_ms.1),
        lateness_ms: lateness(&stats.expiry_lateness),
        silence_ms: lateness(&stats.silence),
        method: ORACLE_METHOD.to_owned(),
    }
}

pub(super) fn lateness(latency: &Latency) -> Lateness {
    let millis = |us: Option<u64>| us.map(|us| us as f64 / 1e3);
    Lateness {
        min: millis(latency.min_us()),
        p50: millis(latency.percentile_us(50.0)),
        p99: millis(latency.percentile_us(99.0)),
        max: millis(latency.max_us()),
    }
}

fn server(evidence: &Evidence<'_>, last_words: Option<&Final>) -> ServerSection {
    let Evidence { baseline, steady, .. } = evidence;
    let counters = last_words.map_or(Value::Null, |words| words.counters.clone());
    let idle = baseline.server.map(|sample| sample.rss_bytes);
    let mut section = ServerSection {
        pid: evidence.server_pid,
        died: evidence.server_died.map(|status| status.to_string()),
        rss_idle_bytes: idle,
        sweep: counters.get("sweep").cloned().unwrap_or(Value::Null),
        counters,
        ..ServerSection::default()
    };
    let Some(steady) = steady else { return section };
    section.rss_bytes = steady.server.map(|sample| sample.rss_bytes);
    section.rss_bytes_per_connection = idle
        .zip(section.rss_bytes)
        .filter(|_| steady.open > 0)
        .map(|(idle, rss)| (rss as f64 - idle as f64) / steady.open as f64);
    if let Some(cpu) = steady.server_cpu {
        section.cpu_s = Some(cpu.as_secs_f64());
        section.cpu_cores = Some(per(cpu.as_secs_f64(), steady.length));
        section.cpu_us_per_heartbeat = cpu_us_per_heartbeat(cpu, steady);
    }
    section
}

fn generator(evidence: &Evidence<'_>) -> GeneratorSection {
    let Evidence { stats, task, baseline, steady, .. } = evidence;
    let saturated_by = saturated_by(stats);
    let mut section = GeneratorSection {
        threads: task.workers,
        rings: evidence.rings,
        saturated: saturated_by.is_some(),
        saturated_by,
        send_lateness_us: stats.send_lateness.summary(),
        turn_us: stats.turn.summary(),
        send_errors: stats.send_errors,
        bytes_sent: stats.bytes_sent,
        bytes_received: stats.bytes_received,
        rearmed: named(&stats.rearmed),
        stale_completions: stats.stale,
        ..GeneratorSection::default()
    };
    let Some(steady) = steady else { return section };
    let grown = steady.generator.rss_bytes.saturating_sub(baseline.generator.rss_bytes);
    section.cpu_s = steady.generator_cpu.as_secs_f64();
    section.cpu_cores = per(section.cpu_s, steady.length);
    section.cpu_us_per_heartbeat = cpu_us_per_heartbeat(steady.generator_cpu, steady);
    section.rss_bytes = steady.generator.rss_bytes;
    section.rss_bytes_per_connection = (steady.open > 0).then(|| grown as f64 / steady.open as f64);
    section
}

fn kernel(evidence: &Evidence<'_>) -> kernel::KernelSection {
    let Evidence { baseline, steady, stats, kernel_end, .. } = evidence;
    let steady = steady.unwrap_or_default();
    let server = steady.server.zip(baseline.server);
    let server = server.map_or(0, |(now, then)| now.rss_bytes.saturating_sub(then.rss_bytes));
    let own = steady.generator.rss_bytes.saturating_sub(baseline.generator.rss_bytes);
    kernel::section(&baseline.kernel, &steady.kernel, kernel_end, stats.opened, server + own)
}

fn host(evidence: &Evidence<'_>) -> HostSection {
    let before = evidence.baseline.oom_kills;
    HostSection {
        oom_kills: cores::oom_kills().zip(before).map(|(now, then)| now.saturating_sub(then)),
        ..evidence.steady.map(|steady| steady.host).unwrap_or_default()
    }
}

/// Late sends, whoever kept us from sending: the server's figures would be wrong by as much.
fn saturated_by(stats: &Stats) -> Option<String> {
    if stats.our_delay > 0 {
        return Some(format!(
            "{} healthy clients were expired because their heartbeats were not sent in time",
            stats.our_delay
        ));
    }
    let p99 = Duration::from_micros(stats.send_lateness.percentile_us(99.0)?);
    (p99 > limits::SEND_LATENESS_P99_MAX).then(|| {
        format!(
            "1 % of the heartbeats were sent {p99:?} or more after they were due (limit {:?})",
            limits::SEND_LATENESS_P99_MAX
        )
    })
}

fn cpu_us_per_heartbeat(cpu: Duration, steady: &Steady) -> Option<f64> {
    (steady.acked > 0).then(|| cpu.as_secs_f64() * 1e6 / steady.acked as f64)
}

fn per(amount: f64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { amount / time.as_secs_f64() }
}
