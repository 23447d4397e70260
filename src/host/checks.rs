//! What is enough: every threshold, with why it matters and the command that changes it.
//!
//! [`SYSCTLS`] holds the plain lower bounds, [`CHECKS`] what needs more than one number (`judges`).
//! A check answers `None` where the needs do not depend on it. The thresholds are what was needed
//! for one and two million connections (`docs/CAPACITY.md`), scaled; where nothing was measured
//! they are what the kernel does with the value.

use serde::Serialize;

use super::budget::Budget;
use super::judges::{self, amount, unreadable};
use super::{Host, Needs};
use crate::engine::Layout;
use crate::limits::LISTEN_BACKLOG;

/// What a value that is too small does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// The wanted connections are not reached, or are lost under load.
    Stops,
    /// They are reached, but slower or with less certainty.
    Slows,
}

/// How a value compares with what is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It suffices.
    Enough,
    /// It does not.
    NotEnough,
    /// It could not be read: in a network namespace of its own, the values of the whole host.
    Unknown,
}

/// What a check says.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) status: Status,
    pub(super) present: String,
    pub(super) needed: String,
    pub(super) why: String,
    /// What it should be set to, as the kernel takes it.
    pub(super) wanted: Option<String>,
    /// The exact command, unless it is `sysctl -w NAME=WANTED`.
    pub(super) command: Option<String>,
}

/// What checks look at.
pub(super) struct Case<'a> {
    pub(super) host: &'a Host,
    pub(super) needs: &'a Needs,
    pub(super) budget: &'a Budget,
    /// What io_uring itself said.
    pub(super) probe: &'a Result<(), String>,
    /// Shards: one per core.
    pub(super) shards: usize,
    /// How many rings, and of what size; `None` if it cannot be done.
    pub(super) layout: Option<Layout>,
    /// The lowest limit of descriptors that would do.
    pub(super) descriptor_limit_min: u64,
}

/// A lower bound for one number of a sysctl.
pub(super) struct Sysctl {
    pub(super) name: &'static str,
    column: usize,
    unit: &'static str,
    pub(super) effect: Effect,
    why: &'static str,
    needed: fn(&Case<'_>) -> u64,
    /// All numbers to set, where there are several.
    wanted: fn(u64) -> String,
}

/// Connects that wait for their last ACK: as many as the load generator has in flight.
const SYN_BACKLOG: u64 = 1_024;
/// The kernel's default, enough below [`LOOPBACK_BURST_FROM`] connections.
const NETDEV_BACKLOG: u64 = 1_000;
/// From here on loopback's queue was seen to overflow.
const LOOPBACK_BURST_FROM: u64 = 500_000;
/// Descriptors of everything else on the host.
const FILES_RESERVED: u64 = 1_000;
/// Below a page a socket under memory pressure cannot go on (tcp(7): the kernel's own default).
const SOCKET_BUFFER_BYTES_MIN: u64 = 4_096;
/// Sockets in a chain of the TCP hash: at 8 a heartbeat was seen to cost a fifth more CPU.
pub(super) const SOCKETS_PER_BUCKET_MAX: u64 = 2;
/// The kernel's own bound for a namespace's hash.
pub(super) const HASH_BUCKETS_MAX: u64 = 1 << 24;
/// CPU of a heartbeat at two million connections, in the server and in the load generator
/// (benches/records/two-million.json).
pub(super) const SERVER_CPU_US: f64 = 16.2;
pub(super) const GENERATOR_CPU_US: f64 = 14.7;
/// Cores may be busy for this share of the time: above it queues grow.
pub(super) const CPU_SHARE_MAX: f64 = 0.8;
/// Memory that is to be left free: one part in so many.
pub(super) const MEMORY_MARGIN_DIVISOR: u64 = 10;

fn plain(needed: u64) -> String {
    needed.to_string()
}

/// The plain lower bounds.
pub(super) const SYSCTLS: &[Sysctl] = &[
    Sysctl {
        name: "fs.file-max",
        column: 0,
        unit: "files",
        effect: Effect::Stops,
        why: "every socket is an open file of the host, direct descriptors too",
        needed: |case| case.needs.sockets() + case.needs.sockets() / 10 + FILES_RESERVED,
        wanted: plain,
    },
    Sysctl {
        name: "fs.nr_open",
        column: 0,
        unit: "files",
        effect: Effect::Stops,
        why: "RLIMIT_NOFILE can be raised no further",
        needed: |case| case.descriptor_limit_min,
        wanted: plain,
    },
    Sysctl {
        name: "net.core.somaxconn",
        column: 0,
        unit: "connections",
        effect: Effect::Slows,
        why: "cuts the queue of accepted connections of each listener; an overflow drops the \
              client's ACK, and it tries again a second later",
        needed: |case| case.needs.connections.min(LISTEN_BACKLOG as u64),
        wanted: plain,
    },
    Sysctl {
        name: "net.ipv4.tcp_max_syn_backlog",
        column: 0,
        unit: "connections",
        effect: Effect::Slows,
        why: "half-open connections beyond it are dropped, or get SYN cookies",
        needed: |case| case.needs.connections.min(SYN_BACKLOG),
        wanted: plain,
    },
    Sysctl {
        name: "net.ipv4.tcp_mem",
        column: 2,
        unit: "pages",
        effect: Effect::Stops,
        why: "a socket with data in flight reserves about a page; at the limit the kernel drops \
              segments and kills sockets",
        needed: |case| case.needs.sockets(),
        wanted: |needed| format!("{needed} {} {}", needed + needed / 4, needed + needed / 2),
    },
    Sysctl {
        name: "net.core.netdev_max_backlog",
        column: 0,
        unit: "packets",
        effect: Effect::Stops,
        why: "over loopback every packet of a burst waits here, and what does not fit is dropped",
        needed: |case| match case.needs.connections {
            many if many >= LOOPBACK_BURST_FROM && case.needs.ends == super::Ends::Both => many / 2,
            few => few.min(NETDEV_BACKLOG),
        },
        wanted: plain,
    },
    Sysctl {
        name: "net.ipv4.tcp_max_tw_buckets",
        column: 0,
        unit: "sockets",
        effect: Effect::Slows,
        why: "half of all may close within a minute; beyond it TIME_WAIT is cut short, and a late \
              segment may meet a new connection",
        needed: |case| case.needs.connections / 2,
        wanted: plain,
    },
    Sysctl {
        name: "net.ipv4.tcp_max_orphans",
        column: 0,
        unit: "sockets",
        effect: Effect::Slows,
        why: "a closed socket waits here for the peer's ACK, for minutes if the peer is dead; \
              beyond it the kernel resets instead",
        needed: |case| case.needs.connections / 2,
        wanted: plain,
    },
    Sysctl {
        name: "net.ipv4.tcp_rmem",
        column: 0,
        unit: "bytes",
        effect: Effect::Slows,
        why: "what a socket may take under memory pressure; buffers grow with data, so larger \
              values cost an idle socket nothing",
        needed: |_| SOCKET_BUFFER_BYTES_MIN,
        wanted: |least| format!("{least} 131072 6291456"),
    },
    Sysctl {
        name: "net.ipv4.tcp_wmem",
        column: 0,
        unit: "bytes",
        effect: Effect::Slows,
        why: "the same for what is sent",
        needed: |_| SOCKET_BUFFER_BYTES_MIN,
        wanted: |least| format!("{least} 16384 4194304"),
    },
];

impl Sysctl {
    pub(super) fn judge(&self, case: &Case<'_>) -> Judged {
        let needed = (self.needed)(case);
        let number = case.host.sysctl_number(self.name, self.column);
        // -1 stands for no limit.
        let present = number.map(|number| u64::try_from(number).unwrap_or(u64::MAX));
        let status = match present {
            None => Status::Unknown,
            Some(present) if present >= needed => Status::Enough,
            Some(_) => Status::NotEnough,
        };
        Judged {
            status,
            present: present.map_or_else(unreadable, |number| amount(number, self.unit)),
            needed: amount(needed, self.unit),
            why: self.why.to_owned(),
            wanted: Some((self.wanted)(needed)),
            command: None,
        }
    }
}

/// A check of more than one number.
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) effect: Effect,
    pub(super) judge: fn(&Case<'_>) -> Option<Judged>,
    /// The name is a sysctl's, and `wanted` can be written to it.
    pub(super) is_sysctl: bool,
}

/// What needs more than one number.
pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "RLIMIT_NOFILE",
        effect: Effect::Stops,
        judge: judges::descriptors,
        is_sysctl: false,
    },
    Check {
        name: "net.ipv4.ip_local_port_range",
        effect: Effect::Stops,
        judge: judges::client_ports,
        is_sysctl: true,
    },
    Check {
        name: "net.ipv4.ip_local_reserved_ports",
        effect: Effect::Slows,
        judge: judges::reserved_ports,
        is_sysctl: true,
    },
    Check {
        name: "net.netfilter.nf_conntrack_max",
        effect: Effect::Stops,
        judge: judges::conntrack,
        is_sysctl: true,
    },
    Check {
        name: "net.ipv4.tcp_ehash_entries",
        effect: Effect::Slows,
        judge: judges::tcp_hash,
        is_sysctl: false,
    },
    Check {
        name: "kernel.io_uring_disabled",
        effect: Effect::Stops,
        judge: judges::io_uring_sysctl,
        is_sysctl: true,
    },
    Check { name: "seccomp", effect: Effect::Stops, judge: judges::seccomp, is_sysctl: false },
    Check { name: "io_uring", effect: Effect::Stops, judge: judges::io_uring, is_sysctl: false },
    Check { name: "cores", effect: Effect::Slows, judge: judges::cores, is_sysctl: false },
    Check { name: "memory", effect: Effect::Stops, judge: judges::memory, is_sysctl: false },
    Check {
        name: "free memory",
        effect: Effect::Slows,
        judge: judges::free_memory,
        is_sysctl: false,
    },
];

const _: () = assert!(HASH_BUCKETS_MAX.is_power_of_two());
