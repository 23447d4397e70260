//! heartwheel holds millions of mostly idle, heartbeating connections on a plain Linux box, finds
//! the dead ones exactly (never early, at most a tick late) at a cost that does not grow with the
//! living, and accounts for every byte and every session.
//!
//! ```text
//!  kernel ── completion ──▶ engine ── bytes, now ──▶ shard ── frame ──▶ policy ─┐
//!    ▲                        ▲                        │  touch(session, now)    │
//!    │                        │                        ▼                         │
//!    └──── submission ◀──── effects ◀──────────── sessions + sweeper ◀───────────┘
//!                                      advance(now): the expired come out here
//! ```
//!
//! # In which order to read
//! 1. [`engine::uring`]: the loop of one thread, from sleep to sleep.
//! 2. [`shard`]: the sans-IO core, which sees bytes and `now` and wants sends and closes. It reads
//!    no clock and knows no descriptor, so the same code runs under every engine and in tests.
//! 3. [`sweep`]: how the silent are found without looking at the rest.
//! 4. [`protocol`] and [`session`]: what the bytes mean, and what is kept of each client.
//! 5. [`ring`]: io_uring behind a safe face, and with it most of the `unsafe` that there is.
//!
//! [`engine::simulated`] runs 1 to 4 in a simulated kernel, in virtual time.
//!
//! [`engine::tokio_uring`] and [`engine::epoll`] are the same server with a task per connection, to
//! compare with; [`control`] is the admin HTTP beside the shards.
//!
//! [`server`] puts it together: listeners, one thread per shard, signals, the account at the end.
//! [`limits`] has every constant that bounds something.
//!
//! # Who may know whom
//! `limits, time, outgoing, vectors <- protocol, sweep, ring <- session <- shard <- engine <-
//! host, control <- server <- main`, each only those before it; `tests/tidy.rs` holds these walls
//! up.

// Only `ring`, `sys`, `vectors` and the vector code in `sweep` may be unsafe: forbidden elsewhere.
#[forbid(unsafe_code)]
pub mod cli;
#[forbid(unsafe_code)]
pub mod config;
#[forbid(unsafe_code)]
pub mod control;
#[forbid(unsafe_code)]
pub mod counters;
#[forbid(unsafe_code)]
pub mod engine;
#[forbid(unsafe_code)]
pub mod host;
#[forbid(unsafe_code)]
pub mod limits;
#[forbid(unsafe_code)]
pub mod logging;
#[forbid(unsafe_code)]
pub mod mutants;
#[forbid(unsafe_code)]
pub mod outgoing;
#[forbid(unsafe_code)]
pub mod protocol;
#[forbid(unsafe_code)]
pub mod report;
pub mod ring;
#[forbid(unsafe_code)]
pub mod server;
#[forbid(unsafe_code)]
pub mod session;
#[forbid(unsafe_code)]
pub mod shard;
#[forbid(unsafe_code)]
pub mod socket;
pub mod sweep;
pub mod sys;
#[forbid(unsafe_code)]
pub mod time;
#[forbid(unsafe_code)]
pub mod units;
pub mod vectors;
