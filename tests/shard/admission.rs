//! Who is let in, and who is turned away by which bound; whom proxies speak for.

use std::sync::Arc;

use heartwheel::protocol::address::{Network, PeerAddress};
use heartwheel::shard::{AcceptRate, Admission, Bounds, CloseReason, Policy, Refusal};

use crate::policy::policy;
use crate::world::{PING, PONG, World, ms};

fn bounds() -> Bounds {
    Bounds::connections(100)
}

#[test]
fn newcomers_are_let_in_at_the_rate_and_in_bursts() {
    let accept_rate = Some(AcceptRate { per_s: 10, burst: 3 });
    let admission = Admission::with(Bounds { accept_rate, ..bounds() });
    let mut world = World::with_admission(policy(), admission);
    let admitted = |world: &mut World| (0..20).filter(|_| world.try_connect().is_ok()).count();
    assert_eq!(admitted(&mut world), 3, "the burst");
    world.advance(ms(99));
    assert_eq!(admitted(&mut world), 0);
    world.advance(ms(1));
    assert_eq!(admitted(&mut world), 1);
    world.advance(ms(250));
    assert_eq!(admitted(&mut world), 2);
    world.advance(ms(10_000));
    assert_eq!(admitted(&mut world), 3, "no more is saved than the burst");
    assert_eq!(world.try_connect(), Err(Refusal::AcceptRate));
    world.check_laws();
}

/// Or one address that is at its limit would shut out everybody.
#[test]
fn whom_another_limit_turns_away_takes_nobodys_turn() {
    let bounds = Bounds {
        connections_max: 3,
        per_address_max: Some(1),
        accept_rate: Some(AcceptRate { per_s: 1, burst: 3 }),
        ..bounds()
    };
    let mut world = World::with_admission(policy(), Admission::with(bounds));
    world.connect_from(v4(1)).expect("room");
    for _ in 0..10 {
        assert_eq!(world.connect_from(v4(1)), Err(Refusal::MaxPerIp));
    }
    let second = world.connect_from(v4(2)).expect("its turn is left");
    world.connect_from(v4(3)).expect("so is this");
    assert_eq!(world.connect_from(v4(4)), Err(Refusal::MaxConnections));
    world.peer_closes(second);
    assert_eq!(world.connect_from(v4(4)), Err(Refusal::AcceptRate));
    world.advance(ms(1_000));
    // Whoever had no turn was not counted for his address either, nor has he kept a place.
    world.connect_from(v4(4)).expect("a turn, a place and its share");
    world.check_laws();
}

fn v4(last: u8) -> Option<PeerAddress> {
    Some(PeerAddress::v4([192, 0, 2, last]))
}

fn v6(subnet: u8, last: u8) -> Option<PeerAddress> {
    let mut octets = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    (octets[7], octets[15]) = (subnet, last);
    Some(PeerAddress::v6(octets))
}

#[test]
fn an_address_has_its_share_and_a_64_is_one_address() {
    let admission = Admission::with(Bounds { per_address_max: Some(2), ..bounds() });
    let mut world = World::with_admission(policy(), admission);
    let first = world.connect_from(v4(1)).expect("room");
    world.connect_from(v4(1)).expect("room");
    assert_eq!(world.connect_from(v4(1)), Err(Refusal::MaxPerIp));
    world.connect_from(v4(2)).expect("another address");
    world.connect_from(v6(1, 1)).expect("room");
    world.connect_from(v6(1, 2)).expect("room");
    assert_eq!(world.connect_from(v6(1, 3)), Err(Refusal::MaxPerIp));
    world.connect_from(v6(2, 3)).expect("another /64");
    assert_eq!(world.connect_from(None), Err(Refusal::AddressUnknown));
    world.peer_closes(first);
    world.connect_from(v4(1)).expect("a place was given back");
    assert_eq!(world.connect_from(v4(1)), Err(Refusal::MaxPerIp));
    world.check_laws();
}

#[test]
fn above_the_memory_limit_nobody_new_comes_in_and_the_live_are_kept() {
    let admission = Admission::with(Bounds { memory_bytes_max: Some(1_000), ..bounds() });
    let mut world = World::with_admission(policy(), Arc::clone(&admission));
    let client = world.connect();
    admission.note_memory(1_001);
    assert_eq!(world.try_connect(), Err(Refusal::MemoryLimit));
    world.receive(client, PING);
    assert_eq!(world.sent_to(client), PONG);
    admission.note_memory(1_000);
    world.connect();
    world.check_laws();
}

fn header(command: u8, family: u8, addresses: &[u8], more: &[u8]) -> Vec<u8> {
    let length = (addresses.len() + more.len()) as u16;
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([0x20 | command, family]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(addresses);
    bytes.extend(more);
    bytes
}

fn header_v4(last: u8) -> Vec<u8> {
    header(1, 0x11, &[192, 0, 2, last, 10, 0, 0, 1, 1, 2, 3, 4], &[4, 0, 2, 9, 9])
}

fn proxied(per_address_max: Option<u32>) -> World {
    let network = Network::new(PeerAddress::v4([10, 0, 0, 0]), 8).expect("a network");
    let policy = Policy { proxies: Arc::from([network]), hello_timeout: ms(400), ..policy() };
    World::with_admission(policy, Admission::with(Bounds { per_address_max, ..bounds() }))
}

const PROXY: Option<PeerAddress> = Some(PeerAddress::v4([10, 1, 2, 3]));

#[test]
fn a_proxy_says_for_whom_it_speaks_in_any_number_of_pieces() {
    let bytes = [header_v4(1), PING.to_vec(), PING.to_vec()].concat();
    for size in [1, 2, 7, 16, 29, 33, 34, bytes.len()] {
        let mut world = proxied(Some(2));
        let client = world.connect_from(PROXY).expect("room");
        bytes.chunks(size).for_each(|piece| world.receive(client, piece));
        assert_eq!(world.sent_to(client), [PONG, PONG].concat(), "{size}");
        assert_eq!(world.counters().proxy_headers_received, 1);
        world.check_laws();
    }
}

#[test]
fn limits_count_the_one_whom_a_proxy_speaks_for() {
    let mut world = proxied(Some(2));
    let connect = |world: &mut World, bytes: &[u8]| {
        let client = world.connect_from(PROXY).expect("the proxy itself is not counted");
        world.receive(client, bytes);
        client
    };
    let first = connect(&mut world, &header_v4(1));
    connect(&mut world, &header_v4(1));
    let third = connect(&mut world, &header_v4(1));
    assert_eq!(world.closed_for(third), Some(CloseReason::MaxPerIp));
    assert_eq!(world.connect_from(v4(1)), Err(Refusal::MaxPerIp), "nor directly");
    for local in
        [header(0, 0, b"", b""), header(0, 0x11, b"", &[1, 2, 3]), header(1, 0, b"", b"xy")]
    {
        for _ in 0..3 {
            let checking = connect(&mut world, &local);
            assert_eq!(world.closed_for(checking), None, "nobody to count");
        }
    }
    world.peer_closes(first);
    let again = connect(&mut world, &header_v4(1));
    assert_eq!(world.closed_for(again), None);
    world.check_laws();
}

#[test]
fn a_header_that_is_malformed_late_or_from_a_stranger_is_refused() {
    let long = header(1, 0x11, &[0; 12], &[0; 3_000]);
    let cases: [(&[u8], CloseReason); 9] = [
        (PING, CloseReason::ProxyMalformed),
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n", CloseReason::ProxyMalformed),
        (&header(2, 0x11, &[0; 12], b""), CloseReason::ProxyMalformed),
        (&header(1, 0x12, &[0; 12], b""), CloseReason::ProxyMalformed),
        (&header(1, 0x41, &[0; 12], b""), CloseReason::ProxyMalformed),
        (&header(1, 0x11, &[0; 11], b""), CloseReason::ProxyMalformed),
        (&header(1, 0x21, &[0; 35], b""), CloseReason::ProxyMalformed),
        (&header(1, 0x11, &[0; 12], &[4, 0, 9, 1]), CloseReason::ProxyMalformed),
        (&long[..16], CloseReason::ProxyMalformed),
    ];
    for (bytes, reason) in cases {
        let mut world = proxied(None);
        let client = world.connect_from(PROXY).expect("room");
        world.receive(client, bytes);
        assert_eq!(world.closed_for(client), Some(reason), "{bytes:?}");
        world.check_laws();
    }
    let mut world = proxied(None);
    let slow = world.connect_from(PROXY).expect("room");
    world.receive(slow, &header_v4(1)[..20]);
    let stranger = world.connect_from(v4(9)).expect("room");
    world.receive(stranger, &header_v4(1));
    assert_eq!(world.closed_for(stranger), Some(CloseReason::IllegalKindUnknown));
    world.advance(ms(501));
    assert_eq!(world.closed_for(slow), Some(CloseReason::HelloTimeout));
    world.check_laws();
}
