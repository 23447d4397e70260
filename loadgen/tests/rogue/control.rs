//! The control plane of the rogue: broadcasts, drains and accounts.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{Control, RETRY_AFTER};

/// Who is there, and what was acknowledged.
#[derive(Default)]
pub struct Sessions {
    streams: Mutex<BTreeMap<u32, TcpStream>>,
    requested: AtomicU64,
    acknowledged: AtomicU64,
}

impl Sessions {
    pub fn enter(&self, number: u32, stream: &TcpStream) {
        self.streams.lock().unwrap().insert(number, stream.try_clone().unwrap());
    }

    pub fn leave(&self, number: u32) {
        self.streams.lock().unwrap().remove(&number);
    }

    /// A frame of this kind has come.
    pub fn count(&self, kind: u8) {
        self.acknowledged.fetch_add(u64::from(kind == 6), Ordering::Relaxed);
    }

    fn drain(&self) {
        let mut goaway = vec![0, 7, 8, 0, 1];
        goaway.extend((RETRY_AFTER.as_millis() as u32).to_be_bytes());
        for stream in self.streams.lock().unwrap().values() {
            // Whoever has gone meanwhile need not be told.
            let _ = (&mut &*stream).write_all(&goaway);
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn broadcast(&self, control: Control, message: &[u8]) {
        let mut push = (message.len() as u16 + 9).to_be_bytes().to_vec();
        push.extend([5, 0, 0, 0, 0, 0, 0, 0, 9]);
        push.extend(message);
        if control == Control::Doubles {
            push.extend(push.clone());
        }
        let streams = self.streams.lock().unwrap();
        self.requested.fetch_add(streams.len() as u64, Ordering::Relaxed);
        let lost = if control == Control::Loses { 3 } else { 0 };
        for stream in streams.values().skip(lost) {
            let _ = (&mut &*stream).write_all(&push);
        }
    }

    fn account(&self, control: Control) -> String {
        let (requested, acknowledged) =
            (self.requested.load(Ordering::Relaxed), self.acknowledged.load(Ordering::Relaxed));
        let pending = requested.saturating_sub(acknowledged);
        let acknowledged = acknowledged + u64::from(control == Control::Boasts);
        let counts = format!(r#""requested":{requested},"acknowledged":{acknowledged}"#);
        format!(r#"{{"push_id":9,{counts},"unconfirmed":0,"pending":{pending},"dropped":{{}}}}"#)
    }
}

/// Serves in the background until the test process ends.
pub fn serve(control: Control, sessions: &Arc<Sessions>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let sessions = Arc::clone(sessions);
    thread::spawn(move || {
        for stream in listener.incoming() {
            answer(&mut stream.unwrap(), control, &sessions);
        }
    });
    address
}

fn answer(stream: &mut TcpStream, control: Control, sessions: &Sessions) {
    let Some((head, body)) = read_request(stream) else { return };
    let (code, text) = match head.split(['?', ' ']).nth(1).unwrap_or("") {
        _ if control == Control::Refuses => ("503 Service Unavailable", "not now".to_owned()),
        "/broadcast" if control == Control::Confuses => {
            sessions.drain();
            ("202 Accepted", sessions.account(control))
        }
        "/broadcast" => {
            sessions.broadcast(control, &body);
            ("202 Accepted", sessions.account(control))
        }
        "/drain" => {
            sessions.drain();
            ("202 Accepted", r#"{"draining":1}"#.to_owned())
        }
        "/pushes/9" => ("200 OK", sessions.account(control)),
        _ => ("404 Not Found", String::new()),
    };
    let _ = write!(stream, "HTTP/1.0 {code}\r\nContent-Length: {}\r\n\r\n{text}", text.len());
}

/// The head and the body of a request.
fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4_096];
    loop {
        let count = stream.read(&mut piece).ok().filter(|&count| count > 0)?;
        bytes.extend(&piece[..count]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
        if bytes.len() >= end + 4 + length {
            return Some((head, bytes.split_off(end + 4)));
        }
    }
}
