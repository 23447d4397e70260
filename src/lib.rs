//! heartwheel
pub mod cli;
pub mod config;
pub mod engine;
pub mod host;
pub mod limits;
pub mod outgoing;
pub mod protocol;
pub mod report;
pub mod ring;
pub mod server;
pub mod session;
pub mod shard;
pub mod socket;
pub mod sweep;
pub mod time;
pub mod units;
