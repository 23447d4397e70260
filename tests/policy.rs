//! What clients and server agree on and who is let in, on real sockets and on every engine.

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Client, PATIENCE, PING, PONG, Server, count, on_every_engine};

on_every_engine! {
    and_by_receive:
    timeouts_that_were_negotiated_are_each_kept,
    a_websocket_asks_in_its_query_and_is_told_in_the_answer,
    a_herd_is_told_to_adjust,
    only_a_good_ticket_opens_a_tcp_session,
    only_a_good_ticket_upgrades_to_websocket,
    an_address_has_its_share,
    an_ipv6_64_is_one_address,
    newcomers_over_the_rate_are_refused_and_the_live_feel_nothing,
    limits_count_whom_a_trusted_proxy_speaks_for,
    a_proxy_header_from_a_stranger_is_an_illegal_probe,
    above_the_memory_limit_newcomers_are_refused_and_the_live_are_kept,
}

fn hello(interval_ms: u32, token: &str) -> Vec<u8> {
    let mut bytes = ((6 + token.len()) as u16).to_be_bytes().to_vec();
    bytes.extend([1, 1]);
    bytes.extend(interval_ms.to_be_bytes());
    bytes.extend(token.as_bytes());
    bytes
}

/// Says HELLO, and gives the interval and the timeout that WELCOME tells.
fn introduce(client: &mut Client, interval_ms: u32, token: &str) -> (u32, u32) {
    client.send(&hello(interval_ms, token));
    let welcome = client.receive(19);
    assert_eq!(welcome[..3], [0, 17, 2]);
    let number = |at: usize| u32::from_be_bytes(welcome[at..at + 4].try_into().expect("4 bytes"));
    (number(11), number(15))
}

/// A server that also speaks WebSocket; the address of that.
fn start_both(engine: &str, flags: &[&str]) -> (Server, SocketAddr) {
    let server = Server::start_on(engine, &[&["--listen", "ws://127.0.0.1:0"], flags].concat());
    let url = server.ready["listen"][1].as_str().expect("an address");
    let address = url.strip_prefix("ws://").expect("a URL").parse().expect("parses");
    (server, address)
}

/// The header of the answer to an upgrade, and the socket.
fn upgrade(address: SocketAddr, path: &str, more: &str) -> (String, TcpStream) {
    try_upgrade(address, path, more).expect("an answer")
}

fn try_upgrade(
    address: SocketAddr,
    path: &str,
    more: &str,
) -> std::io::Result<(String, TcpStream)> {
    let mut stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    Ok((String::from_utf8(answer).expect("text"), stream))
}

fn timeouts_that_were_negotiated_are_each_kept(engine: &str) {
    let flags = ["--heartbeat-interval", "400ms", "--idle-timeout", "1200ms", "--timeout-factor"];
    let bounds = ["2", "--heartbeat-min", "300ms", "--heartbeat-max", "1s"];
    let server = Server::start_on(engine, &[&flags[..], &bounds].concat());
    let cases = [(0, (400, 1_200)), (1, (300, 600)), (450, (450, 900)), (60_000, (1_000, 2_000))];
    let mut waiting: Vec<_> = cases
        .into_iter()
        .map(|(wanted, terms)| {
            let mut client = server.connect();
            assert_eq!(introduce(&mut client, wanted, ""), terms);
            let last_sent = Instant::now();
            client.heartbeat();
            client.stream.set_nonblocking(true).expect("can be set");
            (client, last_sent, Duration::from_millis(u64::from(terms.1)))
        })
        .collect();
    let mut order = Vec::new();
    while !waiting.is_empty() {
        assert!(waiting[0].1.elapsed() < PATIENCE, "everybody is expired");
        waiting.retain_mut(|(client, last_sent, timeout)| match client.stream.read(&mut [0; 1]) {
            Ok(0) => {
                let silent = last_sent.elapsed();
                assert!(silent >= *timeout, "early: {silent:?} of {timeout:?}");
                order.push(*timeout);
                false
            }
            Ok(_) => panic!("nobody asked for anything"),
            Err(_) => true,
        });
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(order.is_sorted(), "the shortest timeout ends first: {order:?}");
    let counters = server.stop();
    assert_eq!(count(&counters, &["closed", "expired"]), 4);
    assert_eq!(count(&counters, &["expired_early"]), 0);
}

fn a_websocket_asks_in_its_query_and_is_told_in_the_answer(engine: &str) {
    let (server, address) = start_both(engine, &["--heartbeat-max", "1m"]);
    let cases = [
        ("/", "30000", "90000"),
        ("/chat?heartbeat=20s", "20000", "60000"),
        ("/?x=1&heartbeat=1500ms&y", "1500", "4500"),
        ("/?heartbeat=1h", "60000", "180000"),
        ("/?heartbeat=0", "30000", "90000"),
    ];
    for (path, interval, timeout) in cases {
        let (answer, _stream) = upgrade(address, path, "");
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.contains(&format!("\r\nHeartbeat-Interval-Ms: {interval}\r\n")), "{answer}");
        assert!(answer.contains(&format!("\r\nIdle-Timeout-Ms: {timeout}\r\n")), "{answer}");
    }
    for path in ["/?heartbeat=soon", "/?adjust=maybe"] {
        let (answer, _stream) = upgrade(address, path, "");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    let (_, mut stream) = upgrade(address, "/?heartbeat=20s&adjust=1", "");
    let terms = br#"{"adjust":{"interval_ms":20000,"idle_timeout_ms":60000,"next_in_ms":20000}}"#;
    let mut told = vec![0; 2 + terms.len()];
    stream.read_exact(&mut told).expect("a page cannot see the fields of the answer");
    assert_eq!(told[2..], terms[..]);
    let counters = server.stop();
    assert_eq!(count(&counters, &["closed", "http_bad_request"]), 2);
}

fn a_herd_is_told_to_adjust(engine: &str) {
    let server = Server::start_on(engine, &["--flatten", "--heartbeat-interval", "10s"]);
    let mut clients: Vec<_> = (0..100).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(&hello(0, ""));
    }
    let mut adjusted = 0;
    for client in &mut clients {
        assert_eq!(client.receive(19)[..3], [0, 17, 2]);
        client.send(PING);
        let mut head = client.receive(3);
        while head == [0, 13, 9] {
            let body = client.receive(12);
            assert_eq!(body[..8], [10_000_u32.to_be_bytes(), 90_000_u32.to_be_bytes()].concat());
            let next_in_ms = u32::from_be_bytes(body[8..].try_into().expect("4 bytes"));
            assert!((1..=10_000).contains(&next_in_ms), "{next_in_ms}");
            adjusted += 1;
            head = client.receive(3);
        }
        assert_eq!(head, PONG);
    }
    assert!(adjusted >= 50, "most of a herd is moved: {adjusted}");
    let counters = server.stop();
    assert!(count(&counters, &["adjusts_sent"]) >= adjusted);
}

/// A file that is removed in the end.
struct TempFile(PathBuf);

impl TempFile {
    fn new(text: &str) -> TempFile {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("heartwheel-key-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("written");
        TempFile(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a plain path")
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn ticket(key: &TempFile, flags: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartwheel"));
    let output = command.args(["ticket", "--key", key.path()]).args(flags).output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

const KEY: &str = "the first key of this test\n\nan older key of this test\n";

fn only_a_good_ticket_opens_a_tcp_session(engine: &str) {
    let key = TempFile::new(KEY);
    let (old, other) =
        (TempFile::new("an older key of this test"), TempFile::new("another key 16"));
    let other_key = TempFile::new("another key, of sixteen bytes");
    drop(other);
    let server = Server::start_on(engine, &["--auth-key", key.path()]);
    let good = ticket(&key, &["--subject", "somebody"]);
    for token in [&good, &good, &ticket(&old, &[])] {
        let mut client = server.connect();
        introduce(&mut client, 0, token);
        client.heartbeat();
    }
    let once = ticket(&key, &["--single-use"]);
    introduce(&mut server.connect(), 0, &once);
    let refused = [
        (PING.to_vec(), "auth_missing"),
        (hello(0, ""), "auth_missing"),
        (hello(0, "a.b"), "auth_malformed"),
        (hello(0, &ticket(&other_key, &[])), "auth_forged"),
        (hello(0, &ticket(&key, &["--expires", "0s"])), "auth_expired"),
        (hello(0, &once), "auth_replayed"),
    ];
    for (bytes, reason) in &refused {
        let mut client = server.connect();
        client.send(bytes);
        assert_eq!(client.receive_to_end(), b"", "{reason}");
    }
    let counters = server.stop();
    for (_, reason) in &refused {
        let expected = refused.iter().filter(|other| other.1 == *reason).count() as u64;
        assert_eq!(count(&counters, &["closed", reason]), expected, "{reason}");
    }
    assert_eq!(counters["hellos_received"], 4);
}

fn only_a_good_ticket_upgrades_to_websocket(engine: &str) {
    let key = TempFile::new(KEY);
    let (server, address) = start_both(engine, &["--auth-key", key.path()]);
    let good = ticket(&key, &[]);
    let bearer = format!("Authorization: Bearer {good}\r\n");
    for (path, more) in [(format!("/?token={good}"), ""), ("/".to_owned(), bearer.as_str())] {
        let (answer, _stream) = upgrade(address, &path, more);
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    }
    let once = ticket(&key, &["--single-use"]);
    introduce(&mut server.connect(), 0, &once);
    let late = ticket(&key, &["--expires", "0s"]);
    let cases = [
        ("/".to_owned(), "", "auth_missing"),
        ("/".to_owned(), "Authorization: Basic dTpw\r\n", "auth_malformed"),
        ("/?token=".to_owned(), "", "auth_missing"),
        (format!("/?token={late}"), "", "auth_expired"),
        (format!("/?token={once}"), "", "auth_replayed"),
    ];
    for (path, more, reason) in &cases {
        let (answer, mut stream) = upgrade(address, path, more);
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        assert!(answer.contains("\r\nWWW-Authenticate: Bearer\r\n"), "{answer}");
        let mut body = String::new();
        stream.read_to_string(&mut body).expect("the rest");
        assert_eq!(body.trim(), *reason);
    }
    let counters = server.stop();
    assert_eq!(counters["upgrades"], 2);
    assert_eq!(count(&counters, &["closed", "auth_missing"]), 2);
    assert_eq!(count(&counters, &["closed", "auth_replayed"]), 1);
}

/// Tries until a newcomer gets an answer: a place is given back once its connection is closed.
fn await_place(mut attempt: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !attempt() {
        assert!(Instant::now() < deadline, "a place that is free is given away");
    }
}

fn connect_from(server: &Server, last: u8) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
    socket.bind(&from.into()).expect("loopback is wide");
    socket.connect(&server.address.into()).expect("the server accepts");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    Client { stream }
}

fn an_address_has_its_share(engine: &str) {
    let server = Server::start_on(engine, &["--max-per-ip", "3"]);
    let mut mine: Vec<_> = (0..3).map(|_| connect_from(&server, 7)).collect();
    mine.iter_mut().for_each(Client::heartbeat);
    for _ in 0..5 {
        assert_eq!(connect_from(&server, 7).receive_to_end(), b"");
    }
    let mut theirs: Vec<_> = (0..3).map(|_| connect_from(&server, 8)).collect();
    theirs.iter_mut().chain(&mut mine).for_each(Client::heartbeat);
    drop(mine.pop());
    await_place(|| {
        let mut client = connect_from(&server, 7);
        let mut reply = [0; 3];
        client.stream.write_all(PING).is_ok() && client.stream.read_exact(&mut reply).is_ok()
    });
    let counters = server.stop();
    assert!(count(&counters, &["rejected", "max_per_ip"]) >= 5, "{counters:#}");
    assert_eq!(count(&counters, &["opened"]), 7);
    assert_eq!(count(&counters, &["rejected", "address_unknown"]), 0);
}

#[expect(clippy::print_stderr, reason = "whoever runs it is told what was not tested")]
fn an_ipv6_64_is_one_address(engine: &str) {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("NOT TESTED: this host has no IPv6 loopback");
        return;
    }
    let flags = ["--max-per-ip", "2", "--listen", "tcp://[::1]:0"];
    let server = Server::start_on(engine, &flags);
    let url = server.ready["listen"][1].as_str().expect("an address");
    let address: SocketAddr = url.strip_prefix("tcp://").expect("a URL").parse().expect("parses");
    let connect = || {
        let stream = TcpStream::connect(address).expect("the server accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        Client { stream }
    };
    let mut clients = [connect(), connect()];
    clients.iter_mut().for_each(Client::heartbeat);
    assert_eq!(connect().receive_to_end(), b"");
    server.connect().heartbeat();
    clients.iter_mut().for_each(Client::heartbeat);
    let counters = server.stop();
    assert_eq!(count(&counters, &["rejected", "max_per_ip"]), 1, "{counters:#}");
    assert_eq!(count(&counters, &["opened"]), 3);
}

fn newcomers_over_the_rate_are_refused_and_the_live_feel_nothing(engine: &str) {
    let server = Server::start_on(engine, &["--accept-rate", "1", "--accept-burst", "4"]);
    let mut live: Vec<_> = (0..4).map(|_| server.connect()).collect();
    live.iter_mut().for_each(Client::heartbeat);
    let refused = (0..50).filter(|_| !try_to(&server)).count() as u64;
    assert!(refused >= 20, "{refused} of 50");
    live.iter_mut().for_each(Client::heartbeat);
    await_place(|| {
        std::thread::sleep(Duration::from_millis(50));
        try_to(&server)
    });
    let counters = server.stop();
    assert!(count(&counters, &["rejected", "accept_rate"]) >= refused, "{counters:#}");
}

/// Whether a newcomer gets an answer rather than an end.
fn try_to(server: &Server) -> bool {
    let mut client = server.connect();
    let mut reply = [0; 3];
    client.stream.write_all(PING).is_ok() && client.stream.read_exact(&mut reply).is_ok()
}

fn proxy_header(last: u8) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    bytes.extend([192, 0, 2, last, 10, 0, 0, 1, 0x80, 0, 0x1c, 0xe8]);
    bytes
}

fn limits_count_whom_a_trusted_proxy_speaks_for(engine: &str) {
    let flags = ["--max-per-ip", "1", "--proxy-from", "127.0.0.0/8,fd00::/8", "--hello-timeout"];
    let server = Server::start_on(engine, &[&flags[..], &["400ms"]].concat());
    let mut live = Vec::new();
    for last in 1..=3 {
        let mut client = server.connect();
        client.send(&[proxy_header(last), PING.to_vec()].concat());
        assert_eq!(client.receive(3), PONG);
        live.push(client);
    }
    let mut second = server.connect();
    second.send(&[proxy_header(1), PING.to_vec()].concat());
    assert_eq!(second.receive_to_end(), b"", "192.0.2.1 has its session");
    let mut without = server.connect();
    without.send(PING);
    assert_eq!(without.receive_to_end(), b"");
    let mut slow = server.connect();
    slow.send(&proxy_header(9)[..20]);
    assert_eq!(slow.receive_to_end(), b"");
    live.iter_mut().for_each(Client::heartbeat);
    let counters = server.stop();
    assert_eq!(count(&counters, &["closed", "max_per_ip"]), 1, "{counters:#}");
    assert_eq!(count(&counters, &["closed", "proxy_malformed"]), 1);
    assert_eq!(count(&counters, &["closed", "hello_timeout"]), 1);
    assert_eq!(counters["proxy_headers_received"], 4);
}

fn a_proxy_header_from_a_stranger_is_an_illegal_probe(engine: &str) {
    for flags in [&["--proxy-from", "10.0.0.0/8"][..], &[]] {
        let (server, address) = start_both(engine, flags);
        let mut client = server.connect();
        client.send(&[proxy_header(1), PING.to_vec()].concat());
        assert_eq!(client.receive_to_end(), b"");
        let mut stream = TcpStream::connect(address).expect("the server accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.write_all(&proxy_header(1)).expect("the server reads");
        let mut client = Client { stream };
        assert!(client.receive_to_end().starts_with(b"HTTP/1.1 400 "));
        let counters = server.stop();
        assert_eq!(count(&counters, &["closed", "illegal_kind_unknown"]), 1, "{counters:#}");
        assert_eq!(count(&counters, &["closed", "http_bad_request"]), 1);
    }
}

/// Messages that are begun and not completed take memory, which is given back when they are.
fn above_the_memory_limit_newcomers_are_refused_and_the_live_are_kept(engine: &str) {
    const MESSAGE_BYTES: usize = 4 << 20;
    let flags = ["--memory-limit", "40MiB", "--max-frame", "16MiB", "--frame-timeout", "1m"];
    let (server, address) = start_both(engine, &flags);
    let mut live = server.connect();
    live.heartbeat();
    let mut eaters = Vec::new();
    let chunk = vec![0; MESSAGE_BYTES];
    while try_to(&server) {
        assert!(eaters.len() < 40, "the limit holds");
        // The limit may be reached just now: then this one is refused, as the next will be.
        let Ok((answer, mut stream)) = try_upgrade(address, "/", "") else { continue };
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        stream.write_all(&[0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]).expect("a header");
        stream.write_all(&chunk).expect("the server reads");
        eaters.push(stream);
        std::thread::sleep(Duration::from_millis(150));
    }
    live.heartbeat();
    drop(eaters);
    await_place(|| {
        std::thread::sleep(Duration::from_millis(50));
        try_to(&server)
    });
    live.heartbeat();
    let counters = server.stop();
    assert!(count(&counters, &["rejected", "memory_limit"]) >= 1, "{counters:#}");
}
