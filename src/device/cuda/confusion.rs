//! Launchers of the confusion histogram.

use crate::base::Result;
use crate::device::cuda::context::{Cuda, Grid};
use crate::device::ops::{Confusion, want};
use crate::device::{Activation, Slot};

const THREADS: u32 = 256;
/// Pixels that a thread takes at once.
const PIXELS: usize = 8;
/// Blocks at most: four for each multiprocessor of the largest GPUs. Each adds its histogram once.
const BLOCKS: usize = 528;
/// Bytes of shared memory that a block has without asking.
const SHARED: usize = 48 << 10;

impl<A: Activation> Confusion for Cuda<A> {
    fn confusion(
        &mut self,
        counts: Slot<u32>,
        pred: Slot<u16>,
        labels: Slot<u8>,
        clusters: usize,
    ) -> Result<()> {
        const OP: &str = "confusion";
        want(OP, "labels", labels, pred.len)?;
        want(OP, "counts", counts, (counts.len / clusters.max(1)).max(1) * clusters)?;
        let grid = Grid::new(pred.len.div_ceil(PIXELS * THREADS as usize).min(BLOCKS), THREADS);
        let [to, pred_at, labels_at] = [self.at(counts), self.at(pred), self.at(labels)];
        let bytes = counts.bytes();
        if bytes <= SHARED {
            let kernel = self.kernel("confusion_shared")?;
            let args =
                [to, pred_at, labels_at, pred.len.into(), counts.len.into(), clusters.into()];
            self.launch(kernel, grid.shared(bytes), &args)
        } else {
            let kernel = self.kernel("confusion_global")?;
            self.launch(kernel, grid, &[to, pred_at, labels_at, pred.len.into(), clusters.into()])
        }
    }
}
