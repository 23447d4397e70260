//! The real engine on a simulated kernel: a few hundred seeds, each in virtual time.
//!
//! `HEARTWHEEL_SEED=N cargo test --test simulation` replays one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use heartwheel::engine::simulated::{BOUNDED, CROWDS, Outcome, Seeds, Violation, simulate};

const SEEDS: u64 = 240;
const CHAOS: Duration = Duration::from_secs(10);

/// What the worlds have to reach, beside heartbeats and expiries.
const REACHED: [&str; 27] = [
    "push queued",
    "push written",
    "push acknowledged",
    "receipt before the end of the send",
    "stray receipt",
    "push refused",
    "push dropped, the queue was full",
    "push dropped, the session was closed",
    "broadcast",
    "broadcast refused",
    "account of a push forgotten",
    "queue more than half full",
    "terms of its own",
    "asked for a sign of life",
    "asked late",
    "fragmented message",
    "control frame within a message",
    "half message",
    "told by GOAWAY",
    "sent away within a spread drain",
    "a thousand sessions at once",
    "flood of PONGs",
    "max_connections",
    "max_per_ip",
    "address_unknown",
    "accept_rate",
    "memory_limit",
];

/// The one seed to run, if the environment names one.
fn seed_wanted() -> Option<u64> {
    let seed = std::env::var("HEARTWHEEL_SEED").ok()?;
    Some(seed.parse().expect("HEARTWHEEL_SEED is a number"))
}

/// Runs seeds one after the other, on as many threads as there are cores.
fn run_all(seeds: u64) -> Vec<Violation> {
    let next = AtomicU64::new(1);
    let run = || -> Vec<Violation> {
        std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed))
            .take_while(|seed| *seed <= seeds)
            .filter_map(|seed| simulate(seed, CHAOS).err())
            .collect()
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
    })
}

#[test]
fn every_seed_keeps_every_promise() {
    let violations = match seed_wanted() {
        Some(seed) => simulate(seed, CHAOS).err().into_iter().collect(),
        None => run_all(SEEDS),
    };
    for violation in &violations {
        println!("seed {}: {violation}", violation.seed);
    }
    assert!(violations.is_empty(), "{} seeds failed", violations.len());
}

/// A seed whose world is a crowd, and fills the server.
const A_FULL_CROWD: u64 = 75;

/// Longer worlds that have shown something which the short ones never had, with their length in
/// seconds: a stall and a parting in which the server itself was held up, a PING that went out
/// together with a sign of life.
const LONG_WORLDS: [(u64, u64); 4] = [(19, 110), (268, 80), (294, 250), (83, 240)];

#[test]
fn worlds_that_have_failed_once_pass() {
    for (seed, chaos_s) in LONG_WORLDS {
        if let Err(violation) = simulate(seed, Duration::from_secs(chaos_s)) {
            panic!("seed {seed}: {violation}");
        }
    }
}

#[test]
fn a_seed_replays_to_the_byte() {
    for seed in [3, 7, 11, 19, 23, 42, A_FULL_CROWD, 77, 101] {
        let run = || simulate(seed, CHAOS).unwrap_or_else(|violation| panic!("{violation}"));
        let (first, second) = (run(), run());
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert_eq!(first, second, "seed {seed}");
    }
    let trace = |seed| simulate(seed, CHAOS).map(|outcome| outcome.trace);
    assert_ne!(trace(1), trace(2), "another seed is another run");
}

#[test]
fn what_is_meant_to_go_wrong_does_and_all_is_reached() {
    let mut total = Outcome::default();
    for seed in (1..=40).chain([A_FULL_CROWD]) {
        let outcome = simulate(seed, CHAOS).unwrap_or_else(|violation| panic!("{violation}"));
        total.add(&outcome);
    }
    let Outcome { heartbeats, expiries, faults, exercised, .. } = total;
    assert!(heartbeats > 1_000 && expiries > 100, "{heartbeats} heartbeats, {expiries} expiries");
    for name in REACHED {
        assert!(exercised.get(name).is_some_and(|count| *count > 0), "{name} was not reached");
    }
    let expected = [
        "EMFILE",
        "ENFILE",
        "ECONNABORTED",
        "ENOBUFS",
        "EALREADY",
        "cancel found nothing",
        "completion late",
        "completion queue overflowed",
        "multishot ended",
        "partial read",
        "short send",
        "send blocked",
        "stale flag",
        "the process was paused",
        "the process was paused within a turn",
        "mass death",
        "mass connect",
        "partition",
        "kick",
        "ENOTCONN",
        "short of memory, or not any more",
    ];
    for name in expected {
        assert!(faults.get(name).is_some_and(|count| *count > 0), "{name} never happened");
    }
}

#[test]
fn special_worlds_come_at_equal_distances() {
    let among = |seeds: Seeds| {
        let first = (0..200).filter(|seed| seeds.include(*seed)).collect::<Vec<_>>();
        let counted = (0..first.len() as u64).map(|number| seeds.nth(0, number));
        assert!(counted.eq(first.iter().copied()));
        first
    };
    assert_eq!(among(CROWDS), [25, 50, 75, 100, 125, 150, 175]);
    assert_eq!(among(BOUNDED)[..3], [3, 10, 17]);
    assert_eq!([CROWDS.nth(50, 0), CROWDS.nth(51, 0), BOUNDED.nth(11, 1)], [50, 75, 24]);
}
