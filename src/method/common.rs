//! What every method has: the network, views of a data set, and the skeleton of a training step.

use std::collections::BTreeMap;

use crate::augment::{Feeder, FeederSpec, View};
use crate::base::Result;
use crate::base::rng::{Rng, Stream};
use crate::data::ImageStore;
use crate::device::ops::AdamSpec;
use crate::device::{Engine, Layout, Pool, Recording, Slot};
use crate::method::{Batching, Programs, geometry};
use crate::net::{Mode, Network, Program, STRIDE};
use crate::recipe::{Freeze, Recipe};

/// The kinds of steps that are recorded, each once a batch size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pass {
    KMeans(View),
    Labels(View),
    /// A training step of one round of an epoch.
    Train(usize),
}

/// The batch of a training step.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Images, by their number in the data set.
    pub ids: &'a [u32],
    /// From 1.
    pub epoch: usize,
    /// Which of the epoch's passes over the data set.
    pub round: usize,
    /// Steps of this epoch before it.
    pub before: usize,
    /// Since the start, from 1.
    pub step: u64,
    /// The share of the recipe's learning rate that the step has.
    pub rate: f64,
}

/// A batch and the one that follows in the same epoch, where there is one: its inputs are written
/// while the first is computed.
#[derive(Clone, Copy, Debug)]
pub struct Training<'a> {
    pub batch: Batch<'a>,
    pub next: Option<Batch<'a>>,
}

/// Host writes of a batch, which its views come from the feeder with.
pub type Stage<'a> = dyn FnMut(&mut dyn Engine, &Feeder, &Batch) -> Result<()> + 'a;

/// What a method adds to the skeleton of a step.
pub struct Ops<'a> {
    /// The method's passes over the data set in an epoch.
    pub rounds: usize,
    /// Host writes of a batch, before its step; called with the batch that follows, too.
    pub stage: &'a mut Stage<'a>,
    /// From pyramid to losses, gradients of the pyramid and of what is learned besides.
    pub loss: &'a dyn Fn(&mut dyn Engine, &Program) -> Result<()>,
    /// The update of what is learned besides the network.
    pub update: &'a dyn Fn(&mut dyn Engine) -> Result<()>,
}

pub struct Common {
    pub recipe: Recipe,
    pub net: Network,
    pub seed: u64,
    /// Images of the data set.
    pub images: usize,
    pub feeder: Feeder,
    /// The views of each image in a step.
    pub views: Vec<View>,
    programs: Programs,
    /// Images of a batch, once a view.
    pub index: Slot<u32>,
    correction: Slot<f32>,
    /// Images and number of the step whose inputs the host has written already.
    staged: Option<(Vec<u32>, u64)>,
    recordings: BTreeMap<(Pass, usize, usize), Recording>,
}

/// The network and what training runs it with: what a method plans first.
pub struct Trained {
    pub net: Network,
    programs: Programs,
    views: Vec<View>,
}

impl Trained {
    /// For training steps on `views` of each of `images` images.
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
        let shape = geometry(recipe);
        let programs = Programs::plan(dev, layout, &net, batching, views.len(), shape, mode)?;
        Ok(Trained { net, programs, views })
    }
}

impl Common {
    /// The last part of a method's plan.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        recipe: &Recipe,
        seed: u64,
        images: usize,
        Trained { net, programs, views }: Trained,
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

    /// Gives the images a place, when everything else has one: on the device where all of them fit
    /// there, else in buffers for a batch.
    pub fn place_images(&mut self, dev: &mut dyn Engine, layout: &mut Layout) -> Result<()> {
        self.feeder.place(dev, layout, self.images)
    }

    /// Images in the order of one pass of an epoch, `round` where it has several.
    pub fn order(&self, stream: Stream, epoch: usize, round: usize) -> Vec<u32> {
        Rng::new(self.seed, stream, epoch as u32, round as u32).permutation(self.images)
    }

    /// Brings the images to the device where they are to be resident: once, before the first pass.
    pub fn load_images(&mut self, dev: &mut dyn Engine, set: &ImageStore) -> Result<()> {
        self.feeder.load(dev, set)
    }

    /// What one view of a batch needs, written before a pass without gradients runs it. Steps must
    /// stage anew afterwards.
    pub fn stage_view(
        &mut self,
        dev: &mut dyn Engine,
        program: &Program,
        set: &ImageStore,
        ids: &[u32],
        epoch: usize,
        view: View,
    ) -> Result<()> {
        self.staged = None;
        self.feeder.stage(dev, set, ids, epoch, &[view])?;
        let side = program.spec.h / STRIDE;
        dev.write(program.crops, &self.feeder.feature_crops(ids, epoch, view, side))
    }

    /// Replays, or records, the ops of a pass on the images that are staged.
    pub fn replay(
        &mut self,
        dev: &mut dyn Engine,
        pass: Pass,
        images: usize,
        mut ops: impl FnMut(&mut dyn Engine, &Feeder, &Network) -> Result<()>,
    ) -> Result<()> {
        let recording = self.recordings.entry((pass, images, self.feeder.buffer())).or_default();
        let (feeder, net) = (&self.feeder, &self.net);
        dev.replay(recording, |dev| ops(dev, feeder, net))
    }

    /// Whether the network stays as it is.
    pub fn frozen(&self) -> bool {
        self.recipe.freeze == Freeze::Backbone
    }

    /// Adam for a step on `n` images, whose gradients arrive times the loss scale of the engine's
    /// dtype.
    pub fn adam(&self, dev: &dyn Engine, n: usize) -> AdamSpec {
        let pixels = n * self.recipe.feature_pixels();
        let grad_scale = 1.0 / dev.dtype().loss_scale(pixels);
        AdamSpec { grad_scale, ..AdamSpec::new(self.recipe.lr) }
    }

    /// Which draw of the augmentation a batch has: another one in each round.
    pub fn draw(&self, batch: &Batch, rounds: usize) -> usize {
        batch.epoch * rounds + batch.round
    }

    /// Writes what a step needs, unless that is done.
    fn stage_step(
        &mut self,
        dev: &mut dyn Engine,
        set: &ImageStore,
        batch: &Batch,
        ops: &mut Ops,
    ) -> Result<()> {
        let done = |(staged, step): (Vec<u32>, u64)| staged == batch.ids && step == batch.step;
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

    /// One optimizer step: render, forward, the method's loss, backward, Adam.
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
        let key = (Pass::Train(batch.round), n, feeder.buffer());
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
            self.staged = Some((next.ids.to_vec(), next.step));
        }
        Ok(())
    }
}
