//! The rules by which limits are accused, all but those about CPU time.

use super::cpu;
use super::facts::{Facts, Stage};
use super::limiter::{Limiter, Suspect};
use crate::limits::{MEMORY_LEFT_MIN, PACKETS_DROPPED_SHARE, TCP_MEM_SHARE_MAX};
use crate::slo;
use crate::units::grouped;

/// The kernel's OOM killer struck while the run went on.
pub fn killed_for_memory(facts: Facts<'_>, _: Stage) -> Vec<Suspect> {
    let kills = facts.count("host.oom_kills");
    let told = format!("the kernel killed {kills} processes for want of memory");
    (kills > 0).then(|| Suspect::certain(Limiter::Memory, told)).into_iter().collect()
}

/// The server is gone.
pub fn server_ended(facts: Facts<'_>, _: Stage) -> Vec<Suspect> {
    let died = facts.text("server.died").into_iter();
    died.map(|how| Suspect::certain(Limiter::ServerEnded, format!("during the run: {how}")))
        .collect()
}

/// Clients to whom this host's kernel gave no socket, or no port.
pub fn refused_by_the_kernel(facts: Facts<'_>, _: Stage) -> Vec<Suspect> {
    let limiter = |reason: &str| match reason {
        "no free source address" => Some(Limiter::Ports),
        "out of descriptors" => Some(Limiter::Descriptors),
        "out of kernel memory" => Some(Limiter::Memory),
        _ => None,
    };
    let failed = facts.reasons("connections.failed").chain(facts.reasons("reconnect.failed"));
    failed
        .filter_map(|(reason, count)| {
            let told = format!("{} clients failed: {reason}", grouped(count));
            Some(Suspect::certain(limiter(reason)?, told))
        })
        .collect()
}

/// Clients that the server turned away, by its own account, or as it looks from here.
pub fn rejected_by_the_server(facts: Facts<'_>, _: Stage) -> Vec<Suspect> {
    let by_its_account = facts.reasons("server.counters.rejected").filter_map(|(reason, count)| {
        let limiter = match reason {
            "ring_full" => Limiter::Descriptors,
            "memory_limit" => Limiter::Memory,
            // Whoever comes while it stops is nobody's limit.
            "stopping" => return None,
            _ => Limiter::ServerLimit,
        };
        let told = format!("it rejected {} connections: {reason}", grouped(count));
        Some(Suspect::certain(limiter, told))
    });
    let from_here = facts.reasons("connections.failed").filter_map(|(reason, count)| {
        let turned_away = reason.starts_with("closed by the server") || reason == "reset";
        let told = format!("{} clients were turned away: {reason}", grouped(count));
        turned_away.then(|| Suspect::strong(Limiter::ServerLimit, told))
    });
    by_its_account.chain(descriptors_of_the_server(facts)).chain(from_here).collect()
}

fn descriptors_of_the_server(facts: Facts<'_>) -> Option<Suspect> {
    /// A program keeps a few to itself, and rarely gets to the very last.
    const SPARE: u64 = 4;
    let open = facts.count("host.server_descriptors");
    let most = facts.count("host.server_descriptors_max");
    let told = format!("the server has {} of {} open", grouped(open), grouped(most));
    (most > 0 && open + SPARE >= most).then(|| Suspect::certain(Limiter::Descriptors, told))
}

/// An SLO that bounds a resource names it; one that bounds a plain count names nothing else.
pub fn slo_on_a_resource(facts: Facts<'_>, _: Stage) -> Vec<Suspect> {
    let limiter = |path: &str| {
        let named = [
            ("server.rss", Limiter::Memory),
            ("generator.rss", Limiter::Memory),
            ("kernel.bytes", Limiter::Memory),
            ("kernel.available", Limiter::Memory),
            ("host.memory", Limiter::Memory),
            ("server.cpu", Limiter::ServerCpu),
            ("host.server_busiest", Limiter::ServerCpu),
            ("generator.cpu", Limiter::GeneratorCpu),
            ("host.cpu", Limiter::HostCpu),
            ("kernel.listen", Limiter::AcceptQueue),
            ("kernel.softnet", Limiter::PacketBacklog),
            ("kernel.tcp_mem", Limiter::TcpMem),
            ("kernel.memory_pressures", Limiter::TcpMem),
            ("connections.", Limiter::Slo),
            ("requested.", Limiter::Slo),
        ];
        named.into_iter().find(|(front, _)| path.starts_with(front)).map(|(_, limiter)| limiter)
    };
    let broken = facts.broken_slos();
    broken
        .filter_map(|(slo, value)| Some(Suspect::certain(limiter(slo)?, told(facts, slo, value))))
        .collect()
}

/// The SLOs that broke, with their values.
pub fn broken(facts: Facts<'_>) -> Vec<String> {
    facts.broken_slos().map(|(slo, value)| told(facts, slo, value)).collect()
}

fn told(facts: Facts<'_>, slo: &str, value: Option<f64>) -> String {
    let Some(value) = value else { return format!("{slo} has no value") };
    let seconds = |seconds: f64| match seconds {
        ..1e-3 => format!("{:.0} us", seconds * 1e6),
        ..1.0 => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{seconds:.1} s"),
    };
    let value = match slo::unit_of(slo, facts.0) {
        Some("us") => seconds(value / 1e6),
        Some("ms") => seconds(value / 1e3),
        Some("s") => seconds(value),
        Some("bytes") if value >= 1_048_576.0 => format!("{:.1} MiB", value / 1_048_576.0),
        _ if value.fract() == 0.0 && value >= 0.0 => grouped(value as u64),
        _ => format!("{value:.2}"),
    };
    format!("{slo} is {value}")
}

/// Memory of the host, or of TCP, that was nearly used up.
pub fn little_left(facts: Facts<'_>, _: Stage) -> Vec<Suspect> {
    let mut all = Vec::new();
    let left = facts.number("host.memory_available_bytes");
    let memory = facts.number("environment.memory_bytes").filter(|&bytes| bytes > 0.0);
    if let (Some(left), Some(memory)) = (left, memory)
        && left < memory * MEMORY_LEFT_MIN
    {
        let told = format!(
            "{} MiB of {} MiB were available",
            grouped(left as u64 >> 20),
            grouped(memory as u64 >> 20)
        );
        all.push(Suspect::strong(Limiter::Memory, told));
    }
    let pressures = facts.count("kernel.memory_pressures");
    if pressures > 0 {
        let told = format!("TCP came under memory pressure {} times", grouped(pressures));
        all.push(Suspect::strong(Limiter::TcpMem, told));
    }
    let pages = facts.number("kernel.tcp_memory_pages").unwrap_or(0.0);
    let bounds = facts.text("environment.tcp_mem_pages").unwrap_or("");
    let pressure = bounds.split_whitespace().nth(1).and_then(|pages| pages.parse::<f64>().ok());
    if let Some(pressure) = pressure.filter(|&most| pages > most * TCP_MEM_SHARE_MAX) {
        let told = format!("{pages} pages were taken, there is pressure from {pressure} on");
        all.push(Suspect::strong(Limiter::TcpMem, told));
    }
    all
}

/// Packets that did not fit into the queue of a core.
pub fn dropped_by_the_kernel(facts: Facts<'_>, _: Stage) -> Vec<Suspect> {
    let drops = facts.count("kernel.softnet_drops");
    let messages = facts.count("heartbeats.sent") + facts.count("connections.requested");
    let told = format!("{} packets were dropped (netdev_max_backlog)", grouped(drops));
    let many = drops as f64 >= messages as f64 * PACKETS_DROPPED_SHARE;
    match drops {
        0 => Vec::new(),
        _ if many => vec![Suspect::strong(Limiter::PacketBacklog, told)],
        _ => vec![Suspect::weak(Limiter::PacketBacklog, told)],
    }
}

/// Connects that found an accept queue full: they are tried again a second later.
pub fn accept_queue(facts: Facts<'_>, stage: Stage) -> Vec<Suspect> {
    const TRIED_AGAIN_US: u64 = 900_000;
    let failed = facts.reasons("connections.failed");
    let timed_out: u64 =
        failed.filter(|(reason, _)| reason.contains("timed out")).map(|(_, count)| count).sum();
    let overflows = facts.count("kernel.listen_overflows");
    let slow = facts.count("connect.latency_us.max") >= TRIED_AGAIN_US;
    let seen = format!("{} connects found it full", grouped(overflows));
    let guess = format!(
        "{} connects timed out; TcpExtListenOverflows of the server's host can tell whether it is \
         this",
        grouped(timed_out)
    );
    let connects = stage == Stage::Connecting;
    match stage {
        Stage::Connecting if overflows > 0 && (timed_out > 0 || slow) => {
            vec![Suspect::strong(Limiter::AcceptQueue, seen)]
        }
        // Those who came back while all were held.
        _ if overflows > 0 && (connects || facts.count("connections.reopened") > 0) => {
            vec![Suspect::weak(Limiter::AcceptQueue, seen)]
        }
        Stage::Connecting if timed_out > 0 && !facts.has_server() => {
            vec![Suspect::weak(Limiter::AcceptQueue, guess)]
        }
        _ => Vec::new(),
    }
}

/// What is left if nothing was seen at its end: the SLO, or whatever the report says.
pub fn without_a_better_reason(facts: Facts<'_>, _: Stage) -> Vec<Suspect> {
    let broken = broken(facts);
    if !broken.is_empty() && facts.verdict() == "failed" {
        let told = format!("{}; nothing was at its end: {}", broken.join(", "), looked_at(facts));
        return vec![Suspect::weak(Limiter::Slo, told)];
    }
    let failed = facts.reasons("connections.failed");
    let failed = failed.map(|(reason, count)| format!("{} failed: {reason}", grouped(count)));
    let reasons = facts.texts("reasons").map(str::to_owned);
    let all: Vec<String> = reasons.chain(failed).collect();
    let told =
        if all.is_empty() { "the report names no reason".to_owned() } else { all.join("; ") };
    vec![Suspect::weak(Limiter::Other, told)]
}

fn looked_at(facts: Facts<'_>) -> String {
    let share = |path: &str| {
        facts.number(path).map_or("?".to_owned(), |share| format!("{:.0} %", share * 100.0))
    };
    let wait = cpu::longest_wait(facts).map_or(String::new(), |wait| {
        format!(", the longest wait for a core {:.0} % of the time", wait * 100.0)
    });
    format!(
        "cores {} busy, the server's busiest thread {}, ours {}{wait}",
        share("host.cpu_busy"),
        share("host.server_busiest_thread"),
        share("host.generator_busiest_thread")
    )
}
