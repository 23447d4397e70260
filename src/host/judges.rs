//! The checks that need more than one number; their thresholds stand in [`checks`](super::checks).

use std::net::SocketAddr;

use super::Ends;
use super::checks::{
    CPU_SHARE_MAX, Case, GENERATOR_CPU_US, HASH_BUCKETS_MAX, Judged, MEMORY_MARGIN_DIVISOR,
    SERVER_CPU_US, SOCKETS_PER_BUCKET_MAX, Status,
};
use crate::ring::KERNEL_NEEDED;
use crate::units::grouped;

pub(super) fn unreadable() -> String {
    "cannot be read here".to_owned()
}

pub(super) fn amount(number: u64, unit: &str) -> String {
    if number >= i64::MAX as u64 {
        "no limit".to_owned()
    } else {
        format!("{} {unit}", grouped(number))
    }
}

pub(super) fn enough_if(enough: bool) -> Status {
    if enough { Status::Enough } else { Status::NotEnough }
}

pub(super) fn descriptors(case: &Case<'_>) -> Option<Judged> {
    let limit = case.host.descriptor_limit();
    let needed = case.descriptor_limit_min;
    let rings = case.layout.map(|layout| layout.rings_per_shard * case.shards);
    let tables = match rings {
        Some(rings) => format!(
            "{rings} rings on {} threads hold {} connections",
            case.shards,
            grouped(case.needs.connections)
        ),
        None => "no number of rings that there may be holds so many".to_owned(),
    };
    Some(Judged {
        status: limit.map_or(Status::Unknown, |limit| enough_if(limit >= needed)),
        present: limit.map_or_else(unreadable, |limit| amount(limit, "descriptors")),
        needed: amount(needed, "descriptors"),
        why: format!("bounds the descriptor table of each ring; with it {tables}"),
        wanted: None,
        command: Some(format!(
            "ulimit -Hn {needed}   # as root, or LimitNOFILE={needed} in the service's unit"
        )),
    })
}

pub(super) fn client_ports(case: &Case<'_>) -> Option<Judged> {
    let name = "net.ipv4.ip_local_port_range";
    if !case.needs.has_clients() {
        return None;
    }
    let range = case.host.sysctl_number(name, 0).zip(case.host.sysctl_number(name, 1));
    let ports = range.map(|(low, high)| (high - low + 1).max(0) as u64);
    let (needed, why) = if case.needs.kernel_picks_ports {
        let most = "one source address has no more towards one port of the server; where they do \
                    not suffice, `loadgen --source-ips` takes several addresses";
        (case.needs.connections, most)
    } else {
        (1, "the load generator picks addresses and ports itself, so the range bounds nobody")
    };
    Some(Judged {
        status: ports.map_or(Status::Unknown, |ports| enough_if(ports >= needed)),
        present: ports.map_or_else(unreadable, |ports| amount(ports, "ports")),
        needed: amount(needed, "ports"),
        why: why.to_owned(),
        wanted: Some("1024 65535".to_owned()),
        command: None,
    })
}

pub(super) fn reserved_ports(case: &Case<'_>) -> Option<Judged> {
    let name = "net.ipv4.ip_local_reserved_ports";
    if !case.needs.has_server() {
        return None;
    }
    let range_name = "net.ipv4.ip_local_port_range";
    let range = case.host.sysctl_number(range_name, 0).zip(case.host.sysctl_number(range_name, 1));
    let reserved = case.host.sysctl(name);
    let mut ports: Vec<u16> = case.needs.listen.iter().map(SocketAddr::port).collect();
    ports.sort_unstable();
    ports.dedup();
    let told = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let Some(((low, high), reserved)) = range.zip(reserved) else {
        return Some(Judged {
            status: Status::Unknown,
            present: unreadable(),
            needed: told(&ports),
            why: "a client's own port could be one that the server listens on".to_owned(),
            wanted: None,
            command: None,
        });
    };
    ports.retain(|&port| port > 0 && (low..=high).contains(&i64::from(port)));
    let open: Vec<u16> =
        ports.iter().copied().filter(|&port| !is_reserved(&reserved, port)).collect();
    let mut wanted: Vec<&str> = reserved.split(',').filter(|part| !part.is_empty()).collect();
    let open_told = told(&open);
    wanted.extend(open_told.split(',').filter(|part| !part.is_empty()));
    Some(Judged {
        status: enough_if(open.is_empty()),
        present: if reserved.is_empty() { "none".to_owned() } else { reserved.clone() },
        needed: if ports.is_empty() { "none".to_owned() } else { told(&ports) },
        why: format!(
            "outgoing connections take ports {low} to {high}: a listen port among them may be \
             taken when the server starts (EADDRINUSE)"
        ),
        wanted: Some(wanted.join(",")),
        command: None,
    })
}

/// Whether `port` is in a list like `80,7400-7499`.
fn is_reserved(list: &str, port: u16) -> bool {
    list.split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let bounds = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
        bounds.is_some_and(|(first, last)| (first..=last).contains(&port))
    })
}

pub(super) fn conntrack(case: &Case<'_>) -> Option<Judged> {
    let max = case.host.sysctl_number("net.netfilter.nf_conntrack_max", 0)?;
    // The module may be loaded and track nothing.
    let tracked = case.host.sysctl_number("net.netfilter.nf_conntrack_count", 0).unwrap_or(0);
    let needed = if tracked > 0 { case.needs.connections + case.needs.connections / 4 } else { 0 };
    Some(Judged {
        status: enough_if(max as u64 >= needed),
        present: amount(max as u64, "entries"),
        needed: if tracked > 0 { amount(needed, "entries") } else { "tracks nothing".to_owned() },
        why: "a firewall that tracks connections drops those that find its table full; \
              better is a `notrack` rule for the server's ports"
            .to_owned(),
        wanted: Some(needed.to_string()),
        command: None,
    })
}

pub(super) fn tcp_hash(case: &Case<'_>) -> Option<Judged> {
    // Negative: a namespace that shares the hash of the host.
    let buckets = case.host.sysctl_number("net.ipv4.tcp_ehash_entries", 0)?.unsigned_abs();
    let needed = case.needs.sockets() / SOCKETS_PER_BUCKET_MAX;
    let wanted = (2 * case.needs.sockets()).next_power_of_two().min(HASH_BUCKETS_MAX);
    Some(Judged {
        status: enough_if(buckets >= needed),
        present: amount(buckets, "buckets"),
        needed: amount(needed, "buckets"),
        why: "every segment walks its bucket's chain: with 8 sockets in each a heartbeat cost a \
              fifth more CPU"
            .to_owned(),
        wanted: Some(wanted.to_string()),
        command: Some(format!(
            "scripts/capacity-run --netns …   # its namespace gets {wanted}; for the host: boot \
             with thash_entries={wanted}"
        )),
    })
}

pub(super) fn io_uring_sysctl(case: &Case<'_>) -> Option<Judged> {
    let level = case.host.sysctl_number("kernel.io_uring_disabled", 0)?;
    let group = case.host.sysctl_number("kernel.io_uring_group", 0).unwrap_or(-1);
    let status = match level {
        0 => Status::Enough,
        1 if case.host.status_field("Gid:").is_none() => Status::Unknown,
        1 => enough_if(case.host.groups().contains(&group) || case.host.is_admin()),
        _ => Status::NotEnough,
    };
    let with_group = if level == 1 { format!(", group {group}") } else { String::new() };
    Some(Judged {
        status,
        present: format!("{level}{with_group}"),
        needed: "0, or 1 and a process of kernel.io_uring_group or CAP_SYS_ADMIN".to_owned(),
        why: "forbids io_uring; `--engine epoll` does without, at more CPU and memory".to_owned(),
        wanted: Some("0".to_owned()),
        command: None,
    })
}

pub(super) fn seccomp(case: &Case<'_>) -> Option<Judged> {
    let mode = case.host.status_field("Seccomp:")?;
    let filtered = mode != "0";
    Some(Judged {
        status: enough_if(!filtered || case.probe.is_ok()),
        present: if filtered { format!("mode {mode}") } else { "no filter".to_owned() },
        needed: "no filter, or one that lets io_uring_setup, _enter and _register pass".to_owned(),
        why: "containers forbid io_uring by default; `--engine epoll` does without".to_owned(),
        wanted: None,
        command: Some(
            "docker run --security-opt seccomp=PROFILE …   # the default profile and the three \
             io_uring calls"
                .to_owned(),
        ),
    })
}

pub(super) fn io_uring(case: &Case<'_>) -> Option<Judged> {
    let version = case.host.sysctl("kernel.osrelease").unwrap_or_else(unreadable);
    Some(Judged {
        status: enough_if(case.probe.is_ok()),
        present: match case.probe {
            Ok(()) => format!("all operations, Linux {version}"),
            Err(error) => format!("{error} (Linux {version})"),
        },
        needed: format!("Linux {KERNEL_NEEDED} or later for the server, 6.11 for the clients"),
        why: "a ring was set up here, and asked for what the programs use".to_owned(),
        wanted: None,
        command: Some("heartwheel serve --engine epoll   # or a newer kernel".to_owned()),
    })
}

pub(super) fn cores(case: &Case<'_>) -> Option<Judged> {
    let present = case.host.cores();
    let of_server = if case.needs.has_server() { SERVER_CPU_US } else { 0.0 };
    let of_clients = if case.needs.has_clients() { GENERATOR_CPU_US } else { 0.0 };
    let us = of_server + of_clients;
    let rate = case.needs.heartbeats_per_s();
    let needed = rate * us / 1e6 / CPU_SHARE_MAX;
    let interval_s =
        case.needs.connections as f64 * us / 1e6 / CPU_SHARE_MAX / present.unwrap_or(1.0).max(0.01);
    Some(Judged {
        status: present.map_or(Status::Unknown, |cores| enough_if(cores >= needed)),
        present: present.map_or_else(unreadable, |cores| format!("{cores} cores")),
        needed: format!("{needed:.2} cores"),
        why: format!(
            "{} heartbeats a second of {us:.1} us of CPU each, the cores busy for {:.0} % at most",
            grouped(rate.round() as u64),
            CPU_SHARE_MAX * 100.0
        ),
        wanted: None,
        command: Some(format!(
            "heartwheel serve --heartbeat-interval {}s …   # or more cores",
            interval_s.ceil().max(1.0)
        )),
    })
}

pub(super) fn memory(case: &Case<'_>) -> Option<Judged> {
    let present = case.host.memory_available_bytes();
    let needed = case.budget.bytes + case.budget.bytes / MEMORY_MARGIN_DIVISOR;
    let fit = present.unwrap_or(0) / (case.budget.bytes_per_connection.max(1) * 11 / 10);
    Some(Judged {
        status: present.map_or(Status::Unknown, |bytes| enough_if(bytes >= needed)),
        present: present.map_or_else(unreadable, |bytes| format!("{} available", mib(bytes))),
        needed: mib(needed),
        why: format!(
            "{} bytes a connection, line by line below, and a tenth more",
            grouped(case.budget.bytes_per_connection)
        ),
        wanted: None,
        command: Some(format!("heartwheel serve --max-connections {fit} …   # or more memory")),
    })
}

/// Asked only for a run of both ends, which opens everything at once: connections that come in the
/// course of days find the page cache out of the way. A quarter more than the budget, for with a
/// seventh more two million had standstills of seconds, and with a third more they had none
/// (`benches/records/two-million.txt`); but no more than giving all of the cache back would free.
pub(super) fn free_memory(case: &Case<'_>) -> Option<Judged> {
    if case.needs.ends != Ends::Both {
        return None;
    }
    let present = case.host.memory_free_bytes();
    let could_be = case.host.memory_available_bytes().unwrap_or(u64::MAX);
    let needed = (case.budget.bytes + case.budget.bytes / 4).min(could_be - could_be / 32);
    Some(Judged {
        status: present.map_or(Status::Unknown, |bytes| enough_if(bytes >= needed)),
        present: present.map_or_else(unreadable, |bytes| format!("{} free", mib(bytes))),
        needed: mib(needed),
        why:
            "what the page cache holds has to be reclaimed, and put together to blocks of sockets, \
              while clients connect and heartbeats wait: round trips of seconds were seen"
                .to_owned(),
        wanted: None,
        command: Some("sync; sysctl -w vm.drop_caches=1 vm.compact_memory=1".to_owned()),
    })
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", grouped(bytes.div_ceil(1 << 20)))
}
