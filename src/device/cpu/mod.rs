//! The embedded engine: f32, all cores, the vector units found at run time, the same bits for any number of threads.
//!
//! Work is cut into pieces whose size depends on shapes only; a piece is computed by one thread, and sums over pieces are
//! added in the order of the pieces.

mod adam;
mod confusion;
pub mod gemm;
mod head;
mod kmeans;
mod memory;
mod share;
mod wide;

pub use memory::Cpu;
