//! The softmax of stored scores, its gradient, and the cross-entropy against labels. All work in
//! place.

use std::fmt;

use crate::base::{Error, Result};
use crate::device::ops::{Op, Passed, Plan, door, want};
use crate::device::trace::bytes;
use crate::device::{Engine, Slot, Work};

/// The sizes of stored scores: (n, pixels, k), for k classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SoftmaxSpec {
    /// Number of images.
    pub n: usize,
    /// Number of pixels in an image.
    pub pixels: usize,
    /// Number of classes.
    pub k: usize,
}

/// The labels of a cross-entropy, and the weights of their classes.
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxLabels {
    /// (images of the store, pixels), labels. A pixel whose label is k or more (such as `u16::MAX`)
    /// is ignored: it has no loss and no gradient.
    pub labels: Slot<u16>,
    /// (n), the row of each image in `labels`.
    pub index: Slot<u32>,
    /// (k), the weight of each class.
    pub weights: Slot<f32>,
}

impl SoftmaxSpec {
    /// Number of rows of k scores.
    pub fn rows(&self) -> usize {
        self.n * self.pixels
    }

    /// Number of scores.
    pub fn len(&self) -> usize {
        self.rows() * self.k
    }

    /// Whether there are no scores.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fails on sizes that no engine can run.
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
    /// (n, pixels, k), scores, which become probabilities.
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
    /// (n, pixels, k), the gradient of p, which becomes that of the scores.
    pub dp: Slot<f32>,
    /// (n, pixels, k), the probabilities.
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
    /// = (n), each image's share of the loss.
    pub losses: Slot<f32>,
    /// (n, pixels, k), scores, which become their gradient.
    pub scores: Slot<f32>,
    /// The labels, and the weights of their classes.
    pub labels: SoftmaxLabels,
    /// Factor on the gradient, but not on `losses`.
    pub scale: f32,
}

impl SoftmaxLoss {
    /// Number of images in the label store.
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

    /// Two passes read the labels: the sum of their weights, then the loss.
    fn work(&self, spec: &SoftmaxSpec) -> Work {
        Work::moved(bytes![self.scores, self.scores] + 2 * size_of::<u16>() * spec.rows())
    }
}

/// The bodies of this family's ops, which every engine implements. The doors below say what each op
/// computes.
pub trait SoftmaxOps {
    /// Prepares the ops for this spec: asks for scratch, and fails on sizes that the engine cannot
    /// run. Returns the engine's own number for the plan.
    fn plan_softmax(&mut self, spec: SoftmaxSpec) -> Result<usize>;
    fn softmax_forward(&mut self, a: Passed<SoftmaxForward>) -> Result<()>;
    fn softmax_backward(&mut self, a: Passed<SoftmaxBackward>) -> Result<()>;
    fn softmax_loss(&mut self, a: Passed<SoftmaxLoss>) -> Result<()>;
}

/// Plans the ops of this family for `spec`. Fails on sizes that this engine cannot run.
pub fn plan_softmax(dev: &mut dyn Engine, spec: SoftmaxSpec) -> Result<Plan<SoftmaxSpec>> {
    spec.check()?;
    Ok(Plan { spec, number: dev.plan_softmax(spec)? })
}

/// x = the softmax of each row of k scores, in place.
pub fn softmax_forward(
    dev: &mut dyn Engine,
    plan: &Plan<SoftmaxSpec>,
    a: SoftmaxForward,
) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.softmax_forward(a))
}

/// The gradient of [`softmax_forward`]: dp = p∘(dp − Σ_k dp·p), in place, which turns the gradient
/// of the probabilities p into that of the scores.
pub fn softmax_backward(
    dev: &mut dyn Engine,
    plan: &Plan<SoftmaxSpec>,
    a: SoftmaxBackward,
) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.softmax_backward(a))
}

/// losses = image i's share of the mean weighted cross-entropy over all pixels of the batch that
/// are not ignored, which is Σ w\[y\]·ℓ / Σ w\[y\] as in torch; scores = the gradient of `scale` ·
/// Σ losses, in place. If Σ w\[y\] is 0, both are 0, not NaN.
pub fn softmax_loss(dev: &mut dyn Engine, plan: &Plan<SoftmaxSpec>, a: SoftmaxLoss) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.softmax_loss(a))
}
