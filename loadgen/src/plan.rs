//! The plan: when each client acts, and which clients fall silent.
//!
//! Invariant: every answer is a pure function of the seed and the question, so the plan takes no
//! memory, two runs with one seed plan alike, and several processes can share one plan.
//! It is an open loop: nothing that the server does makes a client act later than planned, except
//! the heartbeat rule itself (a heartbeat only after an interval without traffic).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Everything random follows from it.
    pub seed: u64,
    /// How many clients there are.
    pub clients: u32,
    /// How many of them start to connect in a second.
    pub connect_rate_per_s: u32,
    /// The share by which an interval may be shorter or longer.
    pub jitter: f64,
    /// How many clients fall silent.
    pub silent: u32,
    /// When clients beat first.
    pub phase: Phase,
}

/// When clients beat for the first time after their opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// At a random time within an interval.
    Uniform,
    /// An interval later: whoever connects at once also beats at once.
    Herd,
}

/// How many of so many clients a share is.
pub fn share_of(clients: u32, share: f64) -> u32 {
    (f64::from(clients) * share).round() as u32
}

/// Keeps the random numbers of different questions apart.
#[derive(Clone, Copy)]
pub enum Question {
    Phase = 1,
    Gap = 2,
    Silent = 3,
    Slow = 5,
    Storm = 6,
    Churn = 7,
    Data = 8,
    Backoff = 9,
}

impl Plan {
    /// When `client` starts to connect, counted from the beginning.
    pub fn connect_after(&self, client: u32) -> Duration {
        let nanos = u64::from(client) * 1_000_000_000 / u64::from(self.connect_rate_per_s.max(1));
        Duration::from_nanos(nanos)
    }

    /// How long after its opening `client` beats for the first time: a random phase, so that
    /// those who connected at once do not beat at once, unless a herd is wanted.
    pub fn first_beat_after(&self, client: u32, interval: Duration) -> Duration {
        match self.phase {
            Phase::Uniform => interval.mul_f64(self.uniform(Question::Phase, client, 0)),
            Phase::Herd => interval,
        }
    }

    /// How long after its last activity `client`, which has beaten `beats` times, beats again.
    pub fn gap(&self, client: u32, beats: u32, interval: Duration) -> Duration {
        let deviation = self.jitter * (2.0 * self.uniform(Question::Gap, client, beats) - 1.0);
        interval.mul_f64(1.0 + deviation)
    }

    /// Whether `client` is one of those who fall silent: exactly `silent` of all are.
    pub fn falls_silent(&self, client: u32) -> bool {
        self.chosen(Question::Silent, 0, self.silent, client)
    }

    /// Whether `client` is one of `count` that a question chooses from all: exactly so many are,
    /// one at a random place in each of `count` equal stretches.
    pub fn chosen(&self, question: Question, round: u32, count: u32, client: u32) -> bool {
        let (clients, count) = (u64::from(self.clients), u64::from(count));
        if count == 0 || client >= self.clients {
            return false;
        }
        let stretch = u64::from(client) * count / clients;
        let start = (stretch * clients).div_ceil(count);
        let end = ((stretch + 1) * clients).div_ceil(count);
        let chosen = start + self.random(question, stretch as u32, round) % (end - start);
        chosen == u64::from(client)
    }

    /// A number from 0 to below 1.
    pub fn uniform(&self, question: Question, client: u32, round: u32) -> f64 {
        (self.random(question, client, round) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// 64 random bits.
    pub fn random(&self, question: Question, client: u32, round: u32) -> u64 {
        let question = (question as u64) << 56;
        mix(mix(self.seed ^ question) ^ u64::from(client) << 32 ^ u64::from(round))
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every bit depends on every bit.
pub fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn plan(clients: u32, silent: u32) -> Plan {
        Plan {
            seed: 7,
            clients,
            connect_rate_per_s: 1_000,
            jitter: 0.1,
            silent,
            phase: Phase::Uniform,
        }
    }

    #[test]
    fn exactly_the_wanted_number_falls_silent() {
        for (clients, silent) in [(10, 0), (10, 3), (1_000, 10), (1_001, 13), (77, 77), (5, 1)] {
            let plan = plan(clients, silent);
            let found = (0..clients + 5).filter(|&client| plan.falls_silent(client)).count();
            assert_eq!(found, silent as usize, "{silent} of {clients}");
        }
    }

    #[test]
    fn a_plan_is_a_function_of_its_seed() {
        let one = plan(1_000, 100);
        let other = Plan { seed: 8, ..one };
        let chosen = |plan: Plan| (0..1_000).filter(|&i| plan.falls_silent(i)).collect::<Vec<_>>();
        assert_eq!(chosen(one), chosen(one));
        assert_ne!(chosen(one), chosen(other));
        assert_eq!(one.gap(3, 1, INTERVAL), one.gap(3, 1, INTERVAL));
        assert_ne!(one.gap(3, 1, INTERVAL), one.gap(3, 2, INTERVAL));
    }

    #[test]
    fn phases_are_uniform_and_gaps_stay_within_the_jitter() {
        let plan = plan(10_000, 0);
        let mut tenths = [0u32; 10];
        for client in 0..10_000 {
            let phase = plan.first_beat_after(client, INTERVAL);
            tenths[(phase.as_millis() / 1_000) as usize] += 1;
            let gap = plan.gap(client, client % 5, INTERVAL).as_secs_f64();
            assert!((9.0..=11.0).contains(&gap), "{gap}");
        }
        assert!(tenths.iter().all(|&count| (850..1_150).contains(&count)), "{tenths:?}");
    }

    #[test]
    fn clients_connect_at_the_planned_rate() {
        let plan = plan(10_000, 0);
        assert_eq!(plan.connect_after(0), Duration::ZERO);
        assert_eq!(plan.connect_after(2_500), Duration::from_millis(2_500));
    }
}
