//! `loadgen merge`: one report out of those of the generators that shared a plan (`--part K/N`).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::hdr::Logs;
use crate::report::{self, Report, RttOverTime};

const EXAMPLES: &str = "\
Examples:
  loadgen merge part-1.json part-2.json part-3.json -o all.json --html all.html
  loadgen merge a.json b.json --hdr a.hdr b.hdr -o all.json --hdr-out all.hdr

Exit: as the merged run would have; 2 if the reports are not all the parts of one plan.";

/// Join the reports of several generators of one plan
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Merge {
    /// The reports of all parts, in any order
    #[arg(required = true)]
    pub reports: Vec<PathBuf>,

    /// Their HDR logs, in the order of the reports: for percentiles over time, and for --hdr-out
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub hdr: Vec<PathBuf>,

    /// Write the report as JSON; `-` is standard output, which then holds nothing else
    #[arg(short = 'o', long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Write the report as a page with plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// Write the HDR logs as one
    #[arg(long, value_name = "FILE", requires = "hdr")]
    pub hdr_out: Option<PathBuf>,
}

impl Merge {
    /// Joins them; the exit code of the merged run.
    ///
    /// # Errors
    /// If they are not all the parts of one plan, or a file cannot be read or written.
    pub fn run(&self) -> Result<u8> {
        let read = |path: &PathBuf| report::read(path);
        let parts = self.reports.iter().map(read).collect::<Result<Vec<_>>>()?;
        let names: Vec<String> =
            self.reports.iter().map(|path| path.display().to_string()).collect();
        let texts = self.read_logs()?;
        let rtt = match texts.is_empty() {
            true => None,
            false => Some(self.join_logs(&texts, &parts)?),
        };
        let merged = report::merge(&names, parts, rtt.as_ref(), &report::command())?;
        if let Some(path) = &self.hdr_out {
            Logs::read(&texts)?.write(path)?;
        }
        report::deliver(&merged, self.report.as_deref(), self.html.as_deref())?;
        Ok(merged.exit_code)
    }

    fn read_logs(&self) -> Result<Vec<String>> {
        ensure!(
            self.hdr.is_empty() || self.hdr.len() == self.reports.len(),
            "{} HDR logs for {} reports: name one for each, in their order",
            self.hdr.len(),
            self.reports.len()
        );
        let read = |path: &PathBuf| fs::read_to_string(path).with_context(|| name(path));
        self.hdr.iter().map(read).collect()
    }

    /// The round trips of all logs over time, each log checked against its report.
    fn join_logs(&self, texts: &[String], reports: &[Report]) -> Result<RttOverTime> {
        let mut rtt = RttOverTime::default();
        for ((text, report), path) in texts.iter().zip(reports).zip(&self.hdr) {
            let logs = Logs::read(std::slice::from_ref(text)).with_context(|| name(path))?;
            let start_ms = logs.start.as_millis() as u64;
            let mut count = 0;
            let read = logs.join(|interval, tag, histogram| {
                if tag == "rtt" {
                    count += histogram.len();
                    rtt.add(start_ms + interval * 1_000, histogram);
                }
                Ok(())
            });
            read.with_context(|| name(path))?;
            ensure!(
                count == report.rtt_us.count,
                "{} holds {count} round trips and its report {}: is it the log of another run?",
                path.display(),
                report.rtt_us.count
            );
        }
        Ok(rtt)
    }
}

fn name(path: &Path) -> String {
    path.display().to_string()
}
