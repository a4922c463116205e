//! The end of the ResNet stem: batch norm + ReLU + 3×3/2 max-pool (padding 1) as one op; the
//! full-resolution activation between them is never stored.

use std::fmt;

use crate::base::Result;
use crate::device::ops::{NormParams, Op, Passed, Plan, door, want, want_if};
use crate::device::trace::bytes;
use crate::device::{Act, Engine, Slot, Work};

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

impl fmt::Display for StemSpec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}×{}×{}×{}", self.n, self.h, self.w, self.c)
    }
}

/// Arguments of [`stem_forward`].
#[derive(Clone, Copy, Debug)]
pub struct StemForward {
    /// =
    pub z: Slot<Act>,
    /// = (shape of z) 3·row + column in the window of the first maximum, where a backward follows.
    pub argmax: Option<Slot<u8>>,
    /// =, for the backward.
    pub saved: Slot<f32>,
    pub x: Slot<Act>,
    pub params: NormParams,
}

impl Op for StemForward {
    type Spec = StemSpec;
    const NAME: &'static str = "stem_forward";

    fn check(&self, spec: &StemSpec) -> Result<()> {
        want(Self::NAME, "z", self.z, spec.z_len())?;
        want_if(Self::NAME, "argmax", self.argmax, spec.z_len())?;
        want(Self::NAME, "saved", self.saved, spec.saved_len())?;
        want(Self::NAME, "x", self.x, spec.x_len())?;
        self.params.check(Self::NAME, spec.c)
    }

    fn work(&self, _: &StemSpec) -> Work {
        Work::moved(bytes![self.z, self.x, self.x] + bytes![self.argmax])
    }
}

/// Arguments of [`stem_infer`].
#[derive(Clone, Copy, Debug)]
pub struct StemInfer {
    /// =
    pub z: Slot<Act>,
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
    /// =
    pub dx: Slot<Act>,
    /// +=
    pub dgamma: Slot<f32>,
    /// +=
    pub dbeta: Slot<f32>,
    pub dz: Slot<Act>,
    pub argmax: Slot<u8>,
    pub x: Slot<Act>,
    pub saved: Slot<f32>,
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
        want(Self::NAME, "argmax", self.argmax, spec.z_len())?;
        want(Self::NAME, "x", self.x, spec.x_len())?;
        want(Self::NAME, "saved", self.saved, spec.saved_len())?;
        self.params.check(Self::NAME, spec.c)
    }

    fn work(&self, _: &StemSpec) -> Work {
        Work::moved(bytes![self.dx, self.dz, self.dz, self.x] + 2 * bytes![self.argmax])
    }
}

/// What an engine does of the family.
pub trait Stem {
    /// Asks for scratch; refuses sizes that the engine cannot run. Returns its number for the plan.
    fn plan_stem(&mut self, spec: StemSpec) -> Result<usize>;
    fn stem_forward(&mut self, a: Passed<StemForward>) -> Result<()>;
    fn stem_infer(&mut self, a: Passed<StemInfer>) -> Result<()>;
    fn stem_backward(&mut self, a: Passed<StemBackward>) -> Result<()>;
}

pub fn plan_stem(dev: &mut dyn Engine, spec: StemSpec) -> Result<Plan<StemSpec>> {
    Ok(Plan { spec, number: dev.plan_stem(spec)? })
}

/// Train mode: z = maxpool(relu(batchnorm(x))), `saved` and running statistics as in
/// [`norm_forward`](crate::device::ops::norm_forward).
pub fn stem_forward(dev: &mut dyn Engine, plan: &Plan<StemSpec>, a: StemForward) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.stem_forward(a))
}

/// Eval mode, the norm folded into the convolution before: z = maxpool(relu(x)).
pub fn stem_infer(dev: &mut dyn Engine, plan: &Plan<StemSpec>, a: StemInfer) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.stem_infer(a))
}

/// The gradient of [`stem_forward`].
pub fn stem_backward(dev: &mut dyn Engine, plan: &Plan<StemSpec>, a: StemBackward) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.stem_backward(a))
}
