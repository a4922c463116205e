//! Bodies of the head: features, labels and sums by cluster. [`scores`], [`loss`] and [`gradient`]
//! have the rest.
//!
//! Scratch: o3 (the cascade's sum at p3's size, f32) | what the op itself needs, one op's over the
//! other's.

mod gradient;
mod loss;
mod scores;

use std::array;

use crate::base::{Error, Result};
use crate::device::cuda::Cuda;
use crate::device::cuda::kernels::consts::head::{CHUNK, D, NEAR, SUMMED, TILE, TILE_BYTES};
use crate::device::cuda::kernels::consts::head_loss::LOSS_BYTES;
use crate::device::cuda::kernels::{self, Laterals};
use crate::device::ops::head::HeadOps;
use crate::device::ops::{
    Classifier, HeadAccumulate, HeadAssign, HeadFeatures, HeadInput, HeadLoss, HeadPredict,
    HeadScores, HeadScoresBackward, HeadSpec, Merge, Passed,
};
use crate::device::{ALIGN, Slot};

/// Cap on the bytes of scratch for partial sums by cluster and for scores of several images. Above
/// it fewer blocks or fewer images run at once.
const BUDGET: usize = 256 << 20;

/// How sums by cluster are put together: each block has sums of its own, which are added in order.
#[derive(Clone, Copy)]
pub(super) struct Partials {
    /// Blocks.
    pub parts: usize,
    /// Whether a block's sums are in shared memory: more than registers hold, and not too many.
    pub near: bool,
    k: usize,
}

impl Partials {
    /// Two waves of three blocks on each of 132 multiprocessors, or three waves of two, as k-means
    /// has of f32; whatever the GPU: their number is in the bits of the sums.
    const PARTS: usize = 792;

    /// The parts of `tiles` tiles against `k` clusters.
    pub fn new(tiles: usize, k: usize) -> Self {
        let parts = (BUDGET / (k * D * 4)).clamp(1, Self::PARTS).min(tiles.max(1));
        Partials { parts, near: (CHUNK + 1..=NEAR).contains(&k), k }
    }

    /// Scratch of any number of tiles and at most `k` clusters.
    pub fn most_bytes(k: usize) -> usize {
        let part = k * D * 4;
        aligned(Self::PARTS * 8) + (Self::PARTS * part).min(BUDGET).max(part)
    }

    /// Dynamic shared memory of a block: the tile, and the sums where they fit.
    pub fn shared(&self) -> usize {
        TILE_BYTES + if self.near { self.k * D * 4 } else { 0 }
    }

    pub fn most_shared() -> usize {
        TILE_BYTES + NEAR * D * 4
    }

    /// Sums (parts, k, d) and scores (parts) in the scratch from byte `at` on.
    pub fn slots(&self, dev: &Cuda, at: usize) -> Result<(Slot<f32>, Slot<f64>)> {
        let scores = dev.scratch(at, self.parts)?;
        Ok((dev.scratch(at + aligned(self.parts * 8), self.parts * self.k * D)?, scores))
    }
}

fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN)
}

/// Bytes of o3.
fn o3_bytes(spec: &HeadSpec) -> usize {
    if spec.merge == Merge::Cascade { aligned(spec.lateral_len(1) * 4) } else { 0 }
}

/// Tiles of an image.
fn tiles(spec: &HeadSpec) -> usize {
    spec.pixels().div_ceil(TILE)
}

/// A block a tile of each image.
fn grid(spec: &HeadSpec) -> (usize, usize) {
    (tiles(spec), spec.n)
}

impl Cuda {
    /// Queues what every op begins with; returns what the kernels then read.
    fn merge(&mut self, spec: &HeadSpec, input: &HeadInput) -> Result<Laterals> {
        let o3 = match spec.merge {
            Merge::Cascade => Some(self.scratch(0, spec.lateral_len(1))?),
            Merge::Direct => None,
        };
        let (&HeadSpec { h, w, levels, unit, .. }, HeadInput { laterals: p, crops }) =
            (spec, *input);
        let sizes = spec.sizes();
        let onto = |level: usize| sizes[spec.onto(level)];
        let down = array::from_fn(|level| sizes[level].0 as f32 / onto(level).0 as f32);
        let along = array::from_fn(|level| sizes[level].1 as f32 / onto(level).1 as f32);
        let laterals = Laterals { o3, p, crops, h, w, levels, down, along, unit };
        if let Some(o3) = o3 {
            let (h3, w3) = sizes[1];
            let blocks = ((h3 * w3).div_ceil(TILE), spec.n);
            self.launch(blocks, 0, kernels::HeadCascade { o3, laterals })?;
        }
        Ok(laterals)
    }

    /// sums (len) += Σ partial (parts, len), and (1) += Σ (parts) of a score where there is one.
    pub(super) fn add_parts(
        &mut self,
        sums: Slot<f32>,
        partial: Slot<f32>,
        parts: usize,
        score: Option<(Slot<f32>, Slot<f64>)>,
    ) -> Result<()> {
        let (score, partial_score) = score.unzip();
        let len = sums.len;
        let kernel = kernels::HeadSums { sums, score, partial, partial_score, parts, len };
        self.launch(len.div_ceil(SUMMED), 0, kernel)
    }
}

impl HeadOps for Cuda {
    fn plan_head(&mut self, spec: HeadSpec) -> Result<usize> {
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
        self.allow_shared::<kernels::HeadAssign>(TILE_BYTES)?;
        self.allow_shared::<kernels::HeadAccumulate>(Partials::most_shared())?;
        self.allow_shared::<kernels::HeadLoss>(LOSS_BYTES)?;
        self.allow_shared::<kernels::HeadScores>(TILE_BYTES)?;
        self.allow_shared::<kernels::HeadScoresBackward>(TILE_BYTES)?;
        self.allow_shared::<kernels::HeadScoresWeight>(TILE_BYTES)?;
        let act = self.dtype.bytes();
        self.allow_shared::<kernels::HeadAdjoint>(gradient::shared(act))?;
        self.ask_scratch(o3_bytes(&spec) + Partials::most_bytes(spec.k));
        self.ask_scratch(scores::scratch(&spec, act));
        self.ask_scratch(loss::scratch(&spec, act));
        Ok(0)
    }

    fn head_features(&mut self, a: Passed<HeadFeatures>) -> Result<()> {
        let laterals = self.merge(a.spec(), &a.input)?;
        let kernel = kernels::HeadFeatures { features: a.features, laterals };
        self.launch(grid(a.spec()), 0, kernel)
    }

    fn head_assign(&mut self, a: Passed<HeadAssign>) -> Result<()> {
        let (spec, HeadAssign { labels, counts, index, classifier, .. }) = (a.spec(), *a);
        let (Classifier { w: cw, b: cb, k }, images) = (classifier, spec.images(labels));
        let laterals = self.merge(spec, &a.input)?;
        let kernel = kernels::HeadAssign { labels, counts, laterals, index, cw, cb, images, k };
        self.launch(grid(spec), TILE_BYTES, kernel)
    }

    fn head_accumulate(&mut self, a: Passed<HeadAccumulate>) -> Result<()> {
        let (spec, HeadAccumulate { sums, counts, score, classifier, .. }) = (a.spec(), *a);
        let (Classifier { w: cw, b: cb, k }, n) = (classifier, spec.n);
        let laterals = self.merge(spec, &a.input)?;
        let partials = Partials::new(n * tiles(spec), k);
        let ((partial, partial_score), near) =
            (partials.slots(self, o3_bytes(spec))?, partials.near);
        let kernel = kernels::HeadAccumulate {
            partial,
            partial_score,
            counts,
            laterals,
            cw,
            cb,
            n,
            k,
            near,
        };
        self.launch(partials.parts, partials.shared(), kernel)?;
        self.add_parts(sums, partial, partials.parts, Some((score, partial_score)))
    }

    fn head_loss(&mut self, a: Passed<HeadLoss>) -> Result<()> {
        self.loss(a)
    }

    fn head_scores(&mut self, a: Passed<HeadScores>) -> Result<()> {
        self.scores(a)
    }

    fn head_scores_backward(&mut self, a: Passed<HeadScoresBackward>) -> Result<()> {
        self.scores_backward(a)
    }

    fn head_predict(&mut self, a: Passed<HeadPredict>) -> Result<()> {
        self.predict(a)
    }
}
