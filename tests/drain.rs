//! SIGTERM and `POST /drain` on real sockets; each case runs once per engine.

mod common;

use std::collections::HashSet;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{Client, PATIENCE, PONG, Server, admin, count, on_every_engine};

on_every_engine! {
    everybody_is_told_and_closed_over_the_time_and_nobody_let_in,
    sigterm_drains_and_a_second_one_stops_at_once,
    a_client_that_does_not_read_is_not_waited_for,
    a_drain_ends_when_its_time_has_run_out,
}

/// The retry-after of a GOAWAY, which is all that is still to come.
fn farewell(bytes: &[u8]) -> u32 {
    assert_eq!(bytes[..5], [0, 7, 8, 0, 1], "a GOAWAY and nothing else: {bytes:?}");
    u32::from_be_bytes(bytes[5..].try_into().expect("and nothing behind it"))
}

fn everybody_is_told_and_closed_over_the_time_and_nobody_let_in(engine: &str) {
    let server = Server::start_on(engine, &["--max-connections", "2000"]);
    let mut clients: Vec<_> = (0..2_000).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.heartbeat();
    }
    let begun = Instant::now();
    let (status, answer) = admin(&server, "POST", "/drain?spread=1s", b"");
    assert_eq!((status, count(&answer, &["draining"])), (202, 2_000));
    let deadline = begun + PATIENCE;
    while TcpStream::connect(server.address).is_ok() {
        assert!(Instant::now() < deadline, "newcomers are refused");
    }
    if begun.elapsed() < Duration::from_millis(500) {
        assert_eq!(admin(&server, "GET", "/readyz", b"").0, 503);
    }
    let mut after = HashSet::new();
    let mut ended = Vec::new();
    for client in &mut clients {
        let told = farewell(&client.receive_to_end());
        assert!((1_000..11_000).contains(&told), "{told}");
        after.insert(told);
        ended.push(begun.elapsed());
    }
    assert!(after.len() > 500, "they come back at different moments: {}", after.len());
    let last = ended.last().expect("two thousand");
    assert!(*last >= Duration::from_millis(900), "not all at once: {last:?}");
    let counters = server.wait();
    assert_eq!(count(&counters, &["closed", "server_stopping"]), 2_000);
    assert_eq!(count(&counters, &["drain_notices"]), 2_000);
}

fn sigterm_drains_and_a_second_one_stops_at_once(engine: &str) {
    let flags = ["--drain-spread", "20s", "--drain-timeout", "20s"];
    let server = Server::start_on(engine, &flags);
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.heartbeat();
    }
    let begun = Instant::now();
    server.signal(libc::SIGTERM);
    for client in &mut clients {
        farewell(&client.receive(9));
    }
    // Told, but not closed yet: most of them still live.
    // The last are closed last.
    let last = clients
        .iter_mut()
        .rev()
        .map(|client| {
            let _ = std::io::Write::write_all(&mut client.stream, common::PING);
            let mut reply = [0; 3];
            std::io::Read::read_exact(&mut client.stream, &mut reply).is_ok_and(|()| reply == PONG)
        })
        .filter(|&lives| lives)
        .count();
    assert!(last >= 10, "{last} live");
    let counters = server.stop();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(count(&counters, &["drain_notices"]), 20);
}

/// A client that reads nothing, with more on its way than both socket buffers hold.
fn deaf_client(server: &Server) -> Client {
    let mut deaf = server.connect();
    deaf.heartbeat();
    let message = vec![b'x'; 60_000];
    for _ in 0..200 {
        assert_eq!(admin(server, "POST", "/broadcast", &message).0, 202);
        let (_, stats) = admin(server, "GET", "/stats", b"");
        if count(&stats, &["counters", "send_queue_bytes"]) > 500_000 {
            break;
        }
    }
    deaf
}

fn a_client_that_does_not_read_is_not_waited_for(engine: &str) {
    let server = Server::start_on(engine, &["--send-queue", "1MiB"]);
    let deaf = deaf_client(&server);
    let begun = Instant::now();
    let counters = server.stop();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(count(&counters, &["closed", "server_stopping"]), 1, "{counters:#}");
    assert!(count(&counters, &["pushes_dropped", "session_closed"]) >= 1);
    drop(deaf);
}

fn a_drain_ends_when_its_time_has_run_out(engine: &str) {
    let flags = ["--send-queue", "1MiB", "--drain-timeout", "200ms"];
    let server = Server::start_on(engine, &flags);
    let deaf = deaf_client(&server);
    // It would be given a second to read what is on its way; the drain does not wait for that.
    let counters = server.stop();
    assert_eq!(count(&counters, &["closed", "server_stopping"]), 0, "{counters:#}");
    assert_eq!(count(&counters, &["open"]), 1, "it was cut off: {counters:#}");
    assert!(count(&counters, &["pushes_pending"]) >= 1, "{counters:#}");
    drop(deaf);
}

#[test]
fn a_drain_that_cannot_be_is_refused() {
    let server = Server::start(&["--drain-timeout", "5s"]);
    assert_eq!(admin(&server, "POST", "/drain?spread=6s", b"").0, 400);
    assert_eq!(admin(&server, "POST", "/drain?spread=soon", b"").0, 400);
    assert_eq!(admin(&server, "GET", "/readyz", b"").0, 200);
    let (status, answer) = admin(&server, "POST", "/drain", b"");
    assert_eq!((status, count(&answer, &["draining"])), (202, 0));
    server.wait();
}

/// What `Type=notify` of systemd relies on.
#[test]
fn the_service_manager_is_told() {
    let path = std::env::temp_dir().join(format!("heartwheel-notify-{}", std::process::id()));
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("a fresh path");
    socket.set_read_timeout(Some(PATIENCE)).expect("can be set");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_heartwheel"));
    command
        .args(["serve", "--listen", "tcp://127.0.0.1:0", "--admin", "off"])
        .env("NOTIFY_SOCKET", &path);
    let server = Server::spawn(command);
    let mut buffer = [0; 100];
    let mut next = || {
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned()
    };
    assert_eq!(next(), "READY=1");
    server.stop();
    assert_eq!(next(), "STOPPING=1");
    std::fs::remove_file(&path).expect("ours");
}
