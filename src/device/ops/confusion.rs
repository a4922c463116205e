//! The confusion histogram.

use crate::base::Result;
use crate::device::ops::{Op, Passed, UNPLANNED, Unplanned, door, want};
use crate::device::trace::bytes;
use crate::device::{Engine, Slot, Work};

/// Arguments of [`confusion_count`].
#[derive(Clone, Copy, Debug)]
pub struct ConfusionCount {
    /// += (classes, clusters)
    pub counts: Slot<u32>,
    /// (pixels), below `clusters`.
    pub pred: Slot<u16>,
    /// (pixels), below classes, or 255: the pixel does not count.
    pub labels: Slot<u8>,
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

/// What an engine does of the family.
pub trait Confusion {
    fn confusion_count(&mut self, a: Passed<ConfusionCount>) -> Result<()>;
}

/// counts += 1 at (labels[i], pred[i]) for every pixel whose label is not 255.
pub fn confusion_count(dev: &mut dyn Engine, a: ConfusionCount) -> Result<()> {
    door(dev, &UNPLANNED, &a, |dev, a| dev.confusion_count(a))
}
