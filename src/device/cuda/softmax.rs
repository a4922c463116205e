//! Bodies of softmax: few classes through tiles in shared memory, many with a warp a row.
//!
//! Scratch of the loss: Σ w[y] (n) | its inverse over the batch (1) | losses of blocks (n, blocks
//! of an image).

use crate::base::{Error, Result};
use crate::device::cuda::Cuda;
use crate::device::cuda::kernels;
use crate::device::cuda::kernels::consts::softmax::{NARROW, ROWS, THREADS, WARPS};
use crate::device::ops::softmax::SoftmaxOps;
use crate::device::ops::{
    Passed, SoftmaxBackward, SoftmaxForward, SoftmaxLabels, SoftmaxLoss, SoftmaxSpec,
};

/// Bytes of a tile of k classes.
fn tile(k: usize) -> usize {
    THREADS * (k | 1) * size_of::<f32>()
}

/// Whether a tile holds whole rows.
fn narrow(spec: &SoftmaxSpec) -> bool {
    spec.k <= NARROW
}

/// Blocks that `rows` rows take.
fn blocks(spec: &SoftmaxSpec, rows: usize) -> usize {
    rows.div_ceil(if narrow(spec) { THREADS } else { ROWS })
}

/// Bytes where the parts of the scratch begin, and where the last ends.
fn scratch(spec: &SoftmaxSpec) -> [usize; 4] {
    let share = (spec.n * size_of::<f32>()).next_multiple_of(64);
    let partial = share + 64;
    [0, share, partial, partial + spec.n * blocks(spec, spec.pixels) * size_of::<f32>()]
}

impl SoftmaxOps for Cuda {
    fn plan_softmax(&mut self, spec: SoftmaxSpec) -> Result<usize> {
        if spec.n > 0xffff {
            let what = format!("{spec:?} is larger than the GPU's kernels take");
            return Err(Error::input(what, "use batches of at most 65535 images"));
        }
        // The most that any plan needs, so that the order of plans does not matter.
        self.allow_shared::<kernels::SoftmaxBackwardTile>(2 * tile(NARROW))?;
        self.ask_scratch(scratch(&spec)[3]);
        Ok(0)
    }

    fn softmax_forward(&mut self, a: Passed<SoftmaxForward>) -> Result<()> {
        let (spec, x) = (a.spec(), a.x);
        let (rows, k) = (spec.rows(), spec.k);
        if narrow(spec) {
            let kernel = kernels::SoftmaxForwardTile { x, rows, k };
            self.launch(blocks(spec, rows), tile(k), kernel)
        } else {
            self.launch(blocks(spec, rows), 0, kernels::SoftmaxForwardRow { x, rows, k })
        }
    }

    fn softmax_backward(&mut self, a: Passed<SoftmaxBackward>) -> Result<()> {
        let (spec, SoftmaxBackward { dp, p }) = (a.spec(), *a);
        let (rows, k) = (spec.rows(), spec.k);
        if narrow(spec) {
            let kernel = kernels::SoftmaxBackwardTile { dp, p, rows, k };
            self.launch(blocks(spec, rows), 2 * tile(k), kernel)
        } else {
            self.launch(blocks(spec, rows), 0, kernels::SoftmaxBackwardRow { dp, p, rows, k })
        }
    }

    fn softmax_loss(&mut self, a: Passed<SoftmaxLoss>) -> Result<()> {
        let (spec, images) = (a.spec(), a.images(a.spec()));
        let SoftmaxLoss { losses, scores, labels, scale } = *a;
        let SoftmaxLabels { labels, index, weights } = labels;
        let &SoftmaxSpec { n, pixels, k } = spec;
        let (parts, [weighed, share, partial, _]) = (blocks(spec, pixels), scratch(spec));
        let weighed = self.scratch(weighed, n)?;
        let share = self.scratch(share, 1)?;
        let partial = self.scratch(partial, n * parts)?;
        let kernel = kernels::SoftmaxWeigh { weighed, labels, index, weights, images, pixels, k };
        self.launch(n, 0, kernel)?;
        self.launch(1, 0, kernels::SoftmaxShare { share, weighed, n })?;
        if narrow(spec) {
            let kernel = kernels::SoftmaxLossTile {
                partial,
                scores,
                share,
                labels,
                index,
                weights,
                images,
                pixels,
                k,
                scale,
            };
            self.launch((parts, n), tile(k), kernel)?;
        } else {
            let kernel = kernels::SoftmaxLossRow {
                partial,
                scores,
                share,
                labels,
                index,
                weights,
                images,
                pixels,
                k,
                scale,
            };
            self.launch((parts, n), 0, kernel)?;
        }
        let kernel = kernels::SoftmaxLosses { losses, partial, share, n, parts };
        self.launch(n.div_ceil(WARPS), 0, kernel)
    }
}
