//! The end of the ResNet stem: batch norm + ReLU + 3×3/2 max-pool (padding 1) as one op; the
//! full-resolution activation between them is never stored.

use crate::base::Result;
use crate::device::Slot;
use crate::device::ops::{Memory, NormParams};

/// x (n, h, w, c) → z (n, ⌈h/2⌉, ⌈w/2⌉, c); `groups` divides n, as in
/// [`NormSpec`](crate::device::ops::NormSpec).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StemSpec {
    pub groups: usize,
    pub n: usize,
    pub h: usize,
    pub w: usize,
    pub c: usize,
}

impl StemSpec {
    pub fn p(&self) -> usize {
        self.h.div_ceil(2)
    }

    pub fn q(&self) -> usize {
        self.w.div_ceil(2)
    }

    pub fn x_len(&self) -> usize {
        self.n * self.h * self.w * self.c
    }

    pub fn z_len(&self) -> usize {
        self.n * self.p() * self.q() * self.c
    }

    /// (groups, 2, c): mean and 1/√(var + ε).
    pub fn saved_len(&self) -> usize {
        self.groups * 2 * self.c
    }
}

pub trait Stem: Memory {
    type StemPlan: Clone;

    fn plan_stem(&mut self, spec: StemSpec) -> Result<Self::StemPlan>;

    /// Train mode: z = maxpool(relu(batchnorm(x))), `saved` and running statistics as in
    /// [`Norm::norm_forward`](crate::device::ops::Norm::norm_forward). `argmax` (shape of z) =
    /// 3·row + column in the window of the first maximum, kept when a backward follows.
    fn stem_forward(
        &mut self,
        plan: &Self::StemPlan,
        z: Slot<Self::Act>,
        argmax: Option<Slot<u8>>,
        saved: Slot<f32>,
        x: Slot<Self::Act>,
        params: NormParams,
    ) -> Result<()>;

    /// Eval mode, the norm folded into the convolution before: z = maxpool(relu(x)).
    fn stem_infer(
        &mut self,
        plan: &Self::StemPlan,
        z: Slot<Self::Act>,
        x: Slot<Self::Act>,
    ) -> Result<()>;

    /// dx =, dgamma +=, dbeta +=: the gradient of [`Stem::stem_forward`].
    #[allow(clippy::too_many_arguments)]
    fn stem_backward(
        &mut self,
        plan: &Self::StemPlan,
        dx: Slot<Self::Act>,
        dgamma: Slot<f32>,
        dbeta: Slot<f32>,
        dz: Slot<Self::Act>,
        argmax: Slot<u8>,
        x: Slot<Self::Act>,
        saved: Slot<f32>,
        params: NormParams,
    ) -> Result<()>;
}
