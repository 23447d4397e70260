//! Closing: cancel what is armed, wait for the last completion, close the slot, count a new life.
//!
//! A slot that is closed while something is armed on it sends no FIN, and hands the old
//! connection's bytes to the next one.

use std::time::Duration;

use heartwheel::limits::GENERATIONS;
use heartwheel::ring::Op;
use heartwheel::time::Timestamp;

use super::client::{Again, InFlight, cause};
use super::{State, Worker};
use crate::limits;

impl Worker {
    /// Ends whatever is in flight for a client, so that its slot can be closed.
    pub(super) fn begin_close(&mut self, index: u32) {
        self.outboxes.remove(&index);
        let client = &self.clients[index as usize];
        if client.in_flight.has(InFlight::SEND) {
            self.group.cancel_send(index, client.generation);
        }
        self.cease(index);
    }

    /// The same in good order: the client says good-bye first where the protocol wants it, unless
    /// it is silent.
    pub(super) fn take_leave(&mut self, index: u32, now: Timestamp) {
        match self.task.wire.farewell().filter(|_| !self.is_silent(index, now)) {
            Some(farewell) => {
                self.send(index, farewell, now);
                self.cease(index);
            }
            None => self.begin_close(index),
        }
    }

    /// Ends what is in flight but a send.
    fn cease(&mut self, index: u32) {
        self.schedule.forget(index);
        let client = &mut self.clients[index as usize];
        client.state = State::Closing;
        let generation = client.generation;
        if self.group.forget_receive(index) {
            client.in_flight.end(InFlight::LISTEN);
            client.in_flight.end(InFlight::RECEIVE);
        }
        // A receive of what is there completes without being asked to.
        for (op, kind) in [
            (Op::Receive, InFlight::LISTEN),
            (Op::Poll, InFlight::POLL),
            (Op::Connect, InFlight::CONNECT),
        ] {
            if client.in_flight.has(kind) {
                self.group.cancel(index, generation, op);
            }
        }
        self.closes_in_flight += 1;
        self.close_when_idle(index);
    }

    /// Closes the slot of a client that is to be closed, once nothing is in flight on it.
    pub(super) fn close_when_idle(&mut self, index: u32) {
        let client = &mut self.clients[index as usize];
        if client.state == State::Closing && client.in_flight.is_empty() {
            client.in_flight.begin(InFlight::CLOSE);
            let generation = client.generation;
            match self.is_killed(index) {
                true => self.group.reset(index, generation),
                false => self.group.close(index, generation),
            }
        }
    }

    /// A reset could not be prepared, as where there is no socket at all: without one, then.
    pub(super) fn reset_failed(&mut self, index: u32) {
        self.group.close(index, self.clients[index as usize].generation);
    }

    /// A slot is empty. It may not have held a socket (a connect that failed early): so be it.
    pub(super) fn closed(&mut self, index: u32, now: Timestamp) {
        let client = &mut self.clients[index as usize];
        client.in_flight.end(InFlight::CLOSE);
        (client.read_again, client.hanging_up) = (false, false);
        client.generation = (client.generation + 1) % GENERATIONS;
        client.state = State::Gone;
        self.alive -= 1;
        self.closes_in_flight -= 1;
        self.partials.remove(&index);
        self.outboxes.remove(&index);
        let client = &mut self.clients[index as usize];
        let again = std::mem::take(&mut client.again);
        if again != Again::Never {
            client.state = State::Waiting;
        }
        match again {
            Again::Never => {}
            Again::AtOnce => self.again.push_back(index),
            Again::Later => self.wait_to_come_back(index, now),
        }
    }

    /// Closes the next few connections at the end of the run; whether all is done.
    pub(super) fn close_some(&mut self, now: Timestamp) -> bool {
        if !std::mem::replace(&mut self.stock_taken, true) {
            self.give_up_opening();
            self.take_stock(now);
        }
        let most = self.closes_max();
        while self.close_next < self.clients.len() as u32 && self.closes_in_flight < most {
            let index = self.close_next;
            self.close_next += 1;
            match self.clients[index as usize].state {
                State::Connecting | State::Greeting => self.fail(index, "the run had ended"),
                State::Open => {
                    self.stats.closed_by_us += 1;
                    self.take_leave(index, now);
                }
                State::Waiting | State::Closing | State::Gone => {}
            }
        }
        let patience =
            limits::CLOSING_MAX + Duration::from_secs(self.clients.len() as u64 / 20_000);
        let all = self.close_next as usize == self.clients.len();
        (all && self.alive == 0) || now > self.phases.close_at + patience
    }

    /// Closes that may be in flight here.
    pub(super) fn closes_max(&self) -> u32 {
        (limits::CLOSES_IN_FLIGHT_MAX / self.task.workers as u32).max(1)
    }

    /// Counts who is still open, who has not come back, and whom the server forgot to expire.
    fn take_stock(&mut self, now: Timestamp) {
        for index in 0..self.clients.len() as u32 {
            let client = self.clients[index as usize].clone();
            let returning = client.cause != cause::FIRST && client.cause != cause::BACK;
            if returning && client.state != State::Gone {
                self.stats.scene.away += 1;
            }
            if client.state != State::Open {
                continue;
            }
            self.stats.open_at_end += 1;
            self.stats.scene.slow_open += u64::from(client.deaf);
            self.miss_pushes(index, "not received");
            if !self.is_silent(index, now) {
                continue;
            }
            self.stats.silenced += 1;
            let grace = self.task.tick + limits::EXPIRY_GRACE;
            let up = client.idle_timeout().map(|timeout| client.last_sent + timeout + grace);
            match up.is_none_or(|up| now >= up) {
                true => self.stats.missed += 1,
                false => self.stats.undecided += 1,
            }
        }
    }
}
