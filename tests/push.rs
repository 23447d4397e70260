//! Pushing through the control plane to real sockets; each case runs once per engine.

mod common;

use std::time::{Duration, Instant};

use common::{Client, PATIENCE, Server, admin, count, on_every_engine};
use serde_json::{Value, json};

on_every_engine! {
    a_broadcast_reaches_everybody_and_is_acknowledged,
    a_push_goes_to_one_session_and_never_to_its_heir,
    a_spread_broadcast_lets_heartbeats_go_on,
    a_client_that_does_not_read_gets_its_bound_and_the_others_feel_nothing,
    the_kernel_too_keeps_little_for_a_client_that_does_not_read,
}

/// A client that has said HELLO, and its session's id.
fn welcomed(server: &Server) -> (Client, String) {
    let mut client = server.connect();
    client.send(&[0, 6, 1, 1, 0, 0, 0, 0]);
    let welcome = client.receive(19);
    (client, welcome[3..11].iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Receives a PUSH and gives its id and its message.
fn receive_push(client: &mut Client) -> (u64, Vec<u8>) {
    let head = client.receive(11);
    assert_eq!(head[2], 5, "a PUSH: {head:?}");
    let length = usize::from(u16::from_be_bytes([head[0], head[1]]));
    let id = u64::from_be_bytes(head[3..11].try_into().expect("eight bytes"));
    (id, client.receive(length - 9))
}

fn acknowledge(client: &mut Client, id: u64) {
    client.send(&[&[0, 9, 6], &id.to_be_bytes()[..]].concat());
}

/// Asks until the account is as it should be.
fn await_account(server: &Server, id: u64, mut wanted: impl FnMut(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, account) = admin(server, "GET", &format!("/pushes/{id}"), b"");
        assert_eq!(status, 200);
        let dropped: u64 = account["dropped"]
            .as_object()
            .map_or(0, |reasons| reasons.values().filter_map(Value::as_u64).sum());
        let sum = count(&account, &["acknowledged"])
            + count(&account, &["unconfirmed"])
            + count(&account, &["pending"])
            + dropped;
        assert_eq!(count(&account, &["requested"]), sum, "{account:#}");
        if wanted(&account) {
            return account;
        }
        assert!(Instant::now() < deadline, "{account:#}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn a_broadcast_reaches_everybody_and_is_acknowledged(engine: &str) {
    let server = Server::start_on(engine, &[]);
    let mut clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.heartbeat();
    }
    let mute = server.connect();
    let (status, answer) = admin(&server, "POST", "/broadcast", b"news");
    assert_eq!(status, 202, "{answer:#}");
    let id = count(&answer, &["push_id"]);
    for client in &mut clients {
        assert_eq!(receive_push(client), (id, b"news".to_vec()));
    }
    for client in &mut clients[..30] {
        acknowledge(client, id);
    }
    acknowledge(&mut clients[0], id);
    let account = await_account(&server, id, |account| account["acknowledged"] == 30);
    assert_eq!(account["requested"], 50, "the mute is not part of it: {account:#}");
    assert_eq!(account["unconfirmed"], 20);
    let (status, answer) = admin(&server, "POST", "/broadcast", b"");
    assert_eq!(status, 202, "an empty message is one");
    assert_eq!(receive_push(&mut clients[0]).1, b"");
    assert_ne!(count(&answer, &["push_id"]), id);
    drop(mute);
    let counters = server.stop();
    assert_eq!(count(&counters, &["pushes_requested"]), 100);
    assert_eq!(count(&counters, &["pushes_acknowledged"]), 30);
    assert_eq!(count(&counters, &["push_acks_stray"]), 1);
}

fn a_push_goes_to_one_session_and_never_to_its_heir(engine: &str) {
    let server = Server::start_on(engine, &[]);
    let (mut client, id) = welcomed(&server);
    let path = format!("/sessions/{id}/push");
    let (status, answer) = admin(&server, "POST", &path, b"hello");
    assert_eq!((status, &answer["requested"]), (202, &json!(1)), "{answer:#}");
    let (push_id, message) = receive_push(&mut client);
    assert_eq!((push_id, message), (count(&answer, &["push_id"]), b"hello".to_vec()));
    acknowledge(&mut client, push_id);
    await_account(&server, push_id, |account| account["acknowledged"] == 1);
    assert_eq!(admin(&server, "DELETE", &format!("/sessions/{id}"), b"").0, 204);
    client.receive_to_end();
    let (mut heir, _) = welcomed(&server);
    assert_eq!(admin(&server, "POST", &path, b"hello").0, 404);
    heir.heartbeat();
    assert!(count(&server.stop(), &["pushes_refused"]) >= 1);
}

fn a_spread_broadcast_lets_heartbeats_go_on(engine: &str) {
    let server = Server::start_on(engine, &[]);
    let mut clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.heartbeat();
    }
    let begun = Instant::now();
    let (status, answer) = admin(&server, "POST", "/broadcast?spread=600ms", b"slowly");
    assert_eq!((status, &answer["requested"]), (202, &json!(40)));
    // It has come too late to be part of it.
    let mut late = server.connect();
    let mut beats = 0;
    let id = count(&answer, &["push_id"]);
    await_account(&server, id, |account| {
        late.heartbeat();
        beats += 1;
        account["unconfirmed"] == 40
    });
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
    assert!(beats > 3, "heartbeats went on: {beats}");
    for client in &mut clients {
        assert_eq!(receive_push(client), (id, b"slowly".to_vec()));
    }
    server.stop();
}

fn a_client_that_does_not_read_gets_its_bound_and_the_others_feel_nothing(engine: &str) {
    let server = Server::start_on(engine, &["--stall-timeout", "500ms", "--send-queue", "128KiB"]);
    let mut deaf = server.connect();
    deaf.heartbeat();
    let mut other = server.connect();
    other.heartbeat();
    let message = vec![b'x'; 60_000];
    let deadline = Instant::now() + PATIENCE;
    // Both socket buffers are filled first.
    loop {
        let (status, answer) = admin(&server, "POST", "/broadcast", &message);
        assert_eq!(status, 202, "{answer:#}");
        assert_eq!(receive_push(&mut other).1.len(), message.len());
        other.heartbeat();
        let (_, stats) = admin(&server, "GET", "/stats", b"");
        let stalled = count(&stats, &["counters", "closed", "stall_timeout"]);
        assert!(count(&stats, &["counters", "send_queue_bytes"]) <= 128 * 1024, "{stats:#}");
        if stalled == 1 {
            break;
        }
        assert!(Instant::now() < deadline, "it is closed in the end: {stats:#}");
    }
    drop(deaf);
    let counters = server.stop();
    assert!(count(&counters, &["pushes_dropped", "session_closed"]) >= 1, "{counters:#}");
}

fn the_kernel_too_keeps_little_for_a_client_that_does_not_read(engine: &str) {
    let server = Server::start_on(engine, &[]);
    let mut deaf = server.connect();
    deaf.heartbeat();
    let message = vec![b'x'; 15 * 1024];
    // Left to itself the kernel lets its buffer grow to several megabytes.
    for _ in 0..200 {
        assert_eq!(admin(&server, "POST", "/broadcast", &message).0, 202);
    }
    let deadline = Instant::now() + PATIENCE;
    let taken = loop {
        let (_, stats) = admin(&server, "GET", "/stats", b"");
        let taken = count(&stats, &["counters", "pushes_unconfirmed"]);
        let dropped = count(&stats, &["counters", "pushes_dropped", "send_queue_full"]);
        if taken + dropped + count(&stats, &["counters", "pushes_pending"]) == 200 {
            break taken;
        }
        assert!(Instant::now() < deadline, "{stats:#}");
        std::thread::sleep(Duration::from_millis(20));
    };
    // What the client's own kernel has room for, and a little.
    assert!(taken * 15 <= 512, "{taken} messages of 15 KiB");
    drop(deaf);
    server.stop();
}

#[test]
fn what_cannot_be_pushed_is_refused_and_counted() {
    let server = Server::start(&[]);
    for length in [65_527, 70_000] {
        let (status, _) = admin(&server, "POST", "/broadcast", &vec![0; length]);
        assert_eq!(status, 413, "{length}");
    }
    assert_eq!(admin(&server, "POST", "/broadcast", &[7; 65_526]).0, 202);
    assert_eq!(admin(&server, "POST", "/broadcast?spread=often", b"").0, 400);
    assert_eq!(admin(&server, "POST", "/broadcast?speed=5s", b"").0, 400);
    assert_eq!(admin(&server, "POST", "/sessions/ff00000000000000/push", b"").0, 404);
    assert_eq!(admin(&server, "POST", "/sessions/xyz/push", b"").0, 400);
    assert_eq!(admin(&server, "GET", "/pushes/999", b"").0, 404);
    assert_eq!(admin(&server, "GET", "/pushes/xyz", b"").0, 400);
    let (_, stats) = admin(&server, "GET", "/stats", b"");
    assert_eq!(stats["control"]["push_bodies_refused"], 2);
    server.stop();
}
