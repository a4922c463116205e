//! The embedded engine: f32, all cores, the vector units found at run time, the same bits for any number of threads.
//!
//! Work is cut into pieces whose size depends on shapes only; a piece is computed by one thread, and sums over pieces are
//! added in the order of the pieces.

mod adam;
mod confusion;
mod conv;
pub mod gemm;
mod head;
mod iic;
mod kmeans;
mod memory;
mod norm;
mod share;
mod stem;
mod view;
mod wide;

pub use memory::Cpu;
