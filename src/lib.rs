//! PiCIE and its baselines, trained by hand-written kernels.
//!
//! ```text
//! cli report                     what the user sees
//! train                          the loop: phases, checkpoint, record
//! method                         the algorithms: passes and steps
//! recipe cluster                 their numbers and their k-means
//! eval augment data              pictures in, scores out
//! net                            ResNet-18 + FPN, its parameters and their files
//! device                         what the machine does: ops/ (contracts), cpu/ (oracle), cuda/ (launches cuda/*.cu), timed/
//! base                           errors, randomness, files, memory, the request to stop
//! ```
//! Imports run down this list only; `tests/house.rs` holds it to that.

pub mod augment;
pub mod base;
pub mod cli;
pub mod cluster;
pub mod data;
pub mod device;
pub mod eval;
pub mod method;
pub mod net;
pub mod recipe;
pub mod report;
pub mod train;
