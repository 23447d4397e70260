//! The live view as whoever sits in front of it sees it: on a pseudo terminal, with keys and
//! signals.

mod server;
mod terminal;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use terminal::{Terminal, turn};

/// A run on a terminal, and where its report will be.
struct Run {
    terminal: Terminal,
    report: PathBuf,
}

impl Run {
    fn start(name: &str, flags: &str) -> Run {
        Run::with(name, flags, |command| command, 80, 24)
    }

    fn with(
        name: &str,
        flags: &str,
        change: impl Fn(&mut Command) -> &mut Command,
        columns: u16,
        rows: u16,
    ) -> Run {
        let file = format!("loadgen-view-{name}-{}.json", std::process::id());
        let report = std::env::temp_dir().join(file);
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
        command.args(flags.split_whitespace()).arg("--report").arg(&report).env_remove("NO_COLOR");
        change(&mut command);
        Run { terminal: Terminal::start(command, columns, rows), report }
    }

    /// Its exit code and its report; the terminal must be as it was before.
    fn finish(&mut self) -> (Option<i32>, Value) {
        let status = self.terminal.finish();
        self.terminal.expect_restored();
        let report = fs::read_to_string(&self.report).unwrap_or_default();
        let _ = fs::remove_file(&self.report);
        (status.code(), serde_json::from_str(&report).unwrap_or(Value::Null))
    }
}

/// Pauses, goes on, storms and ends: each leaves its mark in the report.
#[test]
fn keys_do_what_they_say() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    let flags = "-c 600 --connect-rate 100 -i 300ms --idle-timeout 10s --silent 5% -d 60s \
                 --slo rtt.p99<10s --at 50s:drain";
    let mut run = Run::start("keys", flags);
    let view = &mut run.terminal;
    view.await_text("connecting");
    view.press("p");
    view.await_text("PAUSED");
    // Who was on his way in arrives, and nobody after.
    std::thread::sleep(Duration::from_millis(600));
    let open = |screen: &str| {
        let line = screen.lines().find(|line| line.starts_with(" open")).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let before = open(&view.screen());
    std::thread::sleep(Duration::from_millis(1_000));
    assert_eq!(open(&view.screen()), before, "nobody opens in a pause");
    assert_ne!(before, "600");
    // A storm belongs to the steady state.
    view.press("s");
    view.await_text("only in the steady state");
    view.press("p");
    view.await_text("holding");
    view.wait_until("an SLO that holds", |screen| {
        screen.lines().any(|line| line.contains('✓') && line.contains("rtt.p99<10s"))
    });
    let screen = view.await_text("server 600");
    for pane in ["connections", "heartbeats", "round trip", "expiry", "cost", "SLOs", "events"] {
        assert!(screen.contains(&format!("─ {pane} ")), "{pane}:\n{screen}");
    }
    view.press("25s");
    view.await_text("storm of 25 % (key)");
    view.wait_until("their return", |screen| {
        screen.lines().any(|line| line.contains("storm") && !line.contains(" 0 back"))
    });
    view.press("q");
    let (code, report) = run.finish();
    assert_eq!((code, report["verdict"].as_str()), (Some(105), Some("interrupted")), "{report}");
    assert!(report["connect"]["paused_s"].as_f64().unwrap() >= 1.5, "{}", report["connect"]);
    assert!(report["connect"]["behind_plan_s"].as_f64().unwrap() < 1.0, "{}", report["connect"]);
    let events = report["events"].as_array().unwrap();
    assert_eq!((events.len(), &events[0]["kind"]), (2, &Value::from("drain")), "{events:?}");
    assert_eq!((&events[0]["affected"], &events[1]["kind"]), (&0.into(), &"storm".into()));
    let killed = events[1]["affected"].as_f64().unwrap();
    assert!((120.0..=150.0).contains(&killed), "a quarter of those who are not silent: {killed}");
    assert_eq!(report["reconnect"]["killed"].as_f64(), Some(killed));
    assert!(events[1]["rtt_p999_before_us"].as_f64() > Some(0.0), "{events:?}");
    let at = format!("--at {}ms:storm:25%", events[1]["at_ms"]);
    assert!(report["notes"].to_string().contains(&at), "{at}: {}", report["notes"]);
    // What is printed at the end stays.
    let end = run.terminal.after_view();
    assert!(end.contains("INTERRUPTED: 600 of 600 clients open"), "{end}");
}

/// A drain by a key is judged like one that was planned: every law holds.
#[test]
fn a_drain_by_a_key_is_one_like_others() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    let flags = "-c 300 --connect-rate 4k -i 300ms --idle-timeout 5s --silent 2% -d 7s";
    let mut run = Run::with("drain", flags, |command| command, 120, 40);
    run.terminal.await_text("holding");
    std::thread::sleep(Duration::from_secs(1));
    run.terminal.press("1d");
    run.terminal.await_text("drain over 1 s (key)");
    let (code, report) = run.finish();
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["events"][0]["kind"], "drain");
    assert_eq!(
        (&report["reconnect"]["drained"], &report["reconnect"]["drained_silent"]),
        (&300.into(), &6.into())
    );
    assert!(run.terminal.after_view().contains("PASSED: 300 of 300"));
}

/// Whatever ends a run, the terminal is as it was before.
#[test]
fn the_terminal_is_restored_whatever_happens() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    for (name, signal) in
        [("term", Signal::TERM), ("int", Signal::INT), ("hup", Signal::HUP), ("quit", Signal::QUIT)]
    {
        let mut run = Run::start(name, "-c 100 -i 300ms --idle-timeout 2s -d 60s");
        run.terminal.await_text("holding");
        let process = Pid::from_raw(run.terminal.process() as i32).unwrap();
        kill_process(process, signal).unwrap();
        assert_eq!(run.finish().0, Some(105), "{name}");
    }
    let mut run = Run::start("control-c", "-c 100 -i 300ms --idle-timeout 2s -d 60s");
    run.terminal.await_text("holding");
    run.terminal.press("\u{3}");
    assert_eq!(run.finish().0, Some(105));

    // The server dies under it, and with flags that the server refuses there is no view at all.
    let mut run = Run::start("dies", "-c 100 -i 300ms --idle-timeout 2s -d 60s");
    run.terminal.await_text("holding");
    let children = format!("/proc/{0}/task/{0}/children", run.terminal.process());
    let server: i32 = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(server).unwrap(), Signal::KILL).unwrap();
    let (code, report) = run.finish();
    assert_eq!((code, report["verdict"].as_str()), (Some(99), Some("failed")), "{report}");
    let mut run = Run::start("refused", "-c 100 --server-args=--nonsense");
    assert_eq!(run.finish().0, Some(2));
    assert!(run.terminal.screen().contains("--nonsense"), "{}", run.terminal.screen());
}

/// Who is stopped gives the terminal back, and takes it again when he goes on.
#[test]
fn the_terminal_is_given_back_while_the_run_is_stopped() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    let mut run = Run::start("stopped", "-c 100 -i 300ms --idle-timeout 10s -d 60s");
    run.terminal.await_text("holding");
    let process = Pid::from_raw(run.terminal.process() as i32).unwrap();
    kill_process(process, Signal::TSTP).unwrap();
    run.terminal.wait_until("the shell's page", |screen| !screen.contains("holding"));
    let stat = format!("/proc/{}/stat", run.terminal.process());
    let stopped =
        |stat: &str| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" T"));
    run.terminal
        .wait_until("a stop", |_| fs::read_to_string(&stat).is_ok_and(|stat| stopped(&stat)));
    run.terminal.expect_restored();
    kill_process(process, Signal::CONT).unwrap();
    run.terminal.await_text("holding");
    run.terminal.press("q");
    assert_eq!(run.finish().0, Some(105));
}

/// The view follows the size of its terminal, and uses no colours where none are wanted.
#[test]
fn it_fits_and_does_without_colours() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    let flags = "-c 100 -i 300ms --idle-timeout 2s -d 60s";
    let mut run = Run::with("plain", flags, |command| command.env("NO_COLOR", "1"), 120, 40);
    run.terminal.await_text("╭─ connections ─");
    run.terminal.resize(80, 24);
    run.terminal.wait_until("fewer columns", |screen| {
        !screen.contains('╭') && screen.contains("─ connections ─") && screen.contains("q end")
    });
    run.terminal.resize(30, 5);
    run.terminal.wait_until("one line", |screen| screen.trim().lines().count() == 1);
    run.terminal.press("q");
    assert_eq!(run.finish().0, Some(105));
    let bytes = run.terminal.bytes();
    let text = String::from_utf8_lossy(&bytes);
    let coloured = text.split("\x1b[").skip(1).any(|rest| {
        let code = rest.split_once('m').map_or("", |(code, _)| code);
        code.split(';').any(|part| matches!(part.parse::<u8>(), Ok(30..=38 | 40..=48 | 90..=107)))
            && code.bytes().all(|byte| byte.is_ascii_digit() || byte == b';')
    });
    assert!(!coloured && text.contains("\x1b[?1049h"), "{text}");
}

#[test]
fn without_a_view_there_are_lines() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    let flags = "-c 200 --connect-rate 200 -i 300ms --idle-timeout 2s -d 1s --no-live";
    let mut run = Run::start("lines", flags);
    assert_eq!(run.finish().0, Some(0));
    let all = run.terminal.after_view();
    assert!(!all.contains("\x1b[?1049h"), "{all}");
    assert!(all.contains("connecting") && all.contains("PASSED"), "{all}");
}
