//! Batch normalisation, fused with what follows it in a residual network.

mod residual;

pub use residual::{NormGate, NormGrads, Normed, Residual, ResidualGrad};

use std::fmt;

use crate::base::{Error, Result};
use crate::device::ops::{Op, Passed, Plan, UNPLANNED, Unplanned, door, want, want_if};
use crate::device::trace::bytes;
use crate::device::{Act, Engine, Slot, Work};

/// The sizes of a batch norm of x (groups, rows, c): each group of `rows` pixels is normalised by
/// its own statistics, channel by channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NormSpec {
    /// Number of groups, such as the views of a batch.
    pub groups: usize,
    /// Number of pixels in a group.
    pub rows: usize,
    /// Number of channels.
    pub c: usize,
}

impl NormSpec {
    /// Elements of x.
    pub fn len(&self) -> usize {
        self.groups * self.rows * self.c
    }

    /// Whether x has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of a mask of z, a bit an element: (groups, rows, ⌈c/8⌉).
    pub fn mask_len(&self) -> usize {
        self.groups * self.rows * self.c.div_ceil(8)
    }

    /// Elements of `saved`: mean and 1/√(var + ε) of each group, (groups, 2, c).
    pub fn saved_len(&self) -> usize {
        self.groups * 2 * self.c
    }
}

impl fmt::Display for NormSpec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}×{}×{}", self.groups, self.rows, self.c)
    }
}

/// The ε that is added to the variance (torchvision's ResNet).
pub const EPS: f32 = 1e-5;
/// The weight m of a batch's statistics in the running ones: running = (1 − m)·running + m·batch,
/// with the unbiased batch variance (torch's default).
pub const MOMENTUM: f32 = 0.1;

/// The parameters and running statistics of a batch norm, all (c).
#[derive(Clone, Copy, Debug)]
pub struct NormParams {
    /// Scale of the normalised channels. `beta`: their shift.
    pub gamma: Slot<f32>,
    pub beta: Slot<f32>,
    /// Mean over past batches, for inference. `running_var`: their variance.
    pub running_mean: Slot<f32>,
    pub running_var: Slot<f32>,
}

impl NormParams {
    /// Fails if a slot does not have `c` elements.
    pub(in crate::device::ops) fn check(&self, op: &'static str, c: usize) -> Result<()> {
        want(op, "gamma", self.gamma, c)?;
        want(op, "beta", self.beta, c)?;
        want(op, "running_mean", self.running_mean, c)?;
        want(op, "running_var", self.running_var, c)
    }
}

/// Arguments of [`norm_statistics`].
#[derive(Clone, Copy, Debug)]
pub struct NormStatistics {
    /// = (groups, 2, c), mean and 1/√(var + ε).
    pub saved: Slot<f32>,
    /// (groups, rows, c).
    pub x: Slot<Act>,
    /// The running statistics, which are updated.
    pub params: NormParams,
}

impl Op for NormStatistics {
    type Spec = NormSpec;
    const NAME: &'static str = "norm_statistics";

    fn check(&self, spec: &NormSpec) -> Result<()> {
        want(Self::NAME, "saved", self.saved, spec.saved_len())?;
        want(Self::NAME, "x", self.x, spec.len())?;
        self.params.check(Self::NAME, spec.c)
    }

    fn work(&self, _: &NormSpec) -> Work {
        Work::moved(bytes![self.x])
    }
}

/// Arguments of [`norm_forward`].
#[derive(Clone, Copy, Debug)]
pub struct NormForward {
    /// = (groups, rows, c), the output.
    pub z: Slot<Act>,
    /// = (groups, rows, ⌈c/8⌉), the bits of where z is above zero: of channel j, bit j mod 8 of
    /// byte j / 8 of its pixel. Given where a backward follows a residual and a ReLU.
    pub mask: Option<Slot<u8>>,
    /// = (groups, 2, c), the statistics of the batch, for the backward pass.
    pub saved: Slot<f32>,
    /// (groups, rows, c), the input.
    pub x: Slot<Act>,
    /// Added before the ReLU. `None`: nothing is added.
    pub residual: Option<Residual>,
    /// Whether negative outputs become 0.
    pub relu: bool,
    /// Gamma and beta, which are read, and the running statistics, which are updated.
    pub params: NormParams,
}

impl Op for NormForward {
    type Spec = NormSpec;
    const NAME: &'static str = "norm_forward";

    fn check(&self, spec: &NormSpec) -> Result<()> {
        if self.mask.is_some() && !(self.relu && self.residual.is_some()) {
            return Err(Error::input(
                format!("{}: a mask without a ReLU behind a residual", Self::NAME),
                "leave it out: x or nothing tells where gradients flow",
            ));
        }
        want(Self::NAME, "z", self.z, spec.len())?;
        want_if(Self::NAME, "mask", self.mask, spec.mask_len())?;
        want(Self::NAME, "saved", self.saved, spec.saved_len())?;
        want(Self::NAME, "x", self.x, spec.len())?;
        self.residual.map_or(Ok(()), |residual| residual.check(Self::NAME, spec))?;
        self.params.check(Self::NAME, spec.c)
    }

    fn work(&self, _: &NormSpec) -> Work {
        let NormForward { z, mask, x, residual, .. } = *self;
        Work::moved(bytes![z, x, x, residual.map(Residual::map)] + bytes![mask])
    }
}

/// Arguments of [`norm_backward`].
#[derive(Clone, Copy, Debug)]
pub struct NormBackward {
    /// = (groups, rows, c), the gradient of x.
    pub dx: Slot<Act>,
    /// Given if the forward pass had a residual.
    pub dresidual: Option<ResidualGrad>,
    /// += (c), the gradient of gamma.
    pub dgamma: Slot<f32>,
    /// += (c), the gradient of beta.
    pub dbeta: Slot<f32>,
    /// (groups, rows, c), the gradient of the output.
    pub dz: Slot<Act>,
    /// The forward pass's ReLU.
    pub gate: NormGate,
    /// (groups, rows, c), the forward pass's input.
    pub x: Slot<Act>,
    /// (groups, 2, c), as the forward pass wrote it.
    pub saved: Slot<f32>,
    /// (c), the scale.
    pub gamma: Slot<f32>,
}

impl Op for NormBackward {
    type Spec = NormSpec;
    const NAME: &'static str = "norm_backward";

    fn check(&self, spec: &NormSpec) -> Result<()> {
        want(Self::NAME, "dx", self.dx, spec.len())?;
        self.dresidual.map_or(Ok(()), |residual| residual.check(Self::NAME, spec))?;
        want(Self::NAME, "dgamma", self.dgamma, spec.c)?;
        want(Self::NAME, "dbeta", self.dbeta, spec.c)?;
        want(Self::NAME, "dz", self.dz, spec.len())?;
        match (self.gate, self.dresidual) {
            (NormGate::Open, None | Some(ResidualGrad::Map(_))) => {}
            (NormGate::Beta(beta), None) => want(Self::NAME, "beta", beta, spec.c)?,
            (NormGate::Mask(mask), Some(_)) => want(Self::NAME, "mask", mask, spec.mask_len())?,
            (gate, dresidual) => {
                return Err(Error::input(
                    format!("{}: {gate:?} with the residual {dresidual:?}", Self::NAME),
                    "give a mask where there is a residual, else beta",
                ));
            }
        }
        want(Self::NAME, "x", self.x, spec.len())?;
        want(Self::NAME, "saved", self.saved, spec.saved_len())?;
        want(Self::NAME, "gamma", self.gamma, spec.c)
    }

    /// Two passes: sums over all pixels, then dx. If there is a residual, the first pass writes dz
    /// behind the ReLU to `dresidual`, where the second one reads it; of one that is a norm both
    /// passes read dz and the mask.
    fn work(&self, _: &NormSpec) -> Work {
        let NormBackward { dx, dresidual, dz, gate, x, .. } = *self;
        let mask = bytes![gate.mask()];
        Work::moved(match dresidual {
            None => 2 * bytes![dz, x] + bytes![dx],
            Some(ResidualGrad::Map(g)) => bytes![dz, x, g] + mask + bytes![g, x, dx],
            Some(ResidualGrad::Norm(second)) => {
                2 * (bytes![dz, x, second.x] + mask) + bytes![dx, second.dx]
            }
        })
    }
}

/// Arguments of [`norm_fold`].
#[derive(Clone, Copy, Debug)]
pub struct NormFold {
    /// = the weights of the convolution with the norm folded in, of w's shape.
    pub folded: Slot<Act>,
    /// = (k), the bias that the convolution gets.
    pub bias: Slot<Act>,
    /// (k, …), the weights of the convolution before the norm, of k output channels.
    pub w: Slot<Act>,
    /// The norm of the convolution's k output channels.
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

/// The bodies of this family's ops, which every engine implements. The doors below say what each op
/// computes.
pub trait NormOps {
    /// Prepares the ops for this spec: asks for scratch, and fails on sizes that the engine cannot
    /// run. Returns the engine's own number for the plan.
    fn plan_norm(&mut self, spec: NormSpec) -> Result<usize>;
    fn norm_statistics(&mut self, a: Passed<NormStatistics>) -> Result<()>;
    fn norm_forward(&mut self, a: Passed<NormForward>) -> Result<()>;
    fn norm_backward(&mut self, a: Passed<NormBackward>) -> Result<()>;
    fn norm_fold(&mut self, a: Passed<NormFold>) -> Result<()>;
}

/// Plans the ops of this family for `spec`. Fails on sizes that this engine cannot run.
pub fn plan_norm(dev: &mut dyn Engine, spec: NormSpec) -> Result<Plan<NormSpec>> {
    Ok(Plan { spec, number: dev.plan_norm(spec)? })
}

/// Training: the mean and the biased variance of each group of x into `saved`, for a norm that
/// [`norm_forward`] applies to its residual. The running statistics are updated group after group,
/// as by successive forward passes.
pub fn norm_statistics(
    dev: &mut dyn Engine,
    plan: &Plan<NormSpec>,
    a: NormStatistics,
) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.norm_statistics(a))
}

/// Training: z = relu?(γ·(x − mean)/√(var + ε) + β + residual), with statistics as
/// [`norm_statistics`] writes them, which are also written to `saved`.
pub fn norm_forward(dev: &mut dyn Engine, plan: &Plan<NormSpec>, a: NormForward) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.norm_forward(a))
}

/// The gradient of [`norm_forward`]: dx, dresidual, dgamma and dbeta from dz.
pub fn norm_backward(dev: &mut dyn Engine, plan: &Plan<NormSpec>, a: NormBackward) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.norm_backward(a))
}

/// Folds a norm in inference mode into the convolution before it: folded = w·γ/√(running_var + ε)
/// for each output channel, bias = β − running_mean·γ/√(running_var + ε).
pub fn norm_fold(dev: &mut dyn Engine, a: NormFold) -> Result<()> {
    door(dev, &UNPLANNED, &a, |dev, a| dev.norm_fold(a))
}
