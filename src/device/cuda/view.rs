//! Bodies of views: images as they are by a kernel of their own; else the mean greys that contrasts
//! need, then everything else in one kernel; Sobel.

use crate::base::{Error, Result};
use crate::device::cuda::Cuda;
use crate::device::cuda::kernels;
use crate::device::cuda::kernels::consts::view::{
    CHUNK, COLS, LONGEST, MOST, PARTS, STRIP, THREADS,
};
use crate::device::cuda::kernels::consts::view_load::DEEP;
use crate::device::cuda::kernels::consts::view_sobel::{SOBEL_ROWS, TILE};
use crate::device::ops::view::ViewOps;
use crate::device::ops::{Passed, ViewRender, ViewSobel, ViewSpec};

/// Bytes of the Gaussian and of its tails for distances up to `longest`.
fn tables(longest: usize) -> usize {
    2 * (longest + 1) * size_of::<f32>()
}

/// Outputs of a block along an axis of `out`: at most `most`, and alike for all blocks.
fn share(out: usize, most: usize) -> usize {
    out.div_ceil(out.div_ceil(most))
}

impl ViewOps for Cuda {
    fn plan_view(&mut self, spec: ViewSpec) -> Result<usize> {
        let ViewSpec { n, sh, sw, h, w, .. } = spec;
        if sh.max(sw) > LONGEST || h.max(w) > 1 << 20 || n > 0xffff {
            let what = format!("{spec:?} is larger than the GPU's kernels take");
            return Err(Error::input(
                what,
                format!("store images at {LONGEST}² pixels at most, and use smaller batches"),
            ));
        }
        // The most that any plan needs, so that the order of plans does not matter.
        self.allow_shared::<kernels::ViewRender>(tables(LONGEST))?;
        self.ask_scratch(n * PARTS * size_of::<f32>());
        Ok(0)
    }

    fn view_render(&mut self, a: Passed<ViewRender>) -> Result<()> {
        let ViewRender { x, kept, images, index, photo, crops } = *a;
        let &ViewSpec { n, sh, sw, h, w, channels } = a.spec();
        let pixels = h * w;
        if a.is_whole() && kept.is_none() && pixels.is_multiple_of(4) {
            let blocks = (pixels.div_ceil(THREADS * DEEP), n);
            return self.launch(
                blocks,
                0,
                kernels::ViewLoad { x, images, index, pixels, channels },
            );
        }
        let partial = self.scratch(0, n * PARTS)?;
        if let Some(photo) = photo {
            let kernel = kernels::ViewGrey { partial, images, index, photo, sh, sw };
            self.launch((PARTS, n), 0, kernel)?;
        }
        // A strip's window, which recipes' blurs widen by fewer columns than MOST, is to have no
        // more columns than a block has threads.
        let strip = share(w, ((COLS - MOST) * w / w.max(sw)).clamp(1, STRIP));
        let strip = if kept.is_some() { strip.next_multiple_of(4) } else { strip };
        let chunk = share(h, CHUNK);
        let blocks = (w.div_ceil(strip), h.div_ceil(chunk), n);
        let kernel = kernels::ViewRender {
            x,
            kept: kept.map(|kept| kept.pictures),
            places: kept.map(|kept| kept.places),
            images,
            index,
            photo,
            crops,
            partial,
            sh,
            sw,
            h,
            w,
            channels,
            strip,
            chunk,
        };
        self.launch(blocks, tables(sh.max(sw)), kernel)
    }

    fn view_sobel(&mut self, a: Passed<ViewSobel>) -> Result<()> {
        let &ViewSpec { n, h, w, .. } = a.spec();
        let blocks = (w.div_ceil(TILE), h.div_ceil(SOBEL_ROWS), n);
        self.launch(blocks, 0, kernels::ViewSobel { x: a.x, h, w })
    }
}
