//! The engines on real sockets: from accept to expiry, and everything that can go wrong between.
//! Each case runs once per engine; a difference between engines is a defect.

mod common;

use std::io::Read;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use common::{PATIENCE, PING, PONG, Server, count, on_every_engine};

on_every_engine! {
    and_by_receive:
    a_silent_session_is_expired_never_early_and_the_talkative_live,
    nobody_is_expired_for_a_pause_of_the_server,
    hello_is_welcomed_once_and_who_says_nothing_is_closed,
    a_silent_client_is_pinged_once_and_lives_if_it_answers,
    every_way_to_leave_has_its_reason,
    illegal_probes_are_closed_without_an_answer_and_counted,
    frames_may_come_byte_by_byte,
    connections_over_the_limit_are_refused_and_the_live_ones_feel_nothing,
    a_client_that_never_reads_harms_only_itself,
}

fn a_silent_session_is_expired_never_early_and_the_talkative_live(engine: &str) {
    let server =
        Server::start_on(engine, &["--idle-timeout", "600ms", "--heartbeat-interval", "200ms"]);
    let mut silent = server.connect();
    let mut talkative = server.connect();
    silent.heartbeat();
    let last_sent = Instant::now();
    silent.send(PING);
    assert_eq!(silent.receive(3), PONG);
    silent.stream.set_nonblocking(true).expect("can be set");
    let mut buffer = [0; 1];
    let closed_after = loop {
        talkative.heartbeat();
        match silent.stream.read(&mut buffer) {
            Ok(0) => break last_sent.elapsed(),
            Ok(_) => panic!("nobody asked for anything"),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    assert!(closed_after >= Duration::from_millis(600), "early: {closed_after:?}");
    talkative.heartbeat();
    let counters = server.stop();
    assert_eq!(count(&counters, &["closed", "expired"]), 1);
    assert_eq!(count(&counters, &["expired_early"]), 0);
    assert_eq!(count(&counters, &["closed", "server_stopping"]), 1);
    assert_eq!(counters["heartbeats_received"], counters["heartbeats_answered"]);
}

fn nobody_is_expired_for_a_pause_of_the_server(engine: &str) {
    survive_a_pause(Server::start_on(engine, PAUSE_FLAGS), PING, PONG);
}

fn a_silent_client_is_pinged_once_and_lives_if_it_answers(engine: &str) {
    let times = ["--idle-timeout", "1200ms", "--heartbeat-interval", "300ms", "--activity", "any"];
    let server = Server::start_on(engine, &[&times[..], &["--server-ping"]].concat());
    let mut answering = server.connect();
    let mut dead = server.connect();
    answering.heartbeat();
    let last_sent = Instant::now();
    dead.heartbeat();
    // It sends nothing but answers, for two timeouts.
    for _ in 0..8 {
        assert_eq!(answering.receive(3), PING);
        answering.send(PONG);
    }
    assert_eq!(dead.receive_to_end(), PING, "asked once, then closed");
    assert!(last_sent.elapsed() >= Duration::from_millis(1_200));
    assert_eq!(answering.receive(3), PING, "still there");
    let counters = server.stop();
    assert_eq!(count(&counters, &["closed", "expired"]), 1);
    assert_eq!(count(&counters, &["expired_early"]), 0);
    assert_eq!(count(&counters, &["pongs_received"]), 8);
    assert!(count(&counters, &["server_pings_sent"]) >= 10);
}

const PAUSE_FLAGS: &[&str] =
    &["--idle-timeout", "1500ms", "--heartbeat-interval", "100ms", "--echo"];

/// The server stands still for three timeouts; the clients go on, and their bytes wait in the
/// kernel.
fn survive_a_pause(server: Server, message: &[u8], reply: &[u8]) {
    let mut clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.heartbeat();
    }
    // The pause comes while the server is at work: some receives have just ended.
    for client in &mut clients {
        client.send(message);
    }
    server.signal(libc::SIGSTOP);
    for _ in 0..10 {
        for client in &mut clients {
            client.send(message);
        }
        std::thread::sleep(Duration::from_millis(450));
    }
    server.signal(libc::SIGCONT);
    for client in &mut clients {
        assert_eq!(client.receive(11 * reply.len()), reply.repeat(11));
    }
    let counters = server.stop();
    assert_eq!(count(&counters, &["closed", "expired"]), 0, "{counters:#}");
    assert_eq!(count(&counters, &["closed", "server_stopping"]), 50);
}

/// What had arrived is read before anybody is expired, even where it takes many rounds to read it.
#[test]
fn nobody_is_expired_for_a_pause_when_buffers_and_completions_are_scarce() {
    let message: Vec<u8> = [0, 201, 7].into_iter().chain([9; 200]).collect();
    for scarce in [["--ring-buffers", "2"], ["--ring-completions", "4"]] {
        for (rings, arming) in [("1", "receive"), ("3", "receive"), ("3", "poll")] {
            let small = ["--ring-buffer-size", "64", "--rings-per-shard", rings];
            let flags = [PAUSE_FLAGS, &scarce, &small, &["--arming", arming]].concat();
            survive_a_pause(Server::start(&flags), &message, &message);
        }
    }
}

fn hello_is_welcomed_once_and_who_says_nothing_is_closed(engine: &str) {
    let server = Server::start_on(
        engine,
        &["--hello-timeout", "400ms", "--heartbeat-interval", "7s", "--idle-timeout", "20s"],
    );
    let connected = Instant::now();
    let mut mute = server.connect();
    let mut polite = server.connect();
    let hello = [0, 6, 1, 1, 0, 0, 0, 0];
    polite.send(&hello);
    let welcome = polite.receive(19);
    assert_eq!(welcome[..3], [0, 17, 2]);
    assert_eq!(welcome[11..15], 7_000_u32.to_be_bytes());
    assert_eq!(welcome[15..], 20_000_u32.to_be_bytes());
    polite.heartbeat();
    assert_eq!(mute.receive_to_end(), b"");
    let closed_after = connected.elapsed();
    assert!(closed_after >= Duration::from_millis(400), "early: {closed_after:?}");
    polite.heartbeat();
    polite.send(&hello);
    assert_eq!(polite.receive_to_end(), b"", "a second HELLO is illegal");
    let counters = server.stop();
    assert_eq!(count(&counters, &["closed", "hello_timeout"]), 1);
    assert_eq!(count(&counters, &["closed", "illegal_unexpected"]), 1);
    assert_eq!(count(&counters, &["hellos_received"]), 1);
}

fn every_way_to_leave_has_its_reason(engine: &str) {
    let server = Server::start_on(engine, &[]);
    let mut half = server.connect();
    half.send(&PING.repeat(3));
    half.stream.shutdown(Shutdown::Write).expect("can be shut down");
    assert_eq!(half.receive_to_end(), PONG.repeat(3), "what was on its way still comes");
    let mut closed = server.connect();
    closed.heartbeat();
    drop(closed);
    let mut reset = server.connect();
    reset.heartbeat();
    reset.reset();
    let mut alive = server.connect();
    alive.heartbeat();
    std::thread::sleep(Duration::from_millis(200));
    alive.heartbeat();
    let counters = server.stop();
    assert_eq!(count(&counters, &["closed", "peer_closed"]), 2);
    assert_eq!(count(&counters, &["closed", "peer_reset"]), 1);
    assert_eq!(count(&counters, &["closed", "server_stopping"]), 1);
}

fn illegal_probes_are_closed_without_an_answer_and_counted(engine: &str) {
    let server = Server::start_on(engine, &["--max-frame", "1000", "--frame-timeout", "300ms"]);
    let probes: [(&[u8], &str); 8] = [
        (&[0, 0], "illegal_length_zero"),
        (&[0, 5, 0], "illegal_kind_zero"),
        (&[0, 5, 99], "illegal_kind_unknown"),
        (&[0xff, 0xff], "illegal_oversize"),
        (&[0, 127, 3], "illegal_payload_length"),
        (&[0, 6, 1, 9], "illegal_hello_version"),
        (&[0, 7, 8, 0, 0, 0, 0, 0, 0], "illegal_unexpected"),
        (b"GET / HTTP/1.1\r\n\r\n", "illegal_oversize"),
    ];
    for (bytes, reason) in probes {
        let mut client = server.connect();
        client.send(bytes);
        assert_eq!(client.receive_to_end(), b"", "{reason}");
    }
    let mut dribbling = server.connect();
    dribbling.send(&[0, 9, 7, 1, 2]);
    assert_eq!(dribbling.receive_to_end(), b"");
    let counters = server.stop();
    for (_, reason) in probes {
        let expected = probes.iter().filter(|probe| probe.1 == reason).count() as u64;
        assert_eq!(count(&counters, &["closed", reason]), expected, "{reason}");
    }
    assert_eq!(count(&counters, &["closed", "frame_timeout"]), 1);
}

fn frames_may_come_byte_by_byte(engine: &str) {
    let server = Server::start_on(engine, &["--echo"]);
    let mut client = server.connect();
    let message: Vec<u8> = [0, 5, 7].into_iter().chain(*b"wxyz").collect();
    for byte in PING.iter().chain(&message).chain(PING) {
        client.send(&[*byte]);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(client.receive(13), [PONG, &message, PONG].concat());
    server.stop();
}

fn connections_over_the_limit_are_refused_and_the_live_ones_feel_nothing(engine: &str) {
    let server = Server::start_on(engine, &["--max-connections", "10"]);
    let mut live: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for client in &mut live {
        client.heartbeat();
    }
    for _ in 0..5 {
        assert_eq!(server.connect().receive_to_end(), b"");
    }
    for client in &mut live {
        client.heartbeat();
    }
    drop(live.pop());
    let deadline = Instant::now() + PATIENCE;
    while !server.try_heartbeat() {
        assert!(Instant::now() < deadline, "a place that is free is given away");
    }
    let counters = server.stop();
    assert!(count(&counters, &["rejected", "max_connections"]) >= 5);
    assert_eq!(count(&counters, &["opened"]), 11);
}

#[test]
fn a_full_descriptor_table_makes_newcomers_wait_or_go_and_hurts_nobody_else() {
    let server = Server::start(&["--ring-slots", "100", "--rings-per-shard", "1"]);
    let capacity = server.ready["capacity"].as_u64().expect("a number") as usize;
    assert!((10..100).contains(&capacity), "the ready line tells what fits: {capacity}");
    let mut live: Vec<_> = (0..capacity).map(|_| server.connect()).collect();
    for client in &mut live {
        client.heartbeat();
    }
    // More at once than the table has slots: the kernel accepts them in one go.
    server.signal(libc::SIGSTOP);
    let crowd: Vec<_> = (0..300).map(|_| server.connect()).collect();
    server.signal(libc::SIGCONT);
    for client in crowd {
        drop(client);
    }
    for client in &mut live {
        client.heartbeat();
    }
    drop(live);
    // Accepting goes on after its rest.
    let deadline = Instant::now() + PATIENCE;
    while !server.try_heartbeat() {
        assert!(Instant::now() < deadline, "newcomers are served again");
    }
    let counters = server.stop();
    assert!(count(&counters, &["rejected", "ring_full"]) > 0, "{counters:#}");
    assert!(count(&counters, &["engine", "accepts_paused"]) > 0, "{counters:#}");
}

#[test]
fn a_starved_buffer_ring_loses_nothing() {
    let server = Server::start(&["--ring-buffers", "2", "--ring-buffer-size", "16"]);
    let mut clients: Vec<_> = (0..200).map(|_| server.connect()).collect();
    for _ in 0..5 {
        server.signal(libc::SIGSTOP);
        for client in &mut clients {
            client.send(&PING.repeat(8));
        }
        server.signal(libc::SIGCONT);
        for client in &mut clients {
            assert_eq!(client.receive(24), PONG.repeat(8));
        }
    }
    let counters = server.stop();
    assert!(count(&counters, &["engine", "receives_starved"]) > 0, "{counters:#}");
    assert_eq!(count(&counters, &["heartbeats_answered"]), 200 * 5 * 8);
}

#[test]
fn an_overflowing_completion_queue_loses_nothing() {
    let server = Server::start(&["--ring-completions", "4"]);
    let mut clients: Vec<_> = (0..200).map(|_| server.connect()).collect();
    for _ in 0..5 {
        server.signal(libc::SIGSTOP);
        for client in &mut clients {
            client.send(PING);
        }
        server.signal(libc::SIGCONT);
        for client in &mut clients {
            assert_eq!(client.receive(3), PONG);
        }
    }
    let counters = server.stop();
    assert!(count(&counters, &["ring", "completion_overflows"]) > 0, "{counters:#}");
    assert_eq!(count(&counters, &["heartbeats_answered"]), 200 * 5);
}

fn a_client_that_never_reads_harms_only_itself(engine: &str) {
    let server =
        Server::start_on(engine, &["--echo", "--stall-timeout", "500ms", "--send-queue", "64KiB"]);
    let mut deaf = server.connect();
    deaf.stream.set_write_timeout(Some(Duration::from_millis(200))).expect("can be set");
    let message: Vec<u8> = [0x40, 1, 7].into_iter().chain(vec![7; 0x4000]).collect();
    let mut other = server.connect();
    // Enough to fill both socket buffers and the queue; the server closes at one of its bounds.
    for _ in 0..2_000 {
        if std::io::Write::write_all(&mut deaf.stream, &message).is_err() {
            break;
        }
        other.heartbeat();
    }
    std::thread::sleep(Duration::from_millis(800));
    other.heartbeat();
    drop(deaf);
    let counters = server.stop();
    let closed = count(&counters, &["closed", "send_queue_full"])
        + count(&counters, &["closed", "stall_timeout"]);
    assert_eq!(closed, 1, "{counters:#}");
}

/// PONGs are legal and never answered: one may send them as fast as the kernel takes them.
/// Not with `--arming receive`, where the kernel itself goes on receiving (docs/ENGINES.md).
#[test]
fn who_sends_without_end_keeps_nobody_from_his_turn() {
    for engine in ["uring", "tokio-uring", "epoll"] {
        outlast_a_flood(engine);
    }
}

fn outlast_a_flood(engine: &str) {
    // Time enough for a machine that does more than this test.
    let flags = ["--idle-timeout", "2s", "--heartbeat-interval", "200ms"];
    let server = Server::start_on(engine, &flags);
    let mut flooder = server.connect();
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flood = std::thread::spawn({
        let ended = std::sync::Arc::clone(&ended);
        move || {
            let pongs = PONG.repeat(20_000);
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                flooder.send(&pongs);
            }
        }
    });
    let mut silent = server.connect();
    let mut talkative = server.connect();
    silent.heartbeat();
    let last_sent = Instant::now();
    silent.stream.set_nonblocking(true).expect("can be set");
    while !matches!(silent.stream.read(&mut [0; 1]), Ok(0)) {
        assert!(last_sent.elapsed() < PATIENCE, "time passes for the others");
        talkative.heartbeat();
    }
    ended.store(true, std::sync::atomic::Ordering::Relaxed);
    flood.join().expect("nobody has closed the flooder");
    let counters = server.stop();
    assert_eq!(count(&counters, &["closed", "expired"]), 1, "{counters:#}");
}

#[test]
fn many_connections_come_and_go_over_several_rings() {
    let flags = ["--rings-per-shard", "3", "--ring-slots", "400", "--max-connections", "600"];
    let server = Server::start(&flags);
    assert_eq!(server.ready["rings"], 3);
    for _ in 0..4 {
        let mut clients: Vec<_> = (0..300).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.heartbeat();
        }
    }
    let counters = server.stop();
    assert_eq!(count(&counters, &["opened"]), 1_200);
    assert_eq!(count(&counters, &["released"]), 1_200);
}
