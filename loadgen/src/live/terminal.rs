//! The terminal on standard error: entered for the view, and left as it was whatever happens.
//!
//! Invariant: whoever entered is left by [`leave`], once: at the end of the view, by a panic of any
//! thread before its message is written, and before the process is stopped. Signals that end the
//! run do it in order, so that the view's end comes too; only SIGKILL leaves a terminal behind.

use std::io::{self, IsTerminal as _, Stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::Rect;
use rustix::process::getpgrp;
use rustix::termios::{tcgetpgrp, tcgetwinsize};

static ENTERED: AtomicBool = AtomicBool::new(false);
/// Held while a picture is drawn, so that none is drawn on a terminal that was left.
static DRAWING: Mutex<()> = Mutex::new(());
static RESTORED_BY_PANICS: Once = Once::new();

/// Whether standard error is a terminal that this process may draw on.
pub fn is_fit() -> bool {
    let stderr = io::stderr();
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
    // In the background a change of the terminal's mode would stop the process. A terminal that is
    // not our controlling one has no foreground.
    let background = tcgetpgrp(&stderr).is_ok_and(|group| group != getpgrp());
    stderr.is_terminal() && !dumb && !background
}

/// Whether colours are unwanted (<https://no-color.org>).
pub fn is_plain() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Takes the terminal over.
///
/// # Errors
/// If it has no raw mode, or is gone.
pub fn enter() -> io::Result<()> {
    RESTORED_BY_PANICS.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            leave();
            before(panic);
        }));
    });
    enable_raw_mode()?;
    ENTERED.store(true, Ordering::SeqCst);
    execute!(io::stderr(), EnterAlternateScreen, Hide).inspect_err(|_| leave())
}

/// Leaves it as it was, if it was entered.
pub fn leave() {
    if ENTERED.swap(false, Ordering::SeqCst) {
        let _drawn = drawn();
        // A terminal that is gone need not be restored.
        let _ = execute!(io::stderr(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// Waits until nothing is being drawn, but not for ever: whoever draws may be who panics.
fn drawn() -> Option<MutexGuard<'static, ()>> {
    (0..20).find_map(|_| {
        let guard = DRAWING.try_lock().ok();
        if guard.is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        guard
    })
}

/// Draws, if the terminal is ours.
pub fn draw<T>(picture: impl FnOnce() -> io::Result<T>) -> io::Result<()> {
    let _drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    if is_entered() { picture().map(drop) } else { Ok(()) }
}

/// Whether it is ours now.
pub fn is_entered() -> bool {
    ENTERED.load(Ordering::SeqCst)
}

/// Its size; one that tells none is of the usual size.
pub fn size(stderr: &Stderr) -> Rect {
    match tcgetwinsize(stderr) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => Rect::new(0, 0, size.ws_col, size.ws_row),
        _ => Rect::new(0, 0, 80, 24),
    }
}
