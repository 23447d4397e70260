//! Where a client comes from, as limits see it: 128 bits, an IPv4 address as IPv6 maps it.

/// The address of a peer, without its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddress(u128);

/// What IPv6 puts before an IPv4 address (RFC 4291 section 2.5.5.2).
const MAPPED: u128 = 0xffff << 32;

impl PeerAddress {
    /// The address that nobody has (`::`).
    pub const NOBODY: PeerAddress = PeerAddress(0);

    /// An IPv4 address.
    pub const fn v4(octets: [u8; 4]) -> PeerAddress {
        PeerAddress(MAPPED | u32::from_be_bytes(octets) as u128)
    }

    /// An IPv6 address, or an IPv4 address that is mapped into one.
    pub const fn v6(octets: [u8; 16]) -> PeerAddress {
        PeerAddress(u128::from_be_bytes(octets))
    }

    /// What a `sockaddr_in` or `sockaddr_in6` of the kernel says; `None` if it is neither.
    pub fn from_sockaddr(bytes: &[u8]) -> Option<PeerAddress> {
        let family = u16::from_ne_bytes(bytes.first_chunk::<2>().copied()?);
        match i32::from(family) {
            family_number::INET => Some(PeerAddress::v4(bytes.get(4..8)?.try_into().ok()?)),
            family_number::INET6 => Some(PeerAddress::v6(bytes.get(8..24)?.try_into().ok()?)),
            _ => None,
        }
    }

    const fn is_v4(self) -> bool {
        self.0 >> 32 == MAPPED >> 32
    }

    /// All who share this are one to a limit: an IPv4 address, or a /64 of IPv6, which is what a
    /// single customer is given (RFC 6177).
    pub const fn household(self) -> PeerAddress {
        if self.is_v4() { self } else { PeerAddress(self.0 >> 64 << 64) }
    }
}

/// The kernel's numbers on Linux.
mod family_number {
    pub(super) const INET: i32 = 2;
    pub(super) const INET6: i32 = 10;
}

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: u128,
    mask: u128,
}

impl Network {
    /// All addresses that share `prefix` bits with `address`: up to 32 of IPv4, 128 of IPv6. `None`
    /// if there are not so many, or if bits are set behind them.
    pub fn new(address: PeerAddress, prefix: u8) -> Option<Network> {
        let bits = if address.is_v4() { 32 } else { 128 };
        let hidden = u32::from(bits.max(prefix) - prefix);
        let mask = u128::MAX.checked_shl(hidden).unwrap_or(0);
        (prefix <= bits && address.0 & !mask == 0).then_some(Network { address: address.0, mask })
    }

    /// Whether `address` lies in it.
    pub fn contains(&self, address: PeerAddress) -> bool {
        address.0 & self.mask == self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6(front: u16, back: u16) -> PeerAddress {
        let mut octets = [0; 16];
        octets[..2].copy_from_slice(&front.to_be_bytes());
        octets[14..].copy_from_slice(&back.to_be_bytes());
        PeerAddress::v6(octets)
    }

    #[test]
    fn a_household_is_an_ipv4_address_or_a_64_of_ipv6() {
        let (one, other) = (PeerAddress::v4([10, 0, 0, 1]), PeerAddress::v4([10, 0, 0, 2]));
        assert_ne!(one.household(), other.household());
        assert_eq!(v6(0x2001, 1).household(), v6(0x2001, 2).household());
        assert_ne!(v6(0x2001, 1).household(), v6(0x2002, 1).household());
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 1]);
        assert_eq!(PeerAddress::v6(mapped), one);
    }

    #[test]
    fn a_network_knows_its_own() {
        let ten = Network::new(PeerAddress::v4([10, 0, 0, 0]), 8).expect("legal");
        assert!(ten.contains(PeerAddress::v4([10, 255, 0, 1])));
        assert!(!ten.contains(PeerAddress::v4([11, 0, 0, 1])));
        assert!(!ten.contains(v6(0x2001, 1)));
        let all = Network::new(PeerAddress::v6([0; 16]), 0).expect("legal");
        assert!(all.contains(v6(0x2001, 1)));
        let one = Network::new(v6(0x2001, 7), 128).expect("legal");
        assert!(one.contains(v6(0x2001, 7)) && !one.contains(v6(0x2001, 8)));
        assert_eq!(Network::new(PeerAddress::v4([10, 0, 0, 1]), 8), None, "bits behind the prefix");
        assert_eq!(Network::new(PeerAddress::v4([10, 0, 0, 1]), 33), None);
    }
}
