//! The threads of a server: how many, with what, and how they are started and stopped.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use super::{Event, HandlerFactory};
use crate::config::Config;
use crate::control::ShardHandle;
use crate::engine::uring::UringEngine;
use crate::engine::{
    Command, DoesNotFit, EngineConfig, EngineError, EngineKind, EngineReport, Layout, MailSender,
    Mailbox, Status, TaskConfig, TaskLayout, Tuning, epoll, mailbox, own_descriptors, tokio_uring,
};
use crate::host;
use crate::limits::{SESSIONS_PER_SHARD_MAX, SHARDS_MAX};
use crate::shard::{Admission, Auth, Bounds, Policy, Shard};
use crate::socket::{Inherited, Listen, ListenError, Listener, free_address, listeners};
use crate::sweep::{AnySweeper, Strategy};
use crate::time::{Clock, Tick};

/// How the server is laid out.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) engine: EngineKind,
    pub(super) shards: usize,
    /// Connections that all shards can hold.
    pub(super) capacity: usize,
    /// Rings of each shard; 0 for the engines that have none of their own.
    rings_per_shard: usize,
    /// Slots of each ring, or of each shard where there are none.
    slots: u32,
    cores: Vec<usize>,
}

/// What the shards listen on.
pub(super) struct Sockets {
    pub(super) listen: Vec<Listen>,
    /// For each ring, or for each shard that has none, its listeners; what is not among them the
    /// shards open themselves.
    by_group: Vec<Vec<Listener>>,
}

impl Plan {
    pub(super) fn new(
        config: &Config,
        engine: EngineKind,
        descriptor_limit: u64,
    ) -> Result<Plan, DoesNotFit> {
        let cores = host::usable_cores();
        if engine == EngineKind::Uring {
            let shards = config.shards.unwrap_or(cores.len().min(SHARDS_MAX));
            let layout = Layout::new(
                config.max_connections,
                shards,
                descriptor_limit,
                config.rings_per_shard,
                config.ring_slots,
            )?;
            let Layout { rings_per_shard, slots, capacity } = layout;
            return Ok(Plan { engine, shards, capacity, rings_per_shard, slots, cores });
        }
        let connections = config.max_connections;
        let layout = TaskLayout::new(connections, config.shards, cores.len(), descriptor_limit)?;
        let TaskLayout { shards, slots, capacity } = layout;
        Ok(Plan { engine, shards, capacity, rings_per_shard: 0, slots, cores })
    }

    /// Rings of all shards together.
    pub(super) fn rings(&self) -> usize {
        match self.engine {
            EngineKind::Uring => self.shards * self.rings_per_shard,
            EngineKind::TokioUring => self.shards,
            EngineKind::Epoll => 0,
        }
    }

    /// Descriptors of the process beside those of connections.
    pub(super) fn descriptors(&self, config: &Config) -> u64 {
        own_descriptors(self.rings(), self.shards, config.listen.len())
    }

    /// Opens the listeners of all rings, or only makes sure of the addresses where the shards open
    /// their own.
    pub(super) fn open_sockets(
        &self,
        config: &Config,
        mut inherited: Inherited,
    ) -> Result<Sockets, ListenError> {
        let mut sockets = Sockets { listen: Vec::new(), by_group: Vec::new() };
        sockets.by_group.resize_with(self.shards * self.groups_per_shard(), Vec::new);
        for &listen in &config.listen {
            let Listen { protocol, address } = listen;
            if inherited.deal_out(listen, &config.socket, &mut sockets.by_group)? {
                sockets.listen.push(listen);
                continue;
            }
            if self.engine != EngineKind::Uring {
                sockets.listen.push(Listen { protocol, address: free_address(address)? });
                continue;
            }
            let (bound, opened) = listeners(address, self.rings(), &config.socket)?;
            sockets.listen.push(Listen { protocol, address: bound });
            for (ring, socket) in sockets.by_group.iter_mut().zip(opened) {
                ring.push(Listener { protocol, socket });
            }
        }
        inherited.finish()?;
        Ok(sockets)
    }

    /// Groups of listeners that a shard has.
    fn groups_per_shard(&self) -> usize {
        self.rings_per_shard.max(1)
    }

    /// The core of a shard, where each can have its own.
    fn core(&self, shard: usize) -> Option<usize> {
        (self.shards <= self.cores.len()).then(|| self.cores[shard])
    }

    fn sessions_per_shard(&self) -> usize {
        (self.slots as usize * self.rings_per_shard.max(1)).min(SESSIONS_PER_SHARD_MAX)
    }
}

/// The threads.
pub(super) struct Crew {
    members: Vec<Member>,
    threads: Vec<JoinHandle<()>>,
}

struct Member {
    mail: MailSender,
    status: Arc<Status>,
    /// Until the thread takes it.
    mailbox: Option<Mailbox>,
}

impl Crew {
    /// Everything but the threads.
    pub(super) fn new(plan: &Plan) -> io::Result<Crew> {
        let member = |_| {
            let (mail, mailbox) = mailbox()?;
            Ok(Member { mail, status: Arc::new(Status::default()), mailbox: Some(mailbox) })
        };
        let members = (0..plan.shards).map(member).collect::<io::Result<_>>()?;
        Ok(Crew { members, threads: Vec::new() })
    }

    /// How many shards there are.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// To speak to each of the shards.
    pub(super) fn mails(&self) -> Vec<MailSender> {
        self.members.iter().map(|member| member.mail.clone()).collect()
    }

    /// What the control plane may know of the shards.
    pub(super) fn handles(&self) -> Vec<ShardHandle> {
        let handle = |member: &Member| ShardHandle {
            mail: member.mail.clone(),
            status: Arc::clone(&member.status),
        };
        self.members.iter().map(handle).collect()
    }

    /// Starts a thread for each shard; each tells by an event when it is ready, and when it ends.
    pub(super) fn start(
        &mut self,
        config: &Config,
        plan: &Plan,
        sockets: Sockets,
        handlers: Option<&HandlerFactory>,
        events: &Sender<Event>,
    ) -> io::Result<()> {
        let connections_max = config.max_connections.min(plan.capacity);
        let admission = Admission::with(Bounds { connections_max, ..config.bounds });
        let clock = Clock::new();
        let auth = config.keys.clone().map(|keys| Auth::new(keys, clock.unix_at_origin()));
        let policy = Policy { auth, ..config.policy.clone() };
        let mut by_group = sockets.by_group.into_iter();
        for (number, member) in self.members.iter_mut().enumerate() {
            let Some(mailbox) = member.mailbox.take() else { continue };
            let start = ShardStart {
                number: number as u8,
                engine: plan.engine,
                core: plan.core(number),
                listen: sockets.listen.clone(),
                listeners: by_group.by_ref().take(plan.groups_per_shard()).collect(),
                socket: config.socket,
                tuning: Tuning { slots: plan.slots, ..config.tuning },
                status: Arc::clone(&member.status),
                policy: policy.clone(),
                sweep: config.sweep,
                capacity: plan.sessions_per_shard(),
                admission: Arc::clone(&admission),
                handlers: handlers.cloned(),
                clock,
            };
            let events = events.clone();
            let thread = thread::Builder::new().name(format!("shard-{number}"));
            self.threads.push(thread.spawn(move || {
                let ready = || drop(events.send(Event::Ready));
                let outcome = catch_unwind(AssertUnwindSafe(|| start.run(mailbox, ready)));
                // The main thread ends before us only if another shard has failed.
                let _ = events.send(match outcome {
                    Ok(outcome) => Event::Ended(number, Box::new(outcome)),
                    Err(_) => Event::Panicked(number),
                });
            })?);
        }
        Ok(())
    }

    /// Tells all shards to drain, and to end.
    pub(super) fn drain(&self, spread: Duration, timeout: Duration) {
        for member in &self.members {
            member.mail.send(Command::Drain { spread, timeout, reply: None });
        }
    }

    /// Tells all shards to end at once.
    pub(super) fn halt(&self) {
        for member in &self.members {
            member.mail.send(Command::Halt);
        }
    }

    /// Waits for the threads, which have said that they end.
    pub(super) fn join(self) {
        for thread in self.threads {
            // A panic would have been told as an event.
            let _ = thread.join();
        }
    }
}

/// Everything that a shard's thread takes with it.
struct ShardStart {
    number: u8,
    engine: EngineKind,
    core: Option<usize>,
    listen: Vec<Listen>,
    listeners: Vec<Vec<Listener>>,
    socket: crate::socket::SocketOptions,
    tuning: Tuning,
    status: Arc<Status>,
    policy: Policy,
    sweep: Strategy,
    capacity: usize,
    admission: Arc<Admission>,
    handlers: Option<HandlerFactory>,
    clock: Clock,
}

impl ShardStart {
    fn run(self, mailbox: Mailbox, ready: impl FnOnce()) -> Result<EngineReport, EngineError> {
        let (clock, tick) = (self.clock, self.policy.tick);
        let recipe = Recipe {
            number: self.number,
            policy: self.policy,
            admission: self.admission,
            sweep: self.sweep,
            capacity: self.capacity,
            handlers: self.handlers,
        };
        if self.engine == EngineKind::Uring {
            let shard = recipe.make();
            let config = EngineConfig {
                core: self.core,
                listeners: self.listeners,
                tuning: self.tuning,
                status: self.status,
            };
            let engine = UringEngine::new(config, clock, tick, shard, mailbox)?;
            ready();
            return engine.run();
        }
        let config = TaskConfig {
            inherited: self.listeners.into_iter().flatten().collect(),
            core: self.core,
            listen: self.listen,
            socket: self.socket,
            completion_entries: self.tuning.completion_entries,
            status: self.status,
        };
        let shard = || recipe.make();
        match self.engine {
            EngineKind::TokioUring => tokio_uring::run(config, clock, tick, shard, &mailbox, ready),
            _ => epoll::run(config, clock, tick, shard, &mailbox, ready),
        }
    }
}

/// What a shard is made of.
struct Recipe {
    number: u8,
    policy: Policy,
    admission: Arc<Admission>,
    sweep: Strategy,
    capacity: usize,
    handlers: Option<HandlerFactory>,
}

impl Recipe {
    fn make<C>(self) -> Shard<AnySweeper, C> {
        let sweeper = AnySweeper::new(self.sweep, self.capacity, Tick(0));
        let mut shard =
            Shard::new(self.number, self.policy, self.admission, sweeper, self.capacity);
        if let Some(handlers) = self.handlers {
            shard.set_handler(handlers(self.number));
        }
        shard
    }
}
