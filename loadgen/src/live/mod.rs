//! What is shown while a run goes on: a view on a terminal, or else a line now and then.
//!
//! The conductor hands over what the workers have published, twice a second, and goes on; a
//! thread of its own draws ([`view`]), another one looks at the processes and asks the server for
//! its counts ([`watch`]). What is shown is made by [`model`], without clock and terminal.

mod keys;
mod lines;
mod log;
mod model;
mod numbers;
mod panes;
mod screen;
mod shown;
mod terminal;
#[cfg(test)]
mod tests;
mod view;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result};
use heartwheel::time::Timestamp;
use signal_hook::consts::{SIGHUP, SIGQUIT};

pub use self::keys::Wish;
use self::lines::Lines;
pub use self::log::Log;
pub use self::model::Card;
use self::model::Look;
use self::view::View;
use self::watch::Watch;
use crate::cli::Cli;
use crate::crew::Crew;
use crate::limits::LOOKS_EVERY;
use crate::run::steady_at;
use crate::stats::Snapshot;
use crate::worker::Task;

/// Shows how it goes.
pub struct Live {
    lines: Lines,
    log: Log,
    /// A view is wanted, and there is a terminal for it.
    fits: bool,
    shown: Option<Picture>,
    /// The phase's beginning and end.
    span: Option<(Timestamp, Timestamp)>,
}

/// The view and what it needs.
struct Picture {
    view: View,
    watch: Watch,
    task: Arc<Task>,
    fed: Instant,
}

impl Live {
    /// Lines, until a view is opened.
    pub fn new(cli: &Cli) -> Live {
        Live {
            lines: Lines::new(u64::from(cli.own_connections())),
            log: Log::default(),
            fits: !cli.no_live && terminal::is_fit(),
            shown: None,
            span: None,
        }
    }

    /// Whether there is to be a view: then the server should have a control plane, and should not
    /// write to the terminal.
    pub fn is_view(&self) -> bool {
        self.fits
    }

    /// Where lines go that must not disturb the view.
    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// Has the server's control plane asked once, before its memory is measured: what its first
    /// answer takes is no cost of connections.
    pub fn warm_up(&self, admin: Option<SocketAddr>) {
        if let Some(address) = admin.filter(|_| self.fits) {
            // If it does not answer, the view will tell.
            let _ = watch::ask(address);
        }
    }

    /// Opens the view, if there is to be one. Signals that would kill the process then end the run
    /// in order, like Ctrl-C: the terminal has to be restored.
    ///
    /// # Errors
    /// If a thread or a signal is not to be had.
    pub fn open(
        &mut self,
        card: Card,
        task: &Arc<Task>,
        server: Option<u32>,
        admin: Option<SocketAddr>,
        interrupted: &Arc<AtomicBool>,
    ) -> Result<()> {
        if !self.fits {
            return Ok(());
        }
        for signal in [SIGHUP, SIGQUIT] {
            signal_hook::flag::register(signal, Arc::clone(interrupted))
                .context("watching for signals")?;
        }
        let watch = Watch::start(server, admin)?;
        match View::open(card) {
            Ok(view) => {
                self.log.hold_back();
                let (task, fed) = (Arc::clone(task), Instant::now());
                self.shown = Some(Picture { view, watch, task, fed });
            }
            Err(error) => self.say(&format!("no live view, but lines: {error}")),
        }
        Ok(())
    }

    /// A line that stands for itself.
    pub fn say(&mut self, text: &str) {
        match &self.shown {
            Some(picture) => picture.view.note(text),
            None => lines::say(text),
        }
    }

    /// An event begins; a view shows it anyway.
    pub fn announce(&mut self, text: &str) {
        if self.shown.is_none() {
            lines::say(text);
        }
    }

    /// The phase lasts from then until then.
    pub fn expect(&mut self, from: Timestamp, until: Timestamp) {
        self.span = Some((from, until));
    }

    /// The state of things, if it is time.
    pub fn show(&mut self, phase: &'static str, now: &Snapshot, crew: &Crew) {
        if self.shown.as_ref().is_some_and(|picture| picture.view.is_gone()) {
            self.shown = None;
            self.log.release();
        }
        let Some(picture) = &mut self.shown else { return self.lines.show(phase, now) };
        if picture.fed.elapsed() < LOOKS_EVERY {
            return;
        }
        picture.fed = Instant::now();
        self.log.take().into_iter().for_each(|line| picture.view.note(&line));
        let look = picture.look(phase, self.span, now, crew);
        picture.view.feed(look);
    }

    /// What a key wished for, if one did.
    pub fn wish(&mut self) -> Option<Wish> {
        self.shown.as_ref()?.view.wish()
    }

    /// Nothing is asked of the server any more: it is to be stopped.
    pub fn end_watch(&mut self) {
        if let Some(picture) = &mut self.shown {
            picture.watch.end();
        }
    }
}

impl Drop for Live {
    /// The terminal first, then what was held back.
    fn drop(&mut self) {
        self.shown = None;
        self.log.release();
    }
}

impl Picture {
    fn look(
        &self,
        phase: &'static str,
        span: Option<(Timestamp, Timestamp)>,
        now: &Snapshot,
        crew: &Crew,
    ) -> Look {
        let (start, at) = (self.task.start, self.task.clock.now());
        let events = &self.task.scenario.events;
        Look {
            start,
            at: at.since(start),
            phase,
            span: span.map(|(from, until)| (from.since(start), until.since(start))),
            steady_at: steady_at(&self.task)
                .filter(|&steady_at| at >= steady_at)
                .map(|steady_at| steady_at.since(start)),
            paused: self.task.orders.connect_delay().is_none(),
            snapshot: *now,
            detail: crew.detail(),
            rtt: crew.round_trips(),
            seen: self.watch.seen(),
            events: events.iter().copied().collect(),
            planned: events.planned(),
        }
    }
}
