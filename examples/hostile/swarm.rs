//! Many connections that all do the same.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use slab::Slab;
use socket2::{Domain, Socket, Type};

use crate::account::Account;
use crate::pace::Pace;

/// How long the last answers are waited for: a SYN is sent again after 1, 3, 7 and 15 s.
const LAST_ANSWERS: Duration = Duration::from_secs(17);
/// Of one who does not read.
const SMALL_BUFFER_BYTES: usize = 4_096;
const EVENTS_AT_ONCE: usize = 1_024;
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// What a connection does after it is open.
#[derive(Clone, Debug)]
pub enum Deed {
    /// Sends this, then waits for the end.
    Say(Vec<u8>),
    /// Sends so many random bytes, then waits for the end.
    Noise(usize),
    /// Sends this over and over, a byte at a time.
    Dribble(&'static [u8]),
    /// Sends this over and over, and reads what comes.
    Flood(Vec<u8>),
    /// The same, but reads nothing.
    NeverRead(Vec<u8>),
    /// Closes at once.
    Close,
    /// Sends this and resets the connection.
    Reset(&'static [u8]),
    /// Sends this, and closes when as many bytes have come back.
    Beat(&'static [u8]),
}

impl Deed {
    /// How much of a rate one write is, if rates count writes.
    pub fn writes_per_rate(&self) -> Option<u64> {
        match self {
            Deed::Dribble(_) | Deed::NeverRead(_) => Some(1),
            Deed::Flood(words) => Some(words.len() as u64 / 3),
            _ => None,
        }
    }

    fn reads(&self) -> bool {
        !matches!(self, Deed::NeverRead(_))
    }
}

struct Client {
    socket: Socket,
    began: Instant,
    open: bool,
    said: usize,
    heard: usize,
}

/// This one has come to its end.
struct Ended;

/// All of them.
pub struct Swarm {
    target: SocketAddr,
    from: Vec<Ipv4Addr>,
    deed: Deed,
    most: usize,
    clients: Slab<Client>,
    epoll: OwnedFd,
    /// The next to write.
    cursor: usize,
    /// Connects so far.
    tried: usize,
    random: u64,
    pub account: Account,
}

impl Swarm {
    /// At most `most` at a time, from these addresses.
    ///
    /// # Errors
    /// Without a descriptor for epoll.
    pub fn new(
        target: SocketAddr,
        from: Vec<Ipv4Addr>,
        deed: Deed,
        most: usize,
    ) -> io::Result<Swarm> {
        Ok(Swarm {
            target,
            from,
            deed,
            most,
            clients: Slab::new(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            cursor: 0,
            tried: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            account: Account::default(),
        })
    }

    /// Goes on until `end`, at these paces; whoever has ended is followed by another.
    ///
    /// # Errors
    /// If epoll fails.
    pub fn run(&mut self, mut connects: Pace, mut writes: Pace, end: Instant) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        let mut now = Instant::now();
        while now < end {
            self.open_some(&mut connects);
            self.write_some(&mut writes);
            self.hear(&mut events)?;
            now = Instant::now();
        }
        let open = self.clients.iter().filter(|(_, client)| client.open);
        open.for_each(|(_, client)| self.account.still_open.note(client.began.elapsed()));
        while self.answers_to_come() > 0 && Instant::now() < end + LAST_ANSWERS {
            self.hear(&mut events)?;
        }
        let half_open = self.clients.iter().filter(|(_, client)| !client.open).count();
        self.account.waiting = self.answers_to_come().max(half_open) as u64;
        Ok(())
    }

    /// Clients that have said something whole, and have not been answered.
    fn answers_to_come(&self) -> usize {
        let is_owed = |client: &Client| match &self.deed {
            Deed::Beat(_) => true,
            Deed::Dribble(words) => client.heard < client.said / words.len() * words.len(),
            _ => false,
        };
        self.clients.iter().filter(|(_, client)| is_owed(client)).count()
    }

    fn open_some(&mut self, pace: &mut Pace) {
        let room = self.most.saturating_sub(self.clients.len()) as u64;
        for _ in 0..pace.due(Instant::now()).min(room) {
            pace.note();
            if self.connect().is_err() {
                self.account.failed += 1;
            }
        }
    }

    fn connect(&mut self) -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
        if !self.deed.reads() {
            socket.set_recv_buffer_size(SMALL_BUFFER_BYTES)?;
        }
        socket.set_tcp_nodelay(true)?;
        if !self.from.is_empty() {
            let from = self.from[self.tried % self.from.len()];
            socket.bind(&SocketAddr::from((from, 0)).into())?;
        }
        self.tried += 1;
        let began = Instant::now();
        match socket.connect(&self.target.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let entry = self.clients.vacant_entry();
        let data = epoll::EventData::new_u64(entry.key() as u64);
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::OUT)?;
        entry.insert(Client { socket, began, open: false, said: 0, heard: 0 });
        Ok(())
    }

    /// The next few write, in turn.
    fn write_some(&mut self, pace: &mut Pace) {
        let due = pace.due(Instant::now()).min(self.clients.len() as u64);
        for _ in 0..due {
            let Some(index) = self.next_open() else { return };
            pace.note();
            if self.write(index).is_err() {
                self.end(index);
            }
        }
    }

    fn next_open(&mut self) -> Option<usize> {
        // Keys are dense: those that have gone are used again first.
        let keys = self.clients.capacity();
        let found = (0..keys).map(|step| (self.cursor + step) % keys);
        let mut open = found.filter(|&key| self.clients.get(key).is_some_and(|one| one.open));
        let index = open.next()?;
        self.cursor = index + 1;
        Some(index)
    }

    fn write(&mut self, index: usize) -> Result<(), Ended> {
        let client = &mut self.clients[index];
        let words = match &self.deed {
            Deed::Dribble(words) => {
                let at = client.said % words.len();
                &words[at..=at]
            }
            Deed::Flood(words) | Deed::NeverRead(words) => &words[client.said % words.len()..],
            _ => return Ok(()),
        };
        say(client, words, &mut self.account)
    }

    /// Whatever has happened within a millisecond.
    fn hear(&mut self, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        loop {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), Some(&WAIT)) {
                Err(rustix::io::Errno::INTR) => continue,
                outcome => outcome?,
            };
            for event in events.iter() {
                let index = event.data.u64() as usize;
                let outcome = match self.clients.get(index).map(|client| client.open) {
                    Some(true) => self.read(index),
                    Some(false) => self.connected(index),
                    None => continue,
                };
                if outcome.is_err() {
                    self.end(index);
                }
            }
            if events.len() < EVENTS_AT_ONCE {
                return Ok(());
            }
        }
    }

    fn connected(&mut self, index: usize) -> Result<(), Ended> {
        let client = &mut self.clients[index];
        if !matches!(client.socket.take_error(), Ok(None)) {
            self.account.failed += 1;
            self.clients.remove(index);
            return Ok(());
        }
        client.open = true;
        self.account.connected += 1;
        self.account.connect.note(client.began.elapsed());
        listen(&self.epoll, index, client, &self.deed)?;
        match &self.deed {
            Deed::Say(words) => {
                say(client, words, &mut self.account)?;
                listen(&self.epoll, index, client, &self.deed)
            }
            Deed::Beat(words) => say(client, words, &mut self.account),
            Deed::Noise(bytes) => {
                let noise: Vec<u8> = (0..*bytes).map(|_| random(&mut self.random)).collect();
                say(client, &noise, &mut self.account)
            }
            Deed::Close => {
                self.clients.remove(index);
                Ok(())
            }
            Deed::Reset(words) => {
                // It may be closed already: then there is nothing left to annoy.
                let _ = say(client, words, &mut self.account);
                let _ = client.socket.set_linger(Some(Duration::ZERO));
                self.clients.remove(index);
                Ok(())
            }
            Deed::Dribble(_) | Deed::Flood(_) | Deed::NeverRead(_) => Ok(()),
        }
    }

    fn read(&mut self, index: usize) -> Result<(), Ended> {
        if !self.deed.reads() {
            return Err(Ended);
        }
        if let Deed::Say(words) = &self.deed
            && self.clients[index].said < words.len()
        {
            let client = &mut self.clients[index];
            say(client, &words[client.said..], &mut self.account)?;
            listen(&self.epoll, index, client, &self.deed)?;
        }
        let client = &mut self.clients[index];
        let mut buffer = [0; 4_096];
        match client.socket.read(&mut buffer) {
            Ok(0) => return Err(Ended),
            Ok(count) => {
                client.heard += count;
                self.account.bytes_received += count as u64;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Err(Ended),
        }
        if let Deed::Beat(words) = self.deed
            && client.heard >= words.len()
        {
            self.account.answered += 1;
            self.account.answer.note(client.began.elapsed());
            self.clients.remove(index);
        }
        Ok(())
    }

    /// The server has had enough of this one.
    fn end(&mut self, index: usize) {
        let client = self.clients.remove(index);
        self.account.ended_by_server += 1;
        self.account.lived.note(client.began.elapsed());
    }
}

/// Has epoll tell what there is to do with an open connection.
fn listen(epoll: &OwnedFd, index: usize, client: &Client, deed: &Deed) -> Result<(), Ended> {
    let interest = match deed {
        Deed::NeverRead(_) => epoll::EventFlags::RDHUP,
        Deed::Say(words) if client.said < words.len() => {
            epoll::EventFlags::IN | epoll::EventFlags::OUT
        }
        _ => epoll::EventFlags::IN,
    };
    let data = epoll::EventData::new_u64(index as u64);
    epoll::modify(epoll, &client.socket, data, interest).map_err(|_| Ended)
}

fn say(client: &mut Client, words: &[u8], account: &mut Account) -> Result<(), Ended> {
    if words.is_empty() {
        return Ok(());
    }
    match client.socket.write(words) {
        Ok(count) => {
            client.said += count;
            account.bytes_sent += count as u64;
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(_) => Err(Ended),
    }
}

/// The next byte of a generator (xorshift; Marsaglia 2003).
fn random(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 32) as u8
}
