//! Bodies of the head: features, labels and sums by cluster. [`scores`], [`loss`] and [`gradient`]
//! have the rest.
//!
//! Scratch: what features are made with, taps or o3 (the cascade's sum at p3's size, f32) | what
//! the op itself needs, one op's over the other's.

mod gradient;
mod loss;
mod scores;

use std::array;

use crate::base::{Error, Result};
use crate::device::cuda::Cuda;
use crate::device::cuda::kernels::consts::head::{
    CHUNK, D, NEAR, PAIR_WORDS, STRIDE, STRIP_WORDS, SUMMED, TILE_BYTES,
};
use crate::device::cuda::kernels::consts::head_loss::LOSS_BYTES;
use crate::device::cuda::kernels::{self, Laterals};
use crate::device::ops::head::HeadOps;
use crate::device::ops::{
    Classifier, HeadAccumulate, HeadAssign, HeadFeatures, HeadInput, HeadLoss, HeadPredict,
    HeadScores, HeadScoresBackward, HeadSpec, Merge, Passed,
};
use crate::device::{ALIGN, Dtype, Slot};

/// Cap on the bytes of scratch for partial sums by cluster and for scores of several images. Above
/// it fewer blocks or fewer images run at once.
const BUDGET: usize = 256 << 20;

/// Blocks that take tiles in turn: two waves of three on each of 132 multiprocessors, or three
/// waves of two, as they hold of some kernels where activations are f32 or f16.
const BLOCKS: usize = 792;

/// Tiles of a block that labels them: so few that grids have many waves, and so many that the
/// classifier, which it loads once, is little.
const ASSIGNED: usize = 8;

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
    /// Whatever the GPU: their number is in the bits of the sums.
    const PARTS: usize = BLOCKS;

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
        TILE_BYTES + if self.k <= NEAR { self.k.max(CHUNK) * D * 4 } else { 0 }
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

/// Words of the taps of an image.
fn tap_words(spec: &HeadSpec) -> usize {
    spec.w.div_ceil(STRIDE) * STRIP_WORDS + spec.h.div_ceil(2) * PAIR_WORDS
}

/// Bytes of what features are made with.
fn merge_bytes(spec: &HeadSpec) -> usize {
    let o3 = if spec.merge == Merge::Cascade { spec.lateral_len(1) } else { 0 };
    aligned(o3.max(spec.n * tap_words(spec)) * 4)
}

/// The number of levels, from the finest on, of which more than four columns may weigh one of eight
/// of F. A warp's window is no larger than the map, so that eight pixels lie between nine of p2.
fn wide_levels(spec: &HeadSpec) -> usize {
    let sizes = spec.sizes();
    let mut columns = [9; 4];
    for level in 1..spec.levels {
        let onto = spec.onto(level);
        let (fine, coarse) = (sizes[onto].1, sizes[level].1);
        columns[level] = (((columns[onto] - 1) * coarse).div_ceil(fine) + 2).min(coarse);
    }
    columns[..spec.levels].iter().rposition(|&columns| columns > 4).map_or(0, |last| last + 1)
}

/// Tiles of a map.
fn tiles_of((h, w): (usize, usize)) -> usize {
    h.div_ceil(STRIDE) * w.div_ceil(STRIDE)
}

/// Tiles of an image.
fn tiles(spec: &HeadSpec) -> usize {
    tiles_of((spec.h, spec.w))
}

/// A block a tile of each image.
fn grid(spec: &HeadSpec) -> (usize, usize) {
    (tiles(spec), spec.n)
}

impl Cuda {
    /// Queues what every op begins with; returns what the kernels then read. Features are products
    /// where activations are bf16, and the op does not want them `exact`.
    fn merge(&mut self, spec: &HeadSpec, input: &HeadInput, exact: bool) -> Result<Laterals> {
        let cascade = spec.merge == Merge::Cascade;
        let products = self.dtype == Dtype::Bf16 && !exact;
        let images = if input.crops.is_some() { spec.n } else { 1 };
        let taps = products.then(|| self.scratch(0, images * tap_words(spec))).transpose()?;
        let o3 = (cascade && !products).then(|| self.scratch(0, spec.lateral_len(1)));
        let o3 = o3.transpose()?;
        let (&HeadSpec { h, w, levels, unit, .. }, HeadInput { laterals: p, crops }) =
            (spec, *input);
        let sizes = spec.sizes();
        let onto = |level: usize| sizes[spec.onto(level)];
        let down = array::from_fn(|level| sizes[level].0 as f32 / onto(level).0 as f32);
        let along = array::from_fn(|level| sizes[level].1 as f32 / onto(level).1 as f32);
        let wide = wide_levels(spec);
        let laterals = Laterals { taps, o3, p, crops, h, w, levels, wide, down, along, unit };
        if let Some(taps) = taps {
            self.launch(images, 0, kernels::HeadTaps { taps, laterals, cascade })?;
        }
        if let Some(o3) = o3 {
            let blocks = (tiles_of(sizes[1]), spec.n);
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
        self.allow_shared::<kernels::HeadLossAny>(LOSS_BYTES)?;
        self.allow_shared::<kernels::HeadScores>(TILE_BYTES)?;
        self.allow_shared::<kernels::HeadScoresBackward>(TILE_BYTES)?;
        self.allow_shared::<kernels::HeadScoresWeight>(TILE_BYTES)?;
        let act = self.dtype.bytes();
        self.allow_shared::<kernels::HeadAdjoint>(gradient::shared(act))?;
        self.ask_scratch(merge_bytes(&spec) + Partials::most_bytes(spec.k));
        self.ask_scratch(scores::scratch(&spec, act));
        self.ask_scratch(loss::scratch(&spec, act));
        Ok(0)
    }

    fn head_features(&mut self, a: Passed<HeadFeatures>) -> Result<()> {
        let laterals = self.merge(a.spec(), &a.input, true)?;
        let kernel = kernels::HeadFeatures { features: a.features, laterals };
        self.launch(grid(a.spec()), 0, kernel)
    }

    fn head_assign(&mut self, a: Passed<HeadAssign>) -> Result<()> {
        let (spec, HeadAssign { labels, counts, index, classifier, .. }) = (a.spec(), *a);
        let (Classifier { w: cw, b: cb, k }, images) = (classifier, spec.images(labels));
        let laterals = self.merge(spec, &a.input, false)?;
        let kernel = kernels::HeadAssign { labels, counts, laterals, index, cw, cb, images, k };
        self.launch((tiles(spec).div_ceil(ASSIGNED), spec.n), TILE_BYTES, kernel)
    }

    fn head_accumulate(&mut self, a: Passed<HeadAccumulate>) -> Result<()> {
        let (spec, HeadAccumulate { sums, counts, score, classifier, .. }) = (a.spec(), *a);
        let (Classifier { w: cw, b: cb, k }, n) = (classifier, spec.n);
        let laterals = self.merge(spec, &a.input, false)?;
        let partials = Partials::new(n * tiles(spec), k);
        let ((partial, partial_score), near) =
            (partials.slots(self, merge_bytes(spec))?, partials.near);
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
