//! ResNet-18 and the feature pyramid: parameters, their files, and the order in which ops run.
//!
//! [`Architecture`] says which stages there are, [`Network`] is what is trained; a [`Program`] is
//! one way of running it (batch size, batch-norm mode), planned once.

mod architecture;
mod backward;
mod params;
mod program;
pub mod weights;

pub use architecture::{Architecture, expected};
pub use params::Network;
pub use program::{Geometry, Mode, Program};

/// Feature channels of the pyramid (paper section 3: D = 128).
pub const FEATURES: usize = 128;
