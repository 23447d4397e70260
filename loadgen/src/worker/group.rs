//! A worker's rings: a ring's table holds at most RLIMIT_NOFILE connections, so many clients need
//! several.
//!
//! Ring 0 is the main ring, the only one that sleeps; the others wake it by an eventfd, and are
//! entered only if they have work. A client's index says where it lives: `index / slots` is its
//! ring, `index % slots` its slot.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use heartwheel::engine::Arming;
use heartwheel::outgoing::Outgoing;
use heartwheel::ring::{Buffer, Completion, Op, Ring, RingConfig, RingRole, Tag, Wait};
use rustix::event::{EventfdFlags, eventfd};

use crate::limits;

/// The rings of one worker.
pub struct Group {
    members: Vec<Member>,
    slots: u32,
    arming: Arming,
    /// Only if there is more than one ring.
    wake: Option<OwnedFd>,
}

struct Member {
    ring: Ring,
    /// Clients whose receive ended because the buffers had run out.
    starved: VecDeque<(u32, u32)>,
    /// Receives of what is there are queued.
    hasty: bool,
}

impl Group {
    /// Rings for `clients`, each with at most `slots_max` slots, who wait as `arming` says. To be
    /// called on the thread that uses them.
    ///
    /// # Errors
    /// If the kernel refuses, with the cure.
    pub fn new(clients: u32, slots_max: u32, arming: Arming) -> Result<Group> {
        let rings = clients.div_ceil(slots_max).max(1);
        let slots = clients.div_ceil(rings).max(1);
        let config = RingConfig {
            role: RingRole::Client,
            slots,
            submission_entries: limits::SUBMISSION_ENTRIES,
            completion_entries: limits::COMPLETION_ENTRIES,
            buffers: limits::RECEIVE_BUFFERS,
            buffer_bytes: limits::RECEIVE_BUFFER_BYTES,
        };
        let mut members = Vec::with_capacity(rings as usize);
        for _ in 0..rings {
            let ring = Ring::new(&config)?;
            members.push(Member { ring, starved: VecDeque::new(), hasty: false });
        }
        let mut group = Group { members, slots, arming, wake: None };
        if rings > 1 {
            let wake = eventfd(0, EventfdFlags::CLOEXEC).context("making an eventfd")?;
            for member in &group.members[1..] {
                member.ring.signal_by(wake.as_fd())?;
            }
            group.wake = Some(wake);
            group.arm_wake();
        }
        Ok(group)
    }

    /// How many rings there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Reads the eventfd; to be repeated whenever that has completed.
    pub fn arm_wake(&mut self) {
        if let Some(wake) = &self.wake {
            self.members[0].ring.read_wake(wake.as_fd(), Tag::new(Op::Wake, 0, 0));
        }
    }

    /// Whether `ring` has something to be entered or collected for.
    pub fn has_work(&mut self, ring: usize) -> bool {
        self.must_enter(ring) || self.members[ring].ring.has_completions()
    }

    /// Whether there is work that is not to wait until the main ring has slept: any of the others,
    /// and bytes that have come for the main ring's clients.
    pub fn is_in_a_hurry(&mut self) -> bool {
        self.members[0].hasty || (1..self.members.len()).any(|ring| self.has_work(ring))
    }

    /// Whether there is something that only an `enter` can do.
    fn must_enter(&mut self, ring: usize) -> bool {
        let Member { ring, starved, .. } = &mut self.members[ring];
        !starved.is_empty() || ring.has_submissions() || ring.has_deferred()
    }

    /// Submits what is queued on `ring`, and sleeps as `wait` says.
    ///
    /// # Errors
    /// If the ring as a whole has failed.
    pub fn enter(&mut self, ring: usize, wait: Wait) -> Result<()> {
        if matches!(wait, Wait::No) && !self.must_enter(ring) {
            return Ok(());
        }
        let Member { ring, starved, hasty } = &mut self.members[ring];
        *hasty = false;
        // The buffers have been given back by now; a few at a time, or they run out again at once.
        let count = starved.len().min(limits::REARMS_PER_VISIT);
        for (client, generation) in starved.drain(..count) {
            receive(ring, self.arming, client % self.slots, client, generation);
        }
        let wait = if starved.is_empty() { wait } else { Wait::No };
        Ok(ring.enter(wait)?)
    }

    /// Moves completions of `ring` into `batch`; whether there may be more.
    pub fn collect(&mut self, ring: usize, batch: &mut Vec<Completion>) -> bool {
        self.members[ring].ring.collect(batch, limits::COMPLETIONS_PER_BATCH)
    }

    /// The bytes in a buffer of the ring where `client` lives.
    pub fn bytes(&self, client: u32, buffer: &Buffer) -> &[u8] {
        self.members[(client / self.slots) as usize].ring.bytes(buffer)
    }

    /// Gives a buffer back to `ring`.
    pub fn release(&mut self, ring: usize, buffer: Buffer) {
        self.members[ring].ring.release(buffer);
    }

    /// Starts to open a connection.
    pub fn connect(
        &mut self,
        client: u32,
        generation: u32,
        source: Option<SocketAddr>,
        target: SocketAddr,
    ) {
        let tag = Tag::new(Op::Connect, generation, client);
        let (ring, slot) = self.place(client);
        ring.connect(slot, source, target, tag);
    }

    /// Has the kernel receive whatever comes, from now on.
    pub fn listen(&mut self, client: u32, generation: u32) {
        let (ring, slot) = self.place(client);
        receive(ring, Arming::Receive, slot, client, generation);
    }

    /// Has the kernel tell whenever bytes have come, and of the end.
    pub fn poll(&mut self, client: u32, generation: u32) {
        let (ring, slot) = self.place(client);
        ring.poll_multishot(slot, Tag::new(Op::Poll, generation, client));
    }

    /// Starts to receive what is there.
    pub fn receive(&mut self, client: u32, generation: u32) {
        let member = &mut self.members[(client / self.slots) as usize];
        member.hasty = true;
        receive(&mut member.ring, Arming::Poll, client % self.slots, client, generation);
    }

    /// Repeats a receive that found no buffer, as soon as there are some again.
    pub fn receive_later(&mut self, client: u32, generation: u32) {
        let ring = (client / self.slots) as usize;
        self.members[ring].starved.push_back((client, generation));
    }

    /// Takes back a receive that waits for a buffer; whether there was one.
    pub fn forget_receive(&mut self, client: u32) -> bool {
        let starved = &mut self.members[(client / self.slots) as usize].starved;
        let place = starved.iter().position(|&(waiting, _)| waiting == client);
        place.is_some_and(|place| starved.remove(place).is_some())
    }

    /// Starts to send.
    pub fn send(&mut self, client: u32, generation: u32, outgoing: Outgoing) {
        let (ring, slot) = self.place(client);
        ring.send(slot, outgoing, Tag::new(Op::Send, generation, client));
    }

    /// Asks the kernel to end an operation of a client.
    pub fn cancel(&mut self, client: u32, generation: u32, op: Op) {
        let (ring, _) = self.place(client);
        let tag = Tag::new(Op::Cancel, generation, client);
        ring.cancel(tag.with_op(op), tag);
    }

    /// Asks the kernel to end the send that is in flight for a client.
    pub fn cancel_send(&mut self, client: u32, generation: u32) {
        let (ring, _) = self.place(client);
        let tag = Tag::new(Op::Cancel, generation, client);
        ring.cancel_send(tag.with_op(Op::Send), tag);
    }

    /// Starts to close a slot on which nothing is in flight.
    pub fn close(&mut self, client: u32, generation: u32) {
        let (ring, slot) = self.place(client);
        ring.close(slot, Tag::new(Op::Close, generation, client));
    }

    /// Starts to close a slot on which nothing is in flight, with a reset: no port lingers in
    /// TIME_WAIT.
    pub fn reset(&mut self, client: u32, generation: u32) {
        let (ring, slot) = self.place(client);
        ring.reset(slot, Tag::new(Op::Close, generation, client));
    }

    fn place(&mut self, client: u32) -> (&mut Ring, u32) {
        let ring = (client / self.slots) as usize;
        (&mut self.members[ring].ring, client % self.slots)
    }
}

/// Queues the receive that belongs to `arming`: one for good, or one of what is there.
fn receive(ring: &mut Ring, arming: Arming, slot: u32, client: u32, generation: u32) {
    match arming {
        Arming::Receive => ring.receive_multishot(slot, Tag::new(Op::Receive, generation, client)),
        Arming::Poll => ring.receive_once(slot, Tag::new(Op::ReceiveOnce, generation, client)),
    }
}
