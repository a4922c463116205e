//! Launcher of `cuda/head_gradient.cu`: from the gradient of F down to the laterals.

use crate::base::Result;
use crate::device::cuda::Cuda;
use crate::device::cuda::kernels::consts::head_gradient::{
    COLUMNS, LEVELS, LINE, LINES, PAIRS, SLICES, STRIP,
};
use crate::device::cuda::kernels::{self, Gradients};
use crate::device::ops::{Crop, HeadSpec, Merge};
use crate::device::{Act, Slot};

/// Dynamic shared memory of a block: lines and weights; `act` bytes an activation.
pub(super) fn shared(act: usize) -> usize {
    LINES * LINE * act + 2 * PAIRS * COLUMNS * 4
}

impl Cuda {
    /// The gradient of F stands in `dwarped` for images that are warped, else in `dlaterals[0]`.
    pub(super) fn head_gradient(
        &mut self,
        spec: &HeadSpec,
        dlaterals: [Slot<Act>; LEVELS],
        dwarped: Slot<Act>,
        crops: Option<Slot<Crop>>,
    ) -> Result<()> {
        if spec.levels == 1 && crops.is_none() {
            return Ok(());
        }
        // A cascade goes a level at a time: where an up-sampled map went, its gradient comes from.
        let (passes, levels) = match spec.merge {
            Merge::Direct => (1, spec.levels),
            Merge::Cascade => (spec.levels - 1, 2),
        };
        for fine in 0..passes {
            let p = std::array::from_fn(|level| dlaterals[(fine + level).min(LEVELS - 1)]);
            let ((h, w), crops) = (spec.sizes()[fine], crops.filter(|_| fine == 0));
            let strips = if w <= COLUMNS { 1 } else { w.div_ceil(STRIP) };
            let gradients = Gradients { p, warped: dwarped, h, w, levels };
            let kernel = kernels::HeadAdjoint { gradients, crops };
            self.launch((strips * SLICES, spec.n), shared(self.dtype.bytes()), kernel)?;
        }
        Ok(())
    }
}
