//! The end of the stem: norm, ReLU and max-pool, which memory bounds.

use crate::base::Result;
use crate::device::ops::stem::StemOps;
use crate::device::ops::{Passed, StemBackward, StemForward, StemInfer, StemSpec};
use crate::device::paper::Paper;
use crate::device::paper::launch::{Launch, Warps};
use crate::device::paper::norm::{ROW, warps};

const POOL: Warps = warps(97.3, 43.0, 56.6, 9.9);
const POOL_ARGMAX: Warps = warps(138.6, 80.9, 62.2, 10.5);
const INFER: Warps = warps(76.9, 41.9, 56.6, 9.9);
const REDUCE: Warps = warps(155.0, 81.2, 70.0, 10.0);
const BACKWARD: Warps = warps(167.4, 89.9, 62.8, 14.0);

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
        match a.argmax {
            Some(argmax) => {
                let bytes = x + z + argmax.bytes() as f64;
                self.windows("stem_pool", POOL_ARGMAX, x, bytes, 1.15)
            }
            None => self.windows("stem_pool", POOL, x, x + z, 1.15),
        }
    }

    fn stem_infer(&mut self, a: Passed<StemInfer>) -> Result<()> {
        let (x, z) = (a.x.bytes() as f64, a.z.bytes() as f64);
        self.windows("stem_infer", INFER, x, x + z, 1.15)
    }

    fn stem_backward(&mut self, a: Passed<StemBackward>) -> Result<()> {
        let (x, from) = (a.x.bytes() as f64, (a.dz.bytes() + a.argmax.bytes()) as f64);
        self.windows("stem_backward_reduce", REDUCE, x, x + from, 1.2)?;
        self.finalize("norm_backward_finalize", a.spec().groups)?;
        self.windows("stem_backward_apply", BACKWARD, x, 2.0 * x + from, 1.2)
    }
}
