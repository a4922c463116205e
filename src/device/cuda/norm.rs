//! Bodies of batch norm: a reduction over rows, its finish, one sweep; both ways.
//!
//! Scratch: partial sums (groups, chunks, 2, c) | coefficients of the sweep (groups, 2 or 4, c).

use crate::base::{Error, Result};
use crate::device::Act;
use crate::device::Slot;
use crate::device::cuda::Cuda;
use crate::device::cuda::kernels;
use crate::device::cuda::kernels::consts::norm::{
    DEPTH, FINALIZED, MOST_WIDE, RESIDENT, RESIDENT_BACK, THREADS, VECTOR,
};
use crate::device::ops::norm::{EPS, MOMENTUM, NormOps};
use crate::device::ops::{NormBackward, NormFold, NormForward, NormParams, NormSpec, Passed};

/// Multiprocessors of an H100. NOTE: a constant, so that sums are cut in the same places, and
/// rounded alike, on every GPU.
const PROCESSORS: usize = 132;

/// Threads side by side along a row of `c` channels, a vector of them each: a power of two.
fn wide(c: usize) -> usize {
    (c / VECTOR).next_power_of_two().min(MOST_WIDE)
}

/// How a matrix (groups, rows, c) is cut into blocks: `stats.cuh` says how threads stand in one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub wide: usize,
    /// Tiles of `wide` vectors of channels.
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
        let tiles = (c / VECTOR).div_ceil(wide);
        let chunk = rows.div_ceil(blocks.div_ceil(groups * tiles)).max(1).next_multiple_of(step);
        Cut { wide, tiles, chunk, chunks: rows.div_ceil(chunk) }
    }

    /// Floats of the partial sums (groups, chunks, 2, c).
    pub fn partial_len(&self, groups: usize, c: usize) -> usize {
        groups * self.chunks * 2 * c
    }
}

/// How batch norm itself is cut, where a multiprocessor holds `resident` blocks. The spec is not
/// empty.
fn cut(&NormSpec { groups, rows, c }: &NormSpec, resident: usize) -> Cut {
    Cut::new(groups, rows, c, resident * PROCESSORS, DEPTH * THREADS / wide(c))
}

/// Refuses what kernels of norm and stem do not take: they have channels by vectors, and count in
/// `int`s.
pub(super) fn fits(op: &str, c: usize, sizes: &[usize]) -> Result<()> {
    if c == 0 || !c.is_multiple_of(VECTOR) {
        return Err(Error::input(
            format!("{op} of {c} channels"),
            format!("use a multiple of {VECTOR} on the GPU"),
        ));
    }
    // Half of an int: a kernel's row counter runs past the last row.
    if sizes.iter().any(|&size| size > i32::MAX as usize / 2) {
        return Err(Error::input(format!("{op} of sizes {sizes:?}"), "use a smaller --batch"));
    }
    Ok(())
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

impl Cuda {
    /// Asks for the scratch of sums over `cut` and the coefficients made of them.
    pub(super) fn ask_norm_scratch(&mut self, groups: usize, c: usize, cut: &Cut) {
        self.ask_scratch((cut.partial_len(groups, c) + groups * 4 * c) * size_of::<f32>());
    }

    /// Statistics of x into `saved` and the running ones; returns (groups, 2, c), scale and shift
    /// of γ·x̂ + β.
    pub(super) fn norm_statistics(
        &mut self,
        spec: &NormSpec,
        saved: Slot<f32>,
        x: Slot<Act>,
        params: NormParams,
    ) -> Result<Slot<f32>> {
        let (&NormSpec { groups, rows, c }, cut) = (spec, cut(spec, RESIDENT));
        let Cut { wide, tiles, chunk, chunks } = cut;
        let partial: Slot<f32> = self.scratch(0, cut.partial_len(groups, c))?;
        let line = self.scratch(partial.bytes(), groups * 2 * c)?;
        let kernel = kernels::NormStats { partial, x, rows, c, chunk, wide };
        self.launch((chunks, tiles, groups), 0, kernel)?;
        let NormParams { gamma, beta, running_mean, running_var } = params;
        let kernel = kernels::NormFinalize {
            saved,
            running_mean,
            running_var,
            line,
            partial,
            x,
            gamma,
            beta,
            groups,
            rows,
            c,
            chunks,
            eps: EPS,
            momentum: MOMENTUM,
        };
        self.launch(c / FINALIZED, 0, kernel)?;
        Ok(line)
    }

    /// Gradients of γ and β from the sums in `partial` (groups, `chunks`, 2, c); returns (groups,
    /// 4, c), see `norm.cu`.
    pub(super) fn norm_gradients(
        &mut self,
        &NormSpec { groups, rows, c }: &NormSpec,
        Finish { dgamma, dbeta, saved, gamma, beta }: Finish,
        partial: Slot<f32>,
        chunks: usize,
    ) -> Result<Slot<f32>> {
        let line = self.scratch(partial.bytes(), groups * 4 * c)?;
        let kernel = kernels::NormBackwardFinalize {
            dgamma,
            dbeta,
            line,
            partial,
            saved,
            gamma,
            beta,
            groups,
            rows,
            c,
            chunks,
        };
        self.launch(c / FINALIZED, 0, kernel)?;
        Ok(line)
    }
}

impl NormOps for Cuda {
    fn plan_norm(&mut self, spec: NormSpec) -> Result<usize> {
        fits("batch norm", spec.c, &[spec.rows])?;
        if !spec.is_empty() {
            for resident in [RESIDENT, RESIDENT_BACK] {
                self.ask_norm_scratch(spec.groups, spec.c, &cut(&spec, resident));
            }
        }
        Ok(0)
    }

    fn norm_forward(&mut self, a: Passed<NormForward>) -> Result<()> {
        let spec = a.spec();
        if spec.is_empty() {
            return Ok(());
        }
        let NormForward { z, saved, x, residual, relu, params } = *a;
        let line = self.norm_statistics(spec, saved, x, params)?;
        let (&NormSpec { groups, rows, c }, Cut { wide, tiles, chunk, chunks }) =
            (spec, cut(spec, RESIDENT));
        let kernel = kernels::NormApply { z, x, residual, line, rows, c, chunk, wide, relu };
        self.launch((chunks, tiles, groups), 0, kernel)
    }

    fn norm_backward(&mut self, a: Passed<NormBackward>) -> Result<()> {
        let spec = a.spec();
        if spec.is_empty() {
            return Ok(());
        }
        let NormBackward { dx, dresidual, dgamma, dbeta, dz, gate, x, saved, gamma } = *a;
        let (&NormSpec { groups, rows, c }, cut) = (spec, cut(spec, RESIDENT_BACK));
        let Cut { wide, tiles, chunk, chunks } = cut;
        let partial: Slot<f32> = self.scratch(0, cut.partial_len(groups, c))?;
        let kernel = kernels::NormBackwardReduce {
            partial,
            dresidual,
            dz,
            z: gate.output(),
            x,
            saved,
            gamma,
            beta: gate.beta(),
            rows,
            c,
            chunk,
            wide,
        };
        self.launch((chunks, tiles, groups), 0, kernel)?;
        let finish = Finish { dgamma, dbeta, saved, gamma, beta: gate.beta() };
        let line = self.norm_gradients(spec, finish, partial, chunks)?;
        // The residual's gradient is dz behind the ReLU already.
        let (dz, relu) = (dresidual.unwrap_or(dz), gate.beta().is_some());
        let kernel = kernels::NormBackwardApply { dx, dz, x, line, rows, c, chunk, wide, relu };
        self.launch((chunks, tiles, groups), 0, kernel)
    }

    fn norm_fold(&mut self, a: Passed<NormFold>) -> Result<()> {
        let NormFold { folded, bias, w, params } = *a;
        let NormParams { gamma, beta, running_mean, running_var } = params;
        let k = gamma.len;
        if k == 0 {
            return Ok(());
        }
        let kernel = kernels::NormFold {
            folded,
            bias,
            w,
            gamma,
            beta,
            running_mean,
            running_var,
            per: w.len / k,
            eps: EPS,
        };
        self.launch(k, 0, kernel)
    }
}
