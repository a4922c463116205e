//! The device: memory, and the ops that compute on it. Nothing here knows about data sets, methods
//! or training.
//!
//! ```text
//! dtype slot layout    memory: element types, slots (typed names for parts of it), their placement
//! engine trace         the trait of engines; a trace of the ops they ran
//! peaks gauge          what an engine reaches at best; the state of its hardware
//! ops                  one file an op family: arguments, their checks, their cost, the door
//! cpu                  the engine that needs no GPU, and the reference for the other one
//! cuda                 the engine for NVIDIA GPUs
//! paper                an engine that computes nothing, and predicts the time of a GPU
//! ```
//! An op is called through its door, a function of [`ops`], which takes an engine, a plan and a
//! struct of named arguments. Callers do not know which engine it is.

pub mod cpu;
pub mod cuda;
mod dtype;
mod engine;
mod gauge;
mod layout;
pub mod ops;
pub mod paper;
mod peaks;
mod slot;
mod trace;

pub use dtype::Dtype;
pub use engine::{Engine, Mark, Ran, Recording, Taken};
pub use gauge::{Gauge, State};
pub use layout::Layout;
pub use peaks::{Bound, CopyRate, Floor, Peaks};
pub use slot::{ALIGN, Act, Element, POOLS, Pool, Slot};
pub use trace::{Call, Span, Trace, Traced, Work};
