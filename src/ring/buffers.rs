//! The provided-buffer ring: memory that the kernel picks from when bytes arrive, so that a
//! connection that waits for bytes owns none.
//!
//! Invariant: a buffer is either the kernel's (free) or held as exactly one [`Buffer`] value.
//! Cost: `entries` x (16 + `buffer_bytes`) per ring, touched as it is used.
//! Source: `io_uring_register_buf_ring(3)`, Linux 5.19.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::error::RingError;
use super::restrictions::REGISTER_PBUF_STATUS;

/// The kernel wants the ring of entries to start on a page.
const PAGE_BYTES: usize = 4096;

/// A filled buffer, held by us until it is given back with `Ring::release`.
#[derive(Debug)]
pub struct Buffer {
    ring: u32,
    id: u16,
    length: u32,
}

/// Where the provided buffers of a ring are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BufferAccount {
    /// All of them.
    pub total: u32,
    /// Those that the kernel may fill, by the kernel's own count.
    pub free: u32,
    /// Those that we hold, by ours.
    pub held: u32,
}

/// Tells the buffers of one ring from those of another.
static NEXT_RING: AtomicU32 = AtomicU32::new(0);

/// One group of provided buffers.
pub(super) struct BufferRing {
    entries: Region,
    memory: Region,
    ring: u32,
    count: u16,
    buffer_bytes: u32,
    tail: u16,
    held: u32,
    /// The kernel tells how many it has taken.
    is_counted: bool,
}

impl BufferRing {
    /// The group that this ring layer uses: one per ring.
    pub(super) const GROUP: u16 = 0;

    /// Reserves memory for `count` buffers (a power of two, 32,768 at most) and hands all of them
    /// to the kernel.
    ///
    /// # Errors
    /// If the kernel refuses the ring.
    pub(super) fn register(
        io: &IoUring,
        count: u16,
        buffer_bytes: u32,
    ) -> Result<BufferRing, RingError> {
        assert!(count.is_power_of_two(), "a buffer ring has a power of two of entries");
        let mut buffers = BufferRing {
            entries: Region::new(usize::from(count) * size_of::<BufRingEntry>()),
            memory: Region::new(usize::from(count) * buffer_bytes as usize),
            ring: NEXT_RING.fetch_add(1, Ordering::Relaxed),
            count,
            buffer_bytes,
            tail: 0,
            held: u32::from(count),
            is_counted: false,
        };
        // SAFETY: the region holds `count` entries, starts on a page, and is unmapped only after
        // the io_uring instance: `Ring` declares its fields in that order.
        unsafe {
            io.submitter().register_buf_ring_with_flags(
                buffers.entries.start.as_ptr() as u64,
                count,
                Self::GROUP,
                0,
            )
        }
        .map_err(|source| match source.raw_os_error() {
            Some(libc::EINVAL) => RingError::Lacks {
                feature: "IORING_REGISTER_PBUF_RING",
                since: "5.19",
                cure: "use a newer kernel",
            },
            _ => RingError::Call { what: "registering a provided-buffer ring", source },
        })?;
        for id in 0..count {
            buffers.release(Buffer { ring: buffers.ring, id, length: 0 });
        }
        buffers.publish();
        buffers.is_counted = kernel_head(io.as_raw_fd()).is_some();
        Ok(buffers)
    }

    /// Whether the kernel tells how many buffers it has taken.
    pub(super) fn is_counted(&self) -> bool {
        self.is_counted
    }

    /// Where the buffers are, if the kernel tells, and if no completion on its way holds any.
    pub(super) fn account(&self, ring: RawFd) -> Option<BufferAccount> {
        let head = self.is_counted.then(|| kernel_head(ring)).flatten()?;
        let free = u32::from(self.tail.wrapping_sub(head));
        Some(BufferAccount { total: u32::from(self.count), free, held: self.held })
    }

    /// Takes over the buffer that a completion names.
    pub(super) fn hold(&mut self, id: u16, length: u32) -> Buffer {
        assert!(id < self.count && length <= self.buffer_bytes, "the kernel keeps to our buffers");
        self.held += 1;
        Buffer { ring: self.ring, id, length }
    }

    /// The bytes that the kernel wrote.
    pub(super) fn bytes(&self, buffer: &Buffer) -> &[u8] {
        assert_eq!(buffer.ring, self.ring, "a buffer belongs to its ring");
        let offset = usize::from(buffer.id) * self.buffer_bytes as usize;
        // SAFETY: `id < count`, `length <= buffer_bytes`, the region is initialised, and the
        // kernel does not write to a buffer that has not been released, which needs the `Buffer`.
        unsafe {
            std::slice::from_raw_parts(
                self.memory.start.as_ptr().add(offset),
                buffer.length as usize,
            )
        }
    }

    /// Queues a buffer for the kernel; it sees it at the next `publish`.
    #[expect(clippy::needless_pass_by_value, reason = "who gives a buffer back has it no longer")]
    pub(super) fn release(&mut self, buffer: Buffer) {
        assert_eq!(buffer.ring, self.ring, "a buffer belongs to its ring");
        let offset = usize::from(buffer.id) * self.buffer_bytes as usize;
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot < count`, and the kernel reads entries only up to the published tail. The
        // entry's last field, which holds the tail in entry 0, is not written.
        unsafe {
            let entry = &mut *self.entries.start.as_ptr().cast::<BufRingEntry>().add(slot);
            entry.set_addr(self.memory.start.as_ptr().add(offset) as u64);
            entry.set_len(self.buffer_bytes);
            entry.set_bid(buffer.id);
        }
        self.tail = self.tail.wrapping_add(1);
        self.held -= 1;
    }

    /// Lets the kernel see all that was released.
    pub(super) fn publish(&self) {
        // SAFETY: the tail lies inside entry 0, is two-byte aligned, and is shared with the kernel
        // as an atomic.
        let tail = unsafe {
            AtomicU16::from_ptr(
                BufRingEntry::tail(self.entries.start.as_ptr().cast::<BufRingEntry>()).cast_mut(),
            )
        };
        tail.store(self.tail, Ordering::Release);
    }

    /// How many buffers are held by us at this moment.
    pub(super) fn held(&self) -> u32 {
        self.held
    }
}

/// `struct io_uring_buf_status`.
#[repr(C)]
struct BufferStatus {
    group: u32,
    head: u32,
    reserved: [u32; 8],
}

/// How many buffers the kernel has taken so far, modulo 65,536 (IORING_REGISTER_PBUF_STATUS, Linux
/// 6.8); `None` where it does not tell.
fn kernel_head(ring: RawFd) -> Option<u16> {
    let group = u32::from(BufferRing::GROUP);
    let mut status = BufferStatus { group, head: 0, reserved: [0; 8] };
    // SAFETY: the kernel reads and writes one `io_uring_buf_status`, and keeps no pointer to it.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring,
            u32::from(REGISTER_PBUF_STATUS),
            &raw mut status,
            1_u32,
        )
    };
    (outcome == 0).then_some(status.head as u16)
}

/// Zeroed, page-aligned memory that is resident only where it was touched.
struct Region {
    start: NonNull<u8>,
    layout: Layout,
}

impl Region {
    fn new(bytes: usize) -> Region {
        let layout = Layout::from_size_align(bytes.max(1), PAGE_BYTES)
            .expect("a buffer ring's size is bounded by its limits");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Region { start, layout }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this very layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}
