//! The control plane, spoken to byte by byte: what it tells, and what it refuses.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{PATIENCE, Server};
use serde_json::Value;

/// Sends `request` as it is and reads until the end: the status and the body.
fn exchange(server: &Server, request: &str) -> (u16, String) {
    let address = server.ready["admin"].as_str().expect("an admin address");
    let mut stream = TcpStream::connect(address).expect("the control plane accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("can be set");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers and closes");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.unwrap_or_else(|| panic!("a status line: {answer:?}")), body.to_owned())
}

fn call(server: &Server, method: &str, path: &str) -> (u16, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    exchange(server, &request)
}

/// A client that has said HELLO, and its session's id.
fn welcomed(server: &Server) -> (common::Client, String) {
    let mut client = server.connect();
    client.send(&[0, 6, 1, 1, 0, 0, 0, 0]);
    let welcome = client.receive(19);
    let id = welcome[3..11].iter().map(|byte| format!("{byte:02x}")).collect();
    (client, id)
}

#[test]
fn health_and_readiness_are_told() {
    let server = Server::start(&[]);
    assert_eq!(call(&server, "GET", "/healthz").0, 200);
    assert_eq!(call(&server, "GET", "/readyz"), (200, "ready\n".to_owned()));
    server.stop();
}

#[test]
fn stats_balance_while_the_server_runs() {
    let server = Server::start(&[]);
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.heartbeat();
    }
    std::thread::sleep(Duration::from_millis(300));
    let (status, body) = call(&server, "GET", "/stats");
    assert_eq!(status, 200);
    let stats: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(stats["counters"]["open"], 20);
    assert_eq!(stats["counters"]["heartbeats_answered"], 20);
    assert_eq!(stats["engine"], "uring");
    let laws = stats["laws"].as_array().expect("laws");
    assert!(laws.len() >= 6 && laws.iter().all(|law| law["holds"] == true), "{stats:#}");
    server.stop();
}

#[test]
fn metrics_are_in_the_format_of_prometheus() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.heartbeat();
    std::thread::sleep(Duration::from_millis(300));
    let (status, body) = call(&server, "GET", "/metrics");
    assert_eq!(status, 200);
    for line in [
        "heartwheel_sessions_open{shard=\"0\"} 1",
        "heartwheel_heartbeats_answered_total{shard=\"0\"} 1",
        "# TYPE heartwheel_sessions_closed_total counter",
    ] {
        assert!(body.lines().any(|other| other == line), "{line} in\n{body}");
    }
    server.stop();
}

#[test]
fn a_session_can_be_looked_at_and_closed_and_is_then_gone() {
    let server = Server::start(&[]);
    let (mut client, id) = welcomed(&server);
    let path = format!("/sessions/{id}");
    let (status, body) = call(&server, "GET", &path);
    let view: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &view["session"]["phase"]), (200, &Value::from("live")));
    assert_eq!(call(&server, "DELETE", &path).0, 204);
    assert_eq!(client.receive_to_end(), b"");
    assert_eq!(call(&server, "GET", &path).0, 404);
    assert_eq!(call(&server, "DELETE", &path).0, 404);

    // The next session takes the same index: the old id must not lead to it.
    let (mut heir, new_id) = welcomed(&server);
    assert_eq!(new_id[8..], id[8..], "the index is reused");
    assert_ne!(new_id, id);
    assert_eq!(call(&server, "DELETE", &path).0, 404);
    heir.heartbeat();
    let counters = server.stop();
    assert_eq!(common::count(&counters, &["closed", "kicked"]), 1);
}

#[test]
fn what_is_wrong_is_answered_with_the_right_status() {
    let server = Server::start(&[]);
    let ended = "Host: x\r\nConnection: close\r\n";
    let cases = [
        (format!("GET /nowhere HTTP/1.1\r\n{ended}\r\n"), 404),
        (format!("POST /stats HTTP/1.1\r\n{ended}\r\n"), 405),
        (format!("GET /sessions/xyz HTTP/1.1\r\n{ended}\r\n"), 400),
        (format!("GET /sessions/ff00000000000000 HTTP/1.1\r\n{ended}\r\n"), 404),
        ("NONSENSE\r\n\r\n".to_owned(), 400),
        (format!("GET /stats HTTP/1.1\r\nX: {}\r\n{ended}\r\n", "y".repeat(40_000)), 431),
    ];
    let mut client = server.connect();
    for (request, status) in cases {
        let shown = &request[..request.len().min(60)];
        assert_eq!(exchange(&server, &request).0, status, "{shown:?}");
        client.heartbeat();
    }
    server.stop();
}

#[test]
fn slow_and_many_admin_clients_are_bounded_and_not_felt() {
    let server = Server::start(&[]);
    let address = server.ready["admin"].as_str().expect("an admin address").to_owned();
    // More than are served at a time; each sends half a request and then nothing.
    let mut slow: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).expect("accepted or queued");
            stream.write_all(b"GET /stats HT").expect("buffered");
            stream.set_read_timeout(Some(PATIENCE)).expect("can be set");
            stream
        })
        .collect();
    let mut client = server.connect();
    for _ in 0..20 {
        client.heartbeat();
    }
    // The slow are shown out at the header timeout, and then the next is served.
    let mut answer = Vec::new();
    slow[0].read_to_end(&mut answer).expect("closed");
    assert_eq!(call(&server, "GET", "/healthz").0, 200);
    server.stop();
}

#[test]
fn a_unix_socket_is_served_and_removed() {
    let path = std::env::temp_dir().join(format!("heartwheel-{}.sock", std::process::id()));
    let flag = format!("unix:{}", path.display());
    let server = Server::start(&["--admin", &flag]);
    let mut stream = std::os::unix::net::UnixStream::connect(&path).expect("it accepts");
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
    server.stop();
    assert!(!path.exists());
}
