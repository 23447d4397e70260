//! The `heartwheel` program: parse, then run.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser;
use heartwheel::cli::{Cli, Command, DoctorArgs, TicketArgs};
use heartwheel::config::{self, Config, ConfigError, listen_addresses};
use heartwheel::host::{Diagnosis, Ends, Needs};
use heartwheel::logging;
use heartwheel::protocol::ticket::Ticket;
use heartwheel::report::FinalLine;
use heartwheel::server;
use serde::Serialize;

/// The flags or the file are wrong.
const EXIT_USAGE: u8 = 2;
/// The server could not start, failed, or ended with an account that does not balance; or this
/// host is not enough.
const EXIT_FAILED: u8 = 1;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let _log = logging::init();
    match cli.command {
        Command::Serve(args) => {
            let config = match Config::load(*args) {
                Ok(config) => config,
                Err(error) => return complain(&error, EXIT_USAGE),
            };
            match server::run(&config, print_line) {
                Ok(last) => {
                    print_line(&last);
                    conclude(&last)
                }
                Err(error) => complain(&error, EXIT_FAILED),
            }
        }
        Command::Ticket(args) => match ticket(args) {
            Ok(token) => {
                let _ = writeln!(std::io::stdout(), "{token}");
                ExitCode::SUCCESS
            }
            Err(error) => complain(&error, EXIT_USAGE),
        },
        Command::Doctor(args) => examine(&args),
    }
}

/// Says which laws do not hold, if any.
fn conclude(last: &FinalLine) -> ExitCode {
    let broken = last.broken_laws();
    let mut stderr = std::io::stderr().lock();
    for law in &broken {
        let _ = writeln!(stderr, "heartwheel: the account does not balance: {law}");
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) }
}

/// Makes the ticket that was asked for.
fn ticket(args: TicketArgs) -> Result<String, ConfigError> {
    let keys = config::read_keys("key", &args.key)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let nonce = args.single_use.then(|| {
        let mut bytes = [0; 16];
        // Fails only if the kernel has none, which is for early boot.
        let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        format!("{:032x}", u128::from_ne_bytes(bytes))
    });
    let exp = now.saturating_add(args.expires.0).as_secs();
    Ok(keys.seal(&Ticket { exp, sub: args.subject, nonce }))
}

/// Says what this host allows; the exit code says whether it is enough.
fn examine(args: &DoctorArgs) -> ExitCode {
    let listen = match listen_addresses(&args.listen) {
        Ok(listen) => listen,
        Err(error) => return complain(&error, EXIT_USAGE),
    };
    let diagnosis = Diagnosis::of_this_host(&Needs {
        connections: args.connections.0.clamp(1, u64::from(u32::MAX)),
        interval: args.heartbeat_interval.0,
        ends: match (args.both_ends, args.clients) {
            (true, _) => Ends::Both,
            (_, true) => Ends::Clients,
            _ => Ends::Server,
        },
        listen: listen.iter().map(|listen| listen.address).collect(),
        kernel_picks_ports: args.clients,
    });
    if args.json {
        print_line(&diagnosis);
    } else {
        let mut stdout = std::io::stdout().lock();
        let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        // Nobody may be reading it any more: that is no failure.
        let _ = stdout.write_all(diagnosis.text(colour).as_bytes());
    }
    if diagnosis.enough { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) }
}

/// One line of JSON on standard output. Nobody may be reading it any more: that is no failure.
fn print_line(line: &impl Serialize) {
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

fn complain(error: &dyn std::error::Error, code: u8) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "heartwheel: {error}");
    ExitCode::from(code)
}
