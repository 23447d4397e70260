//! After ten fills and drains the server's memory is back. The same measurement is then shown to
//! see what a tenth of each fill would be, were it left behind.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{PATIENCE, Server, admin, count};

/// Clients of a fill; both ends need a descriptor here.
const CLIENTS: usize = 2_000;
const FILLS: usize = 10;
/// Until then everything has been used once that is kept for reuse.
const WARM_UPS: usize = 3;

/// A DATA frame of 8 KiB of which only the first half comes: the server has to keep that.
const HALF_A_FRAME_BYTES: usize = 4_096;

/// A HELLO, and a heartbeat with a payload.
const HELLO_AND_PING: &[u8] = &[0, 6, 1, 1, 0, 0, 0, 0, 0, 4, 3, b'a', b'b', b'c'];

/// The memory of the server that is resident.
fn rss_bytes(server: &Server) -> u64 {
    let pid = server.id();
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).expect("a line");
    let kib: u64 = line.trim_end_matches("kB").trim().parse().expect("a number");
    kib * 1_024
}

/// Whether memory of `now` is within 5 % of what it was.
fn is_back(then: u64, now: u64) -> bool {
    now <= then + then / 20
}

/// Opens all clients, has each heard and answered, and one half of a frame kept of each. `fills`:
/// how many there were before.
fn fill(server: &Server, fills: &mut u64) -> Vec<TcpStream> {
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| TcpStream::connect(server.address).expect("the server accepts"))
        .collect();
    let half = {
        let length = (2 * HALF_A_FRAME_BYTES) as u16;
        [&length.to_be_bytes()[..], &[7], &[b'x'; HALF_A_FRAME_BYTES]].concat()
    };
    for client in &mut clients {
        client.set_read_timeout(Some(PATIENCE)).expect("can be set");
        client.write_all(HELLO_AND_PING).expect("it reads");
        client.write_all(&half).expect("it reads");
    }
    for client in &mut clients {
        let mut answers = [0; 19 + 6];
        client.read_exact(&mut answers).expect("WELCOME and PONG");
    }
    *fills += 1;
    let all = *fills * (CLIENTS * (HELLO_AND_PING.len() + half.len())) as u64;
    settle(server, "bytes_received", |received| received == all);
    clients
}

/// Waits until a published counter is as it must be.
fn settle(server: &Server, counter: &str, is_right: impl Fn(u64) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, stats) = admin(server, "GET", "/stats", b"");
        let value = count(&stats["counters"], &[counter]);
        if is_right(value) {
            return;
        }
        assert!(Instant::now() < deadline, "{counter} stays at {value}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn after_ten_fills_and_drains_memory_is_back() {
    let most = (2 * CLIENTS + 100).to_string();
    let server = Server::start(&["--max-connections", &most, "--frame-timeout", "10m"]);
    let mut after_drains = Vec::new();
    let mut fills = 0;
    for _ in 0..WARM_UPS + FILLS {
        drop(fill(&server, &mut fills));
        settle(&server, "table_entries", |entries| entries == 0);
        after_drains.push(rss_bytes(&server));
    }
    let (first, last) = (after_drains[WARM_UPS - 1], after_drains[WARM_UPS + FILLS - 1]);
    assert!(is_back(first, last), "{first} B, then {last} B; all: {after_drains:?}");

    // What an allocator keeps for the next fill is no leak, and is seen by nobody. A second fill
    // beside the first is as much as a tenth of each of ten fills.
    let kept = [fill(&server, &mut fills), fill(&server, &mut fills)];
    let full = rss_bytes(&server);
    assert!(!is_back(last, full), "{last} B, then {full} B: the measurement is blind");
    drop(kept);
    settle(&server, "table_entries", |entries| entries == 0);
    server.stop();
}
