//! Softmax over stored scores, its gradient, and the cross-entropy against labels: all in place.

use crate::base::{Error, Result};
use crate::device::Slot;
use crate::device::ops::{Memory, want};

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

    /// What no engine plans.
    pub(crate) fn check(&self) -> Result<()> {
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

    /// The door of [`Softmax::softmax_loss`]. Returns the images of the label store.
    pub(crate) fn check_loss(
        &self,
        losses: Slot<f32>,
        scores: Slot<f32>,
        labels: SoftmaxLabels,
    ) -> Result<usize> {
        const OP: &str = "softmax_loss";
        let SoftmaxLabels { labels, index, weights } = labels;
        let images = labels.len / self.pixels;
        want(OP, "losses", losses, self.n)?;
        want(OP, "scores", scores, self.len())?;
        want(OP, "labels", labels, images.max(1) * self.pixels)?;
        want(OP, "index", index, self.n)?;
        want(OP, "weights", weights, self.k)?;
        Ok(images)
    }
}

pub trait Softmax: Memory {
    type SoftmaxPlan: Clone;

    fn plan_softmax(&mut self, spec: SoftmaxSpec) -> Result<Self::SoftmaxPlan>;

    /// x = softmax over k, in place.
    fn softmax_forward(&mut self, plan: &Self::SoftmaxPlan, x: Slot<f32>) -> Result<()>;

    /// dp = p∘(dp − Σ_k dp·p), in place: from the gradient of the probabilities p to that of the
    /// scores.
    fn softmax_backward(
        &mut self,
        plan: &Self::SoftmaxPlan,
        dp: Slot<f32>,
        p: Slot<f32>,
    ) -> Result<()>;

    /// losses (n) = image i's share of the mean weighted cross-entropy over all pixels of the batch
    /// (torch's: Σ w[y]·ℓ / Σ w[y], ignore_index); scores = the gradient of `scale` · Σ losses, in
    /// place. Where Σ w[y] is 0 both are 0, not NaN.
    fn softmax_loss(
        &mut self,
        plan: &Self::SoftmaxPlan,
        losses: Slot<f32>,
        scores: Slot<f32>,
        labels: SoftmaxLabels,
        scale: f32,
    ) -> Result<()>;
}
