//! Pictures in: data set layouts, label tables, decoding, the store every other part reads from,
//! and a generator of scenes.
//!
//! ```text
//! open ─ dataset                 the files of a data set, and what its labels mean
//!        layouts                 a file for each way in which data sets lie on disk
//!        files account maps      the images below a folder, what else lies there, and which
//!                                of them are no photos
//!        labels classes          label value → class; classes of users
//! ImageStore EvalStore ─ store   files → u8 (N, S, S, 3) and classes (N, S, S), decoded once
//!        decode transform        one file → pixels or label values; any shape → a square
//!        fates large             why a file cannot be read, and how many pixels are
//! lab palette                    colours as people tell them apart, and a class's own
//! scenes                         a small data set to start with
//! ```

mod account;
mod classes;
mod coco_fine;
mod dataset;
pub mod decode;
mod fates;
mod files;
pub mod lab;
mod labels;
pub mod large;
mod layouts;
mod maps;
pub mod palette;
pub mod scenes;
mod store;
pub mod transform;

pub use account::Account;
pub use dataset::{Dataset, any_classes, open, taxonomy};
pub use files::{Item, MARK, OnProgress, is_foreign};
pub use labels::{IGNORE, Taxonomy};
pub use layouts::{Classes, DataLayout, LAYOUTS};
pub use maps::photos as photos_below;
pub use store::{EvalStore, Fingerprint, ImageStore, Load, PictureSet, kept};
pub use transform::{Fit, Square};
