//! What reading a large text message costs, beside what its parts cost at least.
//!
//! - `decode`: the production codec: copy, unmask, check, in pieces as a ring delivers them or at
//!   once;
//! - `simdutf8`: the check alone, over the whole text;
//! - `copy`: the copy alone;
//! - `unmask`: the unmasking alone, in place.
#![allow(missing_docs, reason = "criterion's macros make functions")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use heartwheel::protocol::websocket::{
    Event, HEADER_BYTES_MAX, Opcode, Reader, Role, decode, encode_header, mask,
};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

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

fn large_text(criterion: &mut Criterion) {
    for bytes in [1 << 20, 1 << 24] {
        let text = text(bytes);
        let frame = masked_frame(&text);
        assert_eq!(read(&frame, 1_024), text.len(), "the whole message comes out");
        let mut group = criterion.benchmark_group(format!("text of {} MiB", bytes >> 20));
        group.throughput(Throughput::Bytes(text.len() as u64)).sample_size(20);
        group.bench_function("decode in pieces of 1 KiB", |bencher| {
            bencher.iter(|| read(black_box(&frame), 1_024));
        });
        group.bench_function("decode at once", |bencher| {
            bencher.iter(|| read(black_box(&frame), usize::MAX));
        });
        group.bench_function("simdutf8", |bencher| {
            bencher.iter(|| simdutf8::basic::from_utf8(black_box(&text)).is_ok());
        });
        group.bench_function("copy", |bencher| bencher.iter(|| black_box(&text).to_vec()));
        group.bench_function("unmask", |bencher| {
            bencher.iter_batched_ref(
                || text.clone(),
                |bytes| mask(black_box(bytes), KEY, 0),
                BatchSize::LargeInput,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, large_text);
criterion_main!(benches);
