//! tokio's timers. Both need a runtime, whose clock is paused: time moves when `advance` says so.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use heartwheel::sweep::{Progress, Sweeper};
use heartwheel::time::Tick;
use tokio::runtime::{Builder, EnterGuard, Runtime};
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, advance, sleep_until};
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

use super::ticks;

/// A runtime for the timers of one run. It is never dropped, so that it can be entered for good
/// and a touch need not pay for entering it.
pub fn enter_paused_runtime() -> (&'static Runtime, EnterGuard<'static>) {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime: &'static Runtime = Box::leak(Box::new(runtime.expect("a runtime")));
    (runtime, runtime.enter())
}

/// Moves the paused clock to `base + now`.
async fn move_clock(base: Instant, now: Tick) {
    let target = base + ticks(now.0);
    let present = Instant::now();
    if target > present {
        advance(target - present).await;
    }
}

/// `tokio_util::time::DelayQueue`.
pub struct TokioDelayQueue {
    queue: DelayQueue<u32>,
    keys: Vec<Option<Key>>,
    base: Instant,
    runtime: &'static Runtime,
}

impl TokioDelayQueue {
    /// In a runtime that is entered.
    pub fn new(capacity: usize, runtime: &'static Runtime) -> TokioDelayQueue {
        let queue = DelayQueue::with_capacity(capacity);
        TokioDelayQueue { queue, keys: vec![None; capacity], base: Instant::now(), runtime }
    }
}

impl Sweeper for TokioDelayQueue {
    fn insert(&mut self, index: u32, deadline: Tick) {
        let key = self.queue.insert_at(index, self.base + ticks(deadline.0));
        self.keys[index as usize] = Some(key);
    }

    fn touch(&mut self, index: u32, deadline: Tick) {
        let key = self.keys[index as usize].expect("filed");
        self.queue.reset_at(&key, self.base + ticks(deadline.0));
    }

    fn remove(&mut self, index: u32) {
        let key = self.keys[index as usize].take().expect("filed");
        self.queue.remove(&key);
    }

    fn advance(&mut self, now: Tick, budget: usize, expired: &mut Vec<u32>) -> Progress {
        let TokioDelayQueue { queue, keys, base, runtime } = self;
        let full = expired.len().saturating_add(budget);
        runtime.block_on(async {
            move_clock(*base, now).await;
            // Without this a task may poll 128 times only, and is told Pending then.
            unconstrained(poll_fn(|context| {
                while expired.len() < full {
                    match queue.poll_expired(context) {
                        Poll::Ready(Some(due)) => {
                            let index = due.into_inner();
                            keys[index as usize] = None;
                            expired.push(index);
                        }
                        Poll::Ready(None) | Poll::Pending => return Poll::Ready(Progress::Done),
                    }
                }
                Poll::Ready(Progress::More)
            }))
            .await
        })
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

/// A `tokio::time::Sleep` for each session, as a task per connection has it. A heartbeat resets it
/// and polls it again, as a `select!` that goes round does. What scheduling the task costs when it
/// fires is not counted: the waker notes the session, and that is all.
pub struct TokioSleeps {
    sleeps: Vec<Option<Session>>,
    woken: Arc<Mutex<Vec<u32>>>,
    base: Instant,
    runtime: &'static Runtime,
    len: usize,
}

struct Session {
    sleep: Pin<Box<Sleep>>,
    waker: Waker,
}

struct Note {
    index: u32,
    woken: Arc<Mutex<Vec<u32>>>,
}

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.woken.lock().expect("no panic under this lock").push(self.index);
    }
}

impl TokioSleeps {
    /// In a runtime that is entered.
    pub fn new(capacity: usize, runtime: &'static Runtime) -> TokioSleeps {
        TokioSleeps {
            sleeps: std::iter::repeat_with(|| None).take(capacity).collect(),
            woken: Arc::default(),
            base: Instant::now(),
            runtime,
            len: 0,
        }
    }

    fn poll(session: &mut Session, woken: &Mutex<Vec<u32>>, index: u32) {
        let mut context = Context::from_waker(&session.waker);
        if session.sleep.as_mut().poll(&mut context).is_ready() {
            woken.lock().expect("no panic under this lock").push(index);
        }
    }
}

impl Sweeper for TokioSleeps {
    fn insert(&mut self, index: u32, deadline: Tick) {
        let note = Note { index, woken: Arc::clone(&self.woken) };
        let sleep = Box::pin(sleep_until(self.base + ticks(deadline.0)));
        let mut session = Session { sleep, waker: Waker::from(Arc::new(note)) };
        Self::poll(&mut session, &self.woken, index);
        self.sleeps[index as usize] = Some(session);
        self.len += 1;
    }

    fn touch(&mut self, index: u32, deadline: Tick) {
        let session = self.sleeps[index as usize].as_mut().expect("filed");
        session.sleep.as_mut().reset(self.base + ticks(deadline.0));
        Self::poll(session, &self.woken, index);
    }

    fn remove(&mut self, index: u32) {
        self.sleeps[index as usize] = None;
        self.len -= 1;
    }

    fn advance(&mut self, now: Tick, _budget: usize, expired: &mut Vec<u32>) -> Progress {
        self.runtime.block_on(move_clock(self.base, now));
        let mut woken = self.woken.lock().expect("no panic under this lock");
        for index in woken.drain(..) {
            // A note may be stale: the session may have been touched since, or have gone.
            let slot = &mut self.sleeps[index as usize];
            if slot.as_ref().is_some_and(|session| session.sleep.is_elapsed()) {
                *slot = None;
                self.len -= 1;
                expired.push(index);
            }
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
