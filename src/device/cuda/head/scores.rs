//! Bodies of the head's scores: scores, what is predicted from them, and their gradients.
//!
//! Scratch behind what features are made with: scores of some images | or dF of warped images (n,
//! h, w, d) | or parts of dw and db.

use super::{BUDGET, Partials, aligned, grid, merge_bytes, tiles};
use crate::base::Result;
use crate::device::ALIGN;
use crate::device::cuda::Cuda;
use crate::device::cuda::kernels;
use crate::device::cuda::kernels::consts::head_scores::{D, PREDICTED, TILE_BYTES, WEIGHED};
use crate::device::ops::{
    Classifier, HeadPredict, HeadScores, HeadScoresBackward, HeadSpec, Passed,
};

/// Images whose scores are in the scratch at once, two views of one at least.
fn images_at_once(spec: &HeadSpec) -> usize {
    (BUDGET / (spec.pixels() * spec.k * 4)).clamp(spec.n.min(2), spec.n)
}

/// Number of blocks among which all tiles are divided when dw and db are summed. Classes beyond
/// [`WEIGHED`] get another set of as many blocks.
fn parts(spec: &HeadSpec, k: usize) -> usize {
    Partials::PARTS.div_ceil(k.div_ceil(WEIGHED)).min(spec.n * tiles(spec))
}

pub(super) fn scratch(spec: &HeadSpec, act: usize) -> usize {
    let scores = aligned(images_at_once(spec) * spec.pixels() * spec.k * 4) + ALIGN;
    // For classifiers of any size up to k: parts·k <= (PARTS/⌈k/WEIGHED⌉ + 1)·k.
    let rows = Partials::PARTS * WEIGHED + spec.k;
    let parts = aligned(rows * D * 4) + aligned(rows * 4);
    merge_bytes(spec) + scores.max(parts).max(spec.lateral_len(0) * act)
}

impl Cuda {
    pub(super) fn scores(&mut self, a: Passed<HeadScores>) -> Result<()> {
        let (spec, Classifier { w: cw, b: cb, k }) = (a.spec(), a.classifier);
        let laterals = self.merge(spec, &a.input, false)?;
        let kernel = kernels::HeadScores { out: a.scores, laterals, cw, cb, from: 0, k };
        self.launch(grid(spec), TILE_BYTES, kernel)
    }

    pub(super) fn scores_backward(&mut self, a: Passed<HeadScoresBackward>) -> Result<()> {
        let HeadScoresBackward { dlaterals, dw, db, dscores, input, classifier } = *a;
        let (spec, Classifier { w: cw, k, .. }, n) = (a.spec(), classifier, a.spec().n);
        let laterals = self.merge(spec, &input, false)?;
        let free = merge_bytes(spec);
        if let Some(dlaterals) = dlaterals {
            let (dp2, dwarped) = (dlaterals[0], self.scratch_acts(free, spec.lateral_len(0))?);
            let kernel = kernels::HeadScoresBackward { dp2, dwarped, dscores, laterals, cw, k };
            self.launch(grid(spec), TILE_BYTES, kernel)?;
            self.head_gradient(spec, dlaterals, dwarped, input.crops)?;
        }
        let parts = parts(spec, k);
        let partial = self.scratch(free, parts * k * D)?;
        let partial_bias = self.scratch(free + aligned(partial.bytes()), parts * k)?;
        let kernel = kernels::HeadScoresWeight { partial, partial_bias, dscores, laterals, n, k };
        self.launch((parts, k.div_ceil(WEIGHED)), TILE_BYTES, kernel)?;
        self.add_parts(dw, partial, parts, None)?;
        self.add_parts(db, partial_bias, parts, None)
    }

    pub(super) fn predict(&mut self, a: Passed<HeadPredict>) -> Result<()> {
        let (spec, Classifier { w: cw, b: cb, k }) = (a.spec(), a.classifier);
        let HeadPredict { pred, height: out_h, width: out_w, .. } = *a;
        let (views, &HeadSpec { h, w, .. }) = (a.views(spec), spec);
        let laterals = self.merge(spec, &a.input, false)?;
        let (total, most, map) = (spec.n / views, images_at_once(spec) / views, spec.pixels() * k);
        let free = merge_bytes(spec);
        // Floats from a view's scores to the other's.
        let to_other = aligned(most.min(total) * map * 4) / 4;
        for from in (0..total).step_by(most) {
            let images = most.min(total - from);
            for view in 0..views {
                let out = self.scratch(free + view * 4 * to_other, images * map)?;
                let from = view * total + from;
                let kernel = kernels::HeadScores { out, laterals, cw, cb, from, k };
                self.launch((tiles(spec), images), TILE_BYTES, kernel)?;
            }
            let apart = if views == 2 { to_other } else { 0 };
            let scores = self.scratch(free, images * map)?;
            let kernel = kernels::HeadPredict { pred, scores, apart, from, h, w, k, out_h, out_w };
            self.launch(((out_h * out_w).div_ceil(PREDICTED), images), 0, kernel)?;
        }
        Ok(())
    }
}
