//! Batch normalisation, fused with what follows it in a residual network.

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
    /// = (groups, rows, c), the output.
    pub z: Slot<Act>,
    /// = (groups, 2, c), the statistics of the batch, for the backward pass.
    pub saved: Slot<f32>,
    /// (groups, rows, c), the input.
    pub x: Slot<Act>,
    /// (groups, rows, c), added before the ReLU. `None`: nothing is added.
    pub residual: Option<Slot<Act>>,
    /// Whether negative outputs become 0.
    pub relu: bool,
    /// Gamma and beta, which are read, and the running statistics, which are updated.
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

/// What tells where a forward pass's output z was above zero, so that its ReLU lets dz through.
#[derive(Clone, Copy, Debug)]
pub enum NormGate {
    /// It had no ReLU: dz counts everywhere.
    Open,
    /// β (c), of a pass without a residual: z > 0 follows from x.
    Beta(Slot<f32>),
    /// z (groups, rows, c), of a pass with a residual.
    Output(Slot<Act>),
}

impl NormGate {
    /// β, where it tells.
    pub(crate) fn beta(self) -> Option<Slot<f32>> {
        if let NormGate::Beta(beta) = self { Some(beta) } else { None }
    }

    /// z, where it tells.
    pub(crate) fn output(self) -> Option<Slot<Act>> {
        if let NormGate::Output(z) = self { Some(z) } else { None }
    }
}

/// Arguments of [`norm_backward`].
#[derive(Clone, Copy, Debug)]
pub struct NormBackward {
    /// = (groups, rows, c), the gradient of x.
    pub dx: Slot<Act>,
    /// = (groups, rows, c), the gradient of the residual: dz where z > 0, else 0. Given if the
    /// forward pass had a residual.
    pub dresidual: Option<Slot<Act>>,
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
        want_if(Self::NAME, "dresidual", self.dresidual, spec.len())?;
        want(Self::NAME, "dgamma", self.dgamma, spec.c)?;
        want(Self::NAME, "dbeta", self.dbeta, spec.c)?;
        want(Self::NAME, "dz", self.dz, spec.len())?;
        match (self.gate, self.dresidual) {
            (NormGate::Open, _) => {}
            (NormGate::Beta(beta), None) => want(Self::NAME, "beta", beta, spec.c)?,
            (NormGate::Output(z), Some(_)) => want(Self::NAME, "z", z, spec.len())?,
            (gate, dresidual) => {
                return Err(Error::input(
                    format!("{}: {gate:?} with the residual {dresidual:?}", Self::NAME),
                    "give z where there is a residual, else beta",
                ));
            }
        }
        want(Self::NAME, "x", self.x, spec.len())?;
        want(Self::NAME, "saved", self.saved, spec.saved_len())?;
        want(Self::NAME, "gamma", self.gamma, spec.c)
    }

    /// Two passes: sums over all pixels, then dx. If there is a residual, the first pass writes dz
    /// behind the ReLU to `dresidual`, where the second one reads it.
    fn work(&self, _: &NormSpec) -> Work {
        let NormBackward { dx, dresidual, dz, gate, x, .. } = *self;
        Work::moved(
            bytes![dz, gate.output(), x, dresidual] + bytes![dresidual.unwrap_or(dz), x, dx],
        )
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
    fn norm_forward(&mut self, a: Passed<NormForward>) -> Result<()>;
    fn norm_backward(&mut self, a: Passed<NormBackward>) -> Result<()>;
    fn norm_fold(&mut self, a: Passed<NormFold>) -> Result<()>;
}

/// Plans the ops of this family for `spec`. Fails on sizes that this engine cannot run.
pub fn plan_norm(dev: &mut dyn Engine, spec: NormSpec) -> Result<Plan<NormSpec>> {
    Ok(Plan { spec, number: dev.plan_norm(spec)? })
}

/// Training: z = relu?(γ·(x − mean)/√(var + ε) + β + residual), with the mean and the biased
/// variance of each group, which are also written to `saved`. The running statistics are updated
/// group after group, as by successive forward passes.
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
