//! The server is killed under load and started again: everybody comes back, and the account tells.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may as well panic")]

mod generator;
mod server;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use generator::{finish, start, turn};
use serde_json::Value;

const CLIENTS: u64 = 300;
const PATIENCE: Duration = Duration::from_secs(20);

/// A server; killed when dropped.
struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    url: String,
}

impl Server {
    /// On this address; `None` if it does not start.
    fn start(url: &str) -> Option<Server> {
        let mut child = Command::new(server::program())
            .args(["serve", "--listen", url, "--admin", "off", "--shards", "1"])
            .args(["--idle-timeout", "6s", "--heartbeat-interval", "300ms"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let Ok(ready) = serde_json::from_str::<Value>(&line) else {
            child.wait().unwrap();
            return None;
        };
        let url = ready["listen"][0].as_str().unwrap().to_owned();
        Some(Server { child, stdout, url })
    }

    /// SIGKILL: nobody is told anything.
    fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.url.clone()
    }

    /// SIGTERM: its final account.
    fn stop(mut self) -> Value {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success());
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn everybody_is_back_after_the_server_was_killed_and_nobody_is_expired() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    let first = Server::start("tcp://127.0.0.1:0").expect("it starts");
    let generator = start(&format!(
        "--target {} -c {CLIENTS} -i 300ms --idle-timeout 6s -d 6s --no-live \
         --reconnect exp:50ms..500ms,full-jitter",
        first.url
    ));
    std::thread::sleep(Duration::from_millis(2_500));
    let url = first.kill();
    // The kernel takes the killed one's rings apart at its leisure, and their listeners with them.
    let begun = Instant::now();
    let second = loop {
        if let Some(server) = Server::start(&url) {
            break server;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not start again on {url}");
        std::thread::sleep(Duration::from_millis(50));
    };
    let outcome = finish(generator);
    let last = second.stop();
    let report = &outcome.report;
    // The generator has to tell that connections were lost without cause.
    assert_eq!(outcome.code, Some(99), "{} {report}", outcome.stderr);
    assert_eq!(report["expiry"]["false_healthy"], CLIENTS, "{report}");
    let numbers = [
        ("reconnect.lost", CLIENTS),
        ("reconnect.reopened", CLIENTS),
        ("reconnect.away", 0),
        ("connections.open_at_end", CLIENTS),
    ];
    for (path, expected) in numbers {
        assert_eq!(outcome.number(path), expected as f64, "{path}: {report}");
    }
    assert_eq!(last["counters"]["closed"].get("expired"), None, "{last:#}");
    assert!(last["counters"]["heartbeats_answered"].as_u64().unwrap() > CLIENTS, "{last:#}");
    assert!(last["laws"].as_array().unwrap().iter().all(|law| law["holds"] == true), "{last:#}");
}
