//! k-means on unit vectors: sums of stored points, the two centroid updates, centroids as a linear
//! classifier.
//!
//! The squared distance of a unit vector f to c is 1 − 2·(f·c − ‖c‖²/2): the nearest centroid is
//! the arg-max of a linear score, and the objective of P points is P − 2·Σ score.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};
use crate::device::ops::{Classifier, Op, Passed, Plan, UNPLANNED, Unplanned, door, want};
use crate::device::trace::bytes;
use crate::device::{Engine, Slot, Work};

/// How a centroid c scores a unit vector f.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// f·c − ‖c‖²/2: arg-max is the nearest in Euclidean distance.
    L2,
    /// f·c (the released code's logits and evaluation).
    Dot,
    /// f·c/‖c‖.
    Cosine,
}

/// Stored points of `d` channels, and at most `k` clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KMeansSpec {
    pub k: usize,
    pub d: usize,
}

impl fmt::Display for KMeansSpec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} clusters of {} channels", self.k, self.d)
    }
}

/// Refuses a slot that is not (k, d), both at least 1.
fn want_rows(op: &'static str, what: &'static str, slot: Slot<f32>, k: usize) -> Result<()> {
    if k == 0 {
        return Err(Error::Shape { op, what: "a set of centroids", got: 0, want: 1 });
    }
    want(op, what, slot, k * (slot.len / k).max(1))
}

/// Arguments of [`kmeans_classifier`].
#[derive(Clone, Copy, Debug)]
pub struct KMeansClassifier {
    /// =
    pub classifier: Classifier,
    /// (k, d)
    pub centroids: Slot<f32>,
    pub metric: Metric,
}

impl Op for KMeansClassifier {
    type Spec = Unplanned;
    const NAME: &'static str = "kmeans_classifier";

    fn check(&self, _: &Unplanned) -> Result<()> {
        let Classifier { w, b, k } = self.classifier;
        want(Self::NAME, "b", b, k)?;
        want(Self::NAME, "w", w, self.centroids.len)?;
        want_rows(Self::NAME, "centroids", self.centroids, k)
    }

    fn work(&self, _: &Unplanned) -> Work {
        Work::moved(bytes![self.classifier.w, self.centroids])
    }
}

/// Arguments of [`kmeans_accumulate`].
#[derive(Clone, Copy, Debug)]
pub struct KMeansAccumulate {
    /// += (k, d)
    pub sums: Slot<f32>,
    /// += (k)
    pub counts: Slot<u32>,
    /// += (1)
    pub score: Slot<f32>,
    /// (rows, d)
    pub points: Slot<f32>,
    pub classifier: Classifier,
}

impl Op for KMeansAccumulate {
    type Spec = KMeansSpec;
    const NAME: &'static str = "kmeans_accumulate";

    fn check(&self, spec: &KMeansSpec) -> Result<()> {
        let Classifier { w, b, k } = self.classifier;
        if k == 0 || k > spec.k {
            return Err(Error::Shape {
                op: Self::NAME,
                what: "a classifier",
                got: k,
                want: spec.k,
            });
        }
        want(Self::NAME, "w", w, k * spec.d)?;
        want(Self::NAME, "b", b, k)?;
        want(Self::NAME, "sums", self.sums, k * spec.d)?;
        want(Self::NAME, "counts", self.counts, k)?;
        want(Self::NAME, "score", self.score, 1)?;
        want(Self::NAME, "points", self.points, self.points.len / spec.d * spec.d)
    }

    fn work(&self, _: &KMeansSpec) -> Work {
        let scores = 2.0 * (self.points.len * self.classifier.k) as f64;
        Work::moved(bytes![self.points]).flops(scores)
    }

    fn shape(&self, spec: &KMeansSpec) -> String {
        let (points, k) = (self.points.len / spec.d, self.classifier.k);
        format!("{points} points, {k} clusters")
    }
}

/// Arguments of [`kmeans_mean`].
#[derive(Clone, Copy, Debug)]
pub struct KMeansMean {
    /// = (k, d)
    pub centroids: Slot<f32>,
    /// (k): those of the sums, updated where a cluster is split.
    pub counts: Slot<u32>,
    /// += (1), clusters that were empty.
    pub splits: Slot<u32>,
    /// (k, d)
    pub sums: Slot<f32>,
}

impl Op for KMeansMean {
    type Spec = Unplanned;
    const NAME: &'static str = "kmeans_mean";

    fn check(&self, _: &Unplanned) -> Result<()> {
        want_rows(Self::NAME, "centroids", self.centroids, self.counts.len)?;
        want(Self::NAME, "sums", self.sums, self.centroids.len)?;
        want(Self::NAME, "splits", self.splits, 1)
    }

    fn work(&self, _: &Unplanned) -> Work {
        Work::moved(bytes![self.centroids, self.sums])
    }
}

/// Arguments of [`kmeans_step`].
#[derive(Clone, Copy, Debug)]
pub struct KMeansStep {
    /// (k, d): moved.
    pub centroids: Slot<f32>,
    /// += (k)
    pub totals: Slot<f32>,
    /// (k, d)
    pub sums: Slot<f32>,
    /// (k)
    pub counts: Slot<u32>,
}

impl Op for KMeansStep {
    type Spec = Unplanned;
    const NAME: &'static str = "kmeans_step";

    fn check(&self, _: &Unplanned) -> Result<()> {
        want_rows(Self::NAME, "centroids", self.centroids, self.counts.len)?;
        want(Self::NAME, "sums", self.sums, self.centroids.len)?;
        want(Self::NAME, "totals", self.totals, self.counts.len)
    }

    fn work(&self, _: &Unplanned) -> Work {
        Work::moved(bytes![self.centroids, self.centroids, self.sums])
    }
}

/// What an engine does of the family.
pub trait KMeans {
    /// Asks for scratch; refuses sizes that the engine cannot run. Returns its number for the plan.
    fn plan_kmeans(&mut self, spec: KMeansSpec) -> Result<usize>;
    fn kmeans_classifier(&mut self, a: Passed<KMeansClassifier>) -> Result<()>;
    fn kmeans_accumulate(&mut self, a: Passed<KMeansAccumulate>) -> Result<()>;
    fn kmeans_mean(&mut self, a: Passed<KMeansMean>) -> Result<()>;
    fn kmeans_step(&mut self, a: Passed<KMeansStep>) -> Result<()>;
}

pub fn plan_kmeans(dev: &mut dyn Engine, spec: KMeansSpec) -> Result<Plan<KMeansSpec>> {
    Ok(Plan { spec, number: dev.plan_kmeans(spec)? })
}

/// classifier = what `metric` makes of the centroids.
pub fn kmeans_classifier(dev: &mut dyn Engine, a: KMeansClassifier) -> Result<()> {
    door(dev, &UNPLANNED, &a, |dev, a| dev.kmeans_classifier(a))
}

/// As [`head_accumulate`](crate::device::ops::head_accumulate), from stored points.
pub fn kmeans_accumulate(
    dev: &mut dyn Engine,
    plan: &Plan<KMeansSpec>,
    a: KMeansAccumulate,
) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.kmeans_accumulate(a))
}

/// Lloyd's update: c = sums / counts. Each empty cluster, in ascending order, takes half of the
/// points of the largest one (the donor; the lower index of equals; Faiss draws it at random):
/// both become the donor's centroid, channel j of the formerly empty one times 1 + ε and of the
/// donor times 1 − ε, ε = 1/1024 for even j and −1/1024 for odd (Faiss's perturbation), with
/// ⌊half⌋ of the counts for the empty one and the rest for the donor. Without any point, centroids
/// and counts stay.
pub fn kmeans_mean(dev: &mut dyn Engine, a: KMeansMean) -> Result<()> {
    door(dev, &UNPLANNED, &a, |dev, a| dev.kmeans_mean(a))
}

/// Mini-batch update (Sculley 2010; released code): for each cluster with m = counts > 0 points in
/// this batch, totals += m, η = m/(totals + 1e-6), c = (1 − η)·c + η·sums/m.
pub fn kmeans_step(dev: &mut dyn Engine, a: KMeansStep) -> Result<()> {
    door(dev, &UNPLANNED, &a, |dev, a| dev.kmeans_step(a))
}
