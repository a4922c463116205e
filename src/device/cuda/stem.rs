//! Bodies of the stem; `norm` computes its statistics, and finishes the sums of its backward.

use crate::base::{Error, Result};
use crate::device::Slot;
use crate::device::cuda::Cuda;
use crate::device::cuda::kernels;
use crate::device::cuda::norm::{Cut, Finish, fits};
use crate::device::ops::norm::NormOps;
use crate::device::ops::stem::StemOps;
use crate::device::ops::{
    NormParams, NormSpec, Passed, StemBackward, StemForward, StemInfer, StemSpec,
};

/// Blocks of the reduction: eight on each of an H100's 132 multiprocessors. As in `norm`, the same
/// on every GPU.
const BLOCKS: usize = 8 * 132;

/// The norm of x.
fn norm(spec: &StemSpec) -> NormSpec {
    let &StemSpec { groups, n, h, w, c } = spec;
    NormSpec { groups, rows: n / groups * h * w, c }
}

/// Rows of windows of a group.
fn rows(spec: &StemSpec) -> usize {
    spec.n / spec.groups * spec.p()
}

/// How the backward's sums are cut, in rows of windows. Threads stand along such a row, so a chunk
/// may be a single one.
fn cut(spec: &StemSpec) -> Cut {
    Cut::new(spec.groups, rows(spec), spec.c, BLOCKS, 1)
}

impl StemOps for Cuda {
    fn plan_stem(&mut self, spec: StemSpec) -> Result<usize> {
        let StemSpec { groups, n, h, w, c } = spec;
        fits("the stem", c, &[n * h * w])?;
        // Images are a grid's second dimension.
        if n > usize::from(u16::MAX) {
            return Err(Error::input(
                format!("the stem of {n} images at once"),
                "use a smaller --batch",
            ));
        }
        self.plan_norm(norm(&spec))?;
        if spec.x_len() > 0 {
            self.ask_norm_scratch(groups, c, &cut(&spec));
        }
        Ok(0)
    }

    fn stem_forward(&mut self, a: Passed<StemForward>) -> Result<()> {
        let (spec, StemForward { z, argmax, saved, x, params }) = (a.spec(), *a);
        if x.len == 0 {
            return Ok(());
        }
        let line = self.norm_statistics(&norm(spec), saved, x, params)?;
        let (&StemSpec { groups, n, h, w, c }, Cut { wide, tiles, .. }) = (spec, cut(spec));
        let images_per_group = n / groups;
        let kernel = kernels::StemPool { z, argmax, x, line, images_per_group, h, w, c, wide };
        self.launch((spec.p(), n, tiles), 0, kernel)
    }

    fn stem_infer(&mut self, a: Passed<StemInfer>) -> Result<()> {
        let (spec, StemInfer { z, x }) = (a.spec(), *a);
        if x.len == 0 {
            return Ok(());
        }
        let (&StemSpec { n, h, w, c, .. }, Cut { wide, tiles, .. }) = (spec, cut(spec));
        self.launch((spec.p(), n, tiles), 0, kernels::StemInfer { z, x, h, w, c, wide })
    }

    fn stem_backward(&mut self, a: Passed<StemBackward>) -> Result<()> {
        let spec = a.spec();
        let StemBackward { dx, dgamma, dbeta, dz, argmax, x, saved, params } = *a;
        if x.len == 0 {
            return Ok(());
        }
        let NormParams { gamma, beta, .. } = params;
        let (&StemSpec { groups, n, h, w, c }, cut) = (spec, cut(spec));
        let Cut { wide, tiles, chunk, chunks } = cut;
        let partial: Slot<f32> = self.scratch(0, cut.partial_len(groups, c))?;
        let kernel = kernels::StemBackwardReduce {
            partial,
            dz,
            argmax,
            x,
            saved,
            gamma,
            beta,
            rows: rows(spec),
            chunk,
            h,
            w,
            c,
            wide,
        };
        self.launch((chunks, tiles, groups), 0, kernel)?;
        let finish = Finish { dgamma, dbeta, saved, gamma, beta: Some(beta) };
        let line = self.norm_gradients(&norm(spec), finish, partial, chunks)?;
        let images_per_group = n / groups;
        let kernel =
            kernels::StemBackwardApply { dx, dz, argmax, x, line, images_per_group, h, w, c, wide };
        self.launch((spec.p(), n, tiles), 0, kernel)
    }
}
