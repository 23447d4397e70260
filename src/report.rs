//! The final account of a server: its counters by name, and the laws they must keep.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::engine::{EngineCounters, EngineReport};
use crate::ring::RingCounters;
use crate::shard::{CloseReason, Counters, Law, Refusal};

/// The line of JSON that a server prints when it has ended.
#[derive(Debug, Serialize)]
pub struct FinalLine {
    r#final: bool,
    counters: Value,
    laws: Vec<Law>,
}

impl FinalLine {
    /// The sum over the shards; a law of the whole holds if its sums are equal.
    pub fn new<'a>(reports: impl IntoIterator<Item = &'a EngineReport>) -> FinalLine {
        let mut counters = Counters::default();
        let mut engine = EngineCounters::default();
        let mut ring = RingCounters::default();
        let mut laws: Vec<Law> = Vec::new();
        for report in reports {
            counters.add(&report.counters);
            engine.add(&report.engine);
            ring.add(&report.ring);
            add_laws(&mut laws, &report.laws);
        }
        FinalLine { r#final: true, counters: to_json(&counters, &engine, &ring), laws }
    }

    /// Whether every law holds.
    pub fn laws_hold(&self) -> bool {
        self.laws.iter().all(|law| law.holds)
    }
}

/// Adds up a law's sides over the shards. It holds if it holds in each.
fn add_laws(sums: &mut Vec<Law>, laws: &[Law]) {
    for law in laws {
        match sums.iter_mut().find(|sum| sum.name == law.name) {
            Some(sum) => {
                sum.left += law.left;
                sum.right += law.right;
                sum.holds &= law.holds;
            }
            None => sums.push(law.clone()),
        }
    }
}

fn to_json(counters: &Counters, engine: &EngineCounters, ring: &RingCounters) -> Value {
    let expired = counters.closed_for(CloseReason::Expired);
    let timed_out = expired
        + counters.closed_for(CloseReason::HelloTimeout)
        + counters.closed_for(CloseReason::FrameTimeout)
        + counters.closed_for(CloseReason::StallTimeout);
    json!({
        "accepted": counters.accepted,
        "rejected": by_name(Refusal::ALL.iter().map(|r| r.name()), &counters.rejected),
        "opened": counters.opened,
        "open": counters.open,
        "closed": by_name(CloseReason::ALL.iter().map(|r| r.name()), &counters.closed),
        "released": counters.released,
        "bytes_received": counters.bytes_received,
        "bytes_ignored": counters.bytes_ignored,
        "bytes_sent": counters.bytes_sent,
        "frames_received": counters.frames_received,
        "hellos_received": counters.hellos_received,
        "heartbeats_received": counters.heartbeats_received,
        "heartbeats_answered": counters.heartbeats_answered,
        "heartbeats_dropped": counters.heartbeats_dropped,
        "pongs_received": counters.pongs_received,
        "data_received": counters.data_received,
        "data_echoed": counters.data_echoed,
        "push_acks_received": counters.push_acks_received,
        "short_sends": counters.short_sends,
        "stale_events": counters.stale_events,
        "expired_early": counters.expired_early,
        "expiry_lateness_ms": {
            "max": counters.expiry_lateness_us_max as f64 / 1e3,
            "mean": counters.expiry_lateness_us_sum as f64 / 1e3 / timed_out.max(1) as f64,
        },
        "sweep": {
            "entries_visited": counters.sweep_entries_visited,
            "continued": counters.sweeps_continued,
        },
        "engine": {
            "turns": engine.turns,
            "busy_turns": engine.busy_turns,
            "receives_starved": engine.receives_starved,
            "receives_rearmed": engine.receives_rearmed,
            "accepts_rearmed": engine.accepts_rearmed,
            "accepts_paused": engine.accepts_paused,
            "accept_errors": engine.accept_errors,
        },
        "ring": {
            "enters": ring.enters,
            "submissions": ring.submissions,
            "completions": ring.completions,
            "terminal_completions": ring.terminal_completions,
            "completion_overflows": ring.completion_overflows,
        },
    })
}

/// The counts that are not zero, by name.
fn by_name<'a>(names: impl Iterator<Item = &'a str>, counts: &[u64]) -> Value {
    let entries = names
        .zip(counts)
        .filter(|&(_, &count)| count > 0)
        .map(|(name, &count)| (name.to_owned(), Value::from(count)));
    Value::Object(entries.collect::<Map<String, Value>>())
}
