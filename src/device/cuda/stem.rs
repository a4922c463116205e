//! Launchers of `cuda/stem.cu`; statistics, and what becomes of the backward's sums, are `norm`'s.

use crate::base::{Error, Result};
use crate::device::cuda::context::{Arg, Cuda, Grid, Kernel};
use crate::device::cuda::norm::{Cut, Finish, NormPlan, fits};
use crate::device::ops::{Norm, NormParams, NormSpec, Stem, StemSpec, want};
use crate::device::{Activation, Slot};

/// Threads of a block of `stem.cu`.
const THREADS: usize = 128;
/// Blocks of the reduction: eight on each of an H100's 132 multiprocessors. As in `norm`, the same
/// on every GPU.
const BLOCKS: usize = 8 * 132;

#[derive(Clone, Copy, Debug)]
struct Kernels {
    pool: Kernel,
    infer: Kernel,
    backward_reduce: Kernel,
    backward_apply: Kernel,
}

#[derive(Clone, Debug)]
pub struct StemPlan {
    spec: StemSpec,
    norm: NormPlan,
    /// The backward's sums: a row of windows is a row.
    cut: Cut,
    kernels: Kernels,
}

impl StemPlan {
    /// Blocks of a sweep, and what a kernel that sweeps takes last: h, w, c, wide.
    fn sweep(&self) -> (Grid, [Arg<'static>; 4]) {
        let StemSpec { n, h, w, c, .. } = self.spec;
        (
            Grid::new((self.spec.p(), n, self.cut.tiles), THREADS as u32),
            [h, w, c, self.cut.wide].map(Arg::from),
        )
    }

    fn images_per_group(&self) -> Arg<'static> {
        (self.spec.n / self.spec.groups).into()
    }
}

impl<A: Activation> Stem for Cuda<A> {
    type StemPlan = StemPlan;

    fn plan_stem(&mut self, spec: StemSpec) -> Result<StemPlan> {
        let StemSpec { groups, n, h, w, c } = spec;
        fits("the stem", c, &[n * h * w])?;
        // Images are a grid's second dimension.
        if n > usize::from(u16::MAX) {
            return Err(Error::input(
                format!("the stem of {n} images at once"),
                "use a smaller --batch",
            ));
        }
        let norm_spec = NormSpec { groups, rows: n / groups * h * w, c };
        let norm = self.plan_norm(norm_spec)?;
        // Threads stand along a row of windows, so a chunk may be a single row.
        let cut = Cut::new(groups, n / groups * spec.p(), c, BLOCKS, 1);
        self.ask_norm_scratch(&norm_spec, &cut);
        let kernels = Kernels {
            pool: self.kernel("stem_pool")?,
            infer: self.kernel("stem_infer")?,
            backward_reduce: self.kernel("stem_backward_reduce")?,
            backward_apply: self.kernel("stem_backward_apply")?,
        };
        Ok(StemPlan { spec, norm, cut, kernels })
    }

    fn stem_forward(
        &mut self,
        plan: &StemPlan,
        z: Slot<A>,
        argmax: Option<Slot<u8>>,
        saved: Slot<f32>,
        x: Slot<A>,
        params: NormParams,
    ) -> Result<()> {
        let spec = plan.spec;
        want("stem_forward", "z", z, spec.z_len())?;
        argmax.map_or(Ok(()), |a| want("stem_forward", "argmax", a, spec.z_len()))?;
        want("stem_forward", "saved", saved, spec.saved_len())?;
        want("stem_forward", "x", x, spec.x_len())?;
        params.check("stem_forward", spec.c)?;
        if x.len == 0 {
            return Ok(());
        }
        let line = self.norm_statistics(&plan.norm, saved, x, params)?;
        let (grid, [h, w, c, wide]) = plan.sweep();
        let tensors = [self.at(z), self.at_or_null(argmax), self.at(x), self.at(line)];
        let sizes = [plan.images_per_group(), h, w, c, wide];
        self.launch(plan.kernels.pool, grid, &[&tensors[..], &sizes].concat())
    }

    fn stem_infer(&mut self, plan: &StemPlan, z: Slot<A>, x: Slot<A>) -> Result<()> {
        want("stem_infer", "z", z, plan.spec.z_len())?;
        want("stem_infer", "x", x, plan.spec.x_len())?;
        let (grid, [h, w, c, wide]) = plan.sweep();
        self.launch(plan.kernels.infer, grid, &[self.at(z), self.at(x), h, w, c, wide])
    }

    fn stem_backward(
        &mut self,
        plan: &StemPlan,
        dx: Slot<A>,
        dgamma: Slot<f32>,
        dbeta: Slot<f32>,
        dz: Slot<A>,
        argmax: Slot<u8>,
        x: Slot<A>,
        saved: Slot<f32>,
        params: NormParams,
    ) -> Result<()> {
        let (spec, cut) = (plan.spec, plan.cut);
        want("stem_backward", "dx", dx, spec.x_len())?;
        want("stem_backward", "dgamma", dgamma, spec.c)?;
        want("stem_backward", "dbeta", dbeta, spec.c)?;
        want("stem_backward", "dz", dz, spec.z_len())?;
        want("stem_backward", "argmax", argmax, spec.z_len())?;
        want("stem_backward", "x", x, spec.x_len())?;
        want("stem_backward", "saved", saved, spec.saved_len())?;
        params.check("stem_backward", spec.c)?;
        if x.len == 0 {
            return Ok(());
        }
        let NormParams { gamma, beta, .. } = params;
        let partial: Slot<f32> = self.scratch(0, cut.partial_len(spec.groups, spec.c))?;
        let (grid, [h, w, c, wide]) = plan.sweep();
        let rows = spec.n / spec.groups * spec.p();
        let tensors = [self.at(partial), self.at(dz), self.at(argmax), self.at(x), self.at(saved)];
        let args = [
            &tensors[..],
            &[self.at(gamma), self.at(beta), rows.into(), cut.chunk.into(), h, w, c, wide],
        ]
        .concat();
        let blocks = Grid::new((cut.chunks, cut.tiles, spec.groups), THREADS as u32);
        self.launch(plan.kernels.backward_reduce, blocks, &args)?;
        let finish = Finish { dgamma, dbeta, saved, gamma, beta: Some(beta) };
        let line = self.norm_gradients(&plan.norm, finish, partial, cut.chunks)?;
        let tensors = [self.at(dx), self.at(dz), self.at(argmax), self.at(x), self.at(line)];
        let sizes = [plan.images_per_group(), h, w, c, wide];
        self.launch(plan.kernels.backward_apply, grid, &[&tensors[..], &sizes].concat())
    }
}
