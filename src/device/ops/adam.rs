//! Adam over the whole parameter block at once.

use crate::base::Result;
use crate::device::ops::{Op, Passed, UNPLANNED, Unplanned, door, want};
use crate::device::trace::bytes;
use crate::device::{Act, Dtype, Engine, Layout, Pool, Slot, Work};

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

    /// (1 − β₁ᵗ)/`rate` and 1 − β₂ᵗ of step t ≥ 1: what the host writes before [`adam_step`],
    /// which then moves the weights by `rate` times the learning rate.
    pub fn correction(&self, step: u64, rate: f64) -> [f32; 2] {
        assert!(step > 0, "Adam's steps count from 1: step 0 has no bias correction");
        let [first, second] = [self.beta1, self.beta2].map(|beta| 1.0 - beta.powf(step as f64));
        [(first / rate) as f32, second as f32]
    }
}

/// One block each, one order, all of the same length.
#[derive(Clone, Copy, Debug)]
pub struct ParamBlocks {
    pub weights: Slot<f32>,
    pub grads: Slot<f32>,
    pub m: Slot<f32>,
    pub v: Slot<f32>,
    /// The weights as convolutions read them; the same memory as `weights` where activations are
    /// f32.
    pub compute: Slot<Act>,
}

impl ParamBlocks {
    /// Takes the blocks of `len` parameters from the layout.
    pub fn plan(layout: &mut Layout, len: usize) -> Self {
        let mut block = |name| layout.take(Pool::Params, name, len);
        let weights: Slot<f32> = block("weights");
        let (grads, m, v) = (block("gradients"), block("Adam's m"), block("Adam's v"));
        let compute = match layout.dtype {
            Dtype::F32 => weights.as_acts(),
            other => layout.acts(Pool::Params, format!("weights in {}", other.name()), len),
        };
        ParamBlocks { weights, grads, m, v, compute }
    }

    /// The convolutions' copy of the weights; None where they read the weights themselves.
    pub(in crate::device) fn copy(&self) -> Option<Slot<Act>> {
        (self.compute.offset != self.weights.offset).then_some(self.compute)
    }
}

/// Arguments of [`adam_step`].
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    pub blocks: ParamBlocks,
    pub spec: AdamSpec,
    /// [`AdamSpec::correction`] (2). It is memory and not a number, so that a recorded step can be
    /// replayed: nothing else of a step depends on its number.
    pub correction: Slot<f32>,
}

impl Op for AdamStep {
    type Spec = Unplanned;
    const NAME: &'static str = "adam_step";

    fn check(&self, _: &Unplanned) -> Result<()> {
        let ParamBlocks { weights, grads, m, v, compute } = self.blocks;
        for (what, slot) in [("grads", grads), ("m", m), ("v", v)] {
            want(Self::NAME, what, slot, weights.len)?;
        }
        want(Self::NAME, "compute", compute, weights.len)?;
        want(Self::NAME, "correction", self.correction, 2)
    }

    fn work(&self, _: &Unplanned) -> Work {
        let ParamBlocks { weights, grads, m, v, .. } = self.blocks;
        Work::moved(bytes![weights, weights, grads, m, m, v, v, self.blocks.copy()])
    }
}

/// Arguments of [`adam_sync`].
#[derive(Clone, Copy, Debug)]
pub struct AdamSync {
    pub blocks: ParamBlocks,
}

impl Op for AdamSync {
    type Spec = Unplanned;
    const NAME: &'static str = "adam_sync";

    fn check(&self, _: &Unplanned) -> Result<()> {
        want(Self::NAME, "compute", self.blocks.compute, self.blocks.weights.len)
    }

    fn work(&self, _: &Unplanned) -> Work {
        let copy = self.blocks.copy();
        Work::moved(copy.map_or(0, |copy| bytes![copy, self.blocks.weights]))
    }
}

/// What an engine does of the family.
pub trait Adam {
    fn adam_step(&mut self, a: Passed<AdamStep>) -> Result<()>;
    fn adam_sync(&mut self, a: Passed<AdamSync>) -> Result<()>;
}

/// g = grad_scale·grads, m = β₁m + (1−β₁)g, v = β₂v + (1−β₂)g², weights −= lr·m̂/(√v̂ + ε) with m̂ =
/// m/correction[0], v̂ = v/correction[1]; compute = weights.
pub fn adam_step(dev: &mut dyn Engine, a: AdamStep) -> Result<()> {
    door(dev, &UNPLANNED, &a, |dev, a| dev.adam_step(a))
}

/// compute = weights, after the host wrote them.
pub fn adam_sync(dev: &mut dyn Engine, a: AdamSync) -> Result<()> {
    door(dev, &UNPLANNED, &a, |dev, a| dev.adam_sync(a))
}
