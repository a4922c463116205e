//! Launchers of `cuda/norm.cu`: a reduction over rows, its finish, one sweep; both ways.

use crate::base::{Error, Result};
use crate::device::cuda::context::{Arg, Cuda, Grid, Kernel};
use crate::device::ops::norm::{EPS, MOMENTUM};
use crate::device::ops::{Norm, NormGrads, NormParams, NormSpec, want};
use crate::device::{Activation, Slot};

/// Threads of a block of `norm.cu`.
const THREADS: usize = 256;
/// Blocks that fill a GPU: four on each of an H100's 132 multiprocessors. NOTE: a constant, so that
/// sums are cut in the same places, and rounded alike, on every GPU.
const BLOCKS: usize = 4 * 132;
/// Chunks are multiples of this many rows a thread, so that one has several loads in flight.
const DEPTH: usize = 4;
/// Channels of a block of the finalizing kernels.
const FINALIZED: usize = 4;

/// Threads side by side along a row of `c` channels, 8 channels each: a power of two.
fn wide(c: usize) -> usize {
    (c / 8).next_power_of_two().min(32)
}

/// How a matrix (groups, rows, c) is cut into blocks: `stats.cuh` says how threads stand in one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub wide: usize,
    /// Tiles of 8·`wide` channels.
    pub tiles: usize,
    /// Rows of a block.
    pub chunk: usize,
    /// Chunks of a group.
    pub chunks: usize,
}

impl Cut {
    /// About `blocks` blocks, their rows a multiple of `step`.
    pub fn new(groups: usize, rows: usize, c: usize, blocks: usize, step: usize) -> Self {
        let wide = wide(c);
        let tiles = (c / 8).div_ceil(wide);
        let chunk = rows.div_ceil(blocks.div_ceil(groups * tiles)).max(1).next_multiple_of(step);
        Cut { wide, tiles, chunk, chunks: rows.div_ceil(chunk) }
    }

    /// Floats of the partial sums (groups, chunks, 2, c).
    pub fn partial_len(&self, groups: usize, c: usize) -> usize {
        groups * self.chunks * 2 * c
    }
}

/// What kernels take, in every plan of norm and stem: channels by eights, sizes that an `int`
/// holds.
pub(super) fn fits(op: &str, c: usize, sizes: &[usize]) -> Result<()> {
    if c == 0 || !c.is_multiple_of(8) {
        return Err(Error::input(
            format!("{op} of {c} channels"),
            "use a multiple of 8 on the GPU",
        ));
    }
    // Half of an int: a kernel's row counter runs past the last row.
    if sizes.iter().any(|&size| size > i32::MAX as usize / 2) {
        return Err(Error::input(format!("{op} of sizes {sizes:?}"), "use a smaller --batch"));
    }
    Ok(())
}

#[derive(Clone, Copy, Debug)]
struct Kernels {
    stats: Kernel,
    finalize: Kernel,
    apply: Kernel,
    backward_reduce: Kernel,
    backward_finalize: Kernel,
    backward_apply: Kernel,
}

#[derive(Clone, Debug)]
pub struct NormPlan {
    spec: NormSpec,
    cut: Cut,
    kernels: Kernels,
}

impl NormPlan {
    /// Blocks of a sweep, and what a kernel that sweeps takes last: rows, c, chunk, wide.
    fn sweep(&self) -> (Grid, [Arg<'static>; 4]) {
        let Cut { wide, tiles, chunk, chunks } = self.cut;
        let args = [self.spec.rows, self.spec.c, chunk, wide].map(Arg::from);
        (Grid::new((chunks, tiles, self.spec.groups), THREADS as u32), args)
    }

    fn finalize_grid(&self) -> Grid {
        Grid::new(self.spec.c / FINALIZED, THREADS as u32)
    }
}

/// The coefficients lie in scratch after `partial` floats, and are (groups, `kinds`, c).
fn line<A: Activation>(
    dev: &Cuda<A>,
    spec: &NormSpec,
    partial: usize,
    kinds: usize,
) -> Result<Slot<f32>> {
    dev.scratch(partial * size_of::<f32>(), spec.groups * kinds * spec.c)
}

/// What [`Cuda::norm_gradients`] makes sums into gradients with.
pub(super) struct Finish {
    pub dgamma: Slot<f32>,
    pub dbeta: Slot<f32>,
    pub saved: Slot<f32>,
    pub gamma: Slot<f32>,
    /// Where the forward's shift is wanted as well.
    pub beta: Option<Slot<f32>>,
}

impl<A: Activation> Cuda<A> {
    /// Asks for the scratch of sums over `cut` and the coefficients made of them.
    pub(super) fn ask_norm_scratch(&mut self, spec: &NormSpec, cut: &Cut) {
        self.ask_scratch(
            (cut.partial_len(spec.groups, spec.c) + spec.groups * 4 * spec.c) * size_of::<f32>(),
        );
    }

    /// Statistics of x into `saved` and the running ones; returns (groups, 2, c), scale and shift
    /// of γ·x̂ + β.
    pub(super) fn norm_statistics(
        &mut self,
        plan: &NormPlan,
        saved: Slot<f32>,
        x: Slot<A>,
        params: NormParams,
    ) -> Result<Slot<f32>> {
        let NormPlan { spec, cut, kernels } = plan;
        let partial: Slot<f32> = self.scratch(0, cut.partial_len(spec.groups, spec.c))?;
        let line = line(self, spec, partial.len, 2)?;
        let (grid, [rows, c, chunk, wide]) = plan.sweep();
        self.launch(kernels.stats, grid, &[self.at(partial), self.at(x), rows, c, chunk, wide])?;
        let args = [
            self.at(saved),
            self.at(params.running_mean),
            self.at(params.running_var),
            self.at(line),
            self.at(partial),
            self.at(x),
            self.at(params.gamma),
            self.at(params.beta),
            spec.groups.into(),
            rows,
            c,
            cut.chunks.into(),
            EPS.into(),
            MOMENTUM.into(),
        ];
        self.launch(kernels.finalize, plan.finalize_grid(), &args)?;
        Ok(line)
    }

    /// Gradients of γ and β from the sums in `partial` (groups, `chunks`, 2, c); returns (groups,
    /// 4, c), see `norm.cu`.
    pub(super) fn norm_gradients(
        &mut self,
        plan: &NormPlan,
        to: Finish,
        partial: Slot<f32>,
        chunks: usize,
    ) -> Result<Slot<f32>> {
        let NormPlan { spec, kernels, .. } = plan;
        let line = line(self, spec, partial.len, 4)?;
        let args = [
            self.at(to.dgamma),
            self.at(to.dbeta),
            self.at(line),
            self.at(partial),
            self.at(to.saved),
            self.at(to.gamma),
            self.at_or_null(to.beta),
            spec.groups.into(),
            spec.rows.into(),
            spec.c.into(),
            chunks.into(),
        ];
        self.launch(kernels.backward_finalize, plan.finalize_grid(), &args)?;
        Ok(line)
    }
}

impl<A: Activation> Norm for Cuda<A> {
    type NormPlan = NormPlan;

    fn plan_norm(&mut self, spec: NormSpec) -> Result<NormPlan> {
        fits("batch norm", spec.c, &[spec.rows])?;
        let cut = Cut::new(spec.groups, spec.rows, spec.c, BLOCKS, DEPTH * THREADS / wide(spec.c));
        self.ask_norm_scratch(&spec, &cut);
        let kernels = Kernels {
            stats: self.kernel("norm_stats")?,
            finalize: self.kernel("norm_finalize")?,
            apply: self.kernel("norm_apply")?,
            backward_reduce: self.kernel("norm_backward_reduce")?,
            backward_finalize: self.kernel("norm_backward_finalize")?,
            backward_apply: self.kernel("norm_backward_apply")?,
        };
        Ok(NormPlan { spec, cut, kernels })
    }

    fn norm_forward(
        &mut self,
        plan: &NormPlan,
        z: Slot<A>,
        saved: Slot<f32>,
        x: Slot<A>,
        residual: Option<Slot<A>>,
        relu: bool,
        params: NormParams,
    ) -> Result<()> {
        let spec = plan.spec;
        want("norm_forward", "z", z, spec.len())?;
        want("norm_forward", "saved", saved, spec.saved_len())?;
        want("norm_forward", "x", x, spec.len())?;
        residual.map_or(Ok(()), |r| want("norm_forward", "residual", r, spec.len()))?;
        params.check("norm_forward", spec.c)?;
        if spec.is_empty() {
            return Ok(());
        }
        let line = self.norm_statistics(plan, saved, x, params)?;
        let (grid, [rows, c, chunk, wide]) = plan.sweep();
        let relu = i32::from(relu).into();
        let tensors = [self.at(z), self.at(x), self.at_or_null(residual), self.at(line)];
        self.launch(
            plan.kernels.apply,
            grid,
            &[&tensors[..], &[rows, c, chunk, wide, relu]].concat(),
        )
    }

    fn norm_backward(
        &mut self,
        plan: &NormPlan,
        grads: NormGrads<A>,
        dz: Slot<A>,
        z: Option<Slot<A>>,
        x: Slot<A>,
        saved: Slot<f32>,
        gamma: Slot<f32>,
    ) -> Result<()> {
        let spec = plan.spec;
        let NormGrads { dx, dresidual, dgamma, dbeta } = grads;
        want("norm_backward", "dx", dx, spec.len())?;
        dresidual.map_or(Ok(()), |r| want("norm_backward", "dresidual", r, spec.len()))?;
        want("norm_backward", "dgamma", dgamma, spec.c)?;
        want("norm_backward", "dbeta", dbeta, spec.c)?;
        want("norm_backward", "dz", dz, spec.len())?;
        z.map_or(Ok(()), |z| want("norm_backward", "z", z, spec.len()))?;
        want("norm_backward", "x", x, spec.len())?;
        want("norm_backward", "saved", saved, spec.saved_len())?;
        want("norm_backward", "gamma", gamma, spec.c)?;
        if spec.is_empty() {
            return Ok(());
        }
        let partial: Slot<f32> = self.scratch(0, plan.cut.partial_len(spec.groups, spec.c))?;
        let (grid, [rows, c, chunk, wide]) = plan.sweep();
        let (out, gate) = (self.at_or_null(dresidual), self.at_or_null(z));
        let args = [
            self.at(partial),
            out,
            self.at(dz),
            gate,
            self.at(x),
            self.at(saved),
            rows,
            c,
            chunk,
            wide,
        ];
        self.launch(plan.kernels.backward_reduce, grid, &args)?;
        let finish = Finish { dgamma, dbeta, saved, gamma, beta: None };
        let line = self.norm_gradients(plan, finish, partial, plan.cut.chunks)?;
        // The residual's gradient is dz behind the ReLU already.
        let (dz, gate) = dresidual.map_or((dz, gate), |masked| (masked, 0usize.into()));
        let args =
            [self.at(dx), self.at(dz), gate, self.at(x), self.at(line), rows, c, chunk, wide];
        self.launch(plan.kernels.backward_apply, grid, &args)
    }

    /// NOTE: the only op without a plan, so it looks its kernel up; it runs once an evaluation.
    fn norm_fold(
        &mut self,
        folded: Slot<A>,
        bias: Slot<A>,
        w: Slot<A>,
        params: NormParams,
    ) -> Result<()> {
        let k = params.gamma.len;
        want("norm_fold", "folded", folded, w.len)?;
        want("norm_fold", "bias", bias, k)?;
        params.check("norm_fold", k)?;
        if k == 0 {
            return Ok(());
        }
        let fold = self.kernel("norm_fold")?;
        let args = [
            self.at(folded),
            self.at(bias),
            self.at(w),
            self.at(params.gamma),
            self.at(params.beta),
            self.at(params.running_mean),
            self.at(params.running_var),
            (w.len / k).into(),
            EPS.into(),
        ];
        self.launch(fold, Grid::new(k, THREADS as u32), &args)
    }
}
