//! k-means on unit vectors: sums of stored points, the two centroid updates, centroids as a linear classifier.
//!
//! The squared distance of a unit vector f to c is 1 − 2·(f·c − ‖c‖²/2): the nearest centroid is the arg-max of a linear
//! score, and the objective of P points is P − 2·Σ score.

use serde::{Deserialize, Serialize};

use crate::base::Result;
use crate::device::Slot;
use crate::device::ops::{Classifier, Memory};

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

pub trait KMeans: Memory {
    /// classifier = what `metric` makes of centroids (k, d).
    fn kmeans_classifier(&mut self, classifier: Classifier, centroids: Slot<f32>, metric: Metric) -> Result<()>;

    /// As [`Head::head_accumulate`](crate::device::ops::Head::head_accumulate), from stored points (rows, d).
    fn kmeans_accumulate(
        &mut self,
        sums: Slot<f32>,
        counts: Slot<u32>,
        score: Slot<f32>,
        points: Slot<f32>,
        classifier: Classifier,
    ) -> Result<()>;

    /// Lloyd's update: c = sums / counts. Each empty cluster, in ascending order, takes half of the points of the largest one
    /// (the donor; the lower index of equals; Faiss draws it at random): both become the donor's centroid, channel j of the
    /// formerly empty one times 1 + ε and of the donor times 1 − ε, ε = 1/1024 for even j and −1/1024 for odd (Faiss's
    /// perturbation), with ⌊half⌋ of the counts for the empty one and the rest for the donor. Without any point, centroids
    /// and counts stay. counts are updated accordingly; splits (1) += clusters that were empty.
    fn kmeans_mean(
        &mut self,
        centroids: Slot<f32>,
        counts: Slot<u32>,
        splits: Slot<u32>,
        sums: Slot<f32>,
    ) -> Result<()>;

    /// Mini-batch update (Sculley 2010; released code): for each cluster with m = counts > 0 points in this batch,
    /// totals += m, η = m/(totals + 1e-6), c = (1 − η)·c + η·sums/m.
    fn kmeans_step(
        &mut self,
        centroids: Slot<f32>,
        totals: Slot<f32>,
        sums: Slot<f32>,
        counts: Slot<u32>,
    ) -> Result<()>;
}
