//! Launchers of `cuda/head_gradient.cu`: from the gradient of F down to the laterals.

use crate::base::Result;
use crate::device::cuda::Cuda;
use crate::device::cuda::kernels;
use crate::device::cuda::kernels::consts::head::WARPS;
use crate::device::ops::{Crop, HeadSpec};
use crate::device::{Act, Slot};

impl Cuda {
    /// The gradient of F stands in `dwarped` for images that are warped, else in `dlaterals[0]`.
    pub(super) fn head_gradient(
        &mut self,
        spec: &HeadSpec,
        dlaterals: [Slot<Act>; 4],
        dwarped: Slot<Act>,
        crops: Option<Slot<Crop>>,
    ) -> Result<()> {
        if let Some(crops) = crops {
            let &HeadSpec { n, h, w, .. } = spec;
            let kernel = kernels::HeadUnwarp { dp2: dlaterals[0], dwarped, crops, h, w };
            self.launch((spec.pixels().div_ceil(WARPS), n), 0, kernel)?;
        }
        for level in 1..spec.levels {
            // Where an up-sampled map went, its gradient comes from.
            let fine = spec.onto(level);
            let ((h, w), (fine_h, fine_w)) = (spec.sizes()[level], spec.sizes()[fine]);
            let (dcoarse, dfine) = (dlaterals[level], dlaterals[fine]);
            let kernel = kernels::HeadDown { dcoarse, dfine, h, w, fine_h, fine_w };
            self.launch(((h * w).div_ceil(WARPS), spec.n), 0, kernel)?;
        }
        Ok(())
    }
}
