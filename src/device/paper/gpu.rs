//! The GPUs that can be modelled, and the seconds that a launch takes on one.

use crate::device::paper::launch::Launch;

/// The numbers of a GPU that the model needs.
#[derive(Clone, Copy, Debug)]
pub struct Gpu {
    /// The name for reports.
    pub name: &'static str,
    /// Bytes per second of a copy, read and written, as measured on such machines. Kernels reach
    /// [`REACHED`] of it.
    pub copy: f64,
    /// Bytes of memory that are free when a process starts.
    pub memory: usize,
}

/// H100 SXM with HBM3.
pub const H100: Gpu = Gpu { name: "H100", copy: 3.0e12, memory: 78 << 30 };
/// H200 SXM: the H100's multiprocessors with more and faster memory.
pub const H200: Gpu = Gpu { name: "H200", copy: 4.3e12, memory: 139 << 30 };

/// Multiprocessors, and cycles per second while all of them are busy (data sheet; a card that stays
/// cool runs at up to 1.98e9).
const MULTIPROCESSORS: f64 = 132.0;
const CLOCK: f64 = 1.755e9;
/// Multiply-adds in bf16 that the tensor cores reach in large products, in FLOP/s.
pub(super) const TENSOR: f64 = 790e12;
/// Bytes per second from the L2 cache, by microbenchmarks of others.
const L2: f64 = 5.5e12;
/// The share of a copy's bandwidth that a kernel reaches.
const REACHED: f64 = 0.93;
/// Bytes of what was just written that the L2 cache still holds for the next kernel: half of it,
/// since each of its two halves keeps its own copy.
const KEPT: f64 = 25e6;
/// Bytes per second from the host's memory.
pub(super) const HOST: f64 = 55e9;
/// Seconds between two kernels of a graph, and of a wait of the host until its next launch.
pub(super) const GAP: f64 = 1.2e-6;
pub(super) const WAIT: f64 = 60e-6;

/// The share of a tensor of `bytes` bytes that the L2 cache holds after it was written or read.
pub(super) fn kept(bytes: f64) -> f64 {
    (KEPT / bytes).min(1.0)
}

impl Gpu {
    /// FLOP/s of large products in 16 bits.
    pub fn products(&self) -> f64 {
        TENSOR
    }

    /// Seconds of a launch, and what bounds it.
    ///
    /// Every unit that the launch keeps busy is a lower bound. Bounds of like size get in each
    /// other's way, so that the sum of their fourth powers is taken and not the largest; latencies
    /// that nothing hides are the launch's own factor and constant.
    pub(super) fn seconds(&self, launch: &Launch) -> (f64, &'static str) {
        let Launch { warps: w, dram, l2, .. } = launch;
        let cycles = MULTIPROCESSORS * CLOCK;
        // Warp instructions in a cycle of a multiprocessor: 4 are issued, 4 go to the FMA pipe, 2
        // to the ALU.
        let bounds = [
            ("issue", w.issue / 4.0 / cycles),
            ("ALU", w.alu / 2.0 / cycles),
            ("FMA", w.fma / 4.0 / cycles),
            ("shared memory and L1", w.lsu / cycles),
            ("tensor cores", w.mma * 1.6 / cycles),
            ("memory", dram / (self.copy * REACHED)),
            ("L2", l2 / L2),
        ];
        let all = bounds.iter().map(|(_, s)| s.powi(4)).sum::<f64>().powf(0.25);
        let busy = all * launch.factor;
        let largest = bounds.iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("there are bounds");
        let bound = if busy > launch.latency { largest.0 } else { "latency" };
        (busy + launch.latency, bound)
    }
}
