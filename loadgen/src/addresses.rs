//! Where clients connect from: explicit pairs of address and port.
//!
//! One address has 64,512 ports towards one target, and the kernel's own search for a free one
//! gets slow long before they are used up. So loopback clients are spread over 127.0.0.0/8, and
//! every client is told its port. A pair that turns out to be taken is simply skipped.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};

/// Ports below it belong to services.
const FIRST_PORT: u16 = 1_024;
/// The ports that a client may use, the target's included.
const PORTS: u64 = u16::MAX as u64 - FIRST_PORT as u64 + 1;
/// How many clients share an address: less than half its ports, so that ports that linger in
/// TIME_WAIT, or belong to others, leave enough.
const CLIENTS_PER_ADDRESS: u64 = 25_000;
/// So many taken pairs in a row are bad luck; more are a range that belongs to somebody else.
const LEAP_AFTER: u32 = 4;
/// How many pairs are skipped then, for each of the connects in flight that find one taken.
const LEAP: u64 = 8;
/// Addresses that one `--source-ips` may name.
const ADDRESSES_MAX: usize = 65_536;

/// All the places to connect from; each worker takes every n-th.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Empty: the kernel chooses.
    addresses: Vec<IpAddr>,
    target_port: u16,
    first_port_index: u64,
}

impl Sources {
    /// The wanted addresses, or for a loopback target as many as `clients` need, or whatever the
    /// kernel chooses.
    pub fn new(wanted: &[IpAddr], target: SocketAddr, clients: u32) -> Sources {
        let process = u64::from(std::process::id());
        let addresses = match target.ip() {
            _ if !wanted.is_empty() => wanted.to_vec(),
            IpAddr::V4(address) if address.is_loopback() => {
                let count = u64::from(clients).div_ceil(CLIENTS_PER_ADDRESS).max(1);
                (0..count).map(|number| loopback_address(process, number)).collect()
            }
            address if address.is_loopback() => vec![address],
            _ => Vec::new(),
        };
        // Another process of the same block starts elsewhere.
        let first_port_index = process / 200 * 7_919 % PORTS;
        Sources { addresses, target_port: target.port(), first_port_index }
    }

    /// How many clients can be connected at once, if that is known.
    pub fn capacity(&self) -> Option<u64> {
        (!self.addresses.is_empty()).then(|| self.addresses.len() as u64 * (PORTS - 1))
    }

    /// The share of worker `worker` out of `workers`.
    pub fn share(&self, worker: usize, workers: usize) -> SourceShare {
        SourceShare { sources: self.clone(), next: worker as u64, step: workers as u64, taken: 0 }
    }

    fn pair(&self, number: u64) -> Option<SocketAddr> {
        let count = self.addresses.len() as u64;
        let address = *self.addresses.get((number.checked_rem(count)?) as usize)?;
        let index = (number / count + self.first_port_index) % PORTS;
        Some(SocketAddr::new(address, FIRST_PORT + index as u16))
    }
}

/// One worker's places to connect from, in order, each of them once until all have been used.
#[derive(Debug)]
pub struct SourceShare {
    sources: Sources,
    next: u64,
    step: u64,
    /// How many in a row turned out to be taken.
    taken: u32,
}

impl SourceShare {
    /// The next place; `None` leaves the choice to the kernel.
    pub fn next(&mut self) -> Option<SocketAddr> {
        loop {
            let pair = self.sources.pair(self.next)?;
            self.next += self.step;
            // The server's own port may be taken on every address.
            if pair.port() != self.sources.target_port {
                return Some(pair);
            }
        }
    }

    /// One was taken already. Several in a row are somebody's range: leap over it.
    pub fn was_taken(&mut self) {
        self.taken += 1;
        if self.taken > LEAP_AFTER {
            self.next += self.step * LEAP;
        }
    }

    /// One was free.
    pub fn was_free(&mut self) {
        self.taken = 0;
    }
}

fn loopback_address(process: u64, number: u64) -> IpAddr {
    let block = (16 + process % 200) as u8;
    // Neither the first nor the last address of the block.
    let host = number % 65_534 + 1;
    IpAddr::V4(Ipv4Addr::new(127, block, (host >> 8) as u8, host as u8))
}

/// Parses `A,B-C,…`.
///
/// # Errors
/// If a part is no address, or no range of IPv4 addresses.
pub fn parse_list(text: &str) -> Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('-') {
            None => addresses.push(part.parse().with_context(|| format!("`{part}`"))?),
            Some((first, last)) => {
                let first: Ipv4Addr = first.parse().with_context(|| format!("`{first}`"))?;
                let last: Ipv4Addr = last.parse().with_context(|| format!("`{last}`"))?;
                ensure!(first <= last, "the range `{part}` runs backwards");
                let range = u32::from(first)..=u32::from(last);
                ensure!(
                    (range.end() - range.start()) < ADDRESSES_MAX as u32,
                    "the range `{part}` holds more than {ADDRESSES_MAX} addresses"
                );
                addresses.extend(range.map(|bits| IpAddr::V4(bits.into())));
            }
        }
    }
    if addresses.is_empty() {
        bail!("no address in `{text}`");
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn workers_never_share_a_pair_nor_use_the_targets_port() {
        let target = "127.0.0.1:7400".parse().unwrap();
        let sources = Sources::new(&[], target, 120_000);
        let mut seen = HashSet::new();
        for worker in 0..3 {
            let mut share = sources.share(worker, 3);
            for _ in 0..80_000 {
                let pair = share.next().unwrap();
                assert!(pair.ip().is_loopback() && pair.port() >= FIRST_PORT);
                assert_ne!(pair.port(), 7400);
                assert!(seen.insert(pair), "{pair} twice");
            }
        }
    }

    #[test]
    fn a_range_that_is_taken_is_leapt_over() {
        let target = "127.0.0.1:7400".parse().unwrap();
        let mut share = Sources::new(&[], target, 10).share(0, 1);
        let first = share.next().unwrap().port();
        (0..LEAP_AFTER).for_each(|_| share.was_taken());
        assert!(share.next().unwrap().port().abs_diff(first) <= 2);
        share.was_taken();
        let later = share.next().unwrap().port();
        assert!(later.abs_diff(first) > LEAP as u16, "{first} {later}");
        share.was_free();
        share.was_taken();
        assert!(share.next().unwrap().port().abs_diff(later) <= 2);
    }

    #[test]
    fn a_remote_target_leaves_the_choice_to_the_kernel() {
        let target = "192.0.2.1:80".parse().unwrap();
        assert_eq!(Sources::new(&[], target, 5).share(0, 1).next(), None);
        let wanted = parse_list("192.0.2.7").unwrap();
        let pair = Sources::new(&wanted, target, 5).share(0, 1).next().unwrap();
        assert_eq!(pair.ip(), wanted[0]);
    }

    #[test]
    fn lists_and_ranges() {
        assert_eq!(parse_list("127.0.0.1, 127.0.1.254-127.0.2.1").unwrap().len(), 5);
        assert_eq!(parse_list("::1").unwrap().len(), 1);
        for bad in ["", "127.0.0.9-127.0.0.1", "localhost", "1.0.0.0-2.0.0.0"] {
            assert!(parse_list(bad).is_err(), "{bad}");
        }
    }
}
