//! Asking from where a connection comes: `getsockopt(SO_PEERNAME)`, since one place for the
//! address would have to be kept for each accept that waits. Linux 6.7 and later.

use std::collections::HashMap;
use std::os::raw::c_void;

use io_uring::opcode;
use io_uring::types::Fixed;

use super::tag::{Op, Tag};
use super::{Completion, Ring};

/// A `sockaddr_in6`, or a `sockaddr_in` at its front.
pub type Name = [u8; 28];

/// Where the kernel writes the names, by slot, until they are taken.
pub(super) type PeerNames = HashMap<u32, Box<Name>>;

/// The length of a `sockaddr_in`.
const IPV4_BYTES: u32 = 16;

impl Ring {
    /// Queues the question from where the connection in `slot` comes, whose listener is of IPv6 or
    /// of IPv4. `tag.index` is the slot. [`Ring::take_peer_name`] has the answer.
    pub fn peer_name(&mut self, slot: u32, ipv6: bool, tag: Tag) {
        debug_assert!(tag.op == Op::PeerName && tag.index == slot);
        let name = self.peer_names.entry(slot).or_insert_with(|| Box::new([0; 28]));
        let room: *mut Name = &mut **name;
        // More than the name has is refused, not cut.
        let length = if ipv6 { size_of::<Name>() as u32 } else { IPV4_BYTES };
        let entry = opcode::GetSockOpt::new(
            Fixed(slot),
            libc::SOL_SOCKET as u32,
            libc::SO_PEERNAME as u32,
            room.cast::<c_void>(),
            length,
        );
        self.push(entry.build(), tag);
    }

    /// The `sockaddr` that a completion of [`Op::PeerName`] has brought; `None` if it has failed.
    pub fn take_peer_name(&mut self, completion: &Completion) -> Option<Box<Name>> {
        let name = self.peer_names.remove(&completion.tag.index)?;
        (completion.result > 0).then_some(name)
    }
}
