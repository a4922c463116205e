//! What stands behind a norm: a residual, a ReLU.

use crate::base::Result;
use crate::device::ops::{NormSpec, want};
use crate::device::{Act, Slot};

/// What is added to the output of a norm before its ReLU.
#[derive(Clone, Copy, Debug)]
pub enum Residual {
    /// (groups, rows, c), as it is.
    Map(Slot<Act>),
    /// A map that is normalised, too.
    Norm(Normed),
}

/// A map x (groups, rows, c) whose norm is γ·(x − mean)/√(var + ε) + β, by what
/// [`norm_statistics`](crate::device::ops::norm_statistics) wrote to `saved` (groups, 2, c).
#[derive(Clone, Copy, Debug)]
pub struct Normed {
    pub x: Slot<Act>,
    pub saved: Slot<f32>,
    pub gamma: Slot<f32>,
    pub beta: Slot<f32>,
}

impl Residual {
    pub(super) fn check(&self, op: &'static str, spec: &NormSpec) -> Result<()> {
        match *self {
            Residual::Map(map) => want(op, "residual", map, spec.len()),
            Residual::Norm(Normed { x, saved, gamma, beta }) => {
                want(op, "x", x, spec.len())?;
                want(op, "saved", saved, spec.saved_len())?;
                want(op, "gamma", gamma, spec.c)?;
                want(op, "beta", beta, spec.c)
            }
        }
    }

    /// The map.
    pub(crate) fn map(self) -> Slot<Act> {
        match self {
            Residual::Map(map) => map,
            Residual::Norm(normed) => normed.x,
        }
    }

    /// The norm of the map, if it has one.
    pub(crate) fn norm(self) -> Option<Normed> {
        if let Residual::Norm(normed) = self { Some(normed) } else { None }
    }
}

/// What tells where a forward pass's output z was above zero, so that its ReLU lets dz through.
#[derive(Clone, Copy, Debug)]
pub enum NormGate {
    /// It had no ReLU: dz counts everywhere.
    Open,
    /// β (c), of a pass without a residual: z > 0 follows from x.
    Beta(Slot<f32>),
    /// The bits of where z > 0 (groups, rows, ⌈c/8⌉), of a pass with a residual.
    Mask(Slot<u8>),
}

impl NormGate {
    /// β, where it tells.
    pub(crate) fn beta(self) -> Option<Slot<f32>> {
        if let NormGate::Beta(beta) = self { Some(beta) } else { None }
    }

    /// The bits, where they tell.
    pub(crate) fn mask(self) -> Option<Slot<u8>> {
        if let NormGate::Mask(mask) = self { Some(mask) } else { None }
    }
}

/// What a backward writes and reads of a norm that was added to the output as a residual.
#[derive(Clone, Copy, Debug)]
pub struct NormGrads {
    /// = (groups, rows, c), the gradient of its x.
    pub dx: Slot<Act>,
    /// += (c), the gradient of its gamma. `dbeta`: of its beta.
    pub dgamma: Slot<f32>,
    pub dbeta: Slot<f32>,
    /// (groups, rows, c), (groups, 2, c) and (c), as the forward pass read them.
    pub x: Slot<Act>,
    pub saved: Slot<f32>,
    pub gamma: Slot<f32>,
}

impl NormGrads {
    pub(super) fn check(&self, op: &'static str, spec: &NormSpec) -> Result<()> {
        want(op, "dx", self.dx, spec.len())?;
        want(op, "dgamma", self.dgamma, spec.c)?;
        want(op, "dbeta", self.dbeta, spec.c)?;
        want(op, "x", self.x, spec.len())?;
        want(op, "saved", self.saved, spec.saved_len())?;
        want(op, "gamma", self.gamma, spec.c)
    }
}

/// The gradient of a residual.
#[derive(Clone, Copy, Debug)]
pub enum ResidualGrad {
    /// = (groups, rows, c), of [`Residual::Map`]: dz where z > 0, else 0.
    Map(Slot<Act>),
    /// Of [`Residual::Norm`].
    Norm(NormGrads),
}

impl ResidualGrad {
    pub(super) fn check(&self, op: &'static str, spec: &NormSpec) -> Result<()> {
        match self {
            ResidualGrad::Map(map) => want(op, "dresidual", *map, spec.len()),
            ResidualGrad::Norm(grads) => grads.check(op, spec),
        }
    }

    /// The gradient of a map.
    pub(crate) fn map(self) -> Option<Slot<Act>> {
        if let ResidualGrad::Map(map) = self { Some(map) } else { None }
    }

    /// The gradients of a norm.
    pub(crate) fn norm(self) -> Option<NormGrads> {
        if let ResidualGrad::Norm(grads) = self { Some(grads) } else { None }
    }
}
