//! The generator against servers that are not heartwheel: line servers and a small MQTT broker,
//! which behave or misbehave as they are told. Against real ones: scripts/test-servers.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may as well panic")]

mod generator;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use generator::{Outcome, finish, spawn, start, turn};
use rumqttc::{ConnAck, ConnectReturnCode, Packet, Publish, QoS, SubAck, SubscribeReasonCode};

/// A server that gives each connection a thread.
fn serve(attend: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let attend = Arc::new(attend);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, attend) = (stream.unwrap(), Arc::clone(&attend));
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || attend(stream));
        }
    });
    address
}

fn run(flags: &[&str]) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(flags.iter().flat_map(|flags| match flags.contains('\\') {
        // A template is one word.
        true => vec![*flags],
        false => flags.split_whitespace().collect(),
    }));
    command.args(["--report", "-"]);
    finish(spawn(command))
}

#[track_caller]
fn expect(outcome: &Outcome, code: i32, numbers: &[(&str, f64)]) {
    assert_eq!(outcome.code, Some(code), "{} {}", outcome.stderr, outcome.report);
    for &(path, expected) in numbers {
        let found = outcome.number(path);
        assert!((found - expected).abs() < 0.5, "{path} is {found}: {}", outcome.report);
    }
}

/// Answers `PING n` by what `answer` says of `n`, and expires whoever was silent for `rule`.
fn line_server(rule: Duration, answer: fn(u32) -> String) -> SocketAddr {
    serve(move |mut stream| {
        stream.set_read_timeout(Some(rule)).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        // Both a timeout, which is the expiry, and a reset end it.
        while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
            let reply = match line.trim_end().split_once(' ') {
                Some(("HELLO", client)) => format!("* a line beside\r\nWELCOME {client}\r\n"),
                Some(("PING", number)) => answer(number.parse().unwrap()),
                _ => "?\r\n".to_owned(),
            };
            if stream.write_all(reply.as_bytes()).is_err() {
                return;
            }
            line.clear();
        }
    })
}

const LINES: [&str; 4] = ["--line-send", "PING {seq}\\r\\n", "--line-expect", "PONG {seq}\\r\\n"];

fn against_lines(address: SocketAddr, more: &[&str]) -> Outcome {
    let target = format!("--target tcp-line://{address} -c 40 -i 300ms --idle-timeout 1500ms");
    let _turn = turn();
    run(&[&[&*target, "--silent 10% -d 1s --tick 300ms"], &LINES[..], more].concat())
}

#[test]
fn a_line_server_is_judged_like_any_other() {
    let address = line_server(Duration::from_millis(1_500), |seq| format!("PONG {seq}\r\n"));
    let numbers = [
        ("connections.opened", 40.0),
        ("expiry.silenced", 4.0),
        ("expiry.expired", 4.0),
        ("expiry.false", 0.0),
        ("heartbeats.missing", 0.0),
        ("expiry.idle_timeout_ms", 1_500.0),
    ];
    let outcome = against_lines(address, &[]);
    expect(&outcome, 0, &numbers);
    assert_eq!(outcome.report["protocol"], "tcp-line");
    let silence = outcome.number("expiry.silence_ms.min");
    assert!((1_500.0..2_500.0).contains(&silence), "{silence}");
    let greeted = against_lines(
        address,
        &["--line-hello", "HELLO {client}\\n", "--line-welcome", "WELCOME {client}\\r\\n"],
    );
    expect(&greeted, 0, &numbers);
    assert!((greeted.number("data.received") - 40.0).abs() < 0.5, "the line beside");
}

#[test]
fn an_early_line_server_is_false() {
    let address = line_server(Duration::from_millis(900), |seq| format!("PONG {seq}\r\n"));
    let outcome = against_lines(address, &[]);
    expect(&outcome, 99, &[("expiry.false_early", 4.0), ("expiry.expired", 0.0)]);
    let silence = outcome.number("expiry.silence_ms.min");
    assert!((900.0..1_500.0).contains(&silence), "the early ones are measured too: {silence}");
}

/// An answer to another heartbeat answers none.
#[test]
fn a_line_server_that_counts_wrongly_answers_nothing() {
    let address = line_server(Duration::from_millis(1_500), |seq| format!("PONG {}\r\n", seq + 1));
    let outcome = against_lines(address, &[]);
    expect(&outcome, 99, &[("heartbeats.acked", 0.0), ("expiry.expired", 4.0)]);
    assert!(outcome.number("heartbeats.stray") > 100.0);
}

#[test]
fn a_line_server_that_does_not_welcome_is_not_reached() {
    let address = line_server(Duration::from_secs(10), |seq| format!("PONG {seq}\r\n"));
    let outcome =
        against_lines(address, &["--line-welcome", "READY\\n", "--open-timeout", "500ms"]);
    expect(&outcome, 100, &[("connections.opened", 0.0)]);
    assert_eq!(outcome.report["connections"]["failed"]["no welcoming line in time"], 40);
}

/// What a broker does with its clients.
#[derive(Clone, Copy)]
struct Broker {
    code: ConnectReturnCode,
    topic: SubscribeReasonCode,
    /// Over the keepalive.
    factor: f64,
}

const GOOD: Broker = Broker {
    code: ConnectReturnCode::Success,
    topic: SubscribeReasonCode::Success(QoS::AtMostOnce),
    factor: 1.5,
};

/// Expires its clients by their keepalive, and publishes a message to whoever subscribes. How many
/// have said DISCONNECT is counted.
fn broker(manners: Broker) -> (SocketAddr, Arc<AtomicU32>) {
    let farewells = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&farewells);
    let address = serve(move |stream| attend(&stream, manners, &counted));
    (address, farewells)
}

fn attend(mut stream: &TcpStream, manners: Broker, farewells: &AtomicU32) {
    let (mut received, mut bytes) = (BytesMut::new(), [0; 512]);
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(length) => received.extend_from_slice(&bytes[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        }
        while let Ok(packet) = Packet::read(&mut received, 1_000) {
            let mut answer = BytesMut::new();
            match packet {
                Packet::Connect(connect) => {
                    let rule = f64::from(connect.keep_alive) * manners.factor;
                    stream.set_read_timeout(Some(Duration::from_secs_f64(rule))).unwrap();
                    ConnAck::new(manners.code, false).write(&mut answer).unwrap();
                }
                Packet::Subscribe(subscribe) => {
                    let path = subscribe.filters[0].path.clone();
                    let topic = SubAck::new(subscribe.pkid, vec![manners.topic]);
                    topic.write(&mut answer).unwrap();
                    Publish::new(path, QoS::AtMostOnce, "hi").write(&mut answer).unwrap();
                }
                Packet::PingReq => Packet::PingResp.write(&mut answer, 100).map(drop).unwrap(),
                Packet::Disconnect => drop(farewells.fetch_add(1, Ordering::Relaxed)),
                _ => return,
            }
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
    }
}

fn against_broker(manners: Broker, more: &str) -> (Outcome, u32) {
    let (address, farewells) = broker(manners);
    let _turn = turn();
    let target = format!("--target mqtt://{address} -c 40 -i 800ms --silent 10% -d 1s");
    let outcome = run(&[&target, "--tick 300ms", more]);
    let said = counted(&farewells, 36);
    (outcome, said)
}

/// What has been counted, as soon as it is as expected: the generator may be gone before the last
/// of its bytes are read.
fn counted(count: &AtomicU32, expected: u32) -> u32 {
    for _ in 0..20 {
        if count.load(Ordering::Relaxed) == expected {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    count.load(Ordering::Relaxed)
}

#[test]
fn a_broker_may_expire_after_one_and_a_half_keepalives() {
    let (outcome, farewells) = against_broker(GOOD, "--mqtt-topic a/{client}");
    let numbers = [
        ("connections.opened", 40.0),
        ("expiry.expired", 4.0),
        ("expiry.false", 0.0),
        ("expiry.idle_timeout_ms", 1_500.0),
        ("heartbeats.missing", 0.0),
        ("push.unexpected", 40.0),
    ];
    expect(&outcome, 0, &numbers);
    assert_eq!((&outcome.report["protocol"], farewells), (&"mqtt".into(), 36));
    assert!(outcome.report["notes"].to_string().contains("keepalive is 1 s"));
}

#[test]
fn a_broker_that_expires_after_one_keepalive_is_early() {
    let (outcome, _) = against_broker(Broker { factor: 1.2, ..GOOD }, "");
    expect(&outcome, 99, &[("expiry.false_early", 4.0)]);
}

#[test]
fn a_broker_that_refuses_is_not_reached_and_says_why() {
    let unauthorized = Broker { code: ConnectReturnCode::NotAuthorized, ..GOOD };
    let (outcome, _) = against_broker(unauthorized, "");
    expect(&outcome, 100, &[("connections.opened", 0.0)]);
    let failed = &outcome.report["connections"]["failed"];
    assert_eq!(failed["CONNACK 5: not authorized"], 40, "{failed}");
    let (outcome, _) =
        against_broker(Broker { topic: SubscribeReasonCode::Failure, ..GOOD }, "--mqtt-topic a");
    let failed = &outcome.report["connections"]["failed"];
    assert_eq!(failed["SUBACK: the topic is refused"], 40, "{failed}");
}

/// Those who leave by plan say so, those who are killed do not.
#[test]
fn mqtt_clients_that_churn_say_good_bye() {
    let (address, farewells) = broker(GOOD);
    let _turn = turn();
    let target = format!("--target mqtt://{address} -c 40 -i 800ms -d 2s");
    let outcome =
        run(&[&target, "--churn 10 --at 500ms:storm:50% --reconnect exp:10ms..20ms,full-jitter"]);
    expect(&outcome, 0, &[("reconnect.killed", 20.0)]);
    let churned = outcome.number("reconnect.churned");
    assert!(churned >= 15.0, "{churned}");
    assert_eq!(counted(&farewells, 40 + churned as u32), 40 + churned as u32);
}

#[test]
fn what_makes_no_sense_is_usage_with_the_cure() {
    for (flags, cure) in [
        ("--target mqtt://127.0.0.1 -i 1s --negotiate", "leave it out, and say -i"),
        ("--target tcp://127.0.0.1:7 --ws-heartbeat control", "--ws-heartbeat is for ws://"),
        ("--target ws://127.0.0.1 -i 1s --mqtt-topic a", "--mqtt-topic is for mqtt://"),
        ("--target mqtt://127.0.0.1 -i 2s --idle-timeout 10s", "say 9s or 10.5s"),
        ("--target mqtt://127.0.0.1", "needs -i"),
        ("--target tcp-line://127.0.0.1:7 -i 1s", "--line-send 'PING\\r\\n'"),
        ("--protocol mqtt -i 1s", "--target"),
        ("--target http://127.0.0.1:7", "tcp-line"),
    ] {
        let outcome = finish(start(flags));
        assert_eq!(outcome.code, Some(2), "{flags}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(cure), "{flags}: {}", outcome.stderr);
    }
}
