//! From drawn numbers to network inputs: what the host stages for a batch, and the render op.

use crate::augment::Augment;
use crate::base::Result;
use crate::device::ops::{Backend, Crop, Photo, ViewSpec};
use crate::device::{Layout, Pool, Slot};

/// Which rendering of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum View {
    /// Photometric change 1, geometric change of the input.
    First,
    /// Geometric change of the input alone (see `Recipe::bug_plain_view1`).
    FirstUnchanged,
    /// Photometric change 2; the geometric change is the features' (see [`Feeder::feature_crops`]).
    Second,
    /// The image, resized.
    Plain,
    /// A window of the input, neither mirrored nor otherwise changed (IIC).
    Window,
    /// The same window with photometric change 2, mirrored where the draw says so; the features are
    /// mirrored back (IIC).
    Mirrored,
    /// Photometric change 1 alone.
    Photometric,
}

impl View {
    /// Which of the two photometric draws it has.
    fn photo(self) -> Option<usize> {
        match self {
            View::First | View::Photometric => Some(0),
            View::Second | View::Mirrored => Some(1),
            View::FirstUnchanged | View::Plain | View::Window => None,
        }
    }

    /// Whether a window of the input is cut.
    fn crops(self) -> bool {
        matches!(self, View::First | View::FirstUnchanged | View::Window | View::Mirrored)
    }
}

/// The squares that views are rendered from, and to.
#[derive(Clone, Copy, Debug)]
pub struct InputShape {
    /// Side of a stored image.
    pub stored: usize,
    /// Side of the network's input.
    pub size: usize,
    /// Channels of the network's input; above 4 it has the Sobel gradient.
    pub channels: usize,
}

/// Renders views of stored images: what the host stages before a step, and the ops of the step.
pub struct Feeder<B: Backend> {
    augment: Augment,
    seed: u64,
    /// Side of a stored image and of the network's input.
    stored: usize,
    size: usize,
    /// Whether the input has the Sobel gradient.
    sobel: bool,
    images: Images,
    index: Slot<u32>,
    /// Draws of the views of a step.
    draws: [Draws; 2],
    /// By number of images.
    plans: Vec<(usize, B::ViewPlan)>,
}

/// Where stored images are when a step runs.
enum Images {
    /// All of them on the device, loaded once.
    Resident(Slot<u8>),
    /// A batch at a time.
    Staged(Staged),
}

/// Buffers for a batch of images: one, or two, so that the next batch comes while a step runs.
struct Staged {
    slots: Vec<Slot<u8>>,
    /// The slot of the present batch.
    at: usize,
    /// The images that lie in the slot after it already.
    next: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Draws {
    photo: Slot<Photo>,
    crops: Slot<Crop>,
}

impl<B: Backend> Feeder<B> {
    /// `batches`: every number of images that a batch will have. `resident`: the images of the data
    /// set, if all of them are to lie on the device; [`Feeder::load`] brings them there.
    pub fn plan(
        dev: &mut B,
        layout: &mut Layout,
        augment: Augment,
        seed: u64,
        shape: InputShape,
        batches: &[usize],
        resident: Option<usize>,
    ) -> Result<Self> {
        let InputShape { stored, size, channels } = shape;
        let capacity = batches.iter().copied().max().unwrap_or(1);
        let mut plans = Vec::new();
        for &n in batches {
            plans.push((
                n,
                dev.plan_view(ViewSpec { n, sh: stored, sw: stored, h: size, w: size, channels })?,
            ));
        }
        let bytes = stored * stored * 3;
        let images = match resident {
            Some(all) => Images::Resident(layout.take(Pool::Dataset, "images", all * bytes)),
            None => {
                // Where memory is the host's there is nothing to copy meanwhile.
                let slots = if dev.free_bytes().is_some() { 2 } else { 1 };
                let slots = (0..slots)
                    .map(|_| layout.take(Pool::Images, "images", capacity * bytes))
                    .collect();
                Images::Staged(Staged { slots, at: 0, next: Vec::new() })
            }
        };
        let index = layout.take(Pool::Staging, "image index", capacity);
        let draws = [1, 2].map(|view| Draws {
            photo: layout.take(Pool::Staging, format!("photometric draws {view}"), capacity),
            crops: layout.take(Pool::Staging, format!("input crops {view}"), capacity),
        });
        Ok(Feeder { augment, seed, stored, size, sobel: channels > 4, images, index, draws, plans })
    }

    /// Brings a resident data set to the device, a few images at a time; `gather` fills (ids,
    /// stored, stored, 3).
    pub fn load(
        &mut self,
        dev: &mut B,
        gather: impl Fn(&[u32], &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let Images::Resident(slot) = self.images else { return Ok(()) };
        let bytes = self.stored * self.stored * 3;
        // A multiple of what a slot is aligned to, whatever the image's size.
        dev.load(slot, 64 * bytes, |start, out| {
            let first = start / bytes;
            let ids: Vec<u32> = (first as u32..(first + out.len() / bytes) as u32).collect();
            gather(&ids, out)
        })
    }

    /// What `views` of the images `ids` need, written before the step: the images where they are
    /// not resident (`gather` fills (n, stored, stored, 3)), and the draws.
    pub fn stage(
        &mut self,
        dev: &mut B,
        ids: &[u32],
        epoch: usize,
        views: &[View],
        gather: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let n = ids.len();
        match &mut self.images {
            Images::Resident(_) => dev.write(self.index, ids)?,
            Images::Staged(staged) => {
                if staged.next == ids {
                    staged.at = (staged.at + 1) % staged.slots.len();
                    dev.arrive(staged.slots[staged.at])?;
                } else {
                    dev.fill(
                        staged.slots[staged.at].part(0, n * self.stored * self.stored * 3),
                        gather,
                    )?;
                }
                staged.next.clear();
                dev.write(self.index, &Vec::from_iter(0..n as u32))?;
            }
        }
        for (&view, draws) in views.iter().zip(self.draws) {
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

    /// Brings the images of the next batch while the step that was just queued runs, where there is
    /// a second buffer for them.
    pub fn prefetch(
        &mut self,
        dev: &mut B,
        ids: &[u32],
        gather: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let Images::Staged(staged) = &mut self.images else { return Ok(()) };
        if staged.slots.len() < 2 || ids.is_empty() {
            return Ok(());
        }
        let slot = staged.slots[1 - staged.at].part(0, ids.len() * self.stored * self.stored * 3);
        dev.prefetch(slot, gather)?;
        staged.next = ids.to_vec();
        Ok(())
    }

    /// Which buffer the staged images lie in: a step that was recorded reads the one it was
    /// recorded with.
    pub fn buffer(&self) -> usize {
        match &self.images {
            Images::Resident(_) => 0,
            Images::Staged(staged) => staged.at,
        }
    }

    /// x (n, size, size, 4) = the view of each staged image; it is number `at` of the views that
    /// were staged.
    pub fn render(
        &self,
        dev: &mut B,
        x: Slot<B::Act>,
        n: usize,
        at: usize,
        view: View,
    ) -> Result<()> {
        let (_, plan) =
            self.plans.iter().find(|(m, _)| *m == n).expect("every batch size was planned");
        let images = match &self.images {
            Images::Resident(slot) => *slot,
            Images::Staged(staged) => {
                staged.slots[staged.at].part(0, n * self.stored * self.stored * 3)
            }
        };
        let draws = self.draws[at];
        let photo = view.photo().map(|_| draws.photo.part(0, n));
        let crops = view.crops().then(|| draws.crops.part(0, n));
        dev.view_render(plan, x, images, self.index.part(0, n), photo, crops)?;
        if self.sobel { dev.view_sobel(plan, x) } else { Ok(()) }
    }

    /// The windows that a view's features are warped by, on a map of `side` pixels: view 2's, and
    /// what mirrors IIC's second view back; others stay as they are.
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

    /// The windows of stored images that a view reads, and their mirrors.
    pub fn input_crops(&self, ids: &[u32], epoch: usize, view: View) -> Vec<Crop> {
        let crops = self.windows(ids, epoch, self.stored);
        match view {
            View::Window => crops.into_iter().map(|crop| Crop { flip: 0, ..crop }).collect(),
            _ if view.crops() => crops,
            _ => vec![Crop::whole(self.stored); ids.len()],
        }
    }

    fn windows(&self, ids: &[u32], epoch: usize, side: usize) -> Vec<Crop> {
        ids.iter()
            .map(|&id| self.augment.geometry(self.seed, epoch, id as usize).crop(side))
            .collect()
    }

    /// Changes what draws come from.
    pub fn draw_from(&mut self, augment: Augment, seed: u64) {
        (self.augment, self.seed) = (augment, seed);
    }

    pub fn size(&self) -> usize {
        self.size
    }
}

/// A label map (stored, stored) cut and mirrored as its picture is, by nearest neighbour: (side,
/// side).
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
