//! The server as a whole: listeners, one thread per shard, signals, the two lines of JSON.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::config::Config;
use crate::control::{AdminAddress, AdminListener, Control, ServerHandle, ShardHandle};
use crate::engine::uring::UringEngine;
use crate::engine::{
    Command, DoesNotFit, EngineConfig, EngineError, EngineReport, Layout, MailSender, Mailbox,
    Status, mailbox,
};
use crate::host;
use crate::limits::SESSIONS_PER_SHARD_MAX;
use crate::report::FinalLine;
use crate::ring::{RingError, probe_server};
use crate::shard::{Admission, Shard};
use crate::socket::{ListenError, listeners};
use crate::sweep::AnySweeper;
use crate::time::{Clock, Tick};

/// Why the server could not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// io_uring is not what it has to be.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// More connections than the rings can hold.
    #[error(transparent)]
    DoesNotFit(#[from] DoesNotFit),
    /// The control plane's address cannot be listened on.
    #[error("--admin {address}: {source}; choose another address, or off")]
    Admin {
        /// The address.
        address: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A shard's engine failed.
    #[error("shard {shard}: {source}")]
    Engine {
        /// Which.
        shard: usize,
        /// Why.
        source: EngineError,
    },
    /// A shard's thread ended by a panic.
    #[error("shard {0} panicked; the message stands above")]
    Panicked(usize),
    /// A system call of the set-up failed.
    #[error("{what}: {source}")]
    System {
        /// The step.
        what: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// The line that tells whoever started the server that it is ready, and for what.
#[derive(Debug, Serialize)]
pub struct ReadyLine {
    ready: bool,
    listen: Vec<String>,
    admin: Option<String>,
    engine: &'static str,
    sweep: String,
    shards: usize,
    rings: usize,
    capacity: usize,
}

/// The engine's name.
const ENGINE: &str = "uring";

/// What the main thread waits for.
enum Event {
    Ready,
    Ended(usize, Box<Result<EngineReport, EngineError>>),
    Signal(i32),
}

/// Runs a server until SIGTERM or SIGINT. `ready` is called once it accepts connections.
///
/// # Errors
/// If it cannot start, or a shard fails.
pub fn run(config: &Config, ready: impl FnOnce(&ReadyLine)) -> Result<FinalLine, ServerError> {
    let system = |what| move |source| ServerError::System { what, source };
    let descriptor_limit =
        host::raise_descriptor_limit().map_err(system("raising RLIMIT_NOFILE"))?;
    probe_server()?;
    let cores = host::usable_cores();
    let shards = config.shards.unwrap_or(cores.len());
    let layout = Layout::new(
        config.max_connections,
        shards,
        descriptor_limit,
        config.rings_per_shard,
        config.ring_slots,
    )?;
    let (events, inbox) = channel();
    let signals = watch_signals(events.clone()).map_err(system("watching for signals"))?;
    let admin = bind_admin(config)?;
    let (addresses, sockets) = listen(config, shards * layout.rings_per_shard)?;

    let server = Server::start(config, &layout, &cores, shards, sockets, &events)
        .map_err(system("starting a thread"))?;
    let handle = server.handle(config);
    let ready_line = ReadyLine {
        ready: true,
        listen: addresses.iter().map(|address| format!("tcp://{address}")).collect(),
        admin: admin.as_ref().map(AdminListener::name),
        engine: ENGINE,
        sweep: config.sweep.to_string(),
        shards,
        rings: shards * layout.rings_per_shard,
        capacity: layout.capacity,
    };
    let control = admin
        .map(|listener| Control::start(listener, Arc::clone(&handle)))
        .transpose()
        .map_err(system("starting a thread"))?;
    let outcome = server.serve(&inbox, &handle, || ready(&ready_line));
    drop(control);
    signals.close();
    outcome
}

fn bind_admin(config: &Config) -> Result<Option<AdminListener>, ServerError> {
    let Some(address) = &config.admin else { return Ok(None) };
    AdminListener::bind(address).map(Some).map_err(|source| ServerError::Admin {
        address: match address {
            AdminAddress::Tcp(address) => address.to_string(),
            AdminAddress::Unix(path) => format!("unix:{}", path.display()),
        },
        source,
    })
}

/// The running shards.
struct Server {
    threads: Vec<JoinHandle<()>>,
    mail: Vec<MailSender>,
    statuses: Vec<Arc<Status>>,
}

impl Server {
    fn start(
        config: &Config,
        layout: &Layout,
        cores: &[usize],
        shards: usize,
        sockets: Vec<Vec<OwnedFd>>,
        events: &Sender<Event>,
    ) -> std::io::Result<Server> {
        let admission = Admission::new(config.max_connections.min(layout.capacity));
        let clock = Clock::new();
        let mut server = Server { threads: Vec::new(), mail: Vec::new(), statuses: Vec::new() };
        let mut sockets = sockets.into_iter();
        for number in 0..shards {
            let (sender, mailbox) = mailbox()?;
            server.mail.push(sender);
            let status = Arc::new(Status::default());
            server.statuses.push(Arc::clone(&status));
            let mut tuning = config.tuning;
            tuning.slots = layout.slots;
            let engine = EngineConfig {
                shard: number as u8,
                core: (shards <= cores.len()).then(|| cores[number]),
                listeners: sockets.by_ref().take(layout.rings_per_shard).collect(),
                tuning,
                status: Arc::clone(&status),
            };
            let start = ShardStart {
                engine,
                policy: config.policy.clone(),
                sweep: config.sweep,
                capacity: (layout.slots as usize * layout.rings_per_shard)
                    .min(SESSIONS_PER_SHARD_MAX),
                admission: Arc::clone(&admission),
                clock,
                mailbox,
            };
            let events = events.clone();
            let thread =
                std::thread::Builder::new().name(format!("shard-{number}")).spawn(move || {
                    let outcome = start.run(&events);
                    let _ = events.send(Event::Ended(number, Box::new(outcome)));
                })?;
            server.threads.push(thread);
        }
        Ok(server)
    }

    /// What the control plane may know.
    fn handle(&self, config: &Config) -> Arc<ServerHandle> {
        let shards = self.mail.iter().zip(&self.statuses);
        Arc::new(ServerHandle {
            shards: shards
                .map(|(mail, status)| ShardHandle {
                    mail: mail.clone(),
                    status: Arc::clone(status),
                })
                .collect(),
            engine: ENGINE,
            sweep: config.sweep.to_string(),
            ready: AtomicBool::new(false),
        })
    }

    /// Waits until all shards are ready, then until all have ended.
    fn serve(
        self,
        inbox: &Receiver<Event>,
        handle: &ServerHandle,
        ready: impl FnOnce(),
    ) -> Result<FinalLine, ServerError> {
        let shards = self.threads.len();
        let mut ready = Some(ready);
        let mut waiting = shards;
        let mut reports: BTreeMap<usize, EngineReport> = BTreeMap::new();
        while reports.len() < shards {
            match inbox.recv() {
                Ok(Event::Ready) => {
                    waiting -= 1;
                    if let (0, Some(ready)) = (waiting, ready.take_if(|_| waiting == 0)) {
                        handle.ready.store(true, Ordering::Relaxed);
                        ready();
                    }
                }
                Ok(Event::Signal(signal)) => {
                    tracing::info!(signal, "stopping");
                    handle.ready.store(false, Ordering::Relaxed);
                    for mail in &self.mail {
                        mail.send(Command::Stop);
                    }
                }
                Ok(Event::Ended(shard, outcome)) => {
                    let report = outcome.map_err(|source| ServerError::Engine { shard, source })?;
                    reports.insert(shard, report);
                }
                Err(_) => return Err(ServerError::Panicked(reports.len())),
            }
        }
        for (shard, thread) in self.threads.into_iter().enumerate() {
            thread.join().map_err(|_| ServerError::Panicked(shard))?;
        }
        Ok(FinalLine::new(reports.values()))
    }
}

/// Everything that a shard's thread takes with it.
struct ShardStart {
    engine: EngineConfig,
    policy: crate::shard::Policy,
    sweep: crate::sweep::Strategy,
    capacity: usize,
    admission: Arc<Admission>,
    clock: Clock,
    mailbox: Mailbox,
}

impl ShardStart {
    fn run(self, events: &Sender<Event>) -> Result<EngineReport, EngineError> {
        let tick = self.policy.tick;
        let sweeper = AnySweeper::new(self.sweep, self.capacity, Tick(0));
        let shard =
            Shard::new(self.engine.shard, self.policy, self.admission, sweeper, self.capacity);
        let engine = UringEngine::new(self.engine, self.clock, tick, shard, self.mailbox)?;
        let _ = events.send(Event::Ready);
        engine.run()
    }
}

/// Listeners for every ring on every address: the outer list is by ring.
fn listen(
    config: &Config,
    rings: usize,
) -> Result<(Vec<SocketAddr>, Vec<Vec<OwnedFd>>), ListenError> {
    let mut addresses = Vec::new();
    let mut by_ring: Vec<Vec<OwnedFd>> = (0..rings).map(|_| Vec::new()).collect();
    for &address in &config.listen {
        let (bound, sockets) = listeners(address, rings, &config.socket)?;
        addresses.push(bound);
        for (ring, socket) in by_ring.iter_mut().zip(sockets) {
            ring.push(socket);
        }
    }
    Ok((addresses, by_ring))
}

/// Turns SIGTERM and SIGINT into events, on a thread of its own.
fn watch_signals(events: Sender<Event>) -> std::io::Result<Handle> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let handle = signals.handle();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                break;
            }
        }
    })?;
    Ok(handle)
}
