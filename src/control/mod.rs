//! The control plane: admin HTTP on a thread of its own, on the tokio-uring runtime.
//!
//! It speaks to the shards by messages and reads the counters that they publish. It takes no lock
//! that a shard takes, so whatever happens here, no heartbeat feels it.
//!
//! Everything a client can do is bounded: connections, header size and time, body size, the life
//! of a connection.

mod http;
mod metrics;
mod push;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sd_notify::NotifyState;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, oneshot};

use crate::engine::{MailSender, Status};
use crate::limits::{
    ADMIN_CONNECTION_TIMEOUT, ADMIN_CONNECTIONS_MAX, ADMIN_HEADER_BYTES_MAX, ADMIN_HEADER_TIMEOUT,
};

/// Where the control plane listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// What the control plane knows of one shard.
#[derive(Debug)]
pub struct ShardHandle {
    /// To speak to it.
    pub mail: MailSender,
    /// To read what it counts.
    pub status: Arc<Status>,
}

/// What the control plane knows of the server.
#[derive(Debug)]
pub struct ServerHandle {
    /// The shards, by number.
    pub shards: Vec<ShardHandle>,
    /// The engine's name.
    pub engine: &'static str,
    /// The sweep strategy's name.
    pub sweep: String,
    /// Whether it accepts connections: not before it is ready, nor when it is stopping.
    pub ready: AtomicBool,
    /// Whether the shards were told to drain.
    pub draining: AtomicBool,
    /// A drain ends after so much time in any case.
    pub drain_timeout: Duration,
    /// The id of the next push.
    pub next_push: AtomicU64,
    /// Messages to push that were refused because they are too long.
    pub push_bodies_refused: AtomicU64,
}

impl ServerHandle {
    /// Notes that the server drains from now on. Whether it did already.
    pub fn begin_draining(&self) -> bool {
        self.ready.store(false, Ordering::Relaxed);
        let already = self.draining.swap(true, Ordering::Relaxed);
        if !already {
            tell_systemd(NotifyState::Stopping);
        }
        already
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}

/// Tells the service manager, if one has asked to be told (`sd_notify(3)`).
pub fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// A bound socket, before the control plane runs.
#[derive(Debug)]
pub enum AdminListener {
    /// A TCP listener.
    Tcp(std::net::TcpListener),
    /// A Unix listener.
    Unix(std::os::unix::net::UnixListener, PathBuf),
}

impl AdminListener {
    /// Binds `address`. A Unix socket that a former server has left behind is replaced.
    ///
    /// # Errors
    /// If the address is in use or not ours.
    pub fn bind(address: &AdminAddress) -> io::Result<AdminListener> {
        match address {
            AdminAddress::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(AdminListener::Tcp(listener))
            }
            AdminAddress::Unix(path) => {
                let stale = path.metadata().is_ok_and(|file| file.file_type().is_socket())
                    && std::os::unix::net::UnixStream::connect(path).is_err();
                if stale {
                    std::fs::remove_file(path)?;
                }
                let listener = std::os::unix::net::UnixListener::bind(path)?;
                listener.set_nonblocking(true)?;
                Ok(AdminListener::Unix(listener, path.clone()))
            }
        }
    }

    /// The address as the ready line tells it.
    pub fn name(&self) -> String {
        match self {
            AdminListener::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string())
            }
            AdminListener::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }
}

/// The running control plane. It ends when this is dropped.
#[derive(Debug)]
pub struct Control {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Starts it on a thread of its own.
    ///
    /// # Errors
    /// If there can be no more threads.
    ///
    /// Returns when its runtime is there: shards wake it by its descriptors, and those that take
    /// their own copy of the descriptor table must find them in it.
    pub fn start(
        listener: AdminListener,
        server: Arc<ServerHandle>,
        routes: Option<Router>,
        has_io_uring: bool,
    ) -> io::Result<Control> {
        let (stop, stopped) = oneshot::channel();
        let (started, has_started) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            run(has_io_uring, async move {
                let _ = started.send(());
                tokio::select! {
                    outcome = serve(listener, http::router(server, routes)) => {
                        if let Err(error) = outcome {
                            tracing::error!(%error, "the control plane has failed");
                        }
                    }
                    _ = stopped => {}
                }
            });
        })?;
        if has_started.recv().is_err() {
            return Err(io::Error::other("the control plane's runtime did not start"));
        }
        Ok(Control { stop: Some(stop), thread: Some(thread) })
    }
}

/// Runs `future` on the tokio-uring runtime, or on plain tokio where io_uring is forbidden.
fn run(has_io_uring: bool, future: impl Future<Output = ()>) {
    if has_io_uring {
        return tokio_uring::start(future);
    }
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => tokio::task::LocalSet::new().block_on(&runtime, future),
        Err(error) => tracing::error!(%error, "the control plane has no runtime"),
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It panics only if a request handler does, and then the message has been printed.
            let _ = thread.join();
        }
    }
}

async fn serve(listener: AdminListener, router: Router) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    match listener {
        AdminListener::Tcp(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            accept(&places, &router, async || Ok(listener.accept().await?.0)).await
        }
        AdminListener::Unix(listener, path) => {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            let _cleanup = RemoveOnDrop(path);
            accept(&places, &router, async || Ok(listener.accept().await?.0)).await
        }
    }
}

/// Serves whoever comes, at most [`ADMIN_CONNECTIONS_MAX`] at a time; the others wait.
async fn accept<S>(
    places: &Arc<Semaphore>,
    router: &Router,
    next: impl AsyncFn() -> io::Result<S>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    loop {
        let Ok(place) = Arc::clone(places).acquire_owned().await else { return Ok(()) };
        let stream = match next().await {
            Ok(stream) => stream,
            Err(error) => {
                // Most likely there is no descriptor left: that passes, and must not spin.
                tracing::warn!(%error, "the control plane cannot accept");
                tokio::time::sleep(ADMIN_HEADER_TIMEOUT).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::task::spawn_local(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(ADMIN_HEADER_TIMEOUT)
                .max_buf_size(ADMIN_HEADER_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service);
            // Whatever a client does wrong ends its own connection and nothing else.
            let _ = tokio::time::timeout(ADMIN_CONNECTION_TIMEOUT, connection).await;
            drop(place);
        });
    }
}

struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
