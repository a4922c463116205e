//! Launchers of `cuda/kmeans.cu`. Sums of stored points are put together as the head's are.
//!
//! NOTE: only the pass over stored points has a plan; the kernels of the small ops are looked up as
//! they begin.

use super::context::{Arg, Cuda, Grid, Kernel};
use super::head::{D, Partials, THREADS, TILE};
use crate::base::{Error, Result};
use crate::device::ops::kmeans::{check_classifier, check_mean, check_step};
use crate::device::ops::{Classifier, KMeans, KMeansSpec, Metric};
use crate::device::{Activation, Slot};

/// Threads of a block that has a cluster.
const CLUSTER: u32 = 128;

#[derive(Clone)]
pub struct KMeansPlan {
    spec: KMeansSpec,
    accumulate: Kernel,
    sums: Kernel,
}

impl<A: Activation> KMeans for Cuda<A> {
    type KMeansPlan = KMeansPlan;

    fn plan_kmeans(&mut self, spec: KMeansSpec) -> Result<KMeansPlan> {
        if spec.d != D {
            let what = format!("k-means on CUDA has points of {D} channels, not {}", spec.d);
            return Err(Error::input(what, "use --device cpu for others"));
        }
        let plan = KMeansPlan {
            spec,
            accumulate: self.kernel("kmeans_accumulate")?,
            sums: self.sums_kernel()?,
        };
        self.allow_shared(plan.accumulate, Partials::most_shared())?;
        self.ask_scratch(Partials::most_bytes(spec.k));
        Ok(plan)
    }

    fn kmeans_classifier(
        &mut self,
        classifier: Classifier,
        centroids: Slot<f32>,
        metric: Metric,
    ) -> Result<()> {
        let d = check_classifier(classifier, centroids)?;
        let Classifier { w, b, k } = classifier;
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
        plan: &KMeansPlan,
        sums: Slot<f32>,
        counts: Slot<u32>,
        score: Slot<f32>,
        points: Slot<f32>,
        classifier: Classifier,
    ) -> Result<()> {
        plan.spec.check_accumulate(sums, counts, score, points, classifier)?;
        let (Classifier { w, b, k }, rows) = (classifier, points.len / D);
        let partials = Partials::new(rows.div_ceil(TILE), k);
        let (partial, scores) = partials.slots(self, 0)?;
        let args = [
            self.at(partial),
            self.at(scores),
            self.at(counts),
            self.at(points),
            self.at(w),
            self.at(b),
            rows.into(),
            k.into(),
            partials.near.into(),
        ];
        self.launch(
            plan.accumulate,
            Grid::new(partials.parts, THREADS).shared(partials.shared()),
            &args,
        )?;
        partials.add(self, plan.sums, sums, score, (partial, scores))
    }

    fn kmeans_mean(
        &mut self,
        centroids: Slot<f32>,
        counts: Slot<u32>,
        splits: Slot<u32>,
        sums: Slot<f32>,
    ) -> Result<()> {
        let (k, d) = (counts.len, check_mean(centroids, counts, splits, sums)?);
        let (mean, split) = (self.kernel("kmeans_mean")?, self.kernel("kmeans_split")?);
        let (centroids, counts, splits, sums) =
            (self.at(centroids), self.at(counts), self.at(splits), self.at(sums));
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
        let d = check_step(centroids, totals, sums, counts)?;
        let kernel = self.kernel("kmeans_step")?;
        let args = [self.at(centroids), self.at(totals), self.at(sums), self.at(counts), d.into()];
        self.launch(kernel, Grid::new(counts.len, CLUSTER), &args)
    }
}
