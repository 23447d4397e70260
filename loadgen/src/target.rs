//! Where a server is, and how it is spoken to: `--target`.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, ensure};

use crate::protocol::Protocol;

/// A server, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Target {
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it is.
    pub address: SocketAddr,
    /// The same as it was written: what a WebSocket's Host says.
    pub authority: String,
    /// What a WebSocket asks for, its query included.
    pub path: String,
}

impl Target {
    /// At its root.
    pub fn of(protocol: Protocol, address: SocketAddr) -> Target {
        Target { protocol, address, authority: address.to_string(), path: "/".to_owned() }
    }
}

/// Reads `tcp://HOST:PORT`, `ws://HOST:PORT/PATH`, `mqtt://HOST` and so on, and looks the host up.
///
/// # Errors
/// What does not fit, with how to write it.
pub fn parse_target(text: &str) -> Result<Target> {
    let (scheme, rest) = text.split_once("://").context(
        "write it like tcp://HOST:PORT, ws://HOST:PORT/PATH, mqtt://HOST:PORT or \
         tcp-line://HOST:PORT",
    )?;
    let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.scheme() == scheme);
    let protocol = protocol.context("there are tcp, ws, mqtt and tcp-line")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    ensure!(!authority.contains('@'), "names and passwords are not supported: leave out the `@`");
    ensure!(
        protocol == Protocol::WebSocket || path.is_empty() || path == "/",
        "{scheme}:// has no path: leave out `{path}`"
    );
    ensure!(
        path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'),
        "the path must be visible ASCII without a fragment (`#`)"
    );
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let found = match (has_port, protocol.port()) {
        (false, Some(port)) => format!("{authority}:{port}").to_socket_addrs(),
        _ => authority.to_socket_addrs(),
    };
    let mut found = found.with_context(|| format!("looking up `{authority}`"))?;
    let address = found.next().with_context(|| format!("`{authority}` has no address"))?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok(Target { protocol, address, authority: authority.to_owned(), path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_protocol_a_place_and_for_a_websocket_a_path() {
        for (text, protocol, address, authority, path) in [
            ("tcp://127.0.0.1:7", Protocol::Tcp, "127.0.0.1:7", "127.0.0.1:7", "/"),
            ("tcp://[::1]:7/", Protocol::Tcp, "[::1]:7", "[::1]:7", "/"),
            ("ws://127.0.0.1", Protocol::WebSocket, "127.0.0.1:80", "127.0.0.1", "/"),
            ("ws://[::1]/a/b?c=1", Protocol::WebSocket, "[::1]:80", "[::1]", "/a/b?c=1"),
            ("ws://127.0.0.1:8?c", Protocol::WebSocket, "127.0.0.1:8", "127.0.0.1:8", "/?c"),
            ("mqtt://127.0.0.1", Protocol::Mqtt, "127.0.0.1:1883", "127.0.0.1", "/"),
            ("tcp-line://127.0.0.1:9", Protocol::TcpLine, "127.0.0.1:9", "127.0.0.1:9", "/"),
        ] {
            let target = parse_target(text).unwrap();
            assert_eq!(target.protocol, protocol, "{text}");
            assert_eq!(target.address.to_string(), address, "{text}");
            assert_eq!((&*target.authority, &*target.path), (authority, path), "{text}");
        }
        for text in [
            "127.0.0.1:7",
            "http://127.0.0.1:7",
            "tcp://127.0.0.1",
            "tcp-line://127.0.0.1",
            "mqtt://127.0.0.1:7/topic",
            "mqtt://me:secret@127.0.0.1:7",
            "ws://127.0.0.1:7/a b",
            "ws://127.0.0.1:7/#a",
        ] {
            assert!(parse_target(text).is_err(), "{text}");
        }
    }
}
