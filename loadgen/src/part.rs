//! `--part K/N --start-at TIME`: one plan that several generators play together.
//!
//! Invariant: every client of the plan belongs to exactly one worker of exactly one part, and keeps
//! its number in the plan, from which all that it does follows. So each of them acts as it would if
//! a single generator played them all.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::limits;

/// Which part of the plan this generator plays: every `of`-th client from the `number`-th on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part {
    /// Counted from 1.
    pub number: u32,
    /// How many parts there are.
    pub of: u32,
}

impl Part {
    /// All of it.
    pub const WHOLE: Part = Part { number: 1, of: 1 };

    /// How many of `all` clients it has.
    pub fn clients(self, all: u32) -> u32 {
        all.saturating_sub(self.number - 1).div_ceil(self.of)
    }

    /// The clients of one of its workers.
    pub fn share(self, worker: usize, workers: usize) -> Share {
        Share { first: self.number - 1 + worker as u32 * self.of, step: workers as u32 * self.of }
    }
}

/// Parses `K/N`.
///
/// # Errors
/// If it is something else, or there is no such part.
pub fn parse_part(text: &str) -> Result<Part> {
    let (number, of) = text.split_once('/').context("write it like 1/3")?;
    let number = number.parse().with_context(|| format!("`{number}` is no number"))?;
    let of = of.parse().with_context(|| format!("`{of}` is no number"))?;
    ensure!(
        (1..=limits::PARTS_MAX).contains(&of),
        "a plan has 1 to {} parts, not {of}",
        limits::PARTS_MAX
    );
    ensure!((1..=of).contains(&number), "the parts of {of} are 1/{of} to {of}/{of}");
    Ok(Part { number, of })
}

/// Which clients of the plan one worker plays.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    first: u32,
    step: u32,
}

impl Share {
    /// How many of `all` they are.
    pub fn count(self, all: u32) -> u32 {
        all.saturating_sub(self.first).div_ceil(self.step)
    }

    /// The number in the plan of the worker's own number `index`.
    pub fn planned(self, index: u32) -> u32 {
        index * self.step + self.first
    }

    /// The worker's own number of a client of the plan, if it is one of its own.
    pub fn own(self, planned: u32) -> Option<u32> {
        let beyond = planned.checked_sub(self.first)?;
        beyond.is_multiple_of(self.step).then_some(beyond / self.step)
    }
}

/// Parses a time as RFC 3339 writes it, or in seconds since 1970; what comes out is the latter.
///
/// # Errors
/// If it is neither.
pub fn parse_start_at(text: &str) -> Result<Duration> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).context("seconds since 1970");
    }
    let cure = "write it like 2026-01-31T12:00:00Z, 2026-01-31T13:00:00+01:00 or 1769860800";
    let (utc, east_s) = split_offset(text).context(cure)?;
    let time = humantime::parse_rfc3339_weak(utc).context(cure)?;
    let local = time.duration_since(UNIX_EPOCH).context("a time before 1970")?;
    let seconds = local.as_secs_f64() - f64::from(east_s);
    Duration::try_from_secs_f64(seconds).context("a time before 1970")
}

/// Cuts `+01:00` off, which is so many seconds. A `Z` stays.
fn split_offset(text: &str) -> Option<(&str, i32)> {
    let Some(at) = text.len().checked_sub(6).filter(|&at| text.is_char_boundary(at)) else {
        return Some((text, 0));
    };
    let (time, offset) = text.split_at(at);
    let sign = match offset.as_bytes()[0] {
        b'+' => 1,
        // The dashes of a date alone do not stand here.
        b'-' if offset.as_bytes()[3] == b':' => -1,
        _ => return Some((text, 0)),
    };
    let (hours, minutes) = offset[1..].split_once(':')?;
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    Some((time, sign * (hours * 3_600 + minutes * 60)))
}

/// How far `start_at` lies ahead.
///
/// # Errors
/// If it is too near to be kept, or too far to be meant.
pub fn check_start_at(start_at: Duration) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock before 1970")?;
    let (least, most) = (limits::START_AHEAD_MIN, limits::START_AHEAD_MAX);
    ensure!(
        start_at >= now + least,
        "--start-at must lie {least:?} ahead, and lies {:.1} s in the past: choose a later time, \
         or set this host's clock",
        now.as_secs_f64() - start_at.as_secs_f64()
    );
    ensure!(start_at <= now + most, "--start-at lies more than {most:?} ahead");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Phase, Plan, Question};

    const INTERVAL: Duration = Duration::from_secs(10);

    fn plan() -> Plan {
        Plan {
            seed: 11,
            clients: 1_003,
            connect_rate_per_s: 500,
            jitter: 0.1,
            silent: 37,
            phase: Phase::Uniform,
        }
    }

    /// All that the plan says of a client.
    fn schedule(plan: &Plan, client: u32) -> (u32, Duration, Duration, Vec<Duration>, bool, u64) {
        let gaps = (0..20).map(|beats| plan.gap(client, beats, INTERVAL)).collect();
        let first = plan.first_beat_after(client, INTERVAL);
        let silent = plan.falls_silent(client);
        let random = plan.random(Question::Backoff, client, 3);
        (client, plan.connect_after(client), first, gaps, silent, random)
    }

    fn played_by(part: Part, workers: usize) -> Vec<u32> {
        let all = plan().clients;
        let mut clients = Vec::new();
        for worker in 0..workers {
            let share = part.share(worker, workers);
            for index in 0..share.count(all) {
                assert_eq!(share.own(share.planned(index)), Some(index));
                clients.push(share.planned(index));
            }
        }
        assert_eq!(clients.len() as u32, part.clients(all), "{part:?}");
        clients
    }

    #[test]
    fn all_parts_together_play_what_one_generator_plays() {
        let plan = plan();
        let mut alone: Vec<_> =
            played_by(Part::WHOLE, 2).into_iter().map(|client| schedule(&plan, client)).collect();
        alone.sort_by_key(|schedule| schedule.0);
        assert_eq!(alone.len(), 1_003);
        for of in [1, 2, 3, 7, 64] {
            // Hosts need not be alike: each has its own number of workers.
            let parts = (1..=of).map(|number| (Part { number, of }, 1 + number as usize % 3));
            let mut together: Vec<_> = parts
                .flat_map(|(part, workers)| played_by(part, workers))
                .map(|client| schedule(&plan, client))
                .collect();
            together.sort_by_key(|schedule| schedule.0);
            assert_eq!(together, alone, "{of} parts");
            let silent = together.iter().filter(|schedule| schedule.4).count();
            assert_eq!(silent, 37, "{of} parts");
        }
    }

    #[test]
    fn nobody_plays_a_client_of_another() {
        let share = Part { number: 2, of: 3 }.share(1, 2);
        assert_eq!((share.planned(0), share.planned(1)), (4, 10));
        assert_eq!(
            (share.own(1), share.own(4), share.own(7), share.own(10)),
            (None, Some(0), None, Some(1))
        );
        assert_eq!(Part { number: 3, of: 3 }.clients(2), 0);
    }

    #[test]
    fn parts_and_times_are_read_and_what_is_none_is_refused() {
        assert_eq!(parse_part("2/3").unwrap(), Part { number: 2, of: 3 });
        for bad in ["", "3", "0/3", "4/3", "1/0", "a/b", "1/99999"] {
            assert!(parse_part(bad).is_err(), "{bad}");
        }
        let noon = Duration::from_secs(1_769_860_800);
        for good in [
            "1769860800",
            "2026-01-31T12:00:00Z",
            "2026-01-31 12:00:00",
            "2026-01-31T13:00:00+01:00",
            "2026-01-31T06:30:00-05:30",
        ] {
            assert_eq!(parse_start_at(good).unwrap(), noon, "{good}");
        }
        for bad in
            ["", "noon", "-5", "2026-01-31", "2026-01-31T12:00:00+1:0:0", "1960-01-01T00:00:00Z"]
        {
            assert!(parse_start_at(bad).is_err(), "{bad}");
        }
        assert!(check_start_at(Duration::from_secs(1)).is_err(), "long past");
    }
}
