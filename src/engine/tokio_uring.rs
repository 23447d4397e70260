//! The tokio-uring engine: a task per connection on tokio-uring 0.5, the independent implementation
//! that the ring engine is compared with.
//!
//! tokio-uring has single-completion requests only, so every idle connection has a read in flight
//! with a buffer of its own. Dropping a future that is in flight neither cancels nor closes
//! anything: a connection is given up by `shutdown`, after which its read and its write end by
//! themselves.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{Shutdown, TcpListener};
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio_uring::net::TcpStream;

use super::hub::{Hub, Link};
use super::{EngineError, EngineReport, Mailbox, TaskConfig};
use crate::limits::{
    ACCEPT_PAUSE, SUBMISSION_ENTRIES, TOKIO_URING_BUFFER_BYTES, TOKIO_URING_ROUNDS_MAX,
};
use crate::outgoing::Outgoing;
use crate::protocol::Protocol;
use crate::session::SessionKey;
use crate::shard::{ReceiveEnd, Shard};
use crate::sweep::Sweeper;
use crate::sys::{self, Lent};
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
    let listeners = config.prepare_thread()?;
    let mut ring = tokio_uring::uring_builder();
    // DEFER_TASKRUN would hang it: it does not enter the ring to collect.
    ring.setup_coop_taskrun().setup_single_issuer().setup_cqsize(config.completion_entries);
    tokio_uring::builder().entries(SUBMISSION_ENTRIES).uring_builder(&ring).start(async {
        let hub =
            Hub::new(clock, tick, new_shard(), Arc::clone(&config.status), TOKIO_URING_ROUNDS_MAX);
        for (protocol, listener) in listeners {
            tokio_uring::spawn(accept(Rc::clone(&hub), listener, protocol));
        }
        ready();
        tokio::select! {
            report = hub.run(flush) => Ok(report),
            Err(source) = hub.obey(mailbox) => {
                Err(EngineError::Setup { what: "reading an eventfd", source })
            }
        }
    })
}

/// Lets the other tasks run, and everything they have submitted reach the kernel. To yield is not
/// enough: the runtime submits only when it parks, which it does not while a task has yielded. A
/// no-op completes after whatever was submitted before it has been tried.
async fn flush() {
    // Its result says nothing.
    let _ = tokio_uring::no_op().await;
}

/// Accepts from one listener until the server is stopping: then it is closed, and whoever comes is
/// refused by the kernel, or waits if somebody else has the socket too.
///
/// It waits by tokio's epoll. The runtime could not end with an accept in flight, which only a
/// shutdown ends, and that would end the socket for its other owners as well.
async fn accept<S: Sweeper + 'static>(hub: Rc<Hub<S>>, listener: TcpListener, protocol: Protocol) {
    let watched = match sys::watch(listener.as_fd()) {
        Ok(watched) => watched,
        Err(error) => return tracing::error!(%error, "a listener cannot be watched"),
    };
    loop {
        let ready = tokio::select! {
            ready = watched.readable() => ready,
            () = hub.stopping() => return,
        };
        let Ok(mut ready) = ready else { return };
        let Ok(accepted) = ready.try_io(|_| listener.accept()) else { continue };
        match accepted {
            Ok((stream, from)) => {
                let stream = TcpStream::from_std(stream);
                let link = Rc::new(Link::default());
                match hub.opened(&link, protocol, from) {
                    Ok(key) => drop(tokio_uring::spawn(serve(Rc::clone(&hub), stream, key, link))),
                    // Counted by the shard, and closed by being dropped: nothing is in flight.
                    Err(_refusal) => drop(stream),
                }
            }
            Err(error) if super::is_exhaustion(&error) => {
                hub.count(|counters| counters.accepts_paused += 1);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            Err(_) if !hub.is_accepting() => break,
            Err(_) => hub.count(|counters| counters.accept_errors += 1),
        }
    }
}

/// What a connection's task woke up for.
enum Event {
    News,
    Received(io::Result<usize>, Vec<u8>),
    Sent(io::Result<usize>, Outgoing),
}

/// One connection's task.
async fn serve<S: Sweeper>(hub: Rc<Hub<S>>, stream: TcpStream, key: SessionKey, link: Rc<Link>) {
    exchange(&hub, &stream, key, &link).await;
    drop(stream);
    hub.released(key);
}

/// Reads and writes until the connection is given up and nothing is in flight any more. A read and
/// a write may be in flight at a time, and neither is ever dropped.
async fn exchange<S: Sweeper>(hub: &Hub<S>, stream: &TcpStream, key: SessionKey, link: &Link) {
    let mut reading = pin!(Some(read(stream, vec![0; TOKIO_URING_BUFFER_BYTES])));
    let mut writing = pin!(None);
    let mut shut = false;
    loop {
        if link.is_closing() && !shut {
            shut = true;
            // Fails if the peer has gone: then the read and the write end anyway.
            let _ = stream.shutdown(Shutdown::Both);
        }
        if writing.is_none()
            && let Some(outgoing) = link.take_outgoing()
        {
            writing.set(Some(write(stream, outgoing)));
        }
        if shut && reading.is_none() && writing.is_none() {
            return;
        }
        match next_event(link, shut, reading.as_mut(), writing.as_mut()).await {
            Event::News => {}
            Event::Sent(result, outgoing) => {
                writing.set(None);
                hub.sent(key, outgoing, result);
            }
            Event::Received(Ok(count), buffer) if count > 0 => {
                reading.set(None);
                hub.received(key, &buffer[..count]);
                reading.set(Some(read(stream, buffer)));
            }
            Event::Received(result, _) => {
                reading.set(None);
                let end = result.map_or(ReceiveEnd::Failed, |_| ReceiveEnd::Closed);
                hub.receive_ended(key, end);
            }
        }
    }
}

async fn next_event(
    link: &Link,
    shut: bool,
    mut reading: Pin<&mut Option<impl Future<Output = (io::Result<usize>, Vec<u8>)>>>,
    mut writing: Pin<&mut Option<impl Future<Output = (io::Result<usize>, Outgoing)>>>,
) -> Event {
    poll_fn(|context| {
        if let Poll::Ready((result, outgoing)) = poll_slot(writing.as_mut(), context) {
            return Poll::Ready(Event::Sent(result, outgoing));
        }
        if let Poll::Ready((result, buffer)) = poll_slot(reading.as_mut(), context) {
            return Poll::Ready(Event::Received(result, buffer));
        }
        // Once shut down there is nothing more to hear; what waits behind a write in flight is
        // taken up when that has ended.
        let news = !shut && link.poll_news(context).is_ready();
        let of_use = link.is_closing() || writing.is_none();
        if news && of_use { Poll::Ready(Event::News) } else { Poll::Pending }
    })
    .await
}

fn poll_slot<F: Future>(slot: Pin<&mut Option<F>>, context: &mut Context<'_>) -> Poll<F::Output> {
    match slot.as_pin_mut() {
        Some(future) => future.poll(context),
        None => Poll::Pending,
    }
}

async fn read(stream: &TcpStream, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
    stream.read(buffer).await
}

/// Sends the bytes where they lie, and gives them back.
async fn write(stream: &TcpStream, outgoing: Outgoing) -> (io::Result<usize>, Outgoing) {
    let (result, Lent(outgoing)) = stream.write(Lent(outgoing)).submit().await;
    (result, outgoing)
}
