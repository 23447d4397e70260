//! What happens to the clients beside their heartbeats: who reads nothing, who is killed when, who
//! comes back after how long, and what is asked of the server.
//!
//! Invariant: like the plan, every answer is a pure function of the seed and the question, so that
//! the oracle knows beforehand whom the server may close. Those who fall silent or read nothing are
//! never killed here, or they could not be judged.

pub mod account;
pub mod admin;
mod events;
mod parse;

use std::fmt;
use std::time::Duration;

pub use self::events::Events;
pub use self::parse::{parse_backoff, parse_event};
use crate::plan::{Plan, Question};

/// Something that happens at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// Counted from the start of the steady state.
    pub at: Duration,
    /// What.
    pub kind: Kind,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// This share of the clients is killed at once, and comes back with backoff.
    Storm(f64),
    /// The server is told to drain, over this time.
    Drain(Option<Duration>),
    /// The server is told to push so many bytes to everybody, over this time.
    Broadcast(u32, Option<Duration>),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Storm(share) => write!(f, "storm: {:.0} % are killed", share * 100.0),
            Kind::Drain(_) => f.write_str("drain: the server is told to"),
            Kind::Broadcast(bytes, _) => write!(f, "broadcast of {bytes} B to everybody"),
        }
    }
}

impl Kind {
    /// As `--at` takes it behind the time.
    pub fn flag(self) -> String {
        let over = |over: Option<Duration>| {
            over.map(|over| format!(":{}ms", over.as_millis())).unwrap_or_default()
        };
        match self {
            Kind::Storm(share) => format!("storm:{}%", (share * 1e4).round() / 100.0),
            Kind::Drain(spread) => format!("drain{}", over(spread)),
            Kind::Broadcast(bytes, spread) => format!("broadcast:{bytes}{}", over(spread)),
        }
    }

    /// Its name on the command line and in a report.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Storm(_) => "storm",
            Kind::Drain(_) => "drain",
            Kind::Broadcast(..) => "broadcast",
        }
    }
}

/// How long a client waits before it comes back: a random time up to `first`, doubled with every
/// failure, up to `most` (exponential backoff with full jitter; M. Brooker, 2015).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest first wait.
    pub first: Duration,
    /// The longest of all.
    pub most: Duration,
}

impl Backoff {
    /// How storms come back unless it is said otherwise.
    pub const DEFAULT: Backoff =
        Backoff { first: Duration::from_secs(1), most: Duration::from_secs(30) };
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it is added to.
    pub plan: Plan,
    /// How many clients read nothing; those among them who fall silent do read.
    pub slow: u32,
    /// Connections that are closed and opened again in a second.
    pub churn_per_s: u32,
    /// Data messages in a second, over all clients.
    pub data_per_s: u32,
    /// Whether whoever loses the connection comes back, and how.
    pub reconnect: Option<Backoff>,
    /// What happens when.
    pub events: Events,
}

/// How many clients are looked at to find one for churn or data.
const LOOKS_MAX: u32 = 64;

impl Scenario {
    /// Whether `client` stops reading once it is open.
    pub fn is_slow(&self, client: u32) -> bool {
        self.slow > 0
            && self.plan.chosen(Question::Slow, 0, self.slow, client)
            && !self.plan.falls_silent(client)
    }

    /// Whether `client` keeps its heartbeats and reads: it has to be well all the time.
    pub fn is_ordinary(&self, client: u32) -> bool {
        !self.plan.falls_silent(client) && !self.is_slow(client)
    }

    /// Whether the storm that is event number `event` hits `client`.
    pub fn is_hit(&self, event: usize, client: u32) -> bool {
        let Some(Event { kind: Kind::Storm(share), .. }) = self.events.get(event) else {
            return false;
        };
        let count = (f64::from(self.plan.clients) * share).round() as u32;
        self.plan.chosen(Question::Storm, event as u32, count, client) && self.is_ordinary(client)
    }

    /// Who closes and comes back as number `number` of all.
    pub fn churner(&self, number: u64) -> Option<u32> {
        self.pick(Question::Churn, number)
    }

    /// Who sends data message `number`.
    pub fn sender(&self, number: u64) -> Option<u32> {
        self.pick(Question::Data, number)
    }

    fn pick(&self, question: Question, number: u64) -> Option<u32> {
        let clients = u64::from(self.plan.clients);
        let start = self.plan.random(question, number as u32, (number >> 32) as u32) % clients;
        let looks = (0..u64::from(LOOKS_MAX)).map(|look| ((start + look) % clients) as u32);
        looks.into_iter().find(|&client| self.is_ordinary(client))
    }

    /// How long `client` waits before it is tried again, after `failures` in a row; `life` tells
    /// its losses apart.
    pub fn wait(&self, client: u32, life: u32, failures: u8) -> Duration {
        let Backoff { first, most } = self.reconnect.unwrap_or(Backoff::DEFAULT);
        let longest = first.saturating_mul(1 << failures.min(20)).min(most);
        let round = life ^ u32::from(failures) << 24;
        longest.mul_f64(self.plan.uniform(Question::Backoff, client, round))
    }

    /// When something that happens `per_s` times in a second happens for the time `number`.
    pub fn after(number: u64, per_s: u32) -> Duration {
        let per_s = u64::from(per_s.max(1));
        Duration::from_secs(number / per_s)
            + Duration::from_nanos(number % per_s * 1_000_000_000 / per_s)
    }

    /// Connections beyond one for each client that are opened by plan in a steady state of
    /// `length`.
    pub fn reopenings(&self, length: Duration) -> u64 {
        let clients = f64::from(self.plan.clients);
        let of_events = self.events.iter().map(|event| match event.kind {
            Kind::Storm(share) => (clients * share) as u64,
            Kind::Drain(_) if self.reconnect.is_some() => u64::from(self.plan.clients),
            Kind::Drain(_) | Kind::Broadcast(..) => 0,
        });
        of_events.sum::<u64>() + (f64::from(self.churn_per_s) * length.as_secs_f64()) as u64
    }

    /// Whether everybody stays, reads and answers, so that both ends must count alike to the byte.
    pub fn is_gentle(&self) -> bool {
        let broadcasts = self.events.iter().all(|event| matches!(event.kind, Kind::Broadcast(..)));
        broadcasts && self.slow == 0 && self.churn_per_s == 0 && self.reconnect.is_none()
    }

    /// Whether these need the server's control plane.
    pub fn needs_admin(events: &[Event]) -> bool {
        events.iter().any(|event| !matches!(event.kind, Kind::Storm(_)))
    }
}

/// The front of a payload, by which its receivers know which broadcast it is: text, so that a
/// WebSocket has it as text.
const MARK: &[u8] = b"push ";
/// Mark and number.
pub const PAYLOAD_BYTES_MIN: u32 = MARK.len() as u32 + 4;

/// What event number `event` pushes.
pub fn payload(event: usize, bytes: u32) -> Vec<u8> {
    let mut payload = format!("push {event:04}").into_bytes();
    payload.resize(bytes as usize, b'x');
    payload
}

/// Which event has pushed this.
pub fn event_of(payload: &[u8]) -> Option<usize> {
    let digits = payload.strip_prefix(MARK)?.get(..4)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(events: &[Event]) -> Scenario {
        let plan = Plan {
            seed: 3,
            clients: 1_000,
            connect_rate_per_s: 1,
            jitter: 0.1,
            silent: 50,
            phase: crate::plan::Phase::Uniform,
        };
        Scenario {
            plan,
            slow: 100,
            churn_per_s: 10,
            data_per_s: 0,
            reconnect: None,
            events: Events::new(events),
        }
    }

    #[test]
    fn nobody_is_killed_who_has_to_be_judged() {
        let storm = Event { at: Duration::ZERO, kind: Kind::Storm(1.0) };
        let scenario = scenario(&[storm]);
        for client in 0..1_000 {
            let special = scenario.plan.falls_silent(client) || scenario.is_slow(client);
            assert_eq!(scenario.is_hit(0, client), !special, "{client}");
        }
        assert!((0..500).all(|number| scenario.is_ordinary(scenario.churner(number).unwrap())));
        let slow = (0..1_000).filter(|&client| scenario.is_slow(client)).count();
        assert!((80..=100).contains(&slow), "{slow}");
    }

    #[test]
    fn waits_are_random_and_double_up_to_the_longest() {
        let mut scenario = scenario(&[]);
        let (first, most) = (Duration::from_secs(1), Duration::from_secs(5));
        scenario.reconnect = Some(Backoff { first, most });
        for (failures, longest_s) in [(0, 1.0), (1, 2.0), (2, 4.0), (3, 5.0), (200, 5.0)] {
            let waits: Vec<f64> =
                (0..1_000).map(|who| scenario.wait(who, 1, failures).as_secs_f64()).collect();
            let mean = waits.iter().sum::<f64>() / 1_000.0;
            assert!(waits.iter().all(|&wait| wait <= longest_s), "{failures}");
            assert!((mean / longest_s - 0.5).abs() < 0.05, "{failures}: {mean}");
        }
    }

    #[test]
    fn a_payload_says_whose_it_is() {
        assert_eq!(event_of(&payload(7, PAYLOAD_BYTES_MIN)), Some(7));
        assert_eq!(event_of(&payload(12, 1_000)), Some(12));
        for other in [&b"push"[..], b"push 12", b"push 12ab", b"data"] {
            assert_eq!(event_of(other), None);
        }
    }
}
