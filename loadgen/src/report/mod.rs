//! The report: what was wanted, what was reached, and whether that is well.
//!
//! Its JSON is an interface: names are added, never changed (`version` 1).

mod build;
mod events;
mod histograms;
mod html;
mod laws;
mod merge;
mod text;
mod verdict;

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::build::{Evidence, STARTED_BY, build, command};
pub use self::events::{Data, EventSection, Push, Reconnect, Slow};
pub use self::histograms::Histograms;
pub use self::html::{escape, html, page, table};
pub use self::merge::{RttOverTime, merge};
use self::text::summary;
use crate::host::cores::HostSection;
use crate::host::kernel::KernelSection;
use crate::latency::{LatencySummary, PercentileUs};
use crate::part::Part;
use crate::plan::Phase;
use crate::series::SeriesSection;
use crate::slo::SloOutcome;
use crate::stats::Counts;

/// Writes a report as JSON to `file` (`-` is standard output), and as a page to `page`; unless it
/// is on standard output, a summary of it goes there.
///
/// # Errors
/// If one of them cannot be written.
pub fn deliver(report: &Report, file: Option<&Path>, page: Option<&Path>) -> Result<()> {
    let json = serde_json::to_string_pretty(report).context("writing the report")?;
    let mut out = std::io::stdout();
    match file {
        Some(file) if file == Path::new("-") => writeln!(out, "{json}")?,
        Some(file) => {
            write!(out, "{}", summary(report))?;
            fs::write(file, json + "\n").with_context(|| format!("writing {}", file.display()))?;
        }
        None => write!(out, "{}", summary(report))?,
    }
    if let Some(file) = page {
        fs::write(file, html(report)).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

/// Two of a kind field by field, as JSON writes them: name, the one, the other, where they differ.
pub fn differences<T: Serialize>(one: &T, other: &T) -> Vec<(String, String, String)> {
    let fields = |value: &T| match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (one, other) = (fields(one), fields(other));
    let differ = one.iter().filter(|(name, value)| other.get(*name) != Some(value));
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    differ
        .map(|(name, value)| {
            (name.clone(), text(value), text(other.get(name).unwrap_or(&Value::Null)))
        })
        .collect()
}

/// The version of the format.
const VERSION: u32 = 1;

/// Reads a report. One of an older program lacks what that did not know.
///
/// # Errors
/// If it is none, or of another version.
pub fn read(path: &Path) -> Result<Report> {
    let what = || path.display().to_string();
    let text = fs::read_to_string(path).with_context(what)?;
    let value: Value = serde_json::from_str(&text).with_context(what)?;
    let version = value.get("version").and_then(Value::as_u64);
    let version = version.context("no report of loadgen: it has no version").with_context(what)?;
    ensure!(
        version == u64::from(VERSION) && value.get("verdict").is_some(),
        "{}: a report of version {version}; this program reads version {VERSION}",
        what()
    );
    serde_json::from_value(value).with_context(what)
}

/// Everything. Absent numbers are `null`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Of this format.
    pub version: u32,
    /// `passed`, `failed`, `not reached`, `void` or `interrupted`.
    pub verdict: String,
    /// What this program exits with.
    pub exit_code: u8,
    /// Why the verdict is not better.
    pub reasons: Vec<String>,
    /// What else should be known: a raised duration, a limit of this host.
    pub notes: Vec<String>,
    /// Where to.
    pub target: String,
    /// How the server was spoken to.
    pub protocol: String,
    /// The server's engine, if it is ours.
    pub engine: Option<String>,
    /// The server's way to find the dead, if it is ours.
    pub sweep: Option<String>,
    /// Of the plan.
    pub seed: u64,
    /// Which part of the plan this generator played; `null`: all of it.
    pub part: Option<Part>,
    /// What this report was merged from.
    pub parts: Vec<PartSection>,
    /// The machine.
    pub environment: Environment,
    /// What was wanted.
    pub requested: Requested,
    pub times: Times,
    pub connections: Connections,
    pub connect: Connect,
    pub heartbeats: Heartbeats,
    /// From due to answered, in the steady state. It contains up to a millisecond or so of this
    /// generator's own: see `generator`.
    pub rtt_us: LatencySummary,
    pub expiry: Expiry,
    pub push: Push,
    /// What `--at` made happen, in the order of its times, and then what keys did.
    pub events: Vec<EventSection>,
    pub reconnect: Reconnect,
    pub slow: Slow,
    pub data: Data,
    pub server: ServerSection,
    pub generator: GeneratorSection,
    pub host: HostSection,
    pub kernel: KernelSection,
    /// What must be equal, here and on the server.
    pub laws: Vec<Law>,
    /// What was asked for by `--slo`.
    pub slo: Vec<SloOutcome>,
    /// Of the round trips in the steady state.
    pub rtt_distribution: Vec<PercentileUs>,
    /// How it went over time.
    pub series: SeriesSection,
    pub histograms: Histograms,
}

/// One of the reports that a report was merged from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PartSection {
    pub part: Part,
    pub verdict: String,
    pub exit_code: u8,
    pub reasons: Vec<String>,
    pub requested: u64,
    pub opened: u64,
    pub environment: Environment,
    pub generator: GeneratorSection,
}

/// By the wall clock of the generator's host, in seconds since 1970.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Times {
    /// What the times of `series` count from.
    pub begun_unix_s: f64,
    /// When the first connect was planned.
    pub start_unix_s: f64,
    /// `null` if the steady state was never reached, as are the numbers of it below.
    pub steady_unix_s: Option<f64>,
    /// How long the steady state lasted.
    pub steady_s: Option<f64>,
    /// Heartbeats that were answered in it.
    pub steady_acked: Option<u64>,
    /// Connections that were open at its end.
    pub steady_open: Option<u64>,
}

/// Where the run was made, and how to repeat it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    pub command: String,
    pub loadgen: String,
    pub kernel: String,
    /// Tells this host, since it was started, from all others.
    pub boot_id: String,
    /// Tells the networks of one host from each other.
    pub network_namespace: String,
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub descriptors_max: u64,
    pub tcp_mem_pages: String,
    pub netdev_max_backlog: String,
    pub somaxconn: String,
}

/// What was wanted of all parts of the plan together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Requested {
    pub connections: u64,
    pub connect_rate_per_s: u64,
    /// `null`: what the server says.
    pub interval_ms: Option<u64>,
    pub jitter: f64,
    pub duration_s: f64,
    pub warmup_s: f64,
    pub silent: f64,
    /// `null`: what the server says.
    pub idle_timeout_ms: Option<u64>,
    pub tick_ms: u64,
    pub phase: Option<Phase>,
    pub negotiate: bool,
    pub churn_per_s: u64,
    pub slow: f64,
    pub data_per_s: u64,
    /// The longest first wait, and the longest of all, of those who come back.
    pub reconnect_ms: Option<(u64, u64)>,
    /// The common start, in seconds since 1970.
    pub start_at_unix_s: Option<f64>,
}

/// Of this generator. requested = opened + failed; opened + reopened = closed by the server +
/// closed by us.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Connections {
    pub requested: u64,
    /// For the first time.
    pub opened: u64,
    /// After their connection had been lost, or closed by plan.
    pub reopened: u64,
    pub failed: Counts,
    pub open_at_end: u64,
    pub closed_by_server: Counts,
    pub closed_by_us: u64,
    /// Source addresses that were taken already; another one was used.
    pub sources_skipped: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Connect {
    /// From the first connect to the last opening.
    pub seconds: f64,
    /// Opened in a second of that, pauses left out.
    pub rate_per_s: f64,
    pub planned_rate_per_s: u64,
    /// How much later than planned the last one was open, pauses left out.
    pub behind_plan_s: f64,
    /// How long nobody connected because a key wanted it.
    pub paused_s: f64,
    /// From starting to connect until open (WELCOME, or TCP with --no-hello).
    pub latency_us: LatencySummary,
}

/// due = sent; sent = acked + cut_off + unread + missing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Heartbeats {
    pub due: u64,
    pub sent: u64,
    pub acked: u64,
    /// Without an answer when their connection was closed by plan, or drained.
    pub cut_off: u64,
    /// Of clients that do not read.
    pub unread: u64,
    /// Without an answer for any other reason.
    pub missing: u64,
    /// Sent more than 10 ms after they were due.
    pub sent_late: u64,
    /// Times that the server told a client another time for its next one.
    pub adjusted: u64,
    /// The most in a tenth of a second of the steady state, over the mean of all tenths.
    pub peak_to_mean: Option<f64>,
    /// Answers to nothing.
    pub stray: u64,
    /// Answered in a second of the steady state.
    pub rate_per_s: f64,
    /// As kept: the server's, unless it was overridden.
    pub interval_ms: Option<u64>,
}

/// silenced = expired + early + missed + undecided.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Expiry {
    pub silenced: u64,
    /// Closed by the server, and not provably early.
    pub expired: u64,
    /// Still open when idle timeout, tick and a second had passed.
    pub missed: u64,
    /// Closed although they must not be: `false_early` and `false_healthy`.
    #[serde(rename = "false")]
    pub falsely: u64,
    /// Silent, but provably closed before their time.
    pub false_early: u64,
    /// Kept their heartbeats, and were closed.
    pub false_healthy: u64,
    /// Closed rightly, for this generator was late with their heartbeats.
    pub our_delay: u64,
    /// The run ended before their time was up.
    pub undecided: u64,
    /// The server's rule.
    pub idle_timeout_ms: Option<u64>,
    /// Upper bounds: end seen - (last bytes sent + idle timeout).
    pub lateness_ms: Lateness,
    /// How long the silent had sent nothing when the server closed them, early or not.
    pub silence_ms: Lateness,
    /// What this oracle cannot know.
    pub method: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Lateness {
    pub min: Option<f64>,
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub max: Option<f64>,
}

/// Measured in the steady state, from outside (`/proc`). `null` where the process is not known.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerSection {
    pub pid: Option<u32>,
    /// How it ended, if it did so during the run.
    pub died: Option<String>,
    pub cpu_s: Option<f64>,
    /// CPU seconds in a second.
    pub cpu_cores: Option<f64>,
    pub cpu_us_per_heartbeat: Option<f64>,
    pub rss_bytes: Option<u64>,
    pub rss_idle_bytes: Option<u64>,
    /// What it grew by since it was idle, by open connections.
    pub rss_bytes_per_connection: Option<f64>,
    /// What it says of its sweep.
    pub sweep: Value,
    /// Its own counters at its end.
    pub counters: Value,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GeneratorSection {
    pub cpu_s: f64,
    pub cpu_cores: f64,
    pub cpu_us_per_heartbeat: Option<f64>,
    pub rss_bytes: u64,
    pub rss_bytes_per_connection: Option<f64>,
    pub threads: usize,
    pub rings: usize,
    /// The generator was the bottleneck: the run is void.
    pub saturated: bool,
    /// What of it.
    pub saturated_by: Option<String>,
    /// From due to sent.
    pub send_lateness_us: LatencySummary,
    /// A turn of a worker's loop, its sleep left out.
    pub turn_us: LatencySummary,
    pub send_errors: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// Receives that had to be armed again.
    pub rearmed: Counts,
    /// Completions of a former life of a slot.
    pub stale_completions: u64,
}

/// Two numbers that must agree, or of which, if its name has a `<=`, the left is the smaller.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Law {
    pub name: String,
    pub holds: bool,
    pub left: Value,
    pub right: Value,
}
