//! k-means on vectors of length 1: sums over stored points, the two updates of centroids, and the
//! linear classifier that centroids are equal to.
//!
//! The squared distance of a unit vector f to a centroid c is 1 − 2·(f·c − ‖c‖²/2). So the nearest
//! centroid is the arg-max of a linear score, and the objective over P points, the sum of their
//! squared distances, is P − 2·Σ score.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};
use crate::device::ops::{Classifier, Op, Passed, Plan, UNPLANNED, Unplanned, door, want};
use crate::device::trace::bytes;
use crate::device::{Act, Engine, Slot, Work};

/// The score of a unit vector f for a centroid c. A point belongs to the centroid with the highest
/// score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// The score f·c − ‖c‖²/2, highest for the centroid that is nearest in Euclidean distance.
    L2,
    /// The score f·c, which the released code uses for its logits and its evaluation.
    Dot,
    /// The score f·c/‖c‖, the cosine of the angle between them.
    Cosine,
}

/// The sizes of a clustering of stored points: at most `k` clusters, and `d` channels a point.
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

/// Fails if the slot is not (k, d) for any d, both at least 1.
fn want_rows(op: &'static str, what: &'static str, slot: Slot<f32>, k: usize) -> Result<()> {
    if k == 0 {
        return Err(Error::Shape { op, what: "a set of centroids", got: 0, want: 1 });
    }
    want(op, what, slot, k * (slot.len / k).max(1))
}

/// Arguments of [`kmeans_classifier`].
#[derive(Clone, Copy, Debug)]
pub struct KMeansClassifier {
    /// = w (k, d) and b (k), the classifier.
    pub classifier: Classifier,
    /// (k, d), the centroids.
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
    /// += (k, d), the sum of the points of each cluster.
    pub sums: Slot<f32>,
    /// += (k), the number of points of each cluster.
    pub counts: Slot<u32>,
    /// += (1), the sum of the points' best scores.
    pub score: Slot<f32>,
    /// (rows, d), unit vectors, as [`head_features`](crate::device::ops::head_features) stores
    /// them.
    pub points: Slot<Act>,
    /// The present centroids as a classifier, of at most as many clusters as were planned.
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
    /// = (k, d), the new centroids.
    pub centroids: Slot<f32>,
    /// (k), the numbers of points in `sums`. Read, and corrected for clusters that are split.
    pub counts: Slot<u32>,
    /// += (1), the number of clusters that were empty.
    pub splits: Slot<u32>,
    /// (k, d), the sum of the points of each cluster.
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
    /// (k, d), centroids, which are read and moved.
    pub centroids: Slot<f32>,
    /// += (k), the number of points of each cluster in all batches so far.
    pub totals: Slot<f32>,
    /// (k, d), the sum of this batch's points of each cluster.
    pub sums: Slot<f32>,
    /// (k), the number of this batch's points of each cluster.
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

/// The bodies of this family's ops, which every engine implements. The doors below say what each op
/// computes.
pub trait KMeansOps {
    /// Prepares the ops for this spec: asks for scratch, and fails on sizes that the engine cannot
    /// run. Returns the engine's own number for the plan.
    fn plan_kmeans(&mut self, spec: KMeansSpec) -> Result<usize>;
    fn kmeans_classifier(&mut self, a: Passed<KMeansClassifier>) -> Result<()>;
    fn kmeans_accumulate(&mut self, a: Passed<KMeansAccumulate>) -> Result<()>;
    fn kmeans_mean(&mut self, a: Passed<KMeansMean>) -> Result<()>;
    fn kmeans_step(&mut self, a: Passed<KMeansStep>) -> Result<()>;
}

/// Plans the ops of this family for `spec`. Fails on sizes that this engine cannot run.
pub fn plan_kmeans(dev: &mut dyn Engine, spec: KMeansSpec) -> Result<Plan<KMeansSpec>> {
    Ok(Plan { spec, number: dev.plan_kmeans(spec)? })
}

/// classifier = the linear classifier whose scores are those of the centroids under `metric`.
pub fn kmeans_classifier(dev: &mut dyn Engine, a: KMeansClassifier) -> Result<()> {
    door(dev, &UNPLANNED, &a, |dev, a| dev.kmeans_classifier(a))
}

/// Assigns each stored point to its best cluster a: sums += the point into row a, counts += 1 into
/// a, score += the score of a. Like [`head_accumulate`](crate::device::ops::head_accumulate), but
/// from stored points. Sums of points are exact but for the rounding of f32 sums.
pub fn kmeans_accumulate(
    dev: &mut dyn Engine,
    plan: &Plan<KMeansSpec>,
    a: KMeansAccumulate,
) -> Result<()> {
    door(dev, plan, &a, |dev, a| dev.kmeans_accumulate(a))
}

/// Lloyd's update: each centroid becomes the mean of its points, sums / counts. An empty cluster,
/// in ascending order, takes half of the points of the largest one, the donor (the lower index
/// among equals; Faiss draws it at random). Both become the donor's centroid, with channel j of the
/// formerly empty one multiplied by 1 + ε and of the donor by 1 − ε, where ε = 1/1024 for even j
/// and −1/1024 for odd j (Faiss's perturbation); the empty one gets ⌊half⌋ of the count and the
/// donor the rest. If there is no point at all, centroids and counts stay.
pub fn kmeans_mean(dev: &mut dyn Engine, a: KMeansMean) -> Result<()> {
    door(dev, &UNPLANNED, &a, |dev, a| dev.kmeans_mean(a))
}

/// The mini-batch update of k-means (Sculley 2010, and the released code). For each cluster with m
/// = counts > 0 points in this batch: totals += m, η = m/(totals + 1e-6), c = (1 − η)·c + η·sums/m.
pub fn kmeans_step(dev: &mut dyn Engine, a: KMeansStep) -> Result<()> {
    door(dev, &UNPLANNED, &a, |dev, a| dev.kmeans_step(a))
}
