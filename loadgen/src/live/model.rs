//! From what was looked at to what is to be shown: no clock, no terminal.
//!
//! Invariant: bounded memory; looks are kept for a second, and two numbers a second for a minute.

use std::collections::VecDeque;
use std::time::Duration;

use heartwheel::time::Timestamp;

use super::numbers;
use super::shown::{
    Beats, Connections, Cost, EventLine, Oracle, Percentiles, Shown, SloLine, When, Words,
};
use super::watch::Seen;
use crate::detail::Detail;
use crate::host::kernel::{self, KernelSection};
use crate::host::process::ProcessSample;
use crate::limits;
use crate::run::Baseline;
use crate::scenario::Event;
use crate::series::{BUCKETS, percentile_us};
use crate::slo::Slo;
use crate::stats::Snapshot;

/// Rates and percentiles are those of this time.
const WINDOW: Duration = Duration::from_secs(1);
/// Seconds of the small plots.
pub const SECONDS: usize = 60;
/// Messages that are kept.
const MESSAGES_MAX: usize = 50;

/// What does not change during a run.
#[derive(Clone, Debug, Default)]
pub struct Card {
    /// Where to.
    pub target: String,
    /// What is known of the server.
    pub server_kind: String,
    pub wanted: u64,
    pub connect_rate_per_s: u64,
    /// Data messages stand in for heartbeats: how many of these there will be is not known.
    pub sends_data: bool,
    /// Clients come back: there is somebody to be told of.
    pub comes_back: bool,
    pub tick: Duration,
    /// The control plane is known.
    pub asks_server: bool,
    pub slos: Vec<Slo>,
    pub baseline: Baseline,
}

/// The state of things at one moment.
#[derive(Clone, Debug)]
pub struct Look {
    /// When the first client was to connect; all other times here are counted from it.
    pub start: Timestamp,
    pub at: Duration,
    pub phase: &'static str,
    /// The phase's beginning and end, where that is a matter of time.
    pub span: Option<(Duration, Duration)>,
    /// When the steady state began, if it has.
    pub steady_at: Option<Duration>,
    /// Nobody connects any more, as a key wanted it.
    pub paused: bool,
    pub snapshot: Snapshot,
    pub detail: Detail,
    /// Round trips since the beginning, by the buckets of `series`; the sums wrap.
    pub rtt: [u32; BUCKETS],
    pub seen: Seen,
    pub events: Vec<Event>,
    /// Those that were planned.
    pub planned: usize,
}

/// Everything that has been looked at, as far as it is needed yet.
pub struct Model {
    card: Card,
    /// The last one, and those of a second before.
    looks: VecDeque<Look>,
    /// The first of the steady state.
    steady: Option<Look>,
    /// The last one whose second has been told.
    told: Option<Look>,
    beats: VecDeque<u64>,
    p99_us: VecDeque<u64>,
    /// What was seen of the processes before what was seen last.
    seen_before: Seen,
    messages: VecDeque<(Duration, String)>,
}

impl Model {
    /// Nothing has been looked at yet.
    pub fn new(card: Card) -> Model {
        Model {
            card,
            looks: VecDeque::new(),
            steady: None,
            told: None,
            beats: VecDeque::new(),
            p99_us: VecDeque::new(),
            seen_before: Seen::default(),
            messages: VecDeque::new(),
        }
    }

    /// Something is said.
    pub fn note(&mut self, text: String) {
        let at = self.looks.back().map_or(Duration::ZERO, |look| look.at);
        self.messages.push_back((at, text));
        if self.messages.len() > MESSAGES_MAX {
            self.messages.pop_front();
        }
    }

    /// The next look.
    pub fn take(&mut self, look: Look) {
        if let Some(last) = self.looks.back().filter(|last| last.seen.at != look.seen.at) {
            self.seen_before = last.seen.clone();
        }
        let silence = self.looks.back().and_then(|last| last.seen.silence.as_ref());
        if look.seen.silence.as_ref() != silence {
            look.seen.silence.iter().for_each(|why| self.note(why.clone()));
        }
        if self.steady.is_none() && look.steady_at.is_some() {
            self.steady = Some(look.clone());
        }
        let told = self.told.get_or_insert_with(|| look.clone());
        let passed = look.at.saturating_sub(told.at);
        if passed >= Duration::from_secs(1) {
            let beats = per_s(look.snapshot.acked, told.snapshot.acked, passed);
            let p99 = percentiles(&look.rtt, &told.rtt).p99;
            self.told = Some(look.clone());
            push(&mut self.beats, beats.round() as u64);
            push(&mut self.p99_us, p99.unwrap_or(0));
        }
        self.looks.push_back(look);
        let now = self.looks.back().map_or(Duration::ZERO, |look| look.at);
        while self.looks.get(1).is_some_and(|second| second.at + WINDOW <= now) {
            self.looks.pop_front();
        }
    }

    /// What is to be shown; `None` before the first look.
    pub fn shown(&self) -> Option<Shown> {
        let look = self.looks.back()?;
        let before = self.looks.front()?;
        let (progress, progress_text) = self.progress(look);
        let mut shown = Shown {
            target: self.card.target.clone(),
            server_kind: self.card.server_kind.clone(),
            elapsed: look.at,
            phase: look.phase,
            paused: look.paused,
            progress,
            progress_text,
            connections: self.connections(look, before),
            beats: self.beats(look, before),
            rtt_last: percentiles(&look.rtt, &before.rtt),
            rtt_all: percentiles(&look.rtt, &self.rtt_base()),
            is_steady: self.steady.is_some(),
            oracle: self.oracle(look),
            server: self.cost(look, |seen| seen.server, self.card.baseline.server),
            generator: self.cost(look, |seen| seen.generator, Some(self.card.baseline.generator)),
            kernel: self.kernel(look),
            beats_per_s: self.beats.iter().copied().collect(),
            p99_us: self.p99_us.iter().copied().collect(),
            events: events(look),
            messages: self.messages.iter().cloned().collect(),
            words: self.words(look),
            slos: Vec::new(),
            number: None,
        };
        shown.slos = self.slos(look, &shown);
        Some(shown)
    }

    fn progress(&self, look: &Look) -> (f64, String) {
        let Snapshot { opened, failed, alive, .. } = look.snapshot;
        let share = |part: u64, all: u64| (part as f64 / all.max(1) as f64).clamp(0.0, 1.0);
        match (look.phase, look.span) {
            ("connecting", _) => {
                let share = share(opened + failed, self.card.wanted);
                (share, format!("{:.0} %", (share * 100.0).floor()))
            }
            ("closing", _) => {
                let share = share(opened.saturating_sub(alive), opened);
                (share, format!("{:.0} %", (share * 100.0).floor()))
            }
            (_, Some((from, until))) => {
                let all = until.saturating_sub(from);
                let passed = look.at.saturating_sub(from).min(all);
                let share = passed.as_secs_f64() / all.as_secs_f64().max(1e-9);
                (share.min(1.0), format!("{} of {}", seconds(passed), seconds(all)))
            }
            _ => (1.0, String::new()),
        }
    }

    fn connections(&self, look: &Look, before: &Look) -> Connections {
        let now = &look.snapshot;
        let passed = look.at.saturating_sub(before.at);
        let says = look.seen.says.as_ref();
        let away = now.lost.saturating_sub(now.reopened);
        Connections {
            wanted: self.card.wanted,
            open: now.open(),
            server_open: says.map(|says| says.counters.open),
            away: (self.card.comes_back || now.lost > 0).then_some(away),
            failed: now.failed,
            failed_by: look.detail.failed.iter().map(|(&why, &count)| (why, count)).collect(),
            opened_per_s: per_s(now.opened, before.snapshot.opened, passed),
            planned_per_s: (look.phase == "connecting" && !look.paused)
                .then_some(self.card.connect_rate_per_s),
            reopened_per_s: per_s(now.reopened, before.snapshot.reopened, passed),
        }
    }

    fn beats(&self, look: &Look, before: &Look) -> Beats {
        let now = &look.snapshot;
        let passed = look.at.saturating_sub(before.at);
        let silent = match look.steady_at {
            Some(_) => now.to_silence.saturating_sub(now.silenced),
            None => 0,
        };
        let beating = now.open().saturating_sub(silent) as f64;
        let beat = !matches!(look.phase, "last answers" | "closing");
        let known = now.interval_ms > 0 && !self.card.sends_data && beat;
        Beats {
            due_per_s: per_s(now.sent, before.snapshot.sent, passed),
            acked_per_s: per_s(now.acked, before.snapshot.acked, passed),
            planned_per_s: known.then(|| beating * 1e3 / now.interval_ms as f64),
            unanswered: now.sent.saturating_sub(now.acked + now.written_off),
            sent_late: now.sent_late,
            interval_ms: (now.interval_ms > 0).then_some(now.interval_ms),
            idle_timeout_ms: (now.idle_timeout_ms > 0).then_some(now.idle_timeout_ms),
        }
    }

    fn oracle(&self, look: &Look) -> Oracle {
        let now = &look.snapshot;
        let timeout = Duration::from_millis(now.idle_timeout_ms);
        let up = look.steady_at.map(|at| at + timeout + self.card.tick + limits::EXPIRY_GRACE);
        let is_up = !timeout.is_zero() && up.is_some_and(|up| look.at > up);
        // The workers count them only at the end, when they take stock.
        let overdue = now.to_silence.saturating_sub(now.silenced);
        let counted = look.phase == "closing";
        Oracle {
            silenced: if look.steady_at.is_some() { now.to_silence } else { 0 },
            planned: now.to_silence,
            expired: now.expired,
            server_expired: look
                .seen
                .says
                .as_ref()
                .map(|says| says.counters.closed.get("expired").copied().unwrap_or(0)),
            late_max_us: (now.expired > 0).then_some(now.late_max_us),
            falsely: now.false_expiries,
            missed: if counted { now.missed } else { overdue * u64::from(is_up) },
            our_delay: now.our_delay,
        }
    }

    /// What a process takes: CPU since the look before, memory since it was idle.
    fn cost(
        &self,
        look: &Look,
        of: impl Fn(&Seen) -> Option<ProcessSample>,
        idle: Option<ProcessSample>,
    ) -> Cost {
        let Some(now) = of(&look.seen) else { return Cost::default() };
        let cores = |then: &Seen| {
            let passed = look.seen.at.saturating_sub(then.at).as_secs_f64();
            let cpu = now.cpu.saturating_sub(of(then)?.cpu).as_secs_f64();
            (passed > 0.0).then(|| cpu / passed)
        };
        let open = look.snapshot.open();
        let grown = idle.map(|idle| now.rss_bytes.saturating_sub(idle.rss_bytes));
        Cost {
            cores: cores(&self.seen_before),
            cores_steady: self.steady.as_ref().and_then(|steady| cores(&steady.seen)),
            bytes: Some(now.rss_bytes),
            bytes_per_connection: grown
                .filter(|_| open > 0 && look.phase != "closing")
                .map(|grown| grown as f64 / open as f64),
        }
    }

    fn kernel(&self, look: &Look) -> KernelSection {
        let Some(now) = look.seen.kernel else { return KernelSection::default() };
        let grown = |of: Option<ProcessSample>, idle: Option<ProcessSample>| {
            of.zip(idle).map_or(0, |(now, then)| now.rss_bytes.saturating_sub(then.rss_bytes))
        };
        let Baseline { server, generator, kernel, .. } = &self.card.baseline;
        let user = grown(look.seen.server, *server) + grown(look.seen.generator, Some(*generator));
        kernel::section(kernel, &now, &now, look.snapshot.open(), user)
    }

    fn words(&self, look: &Look) -> Words {
        match (&look.seen.says, &look.seen.silence) {
            (Some(says), _) => Words::Laws {
                hold: says.laws.iter().filter(|law| law.holds).count(),
                all: says.laws.len(),
            },
            (None, Some(_)) => Words::Silence,
            (None, None) if self.card.asks_server => Words::Unknown,
            (None, None) => Words::NotAsked,
        }
    }

    fn slos(&self, look: &Look, shown: &Shown) -> Vec<SloLine> {
        if self.card.slos.is_empty() {
            return Vec::new();
        }
        let numbers = numbers::of(look, self.steady.as_ref(), shown);
        let lines = self.card.slos.iter().map(|slo| {
            let outcome = slo.judge(&numbers);
            SloLine {
                unit: slo.unit(&numbers),
                holds: outcome.value.map(|_| outcome.holds),
                value: outcome.value,
                expression: outcome.expression,
            }
        });
        lines.collect()
    }

    fn rtt_base(&self) -> [u32; BUCKETS] {
        self.steady.as_ref().map_or([0; BUCKETS], |look| look.rtt)
    }
}

fn events(look: &Look) -> Vec<EventLine> {
    let line = |(number, event): (usize, &Event)| {
        let began = look.steady_at.map(|steady_at| steady_at + event.at);
        let glimpse = look.detail.events.get(number).copied().unwrap_or_default();
        let came = began.filter(|&began| look.at >= began);
        let when = match (came, began) {
            (Some(_), _) => When::At(event.at),
            (None, Some(began)) => When::In(began.saturating_sub(look.at)),
            (None, None) => When::Planned(event.at),
        };
        EventLine {
            when,
            kind: event.kind,
            by_hand: number >= look.planned,
            affected: glimpse.affected,
            recovered: glimpse.recovered,
        }
    };
    let mut lines: Vec<EventLine> = look.events.iter().enumerate().map(line).collect();
    lines.sort_by_key(|line| line.when.order());
    lines
}

fn percentiles(now: &[u32; BUCKETS], then: &[u32; BUCKETS]) -> Percentiles {
    let counts = std::array::from_fn(|index| now[index].wrapping_sub(then[index]));
    let us = |share| percentile_us(&counts, share);
    Percentiles {
        count: counts.iter().map(|&count| u64::from(count)).sum(),
        p50: us(0.5),
        p90: us(0.9),
        p99: us(0.99),
        p999: us(0.999),
        max: us(1.0),
    }
}

fn per_s(now: u64, then: u64, passed: Duration) -> f64 {
    match passed.is_zero() {
        true => 0.0,
        false => now.saturating_sub(then) as f64 / passed.as_secs_f64(),
    }
}

fn push(values: &mut VecDeque<u64>, value: u64) {
    values.push_back(value);
    if values.len() > SECONDS {
        values.pop_front();
    }
}

/// `18.6 s`, `4:05`.
pub fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0..100 => format!("{:.1} s", duration.as_secs_f64()),
        all => format!("{}:{:02}", all / 60, all % 60),
    }
}
