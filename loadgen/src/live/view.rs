//! The thread of the view: draws, and reads keys. It is fed by the conductor, and never waited for.

use std::io::{self, BufWriter};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event};
use ratatui::{Terminal, TerminalOptions, Viewport};
use signal_hook::consts::SIGTSTP;
use signal_hook::low_level::emulate_default_handler;

use super::keys::{Keys, Wish};
use super::model::{Card, Look, Model};
use super::panes::Theme;
use super::{screen, terminal};
use crate::limits::{FRAME_EVERY, VIEW_PATIENCE};

/// So many failures in a row mean that there are no keys.
const KEY_FAILURES_MAX: u32 = 10;

/// What the conductor hands over.
#[derive(Default)]
struct Shared {
    look: Mutex<Option<Look>>,
    messages: Mutex<Vec<String>>,
    over: AtomicBool,
    /// The process is to be stopped (SIGTSTP).
    stop: Arc<AtomicBool>,
}

/// The view, while it is there.
pub struct View {
    shared: Arc<Shared>,
    wishes: Receiver<Wish>,
    thread: Option<JoinHandle<()>>,
}

impl View {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// If that fails: then it is as it was.
    pub fn open(card: Card) -> io::Result<View> {
        let shared = Arc::new(Shared::default());
        signal_hook::flag::register(SIGTSTP, Arc::clone(&shared.stop))?;
        let (sender, wishes) = channel();
        let theme = if terminal::is_plain() { Theme::plain() } else { Theme::coloured() };
        terminal::enter()?;
        let fed = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("view".to_owned()).spawn(move || {
            // Whatever is the matter with the terminal, the run goes on.
            let _ = go_on(&fed, Model::new(card), &theme, &sender);
            terminal::leave();
        });
        let thread = thread.inspect_err(|_| terminal::leave())?;
        Ok(View { shared, wishes, thread: Some(thread) })
    }

    /// Whether it has come to an end by itself: its terminal has gone.
    pub fn is_gone(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// How things are now.
    pub fn feed(&self, look: Look) {
        *self.shared.look.lock().unwrap_or_else(PoisonError::into_inner) = Some(look);
    }

    /// Something is said.
    pub fn note(&self, text: &str) {
        let mut messages = self.shared.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.push(text.to_owned());
    }

    /// What a key wished for, if one did.
    pub fn wish(&self) -> Option<Wish> {
        self.wishes.try_recv().ok()
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        let patience = Instant::now() + VIEW_PATIENCE;
        while let Some(thread) = &self.thread {
            if thread.is_finished() || Instant::now() > patience {
                self.thread = None;
            } else {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        terminal::leave();
    }
}

fn go_on(
    shared: &Shared,
    mut model: Model,
    theme: &Theme,
    wishes: &Sender<Wish>,
) -> io::Result<()> {
    let stderr = io::stderr();
    let mut area = terminal::size(&stderr);
    // Its own idea of a size would be that of the controlling terminal.
    let options = TerminalOptions { viewport: Viewport::Fixed(area) };
    let backend = CrosstermBackend::new(BufWriter::new(io::stderr()));
    let mut screen = Terminal::with_options(backend, options)?;
    let mut keys = Keys::default();
    let mut number = None;
    // Without standard input or a controlling terminal there are no keys, but there is a view.
    let mut key_failures = 0;
    while !shared.over.load(Ordering::Relaxed) && terminal::is_entered() {
        let mut is_new = false;
        if shared.stop.swap(false, Ordering::Relaxed) {
            terminal::leave();
            emulate_default_handler(SIGTSTP)?;
            terminal::enter()?;
            // `clear` would ask the terminal for its cursor, and wait for the answer.
            screen.resize(area)?;
            is_new = true;
        }
        let size = terminal::size(&stderr);
        if size != area {
            (area, is_new) = (size, true);
            screen.resize(area)?;
        }
        let messages =
            std::mem::take(&mut *shared.messages.lock().unwrap_or_else(PoisonError::into_inner));
        is_new |= !messages.is_empty() || keys.number() != number;
        messages.into_iter().for_each(|text| model.note(text));
        let look = shared.look.lock().unwrap_or_else(PoisonError::into_inner).take();
        is_new |= look.is_some();
        look.into_iter().for_each(|look| model.take(look));
        if is_new && let Some(mut shown) = model.shown() {
            number = keys.number();
            shown.number = number;
            let draw = || screen.draw(|frame| screen::draw(frame, &shown, theme)).map(drop);
            terminal::draw(draw)?;
        }
        let next = Instant::now() + FRAME_EVERY;
        while key_failures < KEY_FAILURES_MAX && Instant::now() < next {
            key_failures = match read_keys(&mut keys, wishes, next) {
                Ok(()) => 0,
                Err(_) => key_failures + 1,
            };
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// Reads what is typed until `next`, or until something was.
fn read_keys(keys: &mut Keys, wishes: &Sender<Wish>, next: Instant) -> io::Result<()> {
    if event::poll(next.saturating_duration_since(Instant::now()))?
        && let Event::Key(key) = event::read()?
        && let Some(wish) = keys.press(key)
    {
        // It ends only after this end does.
        let _ = wishes.send(wish);
    }
    Ok(())
}
