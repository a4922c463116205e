//! Cross-entropies of classifiers' scores against stored labels, and their gradient down to the
//! laterals.

use crate::base::{Error, Result};
use crate::device::ops::head::{Classifier, HeadInput, HeadSpec};
use crate::device::ops::{Op, Plan, door, want};
use crate::device::trace::bytes;
use crate::device::{Act, Engine, Slot, Work};

/// The most targets that one [`head_loss`] takes.
pub(in crate::device) const MOST_TARGETS: usize = 4;

/// One cross-entropy: a classifier's scores against stored labels.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub classifier: Classifier,
    /// (images of the data set, h, w)
    pub labels: Slot<u16>,
    /// Class weights (k).
    pub weights: Slot<f32>,
    /// The gradient is that of Σ over targets of scale · Σ over views of the mean.
    pub scale: f32,
}

/// Arguments of [`head_loss`].
#[derive(Clone, Copy, Debug)]
pub struct HeadLoss<'a> {
    /// = (n, targets)
    pub losses: Slot<f32>,
    /// = gradients of p2 … p5.
    pub dlaterals: [Slot<Act>; 4],
    pub input: HeadInput,
    /// 1 to 4.
    pub targets: &'a [Target],
    /// (n): image i of the batch has label row `index[i]` of each target.
    pub index: Slot<u32>,
    /// Images of one view: images 0..view are view 1, view..2·view view 2 …; each view and target
    /// has a mean of its own.
    pub view: usize,
}

impl HeadLoss<'_> {
    /// Images that all label stores have.
    pub(in crate::device) fn images(&self, spec: &HeadSpec) -> usize {
        self.targets.iter().map(|target| spec.images(target.labels)).min().unwrap_or(0)
    }

    /// Clusters of all targets.
    fn clusters(&self) -> usize {
        self.targets.iter().map(|target| target.classifier.k).sum()
    }
}

impl Op for HeadLoss<'_> {
    type Spec = HeadSpec;
    const NAME: &'static str = "head_loss";

    fn check(&self, spec: &HeadSpec) -> Result<()> {
        spec.check_input(Self::NAME, &self.input)?;
        spec.check_gradients(Self::NAME, self.dlaterals)?;
        let count = self.targets.len();
        if !(1..=MOST_TARGETS).contains(&count) {
            return Err(Error::input(format!("a loss against {count} targets"), "give it 1 to 4"));
        }
        want(Self::NAME, "losses", self.losses, count * spec.n)?;
        for target in self.targets {
            spec.check_classifier(Self::NAME, target.classifier)?;
            spec.check_labels(Self::NAME, target.labels, self.index)?;
            want(Self::NAME, "weights", target.weights, target.classifier.k)?;
        }
        if self.view == 0 || !spec.n.is_multiple_of(self.view) {
            let what = format!("views of {} images do not divide a batch of {}", self.view, spec.n);
            return Err(Error::input(what, "make the batch a multiple of the view"));
        }
        Ok(())
    }

    /// Scores, and the gradient of the features from those of the scores.
    fn work(&self, spec: &HeadSpec) -> Work {
        let flops = 2.0 * spec.flops(self.clusters());
        Work::moved(bytes![self.dlaterals, self.input.laterals]).flops(flops)
    }

    fn shape(&self, spec: &HeadSpec) -> String {
        spec.with_clusters(self.clusters())
    }
}

/// losses = image i's share of the mean weighted cross-entropy (torch's: Σ w\[y\]·ℓ / Σ w\[y\]
/// over its view's pixels) against each target; dlaterals = gradient of Σ over targets of `scale` ·
/// Σ losses. Where Σ w\[y\] is 0 both are 0, not NaN. A norm below 1e-12 is the constant 1e-12 to
/// the gradient, as in torch.
pub fn head_loss(dev: &mut dyn Engine, plan: &Plan<HeadSpec>, a: HeadLoss) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.head_loss(a))
}
