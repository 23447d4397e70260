//! What is simulated, from arguments of the form `name=value`.

use std::str::FromStr;

use anyhow::{Context, bail};

/// When sessions beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Each in its own time: the steady state.
    Uniform,
    /// All in the same tick, and again a gap later.
    Synchronised,
    /// All connected in the same tick; what is measured begins right there.
    Connect,
}

/// One simulation. Times are in ticks.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub sessions: u32,
    pub timeout: u32,
    pub gap_min: u32,
    pub gap_max: u32,
    /// Sessions that expire per tick, of a million.
    pub expiring_ppm: u32,
    pub phase: Phase,
    pub is_sequential: bool,
    /// Whether the caches are emptied before each of the timed steps.
    pub is_evicted: bool,
    /// Measured ticks; 0 is for one tick in which everybody expires.
    pub ticks: u32,
    /// Of `advance`.
    pub budget: usize,
    pub repeats: u32,
    pub contenders: Vec<String>,
}

impl Default for Scenario {
    fn default() -> Scenario {
        Scenario {
            sessions: 1_000_000,
            timeout: 240,
            gap_min: 61,
            gap_max: 80,
            expiring_ppm: 100,
            phase: Phase::Uniform,
            is_sequential: false,
            is_evicted: false,
            // Twice the timeout less the gap: blocks are visited in waves that far apart.
            ticks: 320,
            budget: usize::MAX,
            repeats: 5,
            contenders: Vec::new(),
        }
    }
}

impl Scenario {
    /// Reads the arguments; what is not given is as in the reference scenario.
    ///
    /// # Errors
    /// An unknown name, or a value that is none.
    pub fn from_args(args: impl Iterator<Item = String>) -> anyhow::Result<Scenario> {
        let mut scenario = Scenario::default();
        // cargo itself passes `--bench`.
        for arg in args.filter(|arg| arg != "--bench") {
            let (name, value) = arg.split_once('=').context("arguments are name=value")?;
            scenario.set(name, value).with_context(|| arg.clone())?;
        }
        if scenario.gap_max >= scenario.timeout || scenario.gap_min > scenario.gap_max {
            bail!("the gap has to be shorter than the timeout");
        }
        Ok(scenario)
    }

    fn set(&mut self, name: &str, value: &str) -> anyhow::Result<()> {
        match name {
            "sessions" => self.sessions = number(value)?,
            "timeout" => self.timeout = number(value)?,
            "gap" => {
                let (min, max) = value.split_once('-').context("MIN-MAX")?;
                (self.gap_min, self.gap_max) = (number(min)?, number(max)?);
            }
            "expiring-ppm" => self.expiring_ppm = number(value)?,
            "phase" => self.phase = value.parse()?,
            "order" => self.is_sequential = one_of(value, ["random", "sequential"])? == 1,
            "cache" => self.is_evicted = one_of(value, ["hot", "evicted"])? == 1,
            "ticks" => self.ticks = number(value)?,
            "budget" => self.budget = number(value)?,
            "repeats" => self.repeats = number(value)?,
            "contenders" => self.contenders = value.split(',').map(str::to_owned).collect(),
            _ => bail!("unknown argument"),
        }
        Ok(())
    }

    /// Ticks before those that are measured: enough for everything to be filed as it is in the
    /// long run, whatever the timeout.
    pub fn warmup_ticks(&self) -> u32 {
        if self.phase == Phase::Connect || self.ticks == 0 { 0 } else { self.timeout * 3 / 2 }
    }

    /// How many sessions expire in a measured tick.
    pub fn expiring(&self) -> u32 {
        (u64::from(self.sessions) * u64::from(self.expiring_ppm) / 1_000_000) as u32
    }
}

fn number<T: FromStr>(value: &str) -> anyhow::Result<T> {
    value.replace('_', "").parse().ok().context("not a number")
}

fn one_of(value: &str, names: [&str; 2]) -> anyhow::Result<usize> {
    names.iter().position(|&name| name == value).with_context(|| format!("one of {names:?}"))
}

impl FromStr for Phase {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Phase> {
        Ok(match name {
            "uniform" => Phase::Uniform,
            "synchronised" => Phase::Synchronised,
            "connect" => Phase::Connect,
            _ => bail!("one of uniform, synchronised, connect"),
        })
    }
}
