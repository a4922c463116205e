//! Pictures in: data set layouts, label tables, decoding, the store every other part reads from,
//! and a generator of scenes.
//!
//! ```text
//! open ─ dataset                 the files of a data set, and what its labels mean
//!        layouts                 a file for each way in which data sets lie on disk
//!        files labels            the images below a folder; label value → class
//! ImageStore EvalStore ─ store   files → u8 (N, S, S, 3) and classes (N, S, S), decoded once
//!        decode transform        one file → pixels or label values; any shape → a square
//!        large                   how many pixels are read
//! lab                            colours as people tell them apart
//! scenes                         a small data set to start with
//! ```

mod dataset;
pub mod decode;
mod files;
pub mod lab;
mod labels;
pub mod large;
mod layouts;
pub mod scenes;
mod store;
pub mod transform;

pub use dataset::{Dataset, any_classes, open, taxonomy};
pub use files::{Item, OnProgress};
pub use labels::{IGNORE, Taxonomy};
pub use layouts::{Classes, DataLayout, LAYOUTS};
pub use store::{EvalStore, Fingerprint, ImageStore, Load, PictureSet, kept};
pub use transform::{Fit, Square};
