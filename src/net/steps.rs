//! The steps of a program: the plans of its ops, and where what they read and write lies.

use crate::device::ops::{ConvUse, NormSpec, Plan, StemMaxima, StemSpec};
use crate::device::{Act, Slot};
use crate::net::architecture::{Conv, Unit};

/// The stem: a convolution; batch norm, ReLU and pooling in one op.
pub struct StemStep {
    pub unit: Unit,
    pub conv: Plan<ConvUse>,
    pub pool: Plan<StemSpec>,
    /// The convolution's output.
    pub y: Slot<Act>,
    /// What is pooled of it.
    pub z: Slot<Act>,
    /// Batch statistics.
    pub saved: Slot<f32>,
    /// What a backward needs to know of each window.
    pub maxima: Option<StemMaxima>,
}

/// A convolution with its norm.
pub struct UnitStep {
    pub unit: Unit,
    pub conv: Plan<ConvUse>,
    pub norm: Plan<NormSpec>,
    /// The convolution's output; where norms are folded there is only `z`.
    pub y: Slot<Act>,
    /// The unit's output; of a downsampling, whose norm its block's last op applies, it is y.
    pub z: Slot<Act>,
    /// Where z is above zero, of a block's last unit, for a backward.
    pub mask: Option<Slot<u8>>,
    /// Batch statistics.
    pub saved: Slot<f32>,
}

/// A residual block: z = relu(chain(x) + shortcut), where the shortcut is x or what `down` makes
/// of it.
pub struct BlockStep {
    /// The block's input.
    pub x: Slot<Act>,
    pub chain: Vec<UnitStep>,
    pub down: Option<UnitStep>,
}

impl BlockStep {
    /// The block's output.
    pub fn z(&self) -> Slot<Act> {
        self.chain.last().expect("a block has convolutions").z
    }
}

/// The blocks of a stage, and the lateral of the pyramid on their output.
pub struct StageStep {
    pub blocks: Vec<BlockStep>,
    pub lateral: Conv,
    pub conv: Plan<ConvUse>,
}

impl StageStep {
    /// The stage's output.
    pub fn z(&self) -> Slot<Act> {
        self.blocks.last().expect("a stage has blocks").z()
    }
}
