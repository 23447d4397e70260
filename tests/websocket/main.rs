//! The WebSocket codec, by what it says to bytes.

mod client;
mod oracle;
mod rules;
mod upgrade;
