//! Hosts that do not exist: each limit is seen enough, not enough, and where it can be, unreadable.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

/// A host on disk; removed when dropped.
struct FakeHost {
    root: PathBuf,
}

/// A host that has enough of everything.
const GENEROUS: &[(&str, &str)] = &[
    (
        "proc/self/limits",
        "Limit Soft Hard Units\nMax open files            1024    1048576   files\n",
    ),
    (
        "proc/self/status",
        "Name:\tx\nGid:\t7\t7\t7\t7\nGroups:\t7 8\nCapEff:\t0000000000000000\nSeccomp:\t0\n\
         Cpus_allowed_list:\t0-3,8-11\n",
    ),
    ("proc/meminfo", "MemTotal: 68157440 kB\nMemFree: 67108864 kB\nMemAvailable: 67108864 kB\n"),
    ("proc/sys/kernel/osrelease", "6.18.0"),
    ("proc/sys/fs/file-max", "9223372036854775807"),
    ("proc/sys/fs/nr_open", "1048576"),
    ("proc/sys/net/core/somaxconn", "65535"),
    ("proc/sys/net/core/netdev_max_backlog", "1000000"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "65535"),
    ("proc/sys/net/ipv4/tcp_mem", "4000000\t5000000\t6000000"),
    ("proc/sys/net/ipv4/tcp_max_tw_buckets", "4000000"),
    ("proc/sys/net/ipv4/tcp_max_orphans", "4000000"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t33554432"),
    ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999"),
    ("proc/sys/net/ipv4/ip_local_reserved_ports", "22,40000-40010"),
    ("proc/sys/net/netfilter/nf_conntrack_max", "4000000"),
    ("proc/sys/net/netfilter/nf_conntrack_count", "12"),
    ("proc/sys/net/ipv4/tcp_ehash_entries", "-8388608"),
    ("proc/sys/kernel/io_uring_disabled", "1"),
    ("proc/sys/kernel/io_uring_group", "8"),
];

/// For each limit: the file that decides it, a value that is not enough, and what is then advised.
const POOR: &[(&str, &str, &str, &str)] = &[
    (
        "RLIMIT_NOFILE",
        "proc/self/limits",
        "Max open files            1024    1024   files\n",
        "ulimit -Hn ",
    ),
    ("fs.file-max", "proc/sys/fs/file-max", "2466170", "sysctl -w fs.file-max=4401000"),
    ("fs.nr_open", "proc/sys/fs/nr_open", "1024", "sysctl -w fs.nr_open="),
    (
        "net.core.somaxconn",
        "proc/sys/net/core/somaxconn",
        "128",
        "sysctl -w net.core.somaxconn=4096",
    ),
    (
        "net.core.netdev_max_backlog",
        "proc/sys/net/core/netdev_max_backlog",
        "1000",
        "sysctl -w net.core.netdev_max_backlog=1000000",
    ),
    (
        "net.ipv4.tcp_max_syn_backlog",
        "proc/sys/net/ipv4/tcp_max_syn_backlog",
        "128",
        "sysctl -w net.ipv4.tcp_max_syn_backlog=1024",
    ),
    (
        "net.ipv4.tcp_mem",
        "proc/sys/net/ipv4/tcp_mem",
        "287898\t383867\t575796",
        "sysctl -w net.ipv4.tcp_mem='4000000 5000000 6000000'",
    ),
    (
        "net.ipv4.tcp_max_tw_buckets",
        "proc/sys/net/ipv4/tcp_max_tw_buckets",
        "131072",
        "sysctl -w net.ipv4.tcp_max_tw_buckets=1000000",
    ),
    (
        "net.ipv4.tcp_max_orphans",
        "proc/sys/net/ipv4/tcp_max_orphans",
        "131072",
        "sysctl -w net.ipv4.tcp_max_orphans=1000000",
    ),
    (
        "net.ipv4.tcp_rmem",
        "proc/sys/net/ipv4/tcp_rmem",
        "2048\t131072\t33554432",
        "sysctl -w net.ipv4.tcp_rmem='4096 ",
    ),
    (
        "net.ipv4.tcp_wmem",
        "proc/sys/net/ipv4/tcp_wmem",
        "2048\t16384\t4194304",
        "sysctl -w net.ipv4.tcp_wmem='4096 ",
    ),
    (
        "net.ipv4.ip_local_port_range",
        "proc/sys/net/ipv4/ip_local_port_range",
        "60000\t50000",
        "sysctl -w net.ipv4.ip_local_port_range='1024 65535'",
    ),
    (
        "net.ipv4.ip_local_reserved_ports",
        "proc/sys/net/ipv4/ip_local_reserved_ports",
        "22",
        "sysctl -w net.ipv4.ip_local_reserved_ports=22,40000",
    ),
    (
        "net.netfilter.nf_conntrack_max",
        "proc/sys/net/netfilter/nf_conntrack_max",
        "262144",
        "sysctl -w net.netfilter.nf_conntrack_max=2500000",
    ),
    (
        "net.ipv4.tcp_ehash_entries",
        "proc/sys/net/ipv4/tcp_ehash_entries",
        "262144",
        "thash_entries=8388608",
    ),
    (
        "kernel.io_uring_disabled",
        "proc/sys/kernel/io_uring_disabled",
        "2",
        "sysctl -w kernel.io_uring_disabled=0",
    ),
    (
        "cores",
        "proc/self/status",
        "Gid: 7\nGroups: 8\nSeccomp: 0\nCpus_allowed_list: 0\n",
        "--heartbeat-interval 78s",
    ),
    (
        "memory",
        "proc/meminfo",
        "MemFree: 67108864 kB\nMemAvailable: 1000000 kB\n",
        "--max-connections 1",
    ),
    (
        "free memory",
        "proc/meminfo",
        "MemFree: 1000000 kB\nMemAvailable: 67108864 kB\n",
        "sysctl -w vm.drop_caches=1",
    ),
];

impl FakeHost {
    fn new(name: &str, changed: &[(&str, &str)]) -> FakeHost {
        let folder = format!("heartwheel-host-{}-{name}", std::process::id());
        let host = FakeHost { root: std::env::temp_dir().join(folder) };
        for (path, text) in GENEROUS.iter().chain(changed) {
            let path = host.root.join(path);
            fs::create_dir_all(path.parent().expect("below the root")).expect("made");
            fs::write(path, text).expect("written");
        }
        host
    }

    fn examine(&self, needs: &Needs, probe: &Result<(), String>) -> Diagnosis {
        Diagnosis::new(&Host::at(&self.root), needs, probe)
    }
}

impl Drop for FakeHost {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn two_million() -> Needs {
    Needs {
        connections: 2_000_000,
        interval: Duration::from_secs(40),
        ends: Ends::Both,
        listen: vec!["127.0.0.1:40000".parse().expect("an address")],
        kernel_picks_ports: false,
    }
}

fn short(diagnosis: &Diagnosis) -> Vec<&'static str> {
    diagnosis.short().map(|finding| finding.name).collect()
}

#[test]
fn a_generous_host_is_enough_and_says_so() {
    let host = FakeHost::new("generous", &[]);
    let diagnosis = host.examine(&two_million(), &Ok(()));
    assert_eq!(short(&diagnosis), [""; 0]);
    let unknown = diagnosis.checks.iter().filter(|check| check.status == Status::Unknown);
    assert_eq!(unknown.count(), 0);
    assert!(diagnosis.enough && diagnosis.warning().is_none());
    assert!(diagnosis.text(false).starts_with("ENOUGH\n"));
}

#[test]
fn each_limit_is_found_short_alone_and_told_with_its_command() {
    let mut seen = BTreeSet::new();
    for &(name, path, value, command) in POOR {
        let host = FakeHost::new(name, &[(path, value)]);
        let diagnosis = host.examine(&two_million(), &Ok(()));
        assert_eq!(short(&diagnosis), [name], "{value}");
        let finding = diagnosis.short().next().expect("one");
        let advice = finding.command.as_deref().unwrap_or("");
        assert!(advice.contains(command), "{name}: {advice}");
        assert!(!diagnosis.enough && diagnosis.verdict.contains(name), "{}", diagnosis.verdict);
        assert!(diagnosis.text(false).contains(advice), "{}", diagnosis.text(false));
        seen.insert(name);
    }
    for (name, status) in [
        ("seccomp", "Gid: 7\nGroups: 8\nSeccomp: 2\nCpus_allowed_list: 0-7\n"),
        ("io_uring", "Gid: 7\nGroups: 8\nSeccomp: 0\nCpus_allowed_list: 0-7\n"),
    ] {
        let host = FakeHost::new(name, &[("proc/self/status", status)]);
        let refused = host.examine(&two_million(), &Err("EPERM".to_owned()));
        assert!(short(&refused).contains(&name), "{:?}", short(&refused));
        assert!(host.examine(&two_million(), &Ok(())).enough, "{name}: it works all the same");
        seen.insert(name);
    }
    let host = FakeHost::new("names", &[]);
    let all = host.examine(&two_million(), &Ok(())).checks;
    let all: BTreeSet<&str> = all.iter().map(|check| check.name).collect();
    assert_eq!(seen, all, "every check is seen both ways");
}

#[test]
fn what_cannot_be_read_is_neither_enough_nor_short() {
    for &(name, path, ..) in POOR {
        let host = FakeHost::new(&format!("without-{name}"), &[]);
        fs::remove_file(host.root.join(path)).expect("it was there");
        let diagnosis = host.examine(&two_million(), &Ok(()));
        assert!(diagnosis.enough, "{name}: {}", diagnosis.verdict);
        let found = diagnosis.checks.iter().find(|check| check.name == name);
        assert!(found.is_none_or(|check| check.status == Status::Unknown), "{found:?}");
    }
}

#[test]
fn what_the_needs_do_not_depend_on_is_not_asked() {
    let poor: Vec<(&str, &str)> = POOR
        .iter()
        .filter(|(name, ..)| !matches!(*name, "kernel.io_uring_disabled" | "RLIMIT_NOFILE"))
        .map(|&(_, path, value, _)| (path, value))
        .filter(|(_, value)| !value.starts_with("2048") && !value.starts_with("60000"))
        .collect();
    let host = FakeHost::new("small", &poor);
    let few = Needs { connections: 100, ends: Ends::Server, listen: Vec::new(), ..two_million() };
    let diagnosis = host.examine(&few, &Ok(()));
    assert_eq!(short(&diagnosis), [""; 0], "a poor host holds a hundred");
    let names: Vec<&str> = diagnosis.checks.iter().map(|check| check.name).collect();
    assert!(!names.contains(&"net.ipv4.ip_local_port_range"), "a server needs no ports");
}

#[test]
fn ports_that_the_kernel_picks_bound_the_clients() {
    let host = FakeHost::new("ports", &[]);
    let clients = Needs {
        connections: 30_000,
        ends: Ends::Clients,
        listen: Vec::new(),
        kernel_picks_ports: true,
        ..two_million()
    };
    assert_eq!(short(&host.examine(&clients, &Ok(()))), ["net.ipv4.ip_local_port_range"]);
    let fewer = Needs { connections: 28_000, ..clients };
    assert!(host.examine(&fewer, &Ok(())).enough);
}

#[test]
fn a_cgroup_bounds_cores_and_memory() {
    let host = FakeHost::new(
        "cgroup",
        &[
            ("sys/fs/cgroup/cpu.max", "50000 100000\n"),
            ("sys/fs/cgroup/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/memory.current", "73741824\n"),
        ],
    );
    let root = Host::at(&host.root);
    assert_eq!(root.cores(), Some(0.5));
    assert_eq!(root.memory_available_bytes(), Some(1_000_000_000));
    assert_eq!(short(&host.examine(&two_million(), &Ok(()))), ["cores", "memory"]);
}

#[test]
fn the_warning_is_one_line_and_leaves_out_what_errors_tell() {
    let host = FakeHost::new(
        "warning",
        &[
            ("proc/self/limits", "Max open files 1024 1024 files\n"),
            ("proc/sys/net/core/somaxconn", "128"),
        ],
    );
    let warning = host.examine(&two_million(), &Ok(())).warning().expect("it falls short");
    assert_eq!(warning.lines().count(), 1);
    assert!(warning.contains("net.core.somaxconn is 128 connections"), "{warning}");
    assert!(warning.contains("heartwheel doctor -c 2000000 --both-ends"), "{warning}");
    assert!(!warning.contains("RLIMIT_NOFILE"), "{warning}");
}

#[test]
fn the_budget_adds_up_and_grows_with_the_ends() {
    let host = FakeHost::new("budget", &[]);
    let both = host.examine(&two_million(), &Ok(())).budget;
    assert_eq!(both.bytes, both.lines.iter().map(|line| line.bytes).sum::<u64>());
    // Measured for both ends at a million: 8,805 bytes of the kernel, 66 and 93 of the programs.
    assert!((8_900..9_300).contains(&both.bytes_per_connection), "{both:?}");
    let needs = Needs { ends: Ends::Server, ..two_million() };
    let server = host.examine(&needs, &Ok(())).budget;
    assert!(server.bytes < both.bytes * 6 / 10 && server.bytes > both.bytes * 4 / 10);
}
