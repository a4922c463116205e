//! The embedded engine: f32, all cores, the vector units found at run time, the same bits for any
//! number of threads.
//!
//! Work is cut into pieces whose size depends on shapes only; a piece is computed by one thread,
//! and sums over pieces are added in the order of the pieces.

mod adam;
mod confusion;
mod conv;
mod gauge;
pub mod gemm;
mod head;
mod iic;
mod kmeans;
mod memory;
mod norm;
mod share;
mod slices;
mod softmax;
mod stem;
mod top;
mod vector;
mod view;
mod wide;

pub use memory::Cpu;

use crate::base::{Error, Result};

/// Refuses an image of a batch whose labels a store of `images` label maps does not hold. Doors
/// cannot see it: the indices are not arguments, they lie in the engine's memory.
fn check_index(op: &'static str, index: &[u32], images: usize) -> Result<()> {
    match index.iter().find(|&&i| i as usize >= images) {
        Some(&i) => Err(Error::Shape {
            op,
            what: "a label store that is indexed",
            got: images,
            want: i as usize + 1,
        }),
        None => Ok(()),
    }
}
