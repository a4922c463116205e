//! The draws of an epoch: which photometric change and which crop each image gets. Numbers only; the device applies them.

pub mod draw;

pub use draw::{Augment, Geometry, Jitter};
