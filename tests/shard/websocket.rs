//! WebSocket sessions in virtual time: order, floods, and how long a message may take.

use heartwheel::protocol::Protocol;
use heartwheel::protocol::websocket::{HEADER_BYTES_MAX, Opcode, encode_header, mask};
use heartwheel::session::SessionKey;
use heartwheel::shard::{CloseReason, Policy};
use heartwheel::time::TickLength;

use crate::world::{World, ms};

const KEY: [u8; 4] = [9, 8, 7, 6];
const TEXT_PONG: &[u8] = &[0x81, 4, b'p', b'o', b'n', b'g'];

/// A client's frame; `first` replaces its first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; HEADER_BYTES_MAX];
    let front = encode_header(Opcode::Binary, payload.len() as u64, Some(KEY), &mut header);
    header[0] = first;
    let mut bytes = [&header[..front], payload].concat();
    mask(&mut bytes[front..], KEY, 0);
    bytes
}

fn policy() -> Policy {
    Policy { tick: TickLength::new(ms(100)), frame_timeout: ms(300), ..Policy::default() }
}

fn world(policy: Policy) -> (World, SessionKey, usize) {
    let mut world = World::new(policy);
    let (client, greeting) = world.connect_by(Protocol::WebSocket);
    (world, client, greeting)
}

/// A burst of both kinds, whole or byte by byte: control PONGs in the order of their PINGs, with
/// their payloads, and as many text pongs as there were text pings.
#[test]
fn ten_pings_in_a_burst_get_their_ten_pongs_in_order() {
    let mut burst = Vec::new();
    for number in 0..5_u8 {
        burst.extend(frame(0x81, b"ping"));
        burst.extend(frame(0x89, &vec![number; 25 * usize::from(number)]));
    }
    let (mut whole, client, greeting) = world(policy());
    whole.receive(client, &burst);
    let (mut bytewise, other, _) = world(policy());
    for byte in &burst {
        bytewise.receive(other, &[*byte]);
    }
    for answers in [&whole.sent_to(client)[greeting..], &bytewise.sent_to(other)[greeting..]] {
        let (mut numbers, mut texts, mut rest) = (Vec::new(), 0, answers);
        while let [first, length, ..] = *rest {
            let payload = &rest[2..2 + usize::from(length)];
            match first {
                0x81 => texts += usize::from(payload == b"pong"),
                0x8a => numbers.push(payload.to_vec()),
                other => panic!("{other:x}"),
            }
            rest = &rest[2 + usize::from(length)..];
        }
        let expected: Vec<_> = (0..5_u8).map(|n| vec![n; 25 * usize::from(n)]).collect();
        assert_eq!((numbers, texts), (expected, 5));
    }
    assert_eq!(whole.counters().heartbeats_answered, 10);
    whole.check_laws();
}

/// Whatever the mix, sixteen may wait; then comes 1008.
#[test]
fn the_seventeenth_pending_ping_is_a_flood_of_either_kind() {
    let (text, control) = (frame(0x81, b"ping"), frame(0x89, b"x"));
    for kinds in [[&text, &text], [&control, &control], [&text, &control], [&control, &text]] {
        let sixteen: Vec<u8> =
            kinds.iter().cycle().take(16).flat_map(|ping| (*ping).clone()).collect();
        let (mut world, client, greeting) = world(policy());
        world.deaf = true;
        world.receive(client, &sixteen);
        assert_eq!(world.closed_for(client), None);
        world.receive(client, kinds[0]);
        world.deaf = false;
        world.settle();
        let answers = &world.sent_to(client)[greeting..];
        assert_eq!(answers[answers.len() - 4..], [0x88, 2, 0x03, 0xf0], "1008 comes last");
        world.go_on(ms(1_101));
        assert_eq!(world.closed_for(client), Some(CloseReason::PingFlood));
        world.check_laws();
    }
}

#[test]
fn a_burst_of_text_pings_is_answered_by_one_send() {
    let (mut world, client, greeting) = world(policy());
    world.receive(client, &frame(0x81, b"ping").repeat(10));
    assert_eq!(&world.sent_to(client)[greeting..], TEXT_PONG.repeat(10));
}

#[test]
fn a_message_that_was_begun_must_be_completed() {
    for begun in [frame(0x02, b"a"), frame(0x82, b"abc")[..7].to_vec()] {
        let (mut world, client, greeting) = world(policy());
        world.receive(client, &begun);
        for _ in 0..2 {
            world.go_on(ms(140));
            world.receive(client, &[]);
        }
        assert_eq!(world.closed_for(client), None);
        world.go_on(ms(121));
        assert_eq!(world.sent_to(client)[greeting..], [0x88, 2, 0x03, 0xf0], "1008");
        world.go_on(ms(1_201));
        assert_eq!(world.closed_for(client), Some(CloseReason::FrameTimeout));
        world.check_laws();
    }
}

/// A large message may take its time, in one frame or in many, as long as it makes progress.
#[test]
fn a_large_message_has_its_time_anew_while_it_makes_progress() {
    let payload: Vec<u8> = (0..1_u32 << 20).map(|index| (index >> 3) as u8).collect();
    let single = frame(0x82, &payload);
    let mut fragments = frame(0x02, &[]);
    for piece in payload.chunks(4_096) {
        fragments.extend(frame(0x00, piece));
    }
    fragments.extend(frame(0x80, &[]));
    for bytes in [single, fragments] {
        let (mut world, client, greeting) =
            world(Policy { echo: true, frame_bytes_max: 1 << 20, ..policy() });
        for piece in bytes.chunks(70_000) {
            world.go_on(ms(250));
            assert_eq!(world.closed_for(client), None);
            world.receive(client, piece);
        }
        let echo = &world.sent_to(client)[greeting..];
        assert_eq!(echo[..10], [0x82, 127, 0, 0, 0, 0, 0, 16, 0, 0]);
        assert!(echo[10..] == payload);
        world.check_laws();
    }
}

#[test]
fn dribbling_is_no_progress() {
    let (mut world, client, _) = world(Policy { frame_bytes_max: 1 << 20, ..policy() });
    let bytes = frame(0x82, &vec![0; 1 << 20]);
    world.receive(client, &bytes[..100]);
    for byte in &bytes[100..103] {
        world.go_on(ms(110));
        world.receive(client, &[*byte]);
    }
    world.go_on(ms(1_300));
    assert_eq!(world.closed_for(client), Some(CloseReason::FrameTimeout));
}

/// The echo that is being sent when a fault comes is not lost, and comes before the code.
#[test]
fn what_was_answered_before_a_fault_still_comes() {
    let (mut world, client, greeting) = world(Policy { echo: true, ..policy() });
    let bytes = [frame(0x81, b"first"), frame(0x91, b"reserved"), frame(0x89, b"late")];
    world.receive(client, &bytes.concat());
    let expected = [&[0x81, 5][..], b"first", &[0x88, 2, 0x03, 0xea]].concat();
    assert_eq!(&world.sent_to(client)[greeting..], expected);
}

#[test]
fn control_frames_do_not_lengthen_the_time_of_an_unfinished_message() {
    let mut world = World::new(Policy { frame_timeout: ms(1_000), ..Policy::default() });
    let (client, _) = world.connect_by(Protocol::WebSocket);
    world.receive(client, &[0x01, 0x81, 0, 0, 0, 0, b'a']);
    for _ in 0..3 {
        world.advance(ms(300));
        world.receive(client, &[0x8a, 0x80, 0, 0, 0, 0]);
    }
    assert_eq!(world.closed_for(client), None);
    world.advance(ms(300));
    world.receive(client, &[0x8a, 0x80, 0, 0, 0, 0]);
    world.advance(ms(1_200));
    assert_eq!(world.closed_for(client), Some(CloseReason::FrameTimeout));
    assert_eq!(world.counters().frames_received, 3, "the last came too late");
}

/// A sweep is of the time up to which everything was heard, and after a pause of the process
/// within a turn that is long ago: the good-bye's second is not to be over before it has begun.
#[test]
fn a_good_bye_has_its_whole_time_after_a_pause_of_the_server() {
    let (mut world, client, _) = world(Policy { idle_timeout: ms(1_000), ..policy() });
    world.deaf = true;
    let then = world.now + ms(1_200);
    world.now = then + ms(5_000);
    world.sweep_as_of(then);
    world.advance(ms(950));
    assert_eq!(world.closed_for(client), None, "it may still take the good-bye");
    world.advance(ms(200));
    assert_eq!(world.closed_for(client), Some(CloseReason::Expired));
    world.check_laws();
}
