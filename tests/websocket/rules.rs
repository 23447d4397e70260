//! What RFC 6455 says that a frame MUST or MUST NOT be, section by section.

use heartwheel::protocol::websocket::{
    HEADER_BYTES_MAX, Opcode, Reader, Role, TEXT_PONG, WebSocketError as E, encode_header, mask,
};

use crate::client::{Ear, Heard, KEY, SERVER, frame};

fn refused(bytes: &[u8]) -> Option<E> {
    let whole = Ear::new(SERVER).read(bytes).err();
    // Byte by byte the refusal is the same.
    let mut ear = Ear::new(SERVER);
    let one_by_one = bytes.iter().find_map(|byte| ear.read(&[*byte]).err());
    assert_eq!(whole, one_by_one, "{bytes:02x?}");
    whole
}

fn heard(bytes: &[u8]) -> Vec<Heard> {
    let mut ear = Ear::new(SERVER);
    ear.read(bytes).expect("legal");
    assert!(ear.partial.is_none() || ear.partial.is_some_and(|partial| !partial.is_empty()));
    ear.heard
}

#[test]
fn section_5_1_a_client_must_mask_and_a_server_must_not() {
    assert_eq!(refused(&[0x81, 0x05, b'H', b'e', b'l', b'l', b'o']), Some(E::Unmasked));
    let client = Reader { role: Role::Client, ..SERVER };
    assert_eq!(Ear::new(client).read(&frame(0x81, b"Hello", KEY)), Err(E::Masked));
    let mut ear = Ear::new(client);
    ear.read(&TEXT_PONG).expect("legal");
    assert_eq!(ear.heard, [Heard::Text(b"pong".to_vec())]);
}

#[test]
fn section_5_2_reserved_bits_must_be_zero() {
    for bit in [0x40, 0x20, 0x10] {
        assert_eq!(refused(&frame(0x81 | bit, b"x", KEY)), Some(E::ReservedBits));
        assert_eq!(refused(&[0x81 | bit]), Some(E::ReservedBits), "from the first byte");
    }
}

#[test]
fn section_5_2_unknown_opcodes_fail_the_connection() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_eq!(refused(&[0x80 | opcode]), Some(E::UnknownOpcode));
    }
}

#[test]
fn section_5_2_the_minimal_length_encoding_must_be_used() {
    assert_eq!(refused(&[0x82, 0xfe, 0, 125]), Some(E::LengthEncoding));
    assert_eq!(refused(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), Some(E::LengthEncoding));
    assert_eq!(refused(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 1, 0, 0]), Some(E::LengthEncoding));
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537] {
        let payload = vec![7; length];
        assert_eq!(heard(&frame(0x82, &payload, KEY)), [Heard::Binary(payload)], "{length}");
    }
}

#[test]
fn section_5_4_fragments_make_a_message_and_control_frames_may_come_between() {
    let parts = [
        frame(0x01, b"Hel", KEY),
        frame(0x89, b"?", [1, 2, 3, 4]),
        frame(0x00, b"", KEY),
        frame(0x8a, b"", KEY),
        frame(0x80, b"lo", [9, 8, 7, 6]),
    ];
    let expected =
        [Heard::Ping(b"?".to_vec()), Heard::Pong(Vec::new()), Heard::Text(b"Hello".to_vec())];
    assert_eq!(heard(&parts.concat()), expected);
}

#[test]
fn section_5_4_a_continuation_needs_a_start_and_a_start_an_end() {
    assert_eq!(refused(&[0x80]), Some(E::ContinuationWithoutStart));
    assert_eq!(refused(&[0x00]), Some(E::ContinuationWithoutStart));
    let nested = [frame(0x01, b"a", KEY), frame(0x81, b"b", KEY)].concat();
    assert_eq!(refused(&nested), Some(E::MessageWithinMessage));
    let after = [frame(0x82, b"a", KEY), frame(0x80, b"b", KEY)].concat();
    assert_eq!(refused(&after), Some(E::ContinuationWithoutStart));
}

#[test]
fn section_5_5_control_frames_are_short_and_whole() {
    for opcode in [8, 9, 10] {
        assert_eq!(refused(&[0x80 | opcode, 0x80 | 126]), Some(E::ControlTooLong));
        assert_eq!(refused(&[opcode]), Some(E::ControlFragmented));
    }
    let payload = vec![b'x'; 125];
    assert_eq!(heard(&frame(0x89, &payload, KEY)), [Heard::Ping(payload)]);
}

#[test]
fn section_5_5_1_a_close_has_no_payload_or_a_code_and_utf_8() {
    assert_eq!(heard(&frame(0x88, b"", KEY)), [Heard::Close(None, Vec::new())]);
    let bye = [&1000_u16.to_be_bytes()[..], b"bye"].concat();
    assert_eq!(heard(&frame(0x88, &bye, KEY)), [Heard::Close(Some(1000), b"bye".to_vec())]);
    assert_eq!(refused(&frame(0x88, b"x", KEY)), Some(E::CloseLength));
    let noise = [&1000_u16.to_be_bytes()[..], &[0xff]].concat();
    assert_eq!(refused(&frame(0x88, &noise, KEY)), Some(E::BadUtf8));
}

#[test]
fn section_5_5_1_nothing_is_read_after_a_close() {
    let bytes = [frame(0x88, b"", KEY), frame(0x81, b"late", KEY)].concat();
    assert_eq!(heard(&bytes), [Heard::Close(None, Vec::new())]);
}

#[test]
fn section_7_4_codes_that_may_and_may_not_be_sent() {
    let legal = |code: u16| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    // An interpreter has no time for all.
    for code in (0..=u16::MAX).step_by(if cfg!(miri) { 97 } else { 1 }) {
        let outcome = Ear::new(SERVER).read(&frame(0x88, &code.to_be_bytes(), KEY));
        let expected = if legal(code) { Ok(()) } else { Err(E::CloseCode) };
        assert_eq!(outcome, expected, "{code}");
    }
}

#[test]
fn section_8_1_text_is_refused_at_its_first_bad_byte() {
    let text = "κόσμε\u{10ffff}".as_bytes();
    for cut in 0..=text.len() {
        let parts = [frame(0x01, &text[..cut], KEY), frame(0x80, &text[cut..], KEY)].concat();
        assert_eq!(heard(&parts), [Heard::Text(text.to_vec())], "cut at {cut}");
    }
    // A surrogate, an overlong form, a code point beyond the last: known before the frame ends.
    for bad in [&[0xed, 0xa0][..], &[0xc0], &[0xf4, 0x90], &[0xf8], &[b'a', 0x80]] {
        let whole = frame(0x81, &[bad, &[b'x'; 200][..]].concat(), KEY);
        let known_at = 4 + 4 + bad.len();
        let mut ear = Ear::new(SERVER);
        assert_eq!(ear.read(&whole[..known_at - 1]), Ok(()), "{bad:02x?}");
        assert_eq!(ear.read(&whole[known_at - 1..known_at]), Err(E::BadUtf8), "{bad:02x?}");
    }
    assert_eq!(refused(&frame(0x81, &[b'a', 0xe2, 0x82], KEY)), Some(E::BadUtf8), "cut short");
    assert_eq!(refused(&frame(0x81, &[0xff; 10], KEY)), Some(E::BadUtf8));
}

#[test]
fn a_message_over_the_limit_is_refused_by_its_header() {
    let small = Reader { message_bytes_max: 10, ..SERVER };
    assert_eq!(Ear::new(small).read(&frame(0x82, &[0; 11], KEY)[..2]), Err(E::TooBig));
    let mut ear = Ear::new(small);
    ear.read(&frame(0x02, &[0; 6], KEY)).expect("fits");
    assert_eq!(ear.read(&[0x80, 0x85]), Err(E::TooBig), "all fragments together");
    let huge = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(Ear::new(SERVER).read(&huge), Err(E::TooBig));
}

#[test]
fn nothing_is_kept_for_a_claimed_length() {
    let mut ear = Ear::new(SERVER);
    ear.read(&[0x82, 0xff, 0, 0, 0, 0, 0, 0x0f, 0, 0, 1, 2, 3, 4, 9, 9]).expect("legal so far");
    let held = ear.partial.as_ref().map_or(0, |partial| partial.held_bytes());
    assert!(held <= 64, "{held} bytes held for 2 that came of a million claimed");
}

#[test]
fn an_idle_session_holds_nothing() {
    let mut ear = Ear::new(SERVER);
    let beat = frame(0x81, b"ping", KEY);
    for byte in &beat {
        ear.read(&[*byte]).expect("legal");
    }
    assert!(ear.partial.is_none());
    ear.read(&[&beat[..], &beat[..3]].concat()).expect("legal");
    assert!(ear.partial.is_some());
    ear.read(&beat[3..]).expect("legal");
    assert!(ear.partial.is_none());
    assert_eq!(ear.heard, vec![Heard::Text(b"ping".to_vec()); 3]);
}

#[test]
fn section_5_7_the_examples() {
    assert_eq!(
        heard(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]),
        [Heard::Text(b"Hello".to_vec())]
    );
    let mut out = [0; HEADER_BYTES_MAX];
    let mut header = |opcode, length| {
        let count = encode_header(opcode, length, None, &mut out);
        out[..count].to_vec()
    };
    assert_eq!(header(Opcode::Binary, 256), [0x82, 0x7e, 0x01, 0x00]);
    assert_eq!(header(Opcode::Binary, 65_536), [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(header(Opcode::Ping, 5), [0x89, 0x05]);
}

#[test]
fn section_5_3_masking() {
    let plain: Vec<u8> = (0..100_u8).map(|index| index.wrapping_mul(7)).collect();
    for cut in 0..plain.len() {
        let mut bytes = plain.clone();
        let (front, back) = bytes.split_at_mut(cut);
        mask(front, KEY, 0);
        mask(back, KEY, cut);
        let naive = plain.iter().enumerate().map(|(index, byte)| byte ^ KEY[index % 4]);
        assert!(bytes.iter().copied().eq(naive), "cut at {cut}");
        mask(&mut bytes, KEY, 0);
        assert_eq!(bytes, plain);
    }
}

#[test]
fn section_5_6_a_fragment_of_text_may_end_within_a_character() {
    let text = "a\u{20ac}b".as_bytes();
    let parts = [frame(0x01, &text[..2], KEY), frame(0x00, &text[2..3], KEY)];
    let whole = [&parts.concat()[..], &frame(0x80, &text[3..], KEY)].concat();
    assert_eq!(heard(&whole), [Heard::Text(text.to_vec())]);
    let cut_short = [&parts.concat()[..], &frame(0x80, b"", KEY)].concat();
    assert_eq!(refused(&cut_short), Some(E::BadUtf8), "but the message may not");
    let noise = [frame(0x02, &[0xff], KEY), frame(0x80, &[0xc0], KEY)].concat();
    assert_eq!(heard(&noise), [Heard::Binary(vec![0xff, 0xc0])]);
}
