//! Convolution with square kernels (a cross-correlation, as usual in deep learning), zero padding,
//! no dilation and no groups.

use std::fmt;

use crate::base::{Error, Result};
use crate::device::ops::{Op, Passed, Plan, door, planned, want, want_if};
use crate::device::trace::bytes;
use crate::device::{Act, Engine, Slot, Work};

/// The sizes of a convolution: x (n, h, w, c) ∗ w (k, r, r, c) → y (n, p, q, k), where p = ⌊(h +
/// 2·pad − r) / stride⌋ + 1 and q likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvSpec {
    pub n: usize,
    pub h: usize,
    pub w: usize,
    /// Channels of the input.
    pub c: usize,
    /// Channels of the output.
    pub k: usize,
    /// Side of the kernels.
    pub r: usize,
    /// Distance between two windows of the input.
    pub stride: usize,
    /// Zeros added on each side of the input, less than `r`.
    pub pad: usize,
}

impl ConvSpec {
    /// Height of the output.
    pub fn p(&self) -> usize {
        (self.h + 2 * self.pad - self.r) / self.stride + 1
    }

    /// Width of the output.
    pub fn q(&self) -> usize {
        (self.w + 2 * self.pad - self.r) / self.stride + 1
    }

    /// Elements of the input.
    pub fn x_len(&self) -> usize {
        self.n * self.h * self.w * self.c
    }

    /// Elements of the input that a window covers: a stride above the kernels' side skips others.
    pub fn x_covered(&self) -> usize {
        if self.stride > self.r {
            self.n * self.p() * self.q() * self.r * self.r * self.c
        } else {
            self.x_len()
        }
    }

    /// Bytes of what is covered of a map that is as large as the input.
    fn covered(&self, x: Slot<Act>) -> usize {
        x.bytes() / self.x_len() * self.x_covered()
    }

    /// Elements of the weights.
    pub fn w_len(&self) -> usize {
        self.k * self.r * self.r * self.c
    }

    /// Elements of the output.
    pub fn y_len(&self) -> usize {
        self.n * self.p() * self.q() * self.k
    }

    /// FLOPs of the convolution, and of each of its gradients; a multiply-add is two.
    pub fn flops(&self) -> f64 {
        2.0 * self.y_len() as f64 * (self.r * self.r * self.c) as f64
    }

    /// Whether this is a ResNet's first layer, which reads images of an even width: 7×7 with stride
    /// 2, from 4 channels to 64. Engines may have kernels for just that.
    pub fn reads_images(&self) -> bool {
        let ConvSpec { w, c, k, r, stride, pad, .. } = *self;
        (c, k, r, stride, pad) == (4, 64, 7, 2, 3) && w.is_multiple_of(2)
    }

    /// Whether windows are 3×3 and one pixel apart.
    fn windows(&self) -> bool {
        self.r == 3 && self.stride == 1
    }

    /// Fails on sizes that no engine can run.
    fn check(&self) -> Result<()> {
        let ConvSpec { n, h, w, c, k, r, stride, pad } = *self;
        if n * h * w * c * k * r * stride == 0 || h + 2 * pad < r || w + 2 * pad < r || pad >= r {
            return Err(Error::input(
                format!(
                    "convolution of {n}×{h}×{w}×{c} with {k} kernels of {r}×{r}, stride {stride}, padding {pad}"
                ),
                "use non-empty shapes, at least as large as the kernel, padded by less than it",
            ));
        }
        Ok(())
    }
}

/// What is done to a convolution's sums before they are stored: y = relu?(conv + bias + residual),
/// where each term may be missing.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue {
    /// (k), of the type of activations. cuDNN has compiled engines for that type; for an f32 bias
    /// it would compile one at every start.
    pub bias: Option<Slot<Act>>,
    /// (n, p, q, k), a residual to add.
    pub residual: Option<Slot<Act>>,
    /// Whether negative outputs become 0.
    pub relu: bool,
}

impl Epilogue {
    /// Nothing: y = conv.
    pub const NONE: Self = Epilogue { bias: None, residual: None, relu: false };

    /// A bias (k) and nothing else.
    pub fn bias(bias: Slot<Act>) -> Self {
        Epilogue { bias: Some(bias), ..Self::NONE }
    }

    fn terms(&self) -> Terms {
        Terms { bias: self.bias.is_some(), residual: self.residual.is_some(), relu: self.relu }
    }
}

/// The terms that an [`Epilogue`] has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Terms {
    /// Whether a bias is added. `residual` and `relu`: likewise.
    pub bias: bool,
    pub residual: bool,
    pub relu: bool,
}

impl Terms {
    /// No terms.
    pub const NONE: Self = Terms { bias: false, residual: false, relu: false };
    /// Only a bias.
    pub const BIAS: Self = Terms { bias: true, ..Self::NONE };
}

/// Whether the gradient dx of the input is computed, and how it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DataGrad {
    #[default]
    None,
    /// dx is overwritten.
    Overwrite,
    /// dx is added to what is there.
    Accumulate,
}

/// Which gradients of the parameters are computed: those of the weights (dw), of the bias (db), or
/// none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WeightGrad {
    #[default]
    None,
    /// Only dw.
    Weight,
    /// Both dw and db.
    WeightAndBias,
}

/// The calls that a plan will be used for. Algorithms are chosen for exactly these; other calls are
/// refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Uses {
    /// Terms of the forward pass's epilogue.
    pub forward: Terms,
    /// How the input's gradient is stored, if at all.
    pub backward_data: DataGrad,
    /// Which gradients of parameters are computed.
    pub backward_weight: WeightGrad,
}

impl Uses {
    /// A forward pass and no backward pass.
    pub fn forward(forward: Terms) -> Self {
        Uses { forward, ..Uses::default() }
    }

    /// The same with a backward pass.
    pub fn backward(self, backward_data: DataGrad, backward_weight: WeightGrad) -> Self {
        Uses { backward_data, backward_weight, ..self }
    }
}

/// A convolution, and the calls that its plan is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvUse {
    pub spec: ConvSpec,
    pub uses: Uses,
}

/// Arguments of [`conv_forward`].
#[derive(Clone, Copy, Debug)]
pub struct ConvForward {
    /// = (n, p, q, k), the output.
    pub y: Slot<Act>,
    /// (n, h, w, c), the input.
    pub x: Slot<Act>,
    /// (k, r, r, c), the weights.
    pub w: Slot<Act>,
    /// What is done to the sums, with the terms that were planned.
    pub epilogue: Epilogue,
}

/// The shape for traces: kernel/stride, channels in → out, input, as in `3×3/2 64 → 128,
/// 256×80×80`.
impl fmt::Display for ConvUse {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let ConvSpec { n, h, w, c, k, r, stride, .. } = self.spec;
        write!(f, "{r}×{r}/{stride} {c} → {k}, {n}×{h}×{w}")
    }
}

impl Op for ConvForward {
    type Spec = ConvUse;
    const NAME: &'static str = "conv_forward";

    fn check(&self, &ConvUse { spec, uses }: &ConvUse) -> Result<()> {
        let ConvForward { y, x, w, epilogue } = *self;
        planned(Self::NAME, epilogue.terms(), uses.forward)?;
        want(Self::NAME, "y", y, spec.y_len())?;
        want(Self::NAME, "x", x, spec.x_len())?;
        want(Self::NAME, "w", w, spec.w_len())?;
        want_if(Self::NAME, "bias", epilogue.bias, spec.k)?;
        want_if(Self::NAME, "residual", epilogue.residual, spec.y_len())
    }

    fn work(&self, plan: &ConvUse) -> Work {
        let ConvForward { y, x, w, epilogue } = *self;
        let moved = plan.spec.covered(x) + bytes![y, w, epilogue.residual];
        Work::moved(moved).flops(plan.spec.flops()).windows(plan.spec.windows())
    }
}

/// Arguments of [`conv_backward_data`].
#[derive(Clone, Copy, Debug)]
pub struct ConvBackwardData {
    /// = (n, h, w, c), the gradient of x; += with `accumulate`.
    pub dx: Slot<Act>,
    /// (n, p, q, k), the gradient of the output.
    pub dy: Slot<Act>,
    /// (k, r, r, c), the weights.
    pub w: Slot<Act>,
    /// Whether dx is added to what is there, instead of overwritten.
    pub accumulate: bool,
}

impl Op for ConvBackwardData {
    type Spec = ConvUse;
    const NAME: &'static str = "conv_backward_data";

    fn check(&self, &ConvUse { spec, uses }: &ConvUse) -> Result<()> {
        let asked = if self.accumulate { DataGrad::Accumulate } else { DataGrad::Overwrite };
        planned(Self::NAME, asked, uses.backward_data)?;
        want(Self::NAME, "dx", self.dx, spec.x_len())?;
        want(Self::NAME, "dy", self.dy, spec.y_len())?;
        want(Self::NAME, "w", self.w, spec.w_len())
    }

    fn work(&self, plan: &ConvUse) -> Work {
        let ConvBackwardData { dx, dy, w, accumulate } = *self;
        let gradient = if accumulate { 2 * plan.spec.covered(dx) } else { dx.bytes() };
        Work::moved(gradient + bytes![dy, w]).flops(plan.spec.flops()).windows(plan.spec.windows())
    }
}

/// Arguments of [`conv_backward_weight`].
#[derive(Clone, Copy, Debug)]
pub struct ConvBackwardWeight {
    /// += (k, r, r, c), the gradient of the weights.
    pub dw: Slot<f32>,
    /// += (k), the gradient of the bias: the sum of dy over all pixels. `None`: not computed.
    pub db: Option<Slot<f32>>,
    /// (n, h, w, c), the forward pass's input.
    pub x: Slot<Act>,
    /// (n, p, q, k), the gradient of the output.
    pub dy: Slot<Act>,
}

impl Op for ConvBackwardWeight {
    type Spec = ConvUse;
    const NAME: &'static str = "conv_backward_weight";

    fn check(&self, &ConvUse { spec, uses }: &ConvUse) -> Result<()> {
        let asked = if self.db.is_some() { WeightGrad::WeightAndBias } else { WeightGrad::Weight };
        planned(Self::NAME, asked, uses.backward_weight)?;
        want(Self::NAME, "dw", self.dw, spec.w_len())?;
        want(Self::NAME, "x", self.x, spec.x_len())?;
        want(Self::NAME, "dy", self.dy, spec.y_len())?;
        want_if(Self::NAME, "db", self.db, spec.k)
    }

    fn work(&self, plan: &ConvUse) -> Work {
        let ConvBackwardWeight { dw, x, dy, .. } = *self;
        let moved = plan.spec.covered(x) + bytes![dw, dw, dy];
        Work::moved(moved).flops(plan.spec.flops()).windows(plan.spec.windows())
    }
}

/// The bodies of this family's ops, which every engine implements. The doors below say what each op
/// computes.
pub trait ConvOps {
    /// Chooses algorithms for the plan's calls, or notes that they are to be chosen by
    /// [`Engine::decide`], and asks for scratch. Fails on shapes that the engine cannot run.
    /// Returns the engine's own number for the plan.
    fn plan_conv(&mut self, plan: ConvUse) -> Result<usize>;
    fn conv_forward(&mut self, a: Passed<ConvForward>) -> Result<()>;
    fn conv_backward_data(&mut self, a: Passed<ConvBackwardData>) -> Result<()>;
    fn conv_backward_weight(&mut self, a: Passed<ConvBackwardWeight>) -> Result<()>;
}

/// Plans a convolution for the calls in `uses`; other calls are refused when they are made. Fails
/// on sizes that this engine cannot run.
pub fn plan_conv(dev: &mut dyn Engine, spec: ConvSpec, uses: Uses) -> Result<Plan<ConvUse>> {
    spec.check()?;
    let spec = ConvUse { spec, uses };
    Ok(Plan { spec, number: dev.plan_conv(spec)? })
}

/// y = epilogue(x ∗ w).
pub fn conv_forward(dev: &mut dyn Engine, plan: &Plan<ConvUse>, a: ConvForward) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.conv_forward(a))
}

/// dx = the gradient of x, or dx += the gradient with `accumulate`.
pub fn conv_backward_data(
    dev: &mut dyn Engine,
    plan: &Plan<ConvUse>,
    a: ConvBackwardData,
) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.conv_backward_data(a))
}

/// dw += the gradient of the weights; db += the sum of dy over all pixels.
pub fn conv_backward_weight(
    dev: &mut dyn Engine,
    plan: &Plan<ConvUse>,
    a: ConvBackwardWeight,
) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.conv_backward_weight(a))
}
