//! The head: the end of the network, from up to four maps of its feature pyramid (the laterals p2
//! to p5) to features, labels, sums for k-means, scores, or a loss and its gradients. The merged
//! feature map in between is never stored as a whole, except where it is the result.
//!
//! Every op begins with the same steps: the laterals are merged to a map F of p2's size; F is
//! warped by a crop; with `unit`, each pixel's d channels are divided by their norm, F̂ =
//! F/max(‖F‖₂, 1e-12), else F̂ = F. The merge is one of two:
//! * `Merge::Direct` (section S1 of the paper's supplement): F = p2 + up(p3) + up(p4) + up(p5),
//!   each resampled straight to p2's size.
//! * `Merge::Cascade` (released code): F = p2 + up(p3 + up(p4 + up(p5))), each step to the next
//!   map's size.
//!
//! A head of fewer `levels` adds the first of them only: F = p2 + up(p3) + … . A cascade needs all
//! four.
//!
//! Here up is bilinear resampling with align_corners = false. The warp resamples F by a [`Crop`] in
//! units of F's pixels; [`Crop::whole`] changes nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

mod loss;
mod scores;

pub(in crate::device) use loss::MOST_TARGETS;
pub use loss::{HeadLoss, Target, head_loss};
pub use scores::{
    HeadPredict, HeadScores, HeadScoresBackward, head_predict, head_scores, head_scores_backward,
};

use crate::base::{Error, Result};
use crate::device::ops::{Crop, Op, Passed, Plan, door, want, want_if};
use crate::device::trace::bytes;
use crate::device::{Act, Engine, Slot, Work};

/// The way in which the maps of the pyramid are merged into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Merge {
    /// Each map is resampled straight to the finest one's size, and all are summed.
    Direct,
    /// The maps are summed from the coarsest to the finest, with one resampling from each level to
    /// the next.
    Cascade,
}

/// The sizes of a head. The laterals are p2 (n, h, w, d), p3 (n, ⌈h/2⌉, ⌈w/2⌉, d), and so on to p5,
/// each half as large as the one before; labels are (n, h, w) and features (n, h, w, d).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeadSpec {
    /// Number of images.
    pub n: usize,
    /// Height of p2 and of the features. `w`: their width.
    pub h: usize,
    pub w: usize,
    /// Number of feature channels.
    pub d: usize,
    /// The largest number of clusters that a classifier may have.
    pub k: usize,
    /// The way in which the laterals are merged.
    pub merge: Merge,
    /// Number of laterals, from p2 on: 1 to 4. The slots of the others are empty.
    pub levels: usize,
    /// Whether each pixel's features are divided by their norm.
    pub unit: bool,
}

impl HeadSpec {
    /// Pixels of an image's feature map.
    pub fn pixels(&self) -> usize {
        self.h * self.w
    }

    /// Height and width of p2, p3, p4, p5.
    pub fn sizes(&self) -> [(usize, usize); 4] {
        let half = |(h, w): (usize, usize)| (h.div_ceil(2), w.div_ceil(2));
        let s2 = (self.h, self.w);
        let s3 = half(s2);
        let s4 = half(s3);
        [s2, s3, s4, half(s4)]
    }

    /// The level that `level` is resampled to and added to; p2 stays where it is.
    pub fn onto(&self, level: usize) -> usize {
        match self.merge {
            Merge::Direct => 0,
            Merge::Cascade => level.saturating_sub(1),
        }
    }

    /// Elements of the lateral number `level`, 0 for p2 to 3 for p5. 0 if the head does not have
    /// it.
    pub fn lateral_len(&self, level: usize) -> usize {
        let (h, w) = self.sizes()[level];
        if level < self.levels { self.n * h * w * self.d } else { 0 }
    }

    /// Fails on sizes that no engine can run.
    fn check(&self) -> Result<()> {
        if self.n * self.pixels() * self.d * self.k == 0 {
            return Err(Error::input(
                format!("a head without content: {self:?}"),
                "give every size at least 1",
            ));
        }
        if self.k > 1 << 16 {
            let what = format!("{} clusters do not fit into labels of 16 bits", self.k);
            return Err(Error::input(what, "use at most 65536 --clusters"));
        }
        if !(1..=4).contains(&self.levels) {
            return Err(Error::input(
                format!("a head of {} levels", self.levels),
                "give it 1 to 4",
            ));
        }
        if self.merge == Merge::Cascade && self.levels < 4 {
            return Err(Error::input(
                format!("a cascade of {} levels", self.levels),
                "use --merge direct",
            ));
        }
        Ok(())
    }

    /// Fails if the laterals or the crops do not have the sizes of this head.
    fn check_input(&self, op: &'static str, input: &HeadInput) -> Result<()> {
        for (level, what) in ["p2", "p3", "p4", "p5"].into_iter().enumerate() {
            want(op, what, input.laterals[level], self.lateral_len(level))?;
        }
        want_if(op, "crops", input.crops, self.n)
    }

    /// Fails if the classifier has too many clusters, or other channels than this head.
    fn check_classifier(&self, op: &'static str, c: Classifier) -> Result<()> {
        if c.k == 0 || c.k > self.k {
            return Err(Error::Shape { op, what: "a classifier", got: c.k, want: self.k });
        }
        want(op, "w", c.w, c.k * self.d)?;
        want(op, "b", c.b, c.k)
    }

    /// Fails if `labels` is not a store of whole label maps of this size, or `index` not one number
    /// an image.
    fn check_labels(&self, op: &'static str, labels: Slot<u16>, index: Slot<u32>) -> Result<()> {
        want(op, "labels", labels, self.images(labels).max(1) * self.pixels())?;
        want(op, "index", index, self.n)
    }

    /// Number of images in a label store.
    pub(in crate::device) fn images(&self, labels: Slot<u16>) -> usize {
        labels.len / self.pixels()
    }

    /// Fails if the gradients do not have the sizes of the laterals.
    fn check_gradients(&self, op: &'static str, dlaterals: [Slot<Act>; 4]) -> Result<()> {
        self.check_input(op, &HeadInput { laterals: dlaterals, crops: None })
    }

    /// FLOPs of the scores of `k` clusters for every pixel.
    fn flops(&self, k: usize) -> f64 {
        2.0 * (self.n * self.pixels() * self.d * k) as f64
    }

    /// The shape for traces, with the number of clusters of the call.
    fn with_clusters(&self, k: usize) -> String {
        format!("{self}, {k} clusters")
    }
}

impl fmt::Display for HeadSpec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}×{}×{}×{}", self.n, self.h, self.w, self.d)
    }
}

/// The input of every op of the family.
#[derive(Clone, Copy, Debug)]
pub struct HeadInput {
    /// The maps p2, p3, p4, p5 of the pyramid. Those that the head does not have are empty.
    pub laterals: [Slot<Act>; 4],
    /// (n), the warp of each image's features. `None`: no image is warped.
    pub crops: Option<Slot<Crop>>,
}

/// A linear classifier of pixels: scores = F̂·wᵀ + b.
#[derive(Clone, Copy, Debug)]
pub struct Classifier {
    /// (k, d), weights.
    pub w: Slot<f32>,
    /// (k), biases.
    pub b: Slot<f32>,
    /// Number of clusters.
    pub k: usize,
}

/// Arguments of [`head_features`].
#[derive(Clone, Copy, Debug)]
pub struct HeadFeatures {
    /// = (n, h, w, d), the features F̂, rounded to the type of activations.
    pub features: Slot<Act>,
    pub input: HeadInput,
}

impl Op for HeadFeatures {
    type Spec = HeadSpec;
    const NAME: &'static str = "head_features";

    fn check(&self, spec: &HeadSpec) -> Result<()> {
        spec.check_input(Self::NAME, &self.input)?;
        want(Self::NAME, "features", self.features, spec.lateral_len(0))
    }

    fn work(&self, _: &HeadSpec) -> Work {
        Work::moved(bytes![self.features] + bytes![self.input.laterals])
    }
}

/// Arguments of [`head_assign`].
#[derive(Clone, Copy, Debug)]
pub struct HeadAssign {
    /// (images of the data set, h, w), the label store. The rows `index` are overwritten, others
    /// stay.
    pub labels: Slot<u16>,
    /// += (k), the number of pixels of each label.
    pub counts: Slot<u32>,
    pub input: HeadInput,
    /// (n), the row of the label store for each image of the batch.
    pub index: Slot<u32>,
    pub classifier: Classifier,
}

impl Op for HeadAssign {
    type Spec = HeadSpec;
    const NAME: &'static str = "head_assign";

    fn check(&self, spec: &HeadSpec) -> Result<()> {
        spec.check_input(Self::NAME, &self.input)?;
        spec.check_classifier(Self::NAME, self.classifier)?;
        spec.check_labels(Self::NAME, self.labels, self.index)?;
        want(Self::NAME, "counts", self.counts, self.classifier.k)
    }

    fn work(&self, spec: &HeadSpec) -> Work {
        let labelled = 2 * spec.n * spec.pixels();
        Work::moved(labelled + bytes![self.input.laterals]).flops(spec.flops(self.classifier.k))
    }

    fn shape(&self, spec: &HeadSpec) -> String {
        spec.with_clusters(self.classifier.k)
    }
}

/// Arguments of [`head_accumulate`].
#[derive(Clone, Copy, Debug)]
pub struct HeadAccumulate {
    /// += (k, d), the sum of the features of each cluster's pixels.
    pub sums: Slot<f32>,
    /// += (k), the number of pixels of each cluster.
    pub counts: Slot<u32>,
    /// += (1), the sum of the pixels' best scores.
    pub score: Slot<f32>,
    pub input: HeadInput,
    pub classifier: Classifier,
}

impl Op for HeadAccumulate {
    type Spec = HeadSpec;
    const NAME: &'static str = "head_accumulate";

    fn check(&self, spec: &HeadSpec) -> Result<()> {
        spec.check_input(Self::NAME, &self.input)?;
        spec.check_classifier(Self::NAME, self.classifier)?;
        want(Self::NAME, "sums", self.sums, self.classifier.k * spec.d)?;
        want(Self::NAME, "counts", self.counts, self.classifier.k)?;
        want(Self::NAME, "score", self.score, 1)
    }

    fn work(&self, spec: &HeadSpec) -> Work {
        Work::moved(bytes![self.input.laterals]).flops(spec.flops(self.classifier.k))
    }

    fn shape(&self, spec: &HeadSpec) -> String {
        spec.with_clusters(self.classifier.k)
    }
}

/// The bodies of this family's ops, which every engine implements. The doors below say what each op
/// computes.
pub trait HeadOps {
    /// Prepares the ops for this spec: asks for scratch, and fails on sizes that the engine cannot
    /// run. Returns the engine's own number for the plan.
    fn plan_head(&mut self, spec: HeadSpec) -> Result<usize>;
    fn head_features(&mut self, a: Passed<HeadFeatures>) -> Result<()>;
    fn head_assign(&mut self, a: Passed<HeadAssign>) -> Result<()>;
    fn head_accumulate(&mut self, a: Passed<HeadAccumulate>) -> Result<()>;
    fn head_loss(&mut self, a: Passed<HeadLoss>) -> Result<()>;
    fn head_scores(&mut self, a: Passed<HeadScores>) -> Result<()>;
    fn head_scores_backward(&mut self, a: Passed<HeadScoresBackward>) -> Result<()>;
    fn head_predict(&mut self, a: Passed<HeadPredict>) -> Result<()>;
}

/// Plans the ops of this family for `spec`. Fails on sizes that this engine cannot run.
pub fn plan_head(dev: &mut dyn Engine, spec: HeadSpec) -> Result<Plan<HeadSpec>> {
    spec.check()?;
    Ok(Plan { spec, number: dev.plan_head(spec)? })
}

/// features = F̂, the merged, warped and normalised feature map.
pub fn head_features(dev: &mut dyn Engine, plan: &Plan<HeadSpec>, a: HeadFeatures) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.head_features(a))
}

/// Labels every pixel with its best cluster: row index\[i\] of the labels = the arg-max of image
/// i's scores (the lowest among equals); counts += the number of pixels of each label.
pub fn head_assign(dev: &mut dyn Engine, plan: &Plan<HeadSpec>, a: HeadAssign) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.head_assign(a))
}

/// Sums features by cluster, for k-means. With a the arg-max of a pixel's scores: sums += F̂ into
/// row a, counts += 1 into a, score += the score of a.
pub fn head_accumulate(
    dev: &mut dyn Engine,
    plan: &Plan<HeadSpec>,
    a: HeadAccumulate,
) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.head_accumulate(a))
}
