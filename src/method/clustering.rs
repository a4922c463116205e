//! The passes without gradients that an epoch of PiCIE and of MDC begins with: k-means of each
//! view, then its pseudo labels.

use crate::augment::View;
use crate::base::Result;
use crate::base::rng::{Rng, Stream};
use crate::cluster::{MiniBatch, Summary};
use crate::data::ImageStore;
use crate::device::ops::{Backend, Classifier, Metric, Target};
use crate::device::{Layout, Pool, Slot};
use crate::method::common::Pass;
use crate::method::{Common, Programs, Tick, geometry};
use crate::net::{FEATURES, Mode, Network};
use crate::recipe::{KMeansStart, NormMode, Recipe};

/// Pseudo labels of one view at one number of clusters.
#[derive(Clone, Copy)]
pub struct PseudoLabels {
    /// Centroids as they score: by the label metric in the label pass, by the score metric
    /// afterwards.
    pub classifier: Classifier,
    /// (k, FEATURES)
    pub centroids: Slot<f32>,
    /// (images, size/4, size/4), and how often each occurs (k).
    pub labels: Slot<u16>,
    pub counts: Slot<u32>,
    /// Class weights (k) in the cross-entropy.
    pub weights: Slot<f32>,
}

impl PseudoLabels {
    fn plan(layout: &mut Layout, name: &str, k: usize, labels: usize) -> Self {
        let mut state =
            |what: &str, len: usize| layout.take(Pool::State, format!("{what} {name}"), len);
        PseudoLabels {
            classifier: Classifier {
                w: state("classifier", k * FEATURES),
                b: state("classifier bias", k),
                k,
            },
            centroids: state("centroids", k * FEATURES),
            weights: state("class weights", k),
            labels: layout.take(Pool::State, format!("labels {name}"), labels),
            counts: layout.take(Pool::State, format!("label counts {name}"), k),
        }
    }

    /// The cross-entropy of the centroids' scores against these labels.
    pub fn target(&self, scale: f32) -> Target {
        Target { classifier: self.classifier, labels: self.labels, weights: self.weights, scale }
    }
}

pub struct Clustering<B: Backend> {
    kmeans: Programs<B>,
    label: Programs<B>,
    /// For each number of clusters, one view after the other.
    cluster: Vec<MiniBatch<B>>,
    views: Vec<View>,
    /// By view, then by number of clusters.
    pseudo: Vec<Vec<PseudoLabels>>,
}

impl<B: Backend> Clustering<B> {
    /// For `views` of `images` images, and the recipe's clusters, auxiliary ones too.
    pub fn plan(
        dev: &mut B,
        layout: &mut Layout,
        net: &Network<B>,
        r: &Recipe,
        images: usize,
        views: &[View],
    ) -> Result<Self> {
        let mode = |norm| if norm == NormMode::Batch { Mode::Batch } else { Mode::Eval };
        let mut programs = |mode| {
            Programs::plan(dev, layout, net, (images, r.batch_cluster, 1), geometry(r), mode)
        };
        let (kmeans, label) = (programs(mode(r.kmeans_norm))?, programs(mode(r.label_norm))?);
        let pixels = (r.size / 4).pow(2);
        let stored = images.min(r.init_batches.saturating_mul(r.batch_cluster)) * pixels;
        let ks = [r.clusters, r.auxiliary].into_iter().filter(|&k| k > 0);
        // Each clustering of a pass begins with the same points.
        let points = layout.take(Pool::State, "k-means points", stored * FEATURES);
        let cluster = ks.clone().map(|k| MiniBatch::plan(dev, layout, r.schedule(), k, points));
        let cluster = cluster.collect::<Result<_>>()?;
        let mut pseudo = |view: usize| -> Vec<PseudoLabels> {
            let name =
                |k| if k == r.clusters { format!("{view}") } else { format!("{view} of {k}") };
            ks.clone().map(|k| PseudoLabels::plan(layout, &name(k), k, images * pixels)).collect()
        };
        let pseudo = (1..=views.len()).map(&mut pseudo).collect();
        Ok(Clustering { kmeans, label, cluster, views: views.to_vec(), pseudo })
    }

    /// The centroids of every view and number of clusters, to undo a pass that moved them.
    pub fn centroids(&self, dev: &mut B) -> Result<Vec<Vec<f32>>> {
        self.pseudo.iter().flatten().map(|p| dev.read(p.centroids)).collect()
    }

    /// Puts back what [`Clustering::centroids`] returned.
    pub fn restore_centroids(&self, dev: &mut B, centroids: &[Vec<f32>]) -> Result<()> {
        self.pseudo
            .iter()
            .flatten()
            .zip(centroids)
            .try_for_each(|(p, values)| dev.write(p.centroids, values))
    }

    /// By view, then by number of clusters: the recipe's, then the auxiliary one.
    pub fn pseudo(&self) -> &[Vec<PseudoLabels>] {
        &self.pseudo
    }

    /// Centroids of one view. Returns what k-means says of the recipe's clusters.
    pub fn kmeans(
        &mut self,
        common: &mut Common<B>,
        dev: &mut B,
        set: &ImageStore,
        (epoch, view): (usize, usize),
        tick: Tick,
    ) -> Result<Summary> {
        let warm = common.recipe.kmeans_start == KMeansStart::Last && epoch > 1;
        self.kmeans_of(common, dev, set, epoch, (self.views[view], view, warm), tick)
    }

    /// Centroids of images without augmentation, in place of view 1's (released code: after
    /// training).
    pub fn fresh_kmeans(
        &mut self,
        common: &mut Common<B>,
        dev: &mut B,
        set: &ImageStore,
        epoch: usize,
        tick: Tick,
    ) -> Result<Summary> {
        self.kmeans_of(common, dev, set, epoch, (View::Plain, 0, false), tick)
    }

    fn kmeans_of(
        &mut self,
        common: &mut Common<B>,
        dev: &mut B,
        set: &ImageStore,
        epoch: usize,
        (view, number, warm): (View, usize, bool),
        tick: Tick,
    ) -> Result<Summary> {
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
        let chunks: Vec<&[u32]> = order.chunks(common.recipe.batch_cluster).collect();
        for (i, &ids) in chunks.iter().enumerate() {
            let program = self.kmeans.of(ids.len());
            common.stage_view(dev, program, set, ids, epoch, view)?;
            common.replay(dev, Pass::KMeans(view), ids.len(), |dev, feeder, net| {
                feeder.render(dev, program.x, ids.len(), 0, view)?;
                program.forward(dev, net)
            })?;
            let next = chunks.get(i + 1).copied().unwrap_or_default();
            common.feeder.prefetch(dev, next, |out| set.gather(next, out))?;
            for ((cluster, rng), pseudo) in
                self.cluster.iter_mut().zip(&mut rngs).zip(&self.pseudo[number])
            {
                cluster.push(dev, program, pseudo.centroids, rng, i + 1 == chunks.len())?;
            }
            tick(ids.len())?;
        }
        let summaries = self.cluster.iter_mut().map(|cluster| cluster.finish(dev));
        Ok(summaries.collect::<Result<Vec<_>>>()?[0])
    }

    /// Pseudo labels of one view, at every number of clusters.
    pub fn label(
        &mut self,
        common: &mut Common<B>,
        dev: &mut B,
        set: &ImageStore,
        (epoch, view): (usize, usize),
        tick: Tick,
    ) -> Result<()> {
        let pseudo = &self.pseudo[view];
        for p in pseudo {
            dev.kmeans_classifier(p.classifier, p.centroids, common.recipe.label_metric)?;
            dev.zero(p.counts)?;
        }
        if common.recipe.label_norm == NormMode::Running {
            common.net.fold(dev)?;
        }
        let order = common.order(Stream::ClusterOrder, epoch, 0);
        let chunks: Vec<&[u32]> = order.chunks(common.recipe.batch_cluster).collect();
        let view = self.views[view];
        for (i, &ids) in chunks.iter().enumerate() {
            let program = self.label.of(ids.len());
            common.stage_view(dev, program, set, ids, epoch, view)?;
            let index = common.index.part(0, ids.len());
            dev.write(index, ids)?;
            common.replay(dev, Pass::Labels(view), ids.len(), |dev, feeder, net| {
                feeder.render(dev, program.x, ids.len(), 0, view)?;
                program.forward(dev, net)?;
                let mut each = pseudo.iter();
                each.try_for_each(|p| {
                    dev.head_assign(
                        &program.head,
                        p.labels,
                        p.counts,
                        program.warped(),
                        index,
                        p.classifier,
                    )
                })
            })?;
            let next = chunks.get(i + 1).copied().unwrap_or_default();
            common.feeder.prefetch(dev, next, |out| set.gather(next, out))?;
            tick(ids.len())?;
        }
        Ok(())
    }

    /// Classifiers and class weights from centroids and counts: once before the epoch's training
    /// steps.
    pub fn prepare(&self, dev: &mut B, recipe: &Recipe) -> Result<()> {
        for p in self.pseudo.iter().flatten() {
            dev.kmeans_classifier(p.classifier, p.centroids, recipe.score_metric)?;
            if recipe.score_scale != 1.0 {
                for slot in [p.classifier.w, p.classifier.b] {
                    let scaled: Vec<f32> =
                        dev.read(slot)?.into_iter().map(|v| recipe.score_scale * v).collect();
                    dev.write(slot, &scaled)?;
                }
            }
            let counts = dev.read(p.counts)?;
            dev.write(p.weights, &recipe.balance.weights(&counts))?;
        }
        Ok(())
    }

    /// View 1's centroids as a classifier.
    pub fn scorer(&self, dev: &mut B, metric: Metric) -> Result<Classifier> {
        let first = self.pseudo[0][0];
        dev.kmeans_classifier(first.classifier, first.centroids, metric)?;
        Ok(first.classifier)
    }
}
