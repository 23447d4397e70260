//! Bytes on their way out: what the core hands to an engine to send, and gets back when it is sent.
//!
//! Invariant: the address of the bytes does not change while the value is moved about, so the
//! kernel may read them while the value waits in a table for the completion.

use std::fmt;
use std::sync::Arc;

/// The most bytes that a [`SmallBuffer`] holds: the longest PONG (2 + 1 + 125), rounded up.
pub const SMALL_BUFFER_BYTES: usize = 128;

/// The bytes of a push's id in front of an [`Outgoing::Push`].
pub const PUSH_ID_BYTES: usize = 8;

/// A short reply's own memory; the shard keeps a few for reuse.
pub type SmallBuffer = Box<[u8; SMALL_BUFFER_BYTES]>;

/// Bytes to be sent, with a cursor behind which everything has been sent already.
pub enum Outgoing {
    /// Bytes that live as long as the program: the reply to a heartbeat. Costs no memory.
    Static(&'static [u8]),
    /// A short reply in a buffer of its own.
    Small {
        /// The memory; it goes back to the shard's pool afterwards.
        buffer: SmallBuffer,
        /// The first byte that is still to be sent.
        start: u8,
        /// One past the last byte to be sent.
        end: u8,
    },
    /// A message that many sessions may share; nobody copies it.
    Shared {
        /// The whole message.
        message: Arc<[u8]>,
        /// The first byte that is still to be sent.
        start: u32,
    },
    /// A pushed message, shared like the above, which says whose it is: its first
    /// [`PUSH_ID_BYTES`] bytes are the push's id (big endian), and are not sent.
    Push {
        /// The id and the whole encoded message.
        message: Arc<[u8]>,
        /// The first byte that is still to be sent.
        start: u32,
    },
}

impl Outgoing {
    /// The `length` bytes that have been written to the front of `buffer`.
    ///
    /// # Panics
    /// If `length` exceeds [`SMALL_BUFFER_BYTES`].
    pub fn small(buffer: SmallBuffer, length: usize) -> Outgoing {
        assert!(length <= SMALL_BUFFER_BYTES, "a small buffer holds {SMALL_BUFFER_BYTES} bytes");
        Outgoing::Small { buffer, start: 0, end: length as u8 }
    }

    /// A whole shared message.
    pub fn shared(message: Arc<[u8]>) -> Outgoing {
        Outgoing::Shared { message, start: 0 }
    }

    /// A whole pushed message, behind its id.
    pub fn push(message: Arc<[u8]>) -> Outgoing {
        Outgoing::Push { message, start: PUSH_ID_BYTES as u32 }
    }

    /// Which push this is, if it is one.
    pub fn push_id(&self) -> Option<u64> {
        match self {
            Outgoing::Push { message, .. } => {
                message.first_chunk::<PUSH_ID_BYTES>().map(|id| u64::from_be_bytes(*id))
            }
            _ => None,
        }
    }

    /// The bytes that are still to be sent.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Outgoing::Static(bytes) => bytes,
            Outgoing::Small { buffer, start, end } => {
                &buffer[usize::from(*start)..usize::from(*end)]
            }
            Outgoing::Shared { message, start } | Outgoing::Push { message, start } => {
                &message[*start as usize..]
            }
        }
    }

    /// How many bytes are still to be sent.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether everything has been sent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves the cursor past `sent` bytes.
    ///
    /// # Panics
    /// If fewer bytes than that were left.
    pub fn advance(&mut self, sent: usize) {
        assert!(sent <= self.len(), "more was sent than there was");
        match self {
            Outgoing::Static(bytes) => *bytes = &bytes[sent..],
            Outgoing::Small { start, .. } => *start += sent as u8,
            Outgoing::Shared { start, .. } | Outgoing::Push { start, .. } => {
                *start += sent as u32;
            }
        }
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Outgoing::Static(_) => "Static",
            Outgoing::Small { .. } => "Small",
            Outgoing::Shared { .. } => "Shared",
            Outgoing::Push { .. } => "Push",
        };
        write!(f, "{kind}({} bytes)", self.len())
    }
}
