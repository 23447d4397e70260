//! What a completion says of itself: 64 bits of user data, packed as `op:8 | generation:24 |
//! index:32`.

use crate::limits::GENERATIONS;

/// The operation that a completion ends (or goes on with, if it is a multishot one).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// Accept of one connection into a direct descriptor.
    Accept = 1,
    /// Multishot receive into provided buffers.
    Receive = 2,
    /// A send, whoever owns the bytes.
    Send = 3,
    /// Close of a direct descriptor.
    Close = 4,
    /// Cancellation of another operation.
    Cancel = 5,
    /// The last link of a connect chain.
    Connect = 6,
    /// An earlier link of a connect chain: completes only if it failed, and ends the chain.
    ConnectSetup = 7,
    /// The read of the eventfd by which other threads wake this one.
    Wake = 8,
    /// A send whose bytes lie in the ring's own table; never seen outside the ring layer.
    SendOwned = 9,
    /// Multishot poll for readability.
    Poll = 10,
    /// A receive of what is there now, into a provided buffer.
    ReceiveOnce = 11,
    /// The question from where a connection comes.
    PeerName = 12,
    /// The first link of a [`Ring::reset`](super::Ring::reset): completes only if it failed, and
    /// then nothing was closed.
    ResetSetup = 13,
}

impl Op {
    const ALL: [Op; 13] = [
        Op::Accept,
        Op::Receive,
        Op::Send,
        Op::Close,
        Op::Cancel,
        Op::Connect,
        Op::ConnectSetup,
        Op::Wake,
        Op::SendOwned,
        Op::Poll,
        Op::ReceiveOnce,
        Op::PeerName,
        Op::ResetSetup,
    ];
}

/// User data: which operation, of whom, in which life of that index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The operation.
    pub op: Op,
    /// Which life of `index`; below [`GENERATIONS`].
    pub generation: u32,
    /// The owner's index: a session, a client, a listener.
    pub index: u32,
}

impl Tag {
    /// A tag; the generation is taken modulo [`GENERATIONS`].
    pub const fn new(op: Op, generation: u32, index: u32) -> Tag {
        Tag { op, generation: generation % GENERATIONS, index }
    }

    /// The same owner, another operation.
    pub const fn with_op(self, op: Op) -> Tag {
        Tag { op, ..self }
    }

    /// The 64 bits that travel through the kernel.
    pub const fn to_bits(self) -> u64 {
        (self.op as u64) << 56 | (self.generation as u64) << 32 | self.index as u64
    }

    /// What `to_bits` made; `None` if no operation has such a number.
    pub fn from_bits(bits: u64) -> Option<Tag> {
        let op = *Op::ALL.get(((bits >> 56) as usize).checked_sub(1)?)?;
        Some(Tag::new(op, (bits >> 32) as u32 & (GENERATIONS - 1), bits as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tag_survives_the_kernel() {
        for op in Op::ALL {
            for (generation, index) in [(0, 0), (GENERATIONS - 1, u32::MAX), (0x00ab_cdef, 7)] {
                let tag = Tag::new(op, generation, index);
                assert_eq!(Tag::from_bits(tag.to_bits()), Some(tag));
            }
        }
        assert_eq!(Tag::from_bits(0), None);
        assert_eq!(Tag::from_bits(u64::MAX), None);
    }
}
