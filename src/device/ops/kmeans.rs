//! k-means on unit vectors: sums of stored points, the two centroid updates, centroids as a linear
//! classifier.
//!
//! The squared distance of a unit vector f to c is 1 − 2·(f·c − ‖c‖²/2): the nearest centroid is
//! the arg-max of a linear score, and the objective of P points is P − 2·Σ score.

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};
use crate::device::Slot;
use crate::device::ops::{Classifier, Memory, want};

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

impl KMeansSpec {
    /// The door of [`KMeans::kmeans_accumulate`].
    pub(crate) fn check_accumulate(
        &self,
        sums: Slot<f32>,
        counts: Slot<u32>,
        score: Slot<f32>,
        points: Slot<f32>,
        classifier: Classifier,
    ) -> Result<()> {
        const OP: &str = "kmeans_accumulate";
        let Classifier { w, b, k } = classifier;
        if k == 0 || k > self.k {
            return Err(Error::Shape { op: OP, what: "a classifier", got: k, want: self.k });
        }
        want(OP, "w", w, k * self.d)?;
        want(OP, "b", b, k)?;
        want(OP, "sums", sums, k * self.d)?;
        want(OP, "counts", counts, k)?;
        want(OP, "score", score, 1)?;
        want(OP, "points", points, points.len / self.d * self.d)
    }
}

/// d of a slot (k, d), both at least 1.
fn width(op: &'static str, what: &'static str, slot: Slot<f32>, k: usize) -> Result<usize> {
    let d = (slot.len / k.max(1)).max(1);
    want(op, what, slot, k.max(1) * d)?;
    Ok(d)
}

/// The door of [`KMeans::kmeans_classifier`]; returns d, as the ones below.
pub(crate) fn check_classifier(classifier: Classifier, centroids: Slot<f32>) -> Result<usize> {
    const OP: &str = "kmeans_classifier";
    want(OP, "b", classifier.b, classifier.k)?;
    want(OP, "w", classifier.w, centroids.len)?;
    width(OP, "centroids", centroids, classifier.k)
}

/// The door of [`KMeans::kmeans_mean`].
pub(crate) fn check_mean(
    centroids: Slot<f32>,
    counts: Slot<u32>,
    splits: Slot<u32>,
    sums: Slot<f32>,
) -> Result<usize> {
    const OP: &str = "kmeans_mean";
    let d = width(OP, "centroids", centroids, counts.len)?;
    want(OP, "sums", sums, centroids.len)?;
    want(OP, "splits", splits, 1)?;
    Ok(d)
}

/// The door of [`KMeans::kmeans_step`].
pub(crate) fn check_step(
    centroids: Slot<f32>,
    totals: Slot<f32>,
    sums: Slot<f32>,
    counts: Slot<u32>,
) -> Result<usize> {
    const OP: &str = "kmeans_step";
    let d = width(OP, "centroids", centroids, counts.len)?;
    want(OP, "sums", sums, centroids.len)?;
    want(OP, "totals", totals, counts.len)?;
    Ok(d)
}

pub trait KMeans: Memory {
    type KMeansPlan: Clone;

    fn plan_kmeans(&mut self, spec: KMeansSpec) -> Result<Self::KMeansPlan>;

    /// classifier = what `metric` makes of centroids (k, d).
    fn kmeans_classifier(
        &mut self,
        classifier: Classifier,
        centroids: Slot<f32>,
        metric: Metric,
    ) -> Result<()>;

    /// As [`Head::head_accumulate`](crate::device::ops::Head::head_accumulate), from stored points
    /// (rows, d).
    fn kmeans_accumulate(
        &mut self,
        plan: &Self::KMeansPlan,
        sums: Slot<f32>,
        counts: Slot<u32>,
        score: Slot<f32>,
        points: Slot<f32>,
        classifier: Classifier,
    ) -> Result<()>;

    /// Lloyd's update: c = sums / counts. Each empty cluster, in ascending order, takes half of the
    /// points of the largest one (the donor; the lower index of equals; Faiss draws it at random):
    /// both become the donor's centroid, channel j of the formerly empty one times 1 + ε and of the
    /// donor times 1 − ε, ε = 1/1024 for even j and −1/1024 for odd (Faiss's perturbation), with
    /// ⌊half⌋ of the counts for the empty one and the rest for the donor. Without any point,
    /// centroids and counts stay. counts are updated accordingly; splits (1) += clusters that were
    /// empty.
    fn kmeans_mean(
        &mut self,
        centroids: Slot<f32>,
        counts: Slot<u32>,
        splits: Slot<u32>,
        sums: Slot<f32>,
    ) -> Result<()>;

    /// Mini-batch update (Sculley 2010; released code): for each cluster with m = counts > 0 points
    /// in this batch, totals += m, η = m/(totals + 1e-6), c = (1 − η)·c + η·sums/m.
    fn kmeans_step(
        &mut self,
        centroids: Slot<f32>,
        totals: Slot<f32>,
        sums: Slot<f32>,
        counts: Slot<u32>,
    ) -> Result<()>;
}
