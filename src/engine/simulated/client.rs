//! What clients do over TCP: the well-behaved, the dead, and those that mean harm.

use std::time::Duration;

use super::behaviour::Behaviour;
use super::peer::{Outcome, Peer, Question, Reading, Reply, Unit};
use super::world::{Event, World};
use crate::limits::PENDING_PONGS_MAX;
use crate::protocol::Protocol;
use crate::session::CloseReason;

const PING: [u8; 3] = [0, 1, 3];
/// So much may be on its way to the server, or wait in the socket; then TCP lets nobody send more.
const WINDOW_BYTES: usize = 16_000;
const PONG: &[u8] = &[0, 1, 4];

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

impl World {
    /// A client appears and connects.
    pub(super) fn spawn(&mut self, behaviour: Behaviour) {
        // Who only answers lives on being asked.
        let asks = self.rules.server_ping || behaviour != Behaviour::Answerer;
        let behaviour = if asks { behaviour } else { Behaviour::Heartbeat };
        let latency_us = match self.random.below(4) {
            0 => self.random.within(1, 50_000),
            _ => self.random.within(1, 500),
        };
        let reading = match behaviour {
            Behaviour::Deaf | Behaviour::Unreading => Reading::Never,
            Behaviour::Chatter => Reading::Slow,
            _ => Reading::Fast,
        };
        let room = self.random.within(200, 3_000) as usize;
        let id = self.peers.len();
        let mut peer = Peer::new(behaviour, latency_us, reading, room, &self.rules);
        peer.home = self.any_home();
        peer.acknowledges = peer.protocol() == Protocol::Tcp && self.random.chance(900);
        self.peers.push(peer);
        self.live.push(id);
        let delay = Duration::from_micros(self.random.within(1, 20_000));
        self.after(delay, Event::Connect(id));
        // Who speaks at once does not wait for anybody to accept.
        let first = self.random.pick(&[0, 100, 100_000]) + latency_us;
        self.after(delay + Duration::from_micros(first), Event::Act(id));
    }

    pub(super) fn spawn_any(&mut self) {
        if self.sizes.is_crowd && self.random.chance(20) {
            self.spawn(Behaviour::PongFlood);
            return;
        }
        let healthy = self.random.chance(self.rates.healthy);
        if healthy && self.random.chance(self.rates.bursts) {
            self.spawn(Behaviour::Burst);
            return;
        }
        let behaviour = loop {
            let behaviour = self.random.pick(&Behaviour::ALL);
            if behaviour.is_healthy() == healthy {
                break behaviour;
            }
        };
        self.spawn(behaviour);
    }

    /// A client writes bytes, which arrive in one piece or several.
    pub(super) fn write(&mut self, id: usize, bytes: &[u8], outcome: Outcome) {
        let client = &mut self.peers[id];
        let begin = client.written;
        let end = begin + bytes.len() as u64;
        client.written = end;
        client.units.push_back(Unit { begin, end, outcome });
        self.post_bytes(id, bytes, true);
    }

    /// Bytes on the wire, cut or whole.
    fn post_bytes(&mut self, id: usize, bytes: &[u8], may_cut: bool) {
        self.peers[id].wire.extend(bytes);
        let mut rest = bytes.len();
        while rest > 0 {
            let all = !may_cut || self.random.chance(700);
            let count = if all { rest } else { self.random.below(rest) + 1 };
            if !all {
                self.fault("segment cut");
            }
            let at = self.arrival(id);
            self.schedule(at, Event::Bytes(id, count));
            rest -= count;
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
    pub(super) fn interval(&mut self, id: usize) -> Option<Duration> {
        let micros = self.peers[id].idle_timeout.as_micros() as u64 / 4;
        Some(Duration::from_micros(self.random.within(micros / 2, micros)))
    }

    fn act_out(&mut self, id: usize, behaviour: Behaviour, step: u32) -> Option<Duration> {
        match behaviour {
            Behaviour::Heartbeat | Behaviour::Unreading => self.beat(id, step),
            Behaviour::Answerer => {
                self.say_hello(id);
                self.ping(id);
                None
            }
            Behaviour::WebSocket
            | Behaviour::Fragments
            | Behaviour::SilentWebSocket
            | Behaviour::HalfMessage
            | Behaviour::IllegalWebSocket => self.act_web_socket(id, behaviour, step),
            Behaviour::Dribble => self.dribble(id, step),
            Behaviour::Burst => {
                if self.peers[id].unanswered.is_empty() && self.peers[id].units.is_empty() {
                    self.pings_at_once(id, usize::from(PENDING_PONGS_MAX));
                }
                match self.rates.bursts {
                    0 => self.interval(id),
                    _ => Some(Duration::from_millis(self.random.within(20, 60))),
                }
            }
            Behaviour::PongFlood => {
                self.exercise("flood of PONGs");
                let count = self.random.within(1, 200) as usize;
                self.many_at_once(id, count, PONG, || Outcome::Pong);
                Some(self.interval(id)? / 8)
            }
            Behaviour::Chatter | Behaviour::Deaf => self.chatter(id, behaviour),
            Behaviour::Mute => None,
            Behaviour::Silent => {
                self.say_hello(id);
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
                    return self.interval(id);
                }
                let (bytes, shows_at, reason) = self.random.pick(ILLEGAL);
                self.write(id, bytes, Outcome::Fatal { bytes: shows_at, reason, code: None });
                self.interval(id)
            }
            Behaviour::Flood => {
                let count = self.random.within(17, 24) as usize;
                self.pings_at_once(id, count);
                self.interval(id)
            }
            Behaviour::HalfClose | Behaviour::Reset if step < 3 => {
                self.ping(id);
                self.interval(id)
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

    fn beat(&mut self, id: usize, step: u32) -> Option<Duration> {
        let reads = self.peers[id].is_exact();
        if step == 0 && reads {
            self.say_hello(id);
        }
        for _ in 0..self.random.within(1, 3) {
            match reads {
                true => self.ping(id),
                false => self.write(id, &PING, Outcome::Heartbeat(Reply::Fixed(PONG))),
            }
        }
        if reads && self.random.chance(self.rates.reconnect) && self.chaos {
            self.finish(id, Event::Fin(id));
            return None;
        }
        self.interval(id)
    }

    /// Sometimes, and sometimes with an interval of its own.
    fn say_hello(&mut self, id: usize) {
        if self.random.chance(300) {
            return;
        }
        let wanted_ms = self.wish();
        let mut hello = vec![0, 7, 1, 1];
        hello.extend(wanted_ms.to_be_bytes());
        hello.push(9);
        self.write(id, &hello, Outcome::Hello { wanted_ms });
        self.peers[id].idle_timeout = self.rules.terms(wanted_ms).1;
    }

    /// The interval that a client asks for, in milliseconds; 0 leaves it to the server.
    pub(super) fn wish(&mut self) -> u32 {
        if self.random.chance(500) {
            return 0;
        }
        // From far too short to twice the server's own.
        let most = self.rules.heartbeat_interval.as_millis() as u64 * 2;
        self.random.within(1, most) as u32
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
        if self.random.chance(700) {
            self.write(id, &PING, Outcome::Heartbeat(Reply::Fixed(PONG)));
            return;
        }
        let length = self.random.below(20);
        let mut frame = vec![0, length as u8 + 1, 3];
        frame.extend((0..length).map(|_| self.random.bits() as u8));
        let mut reply = frame.clone();
        reply[2] = 4;
        self.write(id, &frame, Outcome::Heartbeat(Reply::Own(reply)));
    }

    /// Heartbeats that arrive in one piece.
    fn pings_at_once(&mut self, id: usize, count: usize) {
        self.many_at_once(id, count, &PING, || Outcome::Heartbeat(Reply::Fixed(PONG)));
    }

    /// The same message `count` times, in one piece.
    fn many_at_once(&mut self, id: usize, count: usize, one: &[u8], outcome: fn() -> Outcome) {
        let client = &mut self.peers[id];
        for _ in 0..count {
            let begin = client.written;
            let end = begin + one.len() as u64;
            client.written = end;
            client.units.push_back(Unit { begin, end, outcome: outcome() });
        }
        self.post_bytes(id, &one.repeat(count), false);
    }

    /// One byte of a heartbeat; after the last, the usual interval.
    fn dribble(&mut self, id: usize, step: u32) -> Option<Duration> {
        let at = step as usize % PING.len();
        let client = &mut self.peers[id];
        let begin = client.written;
        client.written += 1;
        if at == 0 {
            let outcome = Outcome::Heartbeat(Reply::Fixed(PONG));
            client.units.push_back(Unit { begin, end: begin + PING.len() as u64, outcome });
        }
        self.post_bytes(id, &PING[at..=at], false);
        if at + 1 == PING.len() {
            return self.interval(id);
        }
        let micros = self.rules.frame_timeout.as_micros() as u64 / 20;
        Some(Duration::from_micros(self.random.within(1, micros)))
    }

    /// A message over TCP.
    fn chatter(&mut self, id: usize, behaviour: Behaviour) -> Option<Duration> {
        if self.peers[id].wire.len() > WINDOW_BYTES {
            return Some(self.interval(id)? / 8);
        }
        let length = self.random.within(0, self.rules.frame_bytes_max as u64 - 1) as usize;
        let length = if behaviour == Behaviour::Chatter { length.min(100) } else { length };
        let mut frame = ((length as u16 + 1).to_be_bytes()).to_vec();
        frame.push(7);
        frame.extend((0..length).map(|_| self.random.bits() as u8));
        self.write(id, &frame, Outcome::Data(frame.clone()));
        if behaviour == Behaviour::Chatter {
            return self.interval(id);
        }
        Some(self.interval(id)? / 8)
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
            self.answer(id);
        }
    }

    /// Answers what it has read, if it is one who does, and not in the middle of a message.
    fn answer(&mut self, id: usize) {
        let client = &mut self.peers[id];
        if client.reading != Reading::Fast || client.dead || client.closed {
            return;
        }
        let read = client.taken - client.in_pipe as u64;
        while let Some(&(end, question)) = self.peers[id].questions.front()
            && end <= read
        {
            self.peers[id].questions.pop_front();
            if self.peers[id].is_within_frame() {
                continue;
            }
            match question {
                Question::Push(push) if self.peers[id].acknowledges => self.acknowledge(id, push),
                Question::Ping if self.peers[id].behaviour.keeps_beating() => {
                    match self.peers[id].protocol() {
                        Protocol::Tcp => self.write(id, PONG, Outcome::Pong),
                        Protocol::WebSocket => self.pong_web_socket(id, b""),
                    }
                }
                Question::Push(_) | Question::Ping => {}
            }
        }
    }

    /// A receipt; now and then another one, or one for what it was never pushed.
    fn acknowledge(&mut self, id: usize, push: u64) {
        let send = |world: &mut World, push: u64| {
            let mut frame = vec![0, 9, 6];
            frame.extend(push.to_be_bytes());
            world.write(id, &frame, Outcome::PushAck { id: push });
        };
        send(self, push);
        if self.random.chance(50) {
            send(self, push);
        }
        if self.random.chance(20) {
            send(self, push + (1 << 40));
        }
    }

    /// The client has learnt that it was closed: it may come back.
    pub(super) fn gone(&mut self, id: usize) {
        let client = &mut self.peers[id];
        client.dead = true;
        client.forget_wires();
        self.live.retain(|&other| other != id);
        if self.chaos && !self.stopping && self.random.chance(self.rates.come_back) {
            let behaviour = self.peers[id].behaviour;
            self.fault("reconnect");
            self.spawn(behaviour);
        }
    }
}
