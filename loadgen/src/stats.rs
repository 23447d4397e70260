//! What a worker counts, and the few numbers of it that others may see while it runs.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use heartwheel::time::Timestamp;

use crate::detail::Detail;
use crate::latency::Latency;
use crate::scenario::account::Account;
use crate::series::Buckets;

/// Counts by reason; reasons are few.
pub type Reasons = BTreeMap<&'static str, u64>;

/// Why those failed who were never connected.
pub const NOT_TRIED: &str = "not tried: the time for connecting was over";

/// Counts by reasons that somebody else names.
pub type Counts = BTreeMap<String, u64>;

/// The same, for a report.
pub fn named(reasons: &Reasons) -> Counts {
    reasons.iter().map(|(&reason, &count)| (reason.to_owned(), count)).collect()
}

/// How connections are closed that were counted as open at the end already.
pub const AFTER_THE_END: &str = "after the end";

/// Everything that one worker, or all together, have counted.
#[derive(Clone)]
pub struct Stats {
    /// Connections that were opened: the WELCOME came, or without HELLO the TCP connection stood.
    pub opened: u64,
    /// Clients that never got that far, by reason.
    pub failed: Reasons,
    /// Source addresses that turned out to be taken; the next one was tried.
    pub sources_skipped: u64,
    /// Opened connections that the server closed, by how.
    pub closed_by_server: Reasons,
    /// Opened connections that were closed here.
    pub closed_by_us: u64,
    /// Opened connections that were there when sending stopped.
    pub open_at_end: u64,
    /// Clients that were open when they fell silent.
    pub silenced: u64,
    /// Silent clients that the server closed, not provably early.
    pub expired: u64,
    /// Silent clients that it closed before their time.
    pub early: u64,
    /// Expired rightly, but later than a tick and `limits::EXPIRY_GRACE` after the timeout.
    pub expired_late: u64,
    /// Clients that kept their heartbeats, and were closed.
    pub healthy_closed: u64,
    /// Clients whose heartbeats this generator delayed beyond the timeout, and that were closed.
    pub our_delay: u64,
    /// Clients that were told GOAWAY, and then closed.
    pub dismissed: u64,
    /// Silent clients that were still open although their time was up.
    pub missed: u64,
    /// Silent clients whose time was not up when the run ended.
    pub undecided: u64,
    /// Clients that the server expired, rightly, after the last heartbeats had been sent, and
    /// before those open at the end were counted.
    pub expired_after_end: u64,
    /// Heartbeats whose time came.
    pub due: u64,
    /// Heartbeats that were sent.
    pub sent: u64,
    /// Heartbeats that were sent later than `limits::SENT_LATE` after their time.
    pub sent_late: u64,
    /// Heartbeats that were answered.
    pub acked: u64,
    /// Answers to nothing.
    pub stray_pongs: u64,
    /// Terms that the server has changed.
    pub adjusts: u64,
    /// Messages that were pushed.
    pub pushes: u64,
    /// Messages that break the protocol.
    pub illegal: u64,
    /// Bytes that the kernel took.
    pub bytes_sent: u64,
    /// Bytes that arrived.
    pub bytes_received: u64,
    /// Sends that failed; the connection's end is seen by its receive.
    pub send_errors: u64,
    /// Receives that had to be armed again, by reason.
    pub rearmed: Reasons,
    /// Completions of a former life of a slot.
    pub stale: u64,
    /// Connections that were still not closed when the worker gave up waiting.
    pub left_open: u64,
    /// When the last connection was opened.
    pub last_opened: Timestamp,
    /// From due to answered, in the steady state.
    pub rtt: Latency,
    /// From connecting to opened.
    pub connect: Latency,
    /// From due to sent, in the steady state.
    pub send_lateness: Latency,
    /// From one turn of the loop to the next, in the steady state.
    pub turn: Latency,
    /// Upper bounds of how late expiries were.
    pub expiry_lateness: Latency,
    /// How long the silent had sent nothing when the server closed them.
    pub silence: Latency,
    /// Heartbeats in each tenth of a second of the steady state.
    pub tenths: Vec<u32>,
    /// Of the scenario.
    pub scene: Account,
}

impl Stats {
    /// Nothing counted, of so many events among others.
    pub fn new(events: usize) -> Stats {
        Stats {
            opened: 0,
            failed: Reasons::new(),
            sources_skipped: 0,
            closed_by_server: Reasons::new(),
            closed_by_us: 0,
            open_at_end: 0,
            silenced: 0,
            expired: 0,
            early: 0,
            expired_late: 0,
            healthy_closed: 0,
            our_delay: 0,
            dismissed: 0,
            missed: 0,
            undecided: 0,
            expired_after_end: 0,
            due: 0,
            sent: 0,
            sent_late: 0,
            acked: 0,
            stray_pongs: 0,
            adjusts: 0,
            pushes: 0,
            illegal: 0,
            bytes_sent: 0,
            bytes_received: 0,
            send_errors: 0,
            rearmed: Reasons::new(),
            stale: 0,
            left_open: 0,
            last_opened: Timestamp::ZERO,
            rtt: Latency::new(3),
            connect: Latency::new(2),
            send_lateness: Latency::new(2),
            turn: Latency::new(2),
            expiry_lateness: Latency::new(3),
            silence: Latency::new(3),
            tenths: Vec::new(),
            scene: Account::new(events),
        }
    }

    /// Adds what another worker has counted.
    pub fn add(&mut self, other: &Stats) {
        for (total, part) in self.counters_mut().into_iter().zip(other.clone().counters_mut()) {
            *total += *part;
        }
        for (total, part) in [
            (&mut self.failed, &other.failed),
            (&mut self.closed_by_server, &other.closed_by_server),
            (&mut self.rearmed, &other.rearmed),
        ] {
            part.iter().for_each(|(reason, count)| *total.entry(reason).or_default() += count);
        }
        self.last_opened = self.last_opened.max(other.last_opened);
        self.rtt.add(&other.rtt);
        self.connect.add(&other.connect);
        self.send_lateness.add(&other.send_lateness);
        self.turn.add(&other.turn);
        self.expiry_lateness.add(&other.expiry_lateness);
        self.silence.add(&other.silence);
        self.tenths.resize(self.tenths.len().max(other.tenths.len()), 0);
        self.tenths.iter_mut().zip(&other.tenths).for_each(|(total, part)| *total += part);
        self.scene.add(&other.scene);
    }

    fn counters_mut(&mut self) -> [&mut u64; 27] {
        [
            &mut self.opened,
            &mut self.sources_skipped,
            &mut self.closed_by_us,
            &mut self.open_at_end,
            &mut self.silenced,
            &mut self.expired,
            &mut self.early,
            &mut self.expired_late,
            &mut self.healthy_closed,
            &mut self.our_delay,
            &mut self.dismissed,
            &mut self.missed,
            &mut self.undecided,
            &mut self.expired_after_end,
            &mut self.due,
            &mut self.sent,
            &mut self.sent_late,
            &mut self.acked,
            &mut self.stray_pongs,
            &mut self.adjusts,
            &mut self.pushes,
            &mut self.illegal,
            &mut self.bytes_sent,
            &mut self.bytes_received,
            &mut self.send_errors,
            &mut self.stale,
            &mut self.left_open,
        ]
    }

    /// Makes room for an event that nobody had planned.
    pub fn make_room(&mut self, event: usize) {
        self.scene.make_room(event, &self.rtt);
    }

    /// A heartbeat was sent so long after the steady state began.
    pub fn note_beat(&mut self, after: Duration) {
        let tenth = (after.as_millis() / 100) as usize;
        if tenth >= self.tenths.len() {
            self.tenths.resize(tenth + 1, 0);
        }
        self.tenths[tenth] += 1;
    }

    /// The most heartbeats in a tenth of a second of the steady state, over their mean. The last
    /// tenth may not be whole.
    pub fn peak_to_mean(&self) -> Option<f64> {
        peak_to_mean(&self.tenths)
    }

    /// How many never opened.
    pub fn failed_total(&self) -> u64 {
        self.failed.values().sum()
    }

    /// How many were tried and not opened: the server may have opened them all the same.
    pub fn given_up(&self) -> u64 {
        self.failed_total() - self.failed.get(NOT_TRIED).copied().unwrap_or(0)
    }

    /// How many the server closed.
    pub fn closed_by_server_total(&self) -> u64 {
        self.closed_by_server.values().sum()
    }
}

/// The largest of them over their mean; the last one, which may not be whole, does not count.
pub fn peak_to_mean(tenths: &[u32]) -> Option<f64> {
    let (_, whole) = tenths.split_last()?;
    let peak = whole.iter().copied().max()?;
    let sum: u64 = whole.iter().map(|&beats| u64::from(beats)).sum();
    (sum > 0).then(|| f64::from(peak) * whole.len() as f64 / sum as f64)
}

/// What a worker shows of itself while it runs, a few hundred milliseconds old at most.
#[derive(Debug, Default)]
pub struct Published {
    /// As in [`Stats`].
    pub opened: AtomicU64,
    /// As in [`Stats`], summed.
    pub failed: AtomicU64,
    /// Closed, whoever did it, and not opened again.
    pub gone: AtomicU64,
    /// As in [`Stats`].
    pub expired: AtomicU64,
    /// Provably early, and healthy ones that were closed.
    pub false_expiries: AtomicU64,
    /// As in [`Stats`].
    pub sent: AtomicU64,
    /// As in [`Stats`].
    pub acked: AtomicU64,
    /// Heartbeats that nobody waits for an answer to.
    pub written_off: AtomicU64,
    /// The longest idle timeout that a server has told, in milliseconds.
    pub idle_timeout_ms: AtomicU64,
    /// The shortest interval in use, in milliseconds; 0 while there is none.
    pub interval_ms: AtomicU64,
    /// Connections that have to be closed yet.
    pub alive: AtomicU64,
    /// Clients that fall silent by plan, and were opened.
    pub to_silence: AtomicU64,
    /// As in [`Stats`]: those still open are counted only at the end.
    pub silenced: AtomicU64,
    /// As in [`Stats`].
    pub missed: AtomicU64,
    /// As in [`Stats`].
    pub our_delay: AtomicU64,
    /// As in [`Stats`].
    pub sent_late: AtomicU64,
    /// Times that a client lost its connection, and was to come back.
    pub lost: AtomicU64,
    /// Times that one was back.
    pub reopened: AtomicU64,
    /// An upper bound of how late the latest expiry was, in microseconds.
    pub late_max_us: AtomicU64,
    /// From due to answered, in all phases.
    pub rtt: Buckets,
    /// What is no single number.
    pub detail: Mutex<Detail>,
}

/// A sum over all workers' [`Published`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Snapshot {
    /// See [`Published`].
    pub opened: u64,
    /// See [`Published`].
    pub failed: u64,
    /// See [`Published`].
    pub gone: u64,
    /// See [`Published`].
    pub expired: u64,
    /// See [`Published`].
    pub false_expiries: u64,
    /// See [`Published`].
    pub sent: u64,
    /// See [`Published`].
    pub acked: u64,
    /// See [`Published`].
    pub written_off: u64,
    /// The maximum of all.
    pub idle_timeout_ms: u64,
    /// The minimum of all that have one.
    pub interval_ms: u64,
    /// See [`Published`].
    pub alive: u64,
    /// See [`Published`].
    pub to_silence: u64,
    /// See [`Published`].
    pub silenced: u64,
    /// See [`Published`].
    pub missed: u64,
    /// See [`Published`].
    pub our_delay: u64,
    /// See [`Published`].
    pub sent_late: u64,
    /// See [`Published`].
    pub lost: u64,
    /// See [`Published`].
    pub reopened: u64,
    /// The maximum of all.
    pub late_max_us: u64,
}

impl Snapshot {
    /// Adds one worker.
    pub fn add(&mut self, worker: &Published) {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        self.opened += read(&worker.opened);
        self.failed += read(&worker.failed);
        self.gone += read(&worker.gone);
        self.expired += read(&worker.expired);
        self.false_expiries += read(&worker.false_expiries);
        self.sent += read(&worker.sent);
        self.acked += read(&worker.acked);
        self.written_off += read(&worker.written_off);
        self.alive += read(&worker.alive);
        self.to_silence += read(&worker.to_silence);
        self.silenced += read(&worker.silenced);
        self.missed += read(&worker.missed);
        self.our_delay += read(&worker.our_delay);
        self.sent_late += read(&worker.sent_late);
        self.lost += read(&worker.lost);
        self.reopened += read(&worker.reopened);
        self.late_max_us = self.late_max_us.max(read(&worker.late_max_us));
        self.idle_timeout_ms = self.idle_timeout_ms.max(read(&worker.idle_timeout_ms));
        let interval_ms = read(&worker.interval_ms);
        if interval_ms > 0 && (self.interval_ms == 0 || interval_ms < self.interval_ms) {
            self.interval_ms = interval_ms;
        }
    }

    /// Connections that are open now.
    pub fn open(&self) -> u64 {
        self.opened.saturating_sub(self.gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_sums() {
        let (mut one, mut other) = (Stats::new(0), Stats::new(0));
        for (value, counter) in other.counters_mut().into_iter().enumerate() {
            *counter = value as u64 + 1;
        }
        other.failed.insert("refused", 3);
        other.rtt.record(Duration::from_micros(5));
        one.add(&other);
        one.add(&other);
        let doubled: Vec<u64> = one.counters_mut().into_iter().map(|counter| *counter).collect();
        assert_eq!(doubled, (1..=27).map(|value| value * 2).collect::<Vec<_>>());
        assert_eq!((one.failed["refused"], one.rtt.count()), (6, 2));
    }
}
