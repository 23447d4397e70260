//! The kernel's own account: what it dropped, what it sent twice, what its sockets take.

use std::fs;

use heartwheel::host::kib_field;
use serde::{Deserialize, Serialize};

/// Counters of this network namespace, and memory of the machine, at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelSample {
    listen_overflows: u64,
    listen_drops: u64,
    retransmits: u64,
    syncookies_sent: u64,
    memory_pressures: u64,
    softnet_drops: u64,
    softnet_squeezed: u64,
    slab_bytes: u64,
    dentry_bytes: u64,
    available_bytes: u64,
    tcp_memory_pages: u64,
}

/// The slab caches that connections, their requests and their ports live in. `dentry` is theirs
/// too, but every look at a file makes some.
const CACHES: [&str; 16] = [
    "TCP",
    "TCPv6",
    "sock_inode_cache",
    "filp",
    "io_kiocb",
    "tcp_bind_bucket",
    "tcp_bind2_bucket",
    "skbuff_head_cache",
    "skbuff_small_head",
    "kmalloc-32",
    "kmalloc-64",
    "kmalloc-96",
    "kmalloc-128",
    "kmalloc-192",
    "kmalloc-256",
    "kmalloc-512",
];
/// Of a dentry.
const DENTRY_BYTES: u64 = 192;
const PAGE_BYTES: u64 = 4_096;

/// The kernel's part of a report: differences between two samples.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelSection {
    /// Slab memory that came with the connections, for each: both ends if the server is here.
    pub bytes_per_connection: Option<f64>,
    /// The whole machine's memory, less that of both programs: noisy where others run.
    pub available_bytes_per_connection: Option<f64>,
    /// What TCP had reserved at steady state (`/proc/net/sockstat`, against `tcp_mem`).
    pub tcp_memory_pages: u64,
    /// How these were estimated.
    pub method: String,
    /// Connections that found an accept queue full.
    pub listen_overflows: u64,
    /// SYNs dropped for that or another reason.
    pub listen_drops: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// SYN cookies sent: the SYN queue was full.
    pub syncookies_sent: u64,
    /// Times that TCP entered memory pressure.
    pub memory_pressures: u64,
    /// Packets dropped because `netdev_max_backlog` was full.
    pub softnet_drops: u64,
    /// Times that packet processing ran out of its budget.
    pub softnet_squeezed: u64,
}

/// What is wrong with these numbers, in the report itself.
const METHOD: &str = "slab caches that connections use (/proc/slabinfo, or all Slab of \
                      /proc/meminfo where that cannot be read), at steady state minus before \
                      connecting, by opened connections; both ends if the server is on this host; \
                      too small if free objects of a former run were reused, and other programs' \
                      share is in it";

/// Reads all of them; what cannot be read counts as 0.
pub fn sample() -> KernelSample {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (netstat, snmp) = (read("/proc/net/netstat"), read("/proc/net/snmp"));
    let meminfo = read("/proc/meminfo");
    let (softnet_drops, softnet_squeezed) = softnet(&read("/proc/net/softnet_stat"));
    let slabs = read("/proc/slabinfo");
    let cached: Option<u64> = CACHES.iter().map(|cache| slab_bytes(&slabs, cache)).sum();
    KernelSample {
        listen_overflows: table_value(&netstat, "TcpExt:", "ListenOverflows"),
        listen_drops: table_value(&netstat, "TcpExt:", "ListenDrops"),
        syncookies_sent: table_value(&netstat, "TcpExt:", "SyncookiesSent"),
        memory_pressures: table_value(&netstat, "TcpExt:", "TCPMemoryPressures"),
        retransmits: table_value(&snmp, "Tcp:", "RetransSegs"),
        softnet_drops,
        softnet_squeezed,
        slab_bytes: cached.or_else(|| kib_field(&meminfo, "Slab:")).unwrap_or(0),
        dentry_bytes: cached.and_then(|_| slab_bytes(&slabs, "dentry")).unwrap_or(0),
        available_bytes: kib_field(&meminfo, "MemAvailable:").unwrap_or(0),
        tcp_memory_pages: sockstat_pages(&read("/proc/net/sockstat")),
    }
}

/// The differences: `before` connecting, at `steady` state, at the `end`. `user_bytes` is what both
/// programs have grown by.
pub fn section(
    before: &KernelSample,
    steady: &KernelSample,
    end: &KernelSample,
    opened: u64,
    user_bytes: u64,
) -> KernelSection {
    let per_connection = |bytes: u64| (opened > 0).then(|| bytes as f64 / opened as f64);
    let dentries = steady.dentry_bytes.saturating_sub(before.dentry_bytes);
    let slab = steady.slab_bytes.saturating_sub(before.slab_bytes)
        + dentries.min(2 * opened * DENTRY_BYTES);
    let taken = before.available_bytes.saturating_sub(steady.available_bytes);
    KernelSection {
        bytes_per_connection: per_connection(slab),
        available_bytes_per_connection: per_connection(taken.saturating_sub(user_bytes)),
        tcp_memory_pages: steady.tcp_memory_pages,
        method: METHOD.to_owned(),
        listen_overflows: end.listen_overflows.saturating_sub(before.listen_overflows),
        listen_drops: end.listen_drops.saturating_sub(before.listen_drops),
        retransmits: end.retransmits.saturating_sub(before.retransmits),
        syncookies_sent: end.syncookies_sent.saturating_sub(before.syncookies_sent),
        memory_pressures: end.memory_pressures.saturating_sub(before.memory_pressures),
        softnet_drops: end.softnet_drops.saturating_sub(before.softnet_drops),
        softnet_squeezed: end.softnet_squeezed.saturating_sub(before.softnet_squeezed),
    }
}

/// `/proc/net/netstat` and `snmp` hold pairs of lines: names, then values.
fn table_value(text: &str, prefix: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter(|line| line.starts_with(prefix));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    let column = names.split_whitespace().position(|column| column == name);
    column
        .and_then(|column| values.split_whitespace().nth(column))
        .and_then(|value| value.parse().ok())
        .unwrap_or(0)
}

/// The memory of a slab cache: slabs times pages of each. A cache that another one was merged with
/// has no line, and counts as 0; `None` if there are no lines at all.
fn slab_bytes(text: &str, cache: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| !line.starts_with('#')).skip(1).peekable();
    lines.peek()?;
    let line = lines.find(|line| line.split_whitespace().next() == Some(cache));
    let column = |number: usize| line?.split_whitespace().nth(number)?.parse::<u64>().ok();
    Some(column(14).zip(column(5)).map_or(0, |(slabs, pages)| slabs * pages * PAGE_BYTES))
}

/// One line per CPU, in hexadecimal: processed, dropped, squeezed.
fn softnet(text: &str) -> (u64, u64) {
    let column = |line: &str, number: usize| {
        let value = line.split_whitespace().nth(number).unwrap_or("0");
        u64::from_str_radix(value, 16).unwrap_or(0)
    };
    text.lines().fold((0, 0), |(dropped, squeezed), line| {
        (dropped + column(line, 1), squeezed + column(line, 2))
    })
}

/// `TCP: inuse 5 orphan 0 tw 2 alloc 7 mem 3`.
fn sockstat_pages(text: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with("TCP:")).unwrap_or("");
    let mut words = line.split_whitespace().skip_while(|&word| word != "mem").skip(1);
    words.next().and_then(|pages| pages.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_proc_are_read() {
        let netstat = "TcpExt: A ListenOverflows B\nTcpExt: 1 22 3\nIpExt: A\nIpExt: 9\n";
        assert_eq!(table_value(netstat, "TcpExt:", "ListenOverflows"), 22);
        assert_eq!(table_value(netstat, "TcpExt:", "Nothing"), 0);
        assert_eq!(softnet("00ff 0000000a 00000001 0\n0001 00000001 00000002 0\n"), (11, 3));
        let slabs = "slabinfo - version: 2.1\n# name <active_objs>\nTCP 10 26 2368 13 8 : tunables \
                     0 0 0 : slabdata 2 2 0\n";
        assert_eq!(slab_bytes(slabs, "TCP"), Some(2 * 8 * 4_096));
        assert_eq!((slab_bytes(slabs, "UDP"), slab_bytes("", "TCP")), (Some(0), None));
        assert_eq!(sockstat_pages("sockets: used 9\nTCP: inuse 1 alloc 1 mem 128\n"), 128);
    }

    #[test]
    fn differences_never_underflow() {
        let high = KernelSample { slab_bytes: 4_000, available_bytes: 50, ..sample() };
        let low = KernelSample { slab_bytes: 1_000, available_bytes: 90, ..high };
        let grown = section(&low, &high, &high, 10, 0);
        assert_eq!(grown.bytes_per_connection, Some(300.0));
        let dentries = KernelSample { dentry_bytes: high.dentry_bytes + 1_000_000, ..high };
        let grown = section(&low, &dentries, &high, 10, 0);
        assert_eq!(grown.bytes_per_connection, Some(684.0), "no more than two for each");
        assert_eq!(section(&high, &low, &low, 10, 0).bytes_per_connection, Some(0.0));
        assert_eq!(section(&low, &high, &high, 0, 0).bytes_per_connection, None);
    }
}
