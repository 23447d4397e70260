//! What the host allows: limits that decide how the server is laid out, and the verdict on whether
//! they are enough for a wanted number of connections (`heartwheel doctor`).
//!
//! [`Host`] reads, [`checks`] judges (every threshold stands there), [`budget`] predicts memory,
//! [`Diagnosis`] is the outcome, `render` writes it for people.

mod budget;
mod checks;
mod diagnosis;
mod judges;
mod read;
mod render;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use self::budget::{Budget, BudgetLine};
pub use self::checks::{Effect, Status};
pub use self::diagnosis::{Diagnosis, Finding, start_warning};
pub use self::read::{Host, kib_field};

/// Raises the soft limit of open descriptors to the hard one, and tells it.
///
/// # Errors
/// If the kernel refuses.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// The cores that this process may run on.
pub fn usable_cores() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return vec![0] };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
}

/// Which ends of the connections this host holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ends {
    /// The server's.
    Server,
    /// The clients'.
    Clients,
    /// Both: the load generator runs here too, and packets go over loopback.
    Both,
}

impl Ends {
    /// Sockets of each connection on this host.
    pub fn per_connection(self) -> u64 {
        if self == Ends::Both { 2 } else { 1 }
    }
}

/// What is asked of the host.
#[derive(Clone, Debug)]
pub struct Needs {
    /// Connections held at once.
    pub connections: u64,
    /// Each has a heartbeat in this time.
    pub interval: Duration,
    /// Which ends are here.
    pub ends: Ends,
    /// Where the server listens; nothing where it is elsewhere.
    pub listen: Vec<SocketAddr>,
    /// The kernel picks the clients' ports, instead of the load generator.
    pub kernel_picks_ports: bool,
}

impl Needs {
    /// Sockets on this host.
    pub fn sockets(&self) -> u64 {
        self.connections * self.ends.per_connection()
    }

    /// Heartbeats a second.
    pub fn heartbeats_per_s(&self) -> f64 {
        self.connections as f64 / self.interval.as_secs_f64().max(1e-3)
    }

    /// Whether the server is here.
    pub fn has_server(&self) -> bool {
        self.ends != Ends::Clients
    }

    /// Whether the clients are here.
    pub fn has_clients(&self) -> bool {
        self.ends != Ends::Server
    }
}
