//! From flags and a TOML file to one typed, validated configuration. Whatever cannot work is
//! refused here, with the cure, before anything is opened.

mod access;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use self::access::read_keys;
use crate::cli::ServeArgs;
use crate::control::AdminAddress;
use crate::engine::{Arming, EngineKind, Tuning};
use crate::limits::{
    ACCEPTS_PER_TURN, ANSWER_TICKS_MIN, COMPLETION_ENTRIES, DRAIN_TIMEOUT, ECHO_QUEUE_BYTES_MIN,
    ECHO_QUEUE_FRAMES, HEARTBEAT_MAX, HEARTBEAT_MIN, RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS,
    RINGS_PER_SHARD_MAX, SHARDS_MAX, SLOTS_PER_RING_MAX, SPREAD_MAX, TICK_MIN, UNSENT_BYTES_MIN,
    WAIT_COMPLETIONS, WAIT_MIN,
};
use crate::protocol::Protocol;
use crate::protocol::ticket::KeyRing;
use crate::shard::{Activity, Bounds, Policy};
use crate::socket::{Keepalive, Listen, SocketOptions};
use crate::sweep::Strategy;
use crate::time::TickLength;
use crate::units::{Bytes, Count, Span};

/// Where to listen if nothing is said.
const LISTEN_DEFAULTS: [&str; 2] = ["tcp://127.0.0.1:7400", "ws://127.0.0.1:7401"];

/// Where the control plane listens if nothing is said.
const ADMIN_DEFAULT: &str = "127.0.0.1:7480";

/// The wire tells durations in 32 bits of milliseconds.
const MILLIS_MAX: Duration = Duration::from_millis(u32::MAX as u64);

/// TCP keepalive times end at this many seconds (`tcp(7)`).
const KEEPALIVE_SECONDS_MAX: u64 = 32_767;

/// Everything that `serve` needs to know.
#[derive(Debug)]
pub struct Config {
    /// Where to listen, and for what.
    pub listen: Vec<Listen>,
    /// The way to the kernel; `None`: io_uring if it can be had, else epoll.
    pub engine: Option<EngineKind>,
    /// Where the control plane listens, if at all.
    pub admin: Option<AdminAddress>,
    /// How expired sessions are found.
    pub sweep: Strategy,
    /// Threads; as many as there are usable cores if not given.
    pub shards: Option<usize>,
    /// Rings of each thread; as many as needed if not given.
    pub rings_per_shard: Option<usize>,
    /// Slots of each ring; as many as needed if not given.
    pub ring_slots: Option<u32>,
    /// Connections beyond this are refused.
    pub max_connections: usize,
    /// Whom to refuse beside.
    pub bounds: Bounds,
    /// What makes tickets, if they are asked for.
    pub keys: Option<KeyRing>,
    /// At SIGTERM clients are sent away over this time.
    pub drain_spread: Duration,
    /// A server that was told to stop ends after this in any case.
    pub drain_timeout: Duration,
    /// The rules of the shards.
    pub policy: Policy,
    /// What accepted sockets inherit.
    pub socket: SocketOptions,
    /// The ring engine's knobs; `slots` is filled in by the layout.
    pub tuning: Tuning,
}

/// A configuration that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value of a flag that means nothing, or nothing that exists.
    #[error("--{flag} {value}: {reason}")]
    Value {
        /// The flag, without its dashes.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// Values that contradict each other.
    #[error("{0}")]
    Conflict(String),
    /// The file could not be read.
    #[error("--config {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML of ours.
    #[error("--config {path}: {source}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
}

impl Config {
    /// Reads the file that `flags` name, if any, and makes a configuration of both.
    ///
    /// # Errors
    /// The first thing that cannot work.
    pub fn load(flags: ServeArgs) -> Result<Config, ConfigError> {
        let Some(path) = flags.config.clone() else { return Config::new(&flags) };
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ConfigError::File { path: path.clone(), source })?;
        let file = toml::from_str(&text)
            .map_err(|source| ConfigError::Toml { path, source: Box::new(source) })?;
        Config::new(&flags.or(file))
    }

    fn new(args: &ServeArgs) -> Result<Config, ConfigError> {
        let listen = listen_addresses(&args.listen)?;
        let sweep = match &args.sweep {
            None => Strategy::DEFAULT,
            Some(name) => name.parse().map_err(|error| value("sweep", name, error))?,
        };
        let policy = policy(args)?;
        let unsent_bytes = policy.send_queue_bytes.max(UNSENT_BYTES_MIN);
        let socket = SocketOptions {
            keepalive: args.keepalive.as_deref().map_or(Ok(None), parse_keepalive)?,
            user_timeout: args.user_timeout.map(|span| span.0),
            unsent_bytes_max: Some(u32::try_from(unsent_bytes).unwrap_or(u32::MAX)),
        };
        let count = args.max_connections.unwrap_or(Count(100_000)).0;
        let max_connections = usize::try_from(count).unwrap_or(usize::MAX);
        let keys = args.auth_key.as_deref().map(|path| read_keys("auth-key", path));
        let admin = args.admin.as_deref().unwrap_or(ADMIN_DEFAULT);
        let config = Config {
            listen,
            engine: parse_engine(args.engine.as_deref())?,
            admin: parse_admin(admin, args.admin_public.unwrap_or(false))?,
            sweep,
            shards: args.shards,
            rings_per_shard: args.rings_per_shard,
            ring_slots: args.ring_slots,
            max_connections,
            bounds: access::bounds(args, max_connections)?,
            keys: keys.transpose()?,
            drain_spread: args.drain_spread.map_or(Duration::ZERO, |span| span.0),
            drain_timeout: args.drain_timeout.map_or(DRAIN_TIMEOUT, |span| span.0),
            policy,
            socket,
            tuning: tuning(args)?,
        };
        config.check()?;
        Ok(config)
    }

    /// Whether it matters from where connections come.
    pub fn needs_addresses(&self) -> bool {
        self.bounds.per_address_max.is_some() || !self.policy.proxies.is_empty()
    }

    /// What no flag can tell by itself.
    fn check(&self) -> Result<(), ConfigError> {
        let policy = &self.policy;
        let conflict = |text: String| Err(ConfigError::Conflict(text));
        if policy.heartbeat_interval >= policy.idle_timeout {
            return conflict(format!(
                "--heartbeat-interval {:?} is not below --idle-timeout {:?}: healthy clients would \
                 be expired; a timeout of three intervals is usual",
                policy.heartbeat_interval, policy.idle_timeout
            ));
        }
        self.check_negotiation()?;
        if policy.idle_timeout < policy.tick.as_duration() {
            return conflict(format!(
                "--idle-timeout {:?} is below --tick {:?}: choose a tick of a tenth of the timeout",
                policy.idle_timeout,
                policy.tick.as_duration()
            ));
        }
        if policy.idle_timeout > MILLIS_MAX || policy.heartbeat_interval > MILLIS_MAX {
            return conflict(format!(
                "--idle-timeout and --heartbeat-interval end at {MILLIS_MAX:?}"
            ));
        }
        let answer_time = policy.idle_timeout - policy.heartbeat_interval;
        let answer_time_min = ANSWER_TICKS_MIN * policy.tick.as_duration();
        if policy.server_ping && answer_time < answer_time_min {
            return conflict(format!(
                "--server-ping leaves a client {answer_time:?} for its PONG, from \
                 --heartbeat-interval to --idle-timeout; it needs four times --tick, \
                 {answer_time_min:?}: choose a shorter interval or tick"
            ));
        }
        if self.drain_spread > self.drain_timeout || self.drain_timeout > SPREAD_MAX {
            return conflict(format!(
                "--drain-spread {:?} has to fit into --drain-timeout {:?}, and that ends at \
                 {SPREAD_MAX:?}",
                self.drain_spread, self.drain_timeout
            ));
        }
        let timeouts = [
            ("hello-timeout", policy.hello_timeout),
            ("frame-timeout", policy.frame_timeout),
            ("stall-timeout", policy.stall_timeout),
        ];
        for (flag, timeout) in timeouts {
            if timeout < policy.tick.as_duration() {
                let reason = "at least one --tick, or nobody could keep it";
                return Err(value(flag, &format!("{timeout:?}"), reason));
            }
        }
        range(
            "ring-slots",
            self.ring_slots.map(|slots| slots as usize),
            SLOTS_PER_RING_MAX as usize,
        )?;
        range("shards", self.shards, SHARDS_MAX)?;
        range("rings-per-shard", self.rings_per_shard, RINGS_PER_SHARD_MAX)?;
        range("max-connections", Some(self.max_connections), u32::MAX as usize)
    }

    /// What clients may ask for.
    fn check_negotiation(&self) -> Result<(), ConfigError> {
        let Policy { heartbeat_min, heartbeat_max, heartbeat_interval, timeout_factor, .. } =
            self.policy;
        // Not "at most 1": what is no number is neither.
        if !(timeout_factor > 1.0 && timeout_factor <= 1_000.0) {
            let reason =
                "above 1, or healthy clients would be expired, and 1000 at most; 3 is usual";
            return Err(value("timeout-factor", &timeout_factor.to_string(), reason));
        }
        let problem = if heartbeat_min < Duration::from_millis(1) {
            "--heartbeat-min is below 1ms, the unit in which intervals are told"
        } else if heartbeat_min > heartbeat_max {
            "--heartbeat-min is above --heartbeat-max: nothing lies between"
        } else if !(heartbeat_min..=heartbeat_max).contains(&heartbeat_interval) {
            "--heartbeat-interval does not lie between --heartbeat-min and --heartbeat-max: move \
             one of them"
        } else if heartbeat_max > MILLIS_MAX.div_f64(timeout_factor) {
            "--heartbeat-max times --timeout-factor is more than 49 days, which is where the \
             timeouts end that can be told: lower one of them"
        } else {
            return Ok(());
        };
        Err(ConfigError::Conflict(problem.to_owned()))
    }
}

fn policy(args: &ServeArgs) -> Result<Policy, ConfigError> {
    let defaults = Policy::default();
    let span = |given: Option<Span>, default: Duration| given.map_or(default, |span| span.0);
    let bytes = |given: Option<Bytes>, default: usize| {
        given.map_or(default, |bytes| usize::try_from(bytes.0).unwrap_or(usize::MAX))
    };
    let tick = span(args.tick, defaults.tick.as_duration());
    if tick < TICK_MIN {
        return Err(value("tick", &format!("{tick:?}"), format!("at least {TICK_MIN:?}")));
    }
    let activity = match args.activity.as_deref() {
        None | Some("receive") => Activity::Receive,
        Some("any") => Activity::Any,
        Some(other) => return Err(value("activity", other, "receive or any")),
    };
    let frame_bytes_max = bytes(args.max_frame, defaults.frame_bytes_max);
    if frame_bytes_max == 0 {
        return Err(value("max-frame", "0", "at least 1: a heartbeat has length 1"));
    }
    let echo = args.echo.unwrap_or(defaults.echo);
    let send_queue_bytes = match echo {
        // A client that sends some messages before it reads their echoes does no harm.
        true => frame_bytes_max.saturating_mul(ECHO_QUEUE_FRAMES).max(ECHO_QUEUE_BYTES_MIN),
        false => defaults.send_queue_bytes,
    };
    let heartbeat_interval = span(args.heartbeat_interval, defaults.heartbeat_interval);
    Ok(Policy {
        tick: TickLength::new(tick),
        heartbeat_interval,
        heartbeat_min: span(args.heartbeat_min, HEARTBEAT_MIN.min(heartbeat_interval)),
        heartbeat_max: span(args.heartbeat_max, HEARTBEAT_MAX.max(heartbeat_interval)),
        timeout_factor: args.timeout_factor.unwrap_or(defaults.timeout_factor),
        flatten: args.flatten.unwrap_or(defaults.flatten),
        auth: None,
        proxies: access::proxies(args.proxy_from.as_deref())?,
        idle_timeout: span(args.idle_timeout, defaults.idle_timeout),
        activity,
        expiry: !args.no_expiry.unwrap_or(false),
        server_ping: args.server_ping.unwrap_or(defaults.server_ping),
        hello_timeout: span(args.hello_timeout, defaults.hello_timeout),
        frame_timeout: span(args.frame_timeout, defaults.frame_timeout),
        stall_timeout: span(args.stall_timeout, defaults.stall_timeout),
        send_queue_bytes: bytes(args.send_queue, send_queue_bytes),
        frame_bytes_max,
        echo,
        log_heartbeats: args.log_heartbeats.unwrap_or(defaults.log_heartbeats),
    })
}

fn tuning(args: &ServeArgs) -> Result<Tuning, ConfigError> {
    let completion_entries = args.ring_completions.unwrap_or(COMPLETION_ENTRIES);
    if !completion_entries.is_power_of_two() || !(4..=1 << 16).contains(&completion_entries) {
        let reason = "a power of two from 4 to 65536";
        return Err(value("ring-completions", &completion_entries.to_string(), reason));
    }
    let buffers = args.ring_buffers.unwrap_or(RECEIVE_BUFFERS);
    if !buffers.is_power_of_two() || buffers > 1 << 15 {
        return Err(value("ring-buffers", &buffers.to_string(), "a power of two up to 32768"));
    }
    let buffer_bytes = args.ring_buffer_size.map_or(u64::from(RECEIVE_BUFFER_BYTES), |size| size.0);
    if !(16..=1 << 20).contains(&buffer_bytes) {
        return Err(value("ring-buffer-size", &buffer_bytes.to_string(), "16 bytes to 1MiB"));
    }
    let arming = match args.arming.as_deref() {
        None | Some("poll") => Arming::Poll,
        Some("receive") => Arming::Receive,
        Some(other) => return Err(value("arming", other, "poll or receive")),
    };
    Ok(Tuning {
        slots: 0,
        accepts_per_turn: ACCEPTS_PER_TURN,
        arming,
        completion_entries,
        buffers,
        buffer_bytes: buffer_bytes as u32,
        wait_completions: args.wait_batch.unwrap_or(WAIT_COMPLETIONS),
        wait_min: args.wait_min.map_or(WAIT_MIN, |span| span.0),
    })
}

fn parse_engine(name: Option<&str>) -> Result<Option<EngineKind>, ConfigError> {
    let name = match name {
        None => return Ok(Some(EngineKind::Uring)),
        Some("auto") => return Ok(None),
        Some(name) => name,
    };
    let found = EngineKind::ALL.into_iter().find(|kind| kind.name() == name);
    found.map(Some).ok_or_else(|| {
        let names = EngineKind::ALL.map(EngineKind::name).join(", ");
        value("engine", name, format!("no such engine; there are: {names}, auto"))
    })
}

/// `ADDR:PORT`, `unix:PATH` or `off`. Whoever reaches the control plane can close sessions, so an
/// address that others can reach must be asked for.
fn parse_admin(text: &str, public: bool) -> Result<Option<AdminAddress>, ConfigError> {
    if text == "off" {
        return Ok(None);
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Some(AdminAddress::Unix(PathBuf::from(path))));
    }
    let address: SocketAddr = text
        .parse()
        .map_err(|_| value("admin", text, "write it like 127.0.0.1:7480, unix:PATH or off"))?;
    if !address.ip().is_loopback() && !public {
        let reason = "others could reach it, and close sessions without being asked who they are; \
                      use a loopback address or unix:PATH, or say --admin-public";
        return Err(value("admin", text, reason));
    }
    Ok(Some(AdminAddress::Tcp(address)))
}

/// The addresses of `--listen`, or where to listen if nothing is said.
///
/// # Errors
/// The first that is none.
pub fn listen_addresses(urls: &[String]) -> Result<Vec<Listen>, ConfigError> {
    match urls.is_empty() {
        true => LISTEN_DEFAULTS.iter().map(|url| parse_listen(url)).collect(),
        false => urls.iter().map(|url| parse_listen(url)).collect(),
    }
}

fn parse_listen(url: &str) -> Result<Listen, ConfigError> {
    let parts = url.split_once("://");
    let protocol = parts.and_then(|(scheme, _)| {
        Protocol::ALL.into_iter().find(|protocol| protocol.scheme() == scheme)
    });
    let (Some((_, address)), Some(protocol)) = (parts, protocol) else {
        return Err(value("listen", url, "write it like tcp://127.0.0.1:7400 or ws://…"));
    };
    let address = address.parse().map_err(|_| {
        value("listen", url, "an IP address and a port are needed, like tcp://127.0.0.1:7400")
    })?;
    Ok(Listen { protocol, address })
}

fn parse_keepalive(text: &str) -> Result<Option<Keepalive>, ConfigError> {
    if text == "off" {
        return Ok(None);
    }
    let parts: Vec<&str> = text.split(',').collect();
    let parsed = match parts[..] {
        [idle, interval, count] => {
            match (idle.parse::<Span>(), interval.parse::<Span>(), count.parse::<u32>()) {
                (Ok(idle), Ok(interval), Ok(count)) => Some((idle.0, interval.0, count)),
                _ => None,
            }
        }
        _ => None,
    };
    match parsed {
        // The kernel counts these in whole seconds, up to 32,767 of them and 127 probes.
        Some((idle, interval, count))
            if (1..=KEEPALIVE_SECONDS_MAX).contains(&idle.as_secs())
                && (1..=KEEPALIVE_SECONDS_MAX).contains(&interval.as_secs())
                && (1..=127).contains(&count) =>
        {
            Ok(Some(Keepalive { idle, interval, count }))
        }
        _ => Err(value(
            "keepalive",
            text,
            "off, or IDLE,INTERVAL,COUNT like 7200s,75s,9 (32767s and 127 at most)",
        )),
    }
}

fn range(flag: &'static str, given: Option<usize>, max: usize) -> Result<(), ConfigError> {
    match given {
        Some(number) if number == 0 || number > max => {
            Err(value(flag, &number.to_string(), format!("1 to {max}")))
        }
        _ => Ok(()),
    }
}

fn value(flag: &'static str, value: &str, reason: impl fmt::Display) -> ConfigError {
    ConfigError::Value { flag, value: value.to_owned(), reason: reason.to_string() }
}
