//! The ring layer against the kernel, alone: every operation comes back once, buffers are where the
//! account says, and nothing that is in flight outlives a ring.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::{BufferAccount, Completion, Op, Outgoing, Ring, RingConfig, RingRole, Tag, Wait};

const BUFFER_BYTES: u32 = 64;

fn ring(buffers: u16) -> Ring {
    Ring::new(&RingConfig {
        role: RingRole::AskingServer,
        slots: 16,
        submission_entries: 8,
        completion_entries: 16,
        buffers,
        buffer_bytes: BUFFER_BYTES,
    })
    .expect("this kernel has io_uring")
}

/// Goes on until `count` completions of `op` have come; gives those back.
fn wait_for(ring: &mut Ring, op: Op, count: usize) -> Vec<Completion> {
    let mut found = Vec::new();
    for _ in 0..200 {
        let second = Duration::from_secs(1);
        let wait = Wait::For { completions: 1, min: Duration::ZERO, max: second };
        ring.enter(wait).expect("the ring is whole");
        let mut batch = Vec::new();
        while ring.collect(&mut batch, 4) {}
        found.extend(batch.into_iter().filter(|completion| completion.tag.op == op));
        if found.len() >= count {
            return found;
        }
    }
    panic!("{} completions of {op:?}, {count} wanted", found.len());
}

/// A ring, a connection that it has accepted, and the other end.
fn connected(buffers: u16) -> (Ring, TcpListener, u32, TcpStream) {
    let mut ring = ring(buffers);
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    ring.accept(listener.as_fd(), Tag::new(Op::Accept, 0, 0));
    let slot = wait_for(&mut ring, Op::Accept, 1)[0].result;
    (ring, listener, u32::try_from(slot).expect("accepted"), peer)
}

#[test]
fn the_kernel_and_we_agree_where_the_buffers_are() {
    let (mut ring, _listener, slot, mut peer) = connected(4);
    let all_free = BufferAccount { total: 4, free: 4, held: 0 };
    let Some(first) = ring.buffer_account() else { return };
    assert_eq!(first, all_free);
    ring.receive_multishot(slot, Tag::new(Op::Receive, 0, 7));
    // More rounds than there are buffers: places and counts wrap.
    for round in 0..20_u8 {
        peer.write_all(&[round; 10]).expect("it is connected");
        let completion = wait_for(&mut ring, Op::Receive, 1).remove(0);
        let buffer = completion.buffer.expect("bytes have come");
        assert_eq!(ring.bytes(&buffer), [round; 10]);
        assert_eq!(ring.buffer_account(), Some(BufferAccount { total: 4, free: 3, held: 1 }));
        ring.release(buffer);
        assert_eq!(ring.buffer_account(), Some(all_free), "round {round}");
    }
}

#[test]
fn a_buffer_that_is_not_given_back_is_missed_by_the_account() {
    let (mut ring, _listener, slot, mut peer) = connected(4);
    ring.receive_multishot(slot, Tag::new(Op::Receive, 0, 7));
    peer.write_all(b"lost").expect("it is connected");
    drop(wait_for(&mut ring, Op::Receive, 1));
    let Some(account) = ring.buffer_account() else { return };
    assert_eq!(account, BufferAccount { total: 4, free: 3, held: 1 });
}

#[test]
fn more_operations_than_the_queues_hold_all_come_back_once() {
    let mut ring = ring(0);
    for index in 0..300 {
        ring.close(3, Tag::new(Op::Close, 0, index));
    }
    let mut indices: Vec<_> =
        wait_for(&mut ring, Op::Close, 300).iter().map(|completion| completion.tag.index).collect();
    indices.sort_unstable();
    assert_eq!(indices, (0..300).collect::<Vec<_>>());
    let counters = ring.counters();
    assert_eq!((counters.submissions, counters.terminal_completions), (300, 300));
}

#[test]
fn sends_of_every_kind_arrive_and_come_back() {
    let (mut ring, _listener, slot, mut peer) = connected(2);
    let shared: Arc<[u8]> = Arc::from(&b"shared by many"[..]);
    let all: [(Outgoing, &[u8]); 3] = [
        (Outgoing::Static(b"static"), b"static"),
        (Outgoing::small(Box::new([b's'; 128]), 5), b"sssss"),
        (Outgoing::shared(Arc::clone(&shared)), b"shared by many"),
    ];
    for (outgoing, expected) in all {
        let comes_back = !matches!(outgoing, Outgoing::Static(_));
        ring.send(slot, outgoing, Tag::new(Op::Send, 1, 9));
        let sent = wait_for(&mut ring, Op::Send, 1).remove(0);
        assert_eq!(sent.result, expected.len() as i32);
        assert_eq!(sent.outgoing.is_some(), comes_back);
        let mut arrived = vec![0; expected.len()];
        peer.read_exact(&mut arrived).expect("it was sent");
        assert_eq!(arrived, expected);
    }
}

#[test]
fn from_where_a_connection_comes_is_told() {
    let (mut ring, _listener, slot, peer) = connected(2);
    ring.peer_name(slot, false, Tag::new(Op::PeerName, 0, slot));
    let completion = wait_for(&mut ring, Op::PeerName, 1).remove(0);
    let name = ring.take_peer_name(&completion).expect("it has one");
    let port = peer.local_addr().expect("connected").port();
    assert_eq!([name[2], name[3]], port.to_be_bytes());
}

/// What was lent to the kernel must not be written to, or read, after the ring has gone: the
/// sanitizers look at this one.
#[test]
fn a_ring_may_be_dropped_with_everything_in_flight() {
    for _ in 0..20 {
        let (mut ring, _listener, slot, mut peer) = connected(2);
        let bell = eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
        ring.read_wake(bell.as_fd(), Tag::new(Op::Wake, 0, 0));
        ring.receive_multishot(slot, Tag::new(Op::Receive, 0, 1));
        ring.poll_multishot(slot, Tag::new(Op::Poll, 0, 1));
        // More than the socket takes: it stays in flight.
        let message: Arc<[u8]> = Arc::from(vec![7; 16 << 20]);
        ring.send(slot, Outgoing::shared(message), Tag::new(Op::Send, 0, 1));
        ring.enter(Wait::No).expect("the ring is whole");
        peer.write_all(b"something on its way").expect("it is connected");
        drop(ring);
        rustix::io::write(&bell, &1_u64.to_ne_bytes()).expect("nobody reads it");
    }
}

#[test]
fn a_close_with_a_reset_is_seen_as_one_and_one_that_fails_says_so() {
    let client = RingConfig {
        role: RingRole::Client,
        slots: 4,
        submission_entries: 8,
        completion_entries: 16,
        buffers: 0,
        buffer_bytes: BUFFER_BYTES,
    };
    let mut ring = Ring::new(&client).expect("this kernel has io_uring");
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let target = listener.local_addr().expect("bound");
    ring.connect(1, None, target, Tag::new(Op::Connect, 0, 5));
    assert_eq!(wait_for(&mut ring, Op::Connect, 1)[0].result, 0);
    let (mut peer, _) = listener.accept().expect("it has connected");
    ring.reset(1, Tag::new(Op::Close, 0, 5));
    assert_eq!(wait_for(&mut ring, Op::Close, 1)[0].result, 0);
    let ended = peer.read(&mut [0]).expect_err("a reset is no end in good order");
    assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset);
    // In an empty slot there is no socket that could be told.
    ring.reset(2, Tag::new(Op::Close, 1, 6));
    let failed = wait_for(&mut ring, Op::ResetSetup, 1).remove(0);
    assert!(failed.result < 0, "{}", failed.result);
    assert_eq!((failed.tag.generation, failed.tag.index), (1, 6));
    ring.close(2, Tag::new(Op::Close, 1, 6));
    wait_for(&mut ring, Op::Close, 1);
    let counters = ring.counters();
    assert_eq!(counters.submissions, counters.terminal_completions);
}
