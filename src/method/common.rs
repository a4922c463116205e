//! What every method has: the network, views of a data set, and the skeleton of a training step.

use std::collections::BTreeMap;

use crate::augment::{Feeder, InputShape, View};
use crate::base::rng::{Rng, Stream};
use crate::base::{Result, stop};
use crate::data::ImageStore;
use crate::device::ops::{AdamSpec, Backend};
use crate::device::{Activation, Layout, Pool, Slot};
use crate::method::{Programs, TrainSet, batch_sizes, geometry};
use crate::net::{Mode, Network, Program};
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

/// Host writes of a batch, which its views come from the feeder with.
pub type Stage<'a, B> = dyn FnMut(&mut B, &Feeder<B>, &Batch) -> Result<()> + 'a;

/// What a method adds to the skeleton of a step.
pub struct Ops<'a, B: Backend> {
    /// Host writes of a batch, before its step; called with the batch that follows, too.
    pub stage: &'a mut Stage<'a, B>,
    /// From pyramid to losses, gradients of the pyramid and of what is learned besides.
    pub loss: &'a dyn Fn(&mut B, &Program<B>) -> Result<()>,
    /// The update of what is learned besides the network.
    pub update: &'a dyn Fn(&mut B) -> Result<()>,
}

pub struct Common<B: Backend> {
    pub recipe: Recipe,
    pub net: Network<B>,
    pub seed: u64,
    /// Of the data set.
    pub images: usize,
    pub feeder: Feeder<B>,
    /// Of each image in a step.
    pub views: Vec<View>,
    programs: Programs<B>,
    /// Images of a batch, once a view.
    pub index: Slot<u32>,
    correction: Slot<f32>,
    /// Images and number of the step whose inputs the host has written already.
    staged: Option<(Vec<u32>, u64)>,
    recordings: BTreeMap<(Pass, usize, usize), B::Recording>,
}

/// The network and what training runs it with.
pub fn plan_network<B: Backend>(
    dev: &mut B,
    layout: &mut Layout,
    recipe: &Recipe,
    images: usize,
    views: usize,
) -> Result<(Network<B>, Programs<B>)> {
    let net = Network::plan(dev, layout, recipe.architecture);
    let mode = if recipe.freeze == Freeze::Backbone { Mode::Eval } else { Mode::Train };
    let programs =
        Programs::plan(dev, layout, &net, (images, recipe.batch, views), geometry(recipe), mode)?;
    Ok((net, programs))
}

impl<B: Backend> Common<B> {
    /// The last part of a method's plan.
    pub fn plan(
        dev: &mut B,
        layout: &mut Layout,
        recipe: &Recipe,
        seed: u64,
        TrainSet { images, resident }: TrainSet,
        views: Vec<View>,
        (net, programs): (Network<B>, Programs<B>),
    ) -> Result<Self> {
        let r = recipe;
        let correction = layout.take(Pool::Staging, "adam correction", 2);
        let batch = images.min(r.batch);
        let index = layout.take(
            Pool::Staging,
            "label index",
            (views.len() * batch).max(images.min(r.batch_cluster)),
        );
        let sizes = [batch_sizes(images, r.batch), batch_sizes(images, r.batch_cluster)].concat();
        let sizes: Vec<usize> = sizes.into_iter().filter(|&n| n > 0).collect();
        let shape = InputShape { stored: r.stored, size: r.size, channels: r.architecture.input() };
        let feeder =
            Feeder::plan(dev, layout, r.augment, seed, shape, &sizes, resident.then_some(images))?;
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

    /// Images in the order of one pass of an epoch, `round` where it has several.
    pub fn order(&self, stream: Stream, epoch: usize, round: usize) -> Vec<u32> {
        Rng::new(self.seed, stream, epoch as u32, round as u32).permutation(self.images)
    }

    /// Brings the images to the device where they are to be resident: once, before the first pass.
    pub fn load_images(&mut self, dev: &mut B, set: &ImageStore) -> Result<()> {
        self.feeder.load(dev, |ids, out| stop::check().and_then(|()| set.gather(ids, out)))
    }

    /// What one view of a batch needs, written before a pass without gradients runs it. Steps must
    /// stage anew afterwards.
    pub fn stage_view(
        &mut self,
        dev: &mut B,
        program: &Program<B>,
        set: &ImageStore,
        ids: &[u32],
        epoch: usize,
        view: View,
    ) -> Result<()> {
        self.staged = None;
        self.feeder.stage(dev, ids, epoch, &[view], |out| set.gather(ids, out))?;
        dev.write(
            program.crops,
            &self.feeder.feature_crops(ids, epoch, view, program.geometry.h / 4),
        )
    }

    /// Replays, or records, the ops of a pass on the images that are staged.
    pub fn replay(
        &mut self,
        dev: &mut B,
        pass: Pass,
        images: usize,
        mut ops: impl FnMut(&mut B, &Feeder<B>, &Network<B>) -> Result<()>,
    ) -> Result<()> {
        let recording = self.recordings.entry((pass, images, self.feeder.buffer())).or_default();
        let (feeder, net) = (&self.feeder, &self.net);
        dev.replay(recording, |dev| ops(dev, feeder, net))
    }

    /// Whether the network stays as it is.
    pub fn frozen(&self) -> bool {
        self.recipe.freeze == Freeze::Backbone
    }

    /// Adam for a step on `n` images, whose gradients arrive times the loss scale.
    pub fn adam(&self, n: usize) -> AdamSpec {
        let pixels = n * (self.recipe.size / 4).pow(2);
        AdamSpec { grad_scale: 1.0 / B::Act::loss_scale(pixels), ..AdamSpec::new(self.recipe.lr) }
    }

    /// Which draw of the augmentation a batch has: another one in each round.
    pub fn draw(&self, batch: &Batch, rounds: usize) -> usize {
        batch.epoch * rounds + batch.round
    }

    /// Writes what a step needs, unless that is done.
    fn stage_step(
        &mut self,
        dev: &mut B,
        set: &ImageStore,
        batch: &Batch,
        rounds: usize,
        stage: &mut Stage<B>,
    ) -> Result<()> {
        if self
            .staged
            .take()
            .is_some_and(|(staged, step)| staged == batch.ids && step == batch.step)
        {
            return Ok(());
        }
        let (ids, draw, views) = (batch.ids, self.draw(batch, rounds), &self.views);
        let program = self.programs.of(views.len() * ids.len());
        self.feeder.stage(dev, ids, draw, views, |out| set.gather(ids, out))?;
        let side = program.geometry.h / 4;
        let crops: Vec<_> =
            views.iter().flat_map(|&v| self.feeder.feature_crops(ids, draw, v, side)).collect();
        dev.write(program.crops, &crops)?;
        dev.write(self.index.part(0, views.len() * ids.len()), &ids.repeat(views.len()))?;
        dev.write(self.correction, &self.adam(ids.len()).correction(batch.step, batch.rate))?;
        stage(dev, &self.feeder, batch)
    }

    /// One optimizer step: render, forward, the method's loss, backward, Adam. `rounds` of the
    /// method.
    pub fn step(
        &mut self,
        dev: &mut B,
        set: &ImageStore,
        (batch, next): (Batch, Option<Batch>),
        rounds: usize,
        ops: Ops<B>,
    ) -> Result<()> {
        self.stage_step(dev, set, &batch, rounds, ops.stage)?;
        let n = batch.ids.len();
        let (adam, frozen) = (self.adam(n), self.frozen());
        let program = self.programs.of(self.views.len() * n);
        let (feeder, net, correction, views) =
            (&self.feeder, &self.net, self.correction, &self.views);
        let recording =
            self.recordings.entry((Pass::Train(batch.round), n, feeder.buffer())).or_default();
        dev.enter("step");
        let queued = dev.replay(recording, |dev| {
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
                    net.update(dev, adam, correction)?;
                }
                (ops.update)(dev)
            })
        });
        dev.leave();
        queued?;
        if let Some(next) = next {
            self.feeder.prefetch(dev, next.ids, |out| set.gather(next.ids, out))?;
            self.stage_step(dev, set, &next, rounds, ops.stage)?;
            self.staged = Some((next.ids.to_vec(), next.step));
        }
        Ok(())
    }
}
