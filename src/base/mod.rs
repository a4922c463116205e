//! Ground: errors, randomness, files, what memory there is, the request to stop, what is planned by
//! size. Imports nothing of this crate.

pub mod by_size;
pub mod error;
pub mod fs;
pub mod memory;
pub mod rng;
pub mod stop;

pub use by_size::BySize;
pub use error::{Error, Result};

/// Writes a line to standard error. That nobody can read it, as after the terminal was closed, is
/// no reason to lose the work at hand: `eprintln!` panics there.
pub fn tell(line: impl std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}
