//! Bodies of k-means. Sums of stored points are put together as the head's are.

use crate::base::{Error, Result};
use crate::device::cuda::Cuda;
use crate::device::cuda::head::Partials;
use crate::device::cuda::kernels;
use crate::device::cuda::kernels::consts::kmeans::{CHUNK, COSINE, D, DOT, GAP, L2, NEAR, TILE};
use crate::device::ops::kmeans::KMeansOps;
use crate::device::ops::{
    Classifier, KMeansAccumulate, KMeansClassifier, KMeansMean, KMeansSpec, KMeansStep, Metric,
    Passed,
};

/// Dynamic shared memory of a block that adds up points of `k` clusters: two tiles, or one and near
/// sums; `act` bytes a number of a point.
fn shared(k: usize, act: usize) -> usize {
    let tile = TILE * (D * act + GAP);
    match k {
        0..=CHUNK => 2 * tile,
        _ => tile + if k <= NEAR { k * D * 4 } else { 0 },
    }
}

impl KMeansOps for Cuda {
    fn plan_kmeans(&mut self, spec: KMeansSpec) -> Result<usize> {
        if spec.d != D {
            let what = format!("k-means on CUDA has points of {D} channels, not {}", spec.d);
            return Err(Error::input(what, "use --device cpu for others"));
        }
        let most = [CHUNK, NEAR].map(|k| shared(k, self.dtype.bytes()));
        self.allow_shared::<kernels::KmeansAccumulate>(most[0].max(most[1]))?;
        self.ask_scratch(Partials::most_bytes(spec.k));
        Ok(0)
    }

    fn kmeans_classifier(&mut self, a: Passed<KMeansClassifier>) -> Result<()> {
        let KMeansClassifier { classifier: Classifier { w, b, k }, centroids, metric } = *a;
        let metric = match metric {
            Metric::L2 => L2,
            Metric::Dot => DOT,
            Metric::Cosine => COSINE,
        };
        let kernel = kernels::KmeansClassifier { w, b, centroids, d: centroids.len / k, metric };
        self.launch(k, 0, kernel)
    }

    fn kmeans_accumulate(&mut self, a: Passed<KMeansAccumulate>) -> Result<()> {
        let KMeansAccumulate { sums, counts, score, points, classifier } = *a;
        let (Classifier { w: cw, b: cb, k }, rows) = (classifier, points.len / D);
        let partials = Partials::new(rows.div_ceil(TILE), k);
        let ((partial, partial_score), near) = (partials.slots(self, 0)?, partials.near);
        let kernel = kernels::KmeansAccumulate {
            partial,
            partial_score,
            counts,
            points,
            cw,
            cb,
            rows,
            k,
            near,
        };
        self.launch(partials.parts, shared(k, self.dtype.bytes()), kernel)?;
        self.add_parts(sums, partial, partials.parts, Some((score, partial_score)))
    }

    fn kmeans_mean(&mut self, a: Passed<KMeansMean>) -> Result<()> {
        let KMeansMean { centroids, counts, splits, sums } = *a;
        let (k, d) = (counts.len, centroids.len / counts.len);
        self.launch(k, 0, kernels::KmeansMean { centroids, sums, counts, d })?;
        self.launch(1, 0, kernels::KmeansSplit { centroids, counts, splits, k, d })
    }

    fn kmeans_step(&mut self, a: Passed<KMeansStep>) -> Result<()> {
        let KMeansStep { centroids, totals, sums, counts } = *a;
        let (k, d) = (counts.len, centroids.len / counts.len);
        self.launch(k, 0, kernels::KmeansStep { centroids, totals, sums, counts, d })
    }
}
