//! `loadgen diff`: two reports side by side.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

/// Compare two reports, and fail on a regression
#[derive(Clone, Debug, Args)]
pub struct Diff {
    /// The report to compare with
    pub old: PathBuf,
    /// The report to judge
    pub new: PathBuf,
}

impl Diff {
    /// Compares.
    pub fn run(&self) -> Result<u8> {
        bail!("diff is not there yet")
    }
}
