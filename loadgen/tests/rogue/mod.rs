//! A server that behaves, or misbehaves as it is told: a thread per connection, std only.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may as well panic")]

mod control;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use control::Sessions;

/// How long a drain tells clients to stay away.
pub const RETRY_AFTER: Duration = Duration::from_millis(400);

/// What WELCOME tells.
pub const INTERVAL_MS: u32 = 300;
/// What WELCOME tells.
pub const IDLE_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How a server treats its clients.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// Whether it answers HELLO.
    pub welcomes: bool,
    /// What it answers a PING with; `None`: never.
    pub pong: Option<&'static [u8]>,
    /// How late it does so.
    pub answers_after: Duration,
    /// Whether it writes its bytes one by one.
    pub dribbles: bool,
    /// The silence after which it closes a connection; `None`: never.
    pub expires_after: Option<Duration>,
    /// It closes its n-th client, healthy or not, this long after it came.
    pub closes: Option<(u32, Duration)>,
    /// It closes whoever comes after so many at once.
    pub takes_at_most: u32,
    /// How its control plane does what it is asked.
    pub control: Control,
}

/// How a control plane does what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// As it is asked.
    Good,
    /// It pushes nothing to its first three clients.
    Loses,
    /// It pushes everything twice.
    Doubles,
    /// It drains when it is asked to push.
    Confuses,
    /// It counts one acknowledgement too many.
    Boasts,
    /// It refuses.
    Refuses,
}

impl Manners {
    /// As the protocol demands.
    pub const GOOD: Manners = Manners {
        welcomes: true,
        pong: Some(&[0, 1, 4]),
        answers_after: Duration::ZERO,
        dribbles: false,
        expires_after: Some(IDLE_TIMEOUT),
        closes: None,
        takes_at_most: u32::MAX,
        control: Control::Good,
    };
}

/// Serves in the background until the test process ends.
pub fn serve(manners: Manners) -> SocketAddr {
    serve_with_admin(manners).0
}

/// The same; and where its control plane is.
pub fn serve_with_admin(manners: Manners) -> (SocketAddr, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let clients = Arc::new(AtomicU32::new(0));
    let sessions = Arc::new(Sessions::default());
    let admin = control::serve(manners.control, &sessions);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let number = clients.fetch_add(1, Ordering::Relaxed);
            if number >= manners.takes_at_most {
                continue;
            }
            let sessions = Arc::clone(&sessions);
            thread::spawn(move || {
                let stream = stream.unwrap();
                sessions.enter(number, &stream);
                attend(&stream, number, manners, &sessions);
                sessions.leave(number);
            });
        }
    });
    (address, admin)
}

/// One connection, to its end.
fn attend(stream: &TcpStream, number: u32, manners: Manners, sessions: &Sessions) {
    stream.set_nodelay(true).unwrap();
    let began = Instant::now();
    let mut heard = began;
    let mut bytes = [0; 64];
    loop {
        let expiry = manners.expires_after.map(|silence| heard + silence);
        let closing =
            manners.closes.filter(|&(who, _)| who == number).map(|(_, after)| began + after);
        let end = [expiry, closing].into_iter().flatten().min();
        let now = Instant::now();
        if end.is_some_and(|end| now >= end) {
            // Fails if the client has gone: so much the better.
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
        stream.set_read_timeout(end.map(|end| end - now)).unwrap();
        match (&mut &*stream).read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => {
                heard = Instant::now();
                if answer(stream, &bytes[..count], manners, sessions).is_err() {
                    return;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

/// The generator's messages come whole: they are short, and one at a time.
fn answer(
    stream: &TcpStream,
    mut bytes: &[u8],
    manners: Manners,
    sessions: &Sessions,
) -> std::io::Result<()> {
    while let [_, length, kind, ..] = *bytes {
        bytes = bytes.get(usize::from(length) + 2..).unwrap_or(&[]);
        let answer = match kind {
            1 if manners.welcomes => welcome(),
            3 => manners.pong.unwrap_or(&[]).to_vec(),
            _ => Vec::new(),
        };
        sessions.count(kind);
        if kind == 3 {
            thread::sleep(manners.answers_after);
        }
        let step = if manners.dribbles { 1 } else { answer.len().max(1) };
        for piece in answer.chunks(step) {
            (&mut &*stream).write_all(piece)?;
            if manners.dribbles {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
    Ok(())
}

fn welcome() -> Vec<u8> {
    let mut frame = vec![0, 17, 2, 0, 0, 0, 0, 0, 0, 0, 7];
    frame.extend(INTERVAL_MS.to_be_bytes());
    frame.extend((IDLE_TIMEOUT.as_millis() as u32).to_be_bytes());
    frame
}
