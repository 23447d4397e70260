//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use heartwheel::engine::Arming;

use crate::commands::Command;
use crate::foreign::Foreign;
use crate::part::{self, Part};
use crate::plan::{Phase, share_of};
use crate::protocol::Protocol;
use crate::scenario::{self, Backoff, Event, Scenario};
use crate::slo::Slo;
use crate::target::{Target, parse_target};
use crate::units::{parse_count, parse_duration, parse_share};
use crate::{addresses, limits, slo};

/// Opens many heartbeating clients and judges the server by a plan made beforehand.
#[derive(Clone, Debug, Parser)]
#[command(name = "loadgen", args_conflicts_with_subcommands = true)]
pub struct Program {
    /// Something else than loading a server
    #[command(subcommand)]
    pub command: Option<Command>,

    /// What and how to load.
    #[command(flatten)]
    pub run: Cli,
}

const EXAMPLES: &str = "\
Examples:
  loadgen -c 10k
      10,000 clients on a server of its own, with that server's defaults
  loadgen -c 200k --connect-rate 40k -i 10s --idle-timeout 15s --silent 1% \\
          --slo 'expiry.lateness_ms.max<=200' --slo 'rtt.p99<50ms' -o report.json
      2,000 of 200,000 fall silent: these, and no others, must be expired
  loadgen --target tcp://127.0.0.1:7400 --server-pid $(pidof heartwheel) -c 50k -d 1m
      a server that runs already
  loadgen -c 20k -d 90s --at 10s:broadcast:1KiB --at 30s:storm:50% --slow 1% \
          --slo 'push.latency.max<5s' --slo 'events.1.recovered_after_ms<40000'
      a push to everybody, then half of them killed at once: they come back with backoff
  loadgen --target tcp://127.0.0.1:7400 --target-admin 127.0.0.1:7480 -d 90s --at 60s:drain \
          --reconnect exp:1s..30s,full-jitter
      everybody is told to go, and comes back no earlier than the server said
  loadgen -c 100k -i 10s -d 2m --html report.html
      the report as a page with plots, besides the text
  loadgen --target tcp://10.0.0.1:7400 -c 900k --part 2/3 --start-at 2026-01-31T12:00:00Z \
          -o part-2.json --hdr part-2.hdr
      the second of three generators that share a plan; `loadgen merge` joins what they report
  loadgen --target tcp://127.0.0.1:7400 --no-hello -i 10s -c 20k
      a bare echo that knows no HELLO
  loadgen --target mqtt://127.0.0.1 -i 4s --idle-timeout 12s --tick 10s --silent 5% -c 5k
      an MQTT broker: a keepalive of 8 s, so it may expire the silent after 12 s
  loadgen --target ws://127.0.0.1:8080/chat --ws-heartbeat control -i 4s -c 5k
      any WebSocket server
  loadgen --target tcp-line://127.0.0.1:6379 --line-send 'PING\\r\\n' --line-expect '+PONG\\r\\n' \\
          -i 2s --idle-timeout 5s --tick 2s --silent 1% -c 5k
      anything that answers lines by lines, like redis with `timeout 5`

On a terminal a live view is shown. Its keys: q ends the run early and in order (exit 105), p pauses
connecting, s is a storm and d a drain, as if by --at; 25s kills 25 %, 10d drains over 10 s.

Durations take us/ms/s/m/h, counts take k/m, shares take %.
Exit: 0 passed, 2 usage, 99 an SLO or a law failed, 100 the wanted number of connections was not
reached, 101 the generator itself was the bottleneck (the run is void), 105 interrupted.";

/// Opens many heartbeating clients and judges the server by a plan made beforehand.
#[derive(Clone, Debug, Parser)]
#[command(name = "loadgen", version, about, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// The server to load; without it, one is started and stopped here
    #[arg(
        long,
        value_name = "tcp://HOST:PORT|ws://HOST:PORT/PATH|mqtt://HOST:PORT|tcp-line://HOST:PORT",
        value_parser = parse_target
    )]
    pub target: Option<Target>,

    /// What to speak with the server that is started here
    #[arg(long, value_name = "tcp|ws", value_parser = parse_protocol, conflicts_with = "target")]
    pub protocol: Option<Protocol>,

    #[command(flatten)]
    pub foreign: Foreign,

    /// More flags for the server that is started here
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true, conflicts_with = "target")]
    pub server_args: Option<String>,

    /// The process to measure CPU and memory of, with --target
    #[arg(long, value_name = "PID", requires = "target")]
    pub server_pid: Option<u32>,

    /// The control plane of --target, for drains and broadcasts
    #[arg(long, value_name = "ADDR:PORT", requires = "target")]
    pub target_admin: Option<SocketAddr>,

    /// Clients
    #[arg(short, long, value_name = "N", default_value = "10k", value_parser = parse_count)]
    pub connections: u32,

    /// Clients that start to connect in a second
    #[arg(long, value_name = "N", default_value = "20k", value_parser = parse_count)]
    pub connect_rate: u32,

    /// A heartbeat when nothing was sent or received for this long [default: what the server says]
    #[arg(short, long, value_name = "D", value_parser = parse_duration)]
    pub interval: Option<Duration>,

    /// The share by which each interval is longer or shorter, at random
    #[arg(long, value_name = "P", default_value = "10%", value_parser = parse_share)]
    pub jitter: f64,

    /// Ask for that interval in HELLO, and keep what WELCOME answers, with the timeout that follows
    #[arg(long, requires = "interval", conflicts_with_all = ["no_hello", "idle_timeout"])]
    pub negotiate: bool,

    /// When clients beat first: at a random time within an interval, or all after one, as a herd
    #[arg(long, value_name = "uniform|herd", default_value = "uniform")]
    pub phase: Phase,

    /// The steady state, after all are open and warmed up
    #[arg(short, long, value_name = "D", default_value = "30s", value_parser = parse_duration)]
    pub duration: Duration,

    /// Not measured, before the steady state
    #[arg(long, value_name = "D", default_value = "0s", value_parser = parse_duration)]
    pub warmup: Duration,

    /// Local addresses to connect from [default: many of 127.0.0.0/8 for a loopback target]
    #[arg(long, value_name = "A,B-C")]
    pub source_ips: Option<String>,

    /// This share falls silent without closing when the steady state begins: exactly these must
    /// be expired
    #[arg(long, value_name = "P", default_value = "0%", value_parser = parse_share)]
    pub silent: f64,

    /// After this silence the server expires a client [default: what the server says; with mqtt://
    /// one and a half keepalives of -i]
    #[arg(long, visible_alias = "evict-after", value_name = "D", value_parser = parse_duration)]
    pub idle_timeout: Option<Duration>,

    /// How late the server may expire a client: its tick. One second more is allowed before that
    /// breaks a law
    #[arg(long, value_name = "D", default_value = "100ms", value_parser = parse_duration)]
    pub tick: Duration,

    /// How long opening one connection may take, WELCOME included
    #[arg(long, value_name = "D", default_value = "10s", value_parser = parse_duration)]
    pub open_timeout: Duration,

    /// Begin with a PING instead of HELLO; a connection is open as soon as TCP says so
    #[arg(long)]
    pub no_hello: bool,

    /// Whoever loses the connection comes back after a random time, doubled with every failure, and
    /// not before the server said; storms come back even without this
    #[arg(long, value_name = "exp:MIN..MAX,full-jitter", value_parser = scenario::parse_backoff)]
    pub reconnect: Option<Backoff>,

    /// Connections that are closed and opened again in a second
    #[arg(long, value_name = "N", default_value = "0", value_parser = parse_count)]
    pub churn: u32,

    /// This share reads nothing once it is open, and still sends its heartbeats
    #[arg(long, value_name = "P", default_value = "0%", value_parser = parse_share)]
    pub slow: f64,

    /// Data messages in a second, over all clients: each stands in for a heartbeat
    #[arg(long, value_name = "N", default_value = "0", value_parser = parse_count)]
    pub data: u32,

    /// What happens at a time of the steady state; repeatable
    #[arg(
        long,
        value_name = "TIME:storm:P|TIME:drain[:D]|TIME:broadcast:BYTES[:D]",
        value_parser = scenario::parse_event
    )]
    pub at: Vec<Event>,

    /// The plan is a function of it
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Play only this part of the plan: the K-th, from 1 on, of N generators that share it
    #[arg(long, value_name = "K/N", value_parser = part::parse_part)]
    #[arg(requires_all = ["start_at", "target"])]
    pub part: Option<Part>,

    /// Begin at this time, as RFC 3339 writes it or in seconds since 1970; common to all parts
    #[arg(long, value_name = "TIME", value_parser = part::parse_start_at)]
    pub start_at: Option<Duration>,

    /// Worker threads, each pinned to a core [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,

    /// How clients wait for what the server sends: by a receive that stays armed, or by a poll, for
    /// 448 bytes less of kernel memory each and a tenth more CPU
    #[arg(long, value_name = "receive|poll", default_value = "receive")]
    #[arg(value_parser = parse_arming)]
    pub arming: Arming,

    /// A bound for any number of the report, by its path: 'rtt.p99<5ms'; repeatable
    #[arg(long, value_name = "EXPRESSION", value_parser = slo::parse)]
    pub slo: Vec<Slo>,

    /// Write the report as JSON; `-` is standard output, which then holds nothing else
    #[arg(short = 'o', long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Write the report as a page with plots: one file that needs neither network nor scripts
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// Write an HdrHistogram interval log: a line for each second and tag (rtt, connect,
    /// send_lateness, expiry_lateness), in microseconds
    #[arg(long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,

    /// Plain progress lines even on a terminal
    #[arg(long)]
    pub no_live: bool,
}

impl Cli {
    /// What clap cannot check.
    ///
    /// # Errors
    /// The first thing that does not fit, with the cure.
    pub fn check(&self) -> Result<()> {
        ensure!(self.connections > 0, "-c must be at least 1");
        ensure!(self.connect_rate > 0, "--connect-rate must be at least 1 a second");
        ensure!(self.jitter < 1.0, "--jitter must be below 100 %");
        let zero = |duration: Option<Duration>| duration.is_some_and(|d| d.as_millis() == 0);
        ensure!(!zero(self.interval), "-i must be at least 1ms");
        ensure!(!zero(self.idle_timeout), "--idle-timeout must be at least 1ms");
        let spoken = self.spoken();
        if self.no_hello || spoken != Protocol::Tcp {
            let what = if self.no_hello { "--no-hello" } else { spoken.scheme() };
            ensure!(
                self.interval.is_some(),
                "{what} needs -i: without WELCOME the server cannot tell an interval"
            );
            let is_known = self.idle_timeout.is_some() || spoken == Protocol::Mqtt;
            ensure!(
                self.silent == 0.0 || is_known,
                "{what} with --silent needs --idle-timeout: without WELCOME the server cannot tell \
                 when it expires clients"
            );
        }
        if let (Some(interval), Some(timeout)) = (self.interval, self.idle_timeout) {
            ensure!(
                interval.mul_f64(1.0 + self.jitter) < timeout,
                "-i with its jitter must stay below --idle-timeout, or healthy clients are expired"
            );
        }
        self.foreign.check(self)?;
        self.check_scenario()?;
        self.check_part()?;
        for slo in &self.slo {
            slo.check(self.at.len())?;
        }
        self.source_addresses().map(drop)
    }

    fn check_scenario(&self) -> Result<()> {
        ensure!(
            self.at.len() <= limits::EVENTS_MAX,
            "at most {} events (--at) in a run",
            limits::EVENTS_MAX
        );
        if let Some(late) = self.at.iter().find(|event| event.at >= self.duration) {
            bail!(
                "--at {:?}: the steady state is over by then; raise -d above it (it is {:?})",
                late.at,
                self.duration
            );
        }
        if !Scenario::needs_admin(&self.at) {
            return Ok(());
        }
        ensure!(
            self.target.is_none() || self.target_admin.is_some(),
            "a drain or a broadcast is asked of the server's control plane: name it with \
             --target-admin ADDR:PORT"
        );
        let words = self.server_args.as_deref().unwrap_or("").replace('=', " ");
        let words: Vec<&str> = words.split_whitespace().collect();
        let off = words.windows(2).any(|pair| pair == ["--admin", "off"]);
        ensure!(
            !off,
            "a drain or a broadcast needs the server's control plane: leave --admin off out of \
             --server-args"
        );
        Ok(())
    }

    fn check_part(&self) -> Result<()> {
        self.start_at.map_or(Ok(()), part::check_start_at)?;
        if self.part.is_none() {
            return Ok(());
        }
        ensure!(self.own_connections() > 0, "--part has no clients: raise -c, or take fewer parts");
        ensure!(
            !Scenario::needs_admin(&self.at),
            "a drain or a broadcast is one request for the whole server, and each part would make \
             it: ask the server's control plane yourself"
        );
        Ok(())
    }

    /// The clients that are played here: all of them, unless there are other parts.
    pub fn own_connections(&self) -> u32 {
        self.own_part().clients(self.connections)
    }

    /// Which part of the plan is played here.
    pub fn own_part(&self) -> Part {
        self.part.unwrap_or(Part::WHOLE)
    }

    /// The protocol to speak.
    pub fn spoken(&self) -> Protocol {
        let of_target = self.target.as_ref().map(|target| target.protocol);
        of_target.or(self.protocol).unwrap_or(Protocol::Tcp)
    }

    /// The addresses of `--source-ips`; empty if there are none.
    ///
    /// # Errors
    /// If one is no address, or of another family than the target.
    pub fn source_addresses(&self) -> Result<Vec<IpAddr>> {
        let Some(text) = &self.source_ips else { return Ok(Vec::new()) };
        let addresses = addresses::parse_list(text).context("--source-ips")?;
        let v4 = self.target.as_ref().is_none_or(|target| target.address.is_ipv4());
        ensure!(
            addresses.iter().all(|address| address.is_ipv4() == v4),
            "--source-ips must be of the same family (IPv4 or IPv6) as the target"
        );
        Ok(addresses)
    }

    /// How many clients fall silent.
    pub fn silent_count(&self) -> u32 {
        share_of(self.connections, self.silent)
    }

    /// How many clients do not read.
    pub fn slow_count(&self) -> u32 {
        share_of(self.connections, self.slow)
    }

    /// How many workers there are: one per core, but never more than clients.
    pub fn workers(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or(cores, usize::from).min(self.own_connections() as usize)
    }
}

fn parse_protocol(text: &str) -> Result<Protocol> {
    let own = Protocol::ALL.into_iter().filter(|protocol| protocol.is_own());
    own.into_iter()
        .find(|protocol| protocol.scheme() == text)
        .context("heartwheel speaks tcp and ws: name a server of another protocol with --target")
}

fn parse_arming(text: &str) -> Result<Arming> {
    match text {
        "receive" => Ok(Arming::Receive),
        "poll" => Ok(Arming::Poll),
        _ => bail!("receive or poll"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(flags: &str) -> Result<()> {
        let words = std::iter::once("loadgen").chain(flags.split_whitespace());
        Program::try_parse_from(words)?.run.check()
    }

    #[test]
    fn good_and_bad_command_lines() {
        for good in [
            "",
            "-c 200k --connect-rate 40k -i 10s --idle-timeout 15s --silent 1%",
            "--target tcp://127.0.0.1:7 --no-hello -i 1s --slo rtt.p99<5ms --server-pid 1",
            "--server-args --tick=1s",
            "--protocol ws -i 10s --idle-timeout 15s --silent 1%",
            "--target ws://127.0.0.1:7/ -i 1s --ws-heartbeat control",
            "--at 1s:broadcast:64 --at 2s:storm:50% --at 3s:drain --churn 10 --slow 1% --data 5",
            "--at 1s:storm:5% --slo events.0.recovered_after_ms<30000 --slo push.latency.max<15s",
            "--target tcp://127.0.0.1:7 --target-admin 127.0.0.1:8 --at 1s:drain",
            "--reconnect exp:1s..30s,full-jitter",
            "find-capacity --max 50k --from 5k --slo rtt.p99<5ms -i 1s --settle 2s --steps 9",
            "diff a.json b.json --tolerance 5% --allow rtt.p99=25% --json",
            "merge a.json b.json --hdr a.hdr b.hdr -o c.json --html c.html --hdr-out c.hdr",
            "--source-ips 127.0.0.2-127.0.0.9 -o - --no-live --threads 1",
            "--target mqtt://127.0.0.1 -i 4s --evict-after 12s --silent 5% --mqtt-topic a/{client}",
            "--target mqtt://127.0.0.1 -i 4s --at 1s:storm:5% --churn 5 --data 5 --slow 1%",
            "--target tcp-line://127.0.0.1:7 -i 1s --line-send {seq}\\n --line-expect +{seq}\\n",
            "--target tcp-line://127.0.0.1:7 -i 1s --line-send a --line-expect b\\n \
             --line-hello c --line-welcome d\\n --idle-timeout 2s --silent 1%",
        ] {
            assert!(check(good).is_ok(), "{good}: {:?}", check(good));
        }
        for bad in [
            "-c 0",
            "--protocol ws",
            "--target http://127.0.0.1:7",
            "--target 127.0.0.1:7",
            "--target tcp://127.0.0.1:7 --server-args x",
            "--no-hello",
            "--no-hello -i 1s --silent 1% --target tcp://127.0.0.1:7",
            "-i 10s --idle-timeout 10s",
            "--silent 200%",
            "--source-ips ::1 --target tcp://127.0.0.1:7",
            "--slo rtt.p99",
            "--slo nonsense.p99<5ms",
            "--jitter 100%",
            "--at 1s:flood",
            "--at 30s:drain -d 30s",
            "--at 1s:drain --target tcp://127.0.0.1:7",
            "--at 1s:broadcast:64 --server-args=--admin=off",
            "--target-admin 127.0.0.1:8",
            "--reconnect linear",
            "--slo events.0.recovered_after_ms<1",
            "--part 1/2 --target tcp://127.0.0.1:7",
            "--start-at 2026-01-01T00:00:00Z",
            "-c 5 diff a.json b.json",
            "-c 5 find-capacity --max 5",
            "find-capacity --slo rtt.p99<5ms",
            "diff a.json",
            "--at 1s:storm:5% --slo events.1.recovered<1",
            "--ws-heartbeat control",
            "--protocol mqtt -i 1s",
            "--target ws://127.0.0.1:7 -i 1s --no-hello",
            "--target mqtt://127.0.0.1 -i 1s --negotiate",
            "--target mqtt://127.0.0.1 -i 1s --mqtt-topic {seq}",
            "--target mqtt://127.0.0.1 -i 1s --mqtt-topic \\xff",
            "--target mqtt://127.0.0.1 -i 1s --at 1s:drain --target-admin 127.0.0.1:8",
            "--target tcp://127.0.0.1:7 --mqtt-topic a",
            "--target tcp://127.0.0.1:7 --line-send a",
            "--target tcp-line://127.0.0.1:7 -i 1s --line-send a",
            "--target tcp-line://127.0.0.1:7 --line-send a --line-expect a\\n",
            "--target tcp-line://127.0.0.1:7 -i 1s --line-send a --line-expect a",
            "--target tcp-line://127.0.0.1:7 -i 1s --line-send a --line-expect a\\nb\\n",
            "--target tcp-line://127.0.0.1:7 -i 1s --line-send a --line-expect {seq}\\n",
            "--target tcp-line://127.0.0.1:7 -i 1s --line-send {seq} --line-expect {seq}0\\n",
            "--target tcp-line://127.0.0.1:7 -i 1s --line-send a --line-expect a\\n --data 1",
            "--target tcp-line://127.0.0.1:7 -i 1s --line-send a --line-expect a\\n --silent 1%",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
