//! Ground: errors, randomness, files. Imports nothing of this crate.

pub mod error;
pub mod fs;
pub mod rng;

pub use error::{Error, Result};
