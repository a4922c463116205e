//! The step from drawn numbers to network inputs: what the host stages for a batch, and the op that
//! renders it.

use crate::augment::Augment;
use crate::augment::kept::Kept;
use crate::augment::view::View;
use crate::base::{BySize, Result, stop};
use crate::data::ImageStore;
use crate::device::ops::{
    Crop, Photo, Plan, ViewRender, ViewSobel, ViewSpec, plan_view, view_render, view_sobel,
};
use crate::device::{ALIGN, Act, Engine, Layout, Pool, Slot};

/// What a [`Feeder`] reads and renders: sizes, and the source of its draws.
#[derive(Clone, Copy, Debug)]
pub struct FeederSpec<'a> {
    /// The strengths and probabilities that views are drawn with.
    pub augment: Augment,
    /// The run's seed, of which draws are functions.
    pub seed: u64,
    /// Side of a stored image, in pixels.
    pub stored: usize,
    /// Side of the network's input, in pixels.
    pub size: usize,
    /// Channels of the network's input, as defined by [`ViewSpec::channels`].
    pub channels: usize,
    /// Every number of images that a batch will have, such as the full batch and the last one.
    pub batches: &'a [usize],
    /// The views that several passes of an epoch read, by the same draws.
    pub repeated: &'a [View],
}

/// Renders views of stored images: what the host stages before a step, and the ops of the step.
pub struct Feeder {
    augment: Augment,
    seed: u64,
    stored: usize,
    size: usize,
    /// Whether the input's last channels are Sobel gradients.
    sobel: bool,
    /// Number of images of the largest batch.
    capacity: usize,
    images: Images,
    /// (capacity), the place of each image of the batch in `images`.
    index: Slot<u32>,
    /// The draws of a step's views, at most two.
    draws: [Draws; 2],
    /// The rendering op's plan, by number of images.
    plans: BySize<Plan<ViewSpec>>,
    /// The views that are rendered once an epoch.
    kept: Kept,
    /// Which of the staged views are read from those, and whether any is rendered.
    loaded: [bool; 2],
    renders: bool,
}

/// What the ops of a step read: where this is another, they are others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sources {
    /// The number of the buffer that the batch's images lie in.
    buffer: usize,
    /// Which of the step's views were kept.
    loaded: [bool; 2],
}

/// The place of stored images on the device when a step runs.
enum Images {
    /// All images of the data set, loaded once: (images, stored, stored, 3).
    Resident(Slot<u8>),
    /// The images of a batch, brought for each step.
    Staged(Staged),
}

/// Buffers for a batch of images each: two if the next batch can come while a step runs, else one.
/// There are none before they are placed.
#[derive(Default)]
struct Staged {
    slots: Vec<Slot<u8>>,
    /// The number in `slots` of the present batch's buffer.
    at: usize,
    /// The images that were prefetched into the other slot. Empty if none were.
    next: Vec<u32>,
}

/// The draws of one view: an element an image.
#[derive(Clone, Copy)]
struct Draws {
    photo: Slot<Photo>,
    crops: Slot<Crop>,
}

impl Feeder {
    /// Plans everything except the memory of the images. A step of its own places that, either
    /// after everything else is planned ([`Feeder::place`]), or at any time
    /// ([`Feeder::place_batches`]).
    pub fn plan(dev: &mut dyn Engine, layout: &mut Layout, spec: FeederSpec) -> Result<Self> {
        let FeederSpec { augment, seed, stored, size, channels, batches, repeated } = spec;
        let capacity = batches.iter().copied().max().unwrap_or(1);
        let view = ViewSpec { n: 1, sh: stored, sw: stored, h: size, w: size, channels };
        let plan = |n| plan_view(dev, ViewSpec { n, ..view });
        let plans = BySize::plan(batches.iter().copied(), plan)?;
        let kept = Kept::plan(dev, layout, repeated, view, batches)?;
        let index = layout.take(Pool::Staging, "image index", capacity);
        let draws = [1, 2].map(|view| Draws {
            photo: layout.take(Pool::Staging, format!("photometric draws {view}"), capacity),
            crops: layout.take(Pool::Staging, format!("input crops {view}"), capacity),
        });
        Ok(Feeder {
            augment,
            seed,
            stored,
            size,
            sobel: channels > 4,
            capacity,
            images: Images::Staged(Staged::default()),
            index,
            draws,
            plans,
            kept,
            loaded: [false; 2],
            renders: true,
        })
    }

    /// Places what an engine with memory of its own has room for beside everything else; the last
    /// step of a plan. If all images of the data set fit, they become resident, and
    /// [`Feeder::load`] then brings them; otherwise they come a batch at a time. If the views that
    /// several passes of an epoch read fit as well, they are kept.
    pub fn place(
        &mut self,
        dev: &mut dyn Engine,
        layout: &mut Layout,
        images: usize,
    ) -> Result<()> {
        dev.decide()?;
        let aligned = |images: usize| (images * self.image_bytes()).next_multiple_of(ALIGN);
        let (all, batches) = (aligned(images), 2 * aligned(self.capacity));
        let used = layout.total_bytes() + dev.scratch_bytes();
        let fits = |bytes| dev.free_bytes().is_some_and(|free| used + bytes <= free);
        let resident = fits(all);
        if fits(if resident { all } else { batches } + self.kept.bytes(images)) {
            self.kept.place(layout, images);
        }
        if resident {
            let bytes = images * self.image_bytes();
            self.images = Images::Resident(layout.take(Pool::Dataset, "images", bytes));
        } else {
            self.place_batches(dev, layout);
        }
        Ok(())
    }

    /// Places buffers for images that come a batch at a time.
    pub fn place_batches(&mut self, dev: &dyn Engine, layout: &mut Layout) {
        // On the host's own memory a copy cannot overlap with a step, so one buffer is enough.
        let count = if dev.free_bytes().is_some() { 2 } else { 1 };
        let bytes = self.capacity * self.image_bytes();
        let slots = (0..count).map(|_| layout.take(Pool::Images, "images", bytes)).collect();
        self.images = Images::Staged(Staged { slots, ..Staged::default() });
    }

    /// Bytes of a stored image: 8-bit RGB.
    fn image_bytes(&self) -> usize {
        self.stored * self.stored * 3
    }

    /// Copies a resident data set to the device, a few images at a time. Does nothing if images
    /// come in batches.
    pub fn load(&mut self, dev: &mut dyn Engine, set: &ImageStore) -> Result<()> {
        let Images::Resident(slot) = self.images else { return Ok(()) };
        let bytes = self.image_bytes();
        // 64 images: a multiple of a slot's alignment, whatever the image's size.
        dev.load_bytes(slot, 64 * bytes, &mut |start, out| {
            stop::check()?;
            let first = start / bytes;
            let ids: Vec<u32> = (first as u32..(first + out.len() / bytes) as u32).collect();
            set.gather(&ids, out)
        })
    }

    /// Writes what the next step needs to render `views` of the images `ids`: the images themselves
    /// if they are not resident, and the views' draws for `epoch`. Views that are kept for `epoch`
    /// need neither.
    pub fn stage(
        &mut self,
        dev: &mut dyn Engine,
        set: &ImageStore,
        ids: &[u32],
        epoch: usize,
        views: &[View],
    ) -> Result<()> {
        self.loaded = self.kept.stage(dev, ids, epoch, views)?;
        self.renders = self.loaded[..views.len()].contains(&false);
        if self.renders {
            self.stage_images(dev, ids, |out| set.gather(ids, out))?;
        }
        for ((&view, draws), loaded) in views.iter().zip(self.draws).zip(self.loaded) {
            if loaded {
                continue;
            }
            if let Some(number) = view.photo() {
                let photo = |&id: &u32| {
                    self.augment.photo(self.seed, epoch, id as usize, number, self.stored)
                };
                dev.write(draws.photo, &ids.iter().map(photo).collect::<Vec<_>>())?;
            }
            if view.crops() {
                dev.write(draws.crops, &self.input_crops(ids, epoch, view))?;
            }
        }
        Ok(())
    }

    /// Writes a picture (stored, stored, 3) that belongs to no data set, as a batch of one image.
    pub fn stage_picture(&mut self, dev: &mut dyn Engine, picture: &[u8]) -> Result<()> {
        (self.loaded, self.renders) = ([false; 2], true);
        self.stage_images(dev, &[0], |out| {
            out.copy_from_slice(picture);
            Ok(())
        })
    }

    /// Makes the images `ids` those of the next step. If they were prefetched, switches to that
    /// buffer; else `fill` writes them.
    fn stage_images(
        &mut self,
        dev: &mut dyn Engine,
        ids: &[u32],
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let bytes = ids.len() * self.image_bytes();
        match &mut self.images {
            Images::Resident(_) => dev.write(self.index, ids),
            Images::Staged(staged) => {
                if staged.next == ids {
                    staged.at = (staged.at + 1) % staged.slots.len();
                    dev.await_images(staged.slots[staged.at])?;
                } else {
                    dev.fill(staged.slots[staged.at].part(0, bytes), fill)?;
                }
                staged.next.clear();
                dev.write(self.index, &Vec::from_iter(0..ids.len() as u32))
            }
        }
    }

    /// The views that a pass over all images should render beside `view`: where it brings images to
    /// the device to render that one, the others that are kept and not yet rendered for `epoch`.
    pub fn companions(&self, view: View, epoch: usize) -> Vec<View> {
        let mut missing: Vec<View> = self.kept.missing(epoch).collect();
        if matches!(self.images, Images::Resident(_)) || !missing.contains(&view) {
            return Vec::new();
        }
        missing.retain(|&other| other != view);
        missing
    }

    /// Notes that all images of the data set have been rendered as `view` by the draws of `epoch`:
    /// if the view is kept, later passes of the epoch read it.
    pub fn rendered(&mut self, view: View, epoch: usize) {
        self.kept.rendered(view, epoch);
    }

    /// Copies the images of the next batch while the step that was just queued runs. Does nothing
    /// if there is no second buffer for them, or if that step reads no image.
    pub fn prefetch(&mut self, dev: &mut dyn Engine, set: &ImageStore, ids: &[u32]) -> Result<()> {
        let bytes = ids.len() * self.image_bytes();
        let Images::Staged(staged) = &mut self.images else { return Ok(()) };
        if staged.slots.len() < 2 || ids.is_empty() || !self.renders {
            return Ok(());
        }
        let slot = staged.slots[1 - staged.at].part(0, bytes);
        dev.prefetch(slot, |out| set.gather(ids, out))?;
        staged.next = ids.to_vec();
        Ok(())
    }

    /// What the step reads that was staged last. A recorded step always reads what it was recorded
    /// with, so there is one recording for each.
    pub fn sources(&self) -> Sources {
        let buffer = match &self.images {
            Images::Staged(staged) if self.renders => staged.at,
            _ => 0,
        };
        Sources { buffer, loaded: self.loaded }
    }

    /// x (n, size, size, channels) = the `view` of each staged image. `at` is the position of this
    /// view among those that were passed to [`Feeder::stage`].
    pub fn render(
        &self,
        dev: &mut dyn Engine,
        x: Slot<Act>,
        n: usize,
        at: usize,
        view: View,
    ) -> Result<()> {
        let plan = if self.loaded[at] {
            self.kept.read(dev, x, n, view)?
        } else {
            let images = match &self.images {
                Images::Resident(slot) => *slot,
                Images::Staged(staged) => staged.slots[staged.at].part(0, n * self.image_bytes()),
            };
            let (kept, index, draws) =
                (self.kept.target(view, n), self.index.part(0, n), self.draws[at]);
            let photo = view.photo().map(|_| draws.photo.part(0, n));
            let crops = view.crops().then(|| draws.crops.part(0, n));
            let plan = self.plans.of(n);
            view_render(dev, plan, ViewRender { x, kept, images, index, photo, crops })?;
            plan
        };
        if self.sobel { view_sobel(dev, plan, ViewSobel { x }) } else { Ok(()) }
    }

    /// The crops by which a view's features are warped, on a map of `side`² cells. PiCIE's second
    /// view gets its geometric change so, and IIC's second view is mirrored back; other views stay
    /// whole.
    pub fn feature_crops(&self, ids: &[u32], epoch: usize, view: View, side: usize) -> Vec<Crop> {
        match view {
            View::Second => self.windows(ids, epoch, side),
            View::Mirrored => {
                let mirror = |crop: Crop| Crop { flip: crop.flip, ..Crop::whole(side) };
                self.windows(ids, epoch, side).into_iter().map(mirror).collect()
            }
            _ => vec![Crop::whole(side); ids.len()],
        }
    }

    /// The crops of stored images that a view's input is rendered from.
    pub fn input_crops(&self, ids: &[u32], epoch: usize, view: View) -> Vec<Crop> {
        let crops = self.windows(ids, epoch, self.stored);
        match view {
            View::Window => crops.into_iter().map(|crop| Crop { flip: 0, ..crop }).collect(),
            _ if view.crops() => crops,
            _ => vec![Crop::whole(self.stored); ids.len()],
        }
    }

    /// The geometric draws of the images, as crops of a map of `side`² cells.
    fn windows(&self, ids: &[u32], epoch: usize, side: usize) -> Vec<Crop> {
        ids.iter()
            .map(|&id| self.augment.window(self.seed, epoch, id as usize).crop(side))
            .collect()
    }

    /// Replaces the source of all later draws.
    pub fn draw_from(&mut self, augment: Augment, seed: u64) {
        (self.augment, self.seed) = (augment, seed);
        self.kept.forget();
    }

    /// Side of the network's input, in pixels.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// Cuts and mirrors a label map (stored, stored) as its picture is, and resizes it to (side, side)
/// by nearest neighbor.
pub fn crop_labels(map: &[u8], stored: usize, crop: Crop, side: usize) -> Vec<u8> {
    let [top, left, window] = [crop.top, crop.left, crop.side].map(|v| v as usize);
    // The pixel that the middle of an output pixel falls into.
    let at = |i: usize| (2 * i + 1) * window / (2 * side);
    let column = |x: usize| left + at(if crop.flip == 1 { side - 1 - x } else { x });
    (0..side * side).map(|i| map[(top + at(i / side)) * stored + column(i % side)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_maps_are_cut_and_mirrored_as_their_pictures_are() {
        let map: Vec<u8> = (0..36).collect();
        let crop = Crop { top: 1, left: 2, side: 4, flip: 0 };
        assert_eq!(crop_labels(&map, 6, crop, 4)[..5], [8, 9, 10, 11, 14]);
        assert_eq!(crop_labels(&map, 6, Crop { flip: 1, ..crop }, 4)[..5], [11, 10, 9, 8, 17]);
        // Half the size: the second and the fourth pixel of the window.
        assert_eq!(crop_labels(&map, 6, crop, 2), [15, 17, 27, 29]);
        assert_eq!(crop_labels(&map, 6, Crop::whole(6), 6), map);
        // Twice the size: each pixel twice.
        assert_eq!(crop_labels(&map, 6, crop, 8)[..4], [8, 8, 9, 9]);
    }
}
