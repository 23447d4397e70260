//! The server that most people would write: tokio, a task per connection, and with
//! `--idle-timeout` a timer per connection that every receive resets.
//!
//! Made as well as it can be without giving up that shape: a runtime per thread and no work
//! stealing, so no locks; a SO_REUSEPORT listener each; a small buffer in the task; one `Sleep` per
//! task, pinned in it and reset in place. A descriptor table per thread takes it past
//! RLIMIT_NOFILE, as the server's epoll engine does. `scripts/compare-engines` holds the engines
//! against it.
//!
//! ```text
//! cargo run --release --example tokio_echo -- tcp://127.0.0.1:7500 200000 --idle-timeout 90s
//! loadgen --target tcp://127.0.0.1:7500 --no-hello -i 10s -c 200k
//! ```

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use heartwheel::engine::TaskLayout;
use heartwheel::protocol::frame::PONG;
use heartwheel::socket::{SocketOptions, free_address, join_listeners};
use heartwheel::sys::leave_descriptor_table;
use heartwheel::units::Span;
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until};

/// What a task reads at once.
const BUFFER_BYTES: usize = 512;

/// Length of a PING.
const PING_BYTES: usize = 3;

async fn accept(listener: TcpListener, idle_timeout: Option<Duration>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::task::spawn_local(async move {
                    // The connection is closed whatever the reason.
                    let _ = match idle_timeout {
                        Some(timeout) => serve_with_timeout(&stream, timeout).await,
                        None => serve(&stream).await,
                    };
                });
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Answers until the peer closes.
async fn serve(stream: &TcpStream) -> io::Result<()> {
    let mut buffer = [0; BUFFER_BYTES];
    while let count @ 1.. = receive(stream, &mut buffer).await? {
        answer(stream, count).await?;
    }
    Ok(())
}

/// Answers until the peer closes, or is silent for `timeout`.
async fn serve_with_timeout(stream: &TcpStream, timeout: Duration) -> io::Result<()> {
    let mut buffer = [0; BUFFER_BYTES];
    let mut silence = std::pin::pin!(sleep_until(Instant::now() + timeout));
    loop {
        let count = tokio::select! {
            received = receive(stream, &mut buffer) => received?,
            () = silence.as_mut() => return Ok(()),
        };
        if count == 0 {
            return Ok(());
        }
        silence.as_mut().reset(Instant::now() + timeout);
        answer(stream, count).await?;
    }
}

async fn receive(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    stream.async_io(Interest::READABLE, || stream.try_read(buffer)).await
}

/// One PONG for each PING: as in `ring_echo`, whatever was received counts as such.
async fn answer(stream: &TcpStream, received_bytes: usize) -> io::Result<()> {
    for _ in 0..received_bytes.div_ceil(PING_BYTES) {
        // Three bytes go whole or not at all.
        stream.async_io(Interest::WRITABLE, || stream.try_write(&PONG)).await?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let usage = "usage: tokio_echo tcp://ADDR:PORT MAX_CONNECTIONS [--idle-timeout DURATION]";
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (address, connections, idle_timeout) = match arguments[..] {
        [address, connections] => (address, connections, None),
        [address, connections, "--idle-timeout", timeout] => {
            let timeout: Span = timeout.parse().map_err(|error| anyhow!("{error}; {usage}"))?;
            (address, connections, Some(timeout.0))
        }
        _ => bail!(usage),
    };
    let address: SocketAddr = address.strip_prefix("tcp://").context(usage)?.parse()?;

    let cores = heartwheel::host::usable_cores();
    let limit = heartwheel::host::raise_descriptor_limit()?;
    let layout = TaskLayout::new(connections.parse()?, None, cores.len(), limit)?;
    let bound = free_address(address)?;
    let pinned = layout.shards <= cores.len();
    let mut threads = Vec::new();
    for number in 0..layout.shards {
        let core = cores.get(number).copied().filter(|_| pinned);
        threads.push(std::thread::spawn(move || run_on(core, bound, idle_timeout)));
    }
    // The first load comes a good while after this line.
    sleep_until_listening(bound)?;
    writeln!(io::stdout(), "{{\"ready\":true,\"listen\":[\"tcp://{bound}\"]}}")?;
    for thread in threads {
        thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    Ok(())
}

fn sleep_until_listening(address: SocketAddr) -> Result<()> {
    for _ in 0..100 {
        if std::net::TcpStream::connect(address).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("nobody listens on {address} after 5 seconds")
}

fn run_on(core: Option<usize>, address: SocketAddr, idle_timeout: Option<Duration>) -> Result<()> {
    if let Some(core) = core {
        let mut set = CpuSet::new();
        set.set(core);
        sched_setaffinity(None, &set)?;
    }
    leave_descriptor_table()?;
    let listener = std::net::TcpListener::from(join_listeners(address, &SocketOptions::default())?);
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        accept(TcpListener::from_std(listener)?, idle_timeout).await;
        Ok(())
    })
}
