//! What belongs to hosts, of which several generators may share one.

use std::collections::BTreeSet;

use crate::host::cores::HostSection;
use crate::host::kernel::KernelSection;
use crate::report::{Environment, Report};

/// The first of each group of parts that share what `key` names. An unknown key is nobody else's.
fn groups(parts: &[Report], key: impl Fn(&Environment) -> String) -> Vec<Vec<&Report>> {
    let mut groups: Vec<(String, Vec<&Report>)> = Vec::new();
    for report in parts {
        let key = key(&report.environment);
        match groups.iter_mut().find(|(known, _)| !key.is_empty() && *known == key) {
            Some((_, group)) => group.push(report),
            None => groups.push((key, vec![report])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

fn hosts(parts: &[Report]) -> Vec<Vec<&Report>> {
    groups(parts, |here| here.boot_id.clone())
}

/// One report of each host.
fn one_of_each(parts: &[Report]) -> Vec<&Report> {
    hosts(parts).into_iter().filter_map(|host| host.into_iter().next()).collect()
}

/// All hosts as one: cores and memory are sums, what differs is listed.
pub fn environment(parts: &[Report], command: &str) -> Environment {
    let list = |pick: fn(&Environment) -> &String| {
        let values: BTreeSet<&str> =
            parts.iter().map(|part| pick(&part.environment).as_str()).collect();
        values.into_iter().collect::<Vec<_>>().join(" | ")
    };
    let hosts = one_of_each(parts);
    let mut commands: Vec<&str> =
        parts.iter().map(|part| part.environment.command.as_str()).collect();
    commands.push(command);
    Environment {
        command: commands.join("\n"),
        loadgen: list(|here| &here.loadgen),
        kernel: list(|here| &here.kernel),
        boot_id: list(|here| &here.boot_id),
        network_namespace: list(|here| &here.network_namespace),
        cpu: list(|here| &here.cpu),
        cores: hosts.iter().map(|host| host.environment.cores).sum(),
        memory_bytes: hosts.iter().map(|host| host.environment.memory_bytes).sum(),
        descriptors_max: parts.iter().map(|p| p.environment.descriptors_max).min().unwrap_or(0),
        tcp_mem_pages: list(|here| &here.tcp_mem_pages),
        netdev_max_backlog: list(|here| &here.netdev_max_backlog),
        somaxconn: list(|here| &here.somaxconn),
    }
}

/// Counters of different kernels and namespaces add; of one and the same, the largest counts, for
/// all its generators have seen the same events.
pub fn kernel(parts: &[Report]) -> KernelSection {
    let hosts = hosts(parts);
    let namespaces =
        groups(parts, |here| match here.boot_id.is_empty() || here.network_namespace.is_empty() {
            true => String::new(),
            false => format!("{} {}", here.boot_id, here.network_namespace),
        });
    let sum = |groups: &[Vec<&Report>], pick: fn(&KernelSection) -> u64| -> u64 {
        let most = |group: &Vec<&Report>| group.iter().map(|part| pick(&part.kernel)).max();
        groups.iter().filter_map(most).sum()
    };
    let opened: u64 = parts.iter().map(|part| part.connections.opened).sum();
    // What a host's memory has grown by is that of all who connect from it.
    let per_connection = |pick: fn(&KernelSection) -> Option<f64>| {
        let all = |part: &&Report| Some(pick(&part.kernel)? * part.connections.opened as f64);
        let most = |host: &Vec<&Report>| host.iter().filter_map(all).reduce(f64::max);
        let bytes = hosts.iter().filter_map(most).reduce(|sum, bytes| sum + bytes);
        bytes.filter(|_| opened > 0).map(|bytes| bytes / opened as f64)
    };
    KernelSection {
        bytes_per_connection: per_connection(|kernel| kernel.bytes_per_connection),
        available_bytes_per_connection: per_connection(|kernel| {
            kernel.available_bytes_per_connection
        }),
        tcp_memory_pages: sum(&hosts, |kernel| kernel.tcp_memory_pages),
        method: parts.first().map(|part| part.kernel.method.clone()).unwrap_or_default(),
        listen_overflows: sum(&namespaces, |kernel| kernel.listen_overflows),
        listen_drops: sum(&namespaces, |kernel| kernel.listen_drops),
        retransmits: sum(&namespaces, |kernel| kernel.retransmits),
        syncookies_sent: sum(&namespaces, |kernel| kernel.syncookies_sent),
        memory_pressures: sum(&namespaces, |kernel| kernel.memory_pressures),
        softnet_drops: sum(&hosts, |kernel| kernel.softnet_drops),
        softnet_squeezed: sum(&hosts, |kernel| kernel.softnet_squeezed),
    }
}

/// The host that was nearest to its end, figure by figure.
pub fn host(parts: &[Report]) -> HostSection {
    let most = |pick: fn(&HostSection) -> Option<f64>| {
        parts.iter().filter_map(|part| pick(&part.host)).reduce(f64::max)
    };
    let server = parts.iter().map(|part| &part.host).find(|host| host.server_descriptors.is_some());
    HostSection {
        cpu_busy: most(|host| host.cpu_busy),
        cpu_busiest_core: most(|host| host.cpu_busiest_core),
        cpu_stolen: most(|host| host.cpu_stolen),
        server_busiest_thread: most(|host| host.server_busiest_thread),
        generator_busiest_thread: most(|host| host.generator_busiest_thread),
        server_thread_wanted: most(|host| host.server_thread_wanted),
        generator_thread_wanted: most(|host| host.generator_thread_wanted),
        server_descriptors: server.and_then(|host| host.server_descriptors),
        server_descriptors_max: server.and_then(|host| host.server_descriptors_max),
        memory_available_bytes: {
            parts.iter().filter_map(|part| part.host.memory_available_bytes).min()
        },
        oom_kills: parts.iter().filter_map(|part| part.host.oom_kills).max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(boot_id: &str, namespace: &str, opened: u64, bytes_each: f64) -> Report {
        let mut report = Report::default();
        report.environment.boot_id = boot_id.to_owned();
        report.environment.network_namespace = namespace.to_owned();
        report.environment.cores = 4;
        report.connections.opened = opened;
        report.kernel.bytes_per_connection = Some(bytes_each);
        (report.kernel.retransmits, report.kernel.softnet_drops) = (opened, 7);
        report
    }

    #[test]
    fn what_generators_of_one_host_share_is_not_counted_twice() {
        // Two on one host, both of which have seen the memory of 3,000 connections of 4,000 B.
        let (one, two) = (part("a", "n", 1_000, 12_000.0), part("a", "m", 2_000, 6_000.0));
        let other = part("b", "n", 1_000, 4_000.0);
        let parts = [one, two, other];
        let kernel = kernel(&parts);
        assert_eq!(kernel.bytes_per_connection, Some(4_000.0));
        assert_eq!((kernel.retransmits, kernel.softnet_drops), (4_000, 14));
        assert_eq!(environment(&parts, "merge").cores, 8);
        let unknown = [part("", "", 10, 1.0), part("", "", 10, 1.0)];
        assert_eq!((environment(&unknown, "").cores, super::kernel(&unknown).retransmits), (8, 20));
    }
}
