//! Augmentation: the draws of an epoch (numbers, pure), and their way to the device.

pub mod apply;
pub mod draw;

pub use apply::{Feeder, InputShape, View, crop_labels};
pub use draw::{Augment, CropDraw, Jitter};
