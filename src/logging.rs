//! The log: one line an event on standard error, safe to read, and bounded.
//!
//! Invariants:
//! - whatever an event carries, its line is one line of printable text: a peer can neither make
//!   lines of its own nor steer a terminal;
//! - of each kind (a place in the source) [`LOG_LINES_MAX`] lines are written in a
//!   [`LOG_WINDOW`]; the others are counted ([`suppressed_total`]), and a line tells how many.
//!
//! Cost: nothing for events that nobody wants to see; a lock for each of the others.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::limits::{LOG_FIELD_BYTES_MAX, LOG_LINES_MAX, LOG_WINDOW};

/// The lines that tell of others are of this target, and are not limited themselves.
const TARGET: &str = "heartwheel::log";

static SUPPRESSED: AtomicU64 = AtomicU64::new(0);

/// Lines of the log that were not written since the process began.
pub fn suppressed_total() -> u64 {
    SUPPRESSED.load(Ordering::Relaxed)
}

/// The log of this process. When it is dropped, it tells of the lines that it has left out.
pub struct Log(Arc<Limiter>);

/// Logs to standard error from now on, as RUST_LOG says, or whatever is of level INFO.
pub fn init() -> Log {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let limiter = Arc::new(Limiter::new(LOG_WINDOW));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .fmt_fields(fields());
    let limit = Limit(Arc::clone(&limiter));
    tracing_subscriber::registry().with(lines).with(limit).with(filter).init();
    limiter.tell_in_time();
    Log(limiter)
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.tell();
    }
}

/// How many lines of each kind were written and left out lately.
struct Limiter {
    window: Duration,
    kinds: Mutex<HashMap<Identifier, Kind>>,
    /// Wakes the thread that tells of lines which were left out.
    bell: Mutex<Option<SyncSender<()>>>,
}

struct Kind {
    window_ends: Instant,
    lines: u32,
    suppressed: u64,
    /// The message of the first line that was left out.
    name: String,
}

impl Limiter {
    fn new(window: Duration) -> Limiter {
        Limiter { window, kinds: Mutex::default(), bell: Mutex::default() }
    }

    /// Whether this event's line is to be written.
    fn admits(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        if metadata.target() == TARGET {
            return true;
        }
        let (id, now) = (metadata.callsite(), Instant::now());
        let is_first = {
            let mut kinds = lock(&self.kinds);
            let kind = kinds.entry(id.clone()).or_insert_with(|| Kind {
                window_ends: now + self.window,
                lines: 0,
                suppressed: 0,
                name: String::new(),
            });
            if now >= kind.window_ends {
                (kind.window_ends, kind.lines) = (now + self.window, 0);
            }
            if kind.lines < LOG_LINES_MAX {
                kind.lines += 1;
                return true;
            }
            kind.suppressed += 1;
            kind.suppressed == 1
        };
        SUPPRESSED.fetch_add(1, Ordering::Relaxed);
        if is_first {
            // Not under the lock: whoever formats a message may have something to log.
            let name = message_of(event);
            if let Some(kind) = lock(&self.kinds).get_mut(&id) {
                kind.name = name;
            }
            if let Some(bell) = &*lock(&self.bell) {
                // Full means that it was rung already.
                let _ = bell.try_send(());
            }
        }
        false
    }

    /// Tells of all lines that were left out and not told of.
    fn tell(&self) {
        let mut untold = Vec::new();
        for kind in lock(&self.kinds).values_mut().filter(|kind| kind.suppressed > 0) {
            untold.push((std::mem::take(&mut kind.suppressed), kind.name.clone()));
        }
        for (count, kind) in untold {
            tracing::warn!(target: TARGET, kind, "{count} more suppressed");
        }
    }

    /// Starts the thread that tells within a window, also if nothing of the kind comes any more.
    fn tell_in_time(self: &Arc<Limiter>) {
        let (bell, rung) = sync_channel(1);
        *lock(&self.bell) = Some(bell);
        let limiter = Arc::clone(self);
        let thread = std::thread::Builder::new().name("log".to_owned());
        // Without it they are told of at the end.
        let _ = thread.spawn(move || {
            while rung.recv().is_ok() {
                std::thread::sleep(limiter.window);
                limiter.tell();
            }
        });
    }
}

/// What nobody leaves in disorder may be used after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn message_of(event: &Event<'_>) -> String {
    struct Message(String);
    impl Visit for Message {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            if field.name() == "message" {
                self.0 = format!("{value:?}");
            }
        }
    }
    let mut message = Message(String::new());
    event.record(&mut message);
    message.0
}

/// The limiter where the subscriber asks it.
struct Limit(Arc<Limiter>);

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.0.admits(event)
    }
}

/// How the fields of an event are written: `message name=value`, made printable.
fn fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    debug_fn(|writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| {
        if field.name() != "message" {
            write!(writer, "{field}=")?;
        }
        write!(Printable { writer, left: Some(LOG_FIELD_BYTES_MAX) }, "{value:?}")
    })
    .delimited(" ")
}

/// Writes text as one line that a terminal shows as it is, and not more of it than fits.
struct Printable<'a, W> {
    writer: &'a mut W,
    /// Bytes that may follow; `None` once something was left out.
    left: Option<usize>,
}

impl<W: fmt::Write> fmt::Write for Printable<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            let Some(left) = self.left else { return Ok(()) };
            let escaped = is_unprintable(letter);
            let bytes = if escaped { letter.escape_default().len() } else { letter.len_utf8() };
            self.left = left.checked_sub(bytes);
            if self.left.is_none() {
                return self.writer.write_str("...");
            }
            match escaped {
                true => write!(self.writer, "{}", letter.escape_default())?,
                false => self.writer.write_char(letter)?,
            }
        }
        Ok(())
    }
}

/// Text of a peer in a form that may be shown to a person.
pub fn printable(text: &str) -> String {
    let mut shown = String::new();
    // Writing to a string does not fail.
    let _ = Printable { writer: &mut shown, left: Some(LOG_FIELD_BYTES_MAX) }.write_str(text);
    shown
}

/// Control characters, separators of lines, and what changes the direction of writing.
fn is_unprintable(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(letter, '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a subscriber writes while `act` runs.
    fn logged(limiter: &Arc<Limiter>, act: impl FnOnce()) -> String {
        let file = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&file);
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || Tee(Arc::clone(&writer)))
            .with_ansi(false)
            .without_time()
            .fmt_fields(fields());
        let subscriber =
            tracing_subscriber::registry().with(lines).with(Limit(Arc::clone(limiter)));
        tracing::subscriber::with_default(subscriber, act);
        String::from_utf8(std::mem::take(&mut *lock(&file))).expect("text")
    }

    struct Tee(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Tee {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            lock(&self.0).extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn limiter() -> Arc<Limiter> {
        Arc::new(Limiter::new(Duration::from_secs(3_600)))
    }

    #[test]
    fn nothing_that_a_peer_says_makes_a_line_or_moves_a_terminal() {
        let nasty = "name\r\nINFO heartwheel: all is well\u{1b}[2J\u{7}\0\u{85}\u{202e}\u{2028}";
        let error = std::io::Error::other(nasty);
        let text = logged(&limiter(), || {
            tracing::info!(shown = %nasty, debugged = ?nasty, plain = nasty, "{nasty}");
            tracing::warn!(%error, source = &error as &dyn std::error::Error, "a failure");
        });
        let lines: Vec<_> = text.split('\n').collect();
        assert_eq!(lines.len(), 3, "two lines and what follows the last: {text:?}");
        assert!(text.chars().all(|letter| letter == '\n' || !is_unprintable(letter)), "{text:?}");
        assert_eq!(text.matches("name\\r\\nINFO heartwheel").count(), 6, "{text}");
        assert!(lines[0].contains("shown=name") && lines[0].contains("\\u{1b}[2J"), "{text}");
    }

    #[test]
    fn a_field_is_no_longer_than_it_may_be() {
        let text = printable(&"ä\n".repeat(LOG_FIELD_BYTES_MAX));
        assert!(text.len() <= LOG_FIELD_BYTES_MAX + 3 && text.ends_with("..."), "{}", text.len());
        assert_eq!(printable("short\t"), "short\\t");
    }

    #[test]
    fn of_each_kind_so_many_lines_are_written_and_the_others_told_of() {
        let (limiter, before) = (limiter(), suppressed_total());
        let text = logged(&limiter, || {
            for number in 0..LOG_LINES_MAX + 7 {
                tracing::info!(number, "said often");
            }
            tracing::info!("said once");
            limiter.tell();
            limiter.tell();
        });
        let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
        assert_eq!(count("said often number="), LOG_LINES_MAX as usize, "{text}");
        assert_eq!(count("said once"), 1, "another kind has lines of its own");
        assert_eq!(count("heartwheel::log: 7 more suppressed kind=\"said often\""), 1, "{text}");
        assert_eq!(count("suppressed"), 1, "told of once");
        assert!(suppressed_total() >= before + 7);
    }

    #[test]
    fn after_a_window_lines_are_written_again() {
        let limiter = Arc::new(Limiter::new(Duration::ZERO));
        let text = logged(&limiter, || {
            for _ in 0..2 * LOG_LINES_MAX {
                tracing::info!("said often");
            }
        });
        assert_eq!(text.lines().count(), 2 * LOG_LINES_MAX as usize);
    }
}
