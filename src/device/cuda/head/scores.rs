//! Launchers of `cuda/head_scores.cu`: scores, what is predicted from them, and their gradients.
//!
//! Scratch behind o3: scores of some images | or dF of warped images (n, h, w, d) | or parts of dw
//! and db.

use super::{
    BUDGET, D, HeadPlan, Partials, THREADS, TILE, TILE_BYTES, add_parts, aligned, gradient,
};
use crate::base::Result;
use crate::device::arena::ALIGN;
use crate::device::cuda::context::{Arg, Cuda, Grid, Kernel};
use crate::device::ops::{Classifier, HeadInput, HeadSpec};
use crate::device::{Activation, Slot};

/// Pixels of a block of predictions, 8 threads each.
const PREDICTED: usize = THREADS as usize / 8;

#[derive(Clone)]
pub(super) struct Kernels {
    scores: Kernel,
    predict: Kernel,
    backward: Kernel,
    weight: Kernel,
}

impl<A: Activation> Cuda<A> {
    pub(super) fn plan_head_scores(&mut self) -> Result<Kernels> {
        let kernels = Kernels {
            scores: self.kernel("head_scores")?,
            predict: self.kernel("head_predict")?,
            backward: self.kernel("head_scores_backward")?,
            weight: self.kernel("head_scores_weight")?,
        };
        for kernel in [kernels.scores, kernels.backward, kernels.weight] {
            self.allow_shared(kernel, TILE_BYTES)?;
        }
        Ok(kernels)
    }
}

/// Images whose scores are in the scratch at once, two views of one at least.
fn images_at_once(spec: &HeadSpec) -> usize {
    (BUDGET / (spec.pixels() * spec.k * 4)).clamp(spec.n.min(2), spec.n)
}

impl HeadPlan {
    /// Blocks that share all tiles where dw and db of `k` classes are summed; as many for each 64
    /// classes.
    fn parts(&self, k: usize) -> usize {
        Partials::PARTS.div_ceil(k.div_ceil(TILE)).min(self.spec.n * self.tiles())
    }

    pub(super) fn scores_scratch(&self, act: usize) -> usize {
        let scores =
            aligned(images_at_once(&self.spec) * self.spec.pixels() * self.spec.k * 4) + ALIGN;
        // Of classifiers of any size up to k: parts·k <= (PARTS/⌈k/64⌉ + 1)·k.
        let rows = Partials::PARTS * TILE + self.spec.k;
        let parts = aligned(rows * D * 4) + aligned(rows * 4);
        self.o3 + scores.max(parts).max(self.spec.lateral_len(0) * act)
    }
}

pub(super) fn head_scores<A: Activation>(
    dev: &mut Cuda<A>,
    plan: &HeadPlan,
    scores: Slot<f32>,
    input: HeadInput<A>,
    classifier: Classifier,
) -> Result<()> {
    plan.spec.check_scores("head_scores", scores, &input, classifier)?;
    let laterals = dev.merge(plan, &input)?;
    let Classifier { w, b, k } = classifier;
    let args =
        [dev.at(scores), Arg::by_value(&laterals), dev.at(w), dev.at(b), 0usize.into(), k.into()];
    dev.launch(plan.scores.scores, plan.grid().shared(TILE_BYTES), &args)
}

pub(super) fn head_scores_backward<A: Activation>(
    dev: &mut Cuda<A>,
    plan: &HeadPlan,
    dlaterals: Option<[Slot<A>; 4]>,
    (dw, db): (Slot<f32>, Slot<f32>),
    dscores: Slot<f32>,
    input: HeadInput<A>,
    classifier: Classifier,
) -> Result<()> {
    let (spec, kernels, k) = (&plan.spec, &plan.scores, classifier.k);
    spec.check_scores_backward(dlaterals, (dw, db), dscores, &input, classifier)?;
    let laterals = dev.merge(plan, &input)?;
    let (laterals, slopes) = (Arg::by_value(&laterals), dev.at(dscores));
    if let Some(dlaterals) = dlaterals {
        let dwarped = dev.scratch::<A>(plan.o3, spec.lateral_len(0))?;
        let args = [
            dev.at(dlaterals[0]),
            dev.at(dwarped),
            slopes,
            laterals,
            dev.at(classifier.w),
            k.into(),
        ];
        dev.launch(kernels.backward, plan.grid().shared(TILE_BYTES), &args)?;
        gradient::to_laterals(dev, plan, dlaterals, dwarped, input.crops)?;
    }
    let parts = plan.parts(k);
    let partial = dev.scratch::<f32>(plan.o3, parts * k * D)?;
    let partial_bias = dev.scratch::<f32>(plan.o3 + aligned(parts * k * D * 4), parts * k)?;
    let args = [dev.at(partial), dev.at(partial_bias), slopes, laterals, spec.n.into(), k.into()];
    dev.launch(
        kernels.weight,
        Grid::new((parts, k.div_ceil(TILE)), THREADS).shared(TILE_BYTES),
        &args,
    )?;
    add_parts(dev, plan.sums, dw, partial, parts, None)?;
    add_parts(dev, plan.sums, db, partial_bias, parts, None)
}

pub(super) fn head_predict<A: Activation>(
    dev: &mut Cuda<A>,
    plan: &HeadPlan,
    pred: Slot<u16>,
    out: (usize, usize),
    input: HeadInput<A>,
    classifier: Classifier,
) -> Result<()> {
    let (spec, Classifier { w: cw, b: cb, k }) = (&plan.spec, classifier);
    let views = spec.check_predict(pred, out, &input, classifier)?;
    let laterals = dev.merge(plan, &input)?;
    let (total, most, map) = (spec.n / views, images_at_once(spec) / views, spec.pixels() * k);
    let (laterals, cw, cb, pred) = (Arg::by_value(&laterals), dev.at(cw), dev.at(cb), dev.at(pred));
    // Floats from a view's scores to the other's.
    let apart = aligned(most.min(total) * map * 4) / 4;
    let [h, w, k] = [spec.h, spec.w, k].map(Arg::from);
    for from in (0..total).step_by(most) {
        let images = most.min(total - from);
        let grid = Grid::new((plan.tiles(), images), THREADS).shared(TILE_BYTES);
        for view in 0..views {
            let scores = dev.at(dev.scratch::<f32>(plan.o3 + view * 4 * apart, images * map)?);
            let first = (view * total + from).into();
            dev.launch(plan.scores.scores, grid, &[scores, laterals, cw, cb, first, k])?;
        }
        let apart = if views == 2 { apart } else { 0 };
        let scores = dev.at(dev.scratch::<f32>(plan.o3, images * map)?);
        let args = [pred, scores, apart.into(), from.into(), h, w, k, out.0.into(), out.1.into()];
        let grid = Grid::new(((out.0 * out.1).div_ceil(PREDICTED), images), THREADS);
        dev.launch(plan.scores.predict, grid, &args)?;
    }
    Ok(())
}
