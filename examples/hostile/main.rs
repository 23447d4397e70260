//! Hostile clients, for `scripts/netns-lab`: what a server on the open network meets every day.
//!
//! `hostile tcp://ADDR:PORT KIND` keeps connections of that kind going at a rate, and prints one
//! line of JSON that tells what it did and what became of it. One thread; it ends by itself.

#![forbid(unsafe_code)]

mod account;
mod pace;
mod raw;
mod swarm;

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use account::Account;
use clap::{Parser, ValueEnum};
use pace::Pace;
use swarm::{Deed, Swarm};

const PING: &[u8] = &[0, 1, 3];
const PONG: &[u8] = &[0, 1, 4];
/// The header of a DATA frame of 4 KiB.
const DATA: &[u8] = &[0x10, 0, 7];

/// What is done. A rate counts connections, unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Sends heartbeats byte by byte; the rate counts bytes.
    ByteAtATime,
    /// Sends half a frame, and nothing more.
    HalfAFrame,
    /// Connects, and says nothing.
    Mute,
    /// Sends 64,000 bytes of a frame of 65,000, and nothing more.
    Hoard,
    /// Begins a frame that is too large.
    Oversize,
    /// Sends a frame of length 0.
    Zero,
    /// Sends 64 random bytes.
    Garbage,
    /// Speaks HTTP.
    HttpProbe,
    /// Sends 400 PINGs at a time; the rate counts PINGs.
    PingFlood,
    /// The same with PONGs.
    PongFlood,
    /// Sends 4 KiB of data at a time and reads nothing; the rate counts those.
    NeverRead,
    /// Closes as soon as it is open.
    ConnectClose,
    /// Sends a heartbeat and resets the connection.
    ResetStorm,
    /// A good client: its heartbeat is to be answered, then it closes.
    Newcomer,
    /// Sends SYNs from addresses that do not answer (--from).
    SynFlood,
    /// Sends SYNs to all ports in turn, and resets what answers.
    PortScan,
}

/// Hostile clients.
#[derive(Debug, Parser)]
struct Options {
    /// tcp://ADDR:PORT, IPv4
    target: String,
    kind: Kind,
    /// How long
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// At most so many connections at a time
    #[arg(short, long, default_value_t = 200)]
    connections: usize,
    /// So many a second; 0: as fast as it goes
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// So many at once
    #[arg(long, default_value_t = 1)]
    burst: u64,
    /// Connects a second, where the rate counts something else
    #[arg(long, default_value_t = 5_000)]
    connect_rate: u64,
    /// Connect from these addresses, A-B, in turn
    #[arg(long)]
    from: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let target: SocketAddrV4 = options.target.trim_start_matches("tcp://").parse()?;
    let from = options.from.as_deref().map(addresses).transpose()?.unwrap_or_default();
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(options.seconds);
    let pace = |per_action: u64| Pace::new(options.rate.div_ceil(per_action), options.burst, began);
    let account = match options.kind {
        Kind::SynFlood => raw::send_syns(target, &from, false, pace(1), end)?,
        Kind::PortScan => raw::send_syns(target, &from, true, pace(1), end)?,
        kind => {
            let deed = deed(kind);
            let (connects, writes) = match deed.writes_per_rate() {
                None => (pace(1), Pace::none(began)),
                Some(unit) => (Pace::new(options.connect_rate, 1, began), pace(unit)),
            };
            let mut swarm = Swarm::new(target.into(), from, deed, options.connections)?;
            swarm.run(connects, writes, end)?;
            swarm.account
        }
    };
    report(&account, began.elapsed().as_secs_f64().min(options.seconds));
    Ok(())
}

fn deed(kind: Kind) -> Deed {
    match kind {
        Kind::ByteAtATime => Deed::Dribble(PING),
        Kind::HalfAFrame => Deed::Say(vec![0, 200, 7, 1, 2, 3]),
        Kind::Hoard => Deed::Say([&65_000_u16.to_be_bytes()[..], &[7; 64_000]].concat()),
        Kind::Mute => Deed::Say(Vec::new()),
        Kind::Oversize => Deed::Say(vec![0xff, 0xff, 7, 1, 2, 3]),
        Kind::Zero => Deed::Say(vec![0; 4]),
        Kind::Garbage => Deed::Noise(64),
        Kind::HttpProbe => {
            Deed::Say(b"GET / HTTP/1.1\r\nHost: example\r\nUser-Agent: probe\r\n\r\n".to_vec())
        }
        Kind::PingFlood => Deed::Flood(PING.repeat(400)),
        Kind::PongFlood => Deed::Flood(PONG.repeat(400)),
        Kind::NeverRead => Deed::NeverRead([DATA, &[7; 4_095]].concat()),
        Kind::ConnectClose => Deed::Close,
        Kind::ResetStorm => Deed::Reset(PING),
        Kind::Newcomer | Kind::SynFlood | Kind::PortScan => Deed::Beat(PING),
    }
}

/// All addresses from A to B, as `A-B` has it.
fn addresses(range: &str) -> Result<Vec<Ipv4Addr>, Box<dyn Error>> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (Ipv4Addr, Ipv4Addr) = (first.parse()?, last.parse()?);
    let range = u32::from(first)..=u32::from(last);
    if range.is_empty() || range.end() - range.start() > 0xffff {
        return Err("--from: from the lower to the higher address, 65,536 at most".into());
    }
    Ok(range.map(Ipv4Addr::from).collect())
}

#[expect(clippy::print_stdout, reason = "the account is what this program is for")]
fn report(account: &Account, seconds: f64) {
    println!("{}", account.to_json(seconds));
}
