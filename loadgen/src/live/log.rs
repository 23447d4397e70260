//! Lines that others write (the server's log), which must not disturb a view: they are held back
//! while there is one, and written when it has gone.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::lines::say;
use crate::limits::LINES_BEHIND_VIEW_MAX;

/// Where such lines go.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    /// There is a view.
    back: bool,
    lines: VecDeque<String>,
    /// Those that were too many.
    lost: usize,
    /// The next one that the view has not shown, counted from the first ever.
    shown: usize,
}

impl Log {
    /// Passes on, line by line, whatever is written to `pipe`, on a thread of its own.
    pub fn follow(&self, pipe: impl Read + Send + 'static) -> JoinHandle<()> {
        let log = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                log.line(&String::from_utf8_lossy(&line));
            }
        })
    }

    fn line(&self, line: &str) {
        let mut held = self.lock();
        if !held.back {
            return say(line);
        }
        held.lines.push_back(line.to_owned());
        if held.lines.len() > LINES_BEHIND_VIEW_MAX {
            held.lines.pop_front();
            held.lost += 1;
        }
    }

    /// From now on nothing is written.
    pub(super) fn hold_back(&self) {
        self.lock().back = true;
    }

    /// What has come since this was asked last; it is written at the end all the same.
    pub(super) fn take(&self) -> Vec<String> {
        let mut held = self.lock();
        let skip = held.shown.saturating_sub(held.lost);
        let new: Vec<String> = held.lines.iter().skip(skip).cloned().collect();
        held.shown = held.lost + held.lines.len();
        new
    }

    /// Everything is written, and from now on as it comes.
    pub(super) fn release(&self) {
        let mut held = self.lock();
        if held.lost > 0 {
            say(&format!("({} lines are left out)", held.lost));
        }
        held.lines.drain(..).for_each(|line| say(&line));
        (held.back, held.lost, held.shown) = (false, 0, 0);
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_each_is_shown_once() {
        let log = Log::default();
        log.hold_back();
        (0..3).for_each(|number| log.line(&number.to_string()));
        assert_eq!(log.take(), ["0", "1", "2"]);
        log.line("3");
        assert_eq!(log.take(), ["3"]);
        (0..2 * LINES_BEHIND_VIEW_MAX).for_each(|number| log.line(&number.to_string()));
        assert_eq!(log.take().len(), LINES_BEHIND_VIEW_MAX);
        assert_eq!(log.lock().lost, LINES_BEHIND_VIEW_MAX + 4);
        assert_eq!(log.take(), [""; 0]);
    }
}
