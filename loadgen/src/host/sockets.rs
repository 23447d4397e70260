//! How many established connections the kernel knows on the server's address, by its own count.
//!
//! Asked over netlink (`sock_diag(7)`): the kernel itself picks the sockets of the port, so the
//! cost is one walk over its table and about a hundred bytes for each connection, once a run.

use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use crate::limits::{SOCKET_COUNT_PATIENCE, SOCKET_COUNT_READ_BYTES};

// linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h; libc has no names for all of them.
const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const TCP_ESTABLISHED_BIT: u32 = 1 << 1;
const IPPROTO_TCP: u8 = 6;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// A `nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// An `inet_diag_req_v2` behind it: family, protocol, what else to tell, padding, states, and which
/// sockets.
const REQUEST_BYTES: usize = HEADER_BYTES + 56;
/// Where the local port stands in a request, and in an answer.
const REQUEST_PORT: usize = HEADER_BYTES + 8;
const ANSWER_PORT: usize = HEADER_BYTES + 4;
/// The local address of an answer stands behind both ports.
const ANSWER_ADDRESS: usize = ANSWER_PORT + 4;

/// Whether a process has the network namespace of this one: what is counted here is its own then.
pub fn are_those_of(pid: u32) -> bool {
    let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).ok();
    namespace("self").is_some_and(|own| namespace(&pid.to_string()) == Some(own))
}

/// Counts the established connections whose local end is `address`, in this network namespace.
///
/// # Errors
/// If the kernel does not tell, or what it tells cannot be read.
pub fn established(address: SocketAddr) -> io::Result<u64> {
    // A listener of IPv6 may take connections of IPv4 too: they are of that family then.
    Ok(count(AF_INET, address)? + count(AF_INET6, address)?)
}

fn count(family: u8, address: SocketAddr) -> io::Result<u64> {
    let socket =
        Socket::new(Domain::from(AF_NETLINK), Type::RAW, Some(Protocol::from(NETLINK_SOCK_DIAG)))?;
    socket.set_read_timeout(Some(SOCKET_COUNT_PATIENCE))?;
    socket.send(&request(family, address.port()))?;
    let mut bytes = vec![0; SOCKET_COUNT_READ_BYTES];
    let mut found = 0;
    loop {
        let read = match (&socket).read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let (more, is_last) = look_through(&bytes[..read], address)?;
        found += more;
        if is_last {
            return Ok(found);
        }
    }
}

/// Asks for all established sockets of a family with this local port.
fn request(family: u8, port: u16) -> [u8; REQUEST_BYTES] {
    let mut bytes = [0; REQUEST_BYTES];
    bytes[0..4].copy_from_slice(&(REQUEST_BYTES as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    bytes[HEADER_BYTES..HEADER_BYTES + 2].copy_from_slice(&[family, IPPROTO_TCP]);
    let states = HEADER_BYTES + 4;
    bytes[states..states + 4].copy_from_slice(&TCP_ESTABLISHED_BIT.to_ne_bytes());
    bytes[REQUEST_PORT..REQUEST_PORT + 2].copy_from_slice(&port.to_be_bytes());
    bytes
}

/// Goes through the messages of one read: how many sockets have `address`, and whether the last
/// message was among them.
fn look_through(mut bytes: &[u8], address: SocketAddr) -> io::Result<(u64, bool)> {
    let mut found = 0;
    while bytes.len() >= HEADER_BYTES {
        let length = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        if length < HEADER_BYTES || length > bytes.len() {
            return Err(io::Error::other("a netlink message of an impossible length"));
        }
        let (message, _) = bytes.split_at(length);
        match u16::from_ne_bytes([message[4], message[5]]) {
            NLMSG_DONE => return Ok((found, true)),
            NLMSG_ERROR => return Err(refusal(message)),
            SOCK_DIAG_BY_FAMILY => found += u64::from(is_at(local_address(message), address)),
            _ => {}
        }
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    Ok((found, false))
}

/// Whether that is the local end of a connection to `address`.
fn is_at(local: Option<SocketAddr>, address: SocketAddr) -> bool {
    local.is_some_and(|local| {
        local.port() == address.port()
            && (address.ip().is_unspecified() || local.ip() == address.ip().to_canonical())
    })
}

/// The error that an answer is.
fn refusal(message: &[u8]) -> io::Error {
    let code = message.get(HEADER_BYTES..HEADER_BYTES + 4).and_then(|four| four.try_into().ok());
    match code {
        Some(code) => io::Error::from_raw_os_error(-i32::from_ne_bytes(code)),
        None => io::Error::other("a netlink error without a code"),
    }
}

/// The local end of the socket that an `inet_diag_msg` tells of.
fn local_address(message: &[u8]) -> Option<SocketAddr> {
    let port = message.get(ANSWER_PORT..ANSWER_PORT + 2)?.try_into().ok()?;
    let octets: [u8; 16] = message.get(ANSWER_ADDRESS..ANSWER_ADDRESS + 16)?.try_into().ok()?;
    let ip = match *message.get(HEADER_BYTES)? {
        AF_INET => IpAddr::from([octets[0], octets[1], octets[2], octets[3]]),
        _ => Ipv6Addr::from(octets).to_canonical(),
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(port)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    /// Connections that the kernel shows, once it shows as many as `wanted`.
    fn settled(address: SocketAddr, wanted: u64) -> u64 {
        for _ in 0..100 {
            if established(address).unwrap() == wanted {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        established(address).unwrap()
    }

    #[test]
    fn the_kernel_counts_what_is_established_and_nothing_else() {
        for host in ["127.0.0.1:0", "127.0.0.2:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(host) else {
                assert!(host.starts_with('['), "only IPv6 may be absent");
                continue;
            };
            let address = listener.local_addr().unwrap();
            assert_eq!(established(address).unwrap(), 0, "{host}");
            let mut clients: Vec<_> =
                (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
            assert_eq!(settled(address, 100), 100, "{host}: those that wait are established too");
            clients.truncate(90);
            assert_eq!(settled(address, 90), 90, "{host}: whose client has closed is not");
            let other = SocketAddr::new("127.0.0.77".parse().unwrap(), address.port());
            assert_eq!(established(other).unwrap(), 0, "another address of the same port");
        }
    }

    #[test]
    fn a_client_of_that_port_elsewhere_is_no_connection_of_the_server() {
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(elsewhere.local_addr().unwrap()).unwrap();
        let own = client.local_addr().unwrap();
        assert_eq!(established(own).unwrap(), 1, "it is the local end of its own");
        let server = SocketAddr::new("127.0.0.3".parse().unwrap(), own.port());
        assert_eq!(established(server).unwrap(), 0);
    }

    #[test]
    fn what_the_kernel_would_never_say_is_an_error() {
        let address = "127.0.0.1:1".parse().unwrap();
        let mut error = vec![0; HEADER_BYTES + 4];
        error[0..4].copy_from_slice(&20_u32.to_ne_bytes());
        error[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        error[16..20].copy_from_slice(&(-1_i32).to_ne_bytes());
        assert_eq!(look_through(&error, address).unwrap_err().raw_os_error(), Some(1));
        for length in [0_u32, 15, 21] {
            error[0..4].copy_from_slice(&length.to_ne_bytes());
            assert!(look_through(&error, address).is_err(), "length {length}");
        }
        assert_eq!(look_through(&[], address).unwrap(), (0, false));
    }
}
