//! The PROXY protocol against `ppp`, a parser that others wrote.

use heartwheel::limits::PROXY_HEADER_BYTES_MAX;
use heartwheel::protocol::address::PeerAddress;
use heartwheel::protocol::proxy::{Parsed, parse};
use ppp::v2::{Addresses, Builder, Command, Header, Protocol, Version};
use proptest::collection::vec;
use proptest::prelude::*;

/// For whom the oracle says that the proxy speaks, and how long the header is. It is laxer than the
/// server has to be: it steps over TLVs only when asked, and knows datagrams.
fn oracle(bytes: &[u8]) -> Option<(Option<PeerAddress>, usize)> {
    let header = Header::try_from(bytes).ok()?;
    let source = match (header.command, &header.addresses) {
        (Command::Local, _) => None,
        (_, Addresses::IPv4(ip)) => Some(PeerAddress::v4(ip.source_address.octets())),
        (_, Addresses::IPv6(ip)) => Some(PeerAddress::v6(ip.source_address.octets())),
        _ => None,
    };
    let is_local = header.command == Command::Local;
    let is_unspecified = matches!(header.addresses, Addresses::Unspecified);
    if !is_local {
        let unknown = is_unspecified != (header.protocol == Protocol::Unspecified);
        let tlvs_are_whole = is_unspecified || header.tlvs().all(|tlv| tlv.is_ok());
        if header.protocol == Protocol::Datagram || unknown || !tlvs_are_whole {
            return None;
        }
    }
    (header.len() <= PROXY_HEADER_BYTES_MAX).then_some((source, header.len()))
}

fn ours(bytes: &[u8]) -> Option<(Option<PeerAddress>, usize)> {
    match parse(bytes) {
        Ok(Parsed::Whole { source, header_bytes }) => Some((source, header_bytes)),
        _ => None,
    }
}

fn any_header() -> impl Strategy<Value = Vec<u8>> {
    let protocol = prop_oneof![Just(Protocol::Stream), Just(Protocol::Datagram)];
    let tlvs = vec((any::<u8>(), vec(any::<u8>(), 0..300)), 0..5);
    (any::<bool>(), protocol, any::<bool>(), any::<[u8; 36]>(), tlvs).prop_map(
        |(local, protocol, v6, address, tlvs)| {
            let command = Version::Two | if local { Command::Local } else { Command::Proxy };
            let (front, back) = (&address[..16], &address[16..32]);
            let octets = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).expect("16 bytes");
            let mut builder = match v6 {
                true => Builder::with_addresses(
                    command,
                    protocol,
                    ppp::v2::IPv6::new(octets(front), octets(back), 1, 2),
                ),
                false => Builder::with_addresses(
                    command,
                    protocol,
                    ppp::v2::IPv4::new([front[0], front[1], front[2], front[3]], [7; 4], 1, 2),
                ),
            };
            for (kind, value) in tlvs {
                builder = builder.write_tlv(kind, &value).expect("it fits");
            }
            builder.build().expect("it fits")
        },
    )
}

proptest! {
    #[test]
    fn what_others_build_is_read_as_they_read_it(
        bytes in any_header(),
        more in vec(any::<u8>(), 0..9),
    ) {
        let followed = [&bytes[..], &more].concat();
        prop_assert_eq!(ours(&followed), oracle(&followed));
    }

    /// A byte or two behind the signature changed, so that most are malformed in one way.
    #[test]
    fn what_is_malformed_to_others_is_to_us(
        bytes in any_header(),
        changes in vec((12..60_usize, any::<u8>()), 1..3),
    ) {
        let mut bytes = bytes;
        for (at, with) in changes {
            let at = at.min(bytes.len() - 1);
            bytes[at] = with;
        }
        if bytes[12] & 0x0f > 1 || bytes[12] >> 4 != 2 {
            prop_assert_eq!(ours(&bytes), None);
        } else if bytes[12] & 0x0f == 1 {
            prop_assert_eq!(ours(&bytes), oracle(&bytes));
        }
    }
}
