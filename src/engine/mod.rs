//! Engines: the only place that touches the kernel for connections.
//!
//! An engine turns completions into events of its [`Shard`](crate::shard::Shard), and the shard's
//! effects into submissions. One call runs one shard on one thread.
//!
//! # The contract with the shard
//! 1. The `now` of an event is read *after* its bytes had arrived: a session's silence is never
//!    counted from before its last byte.
//! 2. `advance(now)` only when everything that had arrived before `now` has been reported, so that
//!    a pause of the process expires nobody who has been sending all the while. A server that
//!    cannot keep up with reading expires late rather than wrongly.
//! 3. After `Effect::Close` the engine stops receiving, waits for what is in flight, closes, and
//!    then calls `released`, once.
//! 4. One send in flight per session.

pub mod epoll;
mod housekeeper;
mod hub;
mod layout;
mod mailbox;
pub mod simulated;
mod status;
pub mod tokio_uring;
pub mod uring;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

pub use self::hub::Link;
pub use self::layout::{DoesNotFit, Layout, TaskLayout, own_descriptors};
pub use self::mailbox::{Command, MailSender, Mailbox, mailbox};
pub use self::status::Status;
use crate::counters::counters;
use crate::protocol::Protocol;
use crate::protocol::address::PeerAddress;
use crate::ring::{RingCounters, RingError};
use crate::shard::{Counters, Law};
use crate::socket::{Listen, Listener, SocketOptions, join_listeners, listens_on};
use crate::sys;

/// The ways to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// Raw io_uring: multishot requests, direct descriptors, a group of rings per thread.
    Uring,
    /// A task per connection on tokio-uring.
    TokioUring,
    /// A task per connection on tokio, which uses epoll.
    Epoll,
}

impl EngineKind {
    /// All of them.
    pub const ALL: [EngineKind; 3] = [EngineKind::Uring, EngineKind::TokioUring, EngineKind::Epoll];

    /// The name in flags and reports.
    pub const fn name(self) -> &'static str {
        match self {
            EngineKind::Uring => "uring",
            EngineKind::TokioUring => "tokio-uring",
            EngineKind::Epoll => "epoll",
        }
    }

    /// Whether it needs io_uring.
    pub const fn needs_io_uring(self) -> bool {
        !matches!(self, EngineKind::Epoll)
    }
}

/// What an engine with a task per connection is given for one shard.
#[derive(Debug)]
pub struct TaskConfig {
    /// The core to run on, if the thread is to be pinned.
    pub core: Option<usize>,
    /// Where to listen; other shards listen there too.
    pub listen: Vec<Listen>,
    /// Listeners that are there already.
    pub inherited: Vec<Listener>,
    /// What accepted sockets inherit.
    pub socket: SocketOptions,
    /// Completion queue entries, for tokio-uring.
    pub completion_entries: u32,
    /// Where the counters are published.
    pub status: Arc<Status>,
}

impl TaskConfig {
    /// Pins the calling thread, gives it a descriptor table of its own, and opens its listeners in
    /// that. RLIMIT_NOFILE then bounds each shard, not the process.
    fn prepare_thread(&mut self) -> Result<Vec<(Protocol, TcpListener)>, EngineError> {
        let setup = |what| move |source| EngineError::Setup { what, source };
        if let Some(core) = self.core {
            pin_to(core).map_err(setup("pinning a thread"))?;
        }
        sys::leave_descriptor_table().map_err(setup("unshare(CLONE_FILES)"))?;
        let mut listeners = std::mem::take(&mut self.inherited);
        for &Listen { protocol, address } in &self.listen {
            if !listeners.iter().any(|listener| listens_on(listener, address)) {
                let socket = join_listeners(address, &self.socket).map_err(setup("listening"))?;
                listeners.push(Listener { protocol, socket });
            }
        }
        let as_tcp = |Listener { protocol, socket }| {
            let listener = TcpListener::from(socket);
            listener.set_nonblocking(true)?;
            Ok((protocol, listener))
        };
        listeners.into_iter().map(as_tcp).collect::<io::Result<_>>().map_err(setup("listening"))
    }
}

/// What the ring engine is given for one shard.
#[derive(Debug)]
pub struct EngineConfig {
    /// The core to run on, if the thread is to be pinned.
    pub core: Option<usize>,
    /// For each ring its listeners: all rings listen on the same addresses.
    pub listeners: Vec<Vec<Listener>>,
    /// Sizes of the rings and how patiently they wait.
    pub tuning: Tuning,
    /// Where the counters are published.
    pub status: Arc<Status>,
}

/// How the ring engine has the kernel wait for what a connection sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arming {
    /// A multishot receive: the bytes come with the completion.
    Receive,
    /// A multishot poll, and a receive when it fires: less kernel memory, one operation more.
    Poll,
}

/// The knobs of the ring engine, each measurable on its own.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Direct-descriptor slots per ring.
    pub slots: u32,
    /// Completion queue entries per ring.
    pub completion_entries: u32,
    /// Provided buffers per ring.
    pub buffers: u16,
    /// The size of each in bytes.
    pub buffer_bytes: u32,
    /// Connections that one listener of a ring accepts in a turn at most; 64 or fewer.
    pub accepts_per_turn: u32,
    /// How idle connections wait.
    pub arming: Arming,
    /// So many completions on the ring that sleeps wake it at once.
    pub wait_completions: u32,
    /// Fewer completions wake it after this.
    pub wait_min: Duration,
}

counters! {
    /// What an engine counts beside its shard.
    EngineCounters {
        /// Turns of the loop.
        turns: sum,
        /// Receives that ended because no buffer was free, and were armed again.
        receives_starved: sum,
        /// Receives that ended while their connection went on, and were armed again.
        receives_rearmed: sum,
        /// Times that accepting was paused because a table was full or nearly so.
        accepts_paused: sum,
        /// Accepts that failed for reasons of the network.
        accept_errors: sum,
        /// Receive buffers of all rings.
        buffers: gauge,
        /// Those among them that the kernel may fill, by its own count.
        buffers_free: gauge,
        /// Receive buffers that the engine holds; 0 between turns.
        buffers_held: gauge,
        /// Operations that have not had their last completion, as the state of the connections and
        /// listeners has it.
        operations_in_flight: gauge,
        /// Sweeps: one per tick, and one for each continuation.
        sweeps: sum,
        /// The median duration of a sweep in microseconds, in the slowest shard.
        sweep_us_p50: max,
        /// The 99th percentile of it.
        sweep_us_p99: max,
        /// The 99.9th percentile of it.
        sweep_us_p999: max,
        /// The longest sweep.
        sweep_us_max: max,
        /// CPU time of the shard's thread, in microseconds.
        cpu_us: sum,
        /// Turns after which something was left undone, so that nobody was expired.
        busy_turns: sum,
    }
}

/// An engine's account: while it runs, and when it has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineReport {
    /// The shard's counters.
    pub counters: Counters,
    /// The engine's own.
    pub engine: EngineCounters,
    /// The sum over its rings.
    pub ring: RingCounters,
}

impl EngineReport {
    /// The laws that hold between any two turns of the loop.
    pub fn laws(&self) -> Vec<Law> {
        let (engine, ring) = (&self.engine, &self.ring);
        let mut laws = self.counters.laws();
        laws.push(Law::new("receive buffers held = 0", engine.buffers_held, 0));
        // An engine without rings of its own has nothing to tell here, nor has a kernel before 6.8.
        if engine.buffers > 0 {
            let found = engine.buffers_free + engine.buffers_held;
            laws.push(Law::new("receive buffers = free + held", engine.buffers, found));
        }
        if ring.submissions > 0 {
            // A count that fell below 0 is far from right, and not worth a panic.
            let right = ring.terminal_completions.wrapping_add(engine.operations_in_flight);
            let name = "submissions = terminal completions + in flight";
            laws.push(Law::new(name, ring.submissions, right));
        }
        let unknown = ring.unknown_completions;
        laws.push(Law::new("completions that nobody asked for = 0", unknown, 0));
        laws
    }
}

/// Why an engine has ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A ring could not be made, or failed.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A system call of the set-up failed.
    #[error("{what} failed: {source}")]
    Setup {
        /// The step that failed.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// An address without its port, as limits see it.
fn peer_address(address: SocketAddr) -> PeerAddress {
    match address.ip() {
        IpAddr::V4(address) => PeerAddress::v4(address.octets()),
        IpAddr::V6(address) => PeerAddress::v6(address.octets()),
    }
}

fn pin_to(core: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// The CPU time that the calling thread has used, in microseconds.
fn thread_cpu_us() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// Whether an accept has failed for want of descriptors or memory: that passes, but not at once.
fn is_exhaustion(error: &io::Error) -> bool {
    let exhausted = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
    error.raw_os_error().is_some_and(|errno| exhausted.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An account that balances: 9 operations queued, 4 in flight, 6 of 8 buffers free.
    fn balanced() -> EngineReport {
        let mut report = EngineReport::default();
        (report.ring.submissions, report.ring.terminal_completions) = (9, 5);
        report.engine.operations_in_flight = 4;
        (report.engine.buffers, report.engine.buffers_free) = (8, 8);
        report
    }

    fn broken(change: impl Fn(&mut EngineReport)) -> Vec<String> {
        let mut report = balanced();
        change(&mut report);
        let laws = report.laws().into_iter().filter(|law| !law.holds);
        laws.map(|law| format!("{} ({} against {})", law.name, law.left, law.right)).collect()
    }

    #[test]
    fn the_laws_of_rings_can_be_broken_from_either_side() {
        assert_eq!(broken(|_| {}), Vec::<String>::new());
        let in_flight = "submissions = terminal completions + in flight";
        let forgotten = broken(|report| report.engine.operations_in_flight = 3);
        assert_eq!(forgotten, [format!("{in_flight} (9 against 8)")]);
        let below_zero = broken(|report| report.engine.operations_in_flight = u64::MAX);
        assert_eq!(below_zero, [format!("{in_flight} (9 against 4)")]);
        let twice = broken(|report| report.ring.terminal_completions += 1);
        assert_eq!(twice, [format!("{in_flight} (9 against 10)")]);
        let lost = broken(|report| report.engine.buffers_free = 7);
        assert_eq!(lost, ["receive buffers = free + held (8 against 7)"]);
        let kept = broken(|report| {
            (report.engine.buffers_free, report.engine.buffers_held) = (7, 1);
        });
        assert_eq!(kept, ["receive buffers held = 0 (1 against 0)"]);
        let unknown = broken(|report| report.ring.unknown_completions = 1);
        assert_eq!(unknown, ["completions that nobody asked for = 0 (1 against 0)"]);
    }

    #[test]
    fn an_engine_without_rings_says_nothing_of_them() {
        let laws = EngineReport::default().laws();
        assert!(laws.iter().all(|law| !law.name.contains("submissions")), "{laws:?}");
        assert!(laws.iter().all(|law| !law.name.contains("free")), "{laws:?}");
    }
}
