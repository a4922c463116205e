//! From drawn numbers to network inputs: what the host stages for a batch, and the render op.

use crate::augment::Augment;
use crate::base::Result;
use crate::device::ops::{Backend, Crop, Photo, ViewSpec};
use crate::device::{Layout, Pool, Slot};

/// Which rendering of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Photometric change 1, geometric change of the input.
    First,
    /// Geometric change of the input alone (see `Recipe::bug_plain_view1`).
    FirstUnchanged,
    /// Photometric change 2; the geometric change is the features' (see [`Feeder::feature_crops`]).
    Second,
    /// The image, resized.
    Plain,
}

/// Stages batches of stored images and renders them.
pub struct Feeder<B: Backend> {
    augment: Augment,
    seed: u64,
    /// Side of a stored image and of the network's input.
    stored: usize,
    size: usize,
    host: Vec<u8>,
    images: Slot<u8>,
    index: Slot<u32>,
    photo: Slot<Photo>,
    crops: Slot<Crop>,
    /// By number of images.
    plans: Vec<(usize, B::ViewPlan)>,
}

impl<B: Backend> Feeder<B> {
    /// `batches`: every number of images that a batch will have.
    pub fn plan(
        dev: &mut B,
        layout: &mut Layout,
        augment: Augment,
        seed: u64,
        (stored, size): (usize, usize),
        batches: &[usize],
    ) -> Result<Self> {
        let capacity = batches.iter().copied().max().unwrap_or(1);
        let mut plans = Vec::new();
        for &n in batches {
            plans.push((n, dev.plan_view(ViewSpec { n, sh: stored, sw: stored, h: size, w: size })?));
        }
        let images = layout.take(Pool::Staging, "images", capacity * stored * stored * 3);
        let index = layout.take(Pool::Staging, "image index", capacity);
        let photo = layout.take(Pool::Staging, "photometric draws", capacity);
        let crops = layout.take(Pool::Staging, "input crops", capacity);
        Ok(Feeder { augment, seed, stored, size, host: Vec::new(), images, index, photo, crops, plans })
    }

    /// Copies the batch's stored images to the device; `gather` fills (n, stored, stored, 3).
    pub fn stage(&mut self, dev: &mut B, n: usize, gather: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
        self.host.resize(n * self.stored * self.stored * 3, 0);
        gather(&mut self.host)?;
        dev.write(self.images, &self.host)?;
        dev.write(self.index, &Vec::from_iter(0..n as u32))
    }

    /// x (n, size, size, 4) = the view of each staged image, whose numbers in the data set are `ids`.
    pub fn render(&self, dev: &mut B, x: Slot<B::Act>, ids: &[u32], epoch: usize, view: View) -> Result<()> {
        let n = ids.len();
        let (_, plan) = self.plans.iter().find(|(m, _)| *m == n).expect("every batch size was planned");
        let images = self.images.part(0, n * self.stored * self.stored * 3);
        let index = self.index.part(0, n);
        let draws = |number| {
            let draw = |&id: &u32| self.augment.photo(self.seed, epoch, id as usize, number, self.stored);
            ids.iter().map(draw).collect::<Vec<_>>()
        };
        let photo = match view {
            View::First => Some(draws(0)),
            View::Second => Some(draws(1)),
            View::FirstUnchanged | View::Plain => None,
        };
        let photo =
            photo.map(|draws| dev.write(self.photo.part(0, n), &draws).map(|()| self.photo.part(0, n))).transpose()?;
        let crops = match view {
            View::First | View::FirstUnchanged => Some(self.crops.part(0, n)),
            View::Second | View::Plain => None,
        };
        if let Some(crops) = crops {
            dev.write(crops, &self.windows(ids, epoch, self.stored))?;
        }
        dev.view_render(plan, x, images, index, photo, crops)
    }

    /// The windows that view 2's features are warped by, on a map of `side` pixels; view 1's features stay as they are.
    pub fn feature_crops(&self, ids: &[u32], epoch: usize, view: View, side: usize) -> Vec<Crop> {
        if view == View::Second { self.windows(ids, epoch, side) } else { vec![Crop::whole(side); ids.len()] }
    }

    fn windows(&self, ids: &[u32], epoch: usize, side: usize) -> Vec<Crop> {
        ids.iter().map(|&id| self.augment.geometry(self.seed, epoch, id as usize).crop(side)).collect()
    }

    pub fn size(&self) -> usize {
        self.size
    }
}
