//! What clients and server agree on, who has a ticket, and how a herd is flattened.

use std::sync::Arc;
use std::time::Duration;

use heartwheel::protocol::Protocol;
use heartwheel::protocol::frame::{Frame, Parsed, parse};
use heartwheel::protocol::ticket::{KeyRing, Ticket};
use heartwheel::session::SessionKey;
use heartwheel::shard::{Auth, CloseReason, Policy};
use heartwheel::time::TickLength;

use crate::world::{PING, PONG, World, encode, ms};

/// What wall clocks show when the virtual time begins.
const UNIX_AT_ZERO_S: u64 = 1_700_000_000;

pub fn policy() -> Policy {
    Policy {
        tick: TickLength::new(ms(100)),
        heartbeat_interval: ms(2_000),
        idle_timeout: ms(5_000),
        heartbeat_min: ms(300),
        heartbeat_max: ms(10_000),
        timeout_factor: 2.5,
        ..Policy::default()
    }
}

fn hello(interval_ms: u32) -> Vec<u8> {
    encode(&Frame::Hello { interval_ms, token: b"" })
}

/// The terms in the WELCOME that a session was sent: interval and timeout in milliseconds.
fn welcomed(world: &World, key: SessionKey) -> (u32, u32) {
    match parse(world.sent_to(key), 1_000) {
        Ok(Parsed::Whole(Frame::Welcome { interval_ms, idle_timeout_ms, .. }, _)) => {
            (interval_ms, idle_timeout_ms)
        }
        other => panic!("no WELCOME: {other:?}"),
    }
}

#[test]
fn an_interval_is_granted_within_bounds_and_the_timeout_follows_from_it() {
    let cases = [
        (0, (2_000, 5_000)),
        (1, (300, 750)),
        (299, (300, 750)),
        (300, (300, 750)),
        (1_001, (1_001, 2_503)),
        (10_000, (10_000, 25_000)),
        (u32::MAX, (10_000, 25_000)),
    ];
    for (wanted, terms) in cases {
        let mut world = World::new(policy());
        let client = world.connect();
        world.receive(client, &hello(wanted));
        assert_eq!(welcomed(&world, client), terms, "asked for {wanted}");
        assert_eq!(world.view(client).idle_timeout_ms, terms.1);
    }
}

/// Everybody beats in the same turns of the loop, and falls silent in the same one.
#[test]
fn timeouts_that_differ_are_each_kept_exactly() {
    for phase_us in [0, 1, 50_000, 99_999] {
        let mut world = World::new(policy());
        world.now = heartwheel::time::Timestamp::from_nanos(phase_us * 1_000);
        let wanted = [0, 300, 700, 2_000, 4_000, 10_000, 0, 300];
        let clients = wanted.map(|_| world.connect());
        for (client, wanted) in clients.into_iter().zip(wanted) {
            world.receive(client, &hello(wanted));
        }
        for _ in 0..5 {
            world.advance(ms(200));
            for client in clients {
                world.receive(client, PING);
            }
        }
        let silent_since = world.now;
        let mut open: Vec<_> = clients.into_iter().zip(wanted).collect();
        while !open.is_empty() {
            world.advance(ms(1));
            let silent = world.now.since(silent_since);
            open.retain(|&(client, wanted)| {
                let timeout = if wanted == 0 { ms(5_000) } else { ms(u64::from(wanted)) * 5 / 2 };
                match world.closed_for(client) {
                    Some(reason) => {
                        assert_eq!(reason, CloseReason::Expired);
                        assert!(silent >= timeout, "early: {wanted} after {silent:?}");
                        assert!(silent <= timeout + ms(101), "late: {wanted} after {silent:?}");
                    }
                    None => assert!(silent <= timeout + ms(100), "missed: {wanted} {silent:?}"),
                }
                world.closed_for(client).is_none()
            });
        }
        world.check_laws();
    }
}

/// The PING of the server comes after the session's own interval, not the server's.
#[test]
fn who_has_an_interval_of_his_own_is_asked_after_that() {
    let mut world = World::new(Policy { server_ping: true, ..policy() });
    let wanted = [0, 300, 1_000, 8_000];
    let clients = wanted.map(|_| world.connect());
    for (client, wanted) in clients.into_iter().zip(wanted) {
        world.receive(client, &hello(wanted));
        world.take_sent_to(client);
    }
    let cases = [(2_000, 5_000), (300, 750), (1_000, 2_500), (8_000, 20_000)];
    let begun = world.now;
    let mut asked = [None; 4];
    while clients.iter().any(|&client| world.closed_for(client).is_none()) {
        world.advance(ms(1));
        world.settle();
        let silent_ms = world.now.since(begun).as_millis();
        for (index, &client) in clients.iter().enumerate() {
            if world.take_sent_to(client) == PING {
                assert_eq!(asked[index].replace(silent_ms), None, "once");
            }
            let (interval_ms, timeout_ms) = cases[index];
            if world.closed_for(client).is_some() {
                let asked = asked[index].expect("nobody is given up who was not asked");
                assert!((interval_ms..=interval_ms + 101).contains(&asked), "{asked}");
            } else {
                assert!(silent_ms <= timeout_ms + 101, "{silent_ms} of {timeout_ms}");
            }
        }
    }
    assert_eq!(world.counters().closed_for(CloseReason::Expired), 4);
    assert_eq!(world.counters().expired_early, 0);
    world.check_laws();
}

/// The most heartbeats in a tick over the mean, in the last of some intervals of a herd.
fn peak_to_mean(protocol: Protocol, flatten: bool) -> f64 {
    let mut world = World::new(Policy { flatten, ..policy() });
    let clients: Vec<_> = (0..500).map(|_| herd_member(&mut world, protocol)).collect();
    let mut due = Vec::new();
    for &client in &clients {
        due.push(world.now + next_beat(&mut world, protocol, client));
    }
    let end = world.now + ms(20_000);
    while world.now < end {
        world.advance(ms(10));
        for (&client, due) in clients.iter().zip(&mut due) {
            if *due <= world.now {
                world.receive(client, if protocol == Protocol::Tcp { PING } else { WS_PING });
                *due = world.now + next_beat(&mut world, protocol, client);
            }
        }
    }
    world.check_laws();
    assert_eq!(world.counters().closed_total(), 0, "nobody comes near the timeout by it");
    let told_at_first = if protocol == Protocol::Tcp { 0 } else { 500 };
    assert_eq!(world.counters().adjusts_sent > told_at_first, flatten);
    let counters = world.counters();
    let mean = counters.heartbeats_per_interval as f64 / counters.ticks_per_interval as f64;
    counters.heartbeats_per_tick_peak as f64 / mean
}

/// A masked text `ping`; with a key of zeros it stays legible.
const WS_PING: &[u8] = &[0x81, 0x84, 0, 0, 0, 0, b'p', b'i', b'n', b'g'];

/// A client that can be told new terms.
fn herd_member(world: &mut World, protocol: Protocol) -> SessionKey {
    match protocol {
        Protocol::Tcp => {
            let client = world.connect();
            world.receive(client, &hello(0));
            client
        }
        Protocol::WebSocket => {
            let client = world.upgrade("/?adjust=1");
            let greeting = world.take_sent_to(client);
            let end =
                greeting.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an answer");
            let (terms, rest) = ws_terms(&greeting[end + 4..]).expect("the terms, at once");
            assert!(terms[..2] == [2_000, 5_000] && terms[2] <= 2_000 && rest.is_empty());
            client
        }
    }
}

/// When a client beats next that takes new terms.
fn next_beat(world: &mut World, protocol: Protocol, client: SessionKey) -> Duration {
    let sent = world.take_sent_to(client);
    let mut next = ms(2_000);
    let mut rest = &sent[..];
    let mut take = |interval_ms, idle_timeout_ms, next_in_ms: u32| {
        assert_eq!((interval_ms, idle_timeout_ms), (2_000, 5_000));
        next = ms(next_in_ms.into());
    };
    if protocol == Protocol::WebSocket {
        rest = rest.strip_prefix(b"\x81\x04pong").unwrap_or(rest);
        if let Some(([interval, timeout, next_in], behind)) = ws_terms(rest) {
            take(interval, timeout, next_in);
            rest = behind;
        }
    }
    while let Ok(Parsed::Whole(frame, bytes)) = parse(rest, 1_000) {
        if let Frame::Adjust { interval_ms, idle_timeout_ms, next_in_ms } = frame {
            take(interval_ms, idle_timeout_ms, next_in_ms);
        }
        rest = &rest[bytes..];
    }
    assert!(rest.is_empty() && next <= ms(2_000), "{sent:?}");
    next
}

/// The terms in the short text frame at the front, and what is behind it.
fn ws_terms(bytes: &[u8]) -> Option<([u32; 3], &[u8])> {
    let [0x81, length, rest @ ..] = bytes else { return None };
    let (text, behind) = rest.split_at(usize::from(*length));
    let told: serde_json::Value = serde_json::from_slice(text).ok()?;
    let number = |name: &str| told["adjust"][name].as_u64().map(|number| number as u32);
    let terms = [number("interval_ms")?, number("idle_timeout_ms")?, number("next_in_ms")?];
    Some((terms, behind))
}

#[test]
fn a_herd_is_flattened_by_adjust_and_only_if_that_is_asked_for() {
    for protocol in [Protocol::Tcp, Protocol::WebSocket] {
        let (before, after) = (peak_to_mean(protocol, false), peak_to_mean(protocol, true));
        assert!(before > 15.0, "a herd to begin with: {before}");
        assert!(after < 2.5, "and flat in the end: {after}");
    }
}

#[test]
fn a_websocket_that_did_not_ask_for_it_is_never_told_to_adjust() {
    let mut world = World::new(Policy { flatten: true, ..policy() });
    let clients: Vec<_> = (0..500).map(|_| world.upgrade("/?heartbeat=2s&adjust=0")).collect();
    for client in clients {
        world.take_sent_to(client);
        world.receive(client, WS_PING);
        assert_eq!(world.sent_to(client), b"\x81\x04pong");
    }
}

#[test]
fn whoever_said_no_hello_is_never_told_to_adjust() {
    let mut world = World::new(Policy { flatten: true, ..policy() });
    let clients: Vec<_> = (0..500).map(|_| world.connect()).collect();
    for client in clients {
        world.receive(client, PING);
        assert_eq!(world.sent_to(client), PONG);
    }
}

fn keys() -> KeyRing {
    KeyRing::new([&b"0123456789abcdef"[..]]).expect("a key")
}

fn token(exp: u64, nonce: Option<&str>) -> String {
    keys().seal(&Ticket { exp, sub: None, nonce: nonce.map(str::to_owned) })
}

/// What becomes of a client that begins with these bytes.
fn fate(world: &mut World, bytes: &[u8]) -> Option<CloseReason> {
    let client = world.connect();
    world.receive(client, bytes);
    world.closed_for(client)
}

fn hello_with(token: &str) -> Vec<u8> {
    encode(&Frame::Hello { interval_ms: 0, token: token.as_bytes() })
}

fn guarded() -> (World, Arc<Auth>) {
    let auth = Auth::new(keys(), Duration::from_secs(UNIX_AT_ZERO_S));
    (World::new(Policy { auth: Some(Arc::clone(&auth)), ..policy() }), auth)
}

#[test]
fn only_a_good_ticket_lets_a_client_in() {
    let (mut world, auth) = guarded();
    let good = token(UNIX_AT_ZERO_S + 60, None);
    let other = KeyRing::new([&b"another key of ours"[..]]).expect("a key");
    let forged = other.seal(&Ticket { exp: UNIX_AT_ZERO_S + 60, sub: None, nonce: None });
    let cases: [(Vec<u8>, Option<CloseReason>); 8] = [
        (hello_with(&good), None),
        (hello_with(&good), None),
        (hello_with(""), Some(CloseReason::AuthMissing)),
        (PING.to_vec(), Some(CloseReason::AuthMissing)),
        (hello_with("nonsense"), Some(CloseReason::AuthMalformed)),
        (hello_with(&forged), Some(CloseReason::AuthForged)),
        (hello_with(&token(UNIX_AT_ZERO_S, None)), Some(CloseReason::AuthExpired)),
        (hello_with(&"a".repeat(2_000)), Some(CloseReason::IllegalOversize)),
    ];
    for (bytes, expected) in cases {
        assert_eq!(fate(&mut world, &bytes), expected);
    }
    let once = hello_with(&token(UNIX_AT_ZERO_S + 60, Some("n1")));
    assert_eq!(fate(&mut world, &once), None);
    assert_eq!(fate(&mut world, &once), Some(CloseReason::AuthReplayed));
    // Another shard knows of it.
    let mut shard = World::new(Policy { auth: Some(auth), ..policy() });
    assert_eq!(fate(&mut shard, &once), Some(CloseReason::AuthReplayed));
    world.advance(ms(61_000));
    assert_eq!(fate(&mut world, &hello_with(&good)), Some(CloseReason::AuthExpired));
    assert_eq!(fate(&mut world, &once), Some(CloseReason::AuthExpired));
    world.check_laws();
}

#[test]
fn an_interval_of_ones_own_is_kept_even_if_its_timeout_is_the_servers() {
    let policy = Policy {
        heartbeat_interval: ms(10_000),
        idle_timeout: ms(90_000),
        server_ping: true,
        ..Policy::default()
    };
    let mut world = World::new(policy);
    let client = world.connect();
    world.receive(client, &encode(&Frame::Hello { interval_ms: 30_000, token: b"" }));
    world.go_on(ms(29_000));
    assert_eq!(world.counters().server_pings_sent, 0, "it is not due yet");
    world.go_on(ms(1_500));
    assert_eq!(world.counters().server_pings_sent, 1);
}
