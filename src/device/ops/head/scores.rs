//! The scores of every pixel, their gradient, and predictions made from them.

use crate::base::{Error, Result};
use crate::device::ops::head::{Classifier, HeadInput, HeadSpec};
use crate::device::ops::{Op, Plan, door, want};
use crate::device::trace::bytes;
use crate::device::{Act, Engine, Slot, Work};

/// Arguments of [`head_scores`].
#[derive(Clone, Copy, Debug)]
pub struct HeadScores {
    /// = (n, h, w, k), the scores.
    pub scores: Slot<f32>,
    pub input: HeadInput,
    pub classifier: Classifier,
}

impl Op for HeadScores {
    type Spec = HeadSpec;
    const NAME: &'static str = "head_scores";

    fn check(&self, spec: &HeadSpec) -> Result<()> {
        spec.check_input(Self::NAME, &self.input)?;
        spec.check_classifier(Self::NAME, self.classifier)?;
        let len = spec.n * spec.pixels() * self.classifier.k;
        want(Self::NAME, "scores", self.scores, len)
    }

    fn work(&self, spec: &HeadSpec) -> Work {
        let flops = spec.flops(self.classifier.k);
        Work::moved(bytes![self.scores] + bytes![self.input.laterals]).flops(flops)
    }

    fn shape(&self, spec: &HeadSpec) -> String {
        spec.with_clusters(self.classifier.k)
    }
}

/// Arguments of [`head_scores_backward`].
#[derive(Clone, Copy, Debug)]
pub struct HeadScoresBackward {
    /// = the gradients of p2 to p5. `None`: not computed.
    pub dlaterals: Option<[Slot<Act>; 4]>,
    /// += (k, d), the gradient of the classifier's weights.
    pub dw: Slot<f32>,
    /// += (k), the gradient of the classifier's biases.
    pub db: Slot<f32>,
    /// (n, h, w, k), the gradient of the scores.
    pub dscores: Slot<f32>,
    pub input: HeadInput,
    pub classifier: Classifier,
}

impl Op for HeadScoresBackward {
    type Spec = HeadSpec;
    const NAME: &'static str = "head_scores_backward";

    fn check(&self, spec: &HeadSpec) -> Result<()> {
        let HeadScoresBackward { dw, db, dscores, input, classifier, .. } = *self;
        spec.check_input(Self::NAME, &input)?;
        spec.check_classifier(Self::NAME, classifier)?;
        want(Self::NAME, "dscores", dscores, spec.n * spec.pixels() * classifier.k)?;
        want(Self::NAME, "dw", dw, classifier.w.len)?;
        want(Self::NAME, "db", db, classifier.k)?;
        self.dlaterals.map_or(Ok(()), |d| spec.check_gradients(Self::NAME, d))
    }

    /// One product for the classifier's gradient, and one for the features' gradient if it is
    /// wanted.
    fn work(&self, spec: &HeadSpec) -> Work {
        let products = if self.dlaterals.is_some() { 2.0 } else { 1.0 };
        Work::moved(bytes![self.dlaterals] + bytes![self.dscores] + bytes![self.input.laterals])
            .flops(products * spec.flops(self.classifier.k))
    }

    fn shape(&self, spec: &HeadSpec) -> String {
        spec.with_clusters(self.classifier.k)
    }
}

/// Arguments of [`head_predict`].
#[derive(Clone, Copy, Debug)]
pub struct HeadPredict {
    /// = (n, height, width), the predicted clusters; or (n/2, height, width): then the batch's
    /// images i and i + n/2 are two views of one image, whose scores are added first.
    pub pred: Slot<u16>,
    /// Height of the prediction, at least 1. `width`: likewise.
    pub height: usize,
    pub width: usize,
    pub input: HeadInput,
    pub classifier: Classifier,
}

impl HeadPredict {
    /// The number of views of each image, 1 or 2, which the length of `pred` tells.
    pub(in crate::device) fn views(&self, spec: &HeadSpec) -> usize {
        if 2 * self.pred.len == spec.n * self.height * self.width { 2 } else { 1 }
    }
}

impl Op for HeadPredict {
    type Spec = HeadSpec;
    const NAME: &'static str = "head_predict";

    fn check(&self, spec: &HeadSpec) -> Result<()> {
        spec.check_input(Self::NAME, &self.input)?;
        spec.check_classifier(Self::NAME, self.classifier)?;
        let (height, width) = (self.height, self.width);
        if height * width == 0 {
            let what = format!("a prediction of {height}×{width} pixels");
            return Err(Error::input(what, "ask for at least 1×1"));
        }
        want(Self::NAME, "pred", self.pred, spec.n / self.views(spec) * height * width)
    }

    fn work(&self, spec: &HeadSpec) -> Work {
        let flops = spec.flops(self.classifier.k);
        Work::moved(bytes![self.pred] + bytes![self.input.laterals]).flops(flops)
    }

    fn shape(&self, spec: &HeadSpec) -> String {
        spec.with_clusters(self.classifier.k)
    }
}

/// scores = F̂·wᵀ + b, for every pixel and cluster.
pub fn head_scores(dev: &mut dyn Engine, plan: &Plan<HeadSpec>, a: HeadScores) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.head_scores(a))
}

/// The gradient of [`head_scores`]: dlaterals, dw and db from dscores.
pub fn head_scores_backward(
    dev: &mut dyn Engine,
    plan: &Plan<HeadSpec>,
    a: HeadScoresBackward,
) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.head_scores_backward(a))
}

/// pred = the arg-max of the scores, after they were resampled bilinearly (align_corners = false)
/// to height × width.
pub fn head_predict(dev: &mut dyn Engine, plan: &Plan<HeadSpec>, a: HeadPredict) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.head_predict(a))
}
