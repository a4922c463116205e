//! Losses of training steps that the host has not looked at yet. They stay on the device, because
//! looking means waiting for it.

use crate::base::Result;
use crate::data::PictureSet;
use crate::device::{ALIGN, Engine, Layout, Pool, Slot};
use crate::method::{Algorithm, Losses, Training};

/// Largest number of steps whose losses are kept.
pub const MOST: usize = 64;

/// A training step whose losses are kept.
#[derive(Clone, Copy)]
struct Step {
    /// Number of the step in the run, from 1.
    number: u64,
    /// Number of images in its batch.
    images: usize,
    /// Its round in the epoch.
    round: usize,
}

/// The losses of a step that has been looked at.
pub struct StepLosses {
    /// Number of the step in the run, from 1.
    pub step: u64,
    /// Number of images in its batch.
    pub images: usize,
    pub losses: Losses,
}

/// The losses of the last steps on the device, which nobody has looked at.
pub struct Unseen {
    /// (MOST, width), a row of losses for each step.
    slot: Slot<f32>,
    /// Distance between two steps' losses, in floats: slots begin on cache lines.
    width: usize,
    /// The steps whose losses lie in `slot`.
    steps: Vec<Step>,
}

impl Unseen {
    /// Takes the memory for the losses of [`MOST`] steps, which each write theirs to `losses`.
    pub fn plan(layout: &mut Layout, losses: Slot<f32>) -> Self {
        let width = losses.len.next_multiple_of(ALIGN / size_of::<f32>());
        Unseen {
            slot: layout.take(Pool::State, "losses of the last steps", MOST * width),
            width,
            steps: Vec::new(),
        }
    }

    /// Queues one training step, and keeps its losses. Returns before the device has finished it.
    pub fn step(
        &mut self,
        dev: &mut dyn Engine,
        method: &mut dyn Algorithm,
        set: &PictureSet,
        training: Training,
    ) -> Result<()> {
        let batch = training.batch;
        method.queue(dev, set, training)?;
        let losses = method.losses();
        dev.copy(self.slot.part(self.steps.len() * self.width, losses.len), losses)?;
        self.steps.push(Step { number: batch.step, images: batch.ids.len(), round: batch.round });
        Ok(())
    }

    /// Number of steps whose losses are kept.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Waits for the device, and returns the losses of each kept step; then none is kept.
    pub fn take(
        &mut self,
        dev: &mut dyn Engine,
        method: &dyn Algorithm,
    ) -> Result<Vec<StepLosses>> {
        let values = dev.read(self.slot.part(0, self.steps.len() * self.width))?;
        let look = |(step, values): (Step, &[f32])| {
            let Step { number, images, round } = step;
            let losses = method.read_losses(values, images, round);
            StepLosses { step: number, images, losses }
        };
        Ok(self.steps.drain(..).zip(values.chunks(self.width)).map(look).collect())
    }
}
