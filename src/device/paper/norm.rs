//! Batch norm: two sweeps each way, which memory bounds.

use crate::base::Result;
use crate::device::ops::norm::NormOps;
use crate::device::ops::{
    NormBackward, NormFold, NormForward, NormGate, NormSpec, NormStatistics, Passed, Residual,
    ResidualGrad,
};
use crate::device::paper::Paper;
use crate::device::paper::gpu::kept;
use crate::device::paper::launch::{Launch, Warps};

/// Bytes of a warp's vectors, the unit of the counts below.
pub(super) const ROW: f64 = 512.0;

const STATS: Warps = warps(45.2, 12.4, 29.4, 4.5);
const APPLY: Warps = warps(50.1, 21.3, 33.5, 8.0);
const APPLY_MAP: Warps = warps(68.8, 33.0, 45.0, 12.0);
const APPLY_MAP_MASK: Warps = warps(92.8, 55.0, 47.0, 13.0);
const APPLY_NORM: Warps = warps(73.5, 32.3, 47.0, 12.0);
const APPLY_NORM_MASK: Warps = warps(100.0, 55.3, 52.0, 13.0);
const REDUCE: Warps = warps(64.0, 23.5, 44.0, 8.5);
pub(super) const REDUCE_RELU: Warps = warps(90.5, 40.5, 55.0, 8.5);
const REDUCE_RESIDUAL: Warps = warps(86.0, 42.5, 48.0, 13.5);
const REDUCE_TWO: Warps = warps(105.0, 41.5, 73.0, 14.0);
const BACKWARD: Warps = warps(56.5, 26.0, 35.0, 12.0);
const BACKWARD_RELU: Warps = warps(79.5, 40.5, 44.0, 12.0);
const BACKWARD_TWO: Warps = warps(104.0, 51.0, 59.5, 21.0);

/// Instructions without products of tensor cores.
pub(super) const fn warps(issue: f64, alu: f64, fma: f64, lsu: f64) -> Warps {
    Warps { issue, alu, fma, lsu, mma: 0.0 }
}

impl Paper {
    /// The statistics of x, of `bytes` bytes, which the convolution before has just written.
    pub(super) fn norm_stats(&mut self, bytes: f64, groups: usize) -> Result<()> {
        let stats = Launch::streams("norm_stats", STATS * (bytes / ROW), bytes);
        self.launch(Launch { dram: bytes * (1.0 - kept(bytes)), ..stats })?;
        self.finalize("norm_finalize", groups)
    }

    /// A small kernel that turns the sums of all blocks into statistics. It starts, and for every
    /// two groups waits once for loads, two barriers and some forty additions, divisions and a root
    /// in f64, one behind the other.
    pub(super) fn finalize(&mut self, kernel: &'static str, groups: usize) -> Result<()> {
        let pairs = groups.div_ceil(2) as f64;
        self.launch(Launch::waits(kernel, 1.2e-6 + 1.2e-6 * pairs))
    }

    /// The sums of a backward over maps of `map` bytes each, of which it moves `bytes`.
    pub(super) fn norm_sums(&mut self, row: Warps, map: f64, bytes: f64) -> Result<()> {
        self.sweep("norm_backward_reduce", row, map, bytes)
    }

    /// A kernel that moves `bytes` bytes in all, of which one tensor of `tensor` bytes was used by
    /// the kernel before.
    fn sweep(&mut self, kernel: &'static str, row: Warps, tensor: f64, bytes: f64) -> Result<()> {
        // A small tensor leaves room for what else the kernel before wrote.
        let found = if tensor > 30e6 { tensor * kept(tensor) } else { 0.6 * bytes * kept(tensor) };
        let launch = Launch::streams(kernel, row * (tensor / ROW), bytes);
        self.launch(Launch { dram: bytes - found, ..launch })
    }
}

impl NormOps for Paper {
    fn plan_norm(&mut self, _: NormSpec) -> Result<usize> {
        Ok(0)
    }

    fn norm_statistics(&mut self, a: Passed<NormStatistics>) -> Result<()> {
        self.norm_stats(a.x.bytes() as f64, a.spec().groups)
    }

    fn norm_forward(&mut self, a: Passed<NormForward>) -> Result<()> {
        let bytes = a.x.bytes() as f64;
        self.norm_stats(bytes, a.spec().groups)?;
        let mask = a.mask.map_or(0, |mask| mask.bytes()) as f64;
        let (row, moved) = match (a.residual, a.mask) {
            (None, _) => (APPLY, 2.0),
            (Some(Residual::Map(_)), None) => (APPLY_MAP, 3.0),
            (Some(Residual::Map(_)), Some(_)) => (APPLY_MAP_MASK, 3.0),
            (Some(Residual::Norm(_)), None) => (APPLY_NORM, 3.0),
            (Some(Residual::Norm(_)), Some(_)) => (APPLY_NORM_MASK, 3.0),
        };
        self.sweep("norm_apply", row, bytes, moved * bytes + mask)
    }

    fn norm_backward(&mut self, a: Passed<NormBackward>) -> Result<()> {
        let bytes = a.x.bytes() as f64;
        let mask = a.gate.mask().map_or(0, |mask| mask.bytes()) as f64;
        let finalize =
            |paper: &mut Paper| paper.finalize("norm_backward_finalize", a.spec().groups);
        if let Some(ResidualGrad::Norm(_)) = a.dresidual {
            // dz and both x; and both gradients.
            let (reduce, apply) = (3.0 * bytes + mask, 5.0 * bytes + mask);
            self.sweep("norm_backward_reduce_two", REDUCE_TWO, bytes, reduce)?;
            finalize(self)?;
            finalize(self)?;
            return self.sweep("norm_backward_apply_two", BACKWARD_TWO, bytes, apply);
        }
        // Maps that the first sweep moves; the second reads two and writes one.
        let (reduce, moved, apply) = match a.gate {
            NormGate::Open => (REDUCE, 2.0, BACKWARD),
            NormGate::Beta(_) => (REDUCE_RELU, 2.0, BACKWARD_RELU),
            NormGate::Mask(_) => (REDUCE_RESIDUAL, 3.0, BACKWARD),
        };
        self.norm_sums(reduce, bytes, moved * bytes + mask)?;
        finalize(self)?;
        self.sweep("norm_backward_apply", apply, bytes, 3.0 * bytes)
    }

    fn norm_fold(&mut self, a: Passed<NormFold>) -> Result<()> {
        self.launch(Launch::streams("norm_fold", Warps::default(), 2.0 * a.w.bytes() as f64))
    }
}
