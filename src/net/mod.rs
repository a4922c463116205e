//! A residual network and the feature pyramid on it: parameters, their files, and the order in
//! which ops run.
//!
//! ```text
//! backbone                ResNets as data: stem, blocks, stages
//! architecture            which of it there is, and the table of parameters that follows
//! params                  what is trained: a Network
//! saved                   its tensors on their way into a file
//! program ─ planner       one way of running it, planned once: a Program, and where tensors lie
//!         ├ backward      its gradients
//!         └ steps         the plans of its ops, and what they read and write
//! weights                 files of weights
//! ```

mod architecture;
mod backbone;
mod backward;
mod params;
mod planner;
mod program;
mod saved;
mod steps;
mod torch_order;
pub mod weights;

pub use architecture::{Architecture, expected};
pub use backbone::{Backbone, RESNET18, RESNET34, RESNET50};
pub use params::Network;
pub use program::{Mode, Program, ProgramSpec};
pub use saved::{Saved, save};

/// Feature channels of the pyramid (paper section 3: D = 128).
pub const FEATURES: usize = 128;
/// Pixels of the input in a pixel of the feature map, along each side: the stride of the pyramid's
/// finest level.
pub const STRIDE: usize = 4;
