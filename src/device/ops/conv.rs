//! Square-kernel convolution (cross-correlation, as deep learning has it), zero padding, no
//! dilation, no groups.

use crate::base::{Error, Result};
use crate::device::ops::{Memory, want};
use crate::device::{Element, Slot};

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

    /// What no engine runs.
    pub(crate) fn check(&self) -> Result<()> {
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
pub struct Epilogue<A> {
    /// (k), of the type of activations: cuDNN has compiled engines for that, and would compile one
    /// for an f32 bias at every start.
    pub bias: Option<Slot<A>>,
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

    pub fn bias(bias: Slot<A>) -> Self {
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

/// Every engine's door: a call must be one that its plan was made for, with slots of the plan's
/// sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Door {
    pub spec: ConvSpec,
    pub uses: Uses,
}

/// `asked` is what the plan would have had to be made for.
fn planned<T: PartialEq + std::fmt::Debug>(op: &str, asked: T, planned: T) -> Result<()> {
    if asked == planned {
        return Ok(());
    }
    Err(Error::input(
        format!("{op} is asked for {asked:?}, its plan was made for {planned:?}"),
        "plan what is asked for",
    ))
}

impl Door {
    pub fn forward<A: Element>(
        self,
        y: Slot<A>,
        x: Slot<A>,
        w: Slot<A>,
        epilogue: Epilogue<A>,
    ) -> Result<()> {
        let (op, Door { spec, uses }) = ("conv_forward", self);
        planned(op, epilogue.terms(), uses.forward)?;
        want(op, "y", y, spec.y_len())?;
        want(op, "x", x, spec.x_len())?;
        want(op, "w", w, spec.w_len())?;
        epilogue.bias.map_or(Ok(()), |b| want(op, "bias", b, spec.k))?;
        epilogue.residual.map_or(Ok(()), |r| want(op, "residual", r, spec.y_len()))
    }

    pub fn backward_data<A: Element>(
        self,
        dx: Slot<A>,
        dy: Slot<A>,
        w: Slot<A>,
        accumulate: bool,
    ) -> Result<()> {
        let (op, Door { spec, uses }) = ("conv_backward_data", self);
        planned(
            op,
            if accumulate { DataGrad::Accumulate } else { DataGrad::Overwrite },
            uses.backward_data,
        )?;
        want(op, "dx", dx, spec.x_len())?;
        want(op, "dy", dy, spec.y_len())?;
        want(op, "w", w, spec.w_len())
    }

    pub fn backward_weight<A: Element>(
        self,
        dw: Slot<f32>,
        db: Option<Slot<f32>>,
        x: Slot<A>,
        dy: Slot<A>,
    ) -> Result<()> {
        let (op, Door { spec, uses }) = ("conv_backward_weight", self);
        let asked = if db.is_some() { WeightGrad::WeightAndBias } else { WeightGrad::Weight };
        planned(op, asked, uses.backward_weight)?;
        want(op, "dw", dw, spec.w_len())?;
        want(op, "x", x, spec.x_len())?;
        want(op, "dy", dy, spec.y_len())?;
        db.map_or(Ok(()), |b| want(op, "db", b, spec.k))
    }
}

pub trait Conv: Memory {
    type ConvPlan: Clone;

    /// Chooses algorithms for `uses` and asks for scratch. Refuses shapes the engine cannot run. An
    /// op that the plan was not made for is refused when it is called.
    fn plan_conv(&mut self, spec: ConvSpec, uses: Uses) -> Result<Self::ConvPlan>;

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
