//! Losses of training steps that the host has not looked at yet. To look is to wait for the device.

use crate::base::Result;
use crate::data::PictureSet;
use crate::device::{ALIGN, Engine, Layout, Pool, Slot};
use crate::method::{Algorithm, Losses, Training};

/// Steps whose losses are kept at most.
pub const MOST: usize = 64;

/// A step whose losses are kept.
#[derive(Clone, Copy)]
struct Step {
    number: u64,
    images: usize,
    round: usize,
}

pub struct Kept {
    /// (MOST, width): the losses of a step after those of the step before.
    slot: Slot<f32>,
    /// Floats from one step to the next: slots begin on lines.
    width: usize,
    steps: Vec<Step>,
}

impl Kept {
    /// `losses`: of the steps that will be kept.
    pub fn plan(layout: &mut Layout, losses: Slot<f32>) -> Self {
        let width = losses.len.next_multiple_of(ALIGN / size_of::<f32>());
        Kept {
            slot: layout.take(Pool::State, "losses of the last steps", MOST * width),
            width,
            steps: Vec::new(),
        }
    }

    /// One training step, whose losses are kept. The device may still be at it.
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

    /// Steps that are kept.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Number, images and losses of each step that was kept, once the device has done them.
    pub fn take(
        &mut self,
        dev: &mut dyn Engine,
        method: &dyn Algorithm,
    ) -> Result<Vec<(u64, usize, Losses)>> {
        let values = dev.read(self.slot.part(0, self.steps.len() * self.width))?;
        let rows = self.steps.drain(..).zip(values.chunks(self.width));
        Ok(rows
            .map(|(s, values)| (s.number, s.images, method.read_losses(values, s.images, s.round)))
            .collect())
    }
}
