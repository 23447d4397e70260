//! The example of a push service, started as a user starts it, on every engine and protocol.

mod common;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{PATIENCE, Server, admin, count};

/// Beside the tests' own folder; cargo builds examples before it runs tests.
fn example() -> PathBuf {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_heartwheel"));
    let example = program.with_file_name("examples").join("push_service");
    assert!(example.exists(), "`cargo test` builds it; with --test: cargo build --examples first");
    example
}

#[test]
fn subscribers_get_what_is_published_and_nobody_else() {
    for engine in ["uring", "tokio-uring", "epoll"] {
        let mut command = Command::new(example());
        command.args(["--listen", "tcp://127.0.0.1:0", "--listen", "ws://127.0.0.1:0"]).args([
            "--shards",
            "2",
            "--admin",
            "127.0.0.1:0",
            "--engine",
            engine,
        ]);
        let server = Server::spawn(command);
        let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
        for client in &mut clients[..5] {
            client.send(b"\x00\x0f\x07subscribe news");
        }
        let url = server.ready["listen"][1].as_str().expect("a second address").to_owned();
        let (mut socket, _) = tungstenite::connect(url).expect("upgraded");
        socket.send("subscribe news".into()).expect("sent");
        for client in &mut clients {
            client.heartbeat();
        }
        let deadline = Instant::now() + PATIENCE;
        while count(&admin(&server, "GET", "/stats", b"").1, &["counters", "data_received"]) < 6 {
            assert!(Instant::now() < deadline, "all have subscribed");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(admin(&server, "POST", "/topics/sport", b"goal").0, 202);
        assert_eq!(admin(&server, "POST", "/topics/news", b"rain").0, 202);
        for client in &mut clients[..5] {
            let push = client.receive(15);
            assert_eq!((&push[..3], &push[11..]), (&[0, 13, 5][..], &b"rain"[..]), "{engine}");
        }
        assert_eq!(socket.read().expect("a message").into_text().expect("text").as_str(), "rain");
        for client in &mut clients[5..] {
            client.heartbeat();
        }
        let counters = server.stop();
        assert_eq!(count(&counters, &["pushes_requested"]), 6, "{engine}");
    }
}
