//! When sessions are given up, and when not.

use heartwheel::protocol::Protocol;
use heartwheel::shard::{Activity, Admission, CloseReason, Policy, Shard};
use heartwheel::sweep::{AnySweeper, Progress, Strategy, Sweeper};
use heartwheel::time::{Tick, TickLength, Timestamp};

use crate::world::{PING, World, ms};

fn policy() -> Policy {
    Policy {
        tick: TickLength::new(ms(100)),
        idle_timeout: ms(1_050),
        hello_timeout: ms(400),
        frame_timeout: ms(300),
        stall_timeout: ms(700),
        ..Policy::default()
    }
}

#[test]
fn silence_ends_a_session_never_early_and_at_most_a_tick_late() {
    for phase_us in [0, 1, 49_999, 50_000, 50_001, 99_999] {
        let mut world = World::new(policy());
        world.now = Timestamp::from_nanos(phase_us * 1_000);
        let client = world.connect();
        world.receive(client, PING);
        world.advance(ms(1_049));
        assert_eq!(world.closed_for(client), None, "phase {phase_us} us");
        world.advance(ms(101));
        assert_eq!(world.closed_for(client), Some(CloseReason::Expired), "phase {phase_us} us");
        assert!(world.counters().expiry_lateness_us_max <= 100_000);
        world.check_laws();
    }
}

#[test]
fn bytes_of_any_kind_keep_a_session_alive() {
    let mut world = World::new(policy());
    let client = world.connect();
    world.receive(client, PING);
    for _ in 0..20 {
        world.advance(ms(1_000));
        world.receive(client, &[0, 3, 7, b'h', b'i']);
    }
    assert_eq!(world.closed_for(client), None);
}

#[test]
fn a_jump_of_the_clock_expires_once_and_for_all() {
    let mut world = World::new(policy());
    let clients: Vec<_> = (0..500).map(|_| world.connect()).collect();
    for &client in &clients {
        world.receive(client, PING);
    }
    world.jump(ms(1_000_000));
    assert_eq!(world.counters().closed_for(CloseReason::Expired), 500);
    world.check_laws();
}

#[test]
fn sent_bytes_count_as_life_only_if_asked_for() {
    for (activity, expected) in
        [(Activity::Receive, Some(CloseReason::Expired)), (Activity::Any, None)]
    {
        let mut world = World::new(Policy { activity, ..policy() });
        let client = world.connect();
        world.deaf = true;
        world.receive(client, PING);
        world.advance(ms(600));
        world.deaf = false;
        world.settle();
        world.advance(ms(600));
        assert_eq!(world.closed_for(client), expected, "{activity:?}");
    }
}

#[test]
fn the_first_frame_must_come_in_time_and_dribbling_does_not_help() {
    let mut world = World::new(policy());
    let mute = world.connect();
    let dribbling = world.connect();
    world.advance(ms(200));
    world.receive(dribbling, &[0]);
    world.advance(ms(199));
    assert_eq!((world.closed_for(mute), world.closed_for(dribbling)), (None, None));
    world.advance(ms(102));
    assert_eq!(world.closed_for(mute), Some(CloseReason::HelloTimeout));
    assert_eq!(world.closed_for(dribbling), Some(CloseReason::HelloTimeout));
}

#[test]
fn what_may_have_arrived_is_not_missed_before_it_has_been_read() {
    let mut world = World::new(policy());
    let (greeting, speaking) = (world.connect(), world.connect());
    world.receive(speaking, PING);
    world.receive(speaking, &[0, 9, 7, 1]);
    for client in [greeting, speaking] {
        world.note_unread(client, true);
    }
    world.advance(ms(900));
    assert_eq!((world.closed_for(greeting), world.closed_for(speaking)), (None, None));
    for client in [greeting, speaking] {
        world.note_unread(client, false);
    }
    world.advance(ms(200));
    assert_eq!(world.closed_for(greeting), Some(CloseReason::HelloTimeout));
    assert_eq!(world.closed_for(speaking), Some(CloseReason::FrameTimeout));
    world.check_laws();
}

#[test]
fn a_client_that_is_silent_from_the_start_gets_no_longer_than_the_idle_timeout() {
    let mut world = World::new(Policy { hello_timeout: ms(60_000), ..policy() });
    let mute = world.connect();
    world.advance(ms(1_151));
    assert_eq!(world.closed_for(mute), Some(CloseReason::HelloTimeout));
}

#[test]
fn a_timeout_of_a_fraction_of_a_millisecond_is_not_cut_short() {
    let timeout = std::time::Duration::from_micros(2_900);
    let tick = TickLength::new(ms(1));
    let mut world = World::new(Policy { tick, idle_timeout: timeout, ..policy() });
    let client = world.connect();
    world.receive(client, PING);
    world.advance(std::time::Duration::from_micros(2_899));
    assert_eq!(world.closed_for(client), None);
}

#[test]
fn a_frame_that_was_begun_must_be_completed() {
    let mut world = World::new(policy());
    let client = world.connect();
    world.receive(client, PING);
    world.receive(client, &[0, 9, 7, 1]);
    for _ in 0..2 {
        world.advance(ms(140));
        world.receive(client, &[2]);
    }
    assert_eq!(world.closed_for(client), None);
    world.advance(ms(121));
    assert_eq!(world.closed_for(client), Some(CloseReason::FrameTimeout));
    world.check_laws();
}

#[test]
fn a_completed_frame_lifts_its_deadline() {
    let mut world = World::new(policy());
    let client = world.connect();
    world.receive(client, &[0, 1]);
    world.advance(ms(250));
    world.receive(client, &[3]);
    world.advance(ms(1_000));
    assert_eq!(world.closed_for(client), None);
    world.advance(ms(151));
    assert_eq!(world.closed_for(client), Some(CloseReason::Expired));
}

#[test]
fn no_expiry_means_nobody_ever() {
    let mut world = World::new(Policy { expiry: false, ..policy() });
    let silent = world.connect();
    let half = world.connect();
    world.receive(half, &[0, 9, 7]);
    world.jump(ms(100_000_000));
    assert_eq!((world.closed_for(silent), world.closed_for(half)), (None, None));
}

#[test]
fn a_mass_expiry_comes_in_portions_and_is_complete() {
    let mut world = World::with_limit(policy(), 20_000);
    for _ in 0..20_000 {
        let client = world.connect();
        world.receive(client, PING);
    }
    world.jump(ms(1_200));
    assert_eq!(world.counters().closed_for(CloseReason::Expired), 20_000);
    assert!(world.counters().sweeps_continued > 0);
    world.check_laws();
}

/// A sweeper that reports everybody one call later than it should.
struct Tardy {
    inner: AnySweeper,
    kept_back: Vec<u32>,
}

impl Sweeper for Tardy {
    fn insert(&mut self, index: u32, deadline: Tick) {
        self.inner.insert(index, deadline);
    }

    fn touch(&mut self, index: u32, deadline: Tick) {
        self.inner.touch(index, deadline);
    }

    fn remove(&mut self, index: u32) {
        self.inner.remove(index);
    }

    fn advance(&mut self, now: Tick, budget: usize, expired: &mut Vec<u32>) -> Progress {
        expired.append(&mut self.kept_back);
        self.inner.advance(now, budget, &mut self.kept_back)
    }

    fn len(&self) -> usize {
        self.inner.len()
    }

    fn entries_visited(&self) -> u64 {
        self.inner.entries_visited()
    }

    fn heap_bytes(&self) -> usize {
        self.inner.heap_bytes()
    }
}

#[test]
fn a_sweep_that_passes_somebody_over_breaks_a_law() {
    let inner = AnySweeper::new(Strategy::DEFAULT, 10, Tick(0));
    let sweeper = Tardy { inner, kept_back: Vec::new() };
    let mut shard = Shard::new(0, policy(), Admission::new(10), sweeper, 10);
    let opened = shard.opened((), Protocol::Tcp, Timestamp::from_nanos(1)).expect("there is room");
    for tick in 1..=6 {
        shard.advance(Timestamp::ZERO + ms(100 * tick));
    }
    let closed = shard.session(opened).expect("not released").parting;
    assert_eq!(closed, CloseReason::HelloTimeout);
    let broken: Vec<_> = shard.publish().laws().into_iter().filter(|law| !law.holds).collect();
    assert_eq!(broken.len(), 1, "{broken:?}");
    assert!(broken[0].name.contains("after the first sweep"), "{broken:?}");
    assert_eq!((broken[0].left, broken[0].right), (1, 0));
}
