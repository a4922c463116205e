//! Augmentation, the random changes of images during training: the draws (draw.rs, pure functions),
//! and the device's rendering of images by them (apply.rs).

pub mod apply;
pub mod draw;

pub use apply::{Feeder, FeederSpec, View, crop_labels};
pub use draw::{Augment, Jitter, Window};
