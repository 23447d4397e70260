//! What the machine tells: processes, the kernel's counters, its limits.

pub mod advice;
pub mod kernel;
pub mod process;
