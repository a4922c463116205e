//! Square-kernel convolution (cross-correlation, as deep learning has it), zero padding, no dilation, no groups.

use crate::base::Result;
use crate::device::Slot;
use crate::device::ops::Memory;

/// x (n, h, w, c) ∗ w (k, r, r, c) → y (n, p, q, k), p = (h + 2·pad − r) / stride + 1, q alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvSpec {
    pub n: usize,
    pub h: usize,
    pub w: usize,
    pub c: usize,
    pub k: usize,
    pub r: usize,
    pub stride: usize,
    pub pad: usize,
}

impl ConvSpec {
    pub fn p(&self) -> usize {
        (self.h + 2 * self.pad - self.r) / self.stride + 1
    }

    pub fn q(&self) -> usize {
        (self.w + 2 * self.pad - self.r) / self.stride + 1
    }

    pub fn x_len(&self) -> usize {
        self.n * self.h * self.w * self.c
    }

    pub fn w_len(&self) -> usize {
        self.k * self.r * self.r * self.c
    }

    pub fn y_len(&self) -> usize {
        self.n * self.p() * self.q() * self.k
    }

    /// Multiply-adds count as two.
    pub fn flops(&self) -> f64 {
        2.0 * self.y_len() as f64 * (self.r * self.r * self.c) as f64
    }
}

/// What happens to a sum before it is stored: y = relu?(conv + bias[k] + residual).
pub struct Epilogue<A> {
    /// (k)
    pub bias: Option<Slot<f32>>,
    /// The shape of y.
    pub residual: Option<Slot<A>>,
    pub relu: bool,
}

impl<A> Clone for Epilogue<A> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<A> Copy for Epilogue<A> {}

impl<A> Epilogue<A> {
    pub const NONE: Self = Epilogue { bias: None, residual: None, relu: false };

    pub fn bias(bias: Slot<f32>) -> Self {
        Epilogue { bias: Some(bias), ..Self::NONE }
    }
}

pub trait Conv: Memory {
    type ConvPlan: Clone;

    /// Chooses algorithms and asks for scratch. Refuses shapes the engine cannot run.
    fn plan_conv(&mut self, spec: ConvSpec) -> Result<Self::ConvPlan>;

    /// y = epilogue(x ∗ w).
    fn conv_forward(
        &mut self,
        plan: &Self::ConvPlan,
        y: Slot<Self::Act>,
        x: Slot<Self::Act>,
        w: Slot<Self::Act>,
        epilogue: Epilogue<Self::Act>,
    ) -> Result<()>;

    /// dx = (or, with `accumulate`, +=) the gradient of x.
    fn conv_backward_data(
        &mut self,
        plan: &Self::ConvPlan,
        dx: Slot<Self::Act>,
        dy: Slot<Self::Act>,
        w: Slot<Self::Act>,
        accumulate: bool,
    ) -> Result<()>;

    /// dw += the gradient of w; db (k) += Σ dy.
    fn conv_backward_weight(
        &mut self,
        plan: &Self::ConvPlan,
        dw: Slot<f32>,
        db: Option<Slot<f32>>,
        x: Slot<Self::Act>,
        dy: Slot<Self::Act>,
    ) -> Result<()>;
}
