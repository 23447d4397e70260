//! What is known about a load before it is tried: a host must not be driven out of memory only to
//! learn that it has no more.
//!
//! Memory is foretold by the doctor's budget (`heartwheel doctor`), or by what each connection of
//! the largest load so far took, if that is more; descriptors and ports by the doctor's checks.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use heartwheel::host::{Diagnosis, Effect, Ends, Finding, Host, Needs};

use super::facts::Facts;
use super::limiter::{Limiter, Suspect};
use crate::addresses::Sources;
use crate::cli::Cli;
use crate::limits::{INTERVAL_PRESUMED, MEASURED_FROM, MEMORY_MARGIN};
use crate::server::connections_max;
use crate::units::grouped;

/// Descriptors of the generator beside its rings and an eventfd for each worker.
const DESCRIPTORS_SPARE: u64 = 32;

/// What has been learnt of the memory that a connection takes, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    each: Option<f64>,
}

impl Measured {
    /// A run is over. What few connections took is mostly noise.
    pub fn learn(&mut self, facts: Facts<'_>) {
        if facts.count("connections.opened") < MEASURED_FROM {
            return;
        }
        let number = |path: &str| facts.number(path).map(|bytes| bytes.max(0.0));
        let generator = number("generator.rss_bytes_per_connection").unwrap_or(0.0);
        let both = number("server.rss_bytes_per_connection")
            .zip(number("kernel.bytes_per_connection"))
            .map(|(server, kernel)| generator + server + kernel);
        // Of a server that is not known only what the host lost can be told.
        let lost = number("kernel.available_bytes_per_connection").map(|bytes| bytes + generator);
        self.each = both.or(lost);
    }
}

/// The needs of a load on this host.
pub fn needs(cli: &Cli, load: u32) -> Needs {
    let here = cli.target.as_ref().is_none_or(|target| target.address.ip().is_loopback());
    Needs {
        connections: u64::from(load),
        interval: cli.interval.unwrap_or(INTERVAL_PRESUMED),
        ends: if here { Ends::Both } else { Ends::Clients },
        listen: Vec::new(),
        kernel_picks_ports: !here && cli.source_ips.is_none(),
    }
}

/// Why a load would surely not hold, if that is known.
///
/// # Errors
/// If the source addresses cannot be told.
pub fn forecast(cli: &Cli, load: u32, measured: Measured) -> Result<Option<Suspect>> {
    let diagnosis = Diagnosis::of_this_host(&needs(cli, load));
    let available = Host::here().memory_available_bytes();
    let memory = memory(diagnosis.budget.bytes, measured, load, available);
    // The doctor knows how heartwheel lays out its rings, and nothing of other servers.
    let is_ring_server =
        cli.target.is_none() && !cli.server_args.as_deref().unwrap_or("").contains("--engine");
    let of_server = if is_ring_server { descriptors_of_server(cli, load) } else { None };
    let limit = Host::here().descriptor_limit().unwrap_or(u64::MAX);
    let descriptors = of_server.or_else(|| descriptors(load, cli.workers() as u64, limit));
    Ok(memory.or(descriptors).or(ports(cli, load, &diagnosis)?))
}

/// Ports from which `load` clients connect, if that bounds them.
pub fn ports_there_are(cli: &Cli, load: u32) -> Result<Option<u64>> {
    let Some(target) = &cli.target else { return Ok(None) };
    let capacity = Sources::new(&cli.source_addresses()?, target.address, load).capacity();
    // Over loopback as many addresses are taken as are needed.
    if target.address.ip().is_loopback() && target.address.is_ipv4() && cli.source_ips.is_none() {
        return Ok(None);
    }
    let name = "net.ipv4.ip_local_port_range";
    let bound = |column| Host::here().sysctl_number(name, column);
    let range = bound(0).zip(bound(1)).map(|(low, high)| (high - low + 1).max(0) as u64);
    Ok(capacity.or(range))
}

/// Ports that linger after their connection was closed.
pub fn ports_that_linger() -> u64 {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("TCP:")).unwrap_or("");
    let mut words = line.split_whitespace().skip_while(|&word| word != "tw").skip(1);
    words.next().and_then(|count| count.parse().ok()).unwrap_or(0)
}

fn told(check: &Finding) -> String {
    debug_assert_eq!(check.effect, Effect::Stops);
    format!("{} is {}, needed: {}", check.name, check.present, check.needed)
}

fn memory(
    budget_bytes: u64,
    measured: Measured,
    load: u32,
    available: Option<u64>,
) -> Option<Suspect> {
    let by_measure = measured.each.map_or(0.0, |each| each * f64::from(load));
    let needed = by_measure.max(budget_bytes as f64) * (1.0 + MEMORY_MARGIN);
    let available = available?;
    let from = if by_measure > budget_bytes as f64 { "as measured" } else { "by the budget" };
    (needed > available as f64).then(|| {
        let told = format!(
            "{} MiB are needed ({} bytes a connection {from}, and a tenth more), {} MiB are \
             available",
            grouped(needed as u64 >> 20),
            grouped((by_measure.max(budget_bytes as f64) / f64::from(load)) as u64),
            grouped(available >> 20)
        );
        Suspect::certain(Limiter::Memory, told)
    })
}

/// Those of a server that is started here: for somewhat more than the load, and with a listener.
fn descriptors_of_server(cli: &Cli, load: u32) -> Option<Suspect> {
    let listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    let needs = Needs { connections: connections_max(load), listen, ..needs(cli, load) };
    let diagnosis = Diagnosis::of_this_host(&needs);
    let check = diagnosis.short().find(|check| check.name == "RLIMIT_NOFILE")?;
    Some(Suspect::certain(Limiter::Descriptors, told(check)))
}

/// Those of the generator: a ring holds as many clients as the limit says, and is a descriptor.
fn descriptors(load: u32, workers: u64, limit: u64) -> Option<Suspect> {
    let rings = workers * u64::from(load).div_ceil(workers).div_ceil(limit.max(1));
    let needed = rings + workers + DESCRIPTORS_SPARE;
    (needed > limit).then(|| {
        let told = format!("RLIMIT_NOFILE is {limit}, the load generator's rings need {needed}");
        Suspect::certain(Limiter::Descriptors, told)
    })
}

fn ports(cli: &Cli, load: u32, diagnosis: &Diagnosis) -> Result<Option<Suspect>> {
    let range = diagnosis.short().find(|check| check.name == "net.ipv4.ip_local_port_range");
    if let Some(check) = range {
        return Ok(Some(Suspect::certain(Limiter::Ports, told(check))));
    }
    let there = ports_there_are(cli, load)?.filter(|&ports| ports < u64::from(load));
    Ok(there.map(|ports| {
        let told = format!("the source addresses have {} ports", grouped(ports));
        Suspect::certain(Limiter::Ports, told)
    }))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn memory_is_foretold_by_the_larger_figure() {
        let measured = |each| Measured { each };
        let load = 100_000;
        let enough = memory(900 * MIB, measured(None), load, Some(1_000 * MIB));
        assert_eq!(enough, None);
        let short = memory(950 * MIB, measured(None), load, Some(1_000 * MIB)).unwrap();
        assert_eq!(short.limiter, Limiter::Memory);
        assert!(short.evidence.contains("by the budget"), "{short:?}");
        let short = memory(100 * MIB, measured(Some(20_000.0)), load, Some(1_000 * MIB)).unwrap();
        assert!(short.evidence.contains("20,000 bytes a connection as measured"), "{short:?}");
        assert_eq!(memory(950 * MIB, measured(None), load, None), None, "what cannot be read");
    }

    #[test]
    fn few_connections_teach_nothing_and_many_do() {
        let run = |opened: u64, server: Option<f64>| {
            let mut measured = Measured::default();
            measured.learn(Facts(&json!({
                "connections": {"opened": opened},
                "server": {"rss_bytes_per_connection": server},
                "generator": {"rss_bytes_per_connection": 100.0},
                "kernel": {"bytes_per_connection": 9_000.0,
                    "available_bytes_per_connection": 30_000.0},
            })));
            measured.each
        };
        assert_eq!(run(9_999, Some(80.0)), None);
        assert_eq!(run(10_000, Some(80.0)), Some(9_180.0));
        assert_eq!(run(10_000, None), Some(30_100.0));
    }

    #[test]
    fn a_low_limit_of_descriptors_bounds_the_rings() {
        assert_eq!(descriptors(1_000_000, 2, 20_000), None);
        assert_eq!(descriptors(2_000, 2, 128), None);
        let short = descriptors(20_000, 2, 128).unwrap();
        assert!(short.evidence.contains("need 192"), "{short:?}");
    }

    #[test]
    fn ports_are_those_of_the_source_addresses() {
        let cli = |flags: &str| {
            let words = std::iter::once("loadgen").chain(flags.split_whitespace());
            Cli::try_parse_from(words).unwrap()
        };
        let ports = |flags: &str| ports_there_are(&cli(flags), 100).unwrap();
        assert_eq!(ports(""), None);
        assert_eq!(ports("--target tcp://127.0.0.1:80"), None);
        assert_eq!(
            ports("--target tcp://127.0.0.1:80 --source-ips 127.0.0.2-127.0.0.3"),
            Some(2 * 64_511)
        );
        assert!(ports("--target tcp://192.0.2.1:80").is_some_and(|ports| ports > 1_000));
    }
}
