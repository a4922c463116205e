//! The product: hand-written kernels (`cuda/*.cu`, compiled by `build.rs`, embedded), convolutions
//! through cuDNN, one stream.
//!
//! * `context`: device, stream, modules and the kernels in them; `kernels`: their arguments, which
//!   build.rs writes, and launches.
//! * `memory`: pools, and what is done to slots; `staging`: how host data comes there; `recording`:
//!   replayed graphs; `event`: waits.
//! * one file an op family: its bodies. A plan refuses what only this engine cannot run and asks for
//!   scratch; an op only launches, with sizes that follow from its spec.
//!
//! All libraries are opened when the engine is, so one binary serves machines with and without a
//! GPU.

mod adam;
mod confusion;
mod context;
mod conv;
mod cudnn;
mod event;
mod head;
mod iic;
mod images;
mod kernels;
mod kmeans;
mod memory;
mod norm;
mod nvtx;
mod options;
mod recording;
mod sheet;
mod softmax;
mod staging;
mod stem;
mod top;
mod view;

pub use context::Cuda;
pub use cudnn::Choice;
pub use options::{Autotune, Choosing, Options, Watcher};
pub use sheet::{Sheet, devices, find, has_driver, missing_kernels, ready};
