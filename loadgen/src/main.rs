//! `loadgen`: opens many heartbeating clients and judges the server by a plan made beforehand.
//!
//! Read in this order: [`run`], [`conductor`] (the phases), [`worker`] (the loop), [`plan`] and
//! [`schedule`] (who acts when), [`scenario`] (what happens beside), [`oracle`] (who had to be
//! expired), [`report`] (what comes of it). [`wire`] speaks the protocols, [`foreign`] knows what
//! is different about servers that are not heartwheel.

#![forbid(unsafe_code)]

mod addresses;
mod cli;
mod conductor;
mod crew;
mod foreign;
mod host;
mod latency;
mod limits;
mod live;
mod oracle;
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

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::cli::Cli;
use crate::report::Report;
use crate::server::RefusedFlags;

/// A bad command line.
const USAGE: u8 = 2;
/// The run could not be made.
const NOT_RUN: u8 = 1;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = cli.check() {
        return complain(&error, USAGE);
    }
    let report = match run::run(&cli) {
        Ok(report) => report,
        Err(error) if error.is::<RefusedFlags>() => return complain(&error, USAGE),
        Err(error) => return complain(&error, NOT_RUN),
    };
    match show(&cli, &report) {
        Ok(()) => ExitCode::from(report.exit_code),
        Err(error) => complain(&error, NOT_RUN),
    }
}

fn show(cli: &Cli, report: &Report) -> Result<()> {
    let json = serde_json::to_string_pretty(report).context("writing the report")?;
    let mut out = std::io::stdout();
    match cli.report.as_deref() {
        Some(file) if file == Path::new("-") => writeln!(out, "{json}")?,
        Some(file) => {
            write!(out, "{}", report::summary(report))?;
            fs::write(file, json + "\n").with_context(|| format!("writing {}", file.display()))?;
        }
        None => write!(out, "{}", report::summary(report))?,
    }
    if let Some(file) = &cli.html {
        let page = report::html(report);
        fs::write(file, page).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    // Nothing can be done about a standard error that is gone.
    let _ = writeln!(std::io::stderr(), "loadgen: {error:#}");
    ExitCode::from(code)
}
