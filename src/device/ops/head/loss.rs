//! The cross-entropies of classifiers' scores against stored labels, with their gradients for the
//! laterals.

use crate::base::{Error, Result};
use crate::device::ops::head::{Classifier, HeadInput, HeadSpec};
use crate::device::ops::{Op, Plan, door, want};
use crate::device::trace::bytes;
use crate::device::{Act, Engine, Slot, Work};

/// The largest number of targets that one [`head_loss`] takes.
pub(in crate::device) const MOST_TARGETS: usize = 4;

/// One cross-entropy: a classifier, and the stored labels that its scores are compared with.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub classifier: Classifier,
    /// (images of the data set, h, w), the label store.
    pub labels: Slot<u16>,
    /// (k), the weight of each class.
    pub weights: Slot<f32>,
    /// The weight of this target: the gradient is that of the sum over targets of scale · Σ over
    /// views of the mean.
    pub scale: f32,
}

/// Arguments of [`head_loss`].
#[derive(Clone, Copy, Debug)]
pub struct HeadLoss<'a> {
    /// = (n, targets), each image's share of each target's loss.
    pub losses: Slot<f32>,
    /// = the gradients of p2 to p5.
    pub dlaterals: [Slot<Act>; 4],
    pub input: HeadInput,
    /// The cross-entropies, 1 to 4 of them.
    pub targets: &'a [Target],
    /// (n), the row of each image in the label stores.
    pub index: Slot<u32>,
    /// Number of images of one view: images 0..view are view 1, view..2·view are view 2, and so on.
    /// Each view and target has a mean of its own.
    pub view: usize,
}

impl HeadLoss<'_> {
    /// The number of images in the smallest label store.
    pub(in crate::device) fn images(&self, spec: &HeadSpec) -> usize {
        self.targets.iter().map(|target| spec.images(target.labels)).min().unwrap_or(0)
    }

    /// The sum of all targets' numbers of clusters.
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

    /// One product for the scores, and one for the features' gradient.
    fn work(&self, spec: &HeadSpec) -> Work {
        let flops = 2.0 * spec.flops(self.clusters());
        Work::moved(bytes![self.dlaterals, self.input.laterals]).flops(flops)
    }

    fn shape(&self, spec: &HeadSpec) -> String {
        spec.with_clusters(self.clusters())
    }
}

/// Computes the loss of each image against each target, and the gradients of the laterals. losses =
/// image i's share of the mean weighted cross-entropy, which is Σ w\[y\]·ℓ / Σ w\[y\] over its
/// view's pixels as in torch. dlaterals = the gradient of the sum over targets of `scale` · Σ
/// losses. If Σ w\[y\] is 0, both are 0, not NaN. For the gradient, a norm below 1e-12 is the
/// constant 1e-12, as in torch.
pub fn head_loss(dev: &mut dyn Engine, plan: &Plan<HeadSpec>, a: HeadLoss) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.head_loss(a))
}
