//! The report: what was wanted, what was reached, and whether that is well.
//!
//! Its JSON is an interface: names are added, never changed (`version` 1).

mod build;
mod events;
mod html;
mod laws;
mod text;
mod verdict;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::build::{Evidence, build};
pub use self::events::{Data, EventSection, Push, Reconnect, Slow};
pub use self::html::html;
pub use self::text::summary;
use crate::host::kernel::KernelSection;
use crate::latency::{LatencySummary, PercentileUs};
use crate::series::SeriesSection;
use crate::slo::SloOutcome;
use crate::stats::Reasons;

/// Everything. Absent numbers are `null`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Of this format.
    pub version: u32,
    /// `passed`, `failed`, `not reached`, `void` or `interrupted`.
    pub verdict: &'static str,
    /// What this program exits with.
    pub exit_code: u8,
    /// Why the verdict is not better.
    pub reasons: Vec<String>,
    /// What else should be known: a raised duration, a limit of this host.
    pub notes: Vec<String>,
    /// Where to.
    pub target: String,
    /// How the server was spoken to.
    pub protocol: &'static str,
    /// The server's engine, if it is ours.
    pub engine: Option<String>,
    /// The server's way to find the dead, if it is ours.
    pub sweep: Option<String>,
    /// Of the plan.
    pub seed: u64,
    /// The machine.
    pub environment: Environment,
    /// What was wanted.
    pub requested: Requested,
    pub connections: Connections,
    pub connect: Connect,
    pub heartbeats: Heartbeats,
    /// From due to answered, in the steady state. It contains up to a millisecond or so of this
    /// generator's own: see `generator`.
    pub rtt_us: LatencySummary,
    pub expiry: Expiry,
    pub push: Push,
    /// What `--at` made happen, in the order of its times.
    pub events: Vec<EventSection>,
    pub reconnect: Reconnect,
    pub slow: Slow,
    pub data: Data,
    pub server: ServerSection,
    pub generator: GeneratorSection,
    pub kernel: KernelSection,
    /// What must be equal, here and on the server.
    pub laws: Vec<Law>,
    /// What was asked for by `--slo`.
    pub slo: Vec<SloOutcome>,
    /// Of the round trips in the steady state.
    pub rtt_distribution: Vec<PercentileUs>,
    /// How it went over time.
    pub series: SeriesSection,
}

/// Where the run was made, and how to repeat it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Environment {
    pub command: String,
    pub loadgen: &'static str,
    pub kernel: String,
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub descriptors_max: u64,
    pub tcp_mem_pages: String,
    pub netdev_max_backlog: String,
    pub somaxconn: String,
}

/// What was wanted.
#[derive(Clone, Debug, Default, Serialize)]
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
}

/// requested = opened + failed; opened + reopened = closed by the server + closed by us.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Connections {
    pub requested: u64,
    /// For the first time.
    pub opened: u64,
    /// After their connection had been lost, or closed by plan.
    pub reopened: u64,
    pub failed: Reasons,
    pub open_at_end: u64,
    pub closed_by_server: Reasons,
    pub closed_by_us: u64,
    /// Source addresses that were taken already; another one was used.
    pub sources_skipped: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Connect {
    /// From the first connect to the last opening.
    pub seconds: f64,
    /// Opened in a second of that.
    pub rate_per_s: f64,
    pub planned_rate_per_s: u64,
    /// How much later than planned the last one was open.
    pub behind_plan_s: f64,
    /// From starting to connect until open (WELCOME, or TCP with --no-hello).
    pub latency_us: LatencySummary,
}

/// due = sent; sent = acked + cut_off + unread + missing.
#[derive(Clone, Debug, Default, Serialize)]
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
#[derive(Clone, Debug, Default, Serialize)]
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
    pub method: &'static str,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Lateness {
    pub min: Option<f64>,
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub max: Option<f64>,
}

/// Measured in the steady state, from outside (`/proc`). `null` where the process is not known.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ServerSection {
    pub pid: Option<u32>,
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

#[derive(Clone, Debug, Default, Serialize)]
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
    pub rearmed: Reasons,
    /// Completions of a former life of a slot.
    pub stale_completions: u64,
}

/// Two numbers that must agree.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Law {
    pub name: String,
    pub holds: bool,
    pub left: Value,
    pub right: Value,
}
