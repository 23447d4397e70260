//! The system calls that no crate offers safely, what tokio-uring may send without a copy, and what
//! `/proc` tells of ourselves.
#![expect(unsafe_code, reason = "descriptor tables, and memory that is lent to the kernel")]

use std::io;
use std::os::fd::BorrowedFd;

use tokio::io::unix::AsyncFd;
use tokio_uring::buf::IoBuf;

use crate::outgoing::Outgoing;

/// Gives the calling thread a descriptor table of its own, with copies of all that is open now.
///
/// RLIMIT_NOFILE bounds each table, so a process whose threads have tables of their own holds that
/// many more connections. From here on a descriptor means something on its own thread only: do not
/// hand one over to another thread, and do not wake a runtime that was made on another one unless
/// it was made before.
///
/// # Errors
/// If the kernel refuses.
pub fn leave_descriptor_table() -> io::Result<()> {
    // SAFETY: descriptors that were open stay valid, under the same numbers, on both sides. The
    // callers are threads that have opened none before, and hand none over afterwards.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FILES) }?;
    Ok(())
}

/// Lets a task of the calling thread's tokio runtime wait until `fd` is readable.
///
/// # Errors
/// If the runtime cannot register it.
pub fn watch(fd: BorrowedFd<'_>) -> io::Result<AsyncFd<BorrowedFd<'_>>> {
    // SAFETY: the borrow keeps the descriptor open, and what it refers to the same, for as long as
    // the registration lives.
    unsafe { AsyncFd::register(fd) }.map_err(|error| error.into_parts().1)
}

/// Bytes that tokio-uring sends where they lie: a message that many share is not copied for each.
#[derive(Debug)]
pub struct Lent(pub Outgoing);

// SAFETY: the bytes of an `Outgoing` do not move when it does (its invariant), and nobody writes to
// them: they are static, in a box that it owns, or in an `Arc` that it shares.
unsafe impl IoBuf for Lent {
    fn stable_ptr(&self) -> *const u8 {
        self.0.as_bytes().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.0.len()
    }

    fn bytes_total(&self) -> usize {
        self.0.len()
    }
}

/// The memory of this process that is resident, in bytes, from `/proc/self/statm`.
pub fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
