//! The TCP codec, for any frame and any split of its bytes.

use heartwheel::protocol::frame::{Frame, FrameError, Parsed, parse};
use proptest::collection::vec;
use proptest::prelude::*;

/// A frame that owns its payload.
#[derive(Clone, Debug)]
enum Owned {
    Hello(u32, Vec<u8>),
    Welcome(u64, u32, u32),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Push(u64, Vec<u8>),
    PushAck(u64),
    Data(Vec<u8>),
    GoAway(u16, u32),
    Adjust(u32, u32, u32),
}

impl Owned {
    fn borrow(&self) -> Frame<'_> {
        match self {
            Owned::Hello(interval_ms, token) => Frame::Hello { interval_ms: *interval_ms, token },
            Owned::Welcome(session, interval_ms, idle_timeout_ms) => Frame::Welcome {
                session: *session,
                interval_ms: *interval_ms,
                idle_timeout_ms: *idle_timeout_ms,
            },
            Owned::Ping(payload) => Frame::Ping(payload),
            Owned::Pong(payload) => Frame::Pong(payload),
            Owned::Push(id, message) => Frame::Push { id: *id, message },
            Owned::PushAck(id) => Frame::PushAck { id: *id },
            Owned::Data(message) => Frame::Data(message),
            Owned::GoAway(reason, retry_after_ms) => {
                Frame::GoAway { reason: *reason, retry_after_ms: *retry_after_ms }
            }
            &Owned::Adjust(interval_ms, idle_timeout_ms, next_in_ms) => {
                Frame::Adjust { interval_ms, idle_timeout_ms, next_in_ms }
            }
        }
    }
}

fn any_frame() -> impl Strategy<Value = Owned> {
    prop_oneof![
        (any::<u32>(), vec(any::<u8>(), 0..40)).prop_map(|(i, t)| Owned::Hello(i, t)),
        any::<(u64, u32, u32)>().prop_map(|(s, i, t)| Owned::Welcome(s, i, t)),
        vec(any::<u8>(), 0..=125).prop_map(Owned::Ping),
        vec(any::<u8>(), 0..=125).prop_map(Owned::Pong),
        (any::<u64>(), vec(any::<u8>(), 0..300)).prop_map(|(i, m)| Owned::Push(i, m)),
        any::<u64>().prop_map(Owned::PushAck),
        vec(any::<u8>(), 0..300).prop_map(Owned::Data),
        any::<(u16, u32)>().prop_map(|(r, t)| Owned::GoAway(r, t)),
        any::<(u32, u32, u32)>().prop_map(|(i, t, n)| Owned::Adjust(i, t, n)),
    ]
}

fn encode(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = vec![0; frame.encoded_bytes()];
    assert_eq!(frame.encode(&mut bytes), bytes.len());
    bytes
}

proptest! {
    #[test]
    fn what_is_written_is_read(frame in any_frame(), behind in vec(any::<u8>(), 0..8)) {
        let mut bytes = encode(&frame.borrow());
        let frame_bytes = bytes.len();
        bytes.extend(behind);
        prop_assert_eq!(parse(&bytes, 65_535), Ok(Parsed::Whole(frame.borrow(), frame_bytes)));
    }

    #[test]
    fn every_front_of_a_legal_frame_is_partial_and_says_what_it_wants(frame in any_frame()) {
        let bytes = encode(&frame.borrow());
        for cut in 0..bytes.len() {
            match parse(&bytes[..cut], 65_535) {
                Ok(Parsed::Partial { wanted }) => {
                    prop_assert!(wanted > cut && wanted <= bytes.len(), "{wanted} at {cut}");
                }
                other => prop_assert!(false, "{other:?} at {cut}"),
            }
        }
    }

    /// More bytes never change what the first ones showed: an illegal frame stays illegal for the
    /// same reason, and it is known by its header.
    #[test]
    fn a_verdict_is_final_and_needs_no_payload(
        bytes in vec(any::<u8>(), 0..64),
        limit in 1_usize..400,
    ) {
        let verdicts: Vec<_> = (0..=bytes.len()).map(|cut| parse(&bytes[..cut], limit)).collect();
        if let Some(first) = verdicts.iter().position(Result::is_err) {
            prop_assert!(first <= 4, "known by the header and the version byte");
            for later in &verdicts[first..] {
                prop_assert_eq!(later, &verdicts[first]);
            }
        }
        if let [high, low, ..] = bytes[..] {
            let length = usize::from(u16::from_be_bytes([high, low]));
            prop_assert_eq!(verdicts[2] == Err(FrameError::Oversize), length > limit);
            prop_assert_eq!(verdicts[2] == Err(FrameError::LengthZero), length == 0);
        }
    }
}
