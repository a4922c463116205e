//! Predictions of a trained network: scores resampled to the label size, arg-max, confusion.

use crate::augment::{Augment, Feeder, View};
use crate::base::Result;
use crate::base::rng::{Rng, Stream};
use crate::cluster::{MiniBatch, Schedule, Summary};
use crate::data::{EvalStore, ImageStore};
use crate::device::ops::{Backend, Classifier, Crop, Merge, Metric};
use crate::device::{Layout, Pool, Slot};
use crate::eval::Confusion;
use crate::method::{Programs, Tick, batch_sizes};
use crate::net::{FEATURES, Geometry, Mode, Network};

/// Evaluates classifiers on a set of square images with labels of the same size.
pub struct Evaluator<B: Backend> {
    programs: Programs<B>,
    feeder: Feeder<B>,
    batch: usize,
    classifier: Classifier,
    pred: Slot<u16>,
    labels: Slot<u8>,
    counts: Slot<u32>,
    classes: usize,
    host: Vec<u8>,
    /// For a k-means of the set's own features.
    cluster: Option<MiniBatch<B>>,
}

impl<B: Backend> Evaluator<B> {
    /// For `total` images of `size`² pixels, in batches of `batch`, and `k` clusters.
    pub fn plan(
        dev: &mut B,
        layout: &mut Layout,
        net: &Network<B>,
        (total, batch, size): (usize, usize, usize),
        (k, classes, merge): (usize, usize, Merge),
        kmeans: Option<Schedule>,
    ) -> Result<Self> {
        let geometry = Geometry { n: 0, h: size, w: size, groups: 1, k, merge, unit: true };
        let programs = Programs::plan(dev, layout, net, (total, batch, 1), geometry, Mode::Eval)?;
        let [full, tail] = batch_sizes(total, batch);
        let feeder = Feeder::plan(
            dev,
            layout,
            Augment::supplement(),
            0,
            (size, size),
            &[full, tail].into_iter().filter(|&n| n > 0).collect::<Vec<_>>(),
            None,
        )?;
        let cluster = kmeans.map(|schedule| {
            let points = total.min(schedule.init_batches.saturating_mul(full)) * (size / 4).pow(2);
            MiniBatch::plan(dev, layout, schedule, k, points)
        });
        let cluster = cluster.transpose()?;
        let mut state = |name: &str, len: usize| layout.take(Pool::State, format!("evaluation {name}"), len);
        let classifier = Classifier { w: state("classifier", k * FEATURES), b: state("bias", k), k };
        Ok(Evaluator {
            programs,
            feeder,
            batch: full,
            classifier,
            pred: layout.take(Pool::State, "evaluation predictions", full * size * size),
            labels: layout.take(Pool::Staging, "evaluation labels", full * size * size),
            counts: layout.take(Pool::State, "evaluation confusion", classes * k),
            classes,
            host: Vec::new(),
            cluster,
        })
    }

    /// The confusion of `centroids` (k, FEATURES), scored by `metric`, over the whole set.
    pub fn run(
        &mut self,
        dev: &mut B,
        net: &Network<B>,
        set: &EvalStore,
        centroids: Slot<f32>,
        metric: Metric,
        tick: Tick,
    ) -> Result<Confusion> {
        self.begin(dev, net, centroids, metric)?;
        dev.zero(self.counts)?;
        let ids: Vec<u32> = (0..set.images.len() as u32).collect();
        let chunks: Vec<&[u32]> = ids.chunks(self.batch).collect();
        for (i, &ids) in chunks.iter().enumerate() {
            self.stage(dev, &set.images, ids)?;
            self.host.resize(ids.len() * self.feeder.size().pow(2), 0);
            set.gather_labels(ids, &mut self.host)?;
            let labels = self.labels.part(0, self.host.len());
            dev.write(labels, &self.host)?;
            let pred = self.predict_staged(dev, net, ids.len())?;
            dev.confusion(self.counts, pred, labels, self.classifier.k)?;
            let next = chunks.get(i + 1).copied().unwrap_or_default();
            self.feeder.prefetch(dev, next, |out| set.images.gather(next, out))?;
            tick(ids.len())?;
        }
        let counts = dev.read(self.counts)?.into_iter().map(u64::from).collect();
        Ok(Confusion { classes: self.classes, clusters: self.classifier.k, counts })
    }

    /// Predicted clusters (images, size, size) of the first `images` of the set.
    pub fn predict(
        &mut self,
        dev: &mut B,
        net: &Network<B>,
        set: &ImageStore,
        (centroids, metric): (Slot<f32>, Metric),
        images: usize,
    ) -> Result<Vec<u16>> {
        self.begin(dev, net, centroids, metric)?;
        let side = self.feeder.size();
        let mut out = Vec::new();
        let ids: Vec<u32> = (0..set.len() as u32).collect();
        // Whole batches only, because those are what programs were planned for.
        for ids in ids.chunks(self.batch).take_while(|ids| (ids[0] as usize) < images) {
            self.stage(dev, set, ids)?;
            let pred = self.predict_staged(dev, net, ids.len())?;
            out.extend(dev.read(pred)?);
        }
        out.truncate(images * side * side);
        Ok(out)
    }

    fn begin(&mut self, dev: &mut B, net: &Network<B>, centroids: Slot<f32>, metric: Metric) -> Result<()> {
        net.fold(dev)?;
        dev.kmeans_classifier(self.classifier, centroids, metric)
    }

    /// Centroids of the set's own features, as a classifier without training would have them.
    pub fn cluster(
        &mut self,
        dev: &mut B,
        net: &Network<B>,
        set: &ImageStore,
        centroids: Slot<f32>,
        tick: Tick,
    ) -> Result<Summary> {
        net.fold(dev)?;
        let mut cluster = self.cluster.take().expect("planned with a k-means schedule");
        let mut rng = Rng::new(1, Stream::KMeansInit, 0, 0);
        cluster.begin(dev)?;
        let ids: Vec<u32> = (0..set.len() as u32).collect();
        let batches = ids.len().div_ceil(self.batch);
        for (i, ids) in ids.chunks(self.batch).enumerate() {
            self.stage(dev, set, ids)?;
            let program = self.programs.of(ids.len());
            dev.write(program.crops, &vec![Crop::whole(program.geometry.h / 4); ids.len()])?;
            self.feeder.render(dev, program.x, ids.len(), 0, View::Plain)?;
            program.forward(dev, net)?;
            cluster.push(dev, program, centroids, &mut rng, i + 1 == batches)?;
            tick(ids.len())?;
        }
        let summary = cluster.finish(dev);
        self.cluster = Some(cluster);
        summary
    }

    fn stage(&mut self, dev: &mut B, set: &ImageStore, ids: &[u32]) -> Result<()> {
        self.feeder.stage(dev, ids, 0, &[View::Plain], |out| set.gather(ids, out))
    }

    /// Predictions of the `n` images that are staged.
    fn predict_staged(&mut self, dev: &mut B, net: &Network<B>, n: usize) -> Result<Slot<u16>> {
        let side = self.feeder.size();
        let pred = self.pred.part(0, n * side * side);
        let program = self.programs.of(n);
        self.feeder.render(dev, program.x, n, 0, View::Plain)?;
        program.forward(dev, net)?;
        dev.head_predict(&program.head, pred, (side, side), program.plain(), self.classifier)?;
        Ok(pred)
    }
}
