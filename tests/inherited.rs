//! Listening sockets that a service manager has opened: who connects while the server restarts
//! waits, and is served.

mod common;

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::{PATIENCE, PONG, Server, count};
use rustix::io::FdFlags;
use socket2::{Domain, Socket, Type};

/// What a service manager does for two `ListenStream=` lines with `ReusePort=yes`.
fn open_two() -> (SocketAddr, [Socket; 2]) {
    let open = |address: SocketAddr| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_port(true).expect("SO_REUSEPORT");
        socket.bind(&address.into()).expect("the address is free");
        socket.listen(16).expect("it listens");
        // A program that is started inherits it, by a number that is in nobody's way.
        let socket = rustix::io::fcntl_dupfd_cloexec(socket.as_fd(), 20).expect("a descriptor");
        rustix::io::fcntl_setfd(&socket, FdFlags::empty()).expect("a flag");
        Socket::from(socket)
    };
    let first = open("127.0.0.1:0".parse().expect("an address"));
    let address = first.local_addr().expect("bound").as_socket().expect("TCP");
    (address, [first, open(address)])
}

/// The server, to be started with these sockets as descriptors 3 and 4.
fn serve(sockets: &[Socket; 2], flags: &[&str]) -> Command {
    let [first, second] = sockets.each_ref().map(|socket| socket.as_raw_fd());
    let script = format!(
        "exec 3<&{first} 4<&{second}; \
         export LISTEN_FDS=2 LISTEN_PID=$$; exec \"$0\" \"$@\""
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_heartwheel"), "serve", "--admin", "off"]);
    command.args(["--shards", "2", "--max-connections", "200"]).args(flags);
    command
}

fn a_restart_loses_nobody(engine: &str) {
    let (address, sockets) = open_two();
    let url = format!("tcp://{address}");
    let start = || Server::spawn(serve(&sockets, &["--engine", engine, "--listen", &url]));
    let former = start();
    assert_eq!(former.address, address);
    let mut clients: Vec<_> = (0..40).map(|_| former.connect()).collect();
    for client in &mut clients {
        client.heartbeat();
    }
    drop(clients);
    let counters = former.stop();
    assert_eq!(count(&counters, &["opened"]), 40);

    // Nobody is there to accept them, and yet they connect, and may send.
    let mut waiting: Vec<_> = (0..20)
        .map(|_| std::net::TcpStream::connect_timeout(&address, PATIENCE).expect("it is queued"))
        .map(|stream| common::Client { stream })
        .collect();
    for client in &mut waiting {
        client.stream.set_read_timeout(Some(PATIENCE)).expect("can be set");
        client.send(common::PING);
    }
    std::thread::sleep(Duration::from_millis(100));
    let heir = start();
    for client in &mut waiting {
        assert_eq!(client.receive(3), PONG, "{engine}");
    }
    let counters = heir.stop();
    assert_eq!(count(&counters, &["opened"]), 20);
}

#[test]
fn a_restart_loses_nobody_on_uring() {
    a_restart_loses_nobody("uring");
}

#[test]
fn a_restart_loses_nobody_on_tokio_uring() {
    a_restart_loses_nobody("tokio-uring");
}

#[test]
fn a_restart_loses_nobody_on_epoll() {
    a_restart_loses_nobody("epoll");
}

#[test]
fn more_rings_than_sockets_open_their_own_beside_them() {
    let (address, sockets) = open_two();
    let url = format!("tcp://{address}");
    let server = Server::spawn(serve(&sockets, &["--rings-per-shard", "3", "--listen", &url]));
    let mut clients: Vec<_> = (0..60).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.heartbeat();
    }
    assert_eq!(count(&server.stop(), &["opened"]), 60);
}

#[test]
fn a_socket_that_no_flag_names_is_refused_with_the_cure() {
    let (address, sockets) = open_two();
    let mut command = serve(&sockets, &["--listen", "tcp://127.0.0.1:0"]);
    let output: Output = command.stdin(Stdio::null()).output().expect("it runs");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(complaint.contains(&format!("--listen tcp://{address}")), "{complaint}");
}
