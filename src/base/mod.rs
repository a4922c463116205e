//! The ground floor: errors, random numbers, statistics, files, free memory, the user's request to
//! stop, and values planned by size. It imports nothing else of this crate.

pub mod by_size;
pub mod error;
pub mod fs;
pub mod memory;
pub mod rng;
pub mod stats;
pub mod stop;

pub use by_size::BySize;
pub use error::{Error, Result};

/// Writes a line to standard error and ignores a failure. After the terminal was closed nobody can
/// read it, which is no reason to lose the work at hand; `eprintln!` would panic.
pub fn tell(line: impl std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}
