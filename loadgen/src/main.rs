//! `loadgen`: opens many heartbeating clients and judges the server by a plan made beforehand.
//!
//! Read in this order: [`run`], [`conductor`] (the phases), [`worker`] (the loop), [`plan`] and
//! [`schedule`] (who acts when), [`scenario`] (what happens beside), [`oracle`] (who had to be
//! expired), [`live`] (what is shown meanwhile, and [`by_hand`] what its keys do), [`report`] (what
//! comes of it). [`wire`] speaks the protocols, [`foreign`] knows what is different about servers
//! that are not heartwheel.

#![forbid(unsafe_code)]

mod addresses;
mod by_hand;
mod cli;
mod commands;
mod conductor;
mod crew;
mod detail;
mod foreign;
mod hdr;
mod host;
mod latency;
mod limits;
mod live;
mod oracle;
mod part;
mod plan;
mod protocol;
mod report;
mod run;
mod scenario;
mod schedule;
mod series;
mod server;
mod slo;
mod stats;
mod target;
mod units;
mod wire;
mod worker;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::Program;
use crate::server::RefusedFlags;

/// A bad command line.
const USAGE: u8 = 2;
/// The run could not be made.
const NOT_RUN: u8 = 1;

fn main() -> ExitCode {
    let Program { command, run: cli } = Program::parse();
    if let Some(command) = command {
        return command.run().map_or_else(|error| complain(&error, USAGE), ExitCode::from);
    }
    if let Err(error) = cli.check() {
        return complain(&error, USAGE);
    }
    let report = match run::run(&cli) {
        Ok(report) => report,
        Err(error) if error.is::<RefusedFlags>() => return complain(&error, USAGE),
        Err(error) => return complain(&error, NOT_RUN),
    };
    match report::deliver(&report, cli.report.as_deref(), cli.html.as_deref()) {
        Ok(()) => ExitCode::from(report.exit_code),
        Err(error) => complain(&error, NOT_RUN),
    }
}

fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    // Nothing can be done about a standard error that is gone.
    let _ = writeln!(std::io::stderr(), "loadgen: {error:#}");
    ExitCode::from(code)
}
