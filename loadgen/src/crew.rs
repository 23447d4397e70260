//! All workers together: starting them, watching them, collecting what they counted.

use std::sync::mpsc::channel;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::detail::Detail;
use crate::series::BUCKETS;
use crate::stats::{Published, Snapshot, Stats};
use crate::worker::{Task, Worker};

/// The running workers.
pub struct Crew {
    threads: Vec<JoinHandle<Result<Stats>>>,
    published: Vec<Arc<Published>>,
    /// Rings in all.
    pub rings: usize,
}

impl Crew {
    /// Starts the workers, each on a thread of its own, and waits until all have their rings.
    ///
    /// # Errors
    /// If the kernel refuses a thread or a ring.
    pub fn start(task: &Arc<Task>) -> Result<Crew> {
        let mut crew = Crew { threads: Vec::new(), published: Vec::new(), rings: 0 };
        let (ready, readies) = channel();
        let cores = allowed_cores();
        for number in 0..task.workers {
            let published = Arc::new(Published::default());
            crew.published.push(Arc::clone(&published));
            let (task, ready) = (Arc::clone(task), ready.clone());
            let core = cores.get(number % cores.len().max(1)).copied();
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    pin_to(core);
                    let worker = match Worker::new(task, number, published) {
                        Ok(worker) => worker,
                        Err(error) => {
                            let _ = ready.send(Err(error));
                            return Ok(Stats::new(0));
                        }
                    };
                    // Nobody waits any more if another worker has failed.
                    let _ = ready.send(Ok(worker.rings()));
                    worker.run()
                })
                .context("starting a worker thread")?;
            crew.threads.push(thread);
        }
        for _ in 0..task.workers {
            crew.rings += readies.recv().context("a worker panicked")??;
        }
        Ok(crew)
    }

    /// What the workers show of themselves.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        self.published.iter().for_each(|worker| snapshot.add(worker));
        snapshot
    }

    /// What is no single number.
    pub fn detail(&self) -> Detail {
        let mut detail = Detail::default();
        for worker in &self.published {
            // A worker that panicked has left a whole one behind: nothing in it can be half done.
            detail.add(&worker.detail.lock().unwrap_or_else(PoisonError::into_inner));
        }
        detail
    }

    /// Their round trips, counted coarsely; the sums wrap.
    pub fn round_trips(&self) -> [u32; BUCKETS] {
        let mut rtt = [0; BUCKETS];
        self.published.iter().for_each(|worker| worker.rtt.add_to(&mut rtt));
        rtt
    }

    /// Whether a worker has ended, which before it is told to means that it has failed.
    pub fn any_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Waits for all, and sums up what they counted.
    ///
    /// # Errors
    /// If one has failed.
    pub fn join(self) -> Result<Stats> {
        let mut total = Stats::new(0);
        for thread in self.threads {
            total.add(&join_one(thread)?);
        }
        Ok(total)
    }

    /// Why a worker ended before its time. The others end with the process.
    pub fn first_error(self) -> anyhow::Error {
        let ended = self.threads.into_iter().filter(JoinHandle::is_finished);
        let error = ended.filter_map(|thread| join_one(thread).err()).next();
        error.unwrap_or_else(|| anyhow!("a worker ended too early"))
    }

    /// Whether all have ended.
    pub fn all_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

fn join_one(thread: JoinHandle<Result<Stats>>) -> Result<Stats> {
    thread.join().map_err(|_| anyhow!("a worker panicked"))?
}

fn allowed_cores() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
}

/// Unpinned it works as well, only less evenly.
fn pin_to(core: Option<usize>) {
    if let Some(core) = core {
        let mut set = CpuSet::new();
        set.set(core);
        let _ = sched_setaffinity(None, &set);
    }
}
