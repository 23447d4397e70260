//! A server of our own: `heartwheel serve` as a child process, so that its CPU and memory are told
//! apart from the generator's.
//!
//! It prints one line of JSON when it is ready and one when it ends; its logs go to our standard
//! error.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::Value;

use crate::cli::Cli;
use crate::limits;
use crate::live::Live;
use crate::report::Law;
use crate::scenario::Scenario;

/// The server child. If it is dropped while it runs, it is killed.
pub struct Server {
    child: Child,
    lines: Receiver<String>,
    /// Who reads its standard error, if that is not ours.
    errors: Option<JoinHandle<()>>,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it said when it was ready.
    pub ready: Ready,
}

/// The server did not like its flags (it ended with 2): so neither do we.
#[derive(Debug, thiserror::Error)]
#[error("the server refused its flags; its complaint stands above")]
pub struct RefusedFlags;

/// The line that a server prints when it is ready.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Ready {
    /// Where it listens, as `tcp://ADDR:PORT` and so on.
    pub listen: Vec<String>,
    /// The engine that it runs.
    #[serde(default)]
    pub engine: String,
    /// Where its control plane is.
    pub admin: Option<String>,
    /// How it finds the dead.
    #[serde(default)]
    pub sweep: String,
}

/// The line that it prints when it ends.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Final {
    /// What it has counted.
    #[serde(default)]
    pub counters: Value,
    /// Its own laws.
    #[serde(default)]
    pub laws: Vec<Law>,
    /// Those of each of its shards.
    #[serde(default)]
    pub shards: Vec<ShardLaws>,
    /// How it ended, if not with success.
    #[serde(skip)]
    pub failure: Option<ExitStatus>,
}

/// The laws of one shard.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ShardLaws {
    /// As they hold in it alone.
    #[serde(default)]
    pub laws: Vec<Law>,
}

impl Server {
    /// Starts a server for the run that `cli` describes, and waits until it is ready.
    ///
    /// # Errors
    /// If it cannot be found or started, or ends instead of getting ready.
    pub fn start(cli: &Cli, live: &Live) -> Result<Server> {
        let program = program()?;
        let mut child = Command::new(&program)
            .args(arguments(cli, live.is_view())?)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // A view has the terminal for itself.
            .stderr(if live.is_view() { Stdio::piped() } else { Stdio::inherit() })
            // Ctrl-C is for us: the server is stopped after the clients have gone.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let errors = child.stderr.take().map(|errors| live.log().follow(errors));
        let lines = read_lines(child.stdout.take().context("the server has no standard output")?);
        let line = lines.recv_timeout(limits::SERVER_PATIENCE);
        let ready = line.map_err(|_| anyhow!("the server did not get ready")).and_then(|line| {
            serde_json::from_str::<Ready>(&line).with_context(|| format!("its ready line `{line}`"))
        });
        let ready = match ready {
            Ok(ready) => ready,
            Err(error) => {
                let _ = child.kill();
                let status = child.wait().context("waiting for the server")?;
                // Its complaint has to stand above ours.
                let _ = errors.map(JoinHandle::join);
                if status.code() == Some(2) {
                    return Err(RefusedFlags.into());
                }
                return Err(error.context(format!("{} ({status})", program.display())));
            }
        };
        let scheme = cli.spoken().scheme();
        let address = ready.listen.iter().find_map(|listen| {
            listen.split_once("://").filter(|(listened, _)| *listened == scheme)
        });
        let (_, address) =
            address.with_context(|| format!("the server listens on no {scheme}:// address"))?;
        let address = address.parse()?;
        Ok(Server { child, lines, errors, address, ready })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended without being asked to.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Where its control plane is.
    ///
    /// # Errors
    /// If it has none that can be spoken to by TCP.
    pub fn admin(&self) -> Result<SocketAddr> {
        let admin = self.ready.admin.as_deref().context("the server has no control plane")?;
        admin.parse().with_context(|| format!("its control plane `{admin}` is no ADDR:PORT"))
    }

    /// Asks it to end, if it has not, and returns its last words.
    ///
    /// # Errors
    /// If it does not end in time, or not with its last words.
    pub fn stop(mut self) -> Result<Final> {
        if self.ended().is_none() {
            let pid = Pid::from_raw(self.pid() as i32).context("the server has no pid")?;
            kill_process(pid, Signal::TERM).context("telling the server to end")?;
        }
        let deadline = Instant::now() + limits::SERVER_PATIENCE;
        let status = loop {
            match self.child.try_wait().context("waiting for the server")? {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    bail!("the server did not end within {:?} of SIGTERM", limits::SERVER_PATIENCE)
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        // The pipes are closed by now: this ends.
        let _ = self.errors.take().map(JoinHandle::join);
        let last = self.lines.iter().find(|line| line.contains("\"final\""));
        let line =
            last.with_context(|| format!("the server ended without last words ({status})"))?;
        let last: Final = serde_json::from_str(&line)
            .with_context(|| format!("the server's final line `{line}`"))?;
        Ok(Final { failure: (!status.success()).then_some(status), ..last })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Without effect if it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.errors.take().map(JoinHandle::join);
    }
}

fn program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program")?;
    let program = own.with_file_name("heartwheel");
    ensure!(
        program.is_file(),
        "{} does not exist: build it (cargo build --release --workspace), or name a server with \
         --target",
        program.display()
    );
    Ok(program)
}

/// What a server is started for: a tenth more than wanted, for clients whose source address was
/// taken knock twice.
pub fn connections_max(clients: u32) -> u64 {
    u64::from(clients) + u64::from(clients) / 10 + 100
}

/// The flags of the server; those in `--server-args` take the place of ours.
fn arguments(cli: &Cli, is_view: bool) -> Result<Vec<String>> {
    let extra: Vec<String> =
        cli.server_args.as_deref().unwrap_or("").split_whitespace().map(str::to_owned).collect();
    let millis = |duration: Duration| format!("{}ms", duration.as_millis());
    let most = connections_max(cli.connections);
    let admin = if is_view || Scenario::needs_admin(&cli.at) { "127.0.0.1:0" } else { "off" };
    let ours = [
        ("--listen", Some(format!("{}://127.0.0.1:0", cli.spoken().scheme()))),
        ("--admin", Some(admin.to_owned())),
        ("--max-connections", Some(most.to_string())),
        ("--heartbeat-interval", cli.interval.filter(|_| !cli.negotiate).map(millis)),
        ("--idle-timeout", cli.idle_timeout.map(millis)),
        ("--tick", Some(millis(cli.tick))),
    ];
    let mut arguments = vec!["serve".to_owned()];
    for (flag, value) in ours {
        let given = extra.iter().any(|word| {
            word == flag || word.strip_prefix(flag).is_some_and(|w| w.starts_with('='))
        });
        if let (Some(value), false) = (value, given) {
            arguments.extend([flag.to_owned(), value]);
        }
    }
    arguments.extend(extra);
    Ok(arguments)
}

fn read_lines(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn server_args_take_the_place_of_ours() {
        let cli = Cli::parse_from([
            "loadgen",
            "-c",
            "1k",
            "-i",
            "10s",
            "--server-args=--tick=1s --idle-timeout 20s",
        ]);
        let arguments = arguments(&cli, false).unwrap().join(" ");
        assert_eq!(
            arguments,
            "serve --listen tcp://127.0.0.1:0 --admin off --max-connections 1200 \
             --heartbeat-interval 10000ms --tick=1s --idle-timeout 20s"
        );
    }
}
