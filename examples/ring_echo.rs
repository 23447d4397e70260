//! The bare ring echo: what a heartbeat costs without sessions, frames or a sweep.
//!
//! The same ring layer and the same layout as the server (a pinned thread per core, each with a
//! group of rings, a SO_REUSEPORT listener per ring, accept, multishot receive), but every
//! receive is answered with a static PONG, whatever it brought. `scripts/bench-echo` holds the
//! server's CPU per heartbeat against it.
//!
//! ```text
//! cargo run --release --example ring_echo -- tcp://127.0.0.1:7500 200000
//! loadgen --target tcp://127.0.0.1:7500 --no-hello -i 10s -c 200k
//! ```

use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use heartwheel::engine::Layout;
use heartwheel::limits;
use heartwheel::outgoing::Outgoing;
use heartwheel::protocol::frame::PONG;
use heartwheel::ring::{Completion, Op, Ring, RingConfig, RingError, RingRole, Tag, Wait};
use heartwheel::socket::{SocketOptions, listeners};
use rustix::event::{EventfdFlags, eventfd};
use rustix::thread::{CpuSet, sched_setaffinity};

/// As long as the server's tick: a loop that has nothing to do wakes as often.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// The loop.
fn serve(mut members: Vec<Member>, bell: &OwnedFd) -> Result<(), RingError> {
    let mut batch = Vec::with_capacity(limits::COMPLETIONS_PER_BATCH);
    members[0].ring.read_wake(bell.as_fd(), Tag::new(Op::Wake, 0, 0));
    for member in &mut members {
        for number in 0..limits::ACCEPTS_PER_TURN {
            member.ring.accept(member.listener.as_fd(), Tag::new(Op::Accept, number, 0));
        }
    }
    loop {
        let busy = members[1..].iter_mut().any(|member| needs_visit(&mut member.ring));
        members[0].ring.enter(match busy {
            true => Wait::No,
            false => Wait::For {
                completions: limits::WAIT_COMPLETIONS,
                min: limits::WAIT_MIN,
                max: SLEEP_MAX,
            },
        })?;
        for (index, member) in members.iter_mut().enumerate() {
            if index > 0 && !needs_visit(&mut member.ring) {
                continue;
            }
            if index > 0 {
                member.ring.enter(Wait::No)?;
            }
            while member.ring.collect(&mut batch, limits::COMPLETIONS_PER_BATCH) {
                batch.drain(..).for_each(|completion| member.handle(completion, bell));
            }
            batch.drain(..).for_each(|completion| member.handle(completion, bell));
        }
    }
}

fn needs_visit(ring: &mut Ring) -> bool {
    ring.has_completions() || ring.has_deferred() || ring.has_submissions()
}

/// A ring, its listener and its slots.
struct Member {
    ring: Ring,
    listener: OwnedFd,
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    generation: u32,
    sending: bool,
    receiving: bool,
}

impl Member {
    fn handle(&mut self, completion: Completion, bell: &OwnedFd) {
        let tag = completion.tag;
        match tag.op {
            Op::Accept => self.accepted(&completion),
            Op::Receive => self.received(completion),
            Op::Send => {
                self.slots[tag.index as usize].sending = false;
                self.close_if_over(tag.index);
            }
            Op::Close => self.slots[tag.index as usize].generation += 1,
            Op::Wake => self.ring.read_wake(bell.as_fd(), tag),
            // What this program never queues, and cancellations.
            _ => {}
        }
    }

    fn accepted(&mut self, completion: &Completion) {
        if let Ok(slot) = u32::try_from(completion.result) {
            self.slots[slot as usize].receiving = true;
            self.receive(slot);
        }
        // The layout leaves room enough that a table is never full: no pause is needed.
        self.ring.accept(self.listener.as_fd(), completion.tag);
    }

    fn received(&mut self, completion: Completion) {
        let index = completion.tag.index;
        if let Some(buffer) = completion.buffer {
            self.ring.release(buffer);
            let slot = &mut self.slots[index as usize];
            // One send in flight: who sends faster than it reads gets fewer answers.
            if !slot.sending {
                slot.sending = true;
                let tag = Tag::new(Op::Send, slot.generation, index);
                self.ring.send(index, Outgoing::Static(&PONG), tag);
            }
        }
        if completion.more {
            return;
        }
        // Released buffers are the kernel's again when this is submitted.
        if completion.result > 0 || completion.result == -libc::ENOBUFS {
            return self.receive(index);
        }
        self.slots[index as usize].receiving = false;
        self.close_if_over(index);
    }

    fn receive(&mut self, slot: u32) {
        let tag = Tag::new(Op::Receive, self.slots[slot as usize].generation, slot);
        self.ring.receive_multishot(slot, tag);
    }

    fn close_if_over(&mut self, index: u32) {
        let slot = self.slots[index as usize];
        if !slot.receiving && !slot.sending {
            self.ring.close(index, Tag::new(Op::Close, slot.generation, index));
        }
    }
}

fn main() -> Result<()> {
    let usage = "usage: ring_echo tcp://ADDR:PORT MAX_CONNECTIONS";
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, connections] = arguments.as_slice() else { bail!(usage) };
    let address: SocketAddr = address.strip_prefix("tcp://").context(usage)?.parse()?;
    let connections: usize = connections.parse()?;

    let cores = heartwheel::host::usable_cores();
    let limit = heartwheel::host::raise_descriptor_limit()?;
    let layout = Layout::new(connections, cores.len(), limit, None, None)?;
    let rings = cores.len() * layout.rings_per_shard;
    let (bound, sockets) = listeners(address, rings, &SocketOptions::default())?;
    let mut sockets = sockets.into_iter();

    let mut threads = Vec::new();
    for core in cores {
        let group: Vec<OwnedFd> = sockets.by_ref().take(layout.rings_per_shard).collect();
        threads.push(std::thread::spawn(move || run_on(core, group, layout.slots)));
    }
    // Connections that come before a ring is there wait in its listener's queue.
    writeln!(std::io::stdout(), "{{\"ready\":true,\"listen\":[\"tcp://{bound}\"]}}")?;
    for thread in threads {
        thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    Ok(())
}

fn run_on(core: usize, listeners: Vec<OwnedFd>, slots: u32) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set)?;
    let bell = eventfd(0, EventfdFlags::CLOEXEC)?;
    let mut members = Vec::new();
    for listener in listeners {
        let ring = Ring::new(&RingConfig {
            role: RingRole::Server,
            slots,
            submission_entries: limits::SUBMISSION_ENTRIES,
            completion_entries: limits::COMPLETION_ENTRIES,
            buffers: limits::RECEIVE_BUFFERS,
            buffer_bytes: limits::RECEIVE_BUFFER_BYTES,
        })?;
        if !members.is_empty() {
            ring.signal_by(bell.as_fd())?;
        }
        members.push(Member { ring, listener, slots: vec![Slot::default(); slots as usize] });
    }
    serve(members, &bell)?;
    Ok(())
}
