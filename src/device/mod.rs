//! What the machine does: memory and ops, nothing about segmentation.
//!
//! ```text
//! dtype slot layout    names for memory: sizes first, one allocation a pool, typed slots into it
//! engine trace         what computes; what it was asked to compute, counted and timed
//! ops                  one file an op family: arguments, what refuses them, what they cost, the door
//! cpu                  the embedded engine, and the oracle for the other
//! cuda                 the product
//! ```
//! An op is called by its door, a function of [`ops`], with an engine and arguments that have
//! names. Nothing above knows which engine it is.

pub mod cpu;
pub mod cuda;
mod dtype;
mod engine;
mod layout;
pub mod ops;
mod slot;
mod trace;

pub use dtype::Dtype;
pub use engine::{Engine, Mark, Recording};
pub use layout::Layout;
pub use slot::{ALIGN, Act, Element, POOLS, Pool, Slot};
pub use trace::{Timing, Trace, Work};
