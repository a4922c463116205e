//! The body of the confusion histogram.

use crate::base::Result;
use crate::device::cuda::Cuda;
use crate::device::cuda::kernels;
use crate::device::cuda::kernels::consts::confusion::{PIXELS, PLAIN_SHARED, THREADS};
use crate::device::ops::confusion::ConfusionOps;
use crate::device::ops::{ConfusionCount, Passed};

/// Blocks at most: four for each multiprocessor of the largest GPUs. Each adds its histogram once.
const BLOCKS: usize = 528;

impl ConfusionOps for Cuda {
    fn confusion_count(&mut self, a: Passed<ConfusionCount>) -> Result<()> {
        let ConfusionCount { counts, pred, labels, clusters } = *a;
        let (pixels, cells, bytes) = (pred.len, counts.len, counts.bytes());
        let blocks = pixels.div_ceil(PIXELS * THREADS).min(BLOCKS);
        if bytes <= PLAIN_SHARED {
            let kernel = kernels::ConfusionShared { counts, pred, labels, pixels, cells, clusters };
            self.launch(blocks, bytes, kernel)
        } else {
            let kernel = kernels::ConfusionGlobal { counts, pred, labels, pixels, clusters };
            self.launch(blocks, 0, kernel)
        }
    }
}
