//! Broken networks, in network namespaces that each test makes for itself: a few hundred clients
//! whose packets really get lost. `scripts/netns-lab` does the same, and much more, with 50,000.
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

mod common;

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Client, PATIENCE, PING, PONG, Server, admin, count};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Socket, Type};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 82, 0, 1);
const STAYING: Ipv4Addr = Ipv4Addr::new(10, 82, 0, 2);
const DOOMED: Ipv4Addr = Ipv4Addr::new(10, 82, 1, 2);
const TIMES: &[&str] = &["--idle-timeout", "2s", "--heartbeat-interval", "500ms"];

/// The server's namespace, that of the clients, and that of those who are to vanish.
struct Lab {
    server: String,
    staying: String,
    doomed: String,
}

impl Lab {
    /// `None`, with a message, where it cannot be made.
    fn new(test: &str) -> Option<Lab> {
        let name = |end: &str| format!("hwt-{}-{test}-{end}", std::process::id());
        let lab = Lab { server: name("s"), staying: name("c"), doomed: name("d") };
        let works = |command: &str| sh(command).is_ok();
        if !rustix::process::geteuid().is_root()
            || !works("ip netns")
            || !works("nft --version")
            || !works(&format!("ip netns add {}", lab.server))
        {
            eprintln!("NOT TESTED: needs root, ip (iproute2), nft (nftables) and namespaces");
            return None;
        }
        let Lab { server, staying, doomed } = &lab;
        must(&format!(
            "ip netns add {staying} && ip netns add {doomed}
             ip link add hw0 netns {server} type veth peer name hw0 netns {staying}
             ip link add hw1 netns {server} type veth peer name hw0 netns {doomed}
             ip -n {server} address add {SERVER}/24 dev hw0
             ip -n {server} address add 10.82.1.1/24 dev hw1
             ip -n {staying} address add {STAYING}/24 dev hw0
             ip -n {doomed} address add {DOOMED}/24 dev hw0
             for device in hw0 hw1 lo; do ip -n {server} link set $device up; done
             ip -n {staying} link set hw0 up
             ip -n {doomed} link set hw0 up
             ip -n {doomed} route add default via 10.82.1.1"
        ));
        Some(lab)
    }

    fn start_server(&self, flags: &[&str]) -> Server {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.server, env!("CARGO_BIN_EXE_heartwheel"), "serve"])
            .args(["--listen", &format!("tcp://{SERVER}:741"), "--admin", "127.0.0.1:742"])
            .args(flags);
        Server::spawn(command)
    }

    /// Nothing from or to this namespace passes, and nobody is told.
    fn drop_packets(namespace: &str) {
        must(&format!(
            "ip netns exec {namespace} nft 'add table ip hw;
                add chain ip hw out {{ type filter hook output priority 0; policy drop; }};
                add chain ip hw in {{ type filter hook input priority 0; policy drop; }}'"
        ));
    }

    fn let_packets_pass(namespace: &str) {
        must(&format!("ip netns exec {namespace} nft delete table ip hw"));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.staying, &self.doomed] {
            let _ = sh(&format!("ip netns del {namespace}"));
        }
    }
}

fn sh(script: &str) -> Result<(), String> {
    let shell = Command::new("sh").args(["-ec", script]).stdout(Stdio::null()).output();
    let output = shell.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn must(script: &str) {
    sh(script).unwrap_or_else(|error| panic!("{script}: {error}"));
}

/// Does something in a network namespace, on a thread of its own.
fn within<T: Send>(namespace: &str, act: impl FnOnce() -> T + Send) -> T {
    let enter_and_act = || {
        let file = File::open(format!("/run/netns/{namespace}")).expect("it is there");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("root may enter it");
        act()
    };
    std::thread::scope(|scope| scope.spawn(enter_and_act).join().expect("it has not panicked"))
}

/// So many clients in a namespace, each of them with a heartbeat that was answered.
fn connect(server: &Server, namespace: &str, from: Ipv4Addr, clients: usize) -> Vec<Client> {
    within(namespace, || {
        let one = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.bind(&SocketAddr::from((from, 0)).into()).expect("the address is there");
            socket.connect(&server.address.into()).expect("the server accepts");
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
            stream.set_nodelay(true).expect("nodelay can be set");
            let mut client = Client { stream };
            client.heartbeat();
            client
        };
        (0..clients).map(|_| one()).collect()
    })
}

fn expired(lab: &Lab, server: &Server) -> u64 {
    let (_, stats) = within(&lab.server, || admin(server, "GET", "/stats", b""));
    count(&stats["counters"], &["closed", "expired"])
}

/// 200 vanish without a FIN: exactly they are expired, and none of them early.
fn vanish(test: &str, cut: impl FnOnce(&Lab)) {
    let Some(lab) = Lab::new(test) else { return };
    let server = lab.start_server(TIMES);
    let mut staying = connect(&server, &lab.staying, STAYING, 50);
    let doomed = connect(&server, &lab.doomed, DOOMED, 200);
    cut(&lab);
    let begun = Instant::now();
    let mut gone = 0;
    while gone < 200 {
        assert!(begun.elapsed() < PATIENCE, "{gone} of 200 were expired");
        staying.iter_mut().for_each(Client::heartbeat);
        std::thread::sleep(Duration::from_millis(100));
        gone = expired(&lab, &server);
    }
    // Nobody else is, within another timeout.
    for _ in 0..25 {
        staying.iter_mut().for_each(Client::heartbeat);
        std::thread::sleep(Duration::from_millis(100));
    }
    let counters = server.stop();
    drop(doomed);
    assert_eq!(count(&counters, &["closed", "expired"]), 200, "{counters:#}");
    assert_eq!(count(&counters, &["closed", "server_stopping"]), 50, "{counters:#}");
    assert_eq!(count(&counters, &["expired_early"]), 0);
}

#[test]
fn whose_packets_are_dropped_is_expired_and_nobody_else() {
    vanish("drop", |lab| Lab::drop_packets(&lab.doomed));
}

#[test]
fn whose_cable_is_pulled_is_expired_and_nobody_else() {
    vanish("link", |lab| must(&format!("ip -n {} link set hw0 down", lab.doomed)));
}

/// What was sent while the network was away arrives when it is back, and nobody is lost.
#[test]
fn a_partition_that_heals_costs_nobody_his_session() {
    let Some(lab) = Lab::new("part") else { return };
    let server = lab.start_server(&["--idle-timeout", "8s", "--heartbeat-interval", "1s"]);
    let mut clients = connect(&server, &lab.staying, STAYING, 200);
    Lab::drop_packets(&lab.staying);
    clients.iter_mut().for_each(|client| client.send(PING));
    std::thread::sleep(Duration::from_millis(1_500));
    let (_, stats) = within(&lab.server, || admin(&server, "GET", "/stats", b""));
    assert_eq!(count(&stats["counters"], &["heartbeats_received"]), 200, "nothing came through");
    Lab::let_packets_pass(&lab.staying);
    for client in &mut clients {
        assert_eq!(client.receive(3), PONG);
    }
    clients.iter_mut().for_each(Client::heartbeat);
    let counters = server.stop();
    assert_eq!(count(&counters, &["closed", "server_stopping"]), 200, "{counters:#}");
    assert_eq!(count(&counters, &["heartbeats_answered"]), 600);
}
