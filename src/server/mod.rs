//! The server as a whole: listeners, one thread per shard, signals, the two lines of JSON.

mod crew;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use sd_notify::NotifyState;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use self::crew::{Crew, Plan};
use crate::config::Config;
use crate::control::{AdminAddress, AdminListener, Control, ServerHandle, tell_systemd};
use crate::engine::{Command, DoesNotFit, EngineError, EngineKind, EngineReport, MailSender};
use crate::host::{self, Ends, Needs};
use crate::limits::ADMIN_FAREWELL;
use crate::report::FinalLine;
use crate::ring::{RingError, probe_asking_server, probe_server};
use crate::shard::Handler;
use crate::socket::{Inherited, ListenError};
use crate::sys;

/// Why the server could not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// io_uring is not what it has to be.
    #[error("{0}; `--engine epoll` does without io_uring, `--engine auto` where it has to")]
    Ring(#[from] RingError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// More connections than the rings can hold.
    #[error(transparent)]
    DoesNotFit(#[from] DoesNotFit),
    /// The rings and listeners themselves need more descriptors than there may be.
    #[error(
        "RLIMIT_NOFILE is {limit}, and {needed} descriptors are needed beside the connections: \
         raise it (`ulimit -n`, LimitNOFILE=), or lower --max-connections or the number of --listen"
    )]
    Descriptors {
        /// How many are needed.
        needed: u64,
        /// How many there may be.
        limit: u64,
    },
    /// The control plane's address cannot be listened on.
    #[error("--admin {address}: {source}; choose another address, or off")]
    Admin {
        /// The address.
        address: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Nobody could ever be let in.
    #[error(
        "--memory-limit {limit}: the server itself has {resident} bytes already, before anybody \
         has come; allow more"
    )]
    Memory {
        /// How much there may be.
        limit: u64,
        /// How much there is.
        resident: u64,
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

/// What the main thread waits for.
enum Event {
    /// A shard accepts connections.
    Ready,
    /// A shard's thread has ended.
    Ended(usize, Box<Result<EngineReport, EngineError>>),
    /// A shard's thread has panicked.
    Panicked(usize),
    /// SIGTERM or SIGINT.
    Signal(i32),
}

/// Makes the handler of a shard, on the shard's own thread.
pub type HandlerFactory = Arc<dyn Fn(u8) -> Box<dyn Handler> + Send + Sync>;

/// Sends letters to the handlers of all shards; each is given them on its own thread.
#[derive(Clone, Debug)]
pub struct Publisher {
    shards: Vec<MailSender>,
}

impl Publisher {
    /// Sends a letter to every shard's handler. It never waits.
    pub fn publish(&self, letter: &[u8]) {
        let letter: Arc<[u8]> = Arc::from(letter);
        for shard in &self.shards {
            shard.send(Command::Letter(Arc::clone(&letter)));
        }
    }
}

/// What a service built on this library adds to the server.
pub struct Application {
    /// Its handlers.
    pub handlers: HandlerFactory,
    /// Its routes, beside those of the control plane.
    pub routes: fn(Publisher) -> axum::Router,
}

/// Runs a server until SIGTERM or SIGINT. `ready` is called once it accepts connections.
///
/// # Errors
/// If it cannot start, or a shard fails.
pub fn run(config: &Config, ready: impl FnOnce(&ReadyLine)) -> Result<FinalLine, ServerError> {
    run_with(config, None, ready)
}

/// Runs a server with an application in it. `ready` is called once it accepts connections.
///
/// # Errors
/// If it cannot start, or a shard fails.
pub fn run_with(
    config: &Config,
    application: Option<Application>,
    ready: impl FnOnce(&ReadyLine),
) -> Result<FinalLine, ServerError> {
    let system = |what| move |source| ServerError::System { what, source };
    // Before anything else opens a descriptor.
    let inherited = Inherited::from_env().map_err(system("taking over inherited sockets"))?;
    let descriptor_limit =
        host::raise_descriptor_limit().map_err(system("raising RLIMIT_NOFILE"))?;
    let (engine, has_io_uring) = choose_engine(config.engine)?;
    if engine == EngineKind::Uring && config.needs_addresses() {
        probe_asking_server()?;
    }
    check_memory(config)?;
    let plan = Plan::new(config, engine, descriptor_limit)?;
    let needed = plan.descriptors(config);
    if needed > descriptor_limit {
        return Err(ServerError::Descriptors { needed, limit: descriptor_limit });
    }
    let (events, inbox) = channel();
    let signals = watch_signals(events.clone()).map_err(system("watching for signals"))?;
    let admin = bind_admin(config)?;
    let sockets = plan.open_sockets(config, inherited)?;
    warn_of_limits(config);

    let mut crew = Crew::new(&plan).map_err(system("making an eventfd"))?;
    let handle = Arc::new(ServerHandle {
        shards: crew.handles(),
        engine: engine.name(),
        sweep: config.sweep.to_string(),
        ready: AtomicBool::new(false),
        draining: AtomicBool::new(false),
        drain_timeout: config.drain_timeout,
        next_push: AtomicU64::new(1),
        push_bodies_refused: AtomicU64::new(0),
    });
    let ready_line = ReadyLine {
        ready: true,
        listen: sockets.listen.iter().map(ToString::to_string).collect(),
        admin: admin.as_ref().map(AdminListener::name),
        engine: engine.name(),
        sweep: config.sweep.to_string(),
        shards: plan.shards,
        rings: plan.rings(),
        capacity: plan.capacity,
    };
    let publisher = Publisher { shards: crew.mails() };
    let routes = application.as_ref().map(|application| (application.routes)(publisher));
    let handlers = application.map(|application| application.handlers);
    // Before the shards: see `Control::start`.
    let control = admin
        .map(|listener| Control::start(listener, Arc::clone(&handle), routes, has_io_uring))
        .transpose()
        .map_err(system("starting the control plane"))?;
    crew.start(config, &plan, sockets, handlers.as_ref(), &events)
        .map_err(system("starting a thread"))?;
    let outcome = supervise(crew, config, &inbox, &handle, || ready(&ready_line));
    drop(control);
    signals.close();
    outcome
}

/// Whether there is room for anybody below `--memory-limit`.
fn check_memory(config: &Config) -> Result<(), ServerError> {
    let resident = sys::resident_bytes().unwrap_or(0);
    match config.bounds.memory_bytes_max {
        Some(limit) if limit <= resident => Err(ServerError::Memory { limit, resident }),
        _ => Ok(()),
    }
}

/// Says what of this host's limits will bite before so many connections are open.
fn warn_of_limits(config: &Config) {
    let warning = host::start_warning(&Needs {
        connections: config.max_connections as u64,
        interval: config.policy.heartbeat_interval,
        ends: Ends::Server,
        listen: config.listen.iter().map(|listen| listen.address).collect(),
        kernel_picks_ports: false,
    });
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
}

/// The engine that was asked for, if this host has what it needs; and whether it has io_uring.
fn choose_engine(wanted: Option<EngineKind>) -> Result<(EngineKind, bool), RingError> {
    match (wanted, probe_server()) {
        (Some(engine), Ok(())) => Ok((engine, true)),
        (None, Ok(())) => Ok((EngineKind::Uring, true)),
        (Some(engine), Err(error)) if engine.needs_io_uring() => Err(error),
        (Some(engine), Err(_)) => Ok((engine, false)),
        (None, Err(error)) => {
            tracing::warn!(%error, "going on with the epoll engine");
            Ok((EngineKind::Epoll, false))
        }
    }
}

/// Waits until all shards are ready, then until all have ended.
fn supervise(
    crew: Crew,
    config: &Config,
    inbox: &Receiver<Event>,
    handle: &ServerHandle,
    ready: impl FnOnce(),
) -> Result<FinalLine, ServerError> {
    let mut ready = Some(ready);
    let mut waiting = crew.len();
    let mut stopping = false;
    let mut reports = Vec::new();
    while reports.len() < crew.len() {
        match inbox.recv() {
            Ok(Event::Ready) => {
                waiting -= 1;
                if waiting == 0
                    && let Some(ready) = ready.take()
                {
                    let draining = handle.draining.load(Ordering::Relaxed);
                    handle.ready.store(!draining, Ordering::Relaxed);
                    ready();
                    tell_systemd(NotifyState::Ready);
                }
            }
            Ok(Event::Signal(signal)) => {
                tracing::info!(signal, "stopping");
                stopping = true;
                match handle.begin_draining() {
                    false => crew.drain(config.drain_spread, config.drain_timeout),
                    // Whoever asks twice is in a hurry.
                    true => crew.halt(),
                }
            }
            Ok(Event::Ended(shard, outcome)) => {
                reports.push(outcome.map_err(|source| ServerError::Engine { shard, source })?);
            }
            Ok(Event::Panicked(shard)) => return Err(ServerError::Panicked(shard)),
            Err(_) => return Err(ServerError::Panicked(reports.len())),
        }
    }
    crew.join();
    if !stopping {
        std::thread::sleep(ADMIN_FAREWELL);
    }
    Ok(FinalLine::new(&reports))
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
