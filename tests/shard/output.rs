//! What goes out: bursts, floods, bounded queues, peers that do not read.

use heartwheel::protocol::frame::Frame;
use heartwheel::shard::{CloseReason, Policy};

use crate::world::{PING, PONG, World, encode, ms};

#[test]
fn a_burst_of_heartbeats_is_answered_in_order() {
    let mut world = World::new(Policy::default());
    let client = world.connect();
    let mixed = [PING, &encode(&Frame::Ping(b"1")), PING, PING, &encode(&Frame::Ping(b"22"))];
    world.receive(client, &mixed.concat());
    let expected = [PONG, &encode(&Frame::Pong(b"1")), PONG, PONG, &encode(&Frame::Pong(b"22"))];
    assert_eq!(world.sent_to(client), expected.concat());
    world.check_laws();
}

#[test]
fn sixteen_heartbeats_may_wait_and_the_seventeenth_is_a_flood() {
    let mut world = World::new(Policy::default());
    let client = world.connect();
    world.deaf = true;
    world.receive(client, &PING.repeat(16));
    assert_eq!(world.closed_for(client), None);
    world.receive(client, PING);
    assert_eq!(world.closed_for(client), Some(CloseReason::PingFlood));
    let dropped = world.counters().heartbeats_dropped;
    assert_eq!(dropped[CloseReason::PingFlood as usize], 17);
    world.check_laws();
}

#[test]
fn a_client_that_does_not_read_gets_its_bound_and_no_more() {
    let mut world = World::new(Policy { echo: true, ..Policy::default() });
    let client = world.connect();
    world.deaf = true;
    let message = encode(&Frame::Data(&[7; 4_000]));
    // One in flight, four of 16 KiB in the queue.
    for _ in 0..5 {
        world.receive(client, &message);
        assert_eq!(world.closed_for(client), None);
    }
    assert_eq!(world.counters().send_queue_bytes, 4 * message.len() as u64);
    world.receive(client, &message);
    assert_eq!(world.closed_for(client), Some(CloseReason::SendQueueFull));
    assert_eq!(world.counters().send_queue_bytes, 0);
    world.check_laws();
}

#[test]
fn a_message_larger_than_the_queue_still_goes_out() {
    let mut world = World::new(Policy { echo: true, ..Policy::default() });
    let client = world.connect();
    let message = encode(&Frame::Data(&[9; 60_000]));
    world.receive(client, &message);
    assert_eq!(world.sent_to(client), message);
}

/// `--max-frame` may allow WebSockets more than the length field of a TCP frame can state.
#[test]
fn the_largest_frame_of_tcp_is_echoed_whatever_websockets_may_send() {
    let policy = Policy { echo: true, frame_bytes_max: 16 << 20, ..Policy::default() };
    let mut world = World::new(policy);
    let client = world.connect();
    let message = encode(&Frame::Data(&[9; 65_534]));
    assert_eq!(message[..2], [0xff, 0xff]);
    world.receive(client, &message);
    assert_eq!(world.sent_to(client), message);
}

#[test]
fn a_client_that_takes_nothing_is_closed_after_the_stall_timeout() {
    let policy = Policy { echo: true, stall_timeout: ms(700), ..Policy::default() };
    let mut world = World::new(policy);
    let client = world.connect();
    world.deaf = true;
    world.receive(client, &encode(&Frame::Data(b"hello")));
    world.advance(ms(650));
    world.receive(client, PING);
    assert_eq!(world.closed_for(client), None);
    world.advance(ms(200));
    assert_eq!(world.closed_for(client), Some(CloseReason::StallTimeout));
    let dropped = world.counters().heartbeats_dropped;
    assert_eq!(dropped[CloseReason::StallTimeout as usize], 1);
    world.check_laws();
}

#[test]
fn a_stall_that_ends_in_time_is_forgotten() {
    let policy = Policy { echo: true, stall_timeout: ms(700), ..Policy::default() };
    let mut world = World::new(policy);
    let client = world.connect();
    world.deaf = true;
    world.receive(client, &encode(&Frame::Data(b"hello")));
    world.advance(ms(600));
    world.deaf = false;
    world.settle();
    world.advance(ms(5_000));
    assert_eq!(world.closed_for(client), None);
    assert_eq!(world.sent_to(client), encode(&Frame::Data(b"hello")));
}

#[test]
fn a_peer_that_has_closed_its_side_still_gets_what_was_on_its_way() {
    let mut world = World::new(Policy::default());
    let client = world.connect();
    world.deaf = true;
    world.receive(client, &PING.repeat(3));
    world.peer_closes(client);
    assert_eq!(world.closed_for(client), None);
    world.deaf = false;
    world.settle();
    assert_eq!(world.sent_to(client), PONG.repeat(3));
    assert_eq!(world.closed_for(client), Some(CloseReason::PeerClosed));
    world.check_laws();
}

#[test]
fn a_peer_that_has_closed_its_side_and_reads_nothing_is_closed_after_a_while() {
    let mut world = World::new(Policy { stall_timeout: ms(700), ..Policy::default() });
    let client = world.connect();
    world.deaf = true;
    world.receive(client, PING);
    world.peer_closes(client);
    world.advance(ms(801));
    assert_eq!(world.closed_for(client), Some(CloseReason::StallTimeout));
    world.check_laws();
}

#[test]
fn the_pause_of_a_server_is_not_a_stall_of_its_clients() {
    let policy = Policy { echo: true, stall_timeout: ms(1_000), ..Policy::default() };
    for reads in [true, false] {
        let mut world = World::new(policy.clone());
        let client = world.connect();
        world.deaf = true;
        world.receive(client, &encode(&Frame::Data(b"hello")));
        world.advance(ms(300));
        for _ in 0..3 {
            world.jump(ms(5_000));
            assert_eq!(world.closed_for(client), None, "what was left of its time is left");
        }
        world.deaf = !reads;
        world.settle();
        world.advance(ms(200));
        assert_eq!(world.closed_for(client), None);
        world.advance(ms(400));
        assert_eq!(world.closed_for(client).is_some(), !reads);
        world.check_laws();
    }
}

#[test]
fn what_is_on_its_way_to_a_peer_that_has_closed_its_side_outlasts_a_pause() {
    let mut world = World::new(Policy { stall_timeout: ms(700), ..Policy::default() });
    let client = world.connect();
    world.deaf = true;
    world.receive(client, PING);
    world.peer_closes(client);
    world.jump(ms(5_000));
    assert_eq!(world.closed_for(client), None, "its send may have begun just now");
    world.deaf = false;
    world.settle();
    assert_eq!(world.sent_to(client), PONG);
    assert_eq!(world.closed_for(client), Some(CloseReason::PeerClosed));
    world.check_laws();
}

#[test]
fn a_failed_send_closes_and_drops_what_it_carried() {
    for input in [PING.repeat(2), encode(&Frame::Ping(b"payload"))] {
        let mut world = World::new(Policy::default());
        let client = world.connect();
        world.deaf = true;
        world.receive(client, &input);
        world.send_fails(client);
        assert_eq!(world.closed_for(client), Some(CloseReason::PeerReset));
        let counters = world.counters();
        let dropped = counters.heartbeats_dropped[CloseReason::PeerReset as usize];
        assert_eq!(dropped, counters.heartbeats_received);
        world.check_laws();
    }
}
