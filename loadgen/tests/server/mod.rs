//! The server beside the generator: it lies there after `cargo test --workspace` or `cargo build`;
//! with `cargo test -p loadgen` it may not.
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::path::PathBuf;

/// Where it lies.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_loadgen")).with_file_name("heartwheel")
}

/// Says so if it is not there: nothing is tested then.
pub fn is_missing() -> bool {
    let program = program();
    if !program.exists() {
        eprintln!("NOT TESTED: {} is not built", program.display());
    }
    !program.exists()
}
