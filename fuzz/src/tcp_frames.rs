//! The TCP frame codec: what it accepts is encoded back to the same bytes, it wants no more than the
//! limit allows, and more bytes behind a frame change nothing about it.

use heartwheel::protocol::frame::{Parsed, parse};

const FRAME_BYTES_MAX: usize = 300;

/// Parses `bytes` as frames, one behind the other.
pub fn check(bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        match parse(rest, FRAME_BYTES_MAX) {
            Ok(Parsed::Whole(frame, frame_bytes)) => {
                assert_eq!(frame_bytes, frame.encoded_bytes(), "{frame:?}");
                let mut again = vec![0; frame_bytes];
                assert_eq!(frame.encode(&mut again), frame_bytes);
                assert_eq!(again, &rest[..frame_bytes], "{frame:?}");
                // The frame alone, without what follows it.
                let alone = parse(&rest[..frame_bytes], FRAME_BYTES_MAX);
                assert_eq!(alone, Ok(Parsed::Whole(frame, frame_bytes)));
                rest = &rest[frame_bytes..];
            }
            Ok(Parsed::Partial { wanted }) => {
                assert!(wanted > rest.len(), "there is more than {wanted} already");
                assert!(wanted <= 2 + FRAME_BYTES_MAX, "{wanted} are over the limit");
                return;
            }
            // What is refused stays refused, whatever follows.
            Err(error) => {
                let longer = [rest, &[0; 8]].concat();
                assert_eq!(parse(&longer, FRAME_BYTES_MAX), Err(error));
                return;
            }
        }
    }
}
