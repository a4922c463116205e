//! Launchers of `cuda/kmeans.cu`.
//!
//! NOTE: the trait has no plan, so kernels are looked up as an op begins, and the sums of stored points lie in scratch that a head
//! of as many clusters has asked for.

use super::context::{Arg, Cuda, Grid};
use super::head::{D, Partials, THREADS, TILE};
use crate::base::{Error, Result};
use crate::device::ops::{Classifier, KMeans, Memory, Metric, want};
use crate::device::{Activation, Slot};

/// Threads of a block that has a cluster.
const CLUSTER: u32 = 128;

/// d of a slot (k, d), both at least 1.
fn width(op: &'static str, what: &'static str, slot: Slot<f32>, k: usize) -> Result<usize> {
    let d = (slot.len / k.max(1)).max(1);
    want(op, what, slot, k.max(1) * d)?;
    Ok(d)
}

impl<A: Activation> KMeans for Cuda<A> {
    fn kmeans_classifier(&mut self, classifier: Classifier, centroids: Slot<f32>, metric: Metric) -> Result<()> {
        const OP: &str = "kmeans_classifier";
        let Classifier { w, b, k } = classifier;
        want(OP, "b", b, k)?;
        want(OP, "w", w, centroids.len)?;
        let d = width(OP, "centroids", centroids, k)?;
        let metric = match metric {
            Metric::L2 => 0,
            Metric::Dot => 1,
            Metric::Cosine => 2,
        };
        let kernel = self.kernel("kmeans_classifier")?;
        let args = [self.at(w), self.at(b), self.at(centroids), d.into(), Arg::from(metric)];
        self.launch(kernel, Grid::new(k, CLUSTER), &args)
    }

    fn kmeans_accumulate(
        &mut self,
        sums: Slot<f32>,
        counts: Slot<u32>,
        score: Slot<f32>,
        points: Slot<f32>,
        classifier: Classifier,
    ) -> Result<()> {
        const OP: &str = "kmeans_accumulate";
        let Classifier { w, b, k } = classifier;
        let d = width(OP, "w", w, k)?;
        want(OP, "b", b, k)?;
        want(OP, "sums", sums, k * d)?;
        want(OP, "counts", counts, k)?;
        want(OP, "score", score, 1)?;
        want(OP, "points", points, points.len / d * d)?;
        if d != D {
            return Err(Error::Shape { op: OP, what: "a point", got: d, want: D });
        }
        if self.scratch_bytes() < Partials::most_bytes(k) {
            let what = format!("k-means of {k} clusters in scratch that was planned for fewer");
            return Err(Error::input(what, "plan a head of as many clusters first"));
        }
        let rows = points.len / D;
        let partials = Partials::new(rows.div_ceil(TILE), k);
        let (partial, scores) = partials.slots(self, 0);
        let (partial, scores) = (self.at(partial), self.at(scores));
        let (accumulate, add) = (self.kernel("kmeans_accumulate")?, self.kernel("kmeans_sums")?);
        self.allow_shared(accumulate, Partials::most_shared())?;
        let args = [
            partial,
            scores,
            self.at(counts),
            self.at(points),
            self.at(w),
            self.at(b),
            rows.into(),
            k.into(),
            partials.near.into(),
        ];
        self.launch(accumulate, Grid::new(partials.parts, THREADS).shared(partials.shared()), &args)?;
        let (parts, len) = (partials.parts.into(), sums.len.into());
        self.launch(add, partials.columns(), &[self.at(sums), self.at(score), partial, scores, parts, len])
    }

    fn kmeans_mean(
        &mut self,
        centroids: Slot<f32>,
        counts: Slot<u32>,
        splits: Slot<u32>,
        sums: Slot<f32>,
    ) -> Result<()> {
        const OP: &str = "kmeans_mean";
        let k = counts.len;
        let d = width(OP, "centroids", centroids, k)?;
        want(OP, "sums", sums, centroids.len)?;
        want(OP, "splits", splits, 1)?;
        let (mean, split) = (self.kernel("kmeans_mean")?, self.kernel("kmeans_split")?);
        let (centroids, counts, splits, sums) = (self.at(centroids), self.at(counts), self.at(splits), self.at(sums));
        self.launch(mean, Grid::new(k, CLUSTER), &[centroids, sums, counts, d.into()])?;
        self.launch(split, Grid::new(1, THREADS), &[centroids, counts, splits, k.into(), d.into()])
    }

    fn kmeans_step(
        &mut self,
        centroids: Slot<f32>,
        totals: Slot<f32>,
        sums: Slot<f32>,
        counts: Slot<u32>,
    ) -> Result<()> {
        const OP: &str = "kmeans_step";
        let d = width(OP, "centroids", centroids, counts.len)?;
        want(OP, "sums", sums, centroids.len)?;
        want(OP, "totals", totals, counts.len)?;
        let kernel = self.kernel("kmeans_step")?;
        let args = [self.at(centroids), self.at(totals), self.at(sums), self.at(counts), d.into()];
        self.launch(kernel, Grid::new(counts.len, CLUSTER), &args)
    }
}
