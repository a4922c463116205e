//! Adam over the whole parameter block at once.

use crate::base::Result;
use crate::device::ops::Memory;
use crate::device::{Element, Layout, Slot};

/// Kingma & Ba 2015, torch's defaults, no weight decay.
#[derive(Clone, Copy, Debug)]
pub struct AdamSpec {
    pub lr: f32,
    /// NOTE: f64 as in torch: 1 − 0.999 taken in f32 is off by 1.3e-5 of itself, and so would be v.
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f32,
    /// Gradients are multiplied by this first: 1/(loss scale).
    pub grad_scale: f32,
}

impl AdamSpec {
    pub fn new(lr: f32) -> Self {
        AdamSpec { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, grad_scale: 1.0 }
    }

    /// (1 − β₁ᵗ)/`rate` and 1 − β₂ᵗ of step t ≥ 1: what the host writes before [`Adam::adam_step`],
    /// which then moves the weights by `rate` times the learning rate.
    pub fn correction(&self, step: u64, rate: f64) -> [f32; 2] {
        assert!(step > 0, "Adam's steps count from 1: step 0 has no bias correction");
        let [first, second] = [self.beta1, self.beta2].map(|beta| 1.0 - beta.powf(step as f64));
        [(first / rate) as f32, second as f32]
    }
}

/// One block each, one order, all of the same length.
pub struct ParamBlocks<A> {
    pub weights: Slot<f32>,
    pub grads: Slot<f32>,
    pub m: Slot<f32>,
    pub v: Slot<f32>,
    /// The weights as convolutions read them; the same memory as `weights` where activations are
    /// f32.
    pub compute: Slot<A>,
}

impl<A> Clone for ParamBlocks<A> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<A> Copy for ParamBlocks<A> {}

impl<A: Element> ParamBlocks<A> {
    /// The convolutions' copy of the weights; None where they read the weights themselves.
    pub(crate) fn copy(&self) -> Option<Slot<A>> {
        (self.compute.offset != self.weights.offset).then_some(self.compute)
    }
}

pub trait Adam: Memory {
    /// Takes the blocks of `len` parameters from the layout.
    fn plan_params(&mut self, layout: &mut Layout, len: usize) -> ParamBlocks<Self::Act>;

    /// g = grad_scale·grads, m = β₁m + (1−β₁)g, v = β₂v + (1−β₂)g², weights −= lr·m̂/(√v̂ + ε) with
    /// m̂ = m/correction[0], v̂ = v/correction[1]; compute = weights.
    ///
    /// `correction` (2) holds [`AdamSpec::correction`]. It is memory and not an argument, so that a
    /// recorded step can be replayed: nothing else of a step depends on its number.
    fn adam_step(
        &mut self,
        blocks: ParamBlocks<Self::Act>,
        spec: AdamSpec,
        correction: Slot<f32>,
    ) -> Result<()>;

    /// compute = weights, after the host wrote them.
    fn sync_compute(&mut self, blocks: ParamBlocks<Self::Act>) -> Result<()>;
}
