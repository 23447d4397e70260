//! SYNs that no kernel's TCP has sent: half-open connections.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::account::Account;
use crate::pace::Pace;

const SYN: u8 = 2;
const IP_BYTES: usize = 20;
const TCP_BYTES: usize = 20;

/// Sends SYNs from these addresses in turn, to one port or (`scan`) to all in turn.
///
/// # Errors
/// Without addresses, or without the right to open raw sockets.
pub fn send_syns(
    target: SocketAddrV4,
    from: &[Ipv4Addr],
    scan: bool,
    mut pace: Pace,
    end: Instant,
) -> io::Result<Account> {
    if from.is_empty() {
        return Err(io::Error::other("--from is needed"));
    }
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
    socket.set_header_included_v4(true)?;
    socket.set_nonblocking(true)?;
    // A raw socket is given a copy of every TCP packet that comes: nobody reads them.
    socket.set_recv_buffer_size(1)?;
    let mut account = Account::default();
    let mut number: u32 = 0;
    loop {
        let now = Instant::now();
        if now >= end {
            return Ok(account);
        }
        for _ in 0..pace.due(now).min(1_000) {
            let here = from[number as usize % from.len()];
            // Neighbouring numbers are spread over ports and sequence numbers (Knuth, TAOCP 6.4).
            let random = number.wrapping_mul(2_654_435_761);
            let port = if scan { (number % 65_535 + 1) as u16 } else { target.port() };
            let there = SocketAddrV4::new(*target.ip(), port);
            let packet = syn(here, 1_024 + (random >> 16) as u16 % 64_000, there, random);
            match socket.send_to(&packet, &SocketAddr::from(there).into()) {
                Ok(_) => account.syns += 1,
                Err(_) => account.failed += 1,
            }
            pace.note();
            number = number.wrapping_add(1);
        }
        while socket.recv(&mut [MaybeUninit::uninit(); 1]).is_ok() {}
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn syn(here: Ipv4Addr, port: u16, there: SocketAddrV4, sequence: u32) -> Vec<u8> {
    let mut tcp = Vec::with_capacity(TCP_BYTES);
    tcp.extend(port.to_be_bytes());
    tcp.extend(there.port().to_be_bytes());
    tcp.extend(sequence.to_be_bytes());
    tcp.extend([0; 4]);
    // The header's length in words, the flags, a window of 8 KiB, no checksum yet, no urgency.
    tcp.extend([(TCP_BYTES as u8 / 4) << 4, SYN, 0x20, 0, 0, 0, 0, 0]);
    let pseudo = [&here.octets()[..], &there.ip().octets(), &[0, 6, 0, TCP_BYTES as u8]].concat();
    let sum = checksum(&[&pseudo[..], &tcp].concat());
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    // The kernel fills in the lengths and the checksum of the IP header (raw(7)).
    let mut packet = Vec::with_capacity(IP_BYTES + TCP_BYTES);
    packet.extend([0x45, 0, 0, (IP_BYTES + TCP_BYTES) as u8, 0, 0, 0, 0, 64, 6, 0, 0]);
    packet.extend(here.octets());
    packet.extend(there.ip().octets());
    packet.extend(tcp);
    packet
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    !((sum + (sum >> 16)) as u16)
}
