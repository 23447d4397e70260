//! What `loadgen` does besides loading a server: one module for each subcommand.

pub mod diff;
pub mod find_capacity;
pub mod merge;

use anyhow::Result;
use clap::Subcommand;

/// A subcommand; without one a server is loaded.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    Diff(diff::Diff),
    FindCapacity(Box<find_capacity::FindCapacity>),
    Merge(merge::Merge),
}

impl Command {
    /// Does it; what this program exits with.
    ///
    /// # Errors
    /// If it could not be done: what was given does not fit (the exit code is that of usage).
    pub fn run(&self) -> Result<u8> {
        match self {
            Command::Diff(diff) => diff.run(),
            Command::FindCapacity(find) => find.run(),
            Command::Merge(merge) => merge.run(),
        }
    }
}
