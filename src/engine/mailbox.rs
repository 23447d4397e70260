//! How other threads speak to a shard: a queue, and an eventfd that wakes the shard's ring. The
//! shard looks into the queue only when it was woken, and takes no lock.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

use crate::session::SessionKey;
use crate::shard::{PushAccount, PushMessage, PushRefused, SessionView, Shard};
use crate::sweep::Sweeper;
use crate::time::Timestamp;

/// What a shard can be told.
#[derive(Debug)]
pub enum Command {
    /// Accept nobody any more, tell every session, close them over `spread`, and end.
    Drain {
        /// Over so much time.
        spread: Duration,
        /// After so much time end in any case.
        timeout: Duration,
        /// Where the number of open sessions goes.
        reply: Option<oneshot::Sender<u64>>,
    },
    /// End at once.
    Halt,
    /// Tell about a session, if it is still there.
    Inspect {
        /// Which.
        key: SessionKey,
        /// Where the answer goes.
        reply: oneshot::Sender<Option<SessionView>>,
    },
    /// Close a session. The answer is whether it was still there.
    Kick {
        /// Which.
        key: SessionKey,
        /// Where the answer goes.
        reply: oneshot::Sender<bool>,
    },
    /// Push a message to a session.
    Push {
        /// Which.
        key: SessionKey,
        /// What.
        message: PushMessage,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<PushAccount, PushRefused>>,
    },
    /// Push a message to every session that is open.
    Broadcast {
        /// What.
        message: PushMessage,
        /// Over so much time.
        spread: Duration,
        /// Where the answer goes, as soon as the broadcast has begun.
        reply: oneshot::Sender<Result<PushAccount, PushRefused>>,
    },
    /// Give a letter to the shard's handler.
    Letter(Arc<[u8]>),
    /// Tell what has become of a push, if that is known.
    PushAccount {
        /// Which.
        id: u64,
        /// Where the answer goes.
        reply: oneshot::Sender<Option<PushAccount>>,
    },
}

impl Command {
    /// Does what concerns the shard alone. If the engine is to end: after how
    /// much time in any case.
    pub fn obey<S: Sweeper, C>(self, shard: &mut Shard<S, C>, now: Timestamp) -> Option<Duration> {
        // Whoever asked may have gone: then nobody hears the answer.
        match self {
            Command::Halt => {
                shard.drain(Duration::ZERO, now);
                return Some(Duration::ZERO);
            }
            Command::Drain { spread, timeout, reply } => {
                let open = shard.drain(spread, now);
                let _ = reply.map(|reply| reply.send(open));
                return Some(timeout);
            }
            Command::Inspect { key, reply } => drop(reply.send(shard.view(key, now))),
            Command::Kick { key, reply } => drop(reply.send(shard.kick(key, now))),
            Command::Push { key, message, reply } => {
                drop(reply.send(shard.push(key, &message, now)));
            }
            Command::Broadcast { message, spread, reply } => {
                drop(reply.send(shard.broadcast(message, spread, now)));
            }
            Command::Letter(letter) => shard.deliver_letter(&letter, now),
            Command::PushAccount { id, reply } => drop(reply.send(shard.push_account(id))),
        }
        None
    }
}

/// The sending end; clones share the queue.
#[derive(Clone, Debug)]
pub struct MailSender {
    queue: Sender<Command>,
    bell: Arc<OwnedFd>,
}

/// The shard's end.
#[derive(Debug)]
pub struct Mailbox {
    queue: Receiver<Command>,
    bell: Arc<OwnedFd>,
}

/// A new mailbox and a sender to it.
///
/// # Errors
/// If there is no descriptor left for the eventfd.
pub fn mailbox() -> io::Result<(MailSender, Mailbox)> {
    let (sender, receiver) = channel();
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    Ok((MailSender { queue: sender, bell: Arc::clone(&bell) }, Mailbox { queue: receiver, bell }))
}

impl MailSender {
    /// Leaves a command and rings the bell. Whether the shard is still there to hear it.
    pub fn send(&self, command: Command) -> bool {
        let left = self.queue.send(command).is_ok();
        // Fails only if the bell's count is full: then it rings already.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        left
    }
}

impl Mailbox {
    /// The eventfd that rings when there is something.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The next command, if there is one.
    pub fn take(&self) -> Option<Command> {
        self.queue.try_recv().ok()
    }
}
