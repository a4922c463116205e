//! The confusion matrix: how many pixels of each class lie in each cluster.

use crate::base::Result;
use crate::device::ops::{Op, Passed, UNPLANNED, Unplanned, door, want};
use crate::device::trace::bytes;
use crate::device::{Engine, Slot, Work};

/// Arguments of [`confusion_count`].
#[derive(Clone, Copy, Debug)]
pub struct ConfusionCount {
    /// += (classes, clusters), numbers of pixels.
    pub counts: Slot<u32>,
    /// (pixels), predicted clusters, below `clusters`.
    pub pred: Slot<u16>,
    /// (pixels), true classes. The pixel does not count if the label is 255.
    pub labels: Slot<u8>,
    /// Number of clusters.
    pub clusters: usize,
}

impl Op for ConfusionCount {
    type Spec = Unplanned;
    const NAME: &'static str = "confusion";

    fn check(&self, _: &Unplanned) -> Result<()> {
        let ConfusionCount { counts, pred, labels, clusters } = *self;
        want(Self::NAME, "labels", labels, pred.len)?;
        let classes = (counts.len / clusters.max(1)).max(1);
        want(Self::NAME, "counts", counts, classes * clusters)
    }

    fn work(&self, _: &Unplanned) -> Work {
        Work::moved(bytes![self.pred, self.labels])
    }
}

/// The bodies of this family's ops, which every engine implements. The doors below say what each op
/// computes.
pub trait ConfusionOps {
    fn confusion_count(&mut self, a: Passed<ConfusionCount>) -> Result<()>;
}

/// counts += 1 at (labels\[i\], pred\[i\]) for every pixel whose label is not 255.
pub fn confusion_count(dev: &mut dyn Engine, a: ConfusionCount) -> Result<()> {
    door(dev, &UNPLANNED, &a, |dev, a| dev.confusion_count(a))
}
