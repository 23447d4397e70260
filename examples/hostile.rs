//! Hostile clients, for `scripts/netns-lab`: what a server on the open network meets every day.
//!
//! `hostile tcp://ADDR:PORT KIND SECONDS [CONNECTIONS]` keeps so many connections of that kind
//! going, and prints one line of JSON that tells what it did. One thread, blocking connects,
//! everything else non-blocking; it ends by itself.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

const PING: &[u8] = &[0, 1, 3];
const PONG: &[u8] = &[0, 1, 4];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// So much is written at a time by those who write as fast as they can.
const FLOOD_BYTES: usize = 3 * 400;

/// What a connection does after it is open.
#[derive(Clone, Copy)]
enum Deed {
    /// Sends this at once, then waits for the end.
    Say(&'static [u8]),
    /// Sends this over and over, a byte at a time.
    Dribble(&'static [u8]),
    /// Sends this as fast as it goes, and reads what comes.
    Flood(&'static [u8]),
    /// The same, but reads nothing.
    NeverRead(&'static [u8]),
    /// Closes at once.
    Close,
    /// Sends a heartbeat and resets the connection.
    Reset,
}

const KINDS: &[(&str, Deed)] = &[
    ("byte-at-a-time", Deed::Dribble(PING)),
    ("half-a-frame", Deed::Say(&[0, 200, 7, 1, 2, 3])),
    ("mute", Deed::Say(&[])),
    ("oversize", Deed::Say(&[0xff, 0xff, 7, 1, 2, 3])),
    ("zero", Deed::Say(&[0, 0, 0, 0])),
    ("garbage", Deed::Say(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x99\x99\x99\x99\x99")),
    ("http-probe", Deed::Say(b"GET / HTTP/1.1\r\nHost: example\r\nUser-Agent: probe\r\n\r\n")),
    ("ping-flood", Deed::Flood(PING)),
    ("pong-flood", Deed::Flood(PONG)),
    ("never-read", Deed::NeverRead(&[0, 60, 7])),
    ("connect-close", Deed::Close),
    ("reset-storm", Deed::Reset),
];

/// One connection, and how far it has got.
struct Client {
    stream: TcpStream,
    said: usize,
}

#[derive(Default)]
struct Account {
    connected: u64,
    refused: u64,
    bytes_sent: u64,
    bytes_received: u64,
    ended_by_server: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, kind, seconds, rest @ ..] = &arguments[..] else {
        let kinds: Vec<_> = KINDS.iter().map(|(name, _)| *name).collect();
        return Err(format!(
            "usage: hostile tcp://ADDR:PORT KIND SECONDS [CONNECTIONS]; kinds: {}",
            kinds.join(", ")
        )
        .into());
    };
    let target: SocketAddr = target.trim_start_matches("tcp://").parse()?;
    let deed = KINDS.iter().find(|(name, _)| name == kind).ok_or("no such kind")?.1;
    let connections: usize = rest.first().map_or(Ok(200), |text| text.parse())?;
    let end = Instant::now() + Duration::from_secs_f64(seconds.parse()?);
    let mut account = Account::default();
    match deed {
        Deed::Close | Deed::Reset => come_and_go(target, deed, end, &mut account),
        _ => keep_going(target, deed, connections, end, &mut account)?,
    }
    report(kind, &account);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the account is what this program is for")]
fn report(kind: &str, account: &Account) {
    let Account { connected, refused, bytes_sent, bytes_received, ended_by_server } = account;
    println!(
        "{{\"kind\":\"{kind}\",\"connected\":{connected},\"refused\":{refused},\
         \"bytes_sent\":{bytes_sent},\"bytes_received\":{bytes_received},\
         \"ended_by_server\":{ended_by_server}}}"
    );
}

/// One connection after the other, as fast as it goes.
fn come_and_go(target: SocketAddr, deed: Deed, end: Instant, account: &mut Account) {
    while Instant::now() < end {
        let Some(mut stream) = connect(target, account) else { continue };
        if matches!(deed, Deed::Reset) {
            // It may be closed already: then there is nothing left to annoy.
            account.bytes_sent += stream.write(PING).unwrap_or(0) as u64;
        }
        // Closing by reset leaves no TIME_WAIT, which would use the ports up.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
}

fn connect(target: SocketAddr, account: &mut Account) -> Option<TcpStream> {
    match TcpStream::connect_timeout(&target, CONNECT_TIMEOUT) {
        Ok(stream) => {
            account.connected += 1;
            Some(stream)
        }
        Err(_) => {
            account.refused += 1;
            std::thread::sleep(Duration::from_millis(1));
            None
        }
    }
}

/// So many connections at a time; whoever is thrown out comes back.
fn keep_going(
    target: SocketAddr,
    deed: Deed,
    connections: usize,
    end: Instant,
    account: &mut Account,
) -> Result<(), Box<dyn Error>> {
    let mut clients: Vec<Client> = Vec::new();
    while Instant::now() < end {
        // A few at a time, so that those who are there get their turn.
        for _ in 0..connections.saturating_sub(clients.len()).min(50) {
            let Some(stream) = connect(target, account) else { break };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            clients.push(Client { stream, said: 0 });
        }
        let before = clients.len();
        clients.retain_mut(|client| client.turn(deed, account).is_ok());
        account.ended_by_server += (before - clients.len()) as u64;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The server has had enough of this one.
struct Ended;

impl Client {
    fn turn(&mut self, deed: Deed, account: &mut Account) -> Result<(), Ended> {
        match deed {
            Deed::Say(words) if self.said < words.len() => {
                self.write(&words[self.said..], account)?;
            }
            Deed::Dribble(words) => {
                let at = self.said % words.len();
                self.write(&words[at..=at], account)?;
            }
            Deed::Flood(words) => {
                let flood = words.repeat(FLOOD_BYTES / words.len());
                self.write(&flood[self.said % words.len()..], account)?;
            }
            Deed::NeverRead(header) => {
                let frame = [header, &[7; 59]].concat();
                let flood = frame.repeat(20);
                return self.write(&flood[self.said % frame.len()..], account);
            }
            Deed::Say(_) | Deed::Close | Deed::Reset => {}
        }
        self.read(account)
    }

    fn write(&mut self, bytes: &[u8], account: &mut Account) -> Result<(), Ended> {
        match self.stream.write(bytes) {
            Ok(count) => {
                self.said += count;
                account.bytes_sent += count as u64;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Ended),
        }
    }

    fn read(&mut self, account: &mut Account) -> Result<(), Ended> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(Ended),
            Ok(count) => {
                account.bytes_received += count as u64;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Ended),
        }
    }
}
