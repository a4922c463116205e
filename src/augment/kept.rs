//! Views that several passes of an epoch read: the first renders them, and they are kept in 8 bits.

use crate::augment::view::View;
use crate::base::{BySize, Result};
use crate::device::ops::{KeptViews, Plan, ViewRender, ViewSpec, plan_view, view_render};
use crate::device::{ALIGN, Act, Dtype, Engine, Layout, Pool, Slot};

/// The kept views of a data set, if there is memory for them.
pub(super) struct Kept {
    /// The views to keep. Empty on engines with activations of 32 bits, which hold more than the 8
    /// bits that are kept.
    wanted: Vec<View>,
    /// Those that are kept: all, or none.
    views: Vec<KeptView>,
    /// (capacity), the place of each image of the batch: its number in the data set.
    places: Slot<u32>,
    /// Side of the network's input, in pixels.
    size: usize,
    /// The plan of reading them, by number of images.
    plans: BySize<Plan<ViewSpec>>,
}

/// One view of all images.
struct KeptView {
    view: View,
    /// (images, size, size, 3)
    pictures: Slot<u8>,
    /// The epoch whose draws all pictures are of. `None` while they are rendered.
    epoch: Option<usize>,
}

impl Kept {
    /// Plans everything except the memory of the pictures. `spec` is of any number of images at
    /// their stored size, `batches` are all numbers of images that a batch will have.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        wanted: &[View],
        spec: ViewSpec,
        batches: &[usize],
    ) -> Result<Self> {
        let wanted = if dev.dtype() == Dtype::F32 { Vec::new() } else { wanted.to_vec() };
        let batches = if wanted.is_empty() { &[] } else { batches };
        let capacity = batches.iter().copied().max().unwrap_or(0);
        let plan = |n| plan_view(dev, ViewSpec { n, sh: spec.h, sw: spec.w, ..spec });
        let plans = BySize::plan(batches.iter().copied(), plan)?;
        let places = layout.take(Pool::Staging, "view index", capacity);
        Ok(Kept { wanted, views: Vec::new(), places, size: spec.h, plans })
    }

    /// Bytes of the pictures of one view of `images` images.
    fn bytes_of_view(&self, images: usize) -> usize {
        images * self.size * self.size * 3
    }

    /// Bytes of memory that the views of `images` images take.
    pub fn bytes(&self, images: usize) -> usize {
        self.wanted.len() * self.bytes_of_view(images).next_multiple_of(ALIGN)
    }

    /// Places the pictures of `images` images.
    pub fn place(&mut self, layout: &mut Layout, images: usize) {
        let bytes = self.bytes_of_view(images);
        let place = |(i, &view): (usize, &View)| {
            let pictures = layout.take(Pool::Dataset, format!("view {}", i + 1), bytes);
            KeptView { view, pictures, epoch: None }
        };
        self.views = self.wanted.iter().enumerate().map(place).collect();
    }

    /// Writes what a step on the images `ids` needs. Returns which of its views it reads here; it
    /// renders the others, and what it renders of a kept view overwrites pictures of other epochs.
    pub fn stage(
        &mut self,
        dev: &mut dyn Engine,
        ids: &[u32],
        epoch: usize,
        views: &[View],
    ) -> Result<[bool; 2]> {
        let mut loaded = [false; 2];
        if self.views.is_empty() {
            return Ok(loaded);
        }
        for (view, loaded) in views.iter().zip(&mut loaded) {
            if let Some(kept) = self.views.iter_mut().find(|kept| kept.view == *view) {
                *loaded = kept.epoch == Some(epoch);
                kept.epoch = kept.epoch.filter(|_| *loaded);
            }
        }
        dev.write(self.places, ids)?;
        Ok(loaded)
    }

    /// The views that are kept, but not yet rendered for `epoch`.
    pub fn missing(&self, epoch: usize) -> impl Iterator<Item = View> {
        let missing = self.views.iter().filter(move |kept| kept.epoch != Some(epoch));
        missing.map(|kept| kept.view)
    }

    /// Notes that all images have been rendered by the draws of `epoch`.
    pub fn rendered(&mut self, view: View, epoch: usize) {
        if let Some(kept) = self.views.iter_mut().find(|kept| kept.view == view) {
            kept.epoch = Some(epoch);
        }
    }

    /// Forgets all pictures.
    pub fn forget(&mut self) {
        self.views.iter_mut().for_each(|kept| kept.epoch = None);
    }

    /// Where a render of n staged images keeps the view. `None`: nowhere.
    pub fn target(&self, view: View, n: usize) -> Option<KeptViews> {
        let kept = self.views.iter().find(|kept| kept.view == view)?;
        Some(KeptViews { pictures: kept.pictures, places: self.places.part(0, n) })
    }

    /// x (n, size, size, channels) = the view of n staged images as it is kept. Returns the plan of
    /// reading it. Panics if the view is not kept.
    pub fn read(
        &self,
        dev: &mut dyn Engine,
        x: Slot<Act>,
        n: usize,
        view: View,
    ) -> Result<&Plan<ViewSpec>> {
        let KeptViews { pictures, places } = self.target(view, n).expect("the view is kept");
        let (plan, images, index) = (self.plans.of(n), pictures, places);
        view_render(
            dev,
            plan,
            ViewRender { x, kept: None, images, index, photo: None, crops: None },
        )?;
        Ok(plan)
    }
}
