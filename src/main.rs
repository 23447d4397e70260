//! The `heartwheel` program: parse, then run.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser;
use heartwheel::cli::{Cli, Command, TicketArgs};
use heartwheel::config::{self, Config, ConfigError};
use heartwheel::protocol::ticket::Ticket;
use heartwheel::server;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

/// The flags or the file are wrong.
const EXIT_USAGE: u8 = 2;
/// The server could not start, failed, or ended with an account that does not balance.
const EXIT_FAILED: u8 = 1;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr();
    match cli.command {
        Command::Serve(args) => {
            let config = match Config::load(*args) {
                Ok(config) => config,
                Err(error) => return complain(&error, EXIT_USAGE),
            };
            match server::run(&config, print_line) {
                Ok(last) => {
                    print_line(&last);
                    if last.laws_hold() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) }
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
    }
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

fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .init();
}
