//! Ground: errors, randomness, files, what memory there is. Imports nothing of this crate.

pub mod error;
pub mod fs;
pub mod memory;
pub mod rng;

pub use error::{Error, Result};
