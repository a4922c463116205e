//! From the four lateral maps to features, labels, sums, or loss and gradients, without a public
//! feature map in between.
//!
//! merge → warp → F̂ = F/max(‖F‖₂, 1e-12) along the d channels, pixel by pixel (`unit`; else F̂ =
//! F); then one of the ops below.
//! * `Merge::Direct` (supplement S1): F = p2 + up(p3) + up(p4) + up(p5), each resampled straight to
//!   p2's size.
//! * `Merge::Cascade` (released code): F = p2 + up(p3 + up(p4 + up(p5))), each step to the next
//!   map's size.
//!
//! A head of fewer `levels` has the first of them only: F = p2 + up(p3) + … . A cascade has all
//! four.
//!
//! up is bilinear, align_corners = false. The warp resamples F by a [`Crop`] in units of F's
//! pixels; `Crop::whole` is none.

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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Merge {
    /// Each level resampled straight to the finest, and summed.
    Direct,
    /// Level by level, each step twice as large.
    Cascade,
}

/// Laterals p2 (n, h, w, d), p3 (n, ⌈h/2⌉, ⌈w/2⌉, d), p4 (… of that …), p5; labels and features (n,
/// h, w).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeadSpec {
    pub n: usize,
    pub h: usize,
    pub w: usize,
    pub d: usize,
    /// The largest number of clusters a classifier has.
    pub k: usize,
    pub merge: Merge,
    /// Laterals that there are, from p2 on: 1 to 4. The slots of others are empty.
    pub levels: usize,
    /// Features are divided by their norm.
    pub unit: bool,
}

impl HeadSpec {
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

    /// 0 of a level that there is not.
    pub fn lateral_len(&self, level: usize) -> usize {
        let (h, w) = self.sizes()[level];
        if level < self.levels { self.n * h * w * self.d } else { 0 }
    }

    /// Refuses what no engine plans.
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

    fn check_input(&self, op: &'static str, input: &HeadInput) -> Result<()> {
        for (level, what) in ["p2", "p3", "p4", "p5"].into_iter().enumerate() {
            want(op, what, input.laterals[level], self.lateral_len(level))?;
        }
        want_if(op, "crops", input.crops, self.n)
    }

    fn check_classifier(&self, op: &'static str, c: Classifier) -> Result<()> {
        if c.k == 0 || c.k > self.k {
            return Err(Error::Shape { op, what: "a classifier", got: c.k, want: self.k });
        }
        want(op, "w", c.w, c.k * self.d)?;
        want(op, "b", c.b, c.k)
    }

    /// Refuses label maps that are not whole images of this size.
    fn check_labels(&self, op: &'static str, labels: Slot<u16>, index: Slot<u32>) -> Result<()> {
        want(op, "labels", labels, self.images(labels).max(1) * self.pixels())?;
        want(op, "index", index, self.n)
    }

    /// Images of a label store.
    pub(in crate::device) fn images(&self, labels: Slot<u16>) -> usize {
        labels.len / self.pixels()
    }

    fn check_gradients(&self, op: &'static str, dlaterals: [Slot<Act>; 4]) -> Result<()> {
        self.check_input(op, &HeadInput { laterals: dlaterals, crops: None })
    }

    /// FLOPs of the scores of `k` clusters for every pixel.
    fn flops(&self, k: usize) -> f64 {
        2.0 * (self.n * self.pixels() * self.d * k) as f64
    }

    /// As traces show it, with the clusters of the call.
    fn with_clusters(&self, k: usize) -> String {
        format!("{self}, {k} clusters")
    }
}

impl fmt::Display for HeadSpec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}×{}×{}×{}", self.n, self.h, self.w, self.d)
    }
}

/// What every op of the family begins with.
#[derive(Clone, Copy, Debug)]
pub struct HeadInput {
    /// p2, p3, p4, p5; empty where there is none.
    pub laterals: [Slot<Act>; 4],
    /// (n), None: no image is warped.
    pub crops: Option<Slot<Crop>>,
}

/// scores = F̂·wᵀ + b.
#[derive(Clone, Copy, Debug)]
pub struct Classifier {
    /// (k, d)
    pub w: Slot<f32>,
    /// (k)
    pub b: Slot<f32>,
    pub k: usize,
}

/// Arguments of [`head_features`].
#[derive(Clone, Copy, Debug)]
pub struct HeadFeatures {
    /// = (n, h, w, d)
    pub features: Slot<f32>,
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
    /// (images of the data set, h, w): rows `index` =, others stay.
    pub labels: Slot<u16>,
    /// += (k), pixels of each label.
    pub counts: Slot<u32>,
    pub input: HeadInput,
    /// (n)
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
    /// += (k, d)
    pub sums: Slot<f32>,
    /// += (k)
    pub counts: Slot<u32>,
    /// += (1)
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

/// What an engine does of the family.
pub trait Head {
    /// Asks for scratch; refuses sizes that the engine cannot run. Returns its number for the plan.
    fn plan_head(&mut self, spec: HeadSpec) -> Result<usize>;
    fn head_features(&mut self, a: Passed<HeadFeatures>) -> Result<()>;
    fn head_assign(&mut self, a: Passed<HeadAssign>) -> Result<()>;
    fn head_accumulate(&mut self, a: Passed<HeadAccumulate>) -> Result<()>;
    fn head_loss(&mut self, a: Passed<HeadLoss>) -> Result<()>;
    fn head_scores(&mut self, a: Passed<HeadScores>) -> Result<()>;
    fn head_scores_backward(&mut self, a: Passed<HeadScoresBackward>) -> Result<()>;
    fn head_predict(&mut self, a: Passed<HeadPredict>) -> Result<()>;
}

pub fn plan_head(dev: &mut dyn Engine, spec: HeadSpec) -> Result<Plan<HeadSpec>> {
    spec.check()?;
    Ok(Plan { spec, number: dev.plan_head(spec)? })
}

/// features = F̂.
pub fn head_features(dev: &mut dyn Engine, plan: &Plan<HeadSpec>, a: HeadFeatures) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.head_features(a))
}

/// Row index\[i\] of the labels = arg-max of image i's scores (the first of equals); counts +=
/// pixels of each label.
pub fn head_assign(dev: &mut dyn Engine, plan: &Plan<HeadSpec>, a: HeadAssign) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.head_assign(a))
}

/// With the arg-max a of each pixel: sums += F̂ into row a, counts += 1 into a, score += score of a.
pub fn head_accumulate(
    dev: &mut dyn Engine,
    plan: &Plan<HeadSpec>,
    a: HeadAccumulate,
) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.head_accumulate(a))
}
