//! Timers of other crates behind our `Sweeper`, so that they can be run beside our strategies.
//!
//! A tick is a millisecond, the resolution that all of them have. None counts what it visits, and
//! none tells its memory: both are zero here, and the laboratory measures the memory itself.
//!
//! Where they differ from the contract:
//!
//! | peer | differs |
//! |---|---|
//! | `nexus-wheel` | horizon of 4.7 hours at 1 ms, later deadlines are clamped to it |
//! | `nexus-queue` | one timeout for all; it cannot be changed |
//! | `delay-queue` | a deadline 2^36 ticks ahead panics |
//! | `hash-wheel` | no budget; a deadline must lie ahead; time moves tick by tick |
//! | `tokio-sleep` | no budget; time moves by the runtime's clock, which is paused and set here |

mod tokio_timers;

use std::rc::Rc;
use std::time::{Duration, Instant};

use heartwheel::sweep::{Progress, Sweeper};
use heartwheel::time::Tick;
use hierarchical_hash_wheel_timer::wheels::cancellable::{
    CancellableTimerEntry, QuadWheelWithOverflow,
};
use nexus_timer::{TimeoutQueue, TimerHandle, Wheel};

pub use tokio_timers::{TokioDelayQueue, TokioSleeps, enter_paused_runtime};

/// Peers start at this tick: their clocks do.
pub const START: Tick = Tick(0);

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// An instant for the nexus timers, in the middle of its tick: they find the tick by multiplying
/// with a rounded reciprocal, and whole milliseconds come out one short.
fn middle_of(base: Instant, tick: u64) -> Instant {
    base + ticks(tick) + Duration::from_micros(500)
}

fn progress_of(reported: usize, budget: usize) -> Progress {
    if reported < budget { Progress::Done } else { Progress::More }
}

/// `nexus_timer::Wheel`, polled as its documentation recommends for steady use.
pub struct NexusWheel {
    wheel: Wheel<u32>,
    handles: Vec<Option<TimerHandle<u32>>>,
    base: Instant,
}

impl NexusWheel {
    pub fn new(capacity: usize) -> NexusWheel {
        let base = Instant::now();
        let handles = std::iter::repeat_with(|| None).take(capacity).collect();
        NexusWheel { wheel: Wheel::unbounded(capacity.max(1), base), handles, base }
    }
}

impl Sweeper for NexusWheel {
    fn insert(&mut self, index: u32, deadline: Tick) {
        let handle = self.wheel.schedule(middle_of(self.base, deadline.0), index);
        self.handles[index as usize] = Some(handle);
    }

    fn touch(&mut self, index: u32, deadline: Tick) {
        let slot = &mut self.handles[index as usize];
        let handle = slot.take().expect("filed");
        *slot = Some(self.wheel.reschedule(handle, middle_of(self.base, deadline.0)));
    }

    fn remove(&mut self, index: u32) {
        let handle = self.handles[index as usize].take().expect("filed");
        self.wheel.cancel(handle);
    }

    fn advance(&mut self, now: Tick, budget: usize, expired: &mut Vec<u32>) -> Progress {
        let first = expired.len();
        let now = middle_of(self.base, now.0);
        let fired = self.wheel.poll_and_rebalance_with_limit(now, budget, expired);
        for &index in &expired[first..] {
            let handle = self.handles[index as usize].take().expect("filed");
            self.wheel.free(handle);
        }
        progress_of(fired, budget)
    }

    fn len(&self) -> usize {
        self.wheel.len()
    }

    fn entries_visited(&self) -> u64 {
        0
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}

impl Drop for NexusWheel {
    fn drop(&mut self) {
        for handle in self.handles.drain(..).flatten() {
            self.wheel.free(handle);
        }
    }
}

/// `nexus_timer::TimeoutQueue`: deadlines must all be `timeout_ticks` after the present.
pub struct NexusQueue {
    queue: TimeoutQueue<u32>,
    handles: Vec<Option<TimerHandle<u32>>>,
    base: Instant,
    timeout_ticks: u64,
}

impl NexusQueue {
    pub fn new(capacity: usize, timeout_ticks: u64) -> NexusQueue {
        let base = Instant::now();
        let handles = std::iter::repeat_with(|| None).take(capacity).collect();
        let queue = TimeoutQueue::unbounded(ticks(timeout_ticks), capacity.max(1), base);
        NexusQueue { queue, handles, base, timeout_ticks }
    }
}

impl Sweeper for NexusQueue {
    fn insert(&mut self, index: u32, deadline: Tick) {
        let now = middle_of(self.base, deadline.0.saturating_sub(self.timeout_ticks));
        self.handles[index as usize] = Some(self.queue.schedule(now, index));
    }

    fn touch(&mut self, index: u32, deadline: Tick) {
        self.remove(index);
        self.insert(index, deadline);
    }

    fn remove(&mut self, index: u32) {
        let handle = self.handles[index as usize].take().expect("filed");
        self.queue.cancel(handle);
    }

    fn advance(&mut self, now: Tick, budget: usize, expired: &mut Vec<u32>) -> Progress {
        let first = expired.len();
        let fired = self.queue.poll_with_limit(middle_of(self.base, now.0), budget, expired);
        for &index in &expired[first..] {
            let handle = self.handles[index as usize].take().expect("filed");
            self.queue.free(handle);
        }
        progress_of(fired, budget)
    }

    fn len(&self) -> usize {
        self.queue.len()
    }

    fn entries_visited(&self) -> u64 {
        0
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}

impl Drop for NexusQueue {
    fn drop(&mut self) {
        for handle in self.handles.drain(..).flatten() {
            self.queue.free(handle);
        }
    }
}

/// `hierarchical_hash_wheel_timer`'s cancellable wheel. An entry cannot be moved: a touch is
/// a cancellation and a new one.
pub struct HashWheel {
    wheel: QuadWheelWithOverflow<Entry>,
    now: u64,
    len: usize,
}

#[derive(Debug)]
struct Entry {
    index: u32,
}

impl CancellableTimerEntry for Entry {
    type Id = u32;

    fn id(&self) -> &u32 {
        &self.index
    }
}

impl HashWheel {
    pub fn new() -> HashWheel {
        HashWheel { wheel: QuadWheelWithOverflow::new(), now: START.0, len: 0 }
    }
}

impl Sweeper for HashWheel {
    fn insert(&mut self, index: u32, deadline: Tick) {
        let delay = ticks(deadline.0.saturating_sub(self.now));
        let filed = self.wheel.insert_ref_with_delay(Rc::new(Entry { index }), delay);
        assert!(filed.is_ok(), "a deadline lies ahead");
        self.len += 1;
    }

    fn touch(&mut self, index: u32, deadline: Tick) {
        self.remove(index);
        self.insert(index, deadline);
    }

    fn remove(&mut self, index: u32) {
        let found = self.wheel.cancel(&index);
        assert!(found.is_ok(), "{index} is not filed");
        self.len -= 1;
    }

    fn advance(&mut self, now: Tick, _budget: usize, expired: &mut Vec<u32>) -> Progress {
        while self.now < now.0 {
            self.now += 1;
            let due = self.wheel.tick();
            self.len -= due.len();
            expired.extend(due.iter().map(|entry| entry.index));
        }
        Progress::Done
    }

    fn len(&self) -> usize {
        self.len
    }

    fn entries_visited(&self) -> u64 {
        0
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}
