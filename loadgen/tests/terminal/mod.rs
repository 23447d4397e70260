//! A terminal with somebody in front of it: a pseudo terminal, what stands on its screen, and keys.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may as well panic")]

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// Generators run one at a time, as in the other tests.
static TURN: Mutex<()> = Mutex::new(());

/// Waits until it is this test's turn.
pub fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long anything that has to be seen is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the page is left that a view stands on.
const LEAVES_THE_VIEW: &str = "\x1b[?1049l";

/// The terminal, and the generator that runs on it.
pub struct Terminal {
    keyboard: File,
    /// Keeps the terminal there when the generator has gone.
    line: File,
    seen: Arc<Mutex<Seen>>,
    reader: Option<JoinHandle<()>>,
    child: Child,
}

/// What has come.
pub struct Seen {
    screen: vt100::Parser,
    /// Every byte.
    bytes: Vec<u8>,
}

impl Terminal {
    /// Starts `command` on a terminal of this size, with all three standard streams.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let open = || {
            let flags = OFlags::NOCTTY.bits() as i32;
            OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path).unwrap()
        };
        resize(&master, columns, rows);
        let line = open();
        let child = command
            .env("TERM", "xterm-256color")
            .stdin(open())
            .stdout(open())
            .stderr(open())
            .spawn()
            .unwrap();
        let parser = vt100::Parser::new(whole(rows), whole(columns), 1_000);
        let seen = Arc::new(Mutex::new(Seen { screen: parser, bytes: Vec::new() }));
        let keyboard = File::from(master);
        let mut output = keyboard.try_clone().unwrap();
        let shown = Arc::clone(&seen);
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            // Ends when this end, or all others, are closed.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let mut seen = shown.lock().unwrap();
                seen.screen.process(&bytes[..count]);
                seen.bytes.extend(&bytes[..count]);
            }
        });
        Terminal { keyboard, line, seen, reader: Some(reader), child }
    }

    /// Types.
    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Makes it larger or smaller.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        resize(&self.keyboard, columns, rows);
        self.seen.lock().unwrap().screen.screen_mut().set_size(whole(rows), whole(columns));
    }

    /// What stands on the screen.
    pub fn screen(&self) -> String {
        self.seen.lock().unwrap().screen.screen().contents()
    }

    /// Waits until `text` stands on the screen.
    #[track_caller]
    pub fn await_text(&mut self, text: &str) -> String {
        self.wait_until(text, |screen| screen.contains(text))
    }

    /// Waits until the screen is as it should be.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if is_so(&screen) {
                return screen;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("it ended ({status}) before {what} was seen:\n{}", self.screen());
            }
            assert!(Instant::now() < deadline, "{what} was not seen:\n{screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The process on it.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, and for everything that it has written.
    pub fn finish(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        // What the generator wrote lies in the terminal's buffer, and is read in order.
        (&self.line).write_all(b"\r\nall is read\r\n").unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !self.screen().contains("all is read") {
            assert!(Instant::now() < deadline, "the end was not read");
            std::thread::sleep(Duration::from_millis(5));
        }
        status
    }

    /// It is as it was before: echoing, line by line, with a cursor, and not on another page.
    #[track_caller]
    pub fn expect_restored(&self) {
        let modes = tcgetattr(&self.line).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
        let seen = self.seen.lock().unwrap();
        assert!(!seen.screen.screen().alternate_screen(), "{}", seen.screen.screen().contents());
        assert!(!seen.screen.screen().hide_cursor());
    }

    /// What has been written since the view was left, or at all if there was none.
    pub fn after_view(&self) -> String {
        let bytes = self.bytes();
        let text = String::from_utf8_lossy(&bytes);
        text.rsplit(LEAVES_THE_VIEW).next().unwrap_or("").to_owned()
    }

    /// Everything that was ever written to it.
    pub fn bytes(&self) -> Vec<u8> {
        self.seen.lock().unwrap().bytes.clone()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Without effect if it has ended: else a test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        drop(self.reader.take());
    }
}

fn whole(size: u16) -> NonZero<u16> {
    NonZero::new(size).unwrap()
}

fn resize(master: impl std::os::fd::AsFd, columns: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).unwrap();
}
