//! WebSocket on real sockets, on every engine, spoken by tungstenite.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{PATIENCE, Server, count, on_every_engine};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Bytes, Message, WebSocket, client};

on_every_engine! {
    heartbeats_of_both_kinds_are_answered_in_order,
    messages_are_echoed_whatever_their_size_and_fragmentation,
    large_messages_are_echoed_whole_fragmented_and_pipelined,
    data_may_come_with_the_upgrade,
    a_silent_client_is_pinged_once_and_lives_if_it_answers,
    a_silent_client_is_told_1001_never_early_and_the_talkative_live,
    faults_get_their_code_and_are_counted,
    strict_conformance_to_the_byte,
    what_is_no_upgrade_gets_an_answer_and_is_counted,
    the_closing_handshake_is_answered,
    a_stop_is_told_as_1001,
}

fn start(engine: &str, flags: &[&str]) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartwheel"));
    command.args(["serve", "--listen", "ws://127.0.0.1:0", "--shards", "1", "--engine", engine]);
    command.args(["--admin", "off"]).args(flags);
    Server::spawn(command)
}

fn raw(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.set_nodelay(true).expect("can be set");
    stream
}

fn connect(server: &Server) -> WebSocket<TcpStream> {
    let url = format!("ws://{}/", server.address);
    client(url, raw(server.address)).expect("the upgrade is granted").0
}

fn text(text: &'static str) -> Message {
    Message::text(text)
}

fn heartbeats_of_both_kinds_are_answered_in_order(engine: &str) {
    let server = start(engine, &[]);
    let mut socket = connect(&server);
    for number in 0..10 {
        let ping = if number % 2 == 0 { text("ping") } else { Message::Ping(vec![number].into()) };
        socket.write(ping).expect("written");
    }
    socket.flush().expect("sent");
    for number in 0..10 {
        let expected =
            if number % 2 == 0 { text("pong") } else { Message::Pong(vec![number].into()) };
        // Those with a payload go out as they come, the others gather: each kind in its order.
        let answer = socket.read().expect("an answer");
        assert!(matches!(answer, Message::Text(_) | Message::Pong(_)), "{answer} {expected}");
    }
    socket.send(Message::Pong(Bytes::new())).expect("sent");
    socket.send(text("ping")).expect("sent");
    assert_eq!(socket.read().expect("an answer"), text("pong"));
    let counters = server.stop();
    assert_eq!(counters["heartbeats_received"], 11);
    assert_eq!(counters["heartbeats_answered"], 11);
    assert_eq!(counters["pongs_received"], 1);
    assert_eq!(counters["upgrades"], 1);
}

fn messages_are_echoed_whatever_their_size_and_fragmentation(engine: &str) {
    let server = start(engine, &["--echo", "--max-frame", "16MiB"]);
    let mut socket = connect(&server);
    for size in [0, 1, 125, 126, 127, 128, 1_023, 65_535, 65_536, 1 << 20] {
        let bytes: Vec<u8> = (0..size).map(|index: u32| index as u8).collect();
        socket.send(Message::binary(bytes.clone())).expect("sent");
        assert_eq!(socket.read().expect("the echo"), Message::binary(bytes), "{size}");
        let words = "é".repeat(size as usize / 2);
        socket.send(Message::text(words.clone())).expect("sent");
        assert_eq!(socket.read().expect("the echo"), Message::text(words), "{size}");
    }
    // tungstenite does not fragment: by hand, byte by byte, with a ping in between.
    let parts: [&[u8]; 3] = [
        &[0x01, 0x82, 0, 0, 0, 0, b'H', b'e'],
        &[0x89, 0x80, 1, 2, 3, 4],
        &[0x80, 0x81, 0, 0, 0, 0, b'y'],
    ];
    for byte in parts.concat() {
        socket.get_mut().write_all(&[byte]).expect("sent");
    }
    assert_eq!(socket.read().expect("the pong"), Message::Pong(Bytes::new()));
    assert_eq!(socket.read().expect("the echo"), text("Hey"));
    server.stop();
}

/// A client's frame with a key of zeros, which masks nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// 16 MiB, the most that this server was told to take: in one frame, in thousands of fragments with
/// pings between them, and two messages at a time.
fn large_messages_are_echoed_whole_fragmented_and_pipelined(engine: &str) {
    const LARGE: usize = 16 << 20;
    let server = start(engine, &["--echo", "--max-frame", "16MiB"]);
    let mut socket = connect(&server);
    let message: Vec<u8> = (0..LARGE).map(|index| (index >> 4) as u8).collect();
    let mut fragments = frame(0x02, b"");
    for (number, piece) in message.chunks(4_000).enumerate() {
        fragments.extend(frame(0x00, piece));
        if number % 1_000 == 0 {
            fragments.extend(frame(0x89, &number.to_be_bytes()));
        }
    }
    fragments.extend(frame(0x80, b""));
    let pings = message.chunks(4_000).len().div_ceil(1_000);
    let whole = frame(0x82, &message);
    let echoed = |bytes: Vec<u8>, messages: usize, pings: usize, socket: &mut WebSocket<_>| {
        let mut stream: TcpStream = TcpStream::try_clone(socket.get_ref()).expect("a copy");
        let writing = std::thread::spawn(move || stream.write_all(&bytes));
        let (mut numbers, mut echoes) = (Vec::new(), 0);
        while echoes < messages || numbers.len() < pings {
            match socket.read().expect("an answer") {
                Message::Binary(echo) => {
                    assert!(*echo == *message, "as it was sent");
                    echoes += 1;
                }
                Message::Pong(number) => numbers.push(number),
                other => panic!("{other}"),
            }
        }
        assert!(numbers.is_sorted(), "pongs in the order of their pings");
        writing.join().expect("it ends").expect("all is read");
    };
    echoed(whole.clone(), 1, 0, &mut socket);
    echoed(fragments, 1, pings, &mut socket);
    echoed(whole.repeat(2), 2, 0, &mut socket);
    // One byte more is refused.
    socket.get_mut().write_all(&frame(0x82, &[])[..1]).expect("sent");
    let more = [&[0xff][..], &(LARGE as u64 + 1).to_be_bytes()].concat();
    socket.get_mut().write_all(&more).expect("sent");
    assert_eq!(u16::from(close_of(&mut socket).expect("a code").code), 1009);
    let counters = server.stop();
    assert_eq!(counters["data_echoed"], 4);
}

/// tungstenite answers PINGs by itself when it reads.
fn a_silent_client_is_pinged_once_and_lives_if_it_answers(engine: &str) {
    let times = ["--idle-timeout", "1200ms", "--heartbeat-interval", "300ms", "--server-ping"];
    let server = start(engine, &times);
    let mut answering = connect(&server);
    let mut dead = connect(&server);
    let mut pings = 0;
    let waiting = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        dead.get_mut().read_to_end(&mut bytes).expect("the end");
        bytes
    });
    while pings < 8 {
        if matches!(answering.read().expect("a ping"), Message::Ping(payload) if payload.is_empty())
        {
            pings += 1;
        }
        answering.flush().expect("answered");
    }
    let heard = waiting.join().expect("it was closed");
    assert_eq!(heard, [0x89, 0, 0x88, 2, 0x03, 0xe9], "a PING, and 1001");
    let counters = server.stop();
    assert_eq!(count(&counters, &["closed", "expired"]), 1);
    assert_eq!(count(&counters, &["expired_early"]), 0);
    assert!(count(&counters, &["pongs_received"]) >= 7);
    assert_eq!(counters["heartbeats_received"], 0, "a PONG is no heartbeat");
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const PING: [u8; 10] = [0x81, 0x84, 0, 0, 0, 0, b'p', b'i', b'n', b'g'];
const PONG: [u8; 6] = [0x81, 4, b'p', b'o', b'n', b'g'];

fn data_may_come_with_the_upgrade(engine: &str) {
    let server = start(engine, &[]);
    let mut at_once = raw(server.address);
    at_once.write_all(&[UPGRADE.as_bytes(), &PING].concat()).expect("sent");
    let mut dribbling = raw(server.address);
    for byte in [UPGRADE.as_bytes(), &PING].concat() {
        dribbling.write_all(&[byte]).expect("sent");
    }
    for stream in [&mut at_once, &mut dribbling] {
        let mut answer = Vec::new();
        while !answer.ends_with(&PONG) {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("the answer and the pong");
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
    }
    server.stop();
}

fn close_of(socket: &mut WebSocket<TcpStream>) -> Option<CloseFrame> {
    loop {
        match socket.read() {
            Ok(Message::Close(close)) => return close,
            Ok(_) => {}
            Err(error) => panic!("no close came: {error}"),
        }
    }
}

fn a_silent_client_is_told_1001_never_early_and_the_talkative_live(engine: &str) {
    let server = start(engine, &["--idle-timeout", "600ms", "--heartbeat-interval", "200ms"]);
    let mut talkative = connect(&server);
    let mut silent = connect(&server);
    let last_sent = Instant::now();
    silent.send(text("ping")).expect("sent");
    silent.read().expect("the pong");
    let waiting = std::thread::spawn(move || {
        let close = close_of(&mut silent).expect("a code");
        (close.code, last_sent.elapsed())
    });
    while !waiting.is_finished() {
        talkative.send(text("ping")).expect("sent");
        talkative.read().expect("the pong");
        std::thread::sleep(Duration::from_millis(50));
    }
    let (code, silence) = waiting.join().expect("it was closed");
    assert_eq!(code, CloseCode::Away);
    assert!(silence >= Duration::from_millis(600), "early: {silence:?}");
    talkative.send(text("ping")).expect("sent");
    talkative.read().expect("the pong");
    let counters = server.stop();
    assert_eq!(count(&counters, &["closed", "expired"]), 1);
    assert_eq!(count(&counters, &["expired_early"]), 0);
}

fn faults_get_their_code_and_are_counted(engine: &str) {
    let server = start(engine, &["--max-frame", "1000"]);
    let faults: [(&[u8], u16, &str); 9] = [
        (&[0x81, 0x01, b'x'], 1002, "ws_unmasked"),
        (&[0xc1, 0x80], 1002, "ws_reserved_bits"),
        (&[0x83, 0x80], 1002, "ws_unknown_opcode"),
        (&[0x89, 0xfe], 1002, "ws_control_too_long"),
        (&[0x09, 0x80], 1002, "ws_control_fragmented"),
        (&[0x80, 0x80], 1002, "ws_continuation_without_start"),
        (&[0x82, 0xfe, 0x03, 0xe9], 1009, "ws_too_big"),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007, "ws_bad_utf8"),
        (&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xed], 1002, "ws_close_code"),
    ];
    for (bytes, code, reason) in faults {
        let mut socket = connect(&server);
        // What follows a fault is not read, and does not keep the peer from hearing of it.
        socket.get_mut().write_all(&[bytes, &[0; 500]].concat()).expect("sent");
        let close = close_of(&mut socket).expect("a code");
        assert_eq!(u16::from(close.code), code, "{reason}");
    }
    let counters = server.stop();
    for (_, _, reason) in faults {
        assert_eq!(count(&counters, &["closed", reason]), 1, "{reason}");
    }
}

/// Frames, one after the other.
type Frames = Vec<Vec<u8>>;

/// Cases as an outside conformance suite has them, strictly: all that was sent before a fault or a
/// close is answered, in order, then comes the code, then the end. Sent whole and in pieces.
fn strict_conformance_to_the_byte(engine: &str) {
    let server = start(engine, &["--echo", "--max-frame", "16MiB"]);
    let large = vec![b'*'; 256 << 10];
    let echo = |first: u8, payload: &[u8]| {
        let mut bytes = frame(first, payload);
        bytes[1] &= 0x7f;
        let key = bytes.len() - payload.len() - 4;
        bytes.drain(key..key + 4);
        bytes
    };
    let bye = |code: u16| frame(0x88, &code.to_be_bytes());
    let (text, ping, end) = (frame(0x81, b"Hello"), frame(0x89, b"p"), bye(1000));
    let (hello, pong) = (echo(0x81, b"Hello"), echo(0x8a, b"p"));
    let told = |code: u16| echo(0x88, &code.to_be_bytes());
    let failed = vec![hello.clone(), told(1002)];
    let cases: Vec<(&str, Frames, Frames)> = vec![
        ("1.1.1", vec![frame(0x81, b""), end.clone()], vec![echo(0x81, b""), told(1000)]),
        ("1.2.6", vec![frame(0x82, &large), end.clone()], vec![echo(0x82, &large), told(1000)]),
        ("2.5", vec![frame(0x89, &[0xfe; 126]), end.clone()], vec![told(1002)]),
        ("2.8", vec![frame(0x8a, b"unsolicited"), end.clone()], vec![told(1000)]),
        ("3.2", vec![text.clone(), frame(0xa1, b"x"), ping.clone()], failed.clone()),
        ("4.1.3", vec![text.clone(), vec![0x85, 0x80], ping.clone()], failed.clone()),
        ("4.2.3", vec![text.clone(), vec![0x8d, 0x80], ping.clone()], failed.clone()),
        (
            "5.6",
            vec![frame(0x01, b"Hel"), ping.clone(), frame(0x80, b"lo"), end.clone()],
            vec![pong.clone(), hello.clone(), told(1000)],
        ),
        ("5.9", vec![frame(0x80, b"x"), text.clone()], vec![told(1002)]),
        (
            "5.15",
            vec![frame(0x01, b"Hel"), frame(0x80, b"lo"), frame(0x00, b"x"), text.clone()],
            failed.clone(),
        ),
        ("6.3.1", vec![frame(0x81, b"\xce\xba\xed\xa0\x80edited")], vec![told(1007)]),
        ("7.1.2", vec![end.clone(), end.clone()], vec![told(1000)]),
        ("7.1.3", vec![end.clone(), ping.clone()], vec![told(1000)]),
        ("7.1.5", vec![frame(0x01, b"x"), end.clone(), frame(0x80, b"y")], vec![told(1000)]),
        (
            "7.1.6",
            vec![frame(0x81, &large), end.clone(), ping.clone()],
            vec![echo(0x81, &large), told(1000)],
        ),
        ("7.3.1", vec![frame(0x88, b"")], vec![echo(0x88, b"")]),
        ("7.3.2", vec![frame(0x88, b"a")], vec![told(1002)]),
        ("7.5.1", vec![frame(0x88, b"\x03\xe8\xce\xba\xed\xa0")], vec![told(1007)]),
        ("7.7.13", vec![bye(4999)], vec![told(4999)]),
        ("7.9.3", vec![bye(1005)], vec![told(1002)]),
    ];
    // All at once: who was told of a fault has a second to close himself.
    std::thread::scope(|scope| {
        for (case, sent, expected) in &cases {
            let (sent, server) = (sent.concat(), &server);
            for piece_bytes in [sent.len(), sent.len() / 150 + 1] {
                let sent = sent.clone();
                scope.spawn(move || {
                    let answers = answers_to(server, sent, piece_bytes);
                    assert!(answers == expected.concat(), "{case} in pieces of {piece_bytes}");
                });
            }
        }
    });
    server.stop();
}

/// All that the server says to these bytes, until it closes.
fn answers_to(server: &Server, bytes: Vec<u8>, piece_bytes: usize) -> Vec<u8> {
    let mut socket = connect(server);
    let stream = socket.get_mut();
    let mut writer = stream.try_clone().expect("a copy");
    let writing = std::thread::spawn(move || {
        // It may be over before all is written: what follows a fault is not read.
        bytes.chunks(piece_bytes).all(|piece| writer.write_all(piece).is_ok())
    });
    let (mut answers, mut buffer) = (Vec::new(), [0; 4_096]);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        answers.extend_from_slice(&buffer[..count]);
    }
    writing.join().expect("no panic");
    answers
}

fn what_is_no_upgrade_gets_an_answer_and_is_counted(engine: &str) {
    let server = start(engine, &["--hello-timeout", "400ms"]);
    let requests = [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 426 ", "http_upgrade_required"),
        ("POST / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 405 ", "http_method"),
        ("\u{0}\u{1}\u{3} noise", "HTTP/1.1 400 ", "http_bad_request"),
    ];
    for (request, answer, _) in requests {
        let mut stream = raw(server.address);
        stream.write_all(request.as_bytes()).expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer, and the end");
        assert!(text.starts_with(answer), "{request}: {text}");
    }
    let mut dribbling = raw(server.address);
    dribbling.write_all(b"GET / HT").expect("sent");
    assert_eq!(dribbling.read(&mut [0; 9]).expect("the end"), 0, "no whole request in time");
    let counters = server.stop();
    for (_, _, reason) in requests {
        assert_eq!(count(&counters, &["closed", reason]), 1, "{reason}");
    }
    assert_eq!(count(&counters, &["closed", "hello_timeout"]), 1);
}

/// One burst that is read at once. tokio-uring reads 64 bytes at a time and answers between, so
/// that to it this is no flood.
#[test]
fn a_flood_of_pings_is_closed_with_1008() {
    flood("uring");
    flood("epoll");
}

fn flood(engine: &str) {
    let server = start(engine, &[]);
    let mut socket = connect(&server);
    socket.get_mut().write_all(&PING.repeat(17)).expect("sent");
    assert_eq!(u16::from(close_of(&mut socket).expect("a code").code), 1008);
    let counters = server.stop();
    assert_eq!(count(&counters, &["closed", "ping_flood"]), 1);
    assert_eq!(counters["heartbeats_received"], 17);
}

fn the_closing_handshake_is_answered(engine: &str) {
    let server = start(engine, &[]);
    let mut socket = connect(&server);
    let close = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
    socket.close(Some(close)).expect("sent");
    let answer = close_of(&mut socket).expect("a code");
    assert_eq!(answer.code, CloseCode::Normal);
    assert!(matches!(socket.read(), Err(tungstenite::Error::ConnectionClosed)), "the server ends");
    let counters = server.stop();
    assert_eq!(count(&counters, &["closed", "peer_closed"]), 1);
}

fn a_stop_is_told_as_1001(engine: &str) {
    let server = start(engine, &[]);
    let mut socket = connect(&server);
    socket.send(text("ping")).expect("sent");
    socket.read().expect("the pong");
    let waiting = std::thread::spawn(move || close_of(&mut socket).expect("a code").code);
    let counters = server.stop();
    assert_eq!(waiting.join().expect("it was told"), CloseCode::Away);
    assert_eq!(count(&counters, &["closed", "server_stopping"]), 1);
}
