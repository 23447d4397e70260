//! The outcome: what was found, for people, for scripts, and for one line of a log.

use serde::Serialize;

use super::budget::budget;
use super::checks::{CHECKS, Case, Check, Effect, Judged, SYSCTLS, Status, Sysctl};
use super::{Budget, Host, Needs};
use crate::engine::Layout;
use crate::ring::{probe_client, probe_server};

/// A program that they stop says so itself.
const TOLD_BY_ERRORS: [&str; 4] =
    ["RLIMIT_NOFILE", "kernel.io_uring_disabled", "seccomp", "io_uring"];

/// What will bite a program that starts here with these needs, in one line.
pub fn start_warning(needs: &Needs) -> Option<String> {
    Diagnosis::new(&Host::here(), needs, &Ok(())).warning()
}

/// What one limit comes to.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The limit: a sysctl by its dotted name, or RLIMIT_NOFILE, seccomp, io_uring, cores, memory.
    pub name: &'static str,
    /// `sysctl`, or `other`: what cannot be written to `/proc/sys`.
    pub kind: &'static str,
    /// Whether it suffices.
    pub status: Status,
    /// What happens if it does not.
    pub effect: Effect,
    /// What it is now.
    pub present: String,
    /// What is needed.
    pub needed: String,
    /// What it is about.
    pub why: String,
    /// What to set it to, as the kernel takes it; of sysctls and the size of the TCP hash.
    pub wanted: Option<String>,
    /// The exact command.
    pub command: Option<String>,
}

/// What this host can do for so many connections.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// Of this format.
    pub version: u32,
    /// Nothing falls short.
    pub enough: bool,
    /// The same in words.
    pub verdict: String,
    /// What was asked for.
    pub connections: u64,
    /// In milliseconds.
    pub heartbeat_interval_ms: u64,
    /// Which ends are here.
    pub ends: super::Ends,
    /// Rings of the server, all threads together; `null` if no number of them suffices.
    pub rings: Option<usize>,
    /// Every limit.
    pub checks: Vec<Finding>,
    /// The memory that it will take.
    pub budget: Budget,
}

impl Diagnosis {
    /// Judges the host that this process runs on. io_uring is really tried.
    pub fn of_this_host(needs: &Needs) -> Diagnosis {
        let probe = if needs.has_clients() { probe_client() } else { probe_server() };
        Diagnosis::new(&Host::here(), needs, &probe.map_err(|error| error.to_string()))
    }

    pub(super) fn new(host: &Host, needs: &Needs, probe: &Result<(), String>) -> Diagnosis {
        let shards = host.cores().map_or(1, |cores| cores.ceil() as usize).max(1);
        let connections = usize::try_from(needs.connections).unwrap_or(usize::MAX);
        let limit = host.descriptor_limit().unwrap_or(1_024);
        let layout = Layout::new(connections, shards, limit, None, None).ok();
        let rings = layout.map(|layout| layout.rings_per_shard * shards);
        let budget = budget(needs, rings.unwrap_or(shards) as u64);
        let case = Case {
            host,
            needs,
            budget: &budget,
            probe,
            shards,
            layout,
            descriptor_limit_min: Layout::descriptor_limit_min(
                connections,
                shards,
                needs.listen.len(),
            ),
        };
        let of_sysctl =
            |sysctl: &Sysctl| Finding::new(sysctl.name, sysctl.effect, true, sysctl.judge(&case));
        let of_check = |check: &Check| {
            let judged = (check.judge)(&case)?;
            Some(Finding::new(check.name, check.effect, check.is_sysctl, judged))
        };
        let mut checks: Vec<Finding> = CHECKS.iter().take(1).filter_map(of_check).collect();
        checks.extend(SYSCTLS.iter().map(of_sysctl));
        checks.extend(CHECKS.iter().skip(1).filter_map(of_check));
        Diagnosis {
            version: 1,
            enough: checks.iter().all(|check| check.status != Status::NotEnough),
            verdict: verdict(&checks),
            connections: needs.connections,
            heartbeat_interval_ms: needs.interval.as_millis() as u64,
            ends: needs.ends,
            rings,
            checks,
            budget,
        }
    }

    /// What falls short.
    pub fn short(&self) -> impl Iterator<Item = &Finding> {
        self.checks.iter().filter(|check| check.status == Status::NotEnough)
    }

    /// One line for the log of a program that starts, if anything will bite. What keeps it from
    /// starting at all is told by its own errors, and not here.
    pub fn warning(&self) -> Option<String> {
        let told = |check: &Finding| {
            format!("{} is {}, needed: {}", check.name, check.present, check.needed)
        };
        let bites = self.short().filter(|check| !TOLD_BY_ERRORS.contains(&check.name));
        let short: Vec<String> = bites.map(told).collect();
        let ends = match self.ends {
            super::Ends::Server => "",
            super::Ends::Clients => " --clients",
            super::Ends::Both => " --both-ends",
        };
        (!short.is_empty()).then(|| {
            format!(
                "this host falls short for {} connections: {}; `heartwheel doctor -c {}{ends}` \
                 tells why, and the commands",
                self.connections,
                short.join("; "),
                self.connections
            )
        })
    }
}

impl Finding {
    fn new(name: &'static str, effect: Effect, is_sysctl: bool, judged: Judged) -> Finding {
        let Judged { status, present, needed, why, wanted, command } = judged;
        let set = || {
            let wanted = wanted.as_deref()?;
            let quote = if wanted.contains(' ') { "'" } else { "" };
            Some(format!("sysctl -w {name}={quote}{wanted}{quote}"))
        };
        let command = command.or_else(|| if is_sysctl { set() } else { None });
        let kind = if is_sysctl { "sysctl" } else { "other" };
        Finding { name, kind, status, effect, present, needed, why, wanted, command }
    }
}

fn verdict(checks: &[Finding]) -> String {
    let short = |effect: Effect| {
        let of_it = |check: &&Finding| check.status == Status::NotEnough && check.effect == effect;
        checks.iter().filter(of_it).map(|check| check.name).collect::<Vec<_>>().join(", ")
    };
    match (short(Effect::Stops), short(Effect::Slows)) {
        (stops, slows) if stops.is_empty() && slows.is_empty() => "ENOUGH".to_owned(),
        (stops, slows) if stops.is_empty() => format!("ENOUGH, BUT SLOWER: {slows}"),
        (stops, slows) if slows.is_empty() => format!("NOT ENOUGH: {stops}"),
        (stops, slows) => format!("NOT ENOUGH: {stops}; slower: {slows}"),
    }
}
