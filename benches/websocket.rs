//! What reading a large text message costs, beside what its parts cost at least.
//!
//! - `simdutf8`: the crate's check alone, over the whole text: the measure of all;
//! - `copy`, `copy + simdutf8`: what anybody has to do who keeps a message and checks it;
//! - `mask`, `mask + check`: unmasking in place, and unmasking and then checking what was unmasked,
//!   as the codec does with each piece;
//! - `decode at once`, `decode in pieces`: the production codec; in pieces of 1 KiB as a ring
//!   delivers them. It gathers the message in a vector that grows with what has arrived, since a
//!   length that is only claimed allocates nothing.
//!
//! The contestants take turns; a figure is the median of all rounds, with the spread between the
//! tenth and the ninetieth percentile.
#![allow(clippy::print_stdout, reason = "the result goes there")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use heartwheel::protocol::websocket::{
    Event, HEADER_BYTES_MAX, Opcode, Reader, Role, TextCheck, decode, encode_header, mask,
};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const ROUNDS: usize = 41;
/// So long is a contestant's turn, at least.
const TURN: Duration = Duration::from_millis(20);
/// So much is unmasked, then checked: what the second-level cache holds.
const BLOCK_BYTES: usize = 256 << 10;

/// Text of `bytes` bytes in which every eighth character takes two.
fn text(bytes: usize) -> Vec<u8> {
    "seven c\u{e9}".bytes().cycle().take(bytes / 9 * 9).collect()
}

fn masked_frame(text: &[u8]) -> Vec<u8> {
    let mut header = [0; HEADER_BYTES_MAX];
    let front = encode_header(Opcode::Text, text.len() as u64, Some(KEY), &mut header);
    let mut frame = [&header[..front], text].concat();
    mask(&mut frame[front..], KEY, 0);
    frame
}

/// The length of the message that `frame` brings, read in pieces.
fn read(frame: &[u8], piece_bytes: usize) -> usize {
    let reader = Reader { role: Role::Server, message_bytes_max: 1 << 25 };
    let (mut partial, mut length) = (None, 0);
    for piece in frame.chunks(piece_bytes) {
        let outcome = decode(&reader, &mut partial, piece, |event| -> Result<(), ()> {
            if let Event::Text(text) = event {
                length = black_box(text).len();
            }
            Ok(())
        });
        assert!(outcome.is_ok(), "the text is legal");
    }
    length
}

/// What the codec does with a block, in place.
fn mask_and_check(bytes: &mut [u8], key: [u8; 4]) {
    let mut check = TextCheck::default();
    for block in bytes.chunks_mut(BLOCK_BYTES) {
        mask(block, key, 0);
        assert!(check.read(block).is_ok(), "the text is legal");
    }
}

/// Seconds that one call takes, over a turn.
fn turn(work: &mut dyn FnMut()) -> f64 {
    let (begin, mut calls) = (Instant::now(), 0);
    while begin.elapsed() < TURN {
        work();
        calls += 1;
    }
    begin.elapsed().as_secs_f64() / f64::from(calls)
}

/// Its name, and its work.
type Contestant<'a> = (&'static str, Box<dyn FnMut() + 'a>);

fn compare(text: &[u8]) {
    let frame = masked_frame(text);
    assert_eq!(read(&frame, 1_024), text.len(), "the whole message comes out");
    let mut in_place = text.to_vec();
    // Masked by a key of zeros it stays text, and costs the same.
    let zeros = [0; 4];
    let mut blocks = text.to_vec();
    let mut contestants: [Contestant<'_>; 7] = [
        ("simdutf8", Box::new(|| assert!(simdutf8::basic::from_utf8(black_box(text)).is_ok()))),
        ("copy", Box::new(|| drop(black_box(black_box(text).to_vec())))),
        (
            "copy + simdutf8",
            Box::new(|| {
                let copy = black_box(black_box(text).to_vec());
                assert!(simdutf8::basic::from_utf8(&copy).is_ok());
            }),
        ),
        ("mask", Box::new(|| mask(black_box(&mut in_place), black_box(KEY), 0))),
        ("mask + check", Box::new(|| mask_and_check(black_box(&mut blocks), black_box(zeros)))),
        ("decode at once", Box::new(|| assert!(read(black_box(&frame), usize::MAX) > 0))),
        ("decode in pieces of 1 KiB", Box::new(|| assert!(read(black_box(&frame), 1_024) > 0))),
    ];
    let mut seconds = vec![Vec::new(); contestants.len()];
    for _ in 0..ROUNDS {
        for ((_, work), seconds) in contestants.iter_mut().zip(&mut seconds) {
            seconds.push(turn(work));
        }
    }
    println!("\ntext of {} KiB, {ROUNDS} rounds", text.len().div_ceil(1 << 10));
    println!("{:<26} {:>9} {:>19} {:>8} {:>9}", "", "us", "p10 to p90", "GiB/s", "simdutf8");
    let mut measure = None;
    for ((name, _), seconds) in contestants.iter().zip(&mut seconds) {
        seconds.sort_by(f64::total_cmp);
        let at = |share: f64| seconds[(share * (ROUNDS - 1) as f64).round() as usize] * 1e6;
        let median = at(0.5);
        let measure = *measure.get_or_insert(median);
        println!(
            "{name:<26} {median:>9.1} {:>9.1} {:>9.1} {:>8.1} {:>8.2}x",
            at(0.1),
            at(0.9),
            text.len() as f64 / (1 << 30) as f64 / median * 1e6,
            median / measure,
        );
    }
}

fn main() {
    for bytes in [64 << 10, 1 << 20, 16 << 20] {
        compare(&text(bytes));
    }
}
