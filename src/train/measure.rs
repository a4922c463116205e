//! Epochs for the clock: the passes and steps of training, without evaluation, record and checkpoint.

use std::time::Instant;

use serde::Serialize;

use crate::base::Result;
use crate::base::rng::Stream;
use crate::data::ImageStore;
use crate::device::Layout;
use crate::device::ops::Backend;
use crate::method::Picie;
use crate::recipe::Recipe;

/// Wall-clock seconds of one epoch's phases, each until the engine was done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EpochSeconds {
    pub kmeans: f64,
    pub labels: f64,
    pub train: f64,
}

impl EpochSeconds {
    pub fn total(&self) -> f64 {
        self.kmeans + self.labels + self.train
    }
}

/// A planned training that can run epoch after epoch on one set of images.
pub struct Measured<'a, B: Backend> {
    picie: Picie<B>,
    set: &'a ImageStore,
    epoch: usize,
    step: u64,
}

impl<'a, B: Backend> Measured<'a, B> {
    /// Plans, reserves, and starts from random weights.
    pub fn plan(dev: &mut B, recipe: &Recipe, set: &'a ImageStore) -> Result<Self> {
        let mut layout = Layout::default();
        let mut picie = Picie::plan(dev, &mut layout, recipe.clone(), 1, set.len())?;
        dev.reserve(&layout)?;
        picie.load_images(dev, set)?;
        picie.net.init(dev, 1)?;
        Ok(Measured { picie, set, epoch: 0, step: 0 })
    }

    /// One epoch: k-means and labels of both views, one training step for every batch.
    pub fn epoch(&mut self, dev: &mut B) -> Result<EpochSeconds> {
        self.epoch += 1;
        let (picie, set, epoch) = (&mut self.picie, self.set, self.epoch);
        let kmeans = clock(dev, |dev| {
            (0..2).try_for_each(|view| picie.kmeans(dev, set, epoch, view, &mut |_| Ok(())).map(|_| ()))
        })?;
        let labels = clock(dev, |dev| (0..2).try_for_each(|view| picie.label(dev, set, epoch, view, &mut |_| Ok(()))))?;
        let train = clock(dev, |dev| {
            picie.prepare(dev)?;
            let order = picie.order(Stream::TrainOrder, epoch);
            let mut batches = order.chunks(picie.recipe.batch).peekable();
            while let Some(ids) = batches.next() {
                self.step += 1;
                picie.step(dev, set, (ids, batches.peek().copied()), epoch, self.step)?;
            }
            Ok(())
        })?;
        Ok(EpochSeconds { kmeans, labels, train })
    }
}

/// Seconds until everything that `work` queued is done.
fn clock<B: Backend>(dev: &mut B, work: impl FnOnce(&mut B) -> Result<()>) -> Result<f64> {
    let start = (Instant::now(), dev.mark()?);
    work(dev)?;
    let end = dev.mark()?;
    dev.seconds(start.1, end)?;
    Ok(start.0.elapsed().as_secs_f64())
}
