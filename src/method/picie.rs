//! PiCIE (Cho et al., CVPR 2021): pixel-level clustering with invariance to photometric and equivariance to geometric change.
//!
//! ```text
//! each epoch:  C₁ = k-means of view 1      C₂ = k-means of view 2
//!              y₁ = nearest of C₁          y₂ = nearest of C₂             and their class weights w₁, w₂
//!              each batch: L = ¼ Σ over views v and classifiers j of CE(Cⱼ·fᵥ, yⱼ; wⱼ)
//! ```
//! v = j are the within-view terms, v ≠ j the cross-view ones.

use std::collections::BTreeMap;

use crate::augment::{Feeder, View};
use crate::base::Result;
use crate::base::rng::{Rng, Stream};
use crate::cluster::{MiniBatch, Schedule, Summary};
use crate::data::ImageStore;
use crate::device::ops::{AdamSpec, Backend, Classifier, LossInput, Target};
use crate::device::{Activation, Layout, Pool, Slot};
use crate::method::{Programs, batch_sizes};
use crate::net::{Architecture, FEATURES, Geometry, Mode, Network, Program};
use crate::recipe::{NormMode, Recipe};

/// Called after each batch with its number of images; an error stops the pass.
pub type Tick<'a> = &'a mut dyn FnMut(usize) -> Result<()>;

const VIEWS: [View; 2] = [View::First, View::Second];

/// Mean cross-entropies of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// (L₁₁ + L₂₂)/2
    pub within: f64,
    /// (L₁₂ + L₂₁)/2
    pub cross: f64,
}

impl Losses {
    /// What is minimised.
    pub fn total(&self) -> f64 {
        (self.within + self.cross) / 2.0
    }
}

/// The kinds of steps that are recorded, each once a batch size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pass {
    KMeans(View),
    Labels(View),
    Train,
}

/// What a recording is of: a pass, a number of images, the buffer they lie in.
type Recorded = (Pass, usize, usize);

pub struct Picie<B: Backend> {
    pub recipe: Recipe,
    pub net: Network<B>,
    /// (clusters, FEATURES) of each view.
    pub centroids: [Slot<f32>; 2],
    /// Pseudo labels (images, size/4, size/4) of each view, and how often each occurs (clusters).
    pub labels: [Slot<u16>; 2],
    pub counts: [Slot<u32>; 2],
    seed: u64,
    images: usize,
    feeder: Feeder<B>,
    cluster: MiniBatch<B>,
    kmeans_programs: Programs<B>,
    label_programs: Programs<B>,
    train_programs: Programs<B>,
    classifiers: [Classifier; 2],
    weights: [Slot<f32>; 2],
    index: Slot<u32>,
    losses: Slot<f32>,
    correction: Slot<f32>,
    /// Images and number of the step whose inputs the host has written already.
    staged: Option<(Vec<u32>, u64)>,
    recordings: BTreeMap<Recorded, B::Recording>,
}

/// What one view of a batch needs, written before its step.
fn stage<B: Backend>(
    feeder: &mut Feeder<B>,
    dev: &mut B,
    program: &Program<B>,
    set: &ImageStore,
    ids: &[u32],
    epoch: usize,
    view: View,
) -> Result<()> {
    feeder.stage(dev, ids, epoch, &[view], |out| set.gather(ids, out))?;
    dev.write(program.crops, &feeder.feature_crops(ids, epoch, view, program.geometry.h / 4))
}

impl<B: Backend> Picie<B> {
    /// Plans everything for a data set of `images` images.
    pub fn plan(dev: &mut B, layout: &mut Layout, recipe: Recipe, seed: u64, images: usize) -> Result<Self> {
        let r = &recipe;
        let net = Network::plan(dev, layout, Architecture::RESNET18);
        let geometry = Geometry { n: 0, h: r.size, w: r.size, groups: 1, k: r.clusters, merge: r.merge, unit: true };
        let mode = |norm| if norm == NormMode::Batch { Mode::Batch } else { Mode::Eval };
        let mut programs =
            |batch, views, mode| Programs::plan(dev, layout, &net, (images, batch, views), geometry, mode);
        let kmeans_programs = programs(r.batch_cluster, 1, mode(r.kmeans_norm))?;
        let label_programs = programs(r.batch_cluster, 1, mode(r.label_norm))?;
        let train_programs = programs(r.batch, 2, Mode::Train)?;
        let sizes = [batch_sizes(images, r.batch), batch_sizes(images, r.batch_cluster)].concat();
        let sizes: Vec<usize> = sizes.into_iter().filter(|&n| n > 0).collect();
        let schedule = Schedule { init_batches: r.init_batches, iters: r.kmeans_iters, update_every: r.update_every };
        let pixels = (r.size / 4).pow(2);
        let stored = images.min(r.init_batches.saturating_mul(r.batch_cluster));
        let cluster = MiniBatch::plan(dev, layout, schedule, r.clusters, stored * pixels)?;
        let batch = images.min(r.batch);
        let mut state = |name: &str, len: usize| layout.take(Pool::State, name, len);
        let classifiers = [1, 2].map(|v| Classifier {
            w: state(&format!("classifier {v}"), r.clusters * FEATURES),
            b: state(&format!("classifier {v} bias"), r.clusters),
            k: r.clusters,
        });
        let centroids = [1, 2].map(|v| state(&format!("centroids {v}"), r.clusters * FEATURES));
        let weights = [1, 2].map(|v| state(&format!("class weights {v}"), r.clusters));
        let losses = state("losses", 2 * batch * 2);
        let labels = [1, 2].map(|v| layout.take(Pool::State, format!("labels {v}"), images * pixels));
        let counts = [1, 2].map(|v| layout.take(Pool::State, format!("label counts {v}"), r.clusters));
        let correction = layout.take(Pool::Staging, "adam correction", 2);
        let index = layout.take(Pool::Staging, "label index", (2 * batch).max(r.batch_cluster));
        let bytes = images * r.stored * r.stored * 3;
        // A tenth is left for the evaluator, libraries and kernels.
        let fits = |free: usize| layout.total_bytes() + dev.scratch_bytes() + bytes <= free / 10 * 9;
        let resident = dev.free_bytes().is_some_and(fits).then_some(images);
        let feeder = Feeder::plan(dev, layout, r.augment, seed, (r.stored, r.size), &sizes, resident)?;
        Ok(Picie {
            net,
            centroids,
            labels,
            counts,
            seed,
            images,
            feeder,
            cluster,
            kmeans_programs,
            label_programs,
            train_programs,
            classifiers,
            weights,
            index,
            losses,
            correction,
            staged: None,
            recordings: BTreeMap::new(),
            recipe,
        })
    }

    /// Images in the order of one epoch's cluster or training pass.
    pub fn order(&self, stream: Stream, epoch: usize) -> Vec<u32> {
        Rng::new(self.seed, stream, epoch as u32, 0).permutation(self.images)
    }

    /// Centroids of one view (0 or 1), from scratch.
    pub fn kmeans(&mut self, dev: &mut B, set: &ImageStore, epoch: usize, view: usize, tick: Tick) -> Result<Summary> {
        self.kmeans_of(dev, set, epoch, VIEWS[view], view, tick)
    }

    /// Centroids of images without augmentation, in place of view 1's (released code: after training).
    pub fn fresh_kmeans(&mut self, dev: &mut B, set: &ImageStore, epoch: usize, tick: Tick) -> Result<Summary> {
        self.kmeans_of(dev, set, epoch, View::Plain, 0, tick)
    }

    /// Brings the images to the device where they are to be resident: once, before the first pass.
    pub fn load_images(&mut self, dev: &mut B, set: &ImageStore) -> Result<()> {
        self.feeder.load(dev, |ids, out| set.gather(ids, out))
    }

    fn kmeans_of(
        &mut self,
        dev: &mut B,
        set: &ImageStore,
        epoch: usize,
        view: View,
        slot: usize,
        tick: Tick,
    ) -> Result<Summary> {
        self.staged = None;
        let mut rng = Rng::new(self.seed, Stream::KMeansInit, epoch as u32, slot as u32);
        let order = self.order(Stream::ClusterOrder, epoch);
        if self.recipe.kmeans_norm == NormMode::Running {
            self.net.fold(dev)?;
        }
        self.cluster.begin(dev)?;
        let batches = order.len().div_ceil(self.recipe.batch_cluster);
        let chunks: Vec<&[u32]> = order.chunks(self.recipe.batch_cluster).collect();
        for (i, &ids) in chunks.iter().enumerate() {
            let program = self.kmeans_programs.of(ids.len());
            stage(&mut self.feeder, dev, program, set, ids, epoch, view)?;
            let (feeder, net) = (&self.feeder, &self.net);
            let recorded = (Pass::KMeans(view), ids.len(), feeder.buffer());
            dev.replay(self.recordings.entry(recorded).or_default(), |dev| {
                feeder.render(dev, program.x, ids.len(), 0, view)?;
                program.forward(dev, net)
            })?;
            let next = chunks.get(i + 1).copied().unwrap_or_default();
            self.feeder.prefetch(dev, next, |out| set.gather(next, out))?;
            self.cluster.push(dev, program, self.centroids[slot], &mut rng, i + 1 == batches)?;
            tick(ids.len())?;
        }
        self.cluster.finish(dev)
    }

    /// Pseudo labels of one view (0 or 1).
    pub fn label(&mut self, dev: &mut B, set: &ImageStore, epoch: usize, view: usize, tick: Tick) -> Result<()> {
        self.staged = None;
        let classifier = self.classifiers[view];
        dev.kmeans_classifier(classifier, self.centroids[view], self.recipe.label_metric)?;
        dev.zero(self.counts[view])?;
        if self.recipe.label_norm == NormMode::Running {
            self.net.fold(dev)?;
        }
        let order = self.order(Stream::ClusterOrder, epoch);
        let chunks: Vec<&[u32]> = order.chunks(self.recipe.batch_cluster).collect();
        for (i, &ids) in chunks.iter().enumerate() {
            let program = self.label_programs.of(ids.len());
            stage(&mut self.feeder, dev, program, set, ids, epoch, VIEWS[view])?;
            let index = self.index.part(0, ids.len());
            dev.write(index, ids)?;
            let (labels, counts) = (self.labels[view], self.counts[view]);
            let (feeder, net) = (&self.feeder, &self.net);
            let recorded = (Pass::Labels(VIEWS[view]), ids.len(), feeder.buffer());
            dev.replay(self.recordings.entry(recorded).or_default(), |dev| {
                feeder.render(dev, program.x, ids.len(), 0, VIEWS[view])?;
                program.forward(dev, net)?;
                dev.head_assign(&program.head, labels, counts, program.warped(), index, classifier)
            })?;
            let next = chunks.get(i + 1).copied().unwrap_or_default();
            self.feeder.prefetch(dev, next, |out| set.gather(next, out))?;
            tick(ids.len())?;
        }
        Ok(())
    }

    /// Classifiers and class weights from centroids and counts: once before the epoch's training steps.
    pub fn prepare(&mut self, dev: &mut B) -> Result<()> {
        for view in 0..2 {
            dev.kmeans_classifier(self.classifiers[view], self.centroids[view], self.recipe.score_metric)?;
            let counts = dev.read(self.counts[view])?;
            dev.write(self.weights[view], &self.recipe.balance.weights(&counts))?;
        }
        Ok(())
    }

    fn train_views(&self) -> [View; 2] {
        [if self.recipe.bug_plain_view1 { View::FirstUnchanged } else { View::First }, View::Second]
    }

    fn adam(&self, n: usize) -> AdamSpec {
        let pixels = n * (self.recipe.size / 4).pow(2);
        AdamSpec { grad_scale: 1.0 / B::Act::loss_scale(pixels), ..AdamSpec::new(self.recipe.lr) }
    }

    /// Writes what a step needs, unless that is done.
    fn stage_step(&mut self, dev: &mut B, set: &ImageStore, ids: &[u32], epoch: usize, step: u64) -> Result<()> {
        if self.staged.take().is_some_and(|(staged, number)| staged == ids && number == step) {
            return Ok(());
        }
        let (n, views) = (ids.len(), self.train_views());
        let program = self.train_programs.of(2 * n);
        self.feeder.stage(dev, ids, epoch, &views, |out| set.gather(ids, out))?;
        let side = program.geometry.h / 4;
        let crops = views.map(|view| self.feeder.feature_crops(ids, epoch, view, side)).concat();
        dev.write(program.crops, &crops)?;
        dev.write(self.index.part(0, 2 * n), &[ids, ids].concat())?;
        dev.write(self.correction, &self.adam(n).correction(step))
    }

    /// One optimizer step, the `step`-th (from 1) since the start, on both views of a batch. `next`: the batch of the step that
    /// follows in the same epoch, where there is one; its inputs are written while this one runs.
    pub fn step(
        &mut self,
        dev: &mut B,
        set: &ImageStore,
        (ids, next): (&[u32], Option<&[u32]>),
        epoch: usize,
        step: u64,
    ) -> Result<Losses> {
        self.stage_step(dev, set, ids, epoch, step)?;
        let (n, views, adam) = (ids.len(), self.train_views(), self.adam(ids.len()));
        let program = self.train_programs.of(2 * n);
        let index = self.index.part(0, 2 * n);

        let losses = self.losses.part(0, 2 * n * 2);
        let targets = [0, 1].map(|j| Target {
            classifier: self.classifiers[j],
            labels: self.labels[j],
            weights: self.weights[j],
            scale: 0.25 / adam.grad_scale,
        });
        let loss = LossInput { targets: &targets, index, view: n };
        let (feeder, net, correction) = (&self.feeder, &self.net, self.correction);
        let recording = self.recordings.entry((Pass::Train, n, feeder.buffer())).or_default();
        dev.enter("step");
        let queued = dev.replay(recording, |dev| {
            let half = program.x.len / 2;
            for (v, view) in views.into_iter().enumerate() {
                feeder.render(dev, program.x.part(v * half, half), n, v, view)?;
            }
            dev.range("forward", |dev| program.forward(dev, net))?;
            dev.range("loss", |dev| dev.head_loss(&program.head, losses, program.dpyramid(), program.warped(), loss))?;
            net.zero_grad(dev)?;
            dev.range("backward", |dev| program.backward(dev, net))?;
            dev.range("adam", |dev| net.update(dev, adam, correction))
        });
        dev.leave();
        queued?;
        if let Some(next) = next {
            self.feeder.prefetch(dev, next, |out| set.gather(next, out))?;
            self.stage_step(dev, set, next, epoch, step + 1)?;
            self.staged = Some((next.to_vec(), step + 1));
        }

        let losses = dev.read(losses)?;
        // Σ over the images of view v of column j.
        let sum = |v: usize, j: usize| (0..n).map(|i| f64::from(losses[(v * n + i) * 2 + j])).sum::<f64>();
        Ok(Losses { within: (sum(0, 0) + sum(1, 1)) / 2.0, cross: (sum(0, 1) + sum(1, 0)) / 2.0 })
    }
}
