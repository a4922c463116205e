//! The contracts. One file an op family; the same stem names its CPU engine, its test and its
//! bench.
//!
//! Shapes use one alphabet: `n` images, `h`×`w` pixels, `c` channels in, `k` channels out or
//! clusters, `d` feature channels. All tensors are NHWC and contiguous. `=` overwrites, `+=` adds.
//! No two slots of a call may overlap. An op checks sizes at its door and returns
//! [`Error::Shape`](crate::base::Error::Shape); everything else that can be refused is refused by
//! the family's `plan_…`.

pub mod adam;
pub mod confusion;
pub mod conv;
pub mod head;
pub mod iic;
pub mod kmeans;
pub mod memory;
pub mod norm;
pub mod softmax;
pub mod stem;
pub mod top;
pub mod view;

pub use adam::{Adam, AdamSpec, ParamBlocks};
pub use confusion::Confusion;
pub use conv::{Conv, ConvSpec, DataGrad, Epilogue, Terms, Uses, WeightGrad};
pub use head::{Classifier, Head, HeadInput, HeadSpec, LossInput, Merge, Target};
pub use iic::{Iic, IicSpec};
pub use kmeans::{KMeans, KMeansSpec, Metric};
pub use memory::Memory;
pub use norm::{Norm, NormGrads, NormParams, NormSpec};
pub use softmax::{Softmax, SoftmaxLabels, SoftmaxSpec};
pub use stem::{Stem, StemSpec};
pub use top::{Top, TopSpec};
pub use view::{Crop, Photo, View, ViewSpec};

use crate::base::{Error, Result};
use crate::device::{Element, Slot};

/// Everything an engine does.
pub trait Backend:
    Memory + View + Conv + Norm + Stem + Head + Softmax + KMeans + Iic + Adam + Confusion + Top
{
}
impl<B: Memory + View + Conv + Norm + Stem + Head + Softmax + KMeans + Iic + Adam + Confusion + Top>
    Backend for B
{
}

/// The check at every op's door.
pub(crate) fn want<T: Element>(
    op: &'static str,
    what: &'static str,
    slot: Slot<T>,
    len: usize,
) -> Result<()> {
    if slot.len == len { Ok(()) } else { Err(Error::Shape { op, what, got: slot.len, want: len }) }
}
