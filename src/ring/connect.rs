//! Opening connections with one chain of linked operations: socket, options, bind, connect.
//!
//! Only the last link completes, unless an earlier one fails, which then completes alone: one
//! completion per connection either way (Linux 6.7 for the option, 6.11 for bind).

use std::net::SocketAddr;
use std::os::raw::c_int;

use io_uring::types::{DestinationSlot, Fixed};
use io_uring::{opcode, squeue};
use socket2::SockAddr;

use super::Ring;
use super::tag::{Op, Tag};

/// The option's value has to outlive the operation, which may run late: so it is static.
static ENABLED: c_int = 1;
/// Closing throws away what has not been sent, and says so.
static NO_LINGER: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };

/// Addresses that queued operations point to. The kernel copies them at submission
/// (IORING_FEAT_SUBMIT_STABLE), so all go once the queue has been taken.
pub(super) struct AddressArena {
    #[expect(clippy::vec_box, reason = "the kernel is told where each lies: they must not move")]
    addresses: Vec<Box<SockAddr>>,
}

impl AddressArena {
    pub(super) fn new() -> AddressArena {
        AddressArena { addresses: Vec::new() }
    }

    fn keep(&mut self, address: SocketAddr) -> &SockAddr {
        self.addresses.push(Box::new(SockAddr::from(address)));
        &self.addresses[self.addresses.len() - 1]
    }

    pub(super) fn clear(&mut self) {
        self.addresses.clear();
    }
}

impl Ring {
    /// Queues the opening of a TCP connection with TCP_NODELAY into `slot`, which must be empty,
    /// from `source` (port 0: the kernel picks one) if given.
    ///
    /// Completes once: as [`Op::Connect`], or as [`Op::ConnectSetup`] if the socket could not even
    /// be made or bound. In the latter case, and after a failed connect, the slot may or may not
    /// hold a socket: close it.
    pub fn connect(&mut self, slot: u32, source: Option<SocketAddr>, target: SocketAddr, tag: Tag) {
        debug_assert_eq!(tag.op, Op::Connect);
        let domain = if target.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let destination = DestinationSlot::try_from_slot_target(slot)
            .expect("a slot lies below the size of its table");
        let silent = squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS;
        let setup_bits = tag.with_op(Op::ConnectSetup).to_bits();

        self.make_room(4);
        let socket =
            opcode::Socket::new(domain, libc::SOCK_STREAM, 0).file_index(Some(destination)).build();
        self.push_raw(socket.flags(silent).user_data(setup_bits));
        let option = opcode::SetSockOpt::new(
            Fixed(slot),
            libc::IPPROTO_TCP as u32,
            libc::TCP_NODELAY as u32,
            (&raw const ENABLED).cast(),
            size_of::<c_int>() as u32,
        )
        .build();
        self.push_raw(option.flags(silent).user_data(setup_bits));
        if let Some(source) = source {
            let address = self.addresses.keep(source);
            let bind =
                opcode::Bind::new(Fixed(slot), address.as_ptr().cast(), address.len()).build();
            self.push_raw(bind.flags(silent).user_data(setup_bits));
        }
        let address = self.addresses.keep(target);
        let connect =
            opcode::Connect::new(Fixed(slot), address.as_ptr().cast(), address.len()).build();
        self.push(connect, tag);
    }

    /// Queues the close of `slot` with a reset instead of a FIN (SO_LINGER 0): the peer sees
    /// ECONNRESET, and no port lingers here. If the option could not be set, that alone completes,
    /// as [`Op::ResetSetup`]: nothing was closed, and a [`Ring::close`] has to be queued.
    pub fn reset(&mut self, slot: u32, tag: Tag) {
        debug_assert_eq!(tag.op, Op::Close);
        self.make_room(2);
        let option = opcode::SetSockOpt::new(
            Fixed(slot),
            libc::SOL_SOCKET as u32,
            libc::SO_LINGER as u32,
            (&raw const NO_LINGER).cast(),
            size_of::<libc::linger>() as u32,
        )
        .build();
        let silent = squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS;
        self.push_raw(option.flags(silent).user_data(tag.with_op(Op::ResetSetup).to_bits()));
        self.close(slot, tag);
    }

    /// A chain must be submitted whole: the kernel ends a link where a submission ends.
    fn make_room(&mut self, entries: usize) {
        let queue = self.io.submission();
        let free = queue.capacity() - queue.len();
        drop(queue);
        if free < entries {
            self.counters.enters += 1;
            self.publish_buffers();
            let outcome = self.io.submit();
            let _ = self.after_submit(outcome);
        }
    }
}
