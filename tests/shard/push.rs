//! Pushing: who gets what, what is bounded, and the account, which balances at every step.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use heartwheel::protocol::Protocol;
use heartwheel::protocol::frame::{Frame, Parsed, parse};
use heartwheel::session::SessionKey;
use heartwheel::shard::{CloseReason, Policy, PushAccount, PushDrop, PushMessage, PushRefused};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::world::{PING, PONG, World, encode, ms};

fn message(id: u64, text: &[u8]) -> PushMessage {
    PushMessage::new(id, text).expect("short enough")
}

fn push_frame(id: u64, message: &[u8]) -> Vec<u8> {
    encode(&Frame::Push { id, message })
}

fn live(world: &mut World) -> SessionKey {
    let key = world.connect();
    world.receive(key, PING);
    key
}

fn balances(account: &PushAccount) -> bool {
    let dropped: u64 = account.dropped.iter().sum();
    account.requested == account.acknowledged + account.unconfirmed + account.pending + dropped
}

#[test]
fn a_push_is_written_and_then_acknowledged_once() {
    let mut world = World::new(Policy::default());
    let client = live(&mut world);
    let account = world.push(client, &message(7, b"news")).expect("it is live");
    assert_eq!((account.requested, account.pending), (1, 1));
    world.settle();
    assert_eq!(world.sent_to(client), [PONG, &push_frame(7, b"news")].concat());
    assert_eq!(world.account(7).expect("known").unconfirmed, 1);
    let ack = encode(&Frame::PushAck { id: 7 });
    world.receive(client, &ack);
    let account = world.account(7).expect("known");
    assert_eq!((account.acknowledged, account.unconfirmed), (1, 0));
    // A second receipt, one of somebody else, and one for nothing count for nothing.
    world.receive(client, &ack);
    let other = live(&mut world);
    world.receive(other, &ack);
    world.receive(other, &encode(&Frame::PushAck { id: 99 }));
    assert_eq!(world.account(7), Some(account));
    assert_eq!(world.counters().push_acks_received, 4);
    assert_eq!(world.counters().push_acks_stray, 3);
    world.check_laws();
}

#[test]
fn who_has_not_spoken_or_has_gone_is_not_pushed_to() {
    let mut world = World::new(Policy::default());
    let mute = world.connect();
    assert_eq!(world.push(mute, &message(1, b"x")), Err(PushRefused::NotLive));
    let half_upgraded = world.connect_mute(Protocol::WebSocket);
    world.receive(half_upgraded, b"GET / HTTP/1.1\r\n");
    assert_eq!(world.push(half_upgraded, &message(1, b"x")), Err(PushRefused::NotLive));
    world.broadcast(&message(9, b"x"), Duration::ZERO);
    assert_eq!(world.work(), None);
    let account = world.account(9).expect("known");
    assert_eq!((account.requested, account.pending), (0, 0));
    let former = live(&mut world);
    world.peer_closes(former);
    let heir = live(&mut world);
    assert_eq!(heir.index, former.index);
    assert_eq!(world.push(former, &message(2, b"x")), Err(PushRefused::Gone));
    assert_eq!(world.sent_to(heir), PONG);
    assert_eq!(world.counters().pushes_requested, 0);
    world.check_laws();
}

#[test]
fn a_websocket_is_sent_text_or_binary_and_stays_unconfirmed() {
    let mut world = World::new(Policy::default());
    let (client, greeting) = world.connect_by(Protocol::WebSocket);
    world.push(client, &message(1, "grüß".as_bytes())).expect("upgraded");
    world.push(client, &message(2, &[0xff, 0])).expect("upgraded");
    world.settle();
    let expected = [&[0x81, 6][..], "grüß".as_bytes(), &[0x82, 2, 0xff, 0]].concat();
    assert_eq!(world.sent_to(client)[greeting..], expected);
    assert_eq!(world.account(1).expect("known").unconfirmed, 1);
    assert_eq!(world.counters().pushes_unconfirmed, 2);
    world.check_laws();
}

#[test]
fn a_broadcast_is_for_those_who_were_open_and_is_spread_evenly() {
    let mut world = World::new(Policy::default());
    let clients: Vec<_> = (0..400).map(|_| live(&mut world)).collect();
    let account = world.broadcast(&message(5, b"all"), ms(1_000));
    assert_eq!((account.requested, account.pending), (400, 400));
    let late = live(&mut world);
    world.peer_closes(clients[399]);
    let begun = world.now;
    let mut reached = Vec::new();
    while let Some(next) = world.work() {
        world.settle();
        reached.push(world.counters().pushes_requested);
        assert!(balances(&world.account(5).expect("known")));
        world.check_laws();
        let step = next.since(world.now).max(ms(1));
        world.advance(step);
    }
    world.settle();
    let took = world.now.since(begun);
    assert!((ms(990)..ms(1_050)).contains(&took), "{took:?}");
    let steepest = reached.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(steepest <= Some(4), "at most a few a slice: {steepest:?}");
    assert_eq!(world.sent_to(late), PONG, "it came too late");
    let account = world.account(5).expect("known");
    assert_eq!((account.requested, account.unconfirmed), (399, 399), "one has gone before");
    for &client in &clients[..399] {
        assert_eq!(world.sent_to(client)[3..], push_frame(5, b"all"));
        world.receive(client, &encode(&Frame::PushAck { id: 5 }));
    }
    assert_eq!(world.account(5).expect("known").acknowledged, 399);
    world.check_laws();
}

#[test]
fn a_turn_hands_out_its_share_only() {
    let mut world = World::new(Policy::default());
    let clients: Vec<_> = (0..900).map(|_| live(&mut world)).collect();
    world.broadcast(&message(5, b"all"), Duration::ZERO);
    let mut turns = 0;
    while world.work().is_some() {
        turns += 1;
        let requested = world.counters().pushes_requested;
        assert!(requested <= 256 * turns, "{requested} after {turns}");
    }
    assert!(turns >= 3, "{turns}");
    world.settle();
    assert!(clients.iter().all(|&client| world.sent_to(client).len() > 3));
    world.check_laws();
}

#[test]
fn who_does_not_read_gets_its_bound_and_is_closed_by_the_stall_timeout() {
    let policy = Policy { send_queue_bytes: 1_000, ..Policy::default() };
    let stall_timeout = policy.stall_timeout;
    let mut world = World::new(policy);
    let client = live(&mut world);
    world.deaf = true;
    for id in 1..=20 {
        world.push(client, &message(id, &[b'x'; 200])).expect("still open");
        assert!(world.queued_bytes(client) <= 1_000);
        world.check_laws();
    }
    let full = PushDrop::SendQueueFull as usize;
    let dropped = world.counters().pushes_dropped[full];
    assert_eq!(dropped, 15, "one in flight and four queued");
    assert_eq!(world.closed_for(client), None, "a full queue alone closes nobody");
    world.advance(stall_timeout + ms(300));
    assert_eq!(world.closed_for(client), Some(CloseReason::StallTimeout));
    assert_eq!(world.counters().pushes_pending, 0);
    let closed = PushDrop::SessionClosed as usize;
    assert_eq!(world.counters().pushes_dropped[closed], 5);
    world.check_laws();
}

#[test]
fn the_heir_of_an_index_cannot_acknowledge_for_its_predecessor() {
    let mut world = World::new(Policy::default());
    let former = live(&mut world);
    world.broadcast(&message(3, b"x"), Duration::ZERO);
    assert_eq!(world.work(), None);
    world.settle();
    world.peer_closes(former);
    let heir = live(&mut world);
    assert_eq!(heir.index, former.index);
    world.receive(heir, &encode(&Frame::PushAck { id: 3 }));
    assert_eq!(world.account(3).expect("known").unconfirmed, 1);
    assert_eq!(world.counters().push_acks_stray, 1);
}

#[test]
fn accounts_are_bounded_in_number_and_time_and_the_law_holds_beyond() {
    let mut world = World::new(Policy { expiry: false, ..Policy::default() });
    let client = live(&mut world);
    for id in 1..=4_100 {
        world.push(client, &message(id, b"x")).expect("live");
        world.settle();
    }
    assert_eq!(world.account(4), None, "the oldest were forgotten");
    assert!(world.account(5).is_some());
    world.receive(client, &encode(&Frame::PushAck { id: 4 }));
    world.receive(client, &encode(&Frame::PushAck { id: 5 }));
    assert_eq!(world.counters().push_acks_stray, 1);
    assert_eq!(world.counters().pushes_acknowledged, 1);
    world.jump(Duration::from_secs(601));
    assert_eq!(world.account(4_100), None);
    world.check_laws();
}

#[test]
fn too_many_broadcasts_at_a_time_are_refused() {
    let mut world = World::new(Policy::default());
    live(&mut world);
    for id in 1..=16 {
        world.broadcast(&message(id, b"x"), ms(50));
    }
    assert_eq!(world.try_broadcast(&message(17, b"x"), ms(50)), Err(PushRefused::TooMany));
    world.advance(ms(50));
    assert_eq!(world.work(), None);
    assert!(world.try_broadcast(&message(17, b"x"), ms(50)).is_ok());
    world.check_laws();
}

#[test]
fn a_message_that_does_not_fit_a_frame_is_refused() {
    assert!(PushMessage::new(1, &vec![0; 65_526]).is_ok());
    assert!(PushMessage::new(1, &vec![0; 65_527]).is_err());
}

/// What the bytes that a client was sent push to it.
fn pushes_in(mut bytes: &[u8]) -> Vec<u64> {
    let mut ids = Vec::new();
    while let Ok(Parsed::Whole(frame, length)) = parse(bytes, 65_535) {
        if let Frame::Push { id, .. } = frame {
            ids.push(id);
        }
        bytes = &bytes[length..];
    }
    ids
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    Broadcast,
    Work,
    Ack(usize, u64),
    Beat(usize),
    Close(usize),
    Connect,
    Complete,
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..6_usize).prop_map(Step::Push),
        2 => Just(Step::Broadcast),
        3 => Just(Step::Work),
        6 => (0..6_usize, 1..9_u64).prop_map(|(client, id)| Step::Ack(client, id)),
        2 => (0..6_usize).prop_map(Step::Beat),
        1 => (0..6_usize).prop_map(Step::Close),
        1 => Just(Step::Connect),
        6 => Just(Step::Complete),
        1 => (1..50_u64).prop_map(Step::Advance),
    ]
}

proptest! {
    /// Against an oracle that reads what each client was sent: whoever has got a push whole has it
    /// written, and is acknowledged if it said so after that.
    #[test]
    fn the_account_balances_at_every_step(
        steps in vec(step(), 1..120),
        sizes in vec(0_usize..40, 0..60),
    ) {
        let mut world = World::new(Policy { send_queue_bytes: 100, ..Policy::default() });
        let mut clients: Vec<_> = (0..6).map(|_| live(&mut world)).collect();
        let mut everybody = clients.clone();
        world.take_at_most(&sizes);
        let (mut next_id, mut broadcasts) = (1, 0);
        let mut acked: HashSet<(u64, SessionKey)> = HashSet::new();
        for step in steps {
            match step {
                Step::Push(client) => {
                    let _ = world.push(clients[client], &message(next_id, b"0123456789"));
                    next_id += 1;
                }
                // More of them are not accounted for one by one.
                Step::Broadcast if broadcasts == 16 => {}
                Step::Broadcast => {
                    broadcasts += 1;
                    world.broadcast(&message(next_id, b"to all"), ms(20));
                    next_id += 1;
                }
                Step::Work => drop(world.work()),
                Step::Ack(client, id) => {
                    let key = clients[client];
                    let has_it = pushes_in(world.sent_to(key)).contains(&id);
                    let stray = world.counters().push_acks_stray;
                    let received = world.counters().push_acks_received;
                    world.receive_later(key, &encode(&Frame::PushAck { id }));
                    if world.counters().push_acks_received > received && has_it {
                        let fresh = acked.insert((id, key));
                        let strays = world.counters().push_acks_stray - stray;
                        prop_assert_eq!(strays, u64::from(!fresh));
                    } else if world.counters().push_acks_stray == stray
                        && world.counters().push_acks_received > received
                    {
                        // It is being sent at this moment: counted when that has ended well.
                        acked.insert((id, key));
                    }
                }
                Step::Beat(client) => world.receive_later(clients[client], PING),
                Step::Close(client) => world.peer_closes(clients[client]),
                Step::Connect => {
                    let place = everybody.len() % clients.len();
                    clients[place] = world.connect();
                    everybody.push(clients[place]);
                    world.receive_later(clients[place], PING);
                }
                Step::Complete => world.complete_one(),
                Step::Advance(by) => world.advance(ms(by)),
            }
            world.check_laws();
            let mut written: HashMap<u64, u64> = HashMap::new();
            for id in everybody.iter().flat_map(|&key| pushes_in(world.sent_to(key))) {
                *written.entry(id).or_default() += 1;
            }
            let (mut total, mut acknowledged) = (0, 0);
            for id in 1..next_id {
                let Some(account) = world.account(id) else { continue };
                prop_assert!(balances(&account), "{:?}", account);
                let has = written.get(&id).copied().unwrap_or(0);
                prop_assert_eq!(account.acknowledged + account.unconfirmed, has);
                let says = acked
                    .iter()
                    .filter(|(other, key)| {
                        *other == id && pushes_in(world.sent_to(*key)).contains(&id)
                    })
                    .count();
                prop_assert_eq!(account.acknowledged, says as u64);
                total += has;
                acknowledged += account.acknowledged;
            }
            let counters = world.counters();
            prop_assert_eq!(counters.pushes_acknowledged + counters.pushes_unconfirmed, total);
            prop_assert_eq!(counters.pushes_acknowledged, acknowledged);
        }
        while world.work().is_some() {
            world.advance(ms(5));
        }
        for &key in &everybody {
            world.peer_closes(key);
        }
        world.settle();
        prop_assert_eq!(world.counters().pushes_pending, 0);
        world.check_laws();
    }
}
