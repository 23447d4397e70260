//! The final account of a server: its counters by name, and the laws they must keep.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::engine::{EngineCounters, EngineReport};
use crate::ring::RingCounters;
use crate::shard::{CloseReason, Counters, Law, PushDrop, Refusal, Totals};

/// The line of JSON that a server prints when it has ended.
#[derive(Debug, Serialize)]
pub struct FinalLine {
    r#final: bool,
    counters: Value,
    laws: Vec<Law>,
    shards: Vec<ShardLaws>,
}

/// One shard's laws.
#[derive(Debug, Serialize)]
struct ShardLaws {
    laws: Vec<Law>,
}

/// What `/stats` tells: each shard's counters as one moment saw them, and their sum.
pub fn stats(engine: &str, sweep: &str, reports: &[EngineReport]) -> Value {
    let shards: Vec<Value> = reports
        .iter()
        .map(|report| {
            let counters = to_json(&report.counters, &report.engine, &report.ring);
            json!({ "counters": counters, "laws": report.laws() })
        })
        .collect();
    let FinalLine { counters, laws, .. } = FinalLine::new(reports);
    json!({
        "engine": engine,
        "sweep": sweep,
        "counters": counters,
        "laws": laws,
        "shards": shards,
    })
}

impl FinalLine {
    /// The sum over the shards; a law of the whole holds if its sums are equal.
    pub fn new<'a>(reports: impl IntoIterator<Item = &'a EngineReport>) -> FinalLine {
        let mut counters = Counters::default();
        let mut engine = EngineCounters::default();
        let mut ring = RingCounters::default();
        let mut laws: Vec<Law> = Vec::new();
        let mut shards = Vec::new();
        for report in reports {
            counters.add(&report.counters);
            engine.add(&report.engine);
            ring.add(&report.ring);
            let of_shard = report.laws();
            add_laws(&mut laws, &of_shard);
            shards.push(ShardLaws { laws: of_shard });
        }
        let counters = to_json(&counters, &engine, &ring);
        FinalLine { r#final: true, counters, laws, shards }
    }

    /// The laws that do not hold, each with its shard and both sides.
    pub fn broken_laws(&self) -> Vec<String> {
        let of_shard = |(number, shard): (usize, &ShardLaws)| -> Vec<String> {
            let broken = shard.laws.iter().filter(|law| !law.holds);
            let told = |law: &Law| {
                format!("shard {number}: {}: {} against {}", law.name, law.left, law.right)
            };
            broken.map(told).collect()
        };
        self.shards.iter().enumerate().flat_map(of_shard).collect()
    }
}

/// Adds up a law's sides over the shards. It holds if it holds in each: what one shard has too much
/// of and another too little is no balance.
fn add_laws(sums: &mut Vec<Law>, laws: &[Law]) {
    for law in laws {
        match sums.iter_mut().find(|sum| sum.name == law.name) {
            Some(sum) => {
                // A side that fell below 0 is far from right, and not worth a panic.
                sum.left = sum.left.wrapping_add(law.left);
                sum.right = sum.right.wrapping_add(law.right);
                sum.holds &= law.holds;
            }
            None => sums.push(law.clone()),
        }
    }
}

/// All counters by name: the shards' totals at the top, the rest in groups.
fn to_json(counters: &Counters, engine: &EngineCounters, ring: &RingCounters) -> Value {
    let mut all = object(Totals::NAMES, &counters.totals.values());
    let rejected: Vec<&str> = Refusal::ALL.iter().map(|reason| reason.name()).collect();
    let closed: Vec<&str> = CloseReason::ALL.iter().map(|reason| reason.name()).collect();
    all.insert("rejected".to_owned(), non_zero(&rejected, &counters.rejected));
    all.insert("closed".to_owned(), non_zero(&closed, &counters.closed));
    let unanswered = non_zero(&closed, &counters.heartbeats_dropped);
    all.insert("heartbeats_dropped".to_owned(), unanswered);
    let dropped: Vec<&str> = PushDrop::ALL.iter().map(|reason| reason.name()).collect();
    all.insert("pushes_dropped".to_owned(), non_zero(&dropped, &counters.pushes_dropped));
    let timed_out: u64 = [
        CloseReason::Expired,
        CloseReason::HelloTimeout,
        CloseReason::FrameTimeout,
        CloseReason::StallTimeout,
    ]
    .map(|reason| counters.closed_for(reason))
    .iter()
    .sum();
    let lateness = json!({
        "max": counters.expiry_lateness_us_max as f64 / 1e3,
        "mean": counters.expiry_lateness_us_sum as f64 / 1e3 / timed_out.max(1) as f64,
    });
    all.insert("expiry_lateness_ms".to_owned(), lateness);
    let sweep = json!({
        "entries_visited": counters.sweep_entries_visited,
        "sweeps": engine.sweeps,
        "us": {
            "p50": engine.sweep_us_p50,
            "p99": engine.sweep_us_p99,
            "p999": engine.sweep_us_p999,
            "max": engine.sweep_us_max,
        },
    });
    all.insert("sweep".to_owned(), sweep);
    all.insert("engine".to_owned(), object(EngineCounters::NAMES, &engine.values()).into());
    all.insert("ring".to_owned(), object(RingCounters::NAMES, &ring.values()).into());
    Value::Object(all)
}

fn object(names: &[&str], values: &[u64]) -> Map<String, Value> {
    names.iter().zip(values).map(|(&name, &value)| (name.to_owned(), value.into())).collect()
}

/// The counts that are not zero, by name.
fn non_zero(names: &[&str], counts: &[u64]) -> Value {
    let mut counts = object(names, counts);
    counts.retain(|_, count| count.as_u64() != Some(0));
    Value::Object(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shard that counts one opening too many, and one that counts one too few.
    #[test]
    fn two_wrong_shards_do_not_make_a_right_sum() {
        let report = |accepted, opened| {
            let mut report = EngineReport::default();
            let totals = &mut report.counters.totals;
            (totals.accepted, totals.opened) = (accepted, opened);
            (totals.open, totals.table_entries, totals.sweeper_entries) = (opened, opened, opened);
            report
        };
        let none: [String; 0] = [];
        assert_eq!(FinalLine::new(&[report(3, 3), report(2, 2)]).broken_laws(), none);
        let last = FinalLine::new(&[report(3, 4), report(2, 1)]);
        let broken = last.broken_laws();
        assert_eq!(broken[0], "shard 0: accepted = opened + rejected: 3 against 4");
        assert!(broken.iter().any(|law| law.starts_with("shard 1: accepted")), "{broken:?}");
        let line = serde_json::to_value(&last).expect("JSON");
        let law = &line["laws"][0];
        assert_eq!(
            (&law["left"], &law["right"], &law["holds"]),
            (&5.into(), &5.into(), &false.into())
        );
        let of_shard = &line["shards"][1]["laws"][0];
        assert_eq!((&of_shard["left"], &of_shard["right"]), (&2.into(), &1.into()));
    }
}
