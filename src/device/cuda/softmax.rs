//! Launchers of softmax: few classes through tiles in shared memory, many with a warp a row.
//!
//! Scratch of the loss: Σ w[y] (n) | its inverse over the batch (1) | losses of blocks (n, blocks
//! an image).

use crate::base::{Error, Result};
use crate::device::cuda::context::{Cuda, Grid, Kernel};
use crate::device::ops::{Softmax, SoftmaxLabels, SoftmaxSpec, want};
use crate::device::{Activation, Slot};

const THREADS: u32 = 128;
/// The most classes of which a tile holds whole rows.
const NARROW: usize = 64;
/// Rows of a block: a thread's each, or eight of each warp.
const TILE_ROWS: usize = THREADS as usize;
const WARP_ROWS: usize = 32;
const WARPS: usize = THREADS as usize / 32;

/// Bytes of a tile of k classes.
fn tile(k: usize) -> usize {
    TILE_ROWS * (k | 1) * size_of::<f32>()
}

#[derive(Clone, Copy, Debug)]
pub struct SoftmaxPlan {
    spec: SoftmaxSpec,
    forward: Kernel,
    backward: Kernel,
    loss: Kernel,
    weigh: Kernel,
    share: Kernel,
    losses: Kernel,
}

impl SoftmaxPlan {
    /// Rows that a block has.
    fn block(&self) -> usize {
        if self.spec.k <= NARROW { TILE_ROWS } else { WARP_ROWS }
    }

    /// Bytes of shared memory for `tiles` tiles.
    fn shared(&self, tiles: usize) -> usize {
        if self.spec.k <= NARROW { tiles * tile(self.spec.k) } else { 0 }
    }

    /// Blocks that an image's loss takes.
    fn parts(&self) -> usize {
        self.spec.pixels.div_ceil(self.block())
    }

    /// Bytes where the parts of the scratch begin, and where the last ends.
    fn scratch(&self) -> [usize; 4] {
        let share = (self.spec.n * size_of::<f32>()).next_multiple_of(64);
        let partial = share + 64;
        [0, share, partial, partial + self.spec.n * self.parts() * size_of::<f32>()]
    }
}

impl<A: Activation> Softmax for Cuda<A> {
    type SoftmaxPlan = SoftmaxPlan;

    fn plan_softmax(&mut self, spec: SoftmaxSpec) -> Result<SoftmaxPlan> {
        spec.check()?;
        if spec.n > 0xffff {
            let what = format!("{spec:?} is larger than the GPU's kernels take");
            return Err(Error::input(what, "use batches of at most 65535 images"));
        }
        let [forward, backward, loss] = if spec.k <= NARROW {
            let backward = self.kernel("softmax_backward_tile")?;
            // The most that any plan needs, so that the order of plans does not matter.
            self.allow_shared(backward, 2 * tile(NARROW))?;
            [self.kernel("softmax_forward_tile")?, backward, self.kernel("softmax_loss_tile")?]
        } else {
            let backward = self.kernel("softmax_backward_row")?;
            [self.kernel("softmax_forward_row")?, backward, self.kernel("softmax_loss_row")?]
        };
        let weigh = self.kernel("softmax_weigh")?;
        let share = self.kernel("softmax_share")?;
        let losses = self.kernel("softmax_losses")?;
        let plan = SoftmaxPlan { spec, forward, backward, loss, weigh, share, losses };
        self.ask_scratch(plan.scratch()[3]);
        Ok(plan)
    }

    fn softmax_forward(&mut self, plan: &SoftmaxPlan, x: Slot<f32>) -> Result<()> {
        let spec = plan.spec;
        want("softmax_forward", "x", x, spec.len())?;
        let grid = Grid::new(spec.rows().div_ceil(plan.block()), THREADS).shared(plan.shared(1));
        self.launch(plan.forward, grid, &[self.at(x), spec.rows().into(), spec.k.into()])
    }

    fn softmax_backward(&mut self, plan: &SoftmaxPlan, dp: Slot<f32>, p: Slot<f32>) -> Result<()> {
        const OP: &str = "softmax_backward";
        let spec = plan.spec;
        want(OP, "dp", dp, spec.len())?;
        want(OP, "p", p, spec.len())?;
        let grid = Grid::new(spec.rows().div_ceil(plan.block()), THREADS).shared(plan.shared(2));
        self.launch(
            plan.backward,
            grid,
            &[self.at(dp), self.at(p), spec.rows().into(), spec.k.into()],
        )
    }

    fn softmax_loss(
        &mut self,
        plan: &SoftmaxPlan,
        losses: Slot<f32>,
        scores: Slot<f32>,
        labels: SoftmaxLabels,
        scale: f32,
    ) -> Result<()> {
        let SoftmaxSpec { n, pixels, k } = plan.spec;
        let images = plan.spec.check_loss(losses, scores, labels)?;
        let (parts, [weighed, share, partial, _]) = (plan.parts(), plan.scratch());
        let weighed = self.at(self.scratch::<f32>(weighed, n)?);
        let share = self.at(self.scratch::<f32>(share, 1)?);
        let partial = self.at(self.scratch::<f32>(partial, n * parts)?);
        let (index, weights, labels) =
            (self.at(labels.index), self.at(labels.weights), self.at(labels.labels));
        let sizes = [images.into(), pixels.into(), k.into()];

        self.launch(
            plan.weigh,
            Grid::new(n, THREADS),
            &[&[weighed, labels, index, weights], &sizes[..]].concat(),
        )?;
        self.launch(plan.share, Grid::new(1usize, THREADS), &[share, weighed, n.into()])?;
        let args = [partial, self.at(scores), share, labels, index, weights];
        let grid = Grid::new((parts, n), THREADS).shared(plan.shared(1));
        self.launch(plan.loss, grid, &[&args, &sizes[..], &[scale.into()]].concat())?;
        let args = [self.at(losses), partial, share, n.into(), parts.into()];
        self.launch(plan.losses, Grid::new(n.div_ceil(WARPS), THREADS), &args)
    }
}
