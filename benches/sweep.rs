//! A quick look at every strategy: a tick with its touches, in which nobody expires, and the begin
//! and the end of a session.
//!
//! ```text
//! cargo bench --bench sweep
//! ```
//!
//! For comparisons that count there is the laboratory, `scripts/bench-sweep`: it simulates whole
//! lives, and checks every answer.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use heartwheel::sweep::{AnySweeper, Strategy, Sweeper};
use heartwheel::time::Tick;

const SESSIONS: u32 = 100_000;
const TIMEOUT: u64 = 240;
/// An odd step goes through all indices, and is random enough for a cache.
const STEP: u32 = 40_503;

/// A sweeper of sessions whose deadlines are spread over a third of the timeout.
fn filed(strategy: Strategy) -> AnySweeper {
    let mut sweeper = AnySweeper::new(strategy, SESSIONS as usize, Tick(0));
    for index in 0..SESSIONS {
        let phase = u64::from(index) * (TIMEOUT / 3) / u64::from(SESSIONS);
        sweeper.insert(index, Tick(TIMEOUT - TIMEOUT / 3 + phase));
    }
    sweeper
}

/// Touches a seventieth of the sessions, as a tick's heartbeats do, from `next` on.
fn beat(sweeper: &mut AnySweeper, next: &mut u32, now: u64) {
    for _ in 0..SESSIONS / 70 {
        *next = (*next + STEP) % SESSIONS;
        sweeper.touch(*next, Tick(now + TIMEOUT));
    }
}

fn lives(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("insert and remove");
    for &strategy in Strategy::ALL {
        let mut sweeper = filed(strategy);
        let mut next = 0;
        group.bench_function(BenchmarkId::from_parameter(strategy), |bencher| {
            bencher.iter(|| {
                next = (next + STEP) % SESSIONS;
                sweeper.remove(black_box(next));
                sweeper.insert(next, Tick(TIMEOUT));
            });
        });
    }
    group.finish();
}

fn ticks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tick with its touches");
    group.throughput(Throughput::Elements(u64::from(SESSIONS / 70)));
    for &strategy in Strategy::ALL {
        let mut sweeper = filed(strategy);
        let (mut next, mut now) = (0, 1);
        let mut expired = Vec::new();
        group.bench_function(BenchmarkId::from_parameter(strategy), |bencher| {
            bencher.iter(|| {
                now += 1;
                beat(&mut sweeper, &mut next, now);
                sweeper.advance(Tick(now), usize::MAX, &mut expired);
                assert!(expired.is_empty(), "everybody beats in time");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, ticks, lives);
criterion_main!(benches);
