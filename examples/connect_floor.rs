//! What the kernel alone takes for a connection over loopback, both ends: socket, bind, connect,
//! accept, a HELLO and its WELCOME, by plain blocking calls in one thread, so that nobody is waked
//! and nothing is waited for. `scripts/connect-cost` compares it with the server and the load
//! generator.
//!
//! Opens as many connections as are asked for, prints `{"connections": N, "cpu_us_each": X}`, and
//! keeps them until its standard input ends. Each takes two descriptors, and a port of the source
//! address: so many of these run at once, each with an address of its own.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::{env, io};

use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, Socket, Type};

/// As long as the frames of the TCP protocol.
const HELLO: [u8; 8] = [0, 6, 1, 1, 0, 0, 0, 0];
const WELCOME: [u8; 19] = [0, 17, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: connect_floor CONNECTIONS SOURCE-ADDRESS";
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [count, source] = arguments.as_slice() else { return Err(usage.into()) };
    let count: u32 = count.parse()?;
    let source = SocketAddr::from((source.parse::<Ipv4Addr>()?, 0));
    let listener = tcp()?;
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    listener.listen(16)?;
    let server = listener.local_addr()?;
    let mut kept = Vec::with_capacity(count as usize * 2);
    let begun = cpu_ns();
    for _ in 0..count {
        let client = tcp()?;
        client.bind(&source.into())?;
        client.connect(&server)?;
        let (accepted, _) = listener.accept()?;
        accepted.set_tcp_nodelay(true)?;
        let (mut client, mut accepted) = (TcpStream::from(client), TcpStream::from(accepted));
        exchange(&mut client, &mut accepted, &HELLO)?;
        exchange(&mut accepted, &mut client, &WELCOME)?;
        kept.push((client, accepted));
    }
    let cpu_us_each = (cpu_ns() - begun) / 1e3 / f64::from(count.max(1));
    println!("{{\"connections\": {count}, \"cpu_us_each\": {cpu_us_each:.2}}}");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn tcp() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, None)
}

fn exchange(from: &mut TcpStream, to: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    from.write_all(message)?;
    let mut buffer = [0; 64];
    to.read_exact(&mut buffer[..message.len()])
}

/// CPU time of this process, the kernel's part of it included.
fn cpu_ns() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}
