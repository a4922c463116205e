//! Pictures in: layouts of data sets, decoding, squares, and the store.

mod beside;
mod decode;
mod fates;
mod layouts;
mod reuse;
mod store;
mod transform;
