//! Pictures in: layouts of data sets, decoding, squares, and the store.

mod decode;
mod layouts;
mod reuse;
mod store;
mod transform;
