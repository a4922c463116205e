//! The end of the ResNet stem as one op: batch norm, ReLU, and max-pool of 3×3 windows with stride
//! 2 and padding 1. The full-resolution activations between them are never stored.

use std::fmt;

use crate::base::Result;
use crate::device::ops::{NormParams, Op, Passed, Plan, door, want};
use crate::device::trace::bytes;
use crate::device::{Act, Engine, Slot, Work};

/// The sizes of a stem: x (n, h, w, c) → z (n, ⌈h/2⌉, ⌈w/2⌉, c). Each of `groups` equal parts of
/// the n images is normalised by its own statistics, as in
/// [`NormSpec`](crate::device::ops::NormSpec).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StemSpec {
    /// Number of groups, which divides n.
    pub groups: usize,
    pub n: usize,
    pub h: usize,
    pub w: usize,
    pub c: usize,
}

impl StemSpec {
    /// Height of the output, ⌈h/2⌉.
    pub fn p(&self) -> usize {
        self.h.div_ceil(2)
    }

    /// Width of the output, ⌈w/2⌉.
    pub fn q(&self) -> usize {
        self.w.div_ceil(2)
    }

    /// Elements of the input.
    pub fn x_len(&self) -> usize {
        self.n * self.h * self.w * self.c
    }

    /// Elements of the output.
    pub fn z_len(&self) -> usize {
        self.n * self.p() * self.q() * self.c
    }

    /// Elements of `saved`: mean and 1/√(var + ε) of each group, (groups, 2, c).
    pub fn saved_len(&self) -> usize {
        self.groups * 2 * self.c
    }
}

impl fmt::Display for StemSpec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}×{}×{}×{}", self.n, self.h, self.w, self.c)
    }
}

/// What a backward needs to know of each window's maximum, of a channel of an output (n, p, q, c).
#[derive(Clone, Copy, Debug)]
pub struct StemMaxima {
    /// Its place in the window, 3·row + column, of the first where several are as large; 9 where
    /// the output is zero, so that no gradient flows.
    pub argmax: Slot<u8>,
    /// x in this place; where the output is zero, in any pixel of the window.
    pub peak: Slot<Act>,
}

impl StemMaxima {
    fn check(&self, op: &'static str, spec: &StemSpec) -> Result<()> {
        want(op, "argmax", self.argmax, spec.z_len())?;
        want(op, "peak", self.peak, spec.z_len())
    }
}

/// Arguments of [`stem_forward`].
#[derive(Clone, Copy, Debug)]
pub struct StemForward {
    /// = (n, p, q, c), the output.
    pub z: Slot<Act>,
    /// = (n, p, q, c) each. Given if a backward pass follows.
    pub maxima: Option<StemMaxima>,
    /// = (groups, 2, c), the statistics of the batch, for the backward pass.
    pub saved: Slot<f32>,
    /// (n, h, w, c), the input.
    pub x: Slot<Act>,
    /// Gamma and beta, which are read, and the running statistics, which are updated.
    pub params: NormParams,
}

impl Op for StemForward {
    type Spec = StemSpec;
    const NAME: &'static str = "stem_forward";

    fn check(&self, spec: &StemSpec) -> Result<()> {
        want(Self::NAME, "z", self.z, spec.z_len())?;
        self.maxima.map_or(Ok(()), |maxima| maxima.check(Self::NAME, spec))?;
        want(Self::NAME, "saved", self.saved, spec.saved_len())?;
        want(Self::NAME, "x", self.x, spec.x_len())?;
        self.params.check(Self::NAME, spec.c)
    }

    fn work(&self, _: &StemSpec) -> Work {
        let kept = self.maxima.map_or(0, |m| bytes![m.argmax, m.peak]);
        Work::moved(bytes![self.z, self.x, self.x] + kept)
    }
}

/// Arguments of [`stem_infer`].
#[derive(Clone, Copy, Debug)]
pub struct StemInfer {
    /// = (n, p, q, c), the output.
    pub z: Slot<Act>,
    /// (n, h, w, c), the input, already normalised.
    pub x: Slot<Act>,
}

impl Op for StemInfer {
    type Spec = StemSpec;
    const NAME: &'static str = "stem_infer";

    fn check(&self, spec: &StemSpec) -> Result<()> {
        want(Self::NAME, "z", self.z, spec.z_len())?;
        want(Self::NAME, "x", self.x, spec.x_len())
    }

    fn work(&self, _: &StemSpec) -> Work {
        Work::moved(bytes![self.z, self.x])
    }
}

/// Arguments of [`stem_backward`].
#[derive(Clone, Copy, Debug)]
pub struct StemBackward {
    /// = (n, h, w, c), the gradient of x.
    pub dx: Slot<Act>,
    /// += (c), the gradient of gamma.
    pub dgamma: Slot<f32>,
    /// += (c), the gradient of beta.
    pub dbeta: Slot<f32>,
    /// (n, p, q, c), the gradient of the output.
    pub dz: Slot<Act>,
    /// (n, p, q, c) each, as the forward pass wrote them.
    pub maxima: StemMaxima,
    /// (n, h, w, c), the forward pass's input.
    pub x: Slot<Act>,
    /// (groups, 2, c), as the forward pass wrote it.
    pub saved: Slot<f32>,
    /// The forward pass's parameters.
    pub params: NormParams,
}

impl Op for StemBackward {
    type Spec = StemSpec;
    const NAME: &'static str = "stem_backward";

    fn check(&self, spec: &StemSpec) -> Result<()> {
        want(Self::NAME, "dx", self.dx, spec.x_len())?;
        want(Self::NAME, "dgamma", self.dgamma, spec.c)?;
        want(Self::NAME, "dbeta", self.dbeta, spec.c)?;
        want(Self::NAME, "dz", self.dz, spec.z_len())?;
        self.maxima.check(Self::NAME, spec)?;
        want(Self::NAME, "x", self.x, spec.x_len())?;
        want(Self::NAME, "saved", self.saved, spec.saved_len())?;
        self.params.check(Self::NAME, spec.c)
    }

    /// Two passes: sums over all windows, which a maximum each tells all of, then dx.
    fn work(&self, _: &StemSpec) -> Work {
        let StemBackward { dx, dz, maxima, x, .. } = *self;
        Work::moved(bytes![dz, maxima.peak] + bytes![dz, maxima.argmax, x, dx])
    }
}

/// The bodies of this family's ops, which every engine implements. The doors below say what each op
/// computes.
pub trait StemOps {
    /// Prepares the ops for this spec: asks for scratch, and fails on sizes that the engine cannot
    /// run. Returns the engine's own number for the plan.
    fn plan_stem(&mut self, spec: StemSpec) -> Result<usize>;
    fn stem_forward(&mut self, a: Passed<StemForward>) -> Result<()>;
    fn stem_infer(&mut self, a: Passed<StemInfer>) -> Result<()>;
    fn stem_backward(&mut self, a: Passed<StemBackward>) -> Result<()>;
}

/// Plans the ops of this family for `spec`. Fails on sizes that this engine cannot run.
pub fn plan_stem(dev: &mut dyn Engine, spec: StemSpec) -> Result<Plan<StemSpec>> {
    Ok(Plan { spec, number: dev.plan_stem(spec)? })
}

/// Training: z = maxpool(relu(batchnorm(x))). `saved` and the running statistics are written as by
/// [`norm_forward`](crate::device::ops::norm_forward).
pub fn stem_forward(dev: &mut dyn Engine, plan: &Plan<StemSpec>, a: StemForward) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.stem_forward(a))
}

/// Inference: z = maxpool(relu(x)). The norm was folded into the convolution before (see
/// [`norm_fold`](crate::device::ops::norm_fold)).
pub fn stem_infer(dev: &mut dyn Engine, plan: &Plan<StemSpec>, a: StemInfer) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.stem_infer(a))
}

/// The gradient of [`stem_forward`]: dx, dgamma and dbeta from dz.
pub fn stem_backward(dev: &mut dyn Engine, plan: &Plan<StemSpec>, a: StemBackward) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.stem_backward(a))
}
