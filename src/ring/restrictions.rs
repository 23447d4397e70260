//! What a ring may still do once it runs: the operations that it uses, and nothing else, whatever
//! a defect or an intruder writes into its queue. The kernel refuses the rest with EACCES.
//!
//! Cost: a bit test per submission. Source: `io_uring_register_restrictions(3)`, Linux 5.10.

use io_uring::squeue::Flags;
use io_uring::{IoUring, register::Restriction};

use super::error::RingError;

// linux/io_uring.h, enum io_uring_register_op. All other registrations come before.
const REGISTER_EVENTFD: u8 = 4;
const REGISTER_SYNC_CANCEL: u8 = 24;
pub(super) const REGISTER_PBUF_STATUS: u8 = 26;

/// Restricts a ring that was made disabled to these operations, and enables it. `counted`: its
/// buffers are counted, which older kernels do not know.
pub(super) fn restrict_and_enable(
    io: &IoUring,
    opcodes: impl Iterator<Item = u8>,
    counted: bool,
) -> Result<(), RingError> {
    let flags = Flags::FIXED_FILE | Flags::BUFFER_SELECT | Flags::IO_LINK | Flags::SKIP_SUCCESS;
    let mut allowed: Vec<Restriction> = opcodes.map(Restriction::sqe_op).collect();
    allowed.extend([REGISTER_EVENTFD, REGISTER_SYNC_CANCEL].map(Restriction::register_op));
    allowed.extend(counted.then(|| Restriction::register_op(REGISTER_PBUF_STATUS)));
    allowed.push(Restriction::sqe_flags_allowed(flags.bits()));
    let submitter = io.submitter();
    submitter
        .register_restrictions(&mut allowed)
        .map_err(RingError::call("restricting a ring to what it uses"))?;
    submitter.register_enable_rings().map_err(RingError::call("enabling a ring"))
}

#[cfg(test)]
mod tests {
    use io_uring::opcode;
    use io_uring::types::CancelBuilder;

    use crate::ring::{Op, Ring, RingConfig, RingRole, Tag, Wait};

    #[test]
    fn what_a_ring_does_not_use_is_refused_by_the_kernel() {
        let config = RingConfig {
            role: RingRole::Server,
            slots: 4,
            submission_entries: 8,
            completion_entries: 16,
            buffers: 2,
            buffer_bytes: 64,
        };
        let mut ring = Ring::new(&config).expect("this kernel has io_uring");
        ring.push(opcode::Nop::new().build(), Tag::new(Op::Wake, 0, 1));
        ring.close(3, Tag::new(Op::Close, 0, 2));
        ring.enter(Wait::No).expect("the ring itself is whole");
        let mut batch = Vec::new();
        ring.collect(&mut batch, 8);
        let results: Vec<_> = batch.iter().map(|found| (found.tag.index, found.result)).collect();
        assert_eq!(results, [(1, -libc::EACCES), (2, -libc::EBADF)]);
        let cancelled = ring.io.submitter().register_sync_cancel(None, CancelBuilder::any());
        let errno = cancelled.err().and_then(|error| error.raw_os_error());
        assert_ne!(errno, Some(libc::EACCES), "what `Drop` relies on is allowed");
        let refused = ring.io.submitter().register_files_sparse(1);
        assert_eq!(refused.err().and_then(|error| error.raw_os_error()), Some(libc::EACCES));
    }
}
