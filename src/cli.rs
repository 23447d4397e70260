//! The command line. Every flag of `serve` has a key of the same name in the TOML file; both are
//! parsed into one [`ServeArgs`], and what is not given stays `None`: defaults are `config`'s.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use serde::Deserialize;

use crate::sweep::Strategy;
use crate::units::{Bytes, Count, Span};

/// Holds millions of mostly idle, heartbeating connections and expires exactly the dead ones.
#[derive(Debug, Parser)]
#[command(name = "heartwheel", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The programs within the program.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server.
    #[command(after_help = SERVE_EXAMPLES, args_override_self = true)]
    Serve(Box<ServeArgs>),
    /// Make a ticket, by which a server with --auth-key lets its bearer in.
    Ticket(TicketArgs),
    /// Say what this host allows, and what so many connections need
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
}

/// The flags of `heartwheel ticket`.
#[derive(Debug, Args)]
pub struct TicketArgs {
    /// The server's --auth-key; its first key is used
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// How long it is good for
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    pub expires: Span,
    /// Whose it is
    #[arg(long, value_name = "NAME")]
    pub subject: Option<String>,
    /// It lets its bearer in once
    #[arg(long)]
    pub single_use: bool,
}

/// The flags of `heartwheel doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Connections that are to be held at once
    #[arg(short, long, value_name = "N", default_value = "100k")]
    pub connections: Count,
    /// Each sends a heartbeat in this time
    #[arg(short = 'i', long, value_name = "DURATION", default_value = "30s")]
    pub heartbeat_interval: Span,
    /// The clients (loadgen) run on this host too
    #[arg(long)]
    pub both_ends: bool,
    /// Only the clients run on this host, and the kernel picks their ports
    #[arg(long, conflicts_with = "both_ends")]
    pub clients: bool,
    /// Where the server will listen, as for serve; repeatable
    #[arg(long, value_name = "URL")]
    pub listen: Vec<String>,
    /// One line of JSON instead of text
    #[arg(long)]
    pub json: bool,
}

const DOCTOR_EXAMPLES: &str = "\
Examples:
  heartwheel doctor -c 1m
  heartwheel doctor -c 2m -i 40s --both-ends
  heartwheel doctor -c 200k --listen tcp://0.0.0.0:40000 --json

Each limit is told with its present value, the value needed, why, and the command that changes it.
STOPS: the connections will not be reached, or be lost under load; slows: they will, but slower.
What cannot be read (?) is told and not counted. docs/CAPACITY.md explains each limit.

Exit: 0 everything is enough, 1 something is not (STOPS or slows), 2 usage.";

const SERVE_EXAMPLES: &str = "\
Examples:
  heartwheel serve
  heartwheel serve --listen tcp://0.0.0.0:7400 --max-connections 1m --idle-timeout 90s
  heartwheel serve --config heartwheel.toml --log-heartbeats

When it is ready it prints one line of JSON on standard output, and another one with the final
counters when it has been stopped by SIGTERM or SIGINT. Logs go to standard error; RUST_LOG sets
their level (default: info).";

/// Declares the flags of `serve`, and how those of the command line win over those of a file.
macro_rules! serve_args {
    ($($(#[$meta:meta])* $name:ident: $type:ty,)+) => {
        /// The flags of `heartwheel serve`.
        #[derive(Debug, Default, Args, Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
        pub struct ServeArgs {
            $($(#[$meta])* pub $name: $type,)+
        }

        impl ServeArgs {
            /// `self`, and what it leaves open from `file`.
            pub fn or(self, file: ServeArgs) -> ServeArgs {
                ServeArgs { $($name: Merge::or(self.$name, file.$name),)+ }
            }
        }
    };
}

serve_args! {
    /// Listen here: tcp://ADDR:PORT or ws://ADDR:PORT, repeatable; port 0 picks one [default:
    /// tcp://127.0.0.1:7400 and ws://127.0.0.1:7401]
    #[arg(long, value_name = "URL")]
    listen: Vec<String>,
    /// The control plane's address, or off [default: 127.0.0.1:7480]
    #[arg(long, value_name = "ADDR:PORT|unix:PATH|off")]
    admin: Option<String>,
    /// Let the control plane listen where others can reach it
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    admin_public: Option<bool>,
    /// uring, tokio-uring, epoll, or auto: uring if it can be had, else epoll [default: uring]
    #[arg(long)]
    engine: Option<String>,
    #[doc = "How expired sessions are found."]
    #[arg(long, value_name = "NAME", help = sweep_help())]
    sweep: Option<String>,
    /// Threads, each with its own sessions [default: one per core]
    #[arg(long, value_name = "N")]
    shards: Option<usize>,
    /// io_uring instances per thread [default: as many as RLIMIT_NOFILE makes necessary]
    #[arg(long, value_name = "N")]
    rings_per_shard: Option<usize>,
    /// Connections beyond this are refused and counted [default: 100k]
    #[arg(long, value_name = "N")]
    max_connections: Option<Count>,
    /// Told to clients in WELCOME [default: 30s]
    #[arg(long, value_name = "DURATION")]
    heartbeat_interval: Option<Span>,
    /// The shortest interval that clients may ask for [default: 1s, or --heartbeat-interval if that
    /// is shorter]
    #[arg(long, value_name = "DURATION")]
    heartbeat_min: Option<Span>,
    /// The longest interval that clients may ask for [default: 10m, or --heartbeat-interval if that
    /// is longer]
    #[arg(long, value_name = "DURATION")]
    heartbeat_max: Option<Span>,
    /// The idle timeout of clients that ask for an interval, in intervals; for the others
    /// --idle-timeout holds [default: 3]
    #[arg(long, value_name = "FACTOR")]
    timeout_factor: Option<f64>,
    /// Tell clients that say HELLO other times for their heartbeats (ADJUST) where too many come at
    /// once; they have to know that frame
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    flatten: Option<bool>,
    /// A session silent for so long is expired: never early, at most a tick late [default: 90s]
    #[arg(long, value_name = "DURATION")]
    idle_timeout: Option<Span>,
    /// The granularity of expiry [default: 100ms]
    #[arg(long, value_name = "DURATION")]
    tick: Option<Span>,
    /// What counts as life: receive (bytes received), or any (also bytes sent) [default: receive]
    #[arg(long, value_name = "receive|any")]
    activity: Option<String>,
    /// Ping a client that was silent for a heartbeat interval, once, before it is given up
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    server_ping: Option<bool>,
    /// Give up nobody for his silence, not for half a frame either, nor for what he does not read:
    /// for debugging a client that stands at a breakpoint
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    no_expiry: Option<bool>,
    /// Log heartbeats too, 100 a second at most; other messages are logged at level debug
    /// (RUST_LOG=debug)
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    log_heartbeats: Option<bool>,
    /// A larger frame, or WebSocket message, is refused from its header; TCP's length field ends at
    /// 65535 [default: 64KiB]
    #[arg(long, value_name = "BYTES")]
    max_frame: Option<Bytes>,
    /// The first frame must be complete by then [default: 10s]
    #[arg(long, value_name = "DURATION")]
    hello_timeout: Option<Span>,
    /// A frame that was begun must be complete by then [default: 10s]
    #[arg(long, value_name = "DURATION")]
    frame_timeout: Option<Span>,
    /// TCP keepalive, e.g. 7200s,75s,9 (the kernel's own times) [default: off]
    #[arg(long, value_name = "IDLE,INTERVAL,COUNT|off")]
    keepalive: Option<String>,
    /// TCP_USER_TIMEOUT: how long sent data may stay unacknowledged [default: the kernel's]
    #[arg(long, value_name = "DURATION")]
    user_timeout: Option<Span>,
    /// Bytes that may wait for a client that does not read [default: 16KiB; with --echo
    /// four times --max-frame, and at least 1MiB]
    #[arg(long, value_name = "BYTES")]
    send_queue: Option<Bytes>,
    /// A client that takes no bytes for this long is closed [default: 15s]
    #[arg(long, value_name = "DURATION")]
    stall_timeout: Option<Span>,
    /// At SIGTERM clients are sent away over this time, each told when to come back [default: 0s]
    #[arg(long, value_name = "DURATION")]
    drain_spread: Option<Span>,
    /// A server that was told to stop ends after this in any case [default: 30s]
    #[arg(long, value_name = "DURATION")]
    drain_timeout: Option<Span>,
    /// Send data messages back unchanged (conformance and latency tests)
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    echo: Option<bool>,
    /// Let only those in who bring a ticket that was made with a key of this file, one a line (see
    /// docs/TICKETS.md)
    #[arg(long, value_name = "FILE", help_heading = "Admission")]
    auth_key: Option<PathBuf>,
    /// Sessions of one address, an IPv6 /64 counting as one; --engine uring needs Linux 6.7 for it
    /// [default: no limit]
    #[arg(long, value_name = "N", help_heading = "Admission")]
    max_per_ip: Option<Count>,
    /// Newcomers a second; more are refused and counted. Those that another limit turns away do not
    /// count [default: no limit]
    #[arg(long, value_name = "N", help_heading = "Admission")]
    accept_rate: Option<Count>,
    /// So many of them may come at once [default: what --accept-rate allows in a second]
    #[arg(long, value_name = "N", help_heading = "Admission")]
    accept_burst: Option<Count>,
    /// Connections from here begin with a header of the PROXY protocol, version 2, and count for
    /// the address that it names; --engine uring needs Linux 6.7 for it
    #[arg(long, value_name = "CIDR[,CIDR]", help_heading = "Admission")]
    proxy_from: Option<String>,
    /// Above this resident memory newcomers are refused and counted [default: no limit]
    #[arg(long, value_name = "BYTES", help_heading = "Admission")]
    memory_limit: Option<Bytes>,
    /// Read flags from this TOML file; those on the command line win
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Descriptor slots per ring [default: what --max-connections needs]
    #[arg(long, value_name = "N", help_heading = "Ring tuning")]
    ring_slots: Option<u32>,
    /// Completion queue entries per ring, a power of two [default: 8192]
    #[arg(long, value_name = "N", help_heading = "Ring tuning")]
    ring_completions: Option<u32>,
    /// Receive buffers per ring, a power of two [default: 256]
    #[arg(long, value_name = "N", help_heading = "Ring tuning")]
    ring_buffers: Option<u16>,
    /// The size of each receive buffer [default: 1KiB]
    #[arg(long, value_name = "BYTES", help_heading = "Ring tuning")]
    ring_buffer_size: Option<Bytes>,
    /// How idle connections wait: by a multishot poll, and a receive when it fires, or by a
    /// multishot receive (one operation less per heartbeat, 606 bytes more of kernel memory)
    /// [default: poll]
    #[arg(long, value_name = "poll|receive", help_heading = "Ring tuning")]
    arming: Option<String>,
    /// So many completions wake a sleeping shard at once [default: 64]
    #[arg(long, value_name = "N", help_heading = "Ring tuning")]
    wait_batch: Option<u32>,
    /// Fewer completions wake it after this [default: 1ms]
    #[arg(long, value_name = "DURATION", help_heading = "Ring tuning")]
    wait_min: Option<Span>,
}

/// The strategies there are, for `--help`.
fn sweep_help() -> String {
    let names: Vec<String> = Strategy::ALL.iter().map(ToString::to_string).collect();
    format!("How expired sessions are found: {} [default: {}]", names.join(", "), Strategy::DEFAULT)
}

/// The first of two that says something.
trait Merge {
    fn or(self, other: Self) -> Self;
}

impl<T> Merge for Option<T> {
    fn or(self, other: Self) -> Self {
        Option::or(self, other)
    }
}

impl<T> Merge for Vec<T> {
    fn or(self, other: Self) -> Self {
        if self.is_empty() { other } else { self }
    }
}
