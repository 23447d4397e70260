//! A run of one load: this very program again, as a child process.
//!
//! So every run begins with memory, ports and counters of its own, and whatever kills it leaves the
//! search alive to say so.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::{ArgMatches, CommandFactory as _};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::limiter::{Limiter, Suspect};
use crate::cli::Cli;

/// What the search sets itself, or writes itself.
const OURS: [&str; 6] = ["connections", "duration", "report", "html", "hdr", "no_live"];

/// The last lines of its standard error, in case that it complains.
const LINES_KEPT: usize = 4;

/// How often an interrupt is looked for.
const LOOKS_EVERY: Duration = Duration::from_millis(100);

/// How a run ended.
pub enum Ran {
    /// It has a report.
    Reported(Box<Value>),
    /// It could not be made: its exit code, and its last lines.
    NotMade(Option<i32>, Vec<String>),
    /// A signal ended it.
    Killed(i32),
}

/// The flags of a run that were given, as they are given again.
pub fn flags(matches: &ArgMatches) -> Vec<OsString> {
    let mut words = Vec::new();
    let command = Cli::command();
    let flags = command.get_arguments().filter(|flag| !OURS.contains(&flag.get_id().as_str()));
    for flag in flags {
        let (id, Some(name)) = (flag.get_id().as_str(), flag.get_long()) else { continue };
        // What was not declared (`--help`) is not asked for.
        let given = matches.try_contains_id(id).is_ok_and(|given| given)
            && matches.value_source(id) == Some(clap::parser::ValueSource::CommandLine);
        if !given {
            continue;
        }
        if !flag.get_action().takes_values() {
            words.push(format!("--{name}").into());
            continue;
        }
        for value in matches.get_raw(id).into_iter().flatten() {
            let mut word = OsString::from(format!("--{name}="));
            word.push(value);
            words.push(word);
        }
    }
    words
}

/// Runs `load`; `line` is told each line of its progress.
///
/// # Errors
/// If there is no process to be had.
pub fn run(
    load: u32,
    duration: Duration,
    flags: &[OsString],
    interrupted: &AtomicBool,
    mut line: impl FnMut(&str),
) -> Result<Ran> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut child = Command::new(program)
        .args(["-c", &load.to_string(), "-d", &format!("{}ms", duration.as_millis())])
        .args(["--report", "-", "--no-live"])
        // Each step tells its own command.
        .env_remove(crate::report::STARTED_BY)
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting a run")?;
    let mut stdout = child.stdout.take().context("the run has no standard output")?;
    let stderr = child.stderr.take().context("the run has no standard error")?;
    let report = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).map(|_| bytes)
    });
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(stderr).lines().map_while(Result::ok);
        lines.map(|line| sender.send(line)).take_while(Result::is_ok).for_each(drop);
    });
    let mut last = VecDeque::new();
    let mut server = None;
    let (mut told, mut ended) = (false, None);
    // A run is bounded, and so is this.
    let status = loop {
        match lines.recv_timeout(LOOKS_EVERY) {
            Ok(text) => {
                line(&text);
                last.push_back(text);
                if last.len() > LINES_KEPT {
                    last.pop_front();
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break child.wait().context("waiting for it")?,
            Err(RecvTimeoutError::Timeout) => {}
        }
        // A server that outlives its run would hold the other end for ever.
        if let Some(status) = ended {
            break status;
        }
        ended = child.try_wait().context("waiting for it")?;
        server = server_of(&child).or(server);
        if interrupted.load(Ordering::Relaxed) && !std::mem::replace(&mut told, true) {
            // In good order: it stops its server. It may be gone already.
            let _ = kill_process(Pid::from_child(&child), Signal::TERM);
        }
    };
    if let Some(signal) = status.signal() {
        if let Some(server) = server {
            // Left behind, if it was one.
            let _ = kill_process(server, Signal::TERM);
        }
        return Ok(Ran::Killed(signal));
    }
    let report = report.join().map_err(|_| anyhow!("reading a report panicked"))?;
    let report = report.ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    Ok(match report {
        Some(report) => Ran::Reported(Box::new(report)),
        None => Ran::NotMade(status.code(), last.into()),
    })
}

/// The server that a run has started.
fn server_of(run: &Child) -> Option<Pid> {
    let path = format!("/proc/{0}/task/{0}/children", run.id());
    let children = std::fs::read_to_string(path).ok()?;
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}

/// What a run that could not be made ran into, if its complaint says so.
pub fn named_by_complaint(complaint: &[String]) -> Option<Suspect> {
    let limits = [
        ("RLIMIT_NOFILE", Limiter::Descriptors),
        ("Too many open files", Limiter::Descriptors),
        ("Cannot allocate memory", Limiter::Memory),
        ("out of memory", Limiter::Memory),
    ];
    limits.into_iter().find_map(|(words, limiter)| {
        let line = complaint.iter().find(|line| line.contains(words))?;
        Some(Suspect::certain(limiter, without_program(line)))
    })
}

/// `heartwheel: why` is why.
pub fn without_program(line: &str) -> &str {
    let programs = ["heartwheel: ", "loadgen: "];
    programs.into_iter().find_map(|program| line.strip_prefix(program)).unwrap_or(line)
}

/// What a signal that ended a run says. The OOM killer sends SIGKILL, and counts it; others may
/// have sent it too.
pub fn named_by_signal(signal: i32, oom_kills: u64) -> Suspect {
    if signal == Signal::KILL.as_raw() && oom_kills > 0 {
        let told = "the run was killed by SIGKILL, as the kernel does when memory runs out";
        return Suspect::certain(Limiter::Memory, told);
    }
    Suspect::certain(Limiter::Other, format!("the run was ended by signal {signal}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Program;

    #[test]
    fn a_run_is_given_the_flags_that_were_given_here() {
        let words = "loadgen find-capacity --max 5k -d 2s -i 300ms --slo rtt.p99<5ms \
                     --slo expiry.false==0 --no-hello --server-args=--tick=1s -o x.json --no-live";
        let matches = Program::command().get_matches_from(words.split_whitespace());
        let matches = matches.subcommand_matches("find-capacity").unwrap();
        let mut flags: Vec<_> =
            flags(matches).into_iter().map(|word| word.into_string().unwrap()).collect();
        flags.sort_unstable();
        assert_eq!(
            flags,
            [
                "--interval=300ms",
                "--no-hello",
                "--server-args=--tick=1s",
                "--slo=expiry.false==0",
                "--slo=rtt.p99<5ms",
            ]
        );
    }

    #[test]
    fn complaints_name_their_limit() {
        let named = |text: &str| named_by_complaint(&[text.to_owned(), "loadgen: x".to_owned()]);
        let limiter = |text: &str| named(text).map(|suspect| suspect.limiter);
        let rings = named("heartwheel: RLIMIT_NOFILE of 64 bounds each ring's table").unwrap();
        assert_eq!(rings.limiter, Limiter::Descriptors);
        assert_eq!(rings.evidence, "RLIMIT_NOFILE of 64 bounds each ring's table");
        assert_eq!(limiter("loadgen: Cannot allocate memory (os 12)"), Some(Limiter::Memory));
        assert_eq!(limiter("loadgen: unexpected argument '--x'"), None);
        assert_eq!(named_by_signal(9, 1).limiter, Limiter::Memory);
        assert_eq!(named_by_signal(9, 0).limiter, Limiter::Other);
        assert_eq!(named_by_signal(6, 0).limiter, Limiter::Other);
    }
}
