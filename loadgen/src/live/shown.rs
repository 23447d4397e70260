//! What is to be shown, as numbers and words: it knows no terminal.

use std::time::Duration;

use crate::host::kernel::KernelSection;
use crate::scenario::Kind;

/// One picture.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    pub target: String,
    /// What is known of the server.
    pub server_kind: String,
    pub elapsed: Duration,
    pub phase: &'static str,
    /// Connecting was paused by a key.
    pub paused: bool,
    /// Of the phase, 0 to 1.
    pub progress: f64,
    pub progress_text: String,
    pub connections: Connections,
    pub beats: Beats,
    /// Of the last second.
    pub rtt_last: Percentiles,
    /// Since the steady state began, or of all before it.
    pub rtt_all: Percentiles,
    pub is_steady: bool,
    pub oracle: Oracle,
    pub server: Cost,
    pub generator: Cost,
    pub kernel: KernelSection,
    /// Second by second, the last one last.
    pub beats_per_s: Vec<u64>,
    pub p99_us: Vec<u64>,
    pub events: Vec<EventLine>,
    /// When, and what was said.
    pub messages: Vec<(Duration, String)>,
    pub words: Words,
    pub slos: Vec<SloLine>,
    /// What has been typed of a number.
    pub number: Option<u32>,
}

#[derive(Clone, Debug, Default)]
pub struct Connections {
    pub wanted: u64,
    pub open: u64,
    /// As the server counts them.
    pub server_open: Option<u64>,
    /// Those who lost their connection and are not back; `None` where nobody comes back.
    pub away: Option<u64>,
    pub failed: u64,
    pub failed_by: Vec<(&'static str, u64)>,
    pub opened_per_s: f64,
    /// `None` when nobody is to connect now.
    pub planned_per_s: Option<u64>,
    pub reopened_per_s: f64,
}

#[derive(Clone, Debug, Default)]
pub struct Beats {
    pub due_per_s: f64,
    pub acked_per_s: f64,
    pub planned_per_s: Option<f64>,
    pub unanswered: u64,
    pub sent_late: u64,
    pub interval_ms: Option<u64>,
    pub idle_timeout_ms: Option<u64>,
}

/// In microseconds, within 12 %.
#[derive(Clone, Copy, Debug, Default)]
pub struct Percentiles {
    pub count: u64,
    pub p50: Option<u64>,
    pub p90: Option<u64>,
    pub p99: Option<u64>,
    pub p999: Option<u64>,
    pub max: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct Oracle {
    pub silenced: u64,
    /// Those who are open, or were, and fall silent.
    pub planned: u64,
    pub expired: u64,
    /// As the server counts them.
    pub server_expired: Option<u64>,
    pub late_max_us: Option<u64>,
    pub falsely: u64,
    pub missed: u64,
    pub our_delay: u64,
}

/// Of one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    pub cores: Option<f64>,
    /// Since the steady state began.
    pub cores_steady: Option<f64>,
    pub bytes: Option<u64>,
    pub bytes_per_connection: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
pub struct EventLine {
    pub when: When,
    pub kind: Kind,
    /// A key ordered it.
    pub by_hand: bool,
    pub affected: u64,
    pub recovered: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// It has come, at this time of the steady state.
    At(Duration),
    /// It is to come in so long.
    In(Duration),
    /// It is to come at this time of the steady state, which has not begun.
    Planned(Duration),
}

impl When {
    /// What has come comes before what is to come.
    pub fn order(self) -> (bool, Duration) {
        match self {
            When::At(time) => (false, time),
            When::In(time) | When::Planned(time) => (true, time),
        }
    }
}

/// What the server says of itself.
#[derive(Clone, Debug, Default)]
pub enum Words {
    /// Its control plane is not known.
    #[default]
    NotAsked,
    /// It has not been asked yet.
    Unknown,
    /// So many of its laws hold.
    Laws { hold: usize, all: usize },
    /// It does not answer.
    Silence,
}

#[derive(Clone, Debug, Default)]
pub struct SloLine {
    pub expression: String,
    /// `None` while that cannot be told.
    pub holds: Option<bool>,
    pub value: Option<f64>,
    /// `_us` and so on.
    pub unit: Option<&'static str>,
}
