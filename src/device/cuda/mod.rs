//! The product: hand-written kernels (`cuda/*.cu`, compiled by `build.rs`, embedded), convolutions
//! through cuDNN, one stream.
//!
//! * `context`: device, stream, modules, kernels by name, launches.
//! * `memory`: pools, and what is done to slots; `staging`: how host data comes there; `recording`:
//!   replayed graphs; `event`: waits.
//! * one file an op family: its launchers. What can be looked up, sized or chosen is, in `plan_…`;
//!   an op only launches.
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
mod kmeans;
mod memory;
mod norm;
mod nvtx;
mod recording;
mod sheet;
mod softmax;
mod staging;
mod stem;
mod top;
mod view;

pub use context::{Autotune, Choosing, Cuda, Options, Watcher};
pub use cudnn::Choice;
pub use memory::Mark;
pub use recording::Recording;
pub use sheet::{Sheet, devices, find, has_driver, missing_kernels, ready};
