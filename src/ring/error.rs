//! Why a ring could not be made or run, each with its cure.

use std::io;

/// The oldest kernel that has everything this ring layer relies on.
pub const KERNEL_NEEDED: &str = "6.1";

/// A ring could not be set up, or failed as a whole. What fails for one connection is no error of
/// the ring: it arrives as that connection's completion.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The kernel was built without io_uring, or a seccomp filter hides it.
    #[error(
        "io_uring does not exist here (ENOSYS): the kernel was built without CONFIG_IO_URING, or a \
         seccomp filter hides it; use a kernel of {KERNEL_NEEDED} or later, or lift the filter"
    )]
    Missing,
    /// Forbidden by sysctl or by a seccomp filter.
    #[error(
        "io_uring is forbidden (EPERM), kernel.io_uring_disabled={sysctl}: `sysctl -w \
         kernel.io_uring_disabled=0` allows it to all; if it is 0 already, a container's seccomp \
         filter denies it"
    )]
    Forbidden {
        /// The value of `kernel.io_uring_disabled`, or `unknown`.
        sysctl: String,
    },
    /// The kernel is too old for something the ring layer needs.
    #[error("this kernel's io_uring lacks {feature}, which came with Linux {since}; {cure}")]
    Lacks {
        /// What is missing, by the kernel's name for it.
        feature: &'static str,
        /// The first kernel version that has it.
        since: &'static str,
        /// What to do about it.
        cure: &'static str,
    },
    /// The fixed-file table may hold no more than RLIMIT_NOFILE.
    #[error(
        "a table of {slots} direct descriptors was refused ({source}): a ring's table may hold no \
         more than RLIMIT_NOFILE; raise it (`ulimit -n {slots}`) or use more rings per shard"
    )]
    Table {
        /// The slots asked for.
        slots: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// Memory for the rings was refused.
    #[error(
        "no memory for a ring ({0}): before Linux 5.12 and in some containers rings count against \
         RLIMIT_MEMLOCK; raise it (`ulimit -l unlimited`) or use fewer rings"
    )]
    Memory(io::Error),
    /// Any other refusal.
    #[error("{what} failed: {source}")]
    Call {
        /// The step that failed.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl RingError {
    /// Wraps what the kernel answered to `what`.
    pub(super) fn call(what: &'static str) -> impl FnOnce(io::Error) -> RingError {
        move |source| RingError::Call { what, source }
    }

    /// Explains a refused `io_uring_setup`.
    pub(super) fn setup(source: io::Error) -> RingError {
        match source.raw_os_error() {
            Some(libc::ENOSYS) => RingError::Missing,
            Some(libc::EPERM) => RingError::Forbidden { sysctl: io_uring_disabled() },
            Some(libc::ENOMEM) => RingError::Memory(source),
            Some(libc::EINVAL) => RingError::Lacks {
                feature: "IORING_SETUP_DEFER_TASKRUN or IORING_SETUP_SINGLE_ISSUER",
                since: KERNEL_NEEDED,
                cure: "use a newer kernel",
            },
            _ => RingError::Call { what: "io_uring_setup", source },
        }
    }
}

/// The value of `kernel.io_uring_disabled` (Linux 6.6 and later).
fn io_uring_disabled() -> String {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .map_or_else(|_| "unknown".to_owned(), |value| value.trim().to_owned())
}
