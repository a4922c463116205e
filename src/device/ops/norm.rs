//! Batch normalisation, fused with what follows it in a residual network.

use std::fmt;

use crate::base::Result;
use crate::device::ops::{Op, Passed, Plan, UNPLANNED, Unplanned, door, want, want_if};
use crate::device::trace::bytes;
use crate::device::{Act, Engine, Slot, Work};

/// x (groups, rows, c): each group of `rows` pixels is normalised by statistics of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NormSpec {
    pub groups: usize,
    pub rows: usize,
    pub c: usize,
}

impl NormSpec {
    pub fn len(&self) -> usize {
        self.groups * self.rows * self.c
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `saved` holds mean and 1/√(var + ε) of each group: (groups, 2, c).
    pub fn saved_len(&self) -> usize {
        self.groups * 2 * self.c
    }
}

impl fmt::Display for NormSpec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}×{}×{}", self.groups, self.rows, self.c)
    }
}

/// Added to the variance (torchvision's ResNet).
pub const EPS: f32 = 1e-5;
/// running = (1 − m)·running + m·batch, the batch variance unbiased (torch's default m).
pub const MOMENTUM: f32 = 0.1;

/// All (c).
#[derive(Clone, Copy, Debug)]
pub struct NormParams {
    pub gamma: Slot<f32>,
    pub beta: Slot<f32>,
    pub running_mean: Slot<f32>,
    pub running_var: Slot<f32>,
}

impl NormParams {
    pub(super) fn check(&self, op: &'static str, c: usize) -> Result<()> {
        want(op, "gamma", self.gamma, c)?;
        want(op, "beta", self.beta, c)?;
        want(op, "running_mean", self.running_mean, c)?;
        want(op, "running_var", self.running_var, c)
    }
}

/// Arguments of [`norm_forward`].
#[derive(Clone, Copy, Debug)]
pub struct NormForward {
    /// =
    pub z: Slot<Act>,
    /// =, for the backward.
    pub saved: Slot<f32>,
    pub x: Slot<Act>,
    pub residual: Option<Slot<Act>>,
    pub relu: bool,
    pub params: NormParams,
}

impl Op for NormForward {
    type Spec = NormSpec;
    const NAME: &'static str = "norm_forward";

    fn check(&self, spec: &NormSpec) -> Result<()> {
        want(Self::NAME, "z", self.z, spec.len())?;
        want(Self::NAME, "saved", self.saved, spec.saved_len())?;
        want(Self::NAME, "x", self.x, spec.len())?;
        want_if(Self::NAME, "residual", self.residual, spec.len())?;
        self.params.check(Self::NAME, spec.c)
    }

    fn work(&self, _: &NormSpec) -> Work {
        Work::moved(bytes![self.z, self.x, self.x, self.residual])
    }
}

/// Arguments of [`norm_backward`].
#[derive(Clone, Copy, Debug)]
pub struct NormBackward {
    /// = gradient of x.
    pub dx: Slot<Act>,
    /// = gradient of the residual: dz where z > 0. Only with a residual.
    pub dresidual: Option<Slot<Act>>,
    /// +=
    pub dgamma: Slot<f32>,
    /// +=
    pub dbeta: Slot<f32>,
    pub dz: Slot<Act>,
    /// The forward's output, given when it had a ReLU: dz counts where z > 0.
    pub z: Option<Slot<Act>>,
    pub x: Slot<Act>,
    pub saved: Slot<f32>,
    pub gamma: Slot<f32>,
}

impl Op for NormBackward {
    type Spec = NormSpec;
    const NAME: &'static str = "norm_backward";

    fn check(&self, spec: &NormSpec) -> Result<()> {
        want(Self::NAME, "dx", self.dx, spec.len())?;
        want_if(Self::NAME, "dresidual", self.dresidual, spec.len())?;
        want(Self::NAME, "dgamma", self.dgamma, spec.c)?;
        want(Self::NAME, "dbeta", self.dbeta, spec.c)?;
        want(Self::NAME, "dz", self.dz, spec.len())?;
        want_if(Self::NAME, "z", self.z, spec.len())?;
        want(Self::NAME, "x", self.x, spec.len())?;
        want(Self::NAME, "saved", self.saved, spec.saved_len())?;
        want(Self::NAME, "gamma", self.gamma, spec.c)
    }

    /// Sums first, then dx. The second pass finds dz behind the ReLU where the first wrote it, in
    /// `dresidual`, and needs no z.
    fn work(&self, _: &NormSpec) -> Work {
        let NormBackward { dx, dresidual, dz, z, x, .. } = *self;
        Work::moved(match dresidual {
            Some(masked) => bytes![dz, z, x, masked] + bytes![masked, x, dx],
            None => bytes![dz, z, x] + bytes![dz, z, x, dx],
        })
    }
}

/// Arguments of [`norm_fold`].
#[derive(Clone, Copy, Debug)]
pub struct NormFold {
    /// = (k, …), as w.
    pub folded: Slot<Act>,
    /// = (k)
    pub bias: Slot<Act>,
    pub w: Slot<Act>,
    /// Of k channels.
    pub params: NormParams,
}

impl Op for NormFold {
    type Spec = Unplanned;
    const NAME: &'static str = "norm_fold";

    fn check(&self, _: &Unplanned) -> Result<()> {
        let k = self.params.gamma.len;
        want(Self::NAME, "folded", self.folded, self.w.len)?;
        want(Self::NAME, "bias", self.bias, k)?;
        self.params.check(Self::NAME, k)
    }

    fn work(&self, _: &Unplanned) -> Work {
        Work::moved(bytes![self.folded, self.w])
    }
}

/// What an engine does of the family.
pub trait Norm {
    /// Asks for scratch; refuses sizes that the engine cannot run. Returns its number for the plan.
    fn plan_norm(&mut self, spec: NormSpec) -> Result<usize>;
    fn norm_forward(&mut self, a: Passed<NormForward>) -> Result<()>;
    fn norm_backward(&mut self, a: Passed<NormBackward>) -> Result<()>;
    fn norm_fold(&mut self, a: Passed<NormFold>) -> Result<()>;
}

pub fn plan_norm(dev: &mut dyn Engine, spec: NormSpec) -> Result<Plan<NormSpec>> {
    Ok(Plan { spec, number: dev.plan_norm(spec)? })
}

/// Train mode: z = relu?(γ·(x − mean)/√(var + ε) + β + residual), statistics of each group (biased
/// variance); `saved` = them; running statistics updated group after group, as by successive
/// forwards.
pub fn norm_forward(dev: &mut dyn Engine, plan: &Plan<NormSpec>, a: NormForward) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.norm_forward(a))
}

/// The gradient of [`norm_forward`].
pub fn norm_backward(dev: &mut dyn Engine, plan: &Plan<NormSpec>, a: NormBackward) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.norm_backward(a))
}

/// Eval mode as weights: folded = w·γ/√(running_var + ε) by output channel, bias = β −
/// running_mean·γ/√(…).
pub fn norm_fold(dev: &mut dyn Engine, a: NormFold) -> Result<()> {
    door(dev, &UNPLANNED, &a, |dev, a| dev.norm_fold(a))
}
