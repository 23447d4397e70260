//! What ought to happen to one connection, told naively from what the simulated kernel saw: which
//! bytes arrived when, when the engine took them, what it wrote, and when it gave up.

use std::collections::VecDeque;

use crate::limits::PENDING_PONGS_MAX;
use crate::outgoing::SMALL_BUFFER_BYTES;
use crate::protocol::frame::HEADER_BYTES;
use crate::shard::{CloseReason, Policy};
use crate::time::Timestamp;

/// The account of one connection.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// When the engine heard of it.
    pub(super) opened_at: Option<Timestamp>,
    /// When it decided to close.
    pub(super) given_up: bool,
    /// When the engine heard that the peer sends no more.
    pub(super) ended_at: Option<Timestamp>,
    pub(super) failed: bool,
    /// The last send has ended with all its bytes.
    pub(super) sent_whole: bool,
    /// Arrived and not taken: when, and how many bytes.
    unread: VecDeque<(Timestamp, usize)>,
    last_read: Timestamp,
    front: Vec<u8>,
    front_due: Timestamp,
    frames: u64,
    pub(super) pings: u64,
    /// Of these, the ones that were surely read before the engine had given it up.
    pub(super) pings_sure: u64,
    doubtful: bool,
    illegal: Option<CloseReason>,
    /// Bytes that the server owes the client.
    expected: VecDeque<u8>,
    promised: u64,
    /// Bytes of the whole frames that were written, a GOAWAY not counted.
    written: u64,
    /// The front of a frame that is not written whole.
    writing: Vec<u8>,
    told_to_go: bool,
    /// The server stops: from some moment on it hears the client no more.
    pub(super) parting: bool,
    /// Where in the stream each unanswered reply ends.
    pongs: VecDeque<u64>,
    /// Where each frame ends that is not written yet.
    owed: VecDeque<u64>,
}

impl Account {
    pub(super) fn arrived(&mut self, bytes: usize, now: Timestamp) {
        self.unread.push_back((now, bytes));
    }

    /// The peer has reset the connection: what was not taken is lost.
    pub(super) fn reset(&mut self) {
        self.unread.clear();
    }

    /// The engine has taken bytes.
    pub(super) fn read(&mut self, bytes: &[u8], policy: &Policy, now: Timestamp) {
        let mut left = bytes.len();
        while let Some((_, first)) = self.unread.front_mut().filter(|_| left > 0) {
            let taken = left.min(*first);
            *first -= taken;
            left -= taken;
            if *first == 0 {
                self.unread.pop_front();
            }
        }
        if self.given_up || self.illegal.is_some() || bytes.is_empty() {
            return;
        }
        self.last_read = now;
        let had_front = !self.front.is_empty();
        self.front.extend_from_slice(bytes);
        let mut whole = 0;
        while self.illegal.is_none() && self.take_frame(policy) {
            whole += 1;
        }
        if !self.front.is_empty() && (!had_front || whole > 0) {
            self.front_due = now + policy.frame_timeout;
        }
    }

    /// Takes a frame off the front, if one is whole.
    fn take_frame(&mut self, policy: &Policy) -> bool {
        let [high, low, rest @ ..] = &self.front[..] else { return false };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length == 0 {
            self.illegal = Some(CloseReason::IllegalLengthZero);
        } else if length > policy.frame_bytes_max {
            self.illegal = Some(CloseReason::IllegalOversize);
        }
        let Some(&kind) = rest.first().filter(|_| self.illegal.is_none()) else { return false };
        match kind {
            0 => self.illegal = Some(CloseReason::IllegalKindZero),
            3 | 7 => {}
            _ => self.illegal = Some(CloseReason::IllegalKindUnknown),
        }
        if self.illegal.is_some() || self.front.len() < 2 + length {
            return false;
        }
        let mut frame: Vec<u8> = self.front.drain(..2 + length).collect();
        self.frames += 1;
        self.doubtful |=
            self.parting || self.failed || self.ended_at.is_some() || self.may_be_full(policy);
        if kind == 3 {
            self.pings += 1;
            self.pings_sure += u64::from(!self.doubtful);
            frame[2] = 4;
        } else if !policy.echo {
            return true;
        }
        self.promised += frame.len() as u64;
        self.expected.extend(frame);
        self.owed.push_back(self.promised);
        if kind == 3 {
            self.pongs.push_back(self.promised);
            if self.pongs.len() > usize::from(PENDING_PONGS_MAX) {
                self.illegal = Some(CloseReason::PingFlood);
            }
        }
        true
    }

    /// The server wrote bytes; whether they are those it owes, or the GOAWAY of one that stops.
    pub(super) fn wrote(&mut self, bytes: &[u8]) -> bool {
        self.writing.extend_from_slice(bytes);
        let mut right = true;
        while let [high, low, kind, ..] = self.writing[..] {
            let frame_bytes = 2 + usize::from(u16::from_be_bytes([high, low]));
            if self.writing.len() < frame_bytes {
                break;
            }
            let frame: Vec<u8> = self.writing.drain(..frame_bytes).collect();
            if kind == 8 && self.parting && !self.told_to_go {
                self.told_to_go = true;
                continue;
            }
            self.written += frame.len() as u64;
            right &= frame.iter().all(|byte| self.expected.pop_front() == Some(*byte));
        }
        while self.owed.front().is_some_and(|end| *end <= self.written) {
            self.owed.pop_front();
        }
        right
    }

    /// The engine has heard that a send has ended.
    pub(super) fn heard_sent(&mut self, result: i32) {
        self.failed |= result < 0;
        if !std::mem::take(&mut self.sent_whole) {
            return;
        }
        while self.pongs.front().is_some_and(|end| *end <= self.written) {
            self.pongs.pop_front();
        }
    }

    /// When silence ends it, and for which reasons.
    fn dues(&self, policy: &Policy) -> Vec<(Timestamp, CloseReason)> {
        let Some(opened_at) = self.opened_at.filter(|_| self.ended_at.is_none()) else {
            return Vec::new();
        };
        let mut dues = vec![match self.frames {
            0 => {
                let timeout = policy.hello_timeout.min(policy.idle_timeout);
                (opened_at + timeout, CloseReason::HelloTimeout)
            }
            _ => (self.last_read + policy.idle_timeout, CloseReason::Expired),
        }];
        if !self.front.is_empty() {
            dues.push((self.front_due, CloseReason::FrameTimeout));
        }
        dues
    }

    /// Whether what is owed may be more than the queue holds, which counts memory.
    fn may_be_full(&self, policy: &Policy) -> bool {
        let memory = self.owed.len() * (SMALL_BUFFER_BYTES + HEADER_BYTES);
        self.expected.len() + memory > policy.send_queue_bytes
    }

    /// The engine gives it up now: the reasons for which it may.
    pub(super) fn may_close(
        &self,
        policy: &Policy,
        sending_since: Option<Timestamp>,
        stopping: bool,
        now: Timestamp,
    ) -> Vec<CloseReason> {
        if let Some(reason) = self.illegal {
            // A full queue may have come first.
            return match self.may_be_full(policy) {
                true => vec![reason, CloseReason::SendQueueFull],
                false => vec![reason],
            };
        }
        let mut reasons = Vec::new();
        if self.failed {
            reasons.push(CloseReason::PeerReset);
        }
        if self.ended_at.is_some() {
            reasons.push(CloseReason::PeerClosed);
        }
        if stopping {
            reasons.push(CloseReason::ServerStopping);
        }
        if self.may_be_full(policy) {
            reasons.push(CloseReason::SendQueueFull);
        }
        if sending_since.is_some_and(|since| now >= since + policy.stall_timeout) {
            reasons.push(CloseReason::StallTimeout);
        }
        let unread = self.unread.front().map_or(now, |(arrived_at, _)| *arrived_at);
        let dues = self.dues(policy).into_iter();
        reasons.extend(dues.filter(|(due, _)| *due <= now.min(unread)).map(|(_, reason)| reason));
        reasons
    }

    /// The loop goes to sleep, and its last turn began at `turn`: what it has left undone.
    pub(super) fn left_undone(
        &self,
        policy: &Policy,
        sending: bool,
        announced: bool,
        turn: Timestamp,
    ) -> Option<&'static str> {
        if self.opened_at.is_none_or(|at| at > turn) || self.given_up || self.parting {
            return None;
        }
        let is_unread = self.unread.front().is_some_and(|(arrived_at, _)| *arrived_at < turn);
        let tick = policy.tick;
        let overdue = |due: Timestamp| tick.deadline(due) <= tick.current(turn);
        if self.illegal.is_some() {
            Some("illegal and not closed")
        } else if self.failed {
            Some("failed and not closed")
        } else if is_unread && !announced {
            Some("bytes lie unread")
        } else if !sending && !self.expected.is_empty() {
            Some("an answer is owed and none is being sent")
        } else if self.ended_at.is_some_and(|at| at <= turn) && !sending {
            Some("ended and not closed")
        } else if self.dues(policy).iter().any(|(due, _)| overdue(*due)) {
            Some("given up too late")
        } else {
            None
        }
    }
}
