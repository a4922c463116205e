//! Softmax over stored scores, its gradient, and the cross-entropy against labels: all in place.

use std::fmt;

use crate::base::{Error, Result};
use crate::device::ops::{Op, Passed, Plan, door, want};
use crate::device::trace::bytes;
use crate::device::{Engine, Slot, Work};

/// Scores (n, pixels, k) of n images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SoftmaxSpec {
    pub n: usize,
    pub pixels: usize,
    pub k: usize,
}

/// What a cross-entropy against labels reads.
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxLabels {
    /// (images of the store, pixels); a label >= k (such as u16::MAX) is ignored: no loss, no
    /// gradient.
    pub labels: Slot<u16>,
    /// (n): image i has label row index[i].
    pub index: Slot<u32>,
    /// Class weights (k).
    pub weights: Slot<f32>,
}

impl SoftmaxSpec {
    /// Rows of k scores.
    pub fn rows(&self) -> usize {
        self.n * self.pixels
    }

    pub fn len(&self) -> usize {
        self.rows() * self.k
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Refuses what no engine plans.
    fn check(&self) -> Result<()> {
        if self.is_empty() {
            return Err(Error::input(
                format!("scores without content: {self:?}"),
                "give every size at least 1",
            ));
        }
        if self.k > usize::from(u16::MAX) {
            let what = format!("{} classes do not fit into labels of 16 bits", self.k);
            return Err(Error::input(what, "use at most 65535 classes"));
        }
        Ok(())
    }
}

impl fmt::Display for SoftmaxSpec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}×{}×{}", self.n, self.pixels, self.k)
    }
}

/// Arguments of [`softmax_forward`].
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxForward {
    /// (n, pixels, k): scores, then probabilities.
    pub x: Slot<f32>,
}

impl Op for SoftmaxForward {
    type Spec = SoftmaxSpec;
    const NAME: &'static str = "softmax_forward";

    fn check(&self, spec: &SoftmaxSpec) -> Result<()> {
        want(Self::NAME, "x", self.x, spec.len())
    }

    fn work(&self, _: &SoftmaxSpec) -> Work {
        Work::moved(bytes![self.x, self.x])
    }
}

/// Arguments of [`softmax_backward`].
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxBackward {
    /// (n, pixels, k): the gradient of p, then that of the scores.
    pub dp: Slot<f32>,
    pub p: Slot<f32>,
}

impl Op for SoftmaxBackward {
    type Spec = SoftmaxSpec;
    const NAME: &'static str = "softmax_backward";

    fn check(&self, spec: &SoftmaxSpec) -> Result<()> {
        want(Self::NAME, "dp", self.dp, spec.len())?;
        want(Self::NAME, "p", self.p, spec.len())
    }

    fn work(&self, _: &SoftmaxSpec) -> Work {
        Work::moved(bytes![self.dp, self.dp, self.p])
    }
}

/// Arguments of [`softmax_loss`].
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxLoss {
    /// = (n)
    pub losses: Slot<f32>,
    /// (n, pixels, k): scores, then their gradient.
    pub scores: Slot<f32>,
    pub labels: SoftmaxLabels,
    pub scale: f32,
}

impl SoftmaxLoss {
    /// Images of the label store.
    pub(in crate::device) fn images(&self, spec: &SoftmaxSpec) -> usize {
        self.labels.labels.len / spec.pixels
    }
}

impl Op for SoftmaxLoss {
    type Spec = SoftmaxSpec;
    const NAME: &'static str = "softmax_loss";

    fn check(&self, spec: &SoftmaxSpec) -> Result<()> {
        let SoftmaxLabels { labels, index, weights } = self.labels;
        want(Self::NAME, "losses", self.losses, spec.n)?;
        want(Self::NAME, "scores", self.scores, spec.len())?;
        want(Self::NAME, "labels", labels, self.images(spec).max(1) * spec.pixels)?;
        want(Self::NAME, "index", index, spec.n)?;
        want(Self::NAME, "weights", weights, spec.k)
    }

    fn work(&self, spec: &SoftmaxSpec) -> Work {
        Work::moved(bytes![self.scores, self.scores] + 2 * spec.rows())
    }
}

/// What an engine does of the family.
pub trait Softmax {
    /// Asks for scratch; refuses sizes that the engine cannot run. Returns its number for the plan.
    fn plan_softmax(&mut self, spec: SoftmaxSpec) -> Result<usize>;
    fn softmax_forward(&mut self, a: Passed<SoftmaxForward>) -> Result<()>;
    fn softmax_backward(&mut self, a: Passed<SoftmaxBackward>) -> Result<()>;
    fn softmax_loss(&mut self, a: Passed<SoftmaxLoss>) -> Result<()>;
}

pub fn plan_softmax(dev: &mut dyn Engine, spec: SoftmaxSpec) -> Result<Plan<SoftmaxSpec>> {
    spec.check()?;
    Ok(Plan { spec, number: dev.plan_softmax(spec)? })
}

/// x = softmax over k, in place.
pub fn softmax_forward(
    dev: &mut dyn Engine,
    plan: &Plan<SoftmaxSpec>,
    a: SoftmaxForward,
) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.softmax_forward(a))
}

/// dp = p∘(dp − Σ_k dp·p), in place: from the gradient of the probabilities p to that of the
/// scores.
pub fn softmax_backward(
    dev: &mut dyn Engine,
    plan: &Plan<SoftmaxSpec>,
    a: SoftmaxBackward,
) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.softmax_backward(a))
}

/// losses = image i's share of the mean weighted cross-entropy over all pixels of the batch
/// (torch's: Σ w[y]·ℓ / Σ w[y], ignore_index); scores = the gradient of `scale` · Σ losses, in
/// place. Where Σ w[y] is 0 both are 0, not NaN.
pub fn softmax_loss(dev: &mut dyn Engine, plan: &Plan<SoftmaxSpec>, a: SoftmaxLoss) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.softmax_loss(a))
}
