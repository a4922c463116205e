//! Launchers of views: the mean greys that contrasts need, then everything else in one kernel.

use crate::base::{Error, Result};
use crate::device::cuda::context::{Cuda, Grid, Kernel};
use crate::device::ops::{Crop, Photo, View, ViewSpec, want};
use crate::device::{Activation, Slot};

const THREADS: u32 = 256;
/// Partial sums of grey an image.
const PARTS: usize = 32;
/// Side of a block's outputs.
const TILE: usize = 32;
/// Height of a block's outputs of the Sobel gradient; a block is as wide as `TILE`.
const SOBEL_ROWS: usize = THREADS as usize / TILE;
/// The longest side of a stored image: two tables of a blur's weights lie in shared memory.
const LONGEST: usize = 4096;

#[derive(Clone, Copy, Debug)]
pub struct ViewPlan {
    spec: ViewSpec,
    grey: Kernel,
    render: Kernel,
    sobel: Kernel,
}

/// Bytes of the Gaussian and of its tails for distances up to `longest`.
fn tables(longest: usize) -> usize {
    2 * (longest + 1) * size_of::<f32>()
}

impl<A: Activation> View for Cuda<A> {
    type ViewPlan = ViewPlan;

    fn plan_view(&mut self, spec: ViewSpec) -> Result<ViewPlan> {
        spec.check()?;
        let ViewSpec { n, sh, sw, h, w, .. } = spec;
        if sh.max(sw) > LONGEST || h.max(w) > 1 << 20 || n > 0xffff {
            let what = format!("{spec:?} is larger than the GPU's kernels take");
            return Err(Error::input(
                what,
                format!("store images at {LONGEST}² pixels at most, and use smaller batches"),
            ));
        }
        let render = self.kernel("view_render")?;
        // The most that any plan needs, so that the order of plans does not matter.
        self.allow_shared(render, tables(LONGEST))?;
        self.ask_scratch(n * PARTS * size_of::<f32>());
        Ok(ViewPlan {
            spec,
            grey: self.kernel("view_grey")?,
            render,
            sobel: self.kernel("view_sobel")?,
        })
    }

    fn view_render(
        &mut self,
        plan: &ViewPlan,
        x: Slot<A>,
        images: Slot<u8>,
        index: Slot<u32>,
        photo: Option<Slot<Photo>>,
        crops: Option<Slot<Crop>>,
    ) -> Result<()> {
        let ViewSpec { n, sh, sw, h, w, channels } = plan.spec;
        let bytes = sh * sw * 3;
        want("view", "x", x, plan.spec.x_len())?;
        want("view", "images", images, (images.len / bytes).max(1) * bytes)?;
        want("view", "index", index, n)?;
        photo.map_or(Ok(()), |s| want("view", "photo", s, n))?;
        crops.map_or(Ok(()), |s| want("view", "crops", s, n))?;

        let partial = self.at(self.scratch::<f32>(0, n * PARTS)?);
        let (images, index, drawn) = (self.at(images), self.at(index), self.at_or_null(photo));
        if photo.is_some() {
            let args = [partial, images, index, drawn, sh.into(), sw.into()];
            self.launch(plan.grey, Grid::new((PARTS, n), THREADS), &args)?;
        }
        let grid =
            Grid::new((w.div_ceil(TILE), h.div_ceil(TILE), n), THREADS).shared(tables(sh.max(sw)));
        let sizes = [sh.into(), sw.into(), h.into(), w.into(), channels.into()];
        let args =
            [&[self.at(x), images, index, drawn, self.at_or_null(crops), partial], &sizes[..]]
                .concat();
        self.launch(plan.render, grid, &args)
    }

    fn view_sobel(&mut self, plan: &ViewPlan, x: Slot<A>) -> Result<()> {
        plan.spec.check_sobel(x)?;
        let ViewSpec { n, h, w, .. } = plan.spec;
        let grid = Grid::new((w.div_ceil(TILE), h.div_ceil(SOBEL_ROWS), n), THREADS);
        self.launch(plan.sobel, grid, &[self.at(x), h.into(), w.into()])
    }
}
