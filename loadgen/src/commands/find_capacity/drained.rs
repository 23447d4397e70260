//! Between two runs against one server: waiting until it is as empty as it was, and until enough of
//! the ports that the last run has closed can be used again.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::forecast::{ports_that_linger, ports_there_are};
use crate::cli::Cli;
use crate::limits::DRAINED_PATIENCE;
use crate::scenario::admin;
use crate::units::grouped;

/// How often the server is looked at.
const LOOKS_EVERY: Duration = Duration::from_millis(200);
/// So many more than before are others' clients: one part of the load, and a few.
const OTHERS_DIVISOR: u64 = 100;
const OTHERS: u64 = 5;

/// The server of `--target`, and how full it was at first.
pub struct Drained<'a> {
    cli: &'a Cli,
    before: Option<u64>,
}

impl<'a> Drained<'a> {
    /// Nothing has been run yet.
    pub fn new(cli: &'a Cli) -> Drained<'a> {
        Drained { cli, before: connections(cli) }
    }

    /// Waits, at least for `settle`, for everything that was there before `load` clients, and the
    /// next ones need, to be there again. What to say if that did not come to pass.
    pub fn wait(
        &self,
        settle: Duration,
        load: u32,
        interrupted: &AtomicBool,
        mut line: impl FnMut(&str),
    ) -> Option<String> {
        let began = Instant::now();
        loop {
            let missing = self.missing(load);
            let passed = began.elapsed();
            let over = interrupted.load(Ordering::Relaxed) || passed >= DRAINED_PATIENCE + settle;
            if passed >= settle && (missing.is_none() || over) {
                return missing.filter(|_| !interrupted.load(Ordering::Relaxed));
            }
            if let Some(missing) = &missing {
                line(&format!("waiting: {missing}"));
            }
            std::thread::sleep(LOOKS_EVERY.min(settle.saturating_sub(passed).max(LOOKS_EVERY / 4)));
        }
    }

    fn missing(&self, load: u32) -> Option<String> {
        self.cli.target.as_ref()?;
        let load = u64::from(load);
        if let (Some(before), Some(now)) = (self.before, connections(self.cli))
            && now > before + load / OTHERS_DIVISOR + OTHERS
        {
            let [now, before] = [now, before].map(grouped);
            return Some(format!("the server still has {now} connections, it had {before}"));
        }
        let ports = ports_there_are(self.cli, load as u32).ok().flatten()?;
        let linger = ports_that_linger();
        (ports >= load && ports.saturating_sub(linger) < load).then(|| {
            let [linger, ports] = [linger, ports].map(grouped);
            format!("{linger} of {ports} ports linger in TIME_WAIT")
        })
    }
}

/// Connections that the server has now: by its own word, or by this host's table of sockets.
fn connections(cli: &Cli) -> Option<u64> {
    let target = cli.target.as_ref()?;
    if cli.target_admin.is_some() {
        return counters(cli)?["open"].as_u64();
    }
    let is_here = target.address.ip().is_loopback() || cli.server_pid.is_some();
    let held = |table| held(&fs::read_to_string(table).unwrap_or_default(), target.address);
    is_here.then(|| ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().map(held).sum())
}

/// What the server says of itself, if it has a control plane that is known.
fn counters(cli: &Cli) -> Option<Value> {
    let stats = admin::request(cli.target_admin?, "GET", "/stats", b"").ok()?;
    Some(serde_json::from_slice::<Value>(&stats).ok()?["counters"].take())
}

/// Connections that the server has turned away since it started, by reason, as it says.
pub fn rejected(cli: &Cli) -> Option<Value> {
    Some(counters(cli)?["rejected"].take())
}

/// Those since `before`.
pub fn rejected_since(cli: &Cli, before: Option<Value>) -> Option<Value> {
    Some(grown(&before?, rejected(cli)?))
}

fn grown(before: &Value, mut now: Value) -> Value {
    for (reason, count) in now.as_object_mut().into_iter().flatten() {
        let before = before[reason.as_str()].as_u64().unwrap_or(0);
        *count = count.as_u64().unwrap_or(0).saturating_sub(before).into();
    }
    now
}

/// Sockets of the server's end that are not closed on both sides.
fn held(table: &str, server: SocketAddr) -> u64 {
    // ESTABLISHED, and CLOSE_WAIT: the client has gone, and the server has not seen it.
    const HELD: [&str; 2] = ["01", "08"];
    let port = format!(":{:04X}", server.port());
    let is_held = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, state) = (words.next(), words.nth(1));
        local.is_some_and(|local| local.ends_with(&port))
            && state.is_some_and(|state| HELD.contains(&state))
    };
    table.lines().filter(is_held).count() as u64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_rejected_before_is_not_counted() {
        let before = json!({"max_connections": 40, "accept_rate": 7});
        let now = json!({"max_connections": 100, "accept_rate": 7, "ring_full": 2});
        let expected = json!({"max_connections": 60, "accept_rate": 0, "ring_full": 2});
        assert_eq!(grown(&before, now), expected);
        assert_eq!(grown(&json!({}), json!({})), json!({}));
    }

    #[test]
    fn only_the_servers_end_of_what_is_open_is_counted() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
            0: 0100007F:1CE8 00000000:0000 0A 00000000:00000000\n\
            1: 0100007F:1CE8 0200107F:0401 01 00000000:00000000\n\
            2: 0200107F:0401 0100007F:1CE8 01 00000000:00000000\n\
            3: 0100007F:1CE8 0200107F:0402 08 00000000:00000000\n\
            4: 0100007F:1CE8 0200107F:0403 06 00000000:00000000\n";
        assert_eq!(held(table, "127.0.0.1:7400".parse().unwrap()), 2);
        assert_eq!(held(table, "127.0.0.1:80".parse().unwrap()), 0);
    }
}
