//! The histograms that the report's percentiles are from, whole: percentiles of several generators
//! cannot be averaged, but histograms can be added (`loadgen merge`), and shown by other tools.

use serde::{Deserialize, Serialize};

use super::build::Evidence;
use super::events;
use crate::latency::{Encoded, Latency};

/// `null` where nothing was counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Histograms {
    pub rtt: Option<Encoded>,
    pub connect: Option<Encoded>,
    pub send_lateness: Option<Encoded>,
    pub turn: Option<Encoded>,
    pub expiry_lateness: Option<Encoded>,
    /// From the last bytes of a silent client to its end.
    pub silence: Option<Encoded>,
    pub push: Option<Encoded>,
    /// Of reopening.
    pub reconnect: Option<Encoded>,
    /// Round trips before the first event, then for each event in it and after it.
    pub rtt_windows: Vec<Option<Encoded>>,
    /// Heartbeats in each tenth of a second of the steady state, with commas in between; only if
    /// there are other parts.
    pub beats_per_tenth: Option<String>,
}

pub fn histograms(evidence: &Evidence<'_>) -> Histograms {
    let (stats, scene) = (&evidence.stats, &evidence.stats.scene);
    let beats = || stats.tenths.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    Histograms {
        rtt: stats.rtt.encoded(),
        connect: stats.connect.encoded(),
        send_lateness: stats.send_lateness.encoded(),
        turn: stats.turn.encoded(),
        expiry_lateness: stats.expiry_lateness.encoded(),
        silence: stats.silence.encoded(),
        push: events::push_latency(evidence).encoded(),
        reconnect: scene.reopening.encoded(),
        rtt_windows: scene.windows.iter().map(Latency::encoded).collect(),
        beats_per_tenth: evidence.cli.part.map(|_| beats()),
    }
}
