//! What of this host's limits will bite, in one line each, with the command that changes it.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a run needs.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Clients.
    pub connections: u64,
    /// The server is on this host too, so that the kernel holds both ends.
    pub both_ends: bool,
    /// The kernel picks the ports of the clients.
    pub kernel_ports: bool,
}

/// Raises the soft limit of descriptors to the hard one, and returns it.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // If it is refused, the soft limit is what there is.
        let _ =
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(1 << 20)
}

/// What will bite.
pub fn warnings(needs: Needs) -> Vec<String> {
    judge(needs, |name| fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok())
}

fn judge(needs: Needs, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let number = |name: &str, column: usize| -> Option<u64> {
        read(name)?.split_whitespace().nth(column)?.parse().ok()
    };
    let mut warnings = Vec::new();
    let ends = if needs.both_ends { 2 } else { 1 };
    let sockets = needs.connections * ends;

    // A socket that has carried data reserves about a page.
    if let Some(pages) = number("net.ipv4.tcp_mem", 2).filter(|&pages| sockets > pages) {
        let (low, pressure, high) = (sockets, sockets + sockets / 4, sockets + sockets / 2);
        warnings.push(format!(
            "net.ipv4.tcp_mem ends at {pages} pages, {sockets} sockets may reserve a page each: \
             sysctl -w net.ipv4.tcp_mem='{low} {pressure} {high}'"
        ));
    }
    let at_least = [
        ("net.core.netdev_max_backlog", if needs.connections >= 500_000 { 100_000 } else { 1_000 }),
        ("net.core.somaxconn", 4_096),
        ("net.ipv4.tcp_max_syn_backlog", 1_024),
        ("fs.file-max", sockets + sockets / 10 + 1_000),
    ];
    for (name, needed) in at_least {
        if let Some(value) = number(name, 0).filter(|&value| value < needed) {
            warnings
                .push(format!("{name} is {value}, {needed} is better: sysctl -w {name}={needed}"));
        }
    }
    if needs.kernel_ports {
        let name = "net.ipv4.ip_local_port_range";
        let ports = number(name, 1).zip(number(name, 0)).map(|(high, low)| high - low);
        if let Some(ports) = ports.filter(|&ports| ports < needs.connections) {
            warnings.push(format!(
                "{name} holds {ports} ports for {} clients: sysctl -w {name}='1024 65535', or name \
                 several --source-ips",
                needs.connections
            ));
        }
    }
    // The module may be loaded and track nothing.
    let tracks = number("net.netfilter.nf_conntrack_count", 0).is_some_and(|count| count > 0);
    let (tracked, needed) = ("net.netfilter.nf_conntrack_max", needs.connections * 5 / 4);
    if let Some(value) = number(tracked, 0).filter(|&value| tracks && value < needed) {
        warnings.push(format!("{tracked} is {value}: sysctl -w {tracked}={needed}"));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Option<String> {
        let value = match name {
            "net.ipv4.tcp_mem" => "287901\t383868\t575802",
            "net.core.netdev_max_backlog" => "1000",
            "net.core.somaxconn" => "4096",
            "net.ipv4.tcp_max_syn_backlog" => "2048",
            "net.ipv4.ip_local_port_range" => "32768\t60999",
            "fs.file-max" => "2466177",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn a_small_run_needs_nothing_and_a_large_one_is_told() {
        let needs = Needs { connections: 200_000, both_ends: true, kernel_ports: false };
        assert_eq!(judge(needs, host), Vec::<String>::new());
        let large = judge(Needs { connections: 1_000_000, ..needs }, host);
        assert!(large.iter().any(|line| line.contains("tcp_mem='2000000 2500000 3000000'")));
        assert!(large.iter().any(|line| line.contains("netdev_max_backlog=100000")));
        let ports = judge(Needs { kernel_ports: true, ..needs }, host);
        assert!(ports.iter().any(|line| line.contains("ip_local_port_range")));
    }
}
