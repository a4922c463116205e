//! Bodies of the stem; `norm` computes its statistics, and finishes the sums of its backward.

use crate::base::{Error, Result};
use crate::device::cuda::Cuda;
use crate::device::cuda::kernels;
use crate::device::cuda::kernels::consts::stem::STRIP;
use crate::device::cuda::norm::{Finish, Sums, across, fits};
use crate::device::ops::norm::NormOps;
use crate::device::ops::stem::StemOps;
use crate::device::ops::{
    NormGate, NormParams, NormSpec, Passed, StemBackward, StemForward, StemInfer, StemSpec,
};

/// The norm of x.
fn norm(spec: &StemSpec) -> NormSpec {
    let &StemSpec { groups, n, h, w, c } = spec;
    NormSpec { groups, rows: n / groups * h * w, c }
}

/// Strips of rows of windows, a block of an image each.
fn strips(spec: &StemSpec) -> usize {
    spec.p().div_ceil(STRIP)
}

/// The norm that a map of the windows' maxima would have.
fn pooled(spec: &StemSpec) -> NormSpec {
    let &StemSpec { groups, n, c, .. } = spec;
    NormSpec { groups, rows: n / groups * spec.p() * spec.q(), c }
}

impl StemOps for Cuda {
    fn plan_stem(&mut self, spec: StemSpec) -> Result<usize> {
        let StemSpec { n, h, w, c, .. } = spec;
        fits("the stem", c, &[n * h * w])?;
        // Images are a grid's second dimension.
        if n > usize::from(u16::MAX) {
            return Err(Error::input(
                format!("the stem of {n} images at once"),
                "use a smaller --batch",
            ));
        }
        self.plan_norm(pooled(&spec))?;
        self.plan_norm(norm(&spec))
    }

    fn stem_forward(&mut self, a: Passed<StemForward>) -> Result<()> {
        let (spec, StemForward { z, maxima, saved, x, params }) = (a.spec(), *a);
        if x.len == 0 {
            return Ok(());
        }
        let line = self.statistics(&norm(spec), saved, x, params)?;
        let (&StemSpec { groups, n, h, w, c }, (wide, tiles)) = (spec, across(spec.c));
        let (argmax, peak) = (maxima.map(|m| m.argmax), maxima.map(|m| m.peak));
        let images_per_group = n / groups;
        let kernel =
            kernels::StemPool { z, argmax, peak, x, line, images_per_group, h, w, c, wide };
        self.launch((strips(spec), n, tiles), 0, kernel)
    }

    fn stem_infer(&mut self, a: Passed<StemInfer>) -> Result<()> {
        let (spec, StemInfer { z, x }) = (a.spec(), *a);
        if x.len == 0 {
            return Ok(());
        }
        let (&StemSpec { n, h, w, c, .. }, (wide, tiles)) = (spec, across(spec.c));
        self.launch((strips(spec), n, tiles), 0, kernels::StemInfer { z, x, h, w, c, wide })
    }

    fn stem_backward(&mut self, a: Passed<StemBackward>) -> Result<()> {
        let spec = a.spec();
        let StemBackward { dx, dgamma, dbeta, dz, maxima, x, saved, params } = *a;
        if x.len == 0 {
            return Ok(());
        }
        let NormParams { gamma, beta, .. } = params;
        let sums =
            Sums { dresidual: None, dz, gate: NormGate::Beta(beta), x: maxima.peak, saved, gamma };
        let (partial, chunks) = self.norm_sums(&pooled(spec), sums)?;
        let finish = Finish { dgamma, dbeta, saved, gamma, beta: Some(beta) };
        let line = self.norm_gradients(&norm(spec), finish, partial, chunks)?;
        let (&StemSpec { groups, n, h, w, c }, (wide, tiles)) = (spec, across(spec.c));
        let argmax = maxima.argmax;
        let images_per_group = n / groups;
        let kernel =
            kernels::StemBackwardApply { dx, dz, argmax, x, line, images_per_group, h, w, c, wide };
        self.launch((strips(spec), n, tiles), 0, kernel)
    }
}
