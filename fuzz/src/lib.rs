//! What the fuzz targets check: each module has a `check(bytes)` that panics if the code under test
//! breaks a promise. `fuzz/tests/seeds.rs` runs the committed seeds through the same checks, so a
//! seed that once failed stays a test.

pub mod http_upgrade;
pub mod proxy;
pub mod service;
pub mod shard;
pub mod tcp_frames;
pub mod tickets;
pub mod websocket;

/// Cuts of a message that the fuzzer chose: a count, then so many bytes, each the length of a part;
/// and the message behind them.
pub(crate) fn cuts_and_message(bytes: &[u8]) -> (&[u8], &[u8]) {
    let Some((&count, rest)) = bytes.split_first() else { return (&[], &[]) };
    rest.split_at(usize::from(count % 16).min(rest.len()))
}

/// The message in the parts that the cuts make of it; the last part is what is left.
pub(crate) fn parts<'a>(cuts: &'a [u8], message: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = message;
    let mut cuts = cuts.iter();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = cuts.next().map_or(rest.len(), |&cut| usize::from(cut).min(rest.len()));
        let (part, behind) = rest.split_at(length);
        rest = behind;
        Some(part)
    })
}
