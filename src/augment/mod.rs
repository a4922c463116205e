//! Augmentation, the random changes of images during training: the draws (draw.rs, pure functions),
//! the device's rendering of images by them (apply.rs), and what it keeps of that (kept.rs).

pub mod apply;
pub mod draw;
mod kept;
mod view;

pub use apply::{Feeder, FeederSpec, Sources, crop_labels};
pub use draw::{Augment, Jitter, Window};
pub use view::View;
