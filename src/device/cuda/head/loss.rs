//! Cross-entropy against two classifiers and its gradient down to the laterals.
//!
//! Scratch behind o3: Σ w[y] (n, 2) | shares (views, 2) | losses of tiles (n·tiles, 2) | dF of warped images (n, h, w, d).

use super::{HeadPlan, THREADS, TILE_BYTES, WARPS, aligned};
use crate::base::{Error, Result};
use crate::device::cuda::context::{Arg, Cuda, Grid, Kernel};
use crate::device::ops::{HeadInput, LossInput, Merge};
use crate::device::{Activation, Slot};

#[derive(Clone)]
pub(super) struct Kernels {
    weigh: Kernel,
    shares: Kernel,
    loss: Kernel,
    losses: Kernel,
    unwarp: Kernel,
    down: Kernel,
}

impl<A: Activation> Cuda<A> {
    pub(super) fn plan_head_loss(&mut self) -> Result<Kernels> {
        let kernels = Kernels {
            weigh: self.kernel("head_weigh")?,
            shares: self.kernel("head_shares")?,
            loss: self.kernel("head_loss")?,
            losses: self.kernel("head_losses")?,
            unwarp: self.kernel("head_unwarp")?,
            down: self.kernel("head_down")?,
        };
        self.allow_shared(kernels.loss, TILE_BYTES)?;
        Ok(kernels)
    }
}

impl HeadPlan {
    /// Bytes where the parts of the scratch begin, and where the last ends.
    fn loss_parts(&self, act: usize) -> [usize; 5] {
        let pairs = |n: usize| aligned(2 * n * 4);
        let weights = self.o3;
        let shares = weights + pairs(self.spec.n);
        let partial = shares + pairs(self.spec.n);
        let warped = partial + pairs(self.spec.n * self.tiles());
        [weights, shares, partial, warped, warped + self.spec.lateral_len(0) * act]
    }

    pub(super) fn loss_scratch(&self, act: usize) -> usize {
        self.loss_parts(act)[4]
    }
}

pub(super) fn head_loss<A: Activation>(
    dev: &mut Cuda<A>,
    plan: &HeadPlan,
    losses: Slot<f32>,
    dlaterals: [Slot<A>; 4],
    input: HeadInput<A>,
    loss: LossInput,
) -> Result<()> {
    let (spec, kernels) = (&plan.spec, &plan.loss);
    let images: Arg = spec.check_loss(losses, dlaterals, &input, &loss)?.into();
    let &[t0, t1] = loss.targets else {
        return Err(Error::input("a loss against other than two targets on CUDA", "use --device cpu"));
    };
    let targets = [t0, t1];
    let (n, tiles, pixels) = (spec.n, plan.tiles(), spec.pixels());
    let [weights, shares, partial, warped, _] = plan.loss_parts(size_of::<A>());
    let weights = dev.at(dev.scratch::<f32>(weights, 2 * n));
    let shares = dev.at(dev.scratch::<f32>(shares, 2 * n));
    let partial = dev.at(dev.scratch::<f32>(partial, 2 * n * tiles));
    let dwarped = dev.at(dev.scratch::<A>(warped, spec.lateral_len(0)));
    let [dp2, dp3, dp4, dp5] = dlaterals.map(|d| dev.at(d));
    let ([y0, y1], [m0, m1]) = (targets.map(|t| dev.at(t.labels)), targets.map(|t| dev.at(t.weights)));
    let ([w0, w1], [b0, b1]) = (targets.map(|t| dev.at(t.classifier.w)), targets.map(|t| dev.at(t.classifier.b)));
    let ([k0, k1], index) = (targets.map(|t| Arg::from(t.classifier.k)), dev.at(loss.index));
    let [h, w, view] = [spec.h, spec.w, loss.view].map(Arg::from);

    let args = [weights, y0, y1, index, m0, m1, images, pixels.into(), k0, k1];
    dev.launch(kernels.weigh, Grid::new((n, 2), THREADS), &args)?;
    dev.launch(kernels.shares, Grid::new(1, 32), &[shares, weights, n.into(), view])?;

    let [o3, p2, p3, p4, p5, crops] = dev.merge(plan, &input)?;
    let args = [
        partial,
        dp2,
        dwarped,
        shares,
        o3,
        p2,
        p3,
        p4,
        p5,
        crops,
        index,
        y0,
        y1,
        m0,
        m1,
        w0,
        w1,
        b0,
        b1,
        images,
        view,
        h,
        w,
        k0,
        k1,
        t0.scale.into(),
    ];
    dev.launch(kernels.loss, plan.grid().shared(TILE_BYTES), &args)?;
    let args = [dev.at(losses), partial, shares, n.into(), tiles.into(), view];
    dev.launch(kernels.losses, Grid::new(n.div_ceil(WARPS), THREADS), &args)?;
    if input.crops.is_some() {
        let grid = Grid::new((pixels.div_ceil(WARPS), n), THREADS);
        dev.launch(kernels.unwarp, grid, &[dp2, dwarped, crops, h, w])?;
    }

    let gradients = [dp2, dp3, dp4, dp5];
    for level in 1..4 {
        // Where an up-sampled map went, its gradient comes from.
        let fine = if spec.merge == Merge::Direct { 0 } else { level - 1 };
        let ((h, w), (fine_h, fine_w)) = (spec.sizes()[level], spec.sizes()[fine]);
        let grid = Grid::new(((h * w).div_ceil(WARPS), n), THREADS);
        let args = [gradients[level], gradients[fine], h.into(), w.into(), fine_h.into(), fine_w.into()];
        dev.launch(kernels.down, grid, &args)?;
    }
    Ok(())
}
