//! The ground floor: errors, random numbers, statistics, files and their kinds, free memory, what
//! is said to people, the user's request to stop, and values planned by size. It imports nothing
//! else of this crate.

pub mod by_size;
pub mod error;
pub mod fs;
pub mod kind;
pub mod memory;
pub mod rng;
pub mod say;
pub mod stats;
pub mod stop;

pub use by_size::BySize;
pub use error::{Error, Result};
pub use say::tell;
