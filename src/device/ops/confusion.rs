//! The confusion histogram.

use crate::base::Result;
use crate::device::Slot;
use crate::device::ops::Memory;

pub trait Confusion: Memory {
    /// counts (classes, clusters) += 1 at (labels[i], pred[i]) for every pixel whose label is not
    /// 255. pred and labels (pixels). Labels are below `classes` or 255, predictions below
    /// `clusters`.
    fn confusion(
        &mut self,
        counts: Slot<u32>,
        pred: Slot<u16>,
        labels: Slot<u8>,
        clusters: usize,
    ) -> Result<()>;
}
