//! Who may come in: the keys of tickets, the limits for newcomers, the proxies that are trusted.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use super::{ConfigError, value};
use crate::cli::ServeArgs;
use crate::limits::TICKET_KEY_BYTES_MIN;
use crate::protocol::address::{Network, PeerAddress};
use crate::protocol::ticket::KeyRing;
use crate::shard::{AcceptRate, Bounds};
use crate::units::Count;

/// Reads a file of keys: one a line, the first of which makes tickets, and all of which open them.
///
/// # Errors
/// If it cannot be read, or holds no key, or one that is too short to be a secret.
pub fn read_keys(flag: &'static str, path: &Path) -> Result<KeyRing, ConfigError> {
    let wrong = |reason: String| value(flag, &path.display().to_string(), reason);
    let text = fs::read(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let lines = text.split(|byte| *byte == b'\n').map(|line| line.trim_ascii());
    let keys: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
    if let Some(short) = keys.iter().position(|key| key.len() < TICKET_KEY_BYTES_MIN) {
        return Err(wrong(format!(
            "key {} of the file is too short: {TICKET_KEY_BYTES_MIN} bytes at least; `openssl rand \
             -hex 32` makes a good one",
            short + 1
        )));
    }
    KeyRing::new(keys).ok_or_else(|| {
        wrong("there is no key in it: one a line, `openssl rand -hex 32` makes one".to_owned())
    })
}

/// The bounds for newcomers.
pub(super) fn bounds(args: &ServeArgs, connections_max: usize) -> Result<Bounds, ConfigError> {
    let per_s = count("accept-rate", args.accept_rate)?;
    let burst = count("accept-burst", args.accept_burst)?;
    let accept_rate = match (per_s, burst) {
        (Some(per_s), burst) => Some(AcceptRate { per_s, burst: burst.unwrap_or(per_s) }),
        (None, None) => None,
        (None, Some(_)) => {
            let text = "--accept-burst is a part of --accept-rate: give that too";
            return Err(ConfigError::Conflict(text.to_owned()));
        }
    };
    Ok(Bounds {
        connections_max,
        per_address_max: count("max-per-ip", args.max_per_ip)?,
        accept_rate,
        memory_bytes_max: args.memory_limit.map(|bytes| bytes.0),
    })
}

fn count(flag: &'static str, given: Option<Count>) -> Result<Option<u32>, ConfigError> {
    let Some(Count(count)) = given else { return Ok(None) };
    match u32::try_from(count) {
        Ok(count) if (1..=1_000_000_000).contains(&count) => Ok(Some(count)),
        _ => Err(value(flag, &count.to_string(), "1 to 1g; leave the flag away for no limit")),
    }
}

/// The networks whose connections begin with a PROXY header.
pub(super) fn proxies(list: Option<&str>) -> Result<Arc<[Network]>, ConfigError> {
    let parts = list.into_iter().flat_map(|list| list.split(','));
    parts.map(|part| network(part.trim())).collect()
}

fn network(text: &str) -> Result<Network, ConfigError> {
    let wrong = |reason: &str| value("proxy-from", text, reason);
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let how = "write it like 10.0.0.0/8, 10.1.2.3 or fd00::/8, several with commas between";
    let address: IpAddr = address.parse().map_err(|_| wrong(how))?;
    let (peer, bits) = match address {
        IpAddr::V4(address) => (PeerAddress::v4(address.octets()), 32),
        IpAddr::V6(address) => (PeerAddress::v6(address.octets()), 128),
    };
    let prefix = prefix.map_or(Ok(bits), str::parse::<u8>).map_err(|_| wrong(how))?;
    Network::new(peer, prefix)
        .ok_or_else(|| wrong("the prefix is too long, or bits are set behind it"))
}
