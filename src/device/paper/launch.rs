//! What a launch asks of a GPU.

use std::ops::{Add, Mul};

/// Warp instructions by the unit that they keep busy.
///
/// The numbers of the kernels were counted in the loops that nvdisasm prints for sm_90a and bf16.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Warps {
    /// All of them.
    pub issue: f64,
    /// Integers, comparisons, selections and conversions.
    pub alu: f64,
    /// Floating-point additions and products, with integer products, which share their pipe.
    pub fma: f64,
    /// Cycles of the data path of shared memory and L1: one for each 128 bytes.
    pub lsu: f64,
    /// Products of tensor cores, 16×8×16 each.
    pub mma: f64,
}

impl Mul<f64> for Warps {
    type Output = Warps;

    fn mul(self, n: f64) -> Warps {
        let Warps { issue, alu, fma, lsu, mma } = self;
        Warps { issue: issue * n, alu: alu * n, fma: fma * n, lsu: lsu * n, mma: mma * n }
    }
}

impl Add for Warps {
    type Output = Warps;

    fn add(self, b: Warps) -> Warps {
        Warps {
            issue: self.issue + b.issue,
            alu: self.alu + b.alu,
            fma: self.fma + b.fma,
            lsu: self.lsu + b.lsu,
            mma: self.mma + b.mma,
        }
    }
}

/// One launch of a kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Launch {
    pub kernel: &'static str,
    pub warps: Warps,
    /// Bytes between memory and the L2 cache.
    pub dram: f64,
    /// Bytes between the L2 cache and the multiprocessors.
    pub l2: f64,
    /// What waiting that nothing hides costs, as a factor on the time of the busiest units: 1.12 of
    /// kernels that stream with full occupancy, to 1.45 of those with few warps and barriers.
    pub factor: f64,
    /// Seconds that no unit is busy for: chains of dependent loads, the last blocks of a grid.
    pub latency: f64,
}

impl Launch {
    /// A kernel that streams `bytes` bytes through every level of memory.
    pub fn streams(kernel: &'static str, warps: Warps, bytes: f64) -> Self {
        Launch { kernel, warps, dram: bytes, l2: bytes, factor: 1.12, latency: 1.5e-6 }
    }

    /// A kernel with little to do, which takes as long as its chain of loads.
    pub fn waits(kernel: &'static str, seconds: f64) -> Self {
        let none = Warps::default();
        Launch { kernel, warps: none, dram: 0.0, l2: 0.0, factor: 1.0, latency: seconds }
    }
}
