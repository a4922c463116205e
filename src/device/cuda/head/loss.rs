//! The body of the head's loss: cross-entropy against the targets and its gradient down to the
//! laterals.
//!
//! Scratch behind what features are made with: Σ w[y] (n, targets) | shares (views, targets) |
//! losses of each warp's pixels (n·tiles·WARPS, targets) | dF of warped images (n, h, w, d).

use super::{BLOCKS, aligned, merge_bytes, tiles};
use crate::base::Result;
use crate::device::cuda::Cuda;
use crate::device::cuda::kernels::consts::head_loss::{
    CHUNK, LOSS_BYTES, MOST_TARGETS, SLOTS, WARPS,
};
use crate::device::cuda::kernels::{self, Target, Targets};
use crate::device::ops::{HeadLoss, HeadSpec, Passed, head};

const _: () = assert!(MOST_TARGETS == head::MOST_TARGETS, "the kernels take as many targets");

/// Bytes where the parts of the scratch begin, and where the last ends; `act` bytes an activation.
fn parts(spec: &HeadSpec, act: usize) -> [usize; 5] {
    let numbers = |n: usize| aligned(MOST_TARGETS * n * 4);
    let weights = merge_bytes(spec);
    let shares = weights + numbers(spec.n);
    let partial = shares + numbers(spec.n);
    let warped = partial + numbers(spec.n * tiles(spec) * WARPS);
    [weights, shares, partial, warped, warped + spec.lateral_len(0) * act]
}

pub(super) fn scratch(spec: &HeadSpec, act: usize) -> usize {
    parts(spec, act)[4]
}

/// The targets as kernels take them; places behind the last repeat the first, and are not read.
fn targets(a: &Passed<HeadLoss>) -> Targets {
    let target = |i: usize| {
        let target = a.targets.get(i).unwrap_or(&a.targets[0]);
        Target {
            w: target.classifier.w,
            b: target.classifier.b,
            weights: target.weights,
            labels: target.labels,
            k: target.classifier.k,
            scale: target.scale,
        }
    };
    Targets {
        at: std::array::from_fn(target),
        index: a.index,
        count: a.targets.len(),
        images: a.images(a.spec()),
        view: a.view,
        pixels: a.spec().pixels(),
    }
}

impl Cuda {
    pub(super) fn loss(&mut self, a: Passed<HeadLoss>) -> Result<()> {
        let (spec, targets, n) = (a.spec(), targets(&a), a.spec().n);
        let tile_parts = tiles(spec) * WARPS;
        let (count, view) = (targets.count, targets.view);
        let [weights, shares, partial, warped, _] = parts(spec, self.dtype.bytes());
        let weights = self.scratch(weights, count * n)?;
        let shares = self.scratch(shares, count * n)?;
        let partial = self.scratch(partial, count * n * tile_parts)?;
        let dwarped = self.scratch_acts(warped, spec.lateral_len(0))?;

        self.launch((n, count), 0, kernels::HeadWeigh { partial: weights, targets })?;
        let kernel = kernels::HeadShares { shares, partial: weights, n, view, targets: count };
        self.launch(1, 0, kernel)?;
        let laterals = self.merge(spec, &a.input, false)?;
        let dp2 = a.dlaterals[0];
        let blocks = BLOCKS.min(n * tiles(spec));
        if count == SLOTS && a.targets.iter().all(|target| target.classifier.k <= CHUNK) {
            let kernel = kernels::HeadLoss { partial, dp2, dwarped, shares, laterals, targets, n };
            self.launch(blocks, LOSS_BYTES, kernel)?;
        } else {
            let kernel =
                kernels::HeadLossAny { partial, dp2, dwarped, shares, laterals, targets, n };
            self.launch(blocks, LOSS_BYTES, kernel)?;
        }
        let losses = a.losses;
        let kernel = kernels::HeadLosses {
            losses,
            partial,
            shares,
            n,
            parts: tile_parts,
            view,
            targets: count,
        };
        self.launch(n.div_ceil(WARPS), 0, kernel)?;
        self.head_gradient(spec, a.dlaterals, dwarped, a.input.crops)
    }
}
