//! What the machine does: buffers and ops, nothing about segmentation.
//!
//! * [`arena`]: sizes first, one allocation a pool, typed [`Slot`]s into it.
//! * [`ops`]: one small trait an op family, the contract that every engine keeps.
//! * [`cpu`]: the embedded engine and the oracle for all others.
//! * [`cuda`]: the product.
//! * [`timed`]: another engine's ops, each timed beside what it must move and compute.

pub mod arena;
pub mod cpu;
pub mod cuda;
pub mod ops;
pub mod timed;

pub use arena::{Activation, Element, Layout, Pool, Slot};
pub use ops::Backend;
