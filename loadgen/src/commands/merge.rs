//! `loadgen merge`: one report out of those of several generators.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

/// Join the reports of several generators of one plan
#[derive(Clone, Debug, Args)]
pub struct Merge {
    /// Their reports
    #[arg(required = true)]
    pub reports: Vec<PathBuf>,
}

impl Merge {
    /// Joins.
    pub fn run(&self) -> Result<u8> {
        bail!("merge is not there yet")
    }
}
