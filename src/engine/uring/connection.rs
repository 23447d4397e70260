//! What the ring engine knows of a connection, and the order in which one is closed.
//!
//! Closing a slot while its receive is armed sends no FIN and lets the old connection's bytes
//! arrive under the new one's name. So: cancel what is armed -> wait for its last completion and
//! for the send in flight -> close -> release. [`Connection::next_step`] is that order.

/// The handle that the shard keeps for us in the session: 8 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// The slot in its ring's table.
    pub slot: u32,
    /// Which ring of the group.
    pub ring: u16,
    /// A multishot receive or poll is armed.
    pub armed: bool,
    state: u8,
}

const SENDING: u8 = 1;
const CLOSING: u8 = 2;
const CLOSE_QUEUED: u8 = 4;
const READING: u8 = 8;
const READ_AGAIN: u8 = 16;
const ENDED: u8 = 32;
const HANGING_UP: u8 = 64;

/// What a connection that is being closed needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait for a completion.
    Wait,
    /// Queue the close.
    Close,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(ring: u16, slot: u32) -> Connection {
        Connection { slot, ring, armed: false, state: 0 }
    }

    /// A send is in flight.
    pub fn sending(&self) -> bool {
        self.state & SENDING != 0
    }

    /// Notes that a send has begun or ended.
    pub fn set_sending(&mut self, sending: bool) {
        self.state = if sending { self.state | SENDING } else { self.state & !SENDING };
    }

    /// Bytes may be there: whether to queue a single receive now. While one is in flight the next
    /// is put off until that has completed.
    pub fn begin_reading(&mut self) -> bool {
        if self.state & (CLOSING | ENDED) != 0 {
            return false;
        }
        let begin = self.state & READING == 0;
        self.state |= if begin { READING } else { READ_AGAIN };
        begin
    }

    /// A single receive is in flight.
    pub fn reading(&self) -> bool {
        self.state & READING != 0
    }

    /// The single receive has completed. Whether another one was put off meanwhile.
    pub fn end_reading(&mut self) -> bool {
        let again = self.state & READ_AGAIN != 0;
        self.state &= !(READING | READ_AGAIN);
        again
    }

    /// The poll has told of the end: it is behind the bytes that are there, and is not told again.
    pub fn set_hanging_up(&mut self) {
        self.state |= HANGING_UP;
    }

    /// Whether the end is still to be read.
    pub fn hanging_up(&self) -> bool {
        self.state & HANGING_UP != 0
    }

    /// The peer sends no more: nothing is to be read again.
    pub fn set_ended(&mut self) {
        self.state |= ENDED;
    }

    /// The shard has given this connection up.
    pub fn closing(&self) -> bool {
        self.state & CLOSING != 0
    }

    /// Notes that the shard has given it up.
    pub fn set_closing(&mut self) {
        self.state |= CLOSING;
    }

    /// What to do next about closing it; says [`Step::Close`] once.
    pub fn next_step(&mut self) -> Step {
        let busy = self.armed || self.state & (SENDING | READING | CLOSE_QUEUED) != 0;
        if !self.closing() || busy {
            return Step::Wait;
        }
        self.state |= CLOSE_QUEUED;
        Step::Close
    }
}

const _: () = assert!(size_of::<Connection>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_receive_is_in_flight_and_the_next_is_put_off() {
        let mut connection = Connection::new(0, 3);
        assert!(connection.begin_reading());
        assert!(!connection.begin_reading(), "one is in flight");
        assert!(connection.end_reading(), "the other was put off");
        assert!(connection.begin_reading());
        connection.set_closing();
        assert_eq!(connection.next_step(), Step::Wait, "a receive is in flight");
        assert!(!connection.end_reading());
        assert!(!connection.begin_reading(), "it is being closed");
        assert_eq!(connection.next_step(), Step::Close);
    }

    #[test]
    fn it_is_closed_once_and_only_when_nothing_is_in_flight() {
        let mut connection = Connection::new(0, 3);
        connection.armed = true;
        connection.set_sending(true);
        assert_eq!(connection.next_step(), Step::Wait, "nobody asked for it");
        connection.set_closing();
        assert_eq!(connection.next_step(), Step::Wait, "a receive is armed");
        connection.armed = false;
        assert_eq!(connection.next_step(), Step::Wait, "a send is in flight");
        connection.set_sending(false);
        assert_eq!(connection.next_step(), Step::Close);
        assert_eq!(connection.next_step(), Step::Wait, "the close is queued already");
    }
}
