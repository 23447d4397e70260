//! What the scenario did: events, pushes, who left and came back.

use std::time::Duration;

use heartwheel::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::build::Evidence;
use crate::latency::{Latency, LatencySummary};
use crate::scenario::Kind;
use crate::scenario::account::Happened;
use crate::scenario::admin::ServerAccount;
use crate::stats::{Counts, named};

/// One event of `--at`, or of a key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EventSection {
    /// Counted from the start of the steady state.
    pub at_ms: u64,
    /// `storm`, `drain` or `broadcast`.
    pub kind: String,
    /// Killed, told to go, or expected to receive.
    pub affected: u64,
    /// When the last of them was killed or told to go, counted from the event.
    pub affected_within_ms: Option<u64>,
    /// Back again, or with the message received.
    pub recovered: u64,
    /// When the last of them was, counted from the event; `null` until all are who come back: the
    /// silent do not, and after a drain nobody does without `--reconnect`.
    pub recovered_after_ms: Option<u64>,
    /// Round trips that ended in the calm before.
    pub rtt_p999_before_us: Option<u64>,
    /// Round trips that ended within 15 s of it, or until the next event.
    pub rtt_p999_during_us: Option<u64>,
    /// The latter over the former.
    pub rtt_p999_ratio: Option<f64>,
    /// Why the server was not, or not rightly, told of it.
    pub failure: Option<String>,
}

/// expected = received + missing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Push {
    pub broadcasts: u64,
    /// Clients that were open when the server was asked, over all broadcasts: those who fall silent
    /// or do not read are not counted.
    pub expected: u64,
    pub received: u64,
    /// Receipts (PUSH_ACK) that were sent.
    pub acked: u64,
    pub missing: u64,
    pub missing_by: Counts,
    pub duplicates: u64,
    /// To those who opened after the server was asked, or of somebody else.
    pub unexpected: u64,
    /// From asking the server until received.
    pub latency_us: LatencySummary,
    /// The server's own account, over all broadcasts.
    pub server: ServerAccount,
}

/// lost = reopened + away.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Reconnect {
    /// Connections lost or closed by plan whose clients come back.
    pub lost: u64,
    pub reopened: u64,
    /// Not back when the run ended.
    pub away: u64,
    /// Attempts that failed; each was followed by another, after a longer wait.
    pub failed: Counts,
    /// Of a reopening.
    pub latency_us: LatencySummary,
    pub churned: u64,
    /// The plan's choice was not open just then.
    pub churn_skipped: u64,
    pub killed: u64,
    pub drained: u64,
    /// Of these, silent ones whose time was not up.
    pub drained_silent: u64,
}

/// Clients that do not read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Slow {
    pub clients: u64,
    pub closed_by_server: u64,
    pub open_at_end: u64,
    /// Heartbeats that they sent; they never read the answers.
    pub heartbeats: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Data {
    pub sent: u64,
    /// Echoes.
    pub received: u64,
}

pub fn events(evidence: &Evidence<'_>) -> Vec<EventSection> {
    let scene = &evidence.stats.scene;
    let planned = evidence.task.scenario.events.iter().zip(&scene.events).enumerate();
    planned
        .map(|(number, (event, happened))| {
            let began = evidence.steady_at.map(|at| at + event.at);
            let since = |at: Timestamp| began.map(|began| millis(at.since(began)));
            let done = happened.to_recover > 0 && happened.recovered >= happened.to_recover;
            let told = !matches!(event.kind, Kind::Broadcast(..)) && happened.affected > 0;
            let p999 = |rtt: Option<&Latency>| rtt.and_then(|rtt| rtt.percentile_us(99.9));
            let calm = scene.calm(&evidence.task.scenario.events.before(number));
            let (before, during) = (p999(calm), p999(scene.during(number)));
            EventSection {
                at_ms: millis(event.at),
                kind: event.kind.name().to_owned(),
                affected: happened.affected,
                affected_within_ms: since(happened.last_affected).filter(|_| told),
                recovered: happened.recovered,
                recovered_after_ms: since(happened.last_recovered).filter(|_| done),
                rtt_p999_before_us: before,
                rtt_p999_during_us: during,
                rtt_p999_ratio: before
                    .zip(during)
                    .map(|(before, during)| during as f64 / before.max(1) as f64),
                failure: evidence.answers.get(number).and_then(|answer| answer.failure.clone()),
            }
        })
        .collect()
}

pub fn push(evidence: &Evidence<'_>) -> Push {
    let mut push = Push { unexpected: evidence.stats.scene.pushes_unexpected, ..Push::default() };
    broadcasts(evidence).for_each(|happened| add(&mut push, happened));
    push.latency_us = push_latency(evidence).summary();
    let accounts = evidence.answers.iter().filter_map(|answer| answer.account.as_ref());
    accounts.for_each(|account| push.server.add(account));
    push
}

/// Over all broadcasts.
pub fn push_latency(evidence: &Evidence<'_>) -> Latency {
    let mut latency = Latency::new(2);
    broadcasts(evidence).for_each(|happened| latency.add(&happened.latency));
    latency
}

fn broadcasts<'a>(evidence: &'a Evidence<'_>) -> impl Iterator<Item = &'a Happened> {
    let planned = evidence.task.scenario.events.iter().zip(&evidence.stats.scene.events);
    planned
        .filter(|(event, _)| matches!(event.kind, Kind::Broadcast(..)))
        .map(|(_, happened)| happened)
}

fn add(push: &mut Push, happened: &Happened) {
    push.broadcasts += 1;
    push.expected += happened.affected;
    push.received += happened.recovered;
    push.acked += happened.acked;
    push.duplicates += happened.duplicates;
    for (reason, count) in &happened.missing {
        push.missing += count;
        *push.missing_by.entry((*reason).to_owned()).or_default() += count;
    }
}

pub fn reconnect(evidence: &Evidence<'_>) -> Reconnect {
    let scene = &evidence.stats.scene;
    Reconnect {
        lost: scene.lost,
        reopened: scene.reopened,
        away: scene.away,
        failed: named(&scene.reopening_failed),
        latency_us: scene.reopening.summary(),
        churned: scene.churned,
        churn_skipped: scene.churn_skipped,
        killed: scene.killed,
        drained: scene.drained,
        drained_silent: scene.drained_silent,
    }
}

pub fn slow(evidence: &Evidence<'_>) -> Slow {
    let scene = &evidence.stats.scene;
    Slow {
        clients: scene.slow,
        closed_by_server: scene.slow_closed,
        open_at_end: scene.slow_open,
        heartbeats: scene.unread,
    }
}

pub fn data(evidence: &Evidence<'_>) -> Data {
    let scene = &evidence.stats.scene;
    Data { sent: scene.data_sent, received: scene.data_received }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
