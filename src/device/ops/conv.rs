//! Square-kernel convolution (cross-correlation, as deep learning has it), zero padding, no
//! dilation, no groups.

use std::fmt;

use crate::base::{Error, Result};
use crate::device::ops::{Op, Passed, Plan, door, planned, want, want_if};
use crate::device::trace::bytes;
use crate::device::{Act, Engine, Slot, Work};

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

    /// Refuses what no engine runs.
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

/// What happens to a sum before it is stored: y = relu?(conv + bias[k] + residual).
#[derive(Clone, Copy, Debug)]
pub struct Epilogue {
    /// (k), of the type of activations: cuDNN has compiled engines for that, and would compile one
    /// for an f32 bias at every start.
    pub bias: Option<Slot<Act>>,
    /// The shape of y.
    pub residual: Option<Slot<Act>>,
    pub relu: bool,
}

impl Epilogue {
    pub const NONE: Self = Epilogue { bias: None, residual: None, relu: false };

    pub fn bias(bias: Slot<Act>) -> Self {
        Epilogue { bias: Some(bias), ..Self::NONE }
    }

    fn terms(&self) -> Terms {
        Terms { bias: self.bias.is_some(), residual: self.residual.is_some(), relu: self.relu }
    }
}

/// Which terms an [`Epilogue`] has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Terms {
    pub bias: bool,
    pub residual: bool,
    pub relu: bool,
}

impl Terms {
    pub const NONE: Self = Terms { bias: false, residual: false, relu: false };
    pub const BIAS: Self = Terms { bias: true, ..Self::NONE };
}

/// Whether dx is computed, and how it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DataGrad {
    #[default]
    None,
    /// dx = …
    Overwrite,
    /// dx += …
    Accumulate,
}

/// Which gradients of the parameters are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WeightGrad {
    #[default]
    None,
    /// dw alone.
    Weight,
    /// dw and db.
    WeightAndBias,
}

/// What a plan will be asked to do: an engine is chosen for exactly that, and for nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Uses {
    pub forward: Terms,
    pub backward_data: DataGrad,
    pub backward_weight: WeightGrad,
}

impl Uses {
    pub fn forward(forward: Terms) -> Self {
        Uses { forward, ..Uses::default() }
    }

    pub fn backward(self, backward_data: DataGrad, backward_weight: WeightGrad) -> Self {
        Uses { backward_data, backward_weight, ..self }
    }
}

/// A convolution and what it is for: a call must be one that its plan was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvUse {
    pub spec: ConvSpec,
    pub uses: Uses,
}

/// Arguments of [`conv_forward`].
#[derive(Clone, Copy, Debug)]
pub struct ConvForward {
    /// =
    pub y: Slot<Act>,
    pub x: Slot<Act>,
    pub w: Slot<Act>,
    pub epilogue: Epilogue,
}

/// `3×3/2 64 → 128, 256×80×80`
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
        Work::moved(bytes![y, x, w, epilogue.residual]).flops(plan.spec.flops())
    }
}

/// Arguments of [`conv_backward_data`].
#[derive(Clone, Copy, Debug)]
pub struct ConvBackwardData {
    /// = gradient of x; += with `accumulate`.
    pub dx: Slot<Act>,
    pub dy: Slot<Act>,
    pub w: Slot<Act>,
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
        let read = accumulate.then_some(dx);
        Work::moved(bytes![dx, read, dy, w]).flops(plan.spec.flops())
    }
}

/// Arguments of [`conv_backward_weight`].
#[derive(Clone, Copy, Debug)]
pub struct ConvBackwardWeight {
    /// += gradient of w.
    pub dw: Slot<f32>,
    /// += (k), Σ dy.
    pub db: Option<Slot<f32>>,
    pub x: Slot<Act>,
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
        Work::moved(bytes![dw, dw, x, dy]).flops(plan.spec.flops())
    }
}

/// What an engine does of the family.
pub trait Conv {
    /// Chooses algorithms for the uses, or notes that they are to be chosen, and asks for scratch.
    /// Refuses shapes that the engine cannot run. Returns its number for the plan.
    fn plan_conv(&mut self, plan: ConvUse) -> Result<usize>;
    fn conv_forward(&mut self, a: Passed<ConvForward>) -> Result<()>;
    fn conv_backward_data(&mut self, a: Passed<ConvBackwardData>) -> Result<()>;
    fn conv_backward_weight(&mut self, a: Passed<ConvBackwardWeight>) -> Result<()>;
}

/// Plans a convolution for `uses`. An op that the plan was not made for is refused when it is
/// called.
pub fn plan_conv(dev: &mut dyn Engine, spec: ConvSpec, uses: Uses) -> Result<Plan<ConvUse>> {
    spec.check()?;
    let spec = ConvUse { spec, uses };
    Ok(Plan { spec, number: dev.plan_conv(spec)? })
}

/// y = epilogue(x ∗ w).
pub fn conv_forward(dev: &mut dyn Engine, plan: &Plan<ConvUse>, a: ConvForward) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.conv_forward(a))
}

/// dx = (or, with `accumulate`, +=) the gradient of x.
pub fn conv_backward_data(
    dev: &mut dyn Engine,
    plan: &Plan<ConvUse>,
    a: ConvBackwardData,
) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.conv_backward_data(a))
}

/// dw += the gradient of w; db += Σ dy.
pub fn conv_backward_weight(
    dev: &mut dyn Engine,
    plan: &Plan<ConvUse>,
    a: ConvBackwardWeight,
) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.conv_backward_weight(a))
}
