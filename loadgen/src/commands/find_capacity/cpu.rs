//! The rules about CPU time: whose was used up.
//!
//! A thread that was always busy accuses its program. One that was busy or waited for a core all
//! the time accuses the host: both programs, and perhaps others, shared its cores. That the cores
//! were busy proves nothing if nobody waited for them long.

use super::facts::{Facts, Stage};
use super::limiter::{Limiter, Suspect};
use crate::limits::{CORES_BUSY_MAX, THREAD_BUSY_MAX};

/// So much of the cores makes the server, or others, one of those who used them up.
const A_PART: f64 = 0.2;
/// A thread that could always have run, and waited for so much of the time, shared its core.
const WAITED: f64 = 0.05;
/// One that waits this long may be why something is late, even if it could not always have run.
const WAITED_LONG: f64 = 0.25;
/// A generator that was late although it was less busy than this was held up by something else.
const HALF_BUSY: f64 = 0.7;

/// CPU time that was used up, by whom.
pub fn used_up(facts: Facts<'_>, stage: Stage) -> Vec<Suspect> {
    match (facts.verdict(), stage) {
        ("void", _) => vec![of_a_late_generator(facts)],
        // Whose threads wanted for a core later had wanted for it before.
        (_, Stage::Connecting) => {
            while_connecting(facts).map_or_else(|| while_holding(facts), |one| vec![one])
        }
        (_, Stage::Holding) => while_holding(facts),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// Who used how many of the cores, in words.
fn shares(facts: Facts<'_>, server: Option<f64>, generator: f64, busy: f64) -> String {
    let cores = facts.cores();
    let others = (busy * cores - server.unwrap_or(0.0) - generator).max(0.0);
    let server = server.map_or(String::new(), |server| format!("the server {server:.2}, "));
    let told = format!(
        "{} of {cores} cores were used: {server}the load generator {generator:.2}, others \
         {others:.2}",
        percent(busy)
    );
    match facts.number("host.cpu_stolen") {
        Some(stolen) if stolen >= 0.05 => {
            format!("{told}; a hypervisor took {} away", percent(stolen))
        }
        _ => told,
    }
}

/// The share of the cores that was used: as the host tells, or as both programs do, if a cgroup
/// gives them less than the host has.
fn busy(facts: Facts<'_>, server: Option<f64>, generator: f64) -> f64 {
    let ours = (server.unwrap_or(0.0) + generator) / facts.cores();
    facts.number("host.cpu_busy").unwrap_or(0.0).max(ours.min(1.0))
}

fn while_holding(facts: Facts<'_>) -> Vec<Suspect> {
    let server = facts.number("server.cpu_cores");
    let generator = facts.number("generator.cpu_cores").unwrap_or(0.0);
    let busy = busy(facts, server, generator);
    let thread = |side: &str| {
        let path = format!("host.{side}_busiest_thread");
        facts.number(&path).filter(|&share| share >= THREAD_BUSY_MAX)
    };
    let wanted = ["server", "generator"]
        .map(|side| facts.number(&format!("host.{side}_thread_wanted")))
        .into_iter()
        .flatten()
        .reduce(f64::max);
    let mut all = Vec::new();
    if let Some(share) = thread("server") {
        let told = format!("its busiest thread was busy for {} of the time", percent(share));
        all.push(Suspect::strong(Limiter::ServerCpu, told));
    }
    let limiter = if server.is_some() { Limiter::HostCpu } else { Limiter::GeneratorCpu };
    let told = shares(facts, server, generator, busy);
    match (wanted, longest_wait(facts)) {
        (Some(wanted), Some(wait)) if wanted >= THREAD_BUSY_MAX && wait >= WAITED => {
            let told = format!("a thread waited {} of the time for a core; {told}", percent(wait));
            all.push(Suspect::strong(limiter, told));
        }
        (Some(_), Some(wait)) if busy >= CORES_BUSY_MAX && wait >= WAITED_LONG => {
            let told = format!("a thread waited {} of the time for a core; {told}", percent(wait));
            all.push(Suspect::weak(limiter, told));
        }
        (None, _) if busy >= CORES_BUSY_MAX => all.push(Suspect::strong(limiter, told)),
        _ => {}
    }
    if let Some(share) = thread("generator") {
        let told = format!("its busiest thread was busy for {} of the time", percent(share));
        all.push(Suspect::strong(Limiter::GeneratorCpu, told));
    }
    all
}

/// For which share of the time the thread that wanted a core most had none.
pub fn longest_wait(facts: Facts<'_>) -> Option<f64> {
    let wait = |side: &str| {
        let number = |what: &str| facts.number(&format!("host.{side}_{what}"));
        Some(number("thread_wanted")? - number("busiest_thread")?)
    };
    ["server", "generator"].into_iter().filter_map(wait).reduce(f64::max)
}

fn while_connecting(facts: Facts<'_>) -> Option<Suspect> {
    let server = facts.cores_while_connecting("server");
    let generator = facts.cores_while_connecting("generator")?;
    let busy = (server.unwrap_or(0.0) + generator) / facts.cores();
    let told = || format!("while connecting {}", shares(facts, server, generator, busy.min(1.0)));
    let alone = facts.number("host.server_busiest_thread").zip(facts.number("server.cpu_cores"));
    let has_one_thread = alone.is_some_and(|(thread, all)| thread >= 0.9 * all);
    match server {
        Some(cores) if has_one_thread && cores >= THREAD_BUSY_MAX => {
            let told = format!("its only busy thread used {cores:.2} cores while connecting");
            Some(Suspect::strong(Limiter::ServerCpu, told))
        }
        Some(_) if busy >= CORES_BUSY_MAX => Some(Suspect::strong(Limiter::HostCpu, told())),
        None if busy >= CORES_BUSY_MAX => Some(Suspect::strong(Limiter::GeneratorCpu, told())),
        _ => None,
    }
}

/// It sent too late. Was that for want of CPU time, and who had it?
fn of_a_late_generator(facts: Facts<'_>) -> Suspect {
    let server = facts.number("server.cpu_cores");
    let generator = facts.number("generator.cpu_cores").unwrap_or(0.0);
    let busy = busy(facts, server, generator);
    let thread = facts.number("host.generator_thread_wanted");
    let thread = thread.or(facts.number("host.generator_busiest_thread")).unwrap_or(0.0);
    let elsewhere = busy * facts.cores() - generator;
    let late = facts.text("generator.saturated_by").unwrap_or("it was late");
    let told = |why: String| format!("{late}; {why}");
    let shares = shares(facts, server, generator, busy);
    if busy >= CORES_BUSY_MAX && elsewhere >= A_PART * facts.cores() {
        Suspect::strong(Limiter::HostCpu, told(shares))
    } else if busy >= CORES_BUSY_MAX || thread >= HALF_BUSY {
        let why = format!("its busiest thread wanted a core for {}; {shares}", percent(thread));
        Suspect::strong(Limiter::GeneratorCpu, told(why))
    } else {
        Suspect::strong(Limiter::GeneratorHeldUp, told(shares))
    }
}
