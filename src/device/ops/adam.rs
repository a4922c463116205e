//! The optimizer Adam, in one op for all parameters of a network.

use crate::base::Result;
use crate::device::ops::{Op, Passed, UNPLANNED, Unplanned, door, want};
use crate::device::trace::bytes;
use crate::device::{Act, Dtype, Engine, Layout, Pool, Slot, Work};

/// The hyperparameters of Adam (Kingma & Ba 2015), without weight decay.
#[derive(Clone, Copy, Debug)]
pub struct AdamSpec {
    /// Learning rate.
    pub lr: f32,
    /// Decay β₁ of the mean m of gradients. `beta2`: decay β₂ of the mean v of their squares.
    ///
    /// NOTE: these are f64 as in torch: 1 − 0.999 taken in f32 is off by a relative 1.3e-5, and v
    /// with it.
    pub beta1: f64,
    pub beta2: f64,
    /// Added to √v̂, so that no division by zero occurs.
    pub eps: f32,
    /// Factor on all gradients: 1/(loss scale).
    pub grad_scale: f32,
}

impl AdamSpec {
    /// Adam with torch's defaults for everything but the learning rate.
    pub fn new(lr: f32) -> Self {
        AdamSpec { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, grad_scale: 1.0 }
    }

    /// The bias corrections of step t ≥ 1: (1 − β₁ᵗ)/`rate` and 1 − β₂ᵗ. The host writes them
    /// before [`adam_step`], which then moves the weights with `rate` times the learning rate.
    /// Panics for step 0.
    pub fn correction(&self, step: u64, rate: f64) -> [f32; 2] {
        assert!(step > 0, "Adam's steps count from 1: step 0 has no bias correction");
        let [first, second] = [self.beta1, self.beta2].map(|beta| 1.0 - beta.powf(step as f64));
        [(first / rate) as f32, second as f32]
    }
}

/// The parameters of a network and what Adam keeps of them: blocks of the same length, with the
/// parameters in the same order in all.
#[derive(Clone, Copy, Debug)]
pub struct ParamBlocks {
    /// The weights.
    pub weights: Slot<f32>,
    /// The gradients of the loss, times the loss scale.
    pub grads: Slot<f32>,
    /// Adam's decaying mean of the gradients. `v`: that of their squares.
    pub m: Slot<f32>,
    pub v: Slot<f32>,
    /// The weights in the type of activations, which convolutions read; the same memory as
    /// `weights` if activations are f32.
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

    /// The copy of the weights that convolutions read. `None` if they read the weights themselves.
    pub(in crate::device) fn copy(&self) -> Option<Slot<Act>> {
        (self.compute.offset != self.weights.offset).then_some(self.compute)
    }
}

/// Arguments of [`adam_step`].
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    pub blocks: ParamBlocks,
    pub spec: AdamSpec,
    /// (2), the result of [`AdamSpec::correction`]. It lies in memory so that a recorded step can
    /// be replayed: nothing else in a step depends on the step's number.
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

/// The bodies of this family's ops, which every engine implements. The doors below say what each op
/// computes.
pub trait AdamOps {
    fn adam_step(&mut self, a: Passed<AdamStep>) -> Result<()>;
    fn adam_sync(&mut self, a: Passed<AdamSync>) -> Result<()>;
}

/// One step of Adam: g = grad_scale·grads, m = β₁m + (1−β₁)g, v = β₂v + (1−β₂)g², weights −=
/// lr·m̂/(√v̂ + ε) with m̂ = m/correction\[0\], v̂ = v/correction\[1\]; then compute = weights.
pub fn adam_step(dev: &mut dyn Engine, a: AdamStep) -> Result<()> {
    door(dev, &UNPLANNED, &a, |dev, a| dev.adam_step(a))
}

/// Brings the convolutions' copy up to date after the host wrote the weights: compute = weights.
pub fn adam_sync(dev: &mut dyn Engine, a: AdamSync) -> Result<()> {
    door(dev, &UNPLANNED, &a, |dev, a| dev.adam_sync(a))
}
