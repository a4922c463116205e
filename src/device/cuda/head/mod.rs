//! Launchers of `cuda/head.cu`: the plan, features, labels and sums by cluster. [`scores`],
//! [`loss`] and [`gradient`] have the rest.
//!
//! Scratch: o3 (the cascade's sum at p3's size, f32) | what the op itself needs, one op's over the
//! other's.

mod gradient;
mod loss;
mod scores;

use bytemuck::{Pod, Zeroable};

use crate::base::{Error, Result};
use crate::device::cuda::context::{Arg, Cuda, Grid, Kernel};
use crate::device::ops::{Classifier, Head, HeadInput, HeadSpec, LossInput, Merge, want};
use crate::device::{Activation, Slot, arena};

/// Channels of a feature: what the kernels are written for.
pub(super) const D: usize = 128;
/// Pixels of a block.
pub(super) const TILE: usize = 64;
/// Threads of a block; a warp of them has a pixel where a kernel goes pixel by pixel.
pub(super) const THREADS: u32 = 256;
pub(super) const WARPS: usize = THREADS as usize / 32;
/// Bytes of a tile of features in shared memory, its rows 4 floats apart.
pub(super) const TILE_BYTES: usize = TILE * (D + 4) * size_of::<f32>();
/// Bytes that sums by cluster, or scores of several images, may take of the scratch before there
/// are fewer parts of them.
const BUDGET: usize = 256 << 20;

/// How sums by cluster are put together: each block has sums of its own, which are added in order.
#[derive(Clone, Copy)]
pub(super) struct Partials {
    /// Blocks.
    pub parts: usize,
    /// Up to so many clusters are summed in shared memory.
    pub near: usize,
    k: usize,
}

impl Partials {
    /// Two blocks on each of 132 multiprocessors, whatever the GPU: their number is in the bits of
    /// the sums.
    pub const PARTS: usize = 264;
    const NEAR: usize = 64;

    /// Of `tiles` tiles against `k` clusters.
    pub fn new(tiles: usize, k: usize) -> Self {
        Partials {
            parts: (BUDGET / (k * D * 4)).clamp(1, Self::PARTS).min(tiles.max(1)),
            near: Self::NEAR,
            k,
        }
    }

    /// Scratch of any number of tiles and at most `k` clusters.
    pub fn most_bytes(k: usize) -> usize {
        let part = k * D * 4;
        aligned(Self::PARTS * 8) + (Self::PARTS * part).min(BUDGET).max(part)
    }

    /// Dynamic shared memory of a block: the tile, and the sums where they fit.
    pub fn shared(&self) -> usize {
        TILE_BYTES + if self.k <= self.near { self.k * D * 4 } else { 0 }
    }

    pub fn most_shared() -> usize {
        TILE_BYTES + Self::NEAR * D * 4
    }

    /// Sums (parts, k, d) and scores (parts) in the scratch from byte `at` on.
    pub fn slots<A: Activation>(&self, dev: &Cuda<A>, at: usize) -> Result<(Slot<f32>, Slot<f64>)> {
        let scores = dev.scratch(at, self.parts)?;
        Ok((dev.scratch(at + aligned(self.parts * 8), self.parts * self.k * D)?, scores))
    }

    /// sums (k, d) and score (1) += the parts, by the kernel that [`Cuda::sums_kernel`] gives.
    pub fn add<A: Activation>(
        &self,
        dev: &mut Cuda<A>,
        kernel: Kernel,
        sums: Slot<f32>,
        score: Slot<f32>,
        (partial, scores): (Slot<f32>, Slot<f64>),
    ) -> Result<()> {
        add_parts(dev, kernel, sums, partial, self.parts, Some((score, scores)))
    }
}

/// sums (len) += Σ partial (parts, len), and (1) += Σ (parts) of a score where there is one; 32
/// columns a block.
fn add_parts<A: Activation>(
    dev: &mut Cuda<A>,
    kernel: Kernel,
    sums: Slot<f32>,
    partial: Slot<f32>,
    parts: usize,
    score: Option<(Slot<f32>, Slot<f64>)>,
) -> Result<()> {
    let (score, scores) = (dev.at_or_null(score.map(|s| s.0)), dev.at_or_null(score.map(|s| s.1)));
    let args = [dev.at(sums), score, dev.at(partial), scores, parts.into(), sums.len.into()];
    dev.launch(kernel, Grid::new(sums.len.div_ceil(32), THREADS), &args)
}

/// `Laterals` of cuda/head.cuh.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Laterals {
    o3: u64,
    p: [u64; 4],
    crops: u64,
    h: i32,
    w: i32,
    levels: i32,
    unit: i32,
}

pub(super) fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(arena::ALIGN)
}

#[derive(Clone)]
pub struct HeadPlan {
    spec: HeadSpec,
    /// Bytes of o3.
    o3: usize,
    cascade: Kernel,
    features: Kernel,
    assign: Kernel,
    accumulate: Kernel,
    sums: Kernel,
    scores: scores::Kernels,
    gradient: gradient::Kernels,
    loss: loss::Kernels,
}

impl HeadPlan {
    fn tiles(&self) -> usize {
        self.spec.pixels().div_ceil(TILE)
    }

    /// A block a tile of each image.
    fn grid(&self) -> Grid {
        Grid::new((self.tiles(), self.spec.n), THREADS)
    }

    fn scratch_len(&self, act: usize) -> usize {
        let sums = self.o3 + Partials::most_bytes(self.spec.k);
        sums.max(self.scores_scratch(act)).max(self.loss_scratch(act))
    }
}

impl<A: Activation> Cuda<A> {
    /// What adds the parts of sums by cluster, here and in k-means.
    pub(super) fn sums_kernel(&mut self) -> Result<Kernel> {
        self.kernel("head_sums")
    }

    /// Queues what every op begins with; returns what the kernels then read.
    fn merge(&mut self, plan: &HeadPlan, input: &HeadInput<A>) -> Result<Laterals> {
        let spec = &plan.spec;
        let o3 = match spec.merge {
            Merge::Cascade => Some(self.scratch::<f32>(0, plan.o3 / 4)?),
            Merge::Direct => None,
        };
        let laterals = Laterals {
            o3: o3.map_or(0, |o3| self.address(o3)),
            p: input.laterals.map(|p| self.address(p)),
            crops: input.crops.map_or(0, |crops| self.address(crops)),
            h: spec.h as i32,
            w: spec.w as i32,
            levels: spec.levels as i32,
            unit: spec.unit.into(),
        };
        if let Some(o3) = o3 {
            let (h3, w3) = spec.sizes()[1];
            let grid = Grid::new(((h3 * w3).div_ceil(WARPS), spec.n), THREADS);
            self.launch(plan.cascade, grid, &[self.at(o3), Arg::by_value(&laterals)])?;
        }
        Ok(laterals)
    }
}

impl<A: Activation> Head for Cuda<A> {
    type HeadPlan = HeadPlan;

    fn plan_head(&mut self, spec: HeadSpec) -> Result<HeadPlan> {
        spec.check()?;
        if spec.d != D {
            let what = format!("the CUDA head has features of {D} channels, not {}", spec.d);
            return Err(Error::input(what, "use --device cpu for others"));
        }
        if spec.n > u16::MAX.into() || spec.pixels() * D > i32::MAX as usize {
            let what = format!(
                "{} feature maps of {}×{} are too many or too large",
                spec.n, spec.h, spec.w
            );
            return Err(Error::input(what, "lower the batch or --size"));
        }
        let plan = HeadPlan {
            spec,
            o3: if spec.merge == Merge::Cascade { aligned(spec.lateral_len(1) * 4) } else { 0 },
            cascade: self.kernel("head_cascade")?,
            features: self.kernel("head_features")?,
            assign: self.kernel("head_assign")?,
            accumulate: self.kernel("head_accumulate")?,
            sums: self.sums_kernel()?,
            scores: self.plan_head_scores()?,
            gradient: self.plan_head_gradient()?,
            loss: self.plan_head_loss()?,
        };
        self.allow_shared(plan.assign, TILE_BYTES)?;
        self.allow_shared(plan.accumulate, Partials::most_shared())?;
        self.ask_scratch(plan.scratch_len(size_of::<A>()));
        Ok(plan)
    }

    fn head_features(
        &mut self,
        plan: &HeadPlan,
        features: Slot<f32>,
        input: HeadInput<A>,
    ) -> Result<()> {
        const OP: &str = "head_features";
        plan.spec.check_input(OP, &input)?;
        want(OP, "features", features, plan.spec.lateral_len(0))?;
        let laterals = self.merge(plan, &input)?;
        self.launch(plan.features, plan.grid(), &[self.at(features), Arg::by_value(&laterals)])
    }

    fn head_assign(
        &mut self,
        plan: &HeadPlan,
        labels: Slot<u16>,
        counts: Slot<u32>,
        input: HeadInput<A>,
        index: Slot<u32>,
        classifier: Classifier,
    ) -> Result<()> {
        const OP: &str = "head_assign";
        let (spec, Classifier { w: cw, b: cb, k }) = (&plan.spec, classifier);
        spec.check_input(OP, &input)?;
        spec.check_classifier(OP, classifier)?;
        let images = spec.check_labels(OP, labels, index)?;
        want(OP, "counts", counts, k)?;
        let laterals = self.merge(plan, &input)?;
        let (labels, counts, index) = (self.at(labels), self.at(counts), self.at(index));
        let (cw, cb, laterals) = (self.at(cw), self.at(cb), Arg::by_value(&laterals));
        let args = [labels, counts, laterals, index, cw, cb, images.into(), k.into()];
        self.launch(plan.assign, plan.grid().shared(TILE_BYTES), &args)
    }

    fn head_accumulate(
        &mut self,
        plan: &HeadPlan,
        sums: Slot<f32>,
        counts: Slot<u32>,
        score: Slot<f32>,
        input: HeadInput<A>,
        classifier: Classifier,
    ) -> Result<()> {
        const OP: &str = "head_accumulate";
        let (spec, Classifier { w: cw, b: cb, k }) = (&plan.spec, classifier);
        spec.check_input(OP, &input)?;
        spec.check_classifier(OP, classifier)?;
        want(OP, "sums", sums, k * D)?;
        want(OP, "counts", counts, k)?;
        want(OP, "score", score, 1)?;
        let laterals = self.merge(plan, &input)?;
        let partials = Partials::new(spec.n * plan.tiles(), k);
        let (partial, scores) = partials.slots(self, plan.o3)?;
        let (cw, cb, out) =
            (self.at(cw), self.at(cb), [self.at(partial), self.at(scores), self.at(counts)]);
        let [n, k, near] = [spec.n, k, partials.near].map(Arg::from);
        let args = [out[0], out[1], out[2], Arg::by_value(&laterals), cw, cb, n, k, near];
        self.launch(
            plan.accumulate,
            Grid::new(partials.parts, THREADS).shared(partials.shared()),
            &args,
        )?;
        partials.add(self, plan.sums, sums, score, (partial, scores))
    }

    fn head_loss(
        &mut self,
        plan: &HeadPlan,
        losses: Slot<f32>,
        dlaterals: [Slot<A>; 4],
        input: HeadInput<A>,
        loss: LossInput<'_>,
    ) -> Result<()> {
        loss::head_loss(self, plan, losses, dlaterals, input, loss)
    }

    fn head_scores(
        &mut self,
        plan: &HeadPlan,
        scores: Slot<f32>,
        input: HeadInput<A>,
        classifier: Classifier,
    ) -> Result<()> {
        scores::head_scores(self, plan, scores, input, classifier)
    }

    fn head_scores_backward(
        &mut self,
        plan: &HeadPlan,
        dlaterals: Option<[Slot<A>; 4]>,
        dw: Slot<f32>,
        db: Slot<f32>,
        dscores: Slot<f32>,
        input: HeadInput<A>,
        classifier: Classifier,
    ) -> Result<()> {
        scores::head_scores_backward(self, plan, dlaterals, (dw, db), dscores, input, classifier)
    }

    fn head_predict(
        &mut self,
        plan: &HeadPlan,
        pred: Slot<u16>,
        out: (usize, usize),
        input: HeadInput<A>,
        classifier: Classifier,
    ) -> Result<()> {
        scores::head_predict(self, plan, pred, out, input, classifier)
    }
}
