//! The end of the stem: norm, ReLU and max-pool, which memory bounds.

use crate::base::Result;
use crate::device::ops::stem::StemOps;
use crate::device::ops::{Passed, StemBackward, StemForward, StemInfer, StemMaxima, StemSpec};
use crate::device::paper::Paper;
use crate::device::paper::launch::{Launch, Warps};
use crate::device::paper::norm::{REDUCE_RELU, ROW, warps};

const POOL: Warps = warps(56.1, 29.5, 35.5, 7.4);
const POOL_KEEP: Warps = warps(105.3, 70.4, 52.0, 8.9);
const INFER: Warps = warps(43.6, 29.6, 22.3, 7.4);
const BACKWARD: Warps = warps(122.4, 70.6, 62.4, 11.2);

/// Rows of windows of a strip, which a thread walks down. Of x a strip reads its own two rows of
/// pixels for each, and one more.
const STRIP: f64 = 8.0;

impl Paper {
    /// A sweep over x, of `x` bytes, that moves `bytes` in all, and `again` bytes a second time
    /// from the L2 cache.
    fn windows(
        &mut self,
        kernel: &'static str,
        row: Warps,
        x: f64,
        (bytes, again): (f64, f64),
        factor: f64,
    ) -> Result<()> {
        let launch = Launch::streams(kernel, row * (x / ROW), bytes);
        self.launch(Launch { l2: bytes + again, factor, latency: 0.0, ..launch })
    }

    /// A pool of x, as `windows`.
    fn pool(&mut self, kernel: &'static str, row: Warps, x: f64, bytes: f64) -> Result<()> {
        self.windows(kernel, row, x, (bytes, x / (2.0 * STRIP)), 1.15)
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
                self.pool("stem_pool", POOL_KEEP, x, bytes)
            }
            None => self.pool("stem_pool", POOL, x, x + z),
        }
    }

    fn stem_infer(&mut self, a: Passed<StemInfer>) -> Result<()> {
        let (x, z) = (a.x.bytes() as f64, a.z.bytes() as f64);
        self.pool("stem_infer", INFER, x, x + z)
    }

    fn stem_backward(&mut self, a: Passed<StemBackward>) -> Result<()> {
        let (x, dz) = (a.x.bytes() as f64, a.dz.bytes() as f64);
        self.norm_sums(REDUCE_RELU, dz, 2.0 * dz)?;
        self.finalize("norm_backward_finalize", a.spec().groups)?;
        // A strip reads the windows below it, too.
        let windows = dz + a.maxima.argmax.bytes() as f64;
        let bytes = (2.0 * x + windows, windows / STRIP);
        self.windows("stem_backward_apply", BACKWARD, x, bytes, 1.2)
    }
}
