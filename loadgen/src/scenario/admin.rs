//! Asking the server's control plane to push and to drain, on a thread of its own: an answer that
//! is late holds nothing up.
//!
//! HTTP/1.0, a connection for each request: the answer ends where the connection does.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use heartwheel::logging::printable;
use serde::{Deserialize, Serialize};

use super::{Kind, payload};
use crate::limits;
use crate::stats::Counts;
use crate::worker::Task;

/// What the server says of one push, or of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerAccount {
    pub requested: Option<u64>,
    pub acknowledged: Option<u64>,
    /// Written, and not acknowledged: a WebSocket never does.
    pub unconfirmed: Option<u64>,
    pub pending: Option<u64>,
    #[serde(default)]
    pub dropped: Counts,
}

impl ServerAccount {
    /// Adds that of another push.
    pub fn add(&mut self, other: &ServerAccount) {
        for (total, part) in [
            (&mut self.requested, other.requested),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.unconfirmed, other.unconfirmed),
            (&mut self.pending, other.pending),
        ] {
            *total = Some(total.unwrap_or(0) + part.unwrap_or(0));
        }
        for (reason, count) in &other.dropped {
            *self.dropped.entry(reason.clone()).or_default() += count;
        }
    }

    fn is_settled(&self) -> bool {
        self.pending == Some(0) && self.unconfirmed == Some(0)
    }
}

/// What came of asking for one event.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Of the broadcast.
    pub push_id: Option<u64>,
    /// As it was last.
    pub account: Option<ServerAccount>,
    /// Why there is none.
    pub failure: Option<String>,
}

#[derive(Deserialize)]
struct Begun {
    push_id: u64,
    #[serde(flatten)]
    account: ServerAccount,
}

/// The thread.
pub struct Admin {
    orders: Sender<usize>,
    thread: JoinHandle<Vec<Answer>>,
}

impl Admin {
    /// Starts it.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(address: SocketAddr, task: Arc<Task>) -> Result<Admin> {
        let (orders, received) = channel();
        let thread = std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || serve(address, &task, &received))
            .context("starting the admin thread")?;
        Ok(Admin { orders, thread })
    }

    /// It is time for event number `event`.
    pub fn ask(&self, event: usize) {
        // It ends only after this end does.
        let _ = self.orders.send(event);
    }

    /// Waits for the last accounts; an answer for every event.
    pub fn finish(self) -> Vec<Answer> {
        drop(self.orders);
        self.thread.join().unwrap_or_default()
    }
}

fn serve(address: SocketAddr, task: &Task, orders: &Receiver<usize>) -> Vec<Answer> {
    let mut answers = vec![Answer::default(); task.scenario.events.iter().count()];
    loop {
        match orders.recv_timeout(limits::ADMIN_LOOKS_EVERY) {
            Ok(event) => {
                answers.resize(answers.len().max(event + 1), Answer::default());
                match ask(address, task, event) {
                    Ok(answer) => answers[event] = answer,
                    Err(error) => answers[event].failure = Some(format!("{error:#}")),
                }
            }
            Err(RecvTimeoutError::Timeout) => look(address, &mut answers),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    look(address, &mut answers);
    answers
}

/// Asks for one event.
fn ask(address: SocketAddr, task: &Task, event: usize) -> Result<Answer> {
    let spread = |spread: Option<Duration>| {
        spread.map(|spread| format!("?spread={}ms", spread.as_millis())).unwrap_or_default()
    };
    let Some(kind) = task.scenario.events.get(event).map(|event| event.kind) else {
        return Ok(Answer::default());
    };
    let (path, body) = match kind {
        Kind::Storm(_) => return Ok(Answer::default()),
        Kind::Drain(over) => (format!("/drain{}", spread(over)), Vec::new()),
        Kind::Broadcast(bytes, over) => {
            (format!("/broadcast{}", spread(over)), payload(event, bytes))
        }
    };
    let sent_at = task.clock.now().as_nanos();
    task.orders.acted_at[event].store(sent_at, Ordering::Release);
    let answer = request(address, "POST", &path, &body)?;
    let Kind::Broadcast(..) = kind else {
        return Ok(Answer::default());
    };
    let begun: Begun = serde_json::from_slice(&answer).with_context(|| {
        format!("POST {path}: {}", printable(&String::from_utf8_lossy(&answer)))
    })?;
    Ok(Answer { push_id: Some(begun.push_id), account: Some(begun.account), failure: None })
}

/// Reads the accounts of the pushes that still go on. A server that has gone keeps its last word.
fn look(address: SocketAddr, answers: &mut [Answer]) {
    for answer in answers {
        let (Some(id), Some(account)) = (answer.push_id, &mut answer.account) else { continue };
        if account.is_settled() {
            continue;
        }
        let read = request(address, "GET", &format!("/pushes/{id}"), b"");
        if let Some(now) = read.ok().and_then(|body| serde_json::from_slice(&body).ok()) {
            *account = now;
        }
    }
}

/// One request of the control plane; the body of the answer.
///
/// # Errors
/// If there is none, or it tells of a failure.
pub fn request(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
    let what = || format!("{method} {path} on {address}");
    let patience = limits::ADMIN_PATIENCE;
    let mut stream = TcpStream::connect_timeout(&address, patience).with_context(what)?;
    stream.set_read_timeout(Some(patience)).with_context(what)?;
    stream.set_write_timeout(Some(patience)).with_context(what)?;
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).with_context(what)?;
    let mut answer = Vec::new();
    stream.take(limits::ADMIN_ANSWER_BYTES_MAX).read_to_end(&mut answer).with_context(what)?;
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(&answer).with_context(what)?;
    let httparse::Status::Complete(front) = parsed else {
        anyhow::bail!("{}: the answer is cut short", what())
    };
    let code = response.code.unwrap_or(0);
    let rest = answer.split_off(front);
    ensure!(
        (200..300).contains(&code),
        "{}: {code} {}",
        what(),
        printable(String::from_utf8_lossy(&rest).trim())
    );
    Ok(rest)
}
