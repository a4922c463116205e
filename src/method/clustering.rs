//! The passes without gradients that begin an epoch of PiCIE and MDC: k-means of each view's
//! features, then pseudo labels, the nearest centroid of each pixel.

use crate::augment::View;
use crate::base::Result;
use crate::base::rng::{Rng, Stream};
use crate::cluster::{MiniBatch, Scorer, Summary};
use crate::data::ImageStore;
use crate::device::ops::{Classifier, HeadAssign, Metric, Target, head_assign};
use crate::device::{Engine, Layout, Pool, Slot};
use crate::method::common::Pass;
use crate::method::{Batching, Common, Programs, Tick, program_spec};
use crate::net::{FEATURES, Mode, Network};
use crate::recipe::{KMeansStart, NormMode, Recipe};

/// The pseudo labels of one view at one number of clusters, and the centroids that they come from.
#[derive(Clone, Copy)]
pub struct PseudoLabels {
    /// The centroids.
    pub scorer: Scorer,
    /// The centroids as the classifier of this epoch's training steps. `None` before
    /// [`Clustering::prepare`].
    classifier: Option<Classifier>,
    /// (images, size/4, size/4), the label of each pixel.
    pub labels: Slot<u16>,
    /// (k), the number of pixels with each label.
    pub counts: Slot<u32>,
    /// (k), the weight of each class in the cross-entropy.
    pub weights: Slot<f32>,
}

impl PseudoLabels {
    fn plan(layout: &mut Layout, name: &str, k: usize, labels: usize) -> Self {
        PseudoLabels {
            scorer: Scorer::plan(layout, name, k),
            classifier: None,
            weights: layout.take(Pool::State, format!("class weights {name}"), k),
            labels: layout.take(Pool::State, format!("labels {name}"), labels),
            counts: layout.take(Pool::State, format!("label counts {name}"), k),
        }
    }

    /// The cross-entropy of the centroids' scores against these labels, multiplied by `scale`.
    /// Panics before [`Clustering::prepare`].
    pub fn target(&self, scale: f32) -> Target {
        let classifier = self.classifier.expect("prepared before the first step");
        Target { classifier, labels: self.labels, weights: self.weights, scale }
    }
}

/// One pass over the data set: the epoch that it belongs to, and the view that it looks at.
#[derive(Clone, Copy, Debug)]
pub struct ViewPass {
    /// The epoch, counted from 1.
    pub epoch: usize,
    /// The number of the view, from 0.
    pub view: usize,
}

/// A k-means pass: where its points come from, and where its centroids go.
#[derive(Clone, Copy)]
struct KMeansPass {
    /// The epoch, counted from 1.
    epoch: usize,
    /// The view whose pixels are clustered.
    view: View,
    /// The number of the view whose centroids are overwritten.
    number: usize,
    /// Whether k-means starts from the present centroids.
    warm: bool,
}

/// The k-means and label passes of all views.
pub struct Clustering {
    /// The programs of k-means passes.
    kmeans: Programs,
    /// The programs of label passes.
    label: Programs,
    /// A k-means for each number of clusters. Views use it one after the other.
    cluster: Vec<MiniBatch>,
    /// The views that are clustered.
    views: Vec<View>,
    /// The pseudo labels by view, then by number of clusters.
    pseudo: Vec<Vec<PseudoLabels>>,
}

impl Clustering {
    /// Plans the passes over `views` of `images` images, for the recipe's number of clusters and
    /// the auxiliary one, if any. Fails if there are fewer points than clusters.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        net: &Network,
        r: &Recipe,
        images: usize,
        views: &[View],
    ) -> Result<Self> {
        let mode = |norm| if norm == NormMode::Batch { Mode::Batch } else { Mode::Eval };
        let batching = Batching { images, batch: r.batch_cluster };
        let mut programs =
            |mode| Programs::plan(dev, layout, net, batching, 1, program_spec(r), mode);
        let (kmeans, label) = (programs(mode(r.kmeans_norm))?, programs(mode(r.label_norm))?);
        let pixels = r.feature_pixels();
        let stored = images.min(r.init_batches.saturating_mul(r.batch_cluster)) * pixels;
        let ks = [r.clusters, r.auxiliary].into_iter().filter(|&k| k > 0);
        // All clusterings of a pass begin with the same points, so they share them.
        let points = layout.acts(Pool::State, "k-means points", stored * FEATURES);
        let cluster = ks.clone().map(|k| MiniBatch::plan(dev, layout, r.schedule(), k, points));
        let cluster = cluster.collect::<Result<_>>()?;
        let mut pseudo = |view: usize| -> Vec<PseudoLabels> {
            let name = |k| match k == r.clusters {
                true => format!("{view}"),
                false => format!("{view} of {k}"),
            };
            let plan = |k| PseudoLabels::plan(layout, &name(k), k, images * pixels);
            ks.clone().map(plan).collect()
        };
        let pseudo = (1..=views.len()).map(&mut pseudo).collect();
        Ok(Clustering { kmeans, label, cluster, views: views.to_vec(), pseudo })
    }

    /// Copies the centroids of every view and number of clusters to the host, so that a pass that
    /// moves them can be undone.
    pub fn centroids(&self, dev: &mut dyn Engine) -> Result<Vec<Vec<f32>>> {
        self.pseudo.iter().flatten().map(|p| dev.read(p.scorer.centroids)).collect()
    }

    /// Puts back what [`Clustering::centroids`] returned.
    pub fn restore_centroids(&self, dev: &mut dyn Engine, centroids: &[Vec<f32>]) -> Result<()> {
        self.pseudo
            .iter()
            .flatten()
            .zip(centroids)
            .try_for_each(|(p, values)| dev.write(p.scorer.centroids, values))
    }

    /// The pseudo labels by view, then by number of clusters: the recipe's, then the auxiliary one.
    pub fn pseudo(&self) -> &[Vec<PseudoLabels>] {
        &self.pseudo
    }

    /// Computes the centroids of one view. Returns the summary of k-means for the recipe's number
    /// of clusters.
    pub fn kmeans(
        &mut self,
        common: &mut Common,
        dev: &mut dyn Engine,
        set: &ImageStore,
        ViewPass { epoch, view: number }: ViewPass,
        tick: Tick,
    ) -> Result<Summary> {
        let warm = common.recipe.kmeans_start == KMeansStart::Last && epoch > 1;
        let pass = KMeansPass { epoch, view: self.views[number], number, warm };
        self.kmeans_pass(common, dev, set, pass, tick)
    }

    /// Computes centroids of images without augmentation, in place of view 1's. The released code
    /// does so after training.
    pub fn fresh_kmeans(
        &mut self,
        common: &mut Common,
        dev: &mut dyn Engine,
        set: &ImageStore,
        epoch: usize,
        tick: Tick,
    ) -> Result<Summary> {
        let pass = KMeansPass { epoch, view: View::Plain, number: 0, warm: false };
        self.kmeans_pass(common, dev, set, pass, tick)
    }

    /// Runs a k-means pass at every number of clusters.
    fn kmeans_pass(
        &mut self,
        common: &mut Common,
        dev: &mut dyn Engine,
        set: &ImageStore,
        pass: KMeansPass,
        tick: Tick,
    ) -> Result<Summary> {
        let KMeansPass { epoch, view, number, warm } = pass;
        let rng = |which: usize| {
            let stream = (number + self.views.len() * which) as u32;
            Rng::new(common.seed, Stream::KMeansInit, epoch as u32, stream)
        };
        let mut rngs: Vec<Rng> = (0..self.cluster.len()).map(rng).collect();
        let order = common.order(Stream::ClusterOrder, epoch, 0);
        if common.recipe.kmeans_norm == NormMode::Running {
            common.net.fold(dev)?;
        }
        for cluster in &mut self.cluster {
            cluster.begin(dev, warm)?;
        }
        let views = [&[view], &common.feeder.companions(view, epoch)[..]].concat();
        let chunks: Vec<&[u32]> = order.chunks(common.recipe.batch_cluster).collect();
        for (i, &ids) in chunks.iter().enumerate() {
            let program = self.kmeans.of(ids.len());
            common.stage_views(dev, program, set, ids, epoch, &views)?;
            common.replay(dev, Pass::KMeans(view), ids.len(), |dev, feeder, net| {
                // The pass's own view last: it is the one that stays.
                for (at, &view) in views.iter().enumerate().rev() {
                    feeder.render(dev, program.x, ids.len(), at, view)?;
                }
                program.forward(dev, net)
            })?;
            let next = chunks.get(i + 1).copied().unwrap_or_default();
            common.feeder.prefetch(dev, set, next)?;
            for ((cluster, rng), pseudo) in
                self.cluster.iter_mut().zip(&mut rngs).zip(&self.pseudo[number])
            {
                cluster.push(dev, program, &pseudo.scorer, rng, i + 1 == chunks.len())?;
            }
            tick(ids.len())?;
        }
        views.iter().for_each(|&view| common.feeder.rendered(view, epoch));
        let summaries = self.cluster.iter_mut().map(|cluster| cluster.finish(dev));
        Ok(summaries.collect::<Result<Vec<_>>>()?[0])
    }

    /// Computes the pseudo labels of one view, at every number of clusters.
    pub fn label(
        &mut self,
        common: &mut Common,
        dev: &mut dyn Engine,
        set: &ImageStore,
        ViewPass { epoch, view: number }: ViewPass,
        tick: Tick,
    ) -> Result<()> {
        let (view, pseudo) = (self.views[number], &self.pseudo[number]);
        let mut classifiers = Vec::new();
        for p in pseudo {
            classifiers.push(p.scorer.by(dev, common.recipe.label_metric)?);
            dev.zero(p.counts)?;
        }
        if common.recipe.label_norm == NormMode::Running {
            common.net.fold(dev)?;
        }
        let order = common.order(Stream::ClusterOrder, epoch, 0);
        let chunks: Vec<&[u32]> = order.chunks(common.recipe.batch_cluster).collect();
        for (i, &ids) in chunks.iter().enumerate() {
            let program = self.label.of(ids.len());
            common.stage_views(dev, program, set, ids, epoch, &[view])?;
            let index = common.index.part(0, ids.len());
            dev.write(index, ids)?;
            common.replay(dev, Pass::Labels(view), ids.len(), |dev, feeder, net| {
                feeder.render(dev, program.x, ids.len(), 0, view)?;
                program.forward(dev, net)?;
                for (p, &classifier) in pseudo.iter().zip(&classifiers) {
                    let (labels, counts, input) = (p.labels, p.counts, program.warped());
                    let args = HeadAssign { labels, counts, input, index, classifier };
                    head_assign(dev, &program.head, args)?;
                }
                Ok(())
            })?;
            let next = chunks.get(i + 1).copied().unwrap_or_default();
            common.feeder.prefetch(dev, set, next)?;
            tick(ids.len())?;
        }
        common.feeder.rendered(view, epoch);
        Ok(())
    }

    /// Makes the classifiers and the class weights from the centroids and counts. Called once,
    /// before the epoch's training steps.
    pub fn prepare(&mut self, dev: &mut dyn Engine, recipe: &Recipe) -> Result<()> {
        for p in self.pseudo.iter_mut().flatten() {
            let classifier = p.scorer.by(dev, recipe.score_metric)?;
            if recipe.score_scale != 1.0 {
                for slot in [classifier.w, classifier.b] {
                    let values = dev.read(slot)?.into_iter();
                    let scaled: Vec<f32> = values.map(|v| recipe.score_scale * v).collect();
                    dev.write(slot, &scaled)?;
                }
            }
            p.classifier = Some(classifier);
            let counts = dev.read(p.counts)?;
            dev.write(p.weights, &recipe.balance.weights(&counts))?;
        }
        Ok(())
    }

    /// View 1's centroids as a classifier, at the recipe's number of clusters.
    pub fn classifier(&self, dev: &mut dyn Engine, metric: Metric) -> Result<Classifier> {
        self.pseudo[0][0].scorer.by(dev, metric)
    }
}
