//! The epoll engine: tokio's own TCP, a task per connection. What most people would write, and the
//! fallback where io_uring is forbidden.
//!
//! An idle connection costs its task, its registration with epoll and its descriptor, but no
//! buffer: a task reads into its thread's buffer once the socket is readable.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use super::hub::{Hub, Link};
use super::{EngineError, EngineReport, Mailbox, TaskConfig};
use crate::limits::{ACCEPT_PAUSE, EPOLL_ROUNDS_MAX, TASK_BUFFER_BYTES, TASK_ROUNDS_MAX};
use crate::outgoing::Outgoing;
use crate::protocol::Protocol;
use crate::session::SessionKey;
use crate::shard::{ReceiveEnd, Shard};
use crate::sweep::Sweeper;
use crate::time::{Clock, TickLength};

/// Runs one shard on the calling thread until it is told to stop.
///
/// # Errors
/// If the thread cannot be set up.
pub fn run<S: Sweeper + 'static>(
    mut config: TaskConfig,
    clock: Clock,
    tick: TickLength,
    new_shard: impl FnOnce() -> Shard<S, Rc<Link>>,
    mailbox: &Mailbox,
    ready: impl FnOnce(),
) -> Result<EngineReport, EngineError> {
    let setup = |what| move |source| EngineError::Setup { what, source };
    let listeners = config.prepare_thread()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(setup("making a tokio runtime"))?;
    let hub = Hub::new(clock, tick, new_shard(), Arc::clone(&config.status), EPOLL_ROUNDS_MAX);
    let buffer = Rc::new(RefCell::new(vec![0; TASK_BUFFER_BYTES]));
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async {
        for (protocol, listener) in listeners {
            let listener =
                TcpListener::from_std(listener).map_err(setup("registering a listener"))?;
            tokio::task::spawn_local(accept(
                Rc::clone(&hub),
                listener,
                protocol,
                Rc::clone(&buffer),
            ));
        }
        ready();
        tokio::select! {
            report = hub.run(tokio::task::yield_now) => Ok(report),
            Err(source) = hub.obey(mailbox) => Err(setup("reading an eventfd")(source)),
        }
    })
}

async fn accept<S: Sweeper + 'static>(
    hub: Rc<Hub<S>>,
    listener: TcpListener,
    protocol: Protocol,
    buffer: Rc<RefCell<Vec<u8>>>,
) {
    while hub.is_accepting() {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Whoever comes from now on is refused by the kernel.
            () = hub.stopping() => break,
        };
        match accepted {
            Ok((stream, from)) => {
                let link = Rc::new(Link::default());
                // The refused are counted by the shard, and closed by being dropped.
                if let Ok(key) = hub.opened(&link, protocol, from) {
                    let buffer = Rc::clone(&buffer);
                    let connection = Connection::new(Rc::clone(&hub), stream, key, link);
                    tokio::task::spawn_local(connection.run(buffer));
                }
            }
            Err(error) if super::is_exhaustion(&error) => {
                hub.count(|counters| counters.accepts_paused += 1);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            Err(_) => hub.count(|counters| counters.accept_errors += 1),
        }
    }
}

/// One connection's task.
struct Connection<S> {
    hub: Rc<Hub<S>>,
    stream: TcpStream,
    key: SessionKey,
    link: Rc<Link>,
    receiving: bool,
    sending: Option<Outgoing>,
}

impl<S: Sweeper> Connection<S> {
    fn new(hub: Rc<Hub<S>>, stream: TcpStream, key: SessionKey, link: Rc<Link>) -> Connection<S> {
        Connection { hub, stream, key, link, receiving: true, sending: None }
    }

    async fn run(mut self, buffer: Rc<RefCell<Vec<u8>>>) {
        let mut busy_rounds = 0;
        while !self.link.is_closing() {
            let progress = self.send() | self.receive(&mut buffer.borrow_mut());
            busy_rounds = if progress { busy_rounds + 1 } else { 0 };
            if !progress {
                self.wait().await;
            } else if busy_rounds == TASK_ROUNDS_MAX {
                // Whoever sends faster than he is read must not keep the others from their turn.
                busy_rounds = 0;
                tokio::task::yield_now().await;
            }
        }
        if let Some(outgoing) = self.sending.take().or_else(|| self.link.take_outgoing()) {
            self.hub.sent(self.key, outgoing, Err(io::ErrorKind::Interrupted.into()));
        }
        drop(self.stream);
        self.hub.released(self.key);
    }

    /// Sends what there is. Whether anything happened.
    fn send(&mut self) -> bool {
        if self.sending.is_none() {
            self.sending = self.link.take_outgoing();
        }
        let Some(outgoing) = self.sending.take() else { return false };
        match self.stream.try_write(outgoing.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.sending = Some(outgoing);
                false
            }
            result => {
                self.hub.sent(self.key, outgoing, result);
                true
            }
        }
    }

    /// Receives what there is. Whether anything happened.
    fn receive(&mut self, buffer: &mut [u8]) -> bool {
        if !self.receiving || self.link.is_closing() {
            return false;
        }
        let end = match self.stream.try_read(buffer) {
            Ok(0) => ReceiveEnd::Closed,
            Ok(count) => {
                self.hub.received(self.key, &buffer[..count]);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => ReceiveEnd::Failed,
        };
        self.receiving = false;
        self.hub.receive_ended(self.key, end);
        true
    }

    /// Sleeps until the socket or the shard has something.
    async fn wait(&self) {
        poll_fn(|context| {
            let news = self.link.poll_news(context).is_ready();
            let readable = self.receiving && self.stream.poll_read_ready(context).is_ready();
            let writable =
                self.sending.is_some() && self.stream.poll_write_ready(context).is_ready();
            if news && self.sending.is_none() || self.link.is_closing() || readable || writable {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}
