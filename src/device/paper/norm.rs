//! Batch norm: two sweeps each way, which memory bounds.

use crate::base::Result;
use crate::device::ops::norm::NormOps;
use crate::device::ops::{NormBackward, NormFold, NormForward, NormGate, NormSpec, Passed};
use crate::device::paper::Paper;
use crate::device::paper::gpu::kept;
use crate::device::paper::launch::{Launch, Warps};

/// Bytes of a warp's vectors, the unit of the counts below.
pub(super) const ROW: f64 = 512.0;

const STATS: Warps = warps(45.2, 12.4, 29.4, 4.5);
const APPLY: Warps = warps(58.8, 26.0, 27.0, 7.9);
const APPLY_RESIDUAL: Warps = warps(74.7, 33.9, 38.5, 11.9);
const REDUCE: Warps = warps(72.4, 22.6, 40.7, 9.0);
pub(super) const REDUCE_RELU: Warps = warps(99.5, 46.4, 47.5, 12.4);
const REDUCE_RESIDUAL: Warps = warps(108.6, 52.0, 47.5, 16.4);
const BACKWARD: Warps = warps(65.6, 24.9, 38.5, 11.9);
const BACKWARD_RELU: Warps = warps(99.5, 47.5, 54.3, 15.8);

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

    /// A small kernel that turns the sums of all blocks into statistics, group after group.
    pub(super) fn finalize(&mut self, kernel: &'static str, groups: usize) -> Result<()> {
        self.launch(Launch::waits(kernel, 1.2e-6 + 1.1e-6 * groups as f64))
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

    fn norm_forward(&mut self, a: Passed<NormForward>) -> Result<()> {
        let bytes = a.x.bytes() as f64;
        self.norm_stats(bytes, a.spec().groups)?;
        match a.residual {
            Some(_) => self.sweep("norm_apply", APPLY_RESIDUAL, bytes, 3.0 * bytes),
            None => self.sweep("norm_apply", APPLY, bytes, 2.0 * bytes),
        }
    }

    fn norm_backward(&mut self, a: Passed<NormBackward>) -> Result<()> {
        let bytes = a.x.bytes() as f64;
        // Tensors that the first sweep moves; the second reads two and writes one.
        let (reduce, moved, apply) = match a.gate {
            NormGate::Open => (REDUCE, 2.0, BACKWARD),
            NormGate::Beta(_) => (REDUCE_RELU, 2.0, BACKWARD_RELU),
            NormGate::Output(_) => (REDUCE_RESIDUAL, 4.0, BACKWARD),
        };
        self.norm_sums(reduce, bytes, moved * bytes)?;
        self.finalize("norm_backward_finalize", a.spec().groups)?;
        self.sweep("norm_backward_apply", apply, bytes, 3.0 * bytes)
    }

    fn norm_fold(&mut self, a: Passed<NormFold>) -> Result<()> {
        self.launch(Launch::streams("norm_fold", Warps::default(), 2.0 * a.w.bytes() as f64))
    }
}
