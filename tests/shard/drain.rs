//! Draining in virtual time: who is told what and when, and who is closed when.

use std::collections::HashSet;
use std::time::Duration;

use heartwheel::protocol::Protocol;
use heartwheel::protocol::frame::{Frame, Parsed, parse};
use heartwheel::session::SessionKey;
use heartwheel::shard::{CloseReason, Policy, PushMessage, Refusal};

use crate::world::{PING, PONG, World, ms};

/// The retry-after that a client was told by GOAWAY, behind its first PONG.
fn retry_after_ms(world: &World, key: SessionKey) -> u32 {
    match parse(&world.sent_to(key)[3..], 65_535) {
        Ok(Parsed::Whole(Frame::GoAway { reason: 1, retry_after_ms }, _)) => retry_after_ms,
        other => panic!("a GOAWAY: {other:?}"),
    }
}

/// Goes on with the drain for a time; how many sessions were open every 10 ms.
fn go_on(world: &mut World, by: Duration) -> Vec<u64> {
    let end = world.now + by;
    let mut open = Vec::new();
    while world.now < end {
        world.work();
        world.go_on(ms(10));
        open.push(world.counters().open);
        world.check_laws();
    }
    open
}

#[test]
fn everybody_is_told_at_once_and_closed_over_the_time() {
    let mut world = World::new(Policy::default());
    let mut connect = |_| {
        let key = world.connect();
        world.receive(key, PING);
        key
    };
    let clients: Vec<_> = (0..500).map(&mut connect).collect();
    assert_eq!(world.drain(ms(2_000)), 500);
    while world.counters().drain_notices < 500 {
        world.work();
    }
    world.settle();
    assert!(world.counters().open >= 495, "told first");
    let told: Vec<_> = clients.iter().map(|&key| retry_after_ms(&world, key)).collect();
    assert!(told.iter().all(|after| (2_000..12_000).contains(after)), "{told:?}");
    let different: HashSet<_> = told.iter().collect();
    assert!(different.len() > 400, "they come back at different moments: {}", different.len());
    assert_eq!(world.try_connect().err(), Some(Refusal::Stopping));
    // Until its turn comes, a session lives.
    world.receive(clients[499], PING);
    assert_eq!(&world.sent_to(clients[499])[12..], PONG);

    // Each has a second to read it: closed at once, it might be reset before.
    let open = go_on(&mut world, ms(3_200));
    let steepest = open.windows(2).map(|pair| pair[0] - pair[1]).max().expect("many");
    assert!(steepest <= 30, "500 over 2 s are 25 a tick: {steepest}");
    assert!((230..270).contains(&open[204]), "half after half the time: {}", open[204]);
    assert_eq!(world.counters().closed_for(CloseReason::ServerStopping), 500);
    assert_eq!(world.counters().open, 0);
}

#[test]
fn a_websocket_is_told_in_its_turn_by_1001_with_the_time() {
    let mut world = World::new(Policy::default());
    let (client, greeting) = world.connect_by(Protocol::WebSocket);
    world.drain(ms(500));
    go_on(&mut world, ms(600));
    let sent = &world.sent_to(client)[greeting..];
    assert_eq!((sent[0], &sent[2..4]), (0x88, &1001_u16.to_be_bytes()[..]));
    let text = String::from_utf8(sent[4..].to_vec()).expect("a reason is UTF-8");
    let after: u32 = text.strip_prefix("retry-after-ms=").expect("so").parse().expect("a number");
    assert!((500..10_500).contains(&after), "{after}");
    // It does not answer: it has a second, then it is closed all the same.
    go_on(&mut world, ms(1_200));
    assert_eq!(world.closed_for(client), Some(CloseReason::ServerStopping));
}

#[test]
fn what_is_on_its_way_goes_out_first_and_who_does_not_read_is_not_waited_for() {
    for deaf in [false, true] {
        let mut world = World::new(Policy::default());
        let client = world.connect();
        world.receive(client, PING);
        world.deaf = deaf;
        for id in 1..=3 {
            let message = PushMessage::new(id, b"last words").expect("short");
            world.push(client, &message).expect("live");
        }
        world.drain(Duration::ZERO);
        go_on(&mut world, ms(1_500));
        assert_eq!(world.closed_for(client), Some(CloseReason::ServerStopping));
        let sent = world.sent_to(client).len();
        let whole = 3 + 3 * (3 + 8 + 10) + 9;
        assert_eq!(sent, if deaf { 3 } else { whole });
        assert_eq!(world.counters().pushes_unconfirmed, if deaf { 0 } else { 3 });
    }
}
