//! Looks at both processes, the kernel and the server's own counts, on a thread of its own:
//! whatever answers late holds nothing up.
//!
//! Cost: a few short files of `/proc` and one request (`/stats`) a second, and the kernel's slab
//! caches every few seconds.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::host::kernel::{self, KernelSample};
use crate::host::process::{self, ProcessSample};
use crate::limits;
use crate::report::Law;
use crate::scenario::admin;
use crate::stats::Counts;

/// What was seen last.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// When, counted from the first look.
    pub at: Duration,
    pub server: Option<ProcessSample>,
    pub generator: Option<ProcessSample>,
    pub kernel: Option<KernelSample>,
    /// What the server says of itself, if it was asked and has answered.
    pub says: Option<Says>,
    /// Why it has not.
    pub silence: Option<String>,
}

/// What a server's `/stats` tells.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Says {
    pub counters: Counters,
    #[serde(default)]
    pub laws: Vec<Law>,
}

/// The few of its counters that are shown.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Sessions that are open now.
    pub open: u64,
    /// Sessions closed, by reason.
    pub closed: Counts,
}

/// The thread. It ends by itself soon after this is dropped.
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts it.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(server: Option<u32>, admin: Option<SocketAddr>) -> Result<Watch> {
        let (seen, over) = (Arc::default(), Arc::default());
        let (shown, is_over) = (Arc::clone(&seen), Arc::clone(&over));
        let thread = std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || look_on(server, admin, &shown, &is_over))
            .context("starting the watching thread")?;
        Ok(Watch { seen, over, thread: Some(thread) })
    }

    /// What it has seen last.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing is looked at any more; a look that goes on is not waited for for long.
    pub fn end(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let patience = Instant::now() + limits::VIEW_PATIENCE;
        while let Some(thread) = &self.thread {
            if thread.is_finished() || Instant::now() > patience {
                self.thread = None;
            } else {
                thread.thread().unpark();
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn look_on(server: Option<u32>, admin: Option<SocketAddr>, shown: &Mutex<Seen>, over: &AtomicBool) {
    let started = Instant::now();
    let mut slow = Slow::default();
    while !over.load(Ordering::Relaxed) {
        let asked = admin.map(ask).transpose();
        let at = started.elapsed();
        if slow.kernel.is_none() || at >= slow.at + limits::KERNEL_LOOKS_EVERY {
            slow = Slow::look(at, server);
        }
        let (says, silence) = match asked {
            Ok(says) => (says, None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let generator = slow.exact(process::glance(std::process::id()), slow.generator_bytes);
        let server = slow.exact(server.and_then(process::glance), slow.server_bytes);
        let kernel = slow.kernel;
        *shown.lock().unwrap_or_else(PoisonError::into_inner) =
            Seen { at: started.elapsed(), server, generator, kernel, says, silence };
        std::thread::park_timeout(limits::WATCH_EVERY);
    }
}

/// What is dear to look at: see `KERNEL_LOOKS_EVERY`.
#[derive(Default)]
struct Slow {
    at: Duration,
    kernel: Option<KernelSample>,
    server_bytes: Option<u64>,
    generator_bytes: Option<u64>,
}

impl Slow {
    fn look(at: Duration, server: Option<u32>) -> Slow {
        let bytes = |pid| process::sample(pid).map(|sample| sample.rss_bytes);
        Slow {
            at,
            kernel: Some(kernel::sample()),
            server_bytes: server.and_then(bytes),
            generator_bytes: bytes(std::process::id()),
        }
    }

    /// A glance may be off by a megabyte, as much as ten thousand clients take.
    fn exact(&self, glance: Option<ProcessSample>, bytes: Option<u64>) -> Option<ProcessSample> {
        glance
            .map(|glance| ProcessSample { rss_bytes: bytes.unwrap_or(glance.rss_bytes), ..glance })
    }
}

/// What the server at a control plane says of itself.
///
/// # Errors
/// If it does not, or says something else.
pub fn ask(address: SocketAddr) -> Result<Says> {
    let answer = admin::request(address, "GET", "/stats", b"")?;
    serde_json::from_slice(&answer).with_context(|| format!("what {address} says as /stats"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_read_whatever_else_stands_in_it() {
        let says: Says = serde_json::from_str(
            r#"{"engine":"uring","counters":{"open":7,"accepted":9,"closed":{"expired":2}},
                "laws":[{"name":"a = b","holds":true,"left":1,"right":1}],"shards":[]}"#,
        )
        .unwrap();
        assert_eq!((says.counters.open, says.counters.closed["expired"]), (7, 2));
        assert!(says.laws[0].holds);
    }
}
