//! What clients do: the well-behaved, the dead, and those that mean harm.

use std::time::Duration;

use super::peer::{Outcome, Peer, Reading, Unit};
use super::world::{Event, World};
use crate::limits::PENDING_PONGS_MAX;
use crate::protocol::Protocol;
use crate::session::CloseReason;

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Heartbeats over TCP, well within the timeout.
    Heartbeat,
    /// The same over WebSocket.
    WebSocket,
    /// Heartbeats of which each byte comes by itself.
    Dribble,
    /// Sixteen heartbeats at once: as many as are allowed.
    Burst,
    /// Messages, which it reads back slowly.
    Chatter,
    /// Never a byte.
    Mute,
    /// One heartbeat, and then silence.
    Silent,
    /// The same over WebSocket.
    SilentWebSocket,
    /// Half a frame, and then silence.
    HalfFrame,
    /// A heartbeat, then a frame that is illegal in one of several ways.
    Illegal,
    /// The same over WebSocket.
    IllegalWebSocket,
    /// More heartbeats at once than may be.
    Flood,
    /// Messages without end, and it never reads.
    Deaf,
    /// Heartbeats, then it closes its sending side.
    HalfClose,
    /// Heartbeats, then it resets.
    Reset,
    /// Connects and closes.
    ConnectClose,
}

impl Behaviour {
    const ALL: [Behaviour; 16] = [
        Behaviour::Heartbeat,
        Behaviour::WebSocket,
        Behaviour::Dribble,
        Behaviour::Burst,
        Behaviour::Chatter,
        Behaviour::Mute,
        Behaviour::Silent,
        Behaviour::SilentWebSocket,
        Behaviour::HalfFrame,
        Behaviour::Illegal,
        Behaviour::IllegalWebSocket,
        Behaviour::Flood,
        Behaviour::Deaf,
        Behaviour::HalfClose,
        Behaviour::Reset,
        Behaviour::ConnectClose,
    ];

    pub(super) fn protocol(self) -> Protocol {
        match self {
            Behaviour::WebSocket | Behaviour::SilentWebSocket | Behaviour::IllegalWebSocket => {
                Protocol::WebSocket
            }
            _ => Protocol::Tcp,
        }
    }

    /// Whether it never pauses between its heartbeats.
    pub(super) fn keeps_beating(self) -> bool {
        matches!(self, Behaviour::Heartbeat | Behaviour::WebSocket | Behaviour::Dribble)
    }

    /// Whether a server that answers in time has no reason to close it.
    pub(super) fn is_healthy(self) -> bool {
        self.keeps_beating() || self == Behaviour::Burst
    }
}

const PING: [u8; 3] = [0, 1, 3];
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// Illegal frames: the bytes, after how many of them it shows, and what it is called.
const ILLEGAL: &[(&[u8], u64, CloseReason)] = &[
    (&[0, 0, 3], 2, CloseReason::IllegalLengthZero),
    (&[0, 1, 0], 3, CloseReason::IllegalKindZero),
    (&[0, 9, 99, 1, 2], 3, CloseReason::IllegalKindUnknown),
    (&[0xff, 0xff, 7, 1, 2, 3], 2, CloseReason::IllegalOversize),
    (&[0, 127, 3, 1, 2, 3], 3, CloseReason::IllegalPayloadLength),
    (&[0, 7, 8, 0, 0, 0, 0, 0, 0], 9, CloseReason::IllegalUnexpected),
    (b"GET / HTTP/1.1\r\n\r\n", 2, CloseReason::IllegalOversize),
];

const ILLEGAL_WEB_SOCKET: &[(&[u8], u64, CloseReason, u16)] = &[
    (&[0xf1, 0x80, 0, 0, 0, 0], 1, CloseReason::WsReservedBits, 1002),
    (&[0x83, 0x80, 0, 0, 0, 0], 1, CloseReason::WsUnknownOpcode, 1002),
    (&[0x81, 0x01, b'x'], 2, CloseReason::WsUnmasked, 1002),
    (&[0x09, 0x80, 0, 0, 0, 0], 1, CloseReason::WsControlFragmented, 1002),
    (&[0x89, 0xfe, 0, 126, 0, 0], 2, CloseReason::WsControlTooLong, 1002),
    (&[0x80, 0x80, 0, 0, 0, 0], 1, CloseReason::WsContinuationWithoutStart, 1002),
    (&[0x82, 0xfe, 0, 1, 0, 0], 4, CloseReason::WsLengthEncoding, 1002),
    (&[0x82, 0xfe, 0xff, 0xff, 0, 0], 4, CloseReason::WsTooBig, 1009),
    (&[0x81, 0x82, 0, 0, 0, 0, b'a', 0xff], 8, CloseReason::WsBadUtf8, 1007),
    (&[0x88, 0x81, 0, 0, 0, 0, 3], 7, CloseReason::WsCloseLength, 1002),
];

impl World {
    /// A client appears and connects.
    pub(super) fn spawn(&mut self, behaviour: Behaviour) {
        let latency_us = match self.random.below(4) {
            0 => self.random.within(1, 50_000),
            _ => self.random.within(1, 500),
        };
        let reading = match behaviour {
            Behaviour::Deaf => Reading::Never,
            Behaviour::Chatter => Reading::Slow,
            _ => Reading::Fast,
        };
        let room = self.random.within(200, 3_000) as usize;
        let id = self.peers.len();
        self.peers.push(Peer::new(behaviour, latency_us, reading, room));
        self.live.push(id);
        let delay = Duration::from_micros(self.random.within(1, 20_000));
        self.after(delay, Event::Connect(id));
        // Who speaks at once does not wait for anybody to accept.
        let first = self.random.pick(&[0, 100, 100_000]) + latency_us;
        self.after(delay + Duration::from_micros(first), Event::Act(id));
    }

    pub(super) fn spawn_any(&mut self) {
        let healthy = self.random.chance(self.rates.healthy);
        let behaviour = loop {
            let behaviour = self.random.pick(&Behaviour::ALL);
            if behaviour.is_healthy() == healthy {
                break behaviour;
            }
        };
        self.spawn(behaviour);
    }

    /// A client writes bytes, which arrive in one piece or several.
    fn write(&mut self, id: usize, bytes: &[u8], outcome: Outcome) {
        let begin = self.peers[id].written;
        let end = begin + bytes.len() as u64;
        self.peers[id].written = end;
        self.peers[id].units.push_back(Unit { begin, end, outcome });
        let mut rest = bytes;
        while !rest.is_empty() {
            let all = self.random.chance(700);
            let count = if all { rest.len() } else { self.random.below(rest.len()) + 1 };
            if !all {
                self.fault("segment cut");
            }
            let (part, behind) = rest.split_at(count);
            let at = self.arrival(id);
            self.schedule(at, Event::Bytes(id, part.to_vec()));
            rest = behind;
        }
    }

    /// When what a client sends now arrives: never before what it has sent before.
    pub(super) fn arrival(&mut self, id: usize) -> crate::time::Timestamp {
        let jitter = self.random.within(0, 200);
        let delay = Duration::from_micros(self.peers[id].latency_us + jitter);
        let mut at = self.now() + delay;
        if self.partition_until > self.now() && self.is_cut_off(id) {
            self.peers[id].cut_off = true;
            at = self.partition_until + delay;
        }
        let at = at.max(self.peers[id].arrives_at);
        self.peers[id].arrives_at = at;
        at
    }

    pub(super) fn is_cut_off(&self, id: usize) -> bool {
        id.is_multiple_of(2)
    }

    fn finish(&mut self, id: usize, event: Event) {
        let at = self.arrival(id);
        self.schedule(at, event);
        self.peers[id].dead = true;
    }

    /// Whatever this client does next.
    pub(super) fn act(&mut self, id: usize) {
        let client = &mut self.peers[id];
        if client.dead || client.closed {
            return;
        }
        let (behaviour, step) = (client.behaviour, client.steps);
        client.steps += 1;
        let next = self.act_out(id, behaviour, step);
        if let Some(delay) = next {
            self.after(delay, Event::Act(id));
        }
    }

    /// A heartbeat interval, give or take: three fit into the timeout with room to spare.
    fn interval(&mut self) -> Option<Duration> {
        let millis = self.rules.idle_timeout.as_millis() as u64 / 4;
        Some(Duration::from_millis(self.random.within(millis / 2, millis)))
    }

    fn act_out(&mut self, id: usize, behaviour: Behaviour, step: u32) -> Option<Duration> {
        match behaviour {
            Behaviour::Heartbeat => {
                if step == 0 && self.random.chance(500) {
                    self.write(id, &[0, 7, 1, 1, 0, 0, 0, 0, 9], Outcome::Hello);
                }
                for _ in 0..self.random.within(1, 3) {
                    self.ping(id);
                }
                if self.random.chance(self.rates.reconnect) && self.chaos {
                    self.finish(id, Event::Fin(id));
                    return None;
                }
                self.interval()
            }
            Behaviour::WebSocket | Behaviour::SilentWebSocket | Behaviour::IllegalWebSocket => {
                self.act_web_socket(id, behaviour, step)
            }
            Behaviour::Dribble => self.dribble(id, step),
            Behaviour::Burst => {
                if self.peers[id].unanswered.is_empty() && self.peers[id].units.is_empty() {
                    self.pings_at_once(id, usize::from(PENDING_PONGS_MAX));
                }
                self.interval()
            }
            Behaviour::Chatter | Behaviour::Deaf => self.chatter(id, behaviour),
            Behaviour::Mute => None,
            Behaviour::Silent => {
                self.ping(id);
                None
            }
            Behaviour::HalfFrame => {
                let ping_first = self.random.chance(500);
                if ping_first {
                    self.ping(id);
                }
                let frame = [0, 9, 7, 1, 2, 3];
                let count = self.random.below(frame.len()) + 1;
                self.write_unfinished(id, &frame[..count]);
                None
            }
            Behaviour::Illegal => {
                if step < 2 {
                    self.ping(id);
                    return self.interval();
                }
                let (bytes, shows_at, reason) = self.random.pick(ILLEGAL);
                self.write(id, bytes, Outcome::Fatal { bytes: shows_at, reason, code: None });
                self.interval()
            }
            Behaviour::Flood => {
                let count = self.random.within(17, 24) as usize;
                self.pings_at_once(id, count);
                self.interval()
            }
            Behaviour::HalfClose | Behaviour::Reset if step < 3 => {
                self.ping(id);
                self.interval()
            }
            Behaviour::HalfClose => {
                self.ping(id);
                self.finish(id, Event::Fin(id));
                None
            }
            Behaviour::Reset => {
                self.finish(id, Event::Reset(id));
                None
            }
            Behaviour::ConnectClose => {
                let resets = self.random.chance(500);
                self.finish(id, if resets { Event::Reset(id) } else { Event::Fin(id) });
                None
            }
        }
    }

    /// Bytes that begin something whose end never comes.
    fn write_unfinished(&mut self, id: usize, bytes: &[u8]) {
        self.write(id, bytes, Outcome::Nothing);
        if let Some(unit) = self.peers[id].units.back_mut() {
            unit.end += 1_000;
        }
    }

    /// A heartbeat over TCP, with a payload or without.
    fn ping(&mut self, id: usize) {
        let length = if self.random.chance(700) { 0 } else { self.random.below(20) };
        let payload: Vec<u8> = (0..length).map(|_| self.random.bits() as u8).collect();
        let frame = |kind| {
            let mut frame = vec![0, length as u8 + 1, kind];
            frame.extend(&payload);
            frame
        };
        self.write(id, &frame(3), Outcome::Heartbeat(frame(4)));
    }

    /// Heartbeats that arrive in one piece.
    fn pings_at_once(&mut self, id: usize, count: usize) {
        let bytes = PING.repeat(count);
        for _ in 0..count {
            let begin = self.peers[id].written;
            let end = begin + PING.len() as u64;
            self.peers[id].written = end;
            let outcome = Outcome::Heartbeat(vec![0, 1, 4]);
            self.peers[id].units.push_back(Unit { begin, end, outcome });
        }
        let at = self.arrival(id);
        self.schedule(at, Event::Bytes(id, bytes));
    }

    /// One byte of a heartbeat; after the last, the usual interval.
    fn dribble(&mut self, id: usize, step: u32) -> Option<Duration> {
        let at = step as usize % PING.len();
        let client = &mut self.peers[id];
        let begin = client.written;
        client.written += 1;
        if at == 0 {
            let outcome = Outcome::Heartbeat(vec![0, 1, 4]);
            client.units.push_back(Unit { begin, end: begin + PING.len() as u64, outcome });
        }
        let arrival = self.arrival(id);
        self.schedule(arrival, Event::Bytes(id, vec![PING[at]]));
        if at + 1 == PING.len() {
            return self.interval();
        }
        let micros = self.rules.frame_timeout.as_micros() as u64 / 20;
        Some(Duration::from_micros(self.random.within(1, micros)))
    }

    /// A message over TCP.
    fn chatter(&mut self, id: usize, behaviour: Behaviour) -> Option<Duration> {
        let length = self.random.within(0, self.rules.frame_bytes_max as u64 - 1) as usize;
        let length = if behaviour == Behaviour::Chatter { length.min(100) } else { length };
        let mut frame = ((length as u16 + 1).to_be_bytes()).to_vec();
        frame.push(7);
        frame.extend((0..length).map(|_| self.random.bits() as u8));
        self.write(id, &frame, Outcome::Data(frame.clone()));
        if behaviour == Behaviour::Chatter {
            return self.interval();
        }
        Some(self.interval()? / 8)
    }

    fn act_web_socket(&mut self, id: usize, behaviour: Behaviour, step: u32) -> Option<Duration> {
        if step == 0 {
            self.write(id, REQUEST, Outcome::Upgrade);
        }
        if behaviour == Behaviour::IllegalWebSocket && step > 1 {
            let (bytes, shows_at, reason, code) = self.random.pick(ILLEGAL_WEB_SOCKET);
            let outcome = Outcome::Fatal { bytes: shows_at, reason, code: Some(code) };
            self.write(id, bytes, outcome);
            return None;
        }
        let masked = |opcode: u8, payload: &[u8], key: [u8; 4]| {
            let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8];
            frame.extend(key);
            frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
            frame
        };
        let key = (self.random.bits() as u32).to_be_bytes();
        match self.random.below(3) {
            0 => {
                let reply = [0x81, 4, b'p', b'o', b'n', b'g'].to_vec();
                self.write(id, &masked(1, b"ping", key), Outcome::Heartbeat(reply));
            }
            1 => {
                let payload: Vec<u8> = (0..self.random.below(30)).map(|at| at as u8).collect();
                let mut reply = vec![0x8a, payload.len() as u8];
                reply.extend(&payload);
                self.write(id, &masked(9, &payload, key), Outcome::Heartbeat(reply));
            }
            _ => self.write(id, &masked(10, b"still here", key), Outcome::Nothing),
        }
        if behaviour == Behaviour::SilentWebSocket {
            return None;
        }
        self.interval()
    }

    /// Room comes free as the client reads.
    pub(super) fn drain(&mut self, id: usize) {
        let client = &mut self.peers[id];
        let count = match client.reading {
            Reading::Fast => client.in_pipe,
            Reading::Slow => client.in_pipe.min(40),
            Reading::Never => 0,
        };
        client.in_pipe -= count;
        client.room += count;
        if client.in_pipe > 0 && client.reading == Reading::Slow {
            self.after(Duration::from_millis(20), Event::Drain(id));
        }
        if count > 0 {
            self.send_may_go_on(id);
        }
    }

    /// The client has learnt that it was closed: it may come back.
    pub(super) fn gone(&mut self, id: usize) {
        self.peers[id].dead = true;
        self.live.retain(|&other| other != id);
        if self.chaos && !self.stopping && self.random.chance(self.rates.come_back) {
            let behaviour = self.peers[id].behaviour;
            self.fault("reconnect");
            self.spawn(behaviour);
        }
    }

    /// Something befalls many clients at once; and there are always some.
    pub(super) fn fate(&mut self) {
        if !self.chaos {
            return;
        }
        while self.live.len() < self.sizes.clients / 2 {
            self.spawn_any();
        }
        match self.random.below(8) {
            0 => {
                self.fault("mass death");
                for id in self.live.clone() {
                    if self.random.chance(400) {
                        self.peers[id].dead = true;
                    }
                }
            }
            1 => {
                self.fault("mass connect");
                while self.live.len() < self.sizes.clients {
                    self.spawn_any();
                }
            }
            2 => {
                self.fault("partition");
                let most = self.rules.idle_timeout.as_millis() as u64 * 3 / 2;
                let millis = self.random.within(1, most);
                let heals_at = self.now() + Duration::from_millis(millis);
                self.partition_until = self.partition_until.max(heals_at);
            }
            3 => {
                // Somebody, or somebody who has long gone.
                let id = self.random.below(self.peers.len());
                if let Some(key) = self.peers[id].key {
                    self.fault("kick");
                    self.peers[id].kicked = true;
                    self.kicks.push(key);
                }
            }
            _ => self.spawn_any(),
        }
        let millis = self.random.within(10, 2_000);
        self.after(Duration::from_millis(millis), Event::Fate);
    }
}
