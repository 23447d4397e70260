//! The PROXY protocol: a header is known to be whole at its last byte and not before, however it is
//! cut; what follows it, and what is refused, changes nothing.

use heartwheel::limits::PROXY_HEADER_BYTES_MAX;
use heartwheel::protocol::proxy::{Parsed, SIGNATURE, parse};

/// Reads `bytes` as a header, and as what follows the signature of one.
pub fn check(bytes: &[u8]) {
    check_header(bytes);
    check_header(&[&SIGNATURE, bytes].concat());
}

fn check_header(bytes: &[u8]) {
    match parse(bytes) {
        Ok(Parsed::Whole { header_bytes, source }) => {
            assert!((16..=PROXY_HEADER_BYTES_MAX).contains(&header_bytes));
            for end in 0..header_bytes {
                match parse(&bytes[..end]) {
                    Ok(Parsed::Partial { wanted }) => {
                        assert!(wanted > end && wanted <= header_bytes, "{wanted} at {end}");
                    }
                    other => panic!("whole, but at {end} it was {other:?}"),
                }
            }
            let alone = parse(&bytes[..header_bytes]);
            assert_eq!(alone, Ok(Parsed::Whole { header_bytes, source }));
        }
        Ok(Parsed::Partial { wanted }) => {
            assert!(wanted > bytes.len() && wanted <= PROXY_HEADER_BYTES_MAX);
        }
        Err(_) => assert!(parse(&[bytes, b"more"].concat()).is_err(), "refused, then not"),
    }
}
