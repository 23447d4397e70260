//! Every socket option, by socket2. What is set on a listener is inherited by what it accepts, so
//! a connection costs no system call of its own.

mod inherited;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;
use std::{fmt, io};

pub use self::inherited::{Inherited, listens_on};
use socket2::{Domain, Socket, TcpKeepalive, Type};

use crate::limits::LISTEN_BACKLOG;
use crate::protocol::Protocol;

/// TCP's own way to find dead peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Between probes.
    pub interval: Duration,
    /// Unanswered probes that end the connection.
    pub count: u32,
}

/// Where to listen, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// What is spoken there.
    pub protocol: Protocol,
    /// The address.
    pub address: SocketAddr,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.protocol.scheme(), self.address)
    }
}

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    /// What is spoken there.
    pub protocol: Protocol,
    /// The socket.
    pub socket: OwnedFd,
}

/// What accepted sockets inherit.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketOptions {
    /// SO_KEEPALIVE with its times, or not at all.
    pub keepalive: Option<Keepalive>,
    /// TCP_USER_TIMEOUT: how long sent data may stay unacknowledged.
    pub user_timeout: Option<Duration>,
    /// TCP_NOTSENT_LOWAT: how much the kernel takes that it cannot send yet, in bytes. Without it
    /// a client that does not read is granted up to `tcp_wmem`, 4 MiB, and enough of those clients
    /// take all of `tcp_mem` from the others.
    pub unsent_bytes_max: Option<u32>,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody has it.
    #[error(
        "cannot listen on {address}: the address is in use; stop whoever has it (`ss -ltnp 'sport \
         = :{port}'` tells), or choose another port, or port 0 for any free one. A client's own \
         port may be it too: `sysctl -w net.ipv4.ip_local_reserved_ports={port}` keeps them off"
    )]
    InUse {
        /// The address.
        address: SocketAddr,
        /// Its port.
        port: u16,
    },
    /// The service manager has opened some sockets, but we need more beside them.
    #[error(
        "{inherited} sockets on {address} were inherited and {needed} are needed, one for each \
         ring (or shard), and no more can be opened beside them ({source}): have the service \
         manager open as many (a ListenStream= line for each, and ReusePort=yes), or set --shards \
         and --rings-per-shard to what it opens"
    )]
    TooFewInherited {
        /// The address.
        address: SocketAddr,
        /// So many there are.
        inherited: usize,
        /// So many there should be.
        needed: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The service manager has opened a socket that nobody wants.
    #[error(
        "a socket on {address} was inherited, and no --listen names it: add --listen \
         tcp://{address} (or ws://), or take it out of the service manager's list"
    )]
    Unasked {
        /// Its address.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Checks that nobody listens on `address`, and tells it, with a free port if it was 0.
///
/// With SO_REUSEPORT we could join the group of another server of the same user and take half of
/// its clients. Without it the bind fails if anybody listens there.
///
/// # Errors
/// If the address is in use, or not ours.
pub fn free_address(address: SocketAddr) -> Result<SocketAddr, ListenError> {
    let explain = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { address, port: address.port() },
        _ => ListenError::Other { address, source },
    };
    let trial = new_socket(address, false).map_err(explain)?;
    trial.bind(&address.into()).map_err(explain)?;
    Ok(trial.local_addr().map_err(explain)?.as_socket().unwrap_or(address))
}

/// One more listener on an address that others of this process listen on too.
///
/// # Errors
/// If the address cannot be listened on.
pub fn join_listeners(address: SocketAddr, options: &SocketOptions) -> io::Result<OwnedFd> {
    listener(address, options).map(OwnedFd::from)
}

/// Makes `count` listeners on one address that share its connections by hash (SO_REUSEPORT), and
/// tells the address, with the port that was picked if it was 0.
///
/// # Errors
/// If the address is in use, by another process or by a former group of this one, or not ours.
pub fn listeners(
    address: SocketAddr,
    count: usize,
    options: &SocketOptions,
) -> Result<(SocketAddr, Vec<OwnedFd>), ListenError> {
    let bound = free_address(address)?;
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let listener = join_listeners(bound, options);
        listeners.push(listener.map_err(|source| ListenError::Other { address: bound, source })?);
    }
    Ok((bound, listeners))
}

fn new_socket(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM, Some(socket2::Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    Ok(socket)
}

fn listener(address: SocketAddr, options: &SocketOptions) -> io::Result<Socket> {
    let socket = new_socket(address, true)?;
    prepare(&socket, options)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket)
}

/// Sets what accepted sockets inherit.
fn prepare(socket: &Socket, options: &SocketOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if let Some(keepalive) = options.keepalive {
        let times = TcpKeepalive::new()
            .with_time(keepalive.idle)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.count);
        socket.set_tcp_keepalive(&times)?;
    }
    if let Some(bytes) = options.unsent_bytes_max {
        socket.set_tcp_notsent_lowat(bytes)?;
    }
    socket.set_tcp_user_timeout(options.user_timeout)
}
