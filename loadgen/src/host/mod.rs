//! What the machine tells: processes and the kernel's counters. Its limits are the library's
//! `host`.

pub mod cores;
pub mod kernel;
pub mod process;
pub mod sockets;
