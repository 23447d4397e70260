//! Making a ring: its flags, its tables, and the check that this kernel has all that we rely on.

use io_uring::{IoUring, Probe, opcode};

use super::buffers::BufferRing;
use super::error::RingError;
use super::restrictions::restrict_and_enable;

/// What a ring is for, and hence which operations it is restricted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingRole {
    /// It accepts connections.
    Server,
    /// The same, and it asks from where they come.
    AskingServer,
    /// It opens connections.
    Client,
}

/// The sizes of one ring.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// What it is for.
    pub role: RingRole,
    /// Slots of the direct-descriptor table; RLIMIT_NOFILE at most.
    pub slots: u32,
    /// Entries of the submission queue, a power of two.
    pub submission_entries: u32,
    /// Entries of the completion queue, a power of two.
    pub completion_entries: u32,
    /// Provided buffers, a power of two; 0 for a ring that never receives.
    pub buffers: u16,
    /// The size of each provided buffer in bytes.
    pub buffer_bytes: u32,
}

/// The operations that the ring layer uses, with the kernel that brought them.
const OPCODES: &[(u8, &str, &str)] = &[
    (opcode::Accept::CODE, "IORING_OP_ACCEPT", "5.5"),
    (opcode::RecvMulti::CODE, "IORING_OP_RECV", "5.6"),
    (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD", "5.1"),
    (opcode::Send::CODE, "IORING_OP_SEND", "5.6"),
    (opcode::Close::CODE, "IORING_OP_CLOSE", "5.6"),
    (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL", "5.5"),
    (opcode::Read::CODE, "IORING_OP_READ", "5.6"),
];

/// The operations that only those who open connections use.
const CLIENT_OPCODES: &[(u8, &str, &str)] = &[
    (opcode::Socket::CODE, "IORING_OP_SOCKET", "5.19"),
    (opcode::Connect::CODE, "IORING_OP_CONNECT", "5.5"),
    (opcode::Bind::CODE, "IORING_OP_BIND", "6.11"),
    (opcode::SetSockOpt::CODE, "IORING_OP_URING_CMD", "6.7"),
];

/// The operations that only those use who ask from where connections come.
const ASKING_OPCODES: &[(u8, &str, &str)] =
    &[(opcode::GetSockOpt::CODE, "IORING_OP_URING_CMD", "6.7")];

/// Which commands IORING_OP_URING_CMD has cannot be probed, and the operation itself is older than
/// the one that we need. Waiting for a futex came with the same kernel.
const ASKING_WITNESS: &[(u8, &str, &str)] =
    &[(opcode::FutexWait::CODE, "SOCKET_URING_OP_GETSOCKOPT", "6.7")];

/// Checks that this kernel has what a server's ring needs.
///
/// # Errors
/// The first thing that is missing, with the kernel version that has it and the cure.
pub fn probe_server() -> Result<(), RingError> {
    probe(OPCODES)
}

/// Checks that this kernel has what a server's ring needs to ask from where connections come.
///
/// # Errors
/// The first thing that is missing, with the kernel version that has it and the cure.
pub fn probe_asking_server() -> Result<(), RingError> {
    probe(ASKING_WITNESS)
}

/// Checks that this kernel has what a client's ring needs.
///
/// # Errors
/// The first thing that is missing, with the kernel version that has it and the cure.
pub fn probe_client() -> Result<(), RingError> {
    probe(OPCODES)?;
    probe(CLIENT_OPCODES)
}

fn probe(opcodes: &'static [(u8, &'static str, &'static str)]) -> Result<(), RingError> {
    let ring = build(8, 16, State::Enabled)?;
    let mut supported = Probe::new();
    ring.submitter()
        .register_probe(&mut supported)
        .map_err(RingError::call("asking io_uring which operations it has"))?;
    for &(code, feature, since) in opcodes {
        if !supported.is_supported(code) {
            return Err(RingError::Lacks { feature, since, cure: "use a newer kernel" });
        }
    }
    let parameters = ring.params();
    let features = [
        (parameters.is_feature_nodrop(), "IORING_FEAT_NODROP", "5.5"),
        (parameters.is_feature_submit_stable(), "IORING_FEAT_SUBMIT_STABLE", "5.5"),
        (parameters.is_feature_ext_arg(), "IORING_FEAT_EXT_ARG", "5.11"),
        (parameters.is_feature_skip_cqe_on_success(), "IORING_FEAT_CQE_SKIP", "5.17"),
    ];
    for (present, feature, since) in features {
        if !present {
            return Err(RingError::Lacks { feature, since, cure: "use a newer kernel" });
        }
    }
    // Multishot receive (6.0) cannot be probed as such; DEFER_TASKRUN (6.1), without which `build`
    // has failed already, implies it.
    Ok(())
}

/// Whether a new instance takes submissions at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Enabled,
    Disabled,
}

/// The io_uring instance itself. It must be made on the thread that uses it (SINGLE_ISSUER).
///
/// NO_SQARRAY (6.6) saves an indirection; an older kernel does without.
fn build(
    submission_entries: u32,
    completion_entries: u32,
    state: State,
) -> Result<IoUring, RingError> {
    let attempt = |no_sqarray: bool| {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(completion_entries);
        if state == State::Disabled {
            builder.setup_r_disabled();
        }
        if no_sqarray {
            builder.setup_no_sqarray();
        }
        builder.build(submission_entries)
    };
    match attempt(true) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => attempt(false),
        outcome => outcome,
    }
    .map_err(RingError::setup)
}

/// A ring with its descriptor table and its buffers, restricted to what it uses.
pub(super) fn create(config: &RingConfig) -> Result<(IoUring, Option<BufferRing>), RingError> {
    let io = build(config.submission_entries, config.completion_entries, State::Disabled)?;
    if config.slots > 0 {
        io.submitter().register_files_sparse(config.slots).map_err(|source| {
            match source.raw_os_error() {
                Some(libc::EMFILE) => RingError::Table { slots: config.slots, source },
                _ => RingError::Call { what: "registering a direct-descriptor table", source },
            }
        })?;
    }
    let buffers = match config.buffers {
        0 => None,
        count => Some(BufferRing::register(&io, count, config.buffer_bytes)?),
    };
    let of_role: &[_] = match config.role {
        RingRole::Server => &[],
        RingRole::AskingServer => ASKING_OPCODES,
        RingRole::Client => CLIENT_OPCODES,
    };
    let opcodes = OPCODES.iter().chain(of_role).map(|&(code, _, _)| code);
    restrict_and_enable(&io, opcodes, buffers.as_ref().is_some_and(BufferRing::is_counted))?;
    Ok((io, buffers))
}
