//! The log of a server whose peers try to write it themselves, and to fill it.

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{PATIENCE, PONG, Server, admin, count};

/// A server on TCP and WebSocket that logs whatever it can, and where its log is.
struct Logging {
    server: Server,
    websocket: String,
    file: PathBuf,
}

fn start(name: &str, flags: &[&str]) -> Logging {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.log"));
    let log = File::create(&file).expect("the log can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartwheel"));
    command
        .args(["serve", "--listen", "tcp://127.0.0.1:0", "--listen", "ws://127.0.0.1:0"])
        .args(["--shards", "1", "--admin", "127.0.0.1:0", "--log-heartbeats"])
        .args(flags)
        .env("RUST_LOG", "trace");
    let server = Server::spawn_logging(command, Stdio::from(log));
    let websocket = server.ready["listen"][1].as_str().expect("a second address");
    let websocket = websocket.trim_start_matches("ws://").to_owned();
    Logging { server, websocket, file }
}

/// What a line that a peer wrote would show.
const FORGED: &str = "FORGED";

/// Text that would begin a line of its own, clear the screen, ring, and hide.
const NASTY: &[u8] = b"\r\n2026-01-01T00:00:00Z  INFO FORGED\x1b[2J\x07\x00\xc2\x85\xe2\x80\xa8";

/// Says it to an address, and waits for whatever comes back.
fn say(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("can be set");
    // A refusal may come before all was said.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16 + 1;
    [&length.to_be_bytes()[..], &[kind], payload].concat()
}

#[test]
fn peers_write_no_lines_of_their_own() {
    let Logging { server, websocket, file } = start("peers", &["--echo"]);
    let tcp = server.address.to_string();
    let hello = [&[1, 0, 0, 0, 0], NASTY].concat();
    let told = [frame(1, &hello), frame(3, NASTY), frame(7, NASTY), frame(99, NASTY)].concat();
    say(&tcp, &told);
    say(&tcp, NASTY);
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // A masked text message, the mask of zeros; and the same as the reason of a close.
    let text = [&[0x81, 0x80 | NASTY.len() as u8, 0, 0, 0, 0], NASTY].concat();
    let request = format!("GET /?token=\x1b[2J{FORGED} HTTP/1.1\r\nHost: x\r\n{upgrade}");
    say(&websocket, &[request.as_bytes(), &text].concat());
    let fine = format!("GET /?token=%0aINFO%20{FORGED} HTTP/1.1\r\nHost: x\r\n{upgrade}");
    let close = [&[0x88, 0x80 | (2 + NASTY.len()) as u8, 0, 0, 0, 0, 3, 232], NASTY].concat();
    say(&websocket, &[fine.as_bytes(), &text, &close].concat());
    say(&websocket, &[b"GET /", NASTY].concat());
    let admin = server.ready["admin"].as_str().expect("an address").to_owned();
    say(&admin, &[b"GET /sessions/", NASTY, b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat());
    say(&admin, format!("GET /%0d%0aINFO%20{FORGED}%1b[2J HTTP/1.0\r\n\r\n").as_bytes());
    say(&admin, format!("POST /drain?spread=%0d%0a{FORGED} HTTP/1.0\r\n\r\n").as_bytes());
    let counters = server.stop();
    assert_eq!(count(&counters, &["data_received"]), 2, "what was legal was heard: {counters:#}");
    let log = fs::read_to_string(&file).expect("text");
    let mut heartbeats = 0;
    for line in log.lines() {
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(is_ours(line), "who wrote this? {line:?}");
        heartbeats += usize::from(line.contains("heartbeat"));
    }
    assert_eq!(heartbeats, 1, "heartbeats are logged: {log}");
}

/// Whether a line begins as ours do: `2026-11-26T03:33:04.123456Z  INFO heartwheel::`.
fn is_ours(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let time = words.next().is_some_and(|time| time.ends_with('Z') && time.contains('T'));
    let levels = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"];
    let level = words.next().is_some_and(|level| levels.contains(&level));
    let target = words.next().is_some_and(|target| target.ends_with(':') && target != FORGED);
    time && level && target
}

/// The number at the front of `7 more suppressed kind="heartbeat"`, in a line of the log.
fn told_of(line: &str) -> u64 {
    let front = line.split(" more suppressed").next().unwrap_or("");
    front.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[test]
fn a_kind_of_line_is_written_so_often_and_the_others_are_counted() {
    const BEATS: u64 = 3_000;
    let Logging { server, file, .. } = start("flood", &[]);
    let mut client = server.connect();
    for _ in 0..BEATS / 10 {
        client.send(&[0, 1, 3].repeat(10));
        assert_eq!(client.receive(30), PONG.repeat(10));
    }
    let (status, _) = admin(&server, "GET", "/healthz", b"");
    assert_eq!(status, 200);
    let metrics = metrics(&server);
    drop(client);
    server.stop();
    let log = fs::read_to_string(&file).expect("text");
    let is_heartbeat = |line: &&str| line.contains("heartbeat") && !line.contains("suppressed");
    let written = log.lines().filter(is_heartbeat).count() as u64;
    let of_heartbeats = log.lines().filter(|line| line.contains("suppressed kind=\"heartbeat\""));
    let suppressed: u64 = of_heartbeats.map(told_of).sum();
    assert_eq!(written + suppressed, BEATS, "every one was written or told of: {log}");
    assert!((100..BEATS).contains(&written), "{written} were written");
    assert_eq!(metrics, suppressed, "what the metrics show");
}

fn metrics(server: &Server) -> u64 {
    let address = server.ready["admin"].as_str().expect("an admin address");
    let mut stream = TcpStream::connect(address).expect("the control plane accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("can be set");
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers and closes");
    let name = "heartwheel_log_lines_suppressed_total ";
    let line = answer.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    line.parse().expect("a number")
}
