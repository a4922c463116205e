//! The end of the stem: norm, ReLU and max-pool, which memory bounds.

use crate::base::Result;
use crate::device::ops::stem::StemOps;
use crate::device::ops::{Passed, StemBackward, StemForward, StemInfer, StemMaxima, StemSpec};
use crate::device::paper::Paper;
use crate::device::paper::launch::{Launch, Warps};
use crate::device::paper::norm::{REDUCE_RELU, ROW, warps};

const POOL: Warps = warps(97.3, 43.0, 56.6, 9.9);
const POOL_KEEP: Warps = warps(166.9, 115.2, 67.5, 11.5);
const INFER: Warps = warps(76.9, 41.9, 56.6, 9.9);
const BACKWARD: Warps = warps(141.2, 78.7, 68.7, 14.0);

impl Paper {
    /// A sweep over x, of `x` bytes, that moves `bytes` in all; windows overlap, so that half of x
    /// comes from the L2 cache again.
    fn windows(
        &mut self,
        kernel: &'static str,
        row: Warps,
        x: f64,
        bytes: f64,
        factor: f64,
    ) -> Result<()> {
        let launch = Launch::streams(kernel, row * (x / ROW), bytes);
        self.launch(Launch { l2: bytes + 0.5 * x, factor, latency: 0.0, ..launch })
    }
}

impl StemOps for Paper {
    fn plan_stem(&mut self, _: StemSpec) -> Result<usize> {
        Ok(0)
    }

    fn stem_forward(&mut self, a: Passed<StemForward>) -> Result<()> {
        let (x, z) = (a.x.bytes() as f64, a.z.bytes() as f64);
        self.norm_stats(x, a.spec().groups)?;
        match a.maxima {
            Some(StemMaxima { argmax, peak }) => {
                let bytes = x + z + (argmax.bytes() + peak.bytes()) as f64;
                self.windows("stem_pool", POOL_KEEP, x, bytes, 1.15)
            }
            None => self.windows("stem_pool", POOL, x, x + z, 1.15),
        }
    }

    fn stem_infer(&mut self, a: Passed<StemInfer>) -> Result<()> {
        let (x, z) = (a.x.bytes() as f64, a.z.bytes() as f64);
        self.windows("stem_infer", INFER, x, x + z, 1.15)
    }

    fn stem_backward(&mut self, a: Passed<StemBackward>) -> Result<()> {
        let (x, dz) = (a.x.bytes() as f64, a.dz.bytes() as f64);
        self.norm_sums(REDUCE_RELU, dz, 2.0 * dz)?;
        self.finalize("norm_backward_finalize", a.spec().groups)?;
        let bytes = 2.0 * x + dz + a.maxima.argmax.bytes() as f64;
        self.windows("stem_backward_apply", BACKWARD, x, bytes, 1.2)
    }
}
