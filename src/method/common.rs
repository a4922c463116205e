//! The parts that every method has: the network, the views of a data set, and the skeleton of a
//! training step.

use std::collections::BTreeMap;

use crate::augment::{Feeder, FeederSpec, Sources, View};
use crate::base::Result;
use crate::base::rng::{Rng, Stream};
use crate::data::ImageStore;
use crate::device::ops::AdamSpec;
use crate::device::{Engine, Layout, Pool, Recording, Slot};
use crate::method::{Batching, Programs, program_spec};
use crate::net::{Mode, Network, Program, STRIDE};
use crate::recipe::{Freeze, Recipe};

/// The kinds of passes that engines record and replay, each once for every size of batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pass {
    /// A forward pass on one view, whose features go to k-means.
    KMeans(View),
    /// A forward pass on one view, whose pixels get pseudo labels.
    Labels(View),
    /// A training step in this round of an epoch.
    Train(usize),
}

/// What a recording of a pass is for: the ops differ between any two of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Recorded {
    pass: Pass,
    /// Number of images in the batch.
    images: usize,
    /// What the feeder's renders read.
    sources: Sources,
}

/// A step whose inputs have been written ahead of time.
struct Staged {
    /// The batch's images, as numbers in the data set.
    ids: Vec<u32>,
    /// Number of the step since the start of the run.
    step: u64,
}

/// The batch of a training step.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The batch's images, as numbers in the data set.
    pub ids: &'a [u32],
    /// The epoch, counted from 1.
    pub epoch: usize,
    /// The number, from 0, of this pass over the data set in the epoch.
    pub round: usize,
    /// Number of steps in this epoch before this one.
    pub before: usize,
    /// Number of this step since the start of the run, from 1.
    pub step: u64,
    /// Factor on the recipe's learning rate.
    pub rate: f64,
}

/// A batch to train on, and the one that follows in the same epoch, if any, whose inputs are
/// written while the first is computed.
#[derive(Clone, Copy, Debug)]
pub struct Training<'a> {
    /// The batch of the step.
    pub batch: Batch<'a>,
    /// The batch of the next step.
    pub next: Option<Batch<'a>>,
}

/// Writes the inputs that only this method needs for a batch, whose images and draws are already
/// staged by the feeder.
pub type WriteInputs<'a> = dyn FnMut(&mut dyn Engine, &Feeder, &Batch) -> Result<()> + 'a;

/// The parts of a step that a method adds to the skeleton.
pub struct Ops<'a> {
    /// Number of the method's passes over the data set in an epoch.
    pub rounds: usize,
    /// Writes the method's own inputs for a batch, before its step. Also called for the next batch,
    /// ahead of time.
    pub stage: &'a mut WriteInputs<'a>,
    /// The ops from the pyramid to the losses, the gradients of the pyramid, and those of the
    /// learned classifiers.
    pub loss: &'a dyn Fn(&mut dyn Engine, &Program) -> Result<()>,
    /// The ops that update the learned classifiers.
    pub update: &'a dyn Fn(&mut dyn Engine) -> Result<()>,
}

/// A network that is being trained on a data set, with its inputs.
pub struct Common {
    /// The hyperparameters.
    pub recipe: Recipe,
    pub net: Network,
    /// The run's seed.
    pub seed: u64,
    /// Number of images in the data set.
    pub images: usize,
    /// The source of the network's inputs.
    pub feeder: Feeder,
    /// The views of each image in a step.
    pub views: Vec<View>,
    /// The programs of training steps.
    programs: Programs,
    /// (views × images of a batch), the batch's images as numbers in the data set, once for each
    /// view.
    pub index: Slot<u32>,
    /// (2), Adam's bias corrections for the step.
    correction: Slot<f32>,
    /// The step staged ahead of time. `None` if nothing is staged.
    staged: Option<Staged>,
    /// The recorded passes.
    recordings: BTreeMap<Recorded, Recording>,
}

/// The network and its training programs, which a method plans first.
pub struct Trainable {
    pub net: Network,
    programs: Programs,
    views: Vec<View>,
}

impl Trainable {
    /// Plans training steps on `views` of each image, for a data set of `images` images.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        recipe: &Recipe,
        images: usize,
        views: Vec<View>,
    ) -> Result<Self> {
        let net = Network::plan(layout, recipe.architecture);
        let mode = if recipe.freeze == Freeze::Backbone { Mode::Eval } else { Mode::Train };
        let batching = Batching { images, batch: recipe.batch };
        let shape = program_spec(recipe);
        let programs = Programs::plan(dev, layout, &net, batching, views.len(), shape, mode)?;
        Ok(Trainable { net, programs, views })
    }
}

impl Common {
    /// Plans the inputs of a trainable network; the last part of a method's plan except for the
    /// images (see [`Common::place_images`]). `repeated` are the views that several passes of an
    /// epoch read.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        recipe: &Recipe,
        seed: u64,
        images: usize,
        Trainable { net, programs, views }: Trainable,
        repeated: &[View],
    ) -> Result<Self> {
        let r = recipe;
        let [train, cluster] = [r.batch, r.batch_cluster].map(|batch| Batching { images, batch });
        let correction = layout.take(Pool::Staging, "adam correction", 2);
        let labels = (views.len() * train.full()).max(cluster.full());
        let index = layout.take(Pool::Staging, "label index", labels);
        let spec = FeederSpec {
            augment: r.augment,
            seed,
            stored: r.stored,
            size: r.size,
            channels: r.architecture.input(),
            batches: &[train.sizes(), cluster.sizes()].concat(),
            repeated,
        };
        let feeder = Feeder::plan(dev, layout, spec)?;
        Ok(Common {
            recipe: recipe.clone(),
            net,
            seed,
            images,
            feeder,
            views,
            programs,
            index,
            correction,
            staged: None,
            recordings: BTreeMap::new(),
        })
    }

    /// Places the images, when everything else has its place: all of them on the device if they
    /// fit, else buffers for a batch.
    pub fn place_images(&mut self, dev: &mut dyn Engine, layout: &mut Layout) -> Result<()> {
        self.feeder.place(dev, layout, self.images)
    }

    /// The random order of images in one pass of an epoch: pass number `round` of those that draw
    /// from `stream`.
    pub fn order(&self, stream: Stream, epoch: usize, round: usize) -> Vec<u32> {
        Rng::new(self.seed, stream, epoch as u32, round as u32).permutation(self.images)
    }

    /// Copies all images to the device if they are to be resident. Called once, before the first
    /// pass.
    pub fn load_images(&mut self, dev: &mut dyn Engine, set: &ImageStore) -> Result<()> {
        self.feeder.load(dev, set)
    }

    /// Writes the inputs of a batch for a pass without gradients on the first of `views`, which
    /// renders the others as well. It overwrites what was staged for a training step.
    pub fn stage_views(
        &mut self,
        dev: &mut dyn Engine,
        program: &Program,
        set: &ImageStore,
        ids: &[u32],
        epoch: usize,
        views: &[View],
    ) -> Result<()> {
        self.staged = None;
        self.feeder.stage(dev, set, ids, epoch, views)?;
        let side = program.spec.h / STRIDE;
        dev.write(program.crops, &self.feeder.feature_crops(ids, epoch, views[0], side))
    }

    /// Replays the ops of a pass on the staged images, or records them the first time.
    pub fn replay(
        &mut self,
        dev: &mut dyn Engine,
        pass: Pass,
        images: usize,
        mut ops: impl FnMut(&mut dyn Engine, &Feeder, &Network) -> Result<()>,
    ) -> Result<()> {
        let key = Recorded { pass, images, sources: self.feeder.sources() };
        let recording = self.recordings.entry(key).or_default();
        let (feeder, net) = (&self.feeder, &self.net);
        dev.replay(recording, |dev| ops(dev, feeder, net))
    }

    /// Whether the network's weights are not trained.
    pub fn frozen(&self) -> bool {
        self.recipe.freeze == Freeze::Backbone
    }

    /// Adam's hyperparameters for a step on `n` images, whose gradients arrive multiplied by the
    /// loss scale of the engine's dtype.
    pub fn adam(&self, dev: &dyn Engine, n: usize) -> AdamSpec {
        let pixels = n * self.recipe.feature_pixels();
        let grad_scale = 1.0 / dev.dtype().loss_scale(pixels);
        AdamSpec { grad_scale, ..AdamSpec::new(self.recipe.lr) }
    }

    /// The counter that seeds this batch's augmentation. Each round of an epoch uses a different
    /// one.
    pub fn draw(&self, batch: &Batch, rounds: usize) -> usize {
        batch.epoch * rounds + batch.round
    }

    /// Writes the inputs of a step, unless they were written ahead of time.
    fn stage_step(
        &mut self,
        dev: &mut dyn Engine,
        set: &ImageStore,
        batch: &Batch,
        ops: &mut Ops,
    ) -> Result<()> {
        let done = |staged: Staged| staged.ids == batch.ids && staged.step == batch.step;
        if self.staged.take().is_some_and(done) {
            return Ok(());
        }
        let (ids, draw, views) = (batch.ids, self.draw(batch, ops.rounds), &self.views);
        let program = self.programs.of(views.len() * ids.len());
        self.feeder.stage(dev, set, ids, draw, views)?;
        let side = program.spec.h / STRIDE;
        let crops = views.iter().flat_map(|&v| self.feeder.feature_crops(ids, draw, v, side));
        dev.write(program.crops, &crops.collect::<Vec<_>>())?;
        dev.write(self.index.part(0, views.len() * ids.len()), &ids.repeat(views.len()))?;
        let correction = self.adam(dev, ids.len()).correction(batch.step, batch.rate);
        dev.write(self.correction, &correction)?;
        (ops.stage)(dev, &self.feeder, batch)
    }

    /// Queues one optimizer step: render, forward, the method's loss, backward, Adam. Then writes
    /// the inputs of the next batch while the device computes.
    pub fn step(
        &mut self,
        dev: &mut dyn Engine,
        set: &ImageStore,
        Training { batch, next }: Training,
        mut ops: Ops,
    ) -> Result<()> {
        self.stage_step(dev, set, &batch, &mut ops)?;
        let n = batch.ids.len();
        let (adam, frozen) = (self.adam(dev, n), self.frozen());
        let program = self.programs.of(self.views.len() * n);
        let Common { feeder, net, correction, views, recordings, .. } = self;
        let (pass, sources) = (Pass::Train(batch.round), feeder.sources());
        let key = Recorded { pass, images: n, sources };
        dev.enter("step");
        let queued = dev.replay(recordings.entry(key).or_default(), |dev| {
            let part = program.x.len / views.len();
            for (v, &view) in views.iter().enumerate() {
                feeder.render(dev, program.x.part(v * part, part), n, v, view)?;
            }
            dev.range("forward", |dev| program.forward(dev, net))?;
            dev.range("loss", |dev| (ops.loss)(dev, program))?;
            if !frozen {
                net.zero_grad(dev)?;
                dev.range("backward", |dev| program.backward(dev, net))?;
            }
            dev.range("adam", |dev| {
                if !frozen {
                    net.update(dev, adam, *correction)?;
                }
                (ops.update)(dev)
            })
        });
        dev.leave();
        queued?;
        if let Some(next) = next {
            self.feeder.prefetch(dev, set, next.ids)?;
            self.stage_step(dev, set, &next, &mut ops)?;
            self.staged = Some(Staged { ids: next.ids.to_vec(), step: next.step });
        }
        Ok(())
    }
}
