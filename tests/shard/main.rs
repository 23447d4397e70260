//! The sans-IO core in virtual time: bytes in, bytes out, and when sessions end.

mod admission;
mod drain;
mod handler;
mod output;
mod policy;
mod push;
mod server_ping;
mod timeouts;
mod websocket;
mod world;

use heartwheel::protocol::frame::Frame;
use heartwheel::shard::{CloseReason, Policy, Refusal};
use proptest::collection::vec;
use proptest::prelude::*;
use world::{PING, PONG, World, encode, ms};

#[test]
fn a_heartbeat_is_answered() {
    let mut world = World::new(Policy::default());
    let client = world.connect();
    world.receive(client, PING);
    assert_eq!(world.sent_to(client), PONG);
    world.check_laws();
}

#[test]
fn a_hello_is_welcomed_with_what_the_server_wants() {
    let mut world = World::new(Policy::default());
    let client = world.connect();
    world.receive(client, &encode(&Frame::Hello { interval_ms: 0, token: b"" }));
    let welcome = world.sent_to(client);
    assert_eq!(welcome.len(), 19);
    assert_eq!(welcome[..3], [0, 17, 2]);
    assert_eq!(welcome[11..15], 30_000_u32.to_be_bytes());
    assert_eq!(welcome[15..19], 90_000_u32.to_be_bytes());
}

#[test]
fn a_client_may_begin_with_a_heartbeat_but_not_say_hello_later() {
    let mut world = World::new(Policy::default());
    let client = world.connect();
    world.receive(client, PING);
    world.receive(client, &encode(&Frame::Hello { interval_ms: 0, token: b"" }));
    assert_eq!(world.closed_for(client), Some(CloseReason::IllegalUnexpected));
}

#[test]
fn illegal_probes_are_closed_without_an_answer() {
    let welcome = Frame::Welcome { session: 0, interval_ms: 0, idle_timeout_ms: 0 };
    let cases: Vec<(Vec<u8>, CloseReason)> = vec![
        (vec![0, 0], CloseReason::IllegalLengthZero),
        (vec![0, 9, 0], CloseReason::IllegalKindZero),
        (vec![0, 9, 77], CloseReason::IllegalKindUnknown),
        (vec![0x80, 0], CloseReason::IllegalOversize),
        (vec![0, 127, 3], CloseReason::IllegalPayloadLength),
        (vec![0, 3, 1], CloseReason::IllegalPayloadLength),
        (vec![0, 6, 1, 2], CloseReason::IllegalHelloVersion),
        (encode(&welcome), CloseReason::IllegalUnexpected),
        (encode(&Frame::Push { id: 1, message: b"" }), CloseReason::IllegalUnexpected),
        (encode(&Frame::GoAway { reason: 1, retry_after_ms: 0 }), CloseReason::IllegalUnexpected),
    ];
    for (bytes, reason) in cases {
        let mut world = World::new(Policy { frame_bytes_max: 0x7fff, ..Policy::default() });
        let client = world.connect();
        world.receive(client, &bytes);
        assert_eq!(world.closed_for(client), Some(reason), "{bytes:?}");
        assert_eq!(world.sent_to(client), b"", "{bytes:?}");
        world.check_laws();
    }
}

#[test]
fn connections_over_the_limit_are_refused_until_others_have_gone() {
    let mut world = World::with_limit(Policy::default(), 2);
    let first = world.connect();
    world.connect();
    assert_eq!(world.try_connect().err(), Some(Refusal::MaxConnections));
    world.peer_closes(first);
    assert!(world.try_connect().is_ok());
    world.check_laws();
    assert_eq!(world.counters().rejected[Refusal::MaxConnections as usize], 1);
}

#[test]
fn what_comes_for_a_former_session_is_counted_and_ignored() {
    let mut world = World::new(Policy::default());
    let former = world.connect();
    world.peer_closes(former);
    let heir = world.connect();
    assert_eq!(heir.index, former.index, "the index is reused");
    world.receive(former, PING);
    assert_eq!(world.sent_to(heir), b"");
    assert_eq!(world.counters().stale_events, 1);
}

#[test]
fn stopping_closes_everybody_and_refuses_newcomers() {
    let mut world = World::new(Policy::default());
    let clients: Vec<_> = (0..100).map(|_| world.connect()).collect();
    for _ in 0..20 {
        world.stop(7);
    }
    assert!(clients.iter().all(|&key| world.closed_for(key) == Some(CloseReason::ServerStopping)));
    assert_eq!(world.try_connect().err(), Some(Refusal::Stopping));
    world.check_laws();
}

/// What a client sends, as bytes.
fn any_input() -> impl Strategy<Value = Vec<u8>> {
    let frame = prop_oneof![
        4 => Just(PING.to_vec()),
        2 => vec(any::<u8>(), 1..=125).prop_map(|payload| encode(&Frame::Ping(&payload))),
        2 => vec(any::<u8>(), 0..200).prop_map(|message| encode(&Frame::Data(&message))),
        1 => Just(PONG.to_vec()),
        1 => Just(encode(&Frame::PushAck { id: 7 })),
        1 => vec(any::<u8>(), 1..6),
    ];
    vec(frame, 0..15).prop_map(|frames| frames.concat())
}

proptest! {
    /// However the bytes are cut, the same comes out, down to the reason of a close.
    #[test]
    fn any_split_of_the_bytes_means_the_same(
        input in any_input(),
        cuts in vec(0.0..1.0_f64, 0..9),
    ) {
        let policy = Policy { echo: true, ..Policy::default() };
        let mut whole = World::new(policy.clone());
        let client = whole.connect();
        whole.receive(client, &input);

        let mut cut_points: Vec<usize> =
            cuts.iter().map(|share| (share * input.len() as f64) as usize).collect();
        cut_points.extend([0, input.len()]);
        cut_points.sort_unstable();
        let mut pieces = World::new(policy);
        let other = pieces.connect();
        for window in cut_points.windows(2) {
            pieces.receive(other, &input[window[0]..window[1]]);
        }
        prop_assert_eq!(whole.closed_for(client), pieces.closed_for(other));
        // A close swallows replies that had not been sent; so many had only the whole.
        if whole.closed_for(client).is_none() {
            prop_assert_eq!(whole.sent_to(client), pieces.sent_to(other));
            prop_assert_eq!(whole.counters().frames_received, pieces.counters().frames_received);
        }
        whole.check_laws();
        pieces.check_laws();
    }

    /// Short sends of any length, and replies that pile up meanwhile, never mix up the bytes.
    #[test]
    fn short_sends_change_nothing(
        inputs in vec((0_usize..4, vec(any::<u8>(), 0..20)), 1..15),
        sizes in vec(0_usize..9, 1..60),
    ) {
        let mut world = World::new(Policy { echo: true, ..Policy::default() });
        let client = world.connect();
        world.take_at_most(&sizes);
        let mut expected = Vec::new();
        for (kind, payload) in &inputs {
            let (sent, answer) = match kind {
                0 => (PING.to_vec(), PONG.to_vec()),
                1 => (encode(&Frame::Ping(payload)), encode(&Frame::Pong(payload))),
                _ => (encode(&Frame::Data(payload)), encode(&Frame::Data(payload))),
            };
            world.receive_later(client, &sent);
            expected.extend(answer);
            world.advance(ms(10));
        }
        world.settle();
        prop_assert_eq!(world.closed_for(client), None);
        prop_assert_eq!(world.sent_to(client), &expected[..]);
        world.check_laws();
    }
}
