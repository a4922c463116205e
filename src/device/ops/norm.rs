//! Batch normalisation, fused with what follows it in a residual network.

use crate::base::Result;
use crate::device::Slot;
use crate::device::ops::{Memory, want};

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
    pub(crate) fn check(&self, op: &'static str, c: usize) -> Result<()> {
        want(op, "gamma", self.gamma, c)?;
        want(op, "beta", self.beta, c)?;
        want(op, "running_mean", self.running_mean, c)?;
        want(op, "running_var", self.running_var, c)
    }
}

/// Where norm's gradients go, in one place because six slots in a row are easily swapped.
pub struct NormGrads<A> {
    /// = gradient of x.
    pub dx: Slot<A>,
    /// = gradient of the residual: dz where z > 0. Only with a residual.
    pub dresidual: Option<Slot<A>>,
    /// +=
    pub dgamma: Slot<f32>,
    /// +=
    pub dbeta: Slot<f32>,
}

pub trait Norm: Memory {
    type NormPlan: Clone;

    fn plan_norm(&mut self, spec: NormSpec) -> Result<Self::NormPlan>;

    /// Train mode: z = relu?(γ·(x − mean)/√(var + ε) + β + residual), statistics of each group
    /// (biased variance); `saved` = them; running statistics updated group after group, as by
    /// successive forwards.
    #[allow(clippy::too_many_arguments)]
    fn norm_forward(
        &mut self,
        plan: &Self::NormPlan,
        z: Slot<Self::Act>,
        saved: Slot<f32>,
        x: Slot<Self::Act>,
        residual: Option<Slot<Self::Act>>,
        relu: bool,
        params: NormParams,
    ) -> Result<()>;

    /// The gradient of [`Norm::norm_forward`]. `z` is the forward's output, given when it had a
    /// ReLU: dz counts where z > 0.
    #[allow(clippy::too_many_arguments)]
    fn norm_backward(
        &mut self,
        plan: &Self::NormPlan,
        grads: NormGrads<Self::Act>,
        dz: Slot<Self::Act>,
        z: Option<Slot<Self::Act>>,
        x: Slot<Self::Act>,
        saved: Slot<f32>,
        gamma: Slot<f32>,
    ) -> Result<()>;

    /// Eval mode as weights: folded (k, …) = w·γ/√(running_var + ε) by output channel, bias (k) = β
    /// − running_mean·γ/√(…).
    fn norm_fold(
        &mut self,
        folded: Slot<Self::Act>,
        bias: Slot<Self::Act>,
        w: Slot<Self::Act>,
        params: NormParams,
    ) -> Result<()>;
}
