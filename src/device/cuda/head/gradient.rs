//! Launchers of `cuda/head_gradient.cu`: from the gradient of F down to the laterals.

use super::{HeadPlan, THREADS, WARPS};
use crate::base::Result;
use crate::device::cuda::context::{Cuda, Grid, Kernel};
use crate::device::ops::{Crop, Merge};
use crate::device::{Activation, Slot};

#[derive(Clone)]
pub(super) struct Kernels {
    unwarp: Kernel,
    down: Kernel,
}

impl<A: Activation> Cuda<A> {
    pub(super) fn plan_head_gradient(&mut self) -> Result<Kernels> {
        Ok(Kernels { unwarp: self.kernel("head_unwarp")?, down: self.kernel("head_down")? })
    }
}

/// The gradient of F stands in `dwarped` for images that are warped, else in `dlaterals[0]`.
pub(super) fn to_laterals<A: Activation>(
    dev: &mut Cuda<A>,
    plan: &HeadPlan,
    dlaterals: [Slot<A>; 4],
    dwarped: Slot<A>,
    crops: Option<Slot<Crop>>,
) -> Result<()> {
    let (spec, kernels, gradients) = (&plan.spec, &plan.gradient, dlaterals.map(|d| dev.at(d)));
    if let Some(crops) = crops {
        let grid = Grid::new((spec.pixels().div_ceil(WARPS), spec.n), THREADS);
        let args = [gradients[0], dev.at(dwarped), dev.at(crops), spec.h.into(), spec.w.into()];
        dev.launch(kernels.unwarp, grid, &args)?;
    }
    for level in 1..spec.levels {
        // Where an up-sampled map went, its gradient comes from.
        let fine = if spec.merge == Merge::Direct { 0 } else { level - 1 };
        let ((h, w), (fine_h, fine_w)) = (spec.sizes()[level], spec.sizes()[fine]);
        let grid = Grid::new(((h * w).div_ceil(WARPS), spec.n), THREADS);
        let args =
            [gradients[level], gradients[fine], h.into(), w.into(), fine_h.into(), fine_w.into()];
        dev.launch(kernels.down, grid, &args)?;
    }
    Ok(())
}
