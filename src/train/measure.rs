//! Epochs that are run to be timed: the passes and steps of training, without evaluation, rows in
//! `metrics.jsonl` and checkpoints.

use std::time::Instant;

use serde::Serialize;

use crate::base::Result;
use crate::data::PictureSet;
use crate::device::{Engine, Layout};
use crate::method::{self, Algorithm, Tick, Training, ViewPass};
use crate::recipe::Recipe;
use crate::train::batches::Batches;
use crate::train::unseen::Unseen;

/// Seconds of one epoch's phases on the engine's clock, each until the engine was done. While a
/// trace is on, each phase is an outermost range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EpochSeconds {
    /// Seconds of the k-means passes.
    pub kmeans: f64,
    /// Seconds of the label passes.
    pub labels: f64,
    /// Seconds of the training steps.
    pub train: f64,
}

impl EpochSeconds {
    /// Seconds of the whole epoch.
    pub fn total(&self) -> f64 {
        self.kmeans + self.labels + self.train
    }

    /// The phases by name, and `epoch`, all of them together; without those that the method does
    /// not have.
    pub fn named(&self) -> Vec<(&'static str, f64)> {
        let all = [
            ("k-means", self.kmeans),
            ("labels", self.labels),
            ("train", self.train),
            ("epoch", self.total()),
        ];
        all.into_iter().filter(|(_, seconds)| *seconds > 0.0).collect()
    }
}

/// A planned training that can run epoch after epoch on one set of images.
pub struct Measured<'a> {
    method: Box<dyn Algorithm>,
    set: &'a PictureSet,
    unseen: Unseen,
    /// Number of steps between two looks at their losses.
    look_every: usize,
    /// Number of epochs so far.
    epoch: usize,
    /// Number of training steps so far.
    step: u64,
    /// What planning took, in seconds.
    startup: Vec<(&'static str, f64)>,
}

impl<'a> Measured<'a> {
    /// Plans a training, allocates its memory, and begins from random weights. `look_every` is the
    /// number of steps between two looks at their losses. Fails if memory does not suffice.
    pub fn plan(
        dev: &mut dyn Engine,
        recipe: &Recipe,
        set: &'a PictureSet,
        look_every: usize,
    ) -> Result<Self> {
        let mut startup = Vec::new();
        let mut since = Instant::now();
        let mut done = |what| {
            startup.push((what, since.elapsed().as_secs_f64()));
            since = Instant::now();
        };
        let (mut layout, images) = (Layout::new(dev.dtype()), set.images().len());
        let mut method = method::plan(dev, &mut layout, recipe, 1, images)?;
        let unseen = Unseen::plan(&mut layout, method.losses());
        done("plan the training");
        dev.decide()?;
        done("choose convolutions");
        method.common_mut().place_images(dev, &mut layout)?;
        dev.reserve(&layout)?;
        done("reserve memory");
        method.common_mut().load_images(dev, set.images())?;
        done("bring images to the device");
        method.init(dev)?;
        done("draw weights");
        Ok(Measured { method, set, unseen, look_every, epoch: 0, step: 0, startup })
    }

    /// What planning took, in seconds: planning, the choice of convolutions, memory, images,
    /// weights.
    pub fn startup(&self) -> &[(&'static str, f64)] {
        &self.startup
    }

    /// Runs one epoch: k-means and labels of the views, if the method has them, and one training
    /// step for every batch. `tick` is called for each batch of each pass.
    pub fn epoch(&mut self, dev: &mut dyn Engine, tick: Tick) -> Result<EpochSeconds> {
        self.epoch += 1;
        let Measured { method, set, unseen, look_every, epoch, .. } = self;
        let (set, epoch) = (*set, *epoch);
        let [mut kmeans, mut labels] = [0.0; 2];
        if let Some((common, clustering)) = method.clustering_mut() {
            let (images, views) = (set.images(), clustering.pseudo().len());
            kmeans = clock(dev, "k-means", |dev| {
                (0..views).try_for_each(|view| {
                    let pass = ViewPass { epoch, view };
                    clustering.kmeans(common, dev, images, pass, tick).map(|_| ())
                })
            })?;
            labels = clock(dev, "labels", |dev| {
                (0..views).try_for_each(|view| {
                    clustering.label(common, dev, images, ViewPass { epoch, view }, tick)
                })
            })?;
        }
        let train = clock(dev, "train", |dev| {
            method.begin_steps(dev, epoch, true)?;
            let batches = Batches::new(&**method, epoch, self.step);
            for i in 0..batches.len() {
                let batch = batches.get(i);
                let next = (i + 1 < batches.len()).then(|| batches.get(i + 1));
                unseen.step(dev, &mut **method, set, Training { batch, next })?;
                if next.is_none() || unseen.len() >= *look_every {
                    unseen.take(dev, &**method)?;
                }
                tick(batch.ids.len())?;
            }
            self.step += batches.len() as u64;
            Ok(())
        })?;
        Ok(EpochSeconds { kmeans, labels, train })
    }
}

/// Seconds until everything that `work` queues is done, which is in the range `phase`.
fn clock(
    dev: &mut dyn Engine,
    phase: &str,
    work: impl FnOnce(&mut dyn Engine) -> Result<()>,
) -> Result<f64> {
    let start = dev.mark()?;
    dev.range(phase, work)?;
    let end = dev.mark()?;
    dev.seconds(&start, &end)
}
