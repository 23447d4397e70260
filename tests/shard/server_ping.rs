//! `--server-ping`: asked once after an interval of silence, and then given up as without it.

use heartwheel::protocol::Protocol;
use heartwheel::protocol::frame::Frame;
use heartwheel::shard::{Activity, CloseReason, Policy};
use heartwheel::time::{TickLength, Timestamp};

use crate::world::{PING, PONG, World, encode, ms};

const CONTROL_PING: &[u8] = &[0x89, 0];
const CONTROL_PONG: &[u8] = &[0x8a, 0x80, 1, 2, 3, 4];

fn policy() -> Policy {
    Policy {
        tick: TickLength::new(ms(100)),
        heartbeat_interval: ms(350),
        idle_timeout: ms(1_050),
        stall_timeout: ms(5_000),
        server_ping: true,
        ..Policy::default()
    }
}

/// What a session of each protocol is asked with, and what it answers.
const ASKED: [(Protocol, &[u8], &[u8]); 2] =
    [(Protocol::Tcp, PING, PONG), (Protocol::WebSocket, CONTROL_PING, CONTROL_PONG)];

#[test]
fn the_silent_are_asked_once_and_expired_as_exactly_as_ever() {
    for phase_us in [0, 1, 49_999, 50_000, 50_001, 99_999] {
        for (protocol, ping, _) in ASKED {
            let mut world = World::new(policy());
            world.now = Timestamp::from_nanos(phase_us * 1_000);
            let (client, greeting) = world.connect_by(protocol);
            world.go_on(ms(349));
            assert_eq!(world.sent_to(client).len(), greeting, "not before the interval");
            world.go_on(ms(102));
            assert_eq!(&world.sent_to(client)[greeting..], ping, "a tick later at most");
            world.go_on(ms(1_049 - 451));
            assert_eq!(world.closed_for(client), None, "phase {phase_us} us");
            assert_eq!(&world.sent_to(client)[greeting..], ping, "once");
            world.go_on(ms(101));
            assert_eq!(world.closed_for(client), Some(CloseReason::Expired), "{phase_us} us");
            assert!(world.counters().expiry_lateness_us_max <= 100_000);
            assert_eq!(world.counters().server_pings_sent, 1);
            world.check_laws();
        }
    }
}

#[test]
fn an_answer_is_life_and_the_next_silence_is_asked_anew() {
    for (protocol, ping, pong) in ASKED {
        let mut world = World::new(policy());
        let (client, greeting) = world.connect_by(protocol);
        for round in 1..=5 {
            world.go_on(ms(451));
            assert_eq!(&world.sent_to(client)[greeting..], ping.repeat(round));
            world.receive(client, pong);
        }
        assert_eq!(world.counters().server_pings_sent, 5);
        assert_eq!(world.counters().pongs_received, 5);
        assert_eq!(world.counters().heartbeats_received, u64::from(protocol == Protocol::Tcp));
        // And from the last answer on, silence is what it was.
        world.go_on(ms(1_049));
        assert_eq!(world.closed_for(client), None);
        world.go_on(ms(101));
        assert_eq!(world.closed_for(client), Some(CloseReason::Expired));
        world.check_laws();
    }
}

#[test]
fn who_keeps_his_heartbeats_is_never_asked() {
    let mut world = World::new(policy());
    let (client, _) = world.connect_by(Protocol::Tcp);
    for _ in 0..20 {
        world.go_on(ms(340));
        world.receive(client, PING);
    }
    assert_eq!(world.sent_to(client), PONG.repeat(21));
    assert_eq!(world.counters().server_pings_sent, 0);
}

/// With `--activity any` what is sent is life too, but not our own question: else it would keep
/// the dead alive.
#[test]
fn our_own_ping_is_no_activity() {
    let mut world = World::new(Policy { activity: Activity::Any, ..policy() });
    let (client, _) = world.connect_by(Protocol::Tcp);
    world.go_on(ms(1_049));
    assert_eq!(world.counters().server_pings_sent, 1);
    assert_eq!(world.closed_for(client), None);
    world.go_on(ms(101));
    assert_eq!(world.closed_for(client), Some(CloseReason::Expired));
}

#[test]
fn only_open_sessions_are_asked_and_nobody_without_the_flag() {
    let mut world = World::new(policy());
    let mute = world.connect();
    world.go_on(ms(1_200));
    assert_eq!(world.closed_for(mute), Some(CloseReason::HelloTimeout));
    assert_eq!(world.sent_to(mute), b"");
    for other in [Policy { server_ping: false, ..policy() }, Policy { expiry: false, ..policy() }] {
        let mut world = World::new(other);
        let (client, greeting) = world.connect_by(Protocol::Tcp);
        world.go_on(ms(1_000));
        assert_eq!(world.sent_to(client).len(), greeting);
    }
}

#[test]
fn a_ping_waits_for_what_is_on_its_way() {
    let mut world = World::new(Policy { echo: true, ..policy() });
    let (client, _) = world.connect_by(Protocol::Tcp);
    let message = encode(&Frame::Data(b"hello"));
    world.deaf = true;
    world.receive(client, &[&message[..], PING].concat());
    world.go_on(ms(500));
    world.deaf = false;
    world.take_at_most(&[3, 0, 100, 1, 100, 1, 0, 1, 1]);
    world.settle();
    assert_eq!(world.sent_to(client), [PONG, &message, PONG, PING].concat());
    assert_eq!(world.counters().server_pings_sent, 1, "in pieces, but once");
    world.check_laws();
}

#[test]
fn a_ping_that_was_not_sent_yet_is_dropped_when_life_shows() {
    let mut world = World::new(policy());
    let (client, _) = world.connect_by(Protocol::Tcp);
    world.deaf = true;
    world.receive(client, PING);
    world.go_on(ms(500));
    world.receive(client, PING);
    world.deaf = false;
    world.settle();
    assert_eq!(world.sent_to(client), PONG.repeat(3));
    assert_eq!(world.counters().server_pings_sent, 0);
}

/// Clients that only answer have sent nothing while the server stood still: that is not their
/// silence.
#[test]
fn a_pause_of_the_server_leaves_everybody_the_time_to_answer() {
    for (protocol, ping, pong) in ASKED {
        let mut world = World::new(policy());
        let (answering, greeting) = world.connect_by(protocol);
        let (dead, _) = world.connect_by(protocol);
        world.jump(ms(3_500));
        world.settle();
        assert_eq!((world.closed_for(answering), world.closed_for(dead)), (None, None));
        assert_eq!(&world.sent_to(answering)[greeting..], ping);
        world.go_on(ms(690));
        world.receive(answering, pong);
        assert_eq!(world.closed_for(dead), None);
        world.go_on(ms(112));
        assert_eq!(world.closed_for(answering), None);
        assert_eq!(world.closed_for(dead), Some(CloseReason::Expired));
        assert!(world.counters().expiry_lateness_us_max <= 100_000);
        world.check_laws();
    }
}

/// The same if the pause comes between hearing everybody and sweeping: the sweep is then of a time
/// before the pause.
#[test]
fn a_pause_before_the_sweep_leaves_everybody_the_time_to_answer() {
    for (protocol, ping, pong) in ASKED {
        let mut world = World::new(policy());
        let (answering, greeting) = world.connect_by(protocol);
        let (dead, _) = world.connect_by(protocol);
        let then = world.now + ms(460);
        world.now = then + ms(3_500);
        world.sweep_as_of(then);
        world.settle();
        assert_eq!(&world.sent_to(answering)[greeting..], ping);
        world.go_on(ms(690));
        assert_eq!((world.closed_for(answering), world.closed_for(dead)), (None, None));
        world.receive(answering, pong);
        world.go_on(ms(112));
        assert_eq!(world.closed_for(answering), None);
        assert_eq!(world.closed_for(dead), Some(CloseReason::Expired));
        world.check_laws();
    }
}

/// The PING goes out long after it was wanted, as after a pause between the two.
#[test]
fn a_ping_that_goes_out_late_leaves_the_time_to_answer() {
    let mut world = World::new(policy());
    let (client, _) = world.connect_by(Protocol::Tcp);
    world.deaf = true;
    world.advance(ms(500));
    world.now = world.now + ms(5_000);
    world.deaf = false;
    world.settle();
    world.go_on(ms(690));
    assert_eq!(world.closed_for(client), None);
    world.go_on(ms(112));
    assert_eq!(world.closed_for(client), Some(CloseReason::Expired));
    world.check_laws();
}

#[test]
fn an_unfinished_frame_does_not_wait_for_an_answer() {
    let mut world = World::new(Policy { frame_timeout: ms(400), ..policy() });
    let (client, greeting) = world.connect_by(Protocol::Tcp);
    world.receive(client, &[0, 9, 7]);
    world.go_on(ms(380));
    assert_eq!(world.closed_for(client), None);
    world.go_on(ms(121));
    assert_eq!(world.closed_for(client), Some(CloseReason::FrameTimeout));
    assert!(world.sent_to(client).len() <= greeting + PING.len());
    world.check_laws();
}
