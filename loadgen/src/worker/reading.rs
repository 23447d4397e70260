//! How bytes arrive, in two ways (`--arming`): by a receive that stays armed, or by a poll that
//! does, and a receive of what is there whenever it fires. The poll costs the kernel 448 bytes less
//! for each client, and this program a tenth more CPU.
//!
//! Invariant: after a completion of the poll something reads until the socket is empty, or until
//! the client closes it; so no byte stays behind unseen.

use heartwheel::engine::Arming;
use heartwheel::ring::{Buffer, Completion, Op};
use heartwheel::time::Timestamp;
use rustix::event::PollFlags;
use rustix::io::Errno;

use super::client::InFlight;
use super::opening::reason;
use super::{State, Worker};
use crate::limits;
use crate::wire::{Illegal, Reading};

impl Worker {
    /// Waits for what arrives for a client, until its connection is closed.
    pub(super) fn listen(&mut self, index: u32) {
        let client = &mut self.clients[index as usize];
        match self.task.arming {
            Arming::Receive if !client.deaf => {
                client.in_flight.begin(InFlight::LISTEN);
                self.group.listen(index, client.generation);
            }
            Arming::Receive | Arming::Poll => {
                client.in_flight.begin(InFlight::POLL);
                self.group.poll(index, client.generation);
            }
        }
    }

    /// Waits for nothing but the end of the connection from now on.
    pub(super) fn stop_listening(&mut self, index: u32) {
        let client = &mut self.clients[index as usize];
        client.deaf = true;
        if client.in_flight.has(InFlight::LISTEN) {
            self.group.cancel(index, client.generation, Op::Receive);
        }
    }

    /// The poll has fired: bytes have come, or the end of the connection.
    pub(super) fn polled(&mut self, completion: &Completion, now: Timestamp) {
        let index = completion.tag.index;
        let client = &mut self.clients[index as usize];
        if !completion.more {
            client.in_flight.end(InFlight::POLL);
        }
        if client.state == State::Closing {
            return self.close_when_idle(index);
        }
        if completion.result < 0 {
            let errno = Errno::from_raw_os_error(-completion.result);
            return self.closed_by_server(index, reason(errno), now);
        }
        client.hanging_up |= tells_of_the_end(completion.result);
        if !completion.more {
            *self.stats.rearmed.entry("the poll ended").or_default() += 1;
            self.listen(index);
        }
        self.take_what_is_there(index, now);
    }

    /// Receives what is there, unless the client does not read: then its end is all it waits for.
    fn take_what_is_there(&mut self, index: u32, now: Timestamp) {
        let client = &mut self.clients[index as usize];
        if client.deaf {
            if client.hanging_up {
                self.closed_by_server(index, "end of one that did not read", now);
            }
            return;
        }
        if client.in_flight.has(InFlight::RECEIVE) {
            client.read_again = true;
            return;
        }
        client.in_flight.begin(InFlight::RECEIVE);
        self.group.receive(index, client.generation);
    }

    /// A receive has completed, for good or with more to come.
    pub(super) fn received(&mut self, ring: usize, completion: Completion, now: Timestamp) {
        let index = completion.tag.index;
        let client = &mut self.clients[index as usize];
        let kind = match completion.tag.op {
            Op::ReceiveOnce => InFlight::RECEIVE,
            _ => InFlight::LISTEN,
        };
        if !completion.more {
            client.in_flight.end(kind);
        }
        if client.deaf && kind == InFlight::LISTEN {
            return self.leave_unread(ring, completion);
        }
        let outcome = match completion.buffer {
            Some(buffer) => self.read(ring, index, buffer),
            None => Ok(()),
        };
        if self.clients[index as usize].state == State::Closing {
            self.incoming.clear();
            return self.close_when_idle(index);
        }
        self.act_on_incoming(index, now);
        if outcome.is_err() && self.clients[index as usize].state != State::Closing {
            self.break_off(index);
        }
        if !completion.more && self.clients[index as usize].state != State::Closing {
            self.go_on_reading(index, kind, completion.result, now);
        }
    }

    /// A client that does not read: what came before the kernel knew of that is thrown away.
    fn leave_unread(&mut self, ring: usize, completion: Completion) {
        let index = completion.tag.index;
        if let Some(buffer) = completion.buffer {
            self.group.release(ring, buffer);
        }
        let client = &self.clients[index as usize];
        match client.state {
            // It had waited for a buffer when it was to end.
            _ if completion.more => self.group.cancel(index, client.generation, Op::Receive),
            State::Closing => self.close_when_idle(index),
            _ => self.listen(index),
        }
    }

    /// What follows the end of a receive: another one if there may be more, for which the poll does
    /// not fire again; nothing; or the end of the connection.
    fn go_on_reading(&mut self, index: u32, kind: InFlight, result: i32, now: Timestamp) {
        let client = &mut self.clients[index as usize];
        let again = std::mem::take(&mut client.read_again);
        match usize::try_from(result) {
            Ok(0) => self.closed_by_server(index, "fin", now),
            Ok(_) if kind == InFlight::LISTEN => {
                *self.stats.rearmed.entry("ended with bytes").or_default() += 1;
                self.listen(index);
            }
            Ok(count) => {
                let filled = count == limits::RECEIVE_BUFFER_BYTES as usize;
                if again || filled || client.hanging_up {
                    self.take_what_is_there(index, now);
                }
            }
            Err(_) => match Errno::from_raw_os_error(-result) {
                Errno::NOBUFS => {
                    *self.stats.rearmed.entry("no buffers").or_default() += 1;
                    client.in_flight.begin(kind);
                    self.group.receive_later(index, client.generation);
                }
                Errno::AGAIN if again => self.take_what_is_there(index, now),
                Errno::AGAIN => {}
                errno => self.closed_by_server(index, reason(errno), now),
            },
        }
    }

    /// Reads the messages in `buffer` into `incoming`, and gives the buffer back.
    fn read(&mut self, ring: usize, index: u32, buffer: Buffer) -> Result<(), Illegal> {
        let opening = self.clients[index as usize].state == State::Greeting;
        let reading = Reading { client: self.planned(index), opening };
        let (wire, buffers) = (self.task.wire, &mut self.buffers);
        let bytes = self.group.bytes(index, &buffer);
        self.stats.bytes_received += bytes.len() as u64;
        let begun = match self.partials.is_empty() {
            true => None,
            false => self.partials.remove(&index),
        };
        let outcome = match begun {
            None => {
                let taken = wire.read(reading, bytes, buffers, &mut self.incoming);
                taken.map(|taken| (!bytes[taken..].is_empty()).then(|| bytes[taken..].to_vec()))
            }
            Some(mut begun) => {
                begun.extend_from_slice(bytes);
                let taken = wire.read(reading, &begun, buffers, &mut self.incoming);
                taken.map(|taken| (!begun[taken..].is_empty()).then(|| begun.split_off(taken)))
            }
        };
        self.group.release(ring, buffer);
        match outcome? {
            Some(rest) if rest.len() > limits::PARTIAL_BYTES_MAX => return Err(Illegal),
            Some(rest) => drop(self.partials.insert(index, rest)),
            None => {}
        }
        Ok(())
    }
}

/// Whether a poll says that the peer has closed its side, or that the connection has failed.
fn tells_of_the_end(events: i32) -> bool {
    let end = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    events & i32::from(end.bits()) != 0
}
