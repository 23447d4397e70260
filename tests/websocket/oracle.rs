//! The codec against tungstenite: the same bytes, the same events, or the same refusal.
//!
//! Two differences are ours on purpose: lengths that are not encoded minimally are refused (RFC
//! 6455 section 5.2 says that the minimal form MUST be used), and so are registered close codes
//! that tungstenite leaves to the application. So what we accept it must accept too, with the same
//! events; what it refuses we must refuse.

use std::io::{self, Cursor, Read, Write};

use proptest::collection::vec;
use proptest::prelude::*;
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, Message};

use crate::client::{Ear, Heard, SERVER, frame};

/// What the peer sends is given; what is answered is thrown away.
struct OneWay(Cursor<Vec<u8>>);

impl Read for OneWay {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl Write for OneWay {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite hears, and whether it refuses what follows.
fn by_tungstenite(bytes: &[u8]) -> (Vec<Heard>, bool) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(SERVER.message_bytes_max))
        .max_frame_size(Some(SERVER.message_bytes_max));
    let stream = OneWay(Cursor::new(bytes.to_vec()));
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, Some(config));
    let mut heard = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => heard.push(Heard::Text(text.as_bytes().to_vec())),
            Ok(Message::Binary(bytes)) => heard.push(Heard::Binary(bytes.to_vec())),
            Ok(Message::Ping(bytes)) => heard.push(Heard::Ping(bytes.to_vec())),
            Ok(Message::Pong(bytes)) => heard.push(Heard::Pong(bytes.to_vec())),
            Ok(Message::Close(close)) => {
                heard.push(match close {
                    Some(close) => {
                        Heard::Close(Some(close.code.into()), close.reason.as_bytes().to_vec())
                    }
                    None => Heard::Close(None, Vec::new()),
                });
                return (heard, false);
            }
            Ok(Message::Frame(_)) => unreachable!("never told by read"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return (heard, false);
            }
            Err(_) => return (heard, true),
        }
    }
}

/// A message in fragments, with control frames between them.
fn fragmented() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![Just("ping".to_owned()), "[a-zé€😀]{0,40}"];
    let payload = prop_oneof![
        3 => text.prop_map(|text| (1, text.into_bytes())),
        2 => vec(any::<u8>(), 0..300).prop_map(|bytes| (2, bytes)),
        1 => vec(any::<u8>(), 0..4).prop_map(|bytes| (1, bytes)),
    ];
    let control = (prop_oneof![Just(0x89_u8), Just(0x8a)], vec(any::<u8>(), 0..126));
    (
        payload,
        vec((any::<prop::sample::Index>(), any::<[u8; 4]>(), prop::option::of(control)), 0..4),
    )
        .prop_map(|((opcode, payload), cuts)| {
            let mut places: Vec<usize> =
                cuts.iter().map(|cut| cut.0.index(payload.len() + 1)).collect();
            places.sort_unstable();
            let mut bytes = Vec::new();
            let mut begin = 0;
            for (number, (_, key, control)) in cuts.iter().enumerate() {
                let first = if number == 0 { opcode } else { 0 };
                bytes.extend(frame(first, &payload[begin..places[number]], *key));
                begin = places[number];
                if let Some((first, payload)) = control {
                    bytes.extend(frame(*first, payload, *key));
                }
            }
            let last = 0x80 | if cuts.is_empty() { opcode } else { 0 };
            bytes.extend(frame(last, &payload[begin..], [5, 0, 200, 7]));
            bytes
        })
}

fn close() -> impl Strategy<Value = Vec<u8>> {
    let code = prop_oneof![Just(1000_u16), Just(1001), Just(1005), Just(3000), any::<u16>()];
    let payload = prop_oneof![
        Just(Vec::new()),
        vec(any::<u8>(), 1..2),
        (code, "[a-zé]{0,20}")
            .prop_map(|(code, reason)| { [&code.to_be_bytes()[..], reason.as_bytes()].concat() }),
    ];
    payload.prop_map(|payload| frame(0x88, &payload, [1, 2, 3, 4]))
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    (vec(fragmented(), 0..5), prop::option::of(close())).prop_map(|(messages, close)| {
        let mut bytes = messages.concat();
        bytes.extend(close.unwrap_or_default());
        bytes
    })
}

/// Compares both on `bytes`, ours cut at `cuts`.
fn compare(bytes: &[u8], cuts: &[usize], is_corrupted: bool) -> Result<(), TestCaseError> {
    let mut ear = Ear::new(SERVER);
    let refused = ear.read_split(bytes, cuts).is_err();
    let (heard, oracle_refused) = by_tungstenite(bytes);
    if !refused {
        prop_assert!(!oracle_refused, "we accept what tungstenite refuses");
        prop_assert_eq!(&ear.heard, &heard);
    }
    if !is_corrupted && !oracle_refused && !matches!(heard.last(), Some(Heard::Close(..))) {
        prop_assert!(!refused, "we refuse what tungstenite accepts");
    }
    let common = ear.heard.len().min(heard.len());
    prop_assert_eq!(&ear.heard[..common], &heard[..common]);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        // Miri is hundreds of times slower.
        cases: if cfg!(miri) { 8 } else { 2_000 },
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn any_messages_in_any_fragments_and_any_split(
        bytes in stream(),
        cuts in vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        compare(&bytes, &cuts, false)?;
    }

    #[test]
    fn corrupted_bytes_are_accepted_by_both_or_refused(
        bytes in stream(),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = bytes;
        for (place, value) in flips {
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
        }
        let every: Vec<usize> = (0..bytes.len()).collect();
        compare(&bytes, &every, true)?;
        compare(&bytes, &[], true)?;
    }

    #[test]
    fn how_the_bytes_are_split_changes_nothing(bytes in vec(any::<u8>(), 0..60)) {
        let mut whole = Ear::new(SERVER);
        let outcome = whole.read_split(&bytes, &[]);
        let every: Vec<usize> = (0..bytes.len()).collect();
        let mut split = Ear::new(SERVER);
        prop_assert_eq!(split.read_split(&bytes, &every), outcome);
        prop_assert_eq!(split.heard, whole.heard);
    }
}
