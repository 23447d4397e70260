//! Memory before it is used: what so many connections will take, line by line. The figures are
//! measured (`docs/ENGINES.md`, `benches/records/`) and say where.

use serde::Serialize;

use super::Needs;
use crate::limits::{
    COMPLETION_ENTRIES, RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS, SUBMISSION_ENTRIES,
};

/// A session and its deadline, resident, with what a table rounds up to: 56 to 66 measured.
pub(super) const SERVER_USER_BYTES: u64 = 66;

/// A client of the load generator: 88 to 93 measured.
pub(super) const GENERATOR_USER_BYTES: u64 = 93;

/// What the kernel holds for the server's end: socket, inode, file, multishot poll. 8,172 to 8,174
/// bytes were measured for two such ends, with the clients' ports.
pub(super) const KERNEL_BYTES_SERVER: u64 = 4_090;

/// The same for a client's, which waits by a multishot receive: 8,799 to 8,829 bytes were measured
/// for both ends, at 100,000, a million and two.
pub(super) const KERNEL_BYTES_CLIENT: u64 = 4_730;

/// Each program before its first connection.
const PROGRAM_BYTES: u64 = 8 << 20;

/// A ring: submissions of 64 bytes, completions of 16, buffers, and the kernel's table of requests.
const RING_BYTES: u64 = SUBMISSION_ENTRIES as u64 * 64
    + COMPLETION_ENTRIES as u64 * 16
    + RECEIVE_BUFFERS as u64 * RECEIVE_BUFFER_BYTES as u64
    + COMPLETION_ENTRIES as u64 * 16;

/// A slot of a direct-descriptor table: a pointer and a tag.
const SLOT_BYTES: u64 = 16;

/// One line of the budget.
#[derive(Clone, Debug, Serialize)]
pub struct BudgetLine {
    /// What it is for.
    pub name: &'static str,
    /// Of each.
    pub bytes_each: u64,
    /// How many.
    pub count: u64,
    /// All of them.
    pub bytes: u64,
}

/// What the wanted connections will take.
#[derive(Clone, Debug, Serialize)]
pub struct Budget {
    /// Line by line.
    pub lines: Vec<BudgetLine>,
    /// All lines.
    pub bytes: u64,
    /// For each connection, both ends if both are here.
    pub bytes_per_connection: u64,
}

/// The budget for these needs with so many rings on each side.
pub(super) fn budget(needs: &Needs, rings: u64) -> Budget {
    let connections = needs.connections;
    let line = |name, bytes_each: u64, count: u64| BudgetLine {
        name,
        bytes_each,
        count,
        bytes: bytes_each.saturating_mul(count),
    };
    let mut lines = Vec::new();
    if needs.has_server() {
        lines.push(line("server: sessions and deadlines", SERVER_USER_BYTES, connections));
        lines.push(line("server: program", PROGRAM_BYTES, 1));
        lines.push(line("server: rings", RING_BYTES, rings));
        lines.push(line("kernel: the server's sockets", KERNEL_BYTES_SERVER, connections));
    }
    if needs.has_clients() {
        lines.push(line("load generator: clients", GENERATOR_USER_BYTES, connections));
        lines.push(line("load generator: program", PROGRAM_BYTES, 1));
        lines.push(line("load generator: rings", RING_BYTES, rings));
        lines.push(line("kernel: the clients' sockets", KERNEL_BYTES_CLIENT, connections));
    }
    lines.push(line("kernel: descriptor slots", SLOT_BYTES, needs.sockets()));
    let bytes = lines.iter().map(|line| line.bytes).sum();
    Budget { lines, bytes, bytes_per_connection: bytes / connections.max(1) }
}
