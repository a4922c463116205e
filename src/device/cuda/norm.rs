//! Bodies of batch norm: a reduction over rows, its finish, one sweep; both ways.
//!
//! Scratch: partial sums (groups, chunks, 2, c) | coefficients of the sweep (groups, 2 or 4, c);
//! once more of the second norm where two are added up.

use crate::base::{Error, Result};
use crate::device::cuda::Cuda;
use crate::device::cuda::kernels;
use crate::device::cuda::kernels::consts::norm::{
    DEPTH, FINALIZED, MOST_WIDE, RESIDENT, RESIDENT_BACK, RESIDENT_TWO, THREADS, VECTOR,
};
use crate::device::ops::norm::{EPS, MOMENTUM, NormOps};
use crate::device::ops::{
    NormBackward, NormFold, NormForward, NormGate, NormGrads, NormParams, NormSpec, NormStatistics,
    Passed, Residual, ResidualGrad,
};
use crate::device::{ALIGN, Act, Slot};

/// Multiprocessors of an H100. NOTE: a constant, so that sums are cut in the same places, and
/// rounded alike, on every GPU.
const PROCESSORS: usize = 132;

/// Threads side by side along a row of `c` channels, a vector of them each: a power of two. And how
/// many tiles of so many threads a row takes.
pub(super) fn across(c: usize) -> (usize, usize) {
    let wide = (c / VECTOR).next_power_of_two().min(MOST_WIDE);
    (wide, (c / VECTOR).div_ceil(wide))
}

/// How a matrix (groups, rows, c) is cut into blocks: `stats.cuh` says how threads stand in one.
#[derive(Clone, Copy, Debug)]
struct Cut {
    wide: usize,
    /// Tiles of `wide` vectors of channels.
    tiles: usize,
    /// Rows of a block.
    chunk: usize,
    /// Chunks of a group.
    chunks: usize,
}

impl Cut {
    /// As many blocks as the GPU holds where a multiprocessor holds `resident`. The spec is not
    /// empty.
    fn new(&NormSpec { groups, rows, c }: &NormSpec, resident: usize) -> Self {
        let (wide, tiles) = across(c);
        let (blocks, step) = (resident * PROCESSORS, DEPTH * THREADS / wide);
        let chunk = rows.div_ceil(blocks.div_ceil(groups * tiles)).max(1).next_multiple_of(step);
        Cut { wide, tiles, chunk, chunks: rows.div_ceil(chunk) }
    }

    /// Floats of the partial sums (groups, chunks, 2, c).
    fn partial_len(&self, groups: usize, c: usize) -> usize {
        groups * self.chunks * 2 * c
    }

    /// Bytes of scratch that a norm takes, so many that another may begin behind it.
    fn scratch(&self, &NormSpec { groups, c, .. }: &NormSpec) -> usize {
        let floats = self.partial_len(groups, c) + groups * 4 * c;
        (floats * size_of::<f32>()).next_multiple_of(ALIGN)
    }
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

/// What [`Cuda::norm_sums`] adds up: arguments of [`NormBackward`].
pub(super) struct Sums {
    pub dresidual: Option<Slot<Act>>,
    pub dz: Slot<Act>,
    pub gate: NormGate,
    pub x: Slot<Act>,
    pub saved: Slot<f32>,
    pub gamma: Slot<f32>,
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
    /// Statistics of x into `saved` and the running ones; returns (groups, 2, c), scale and shift
    /// of γ·x̂ + β.
    pub(super) fn statistics(
        &mut self,
        spec: &NormSpec,
        saved: Slot<f32>,
        x: Slot<Act>,
        params: NormParams,
    ) -> Result<Slot<f32>> {
        let (&NormSpec { groups, rows, c }, cut) = (spec, Cut::new(spec, RESIDENT));
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

    /// The sums Σg and Σ g·(x − mean) of a backward, by chunks, and how many chunks there are:
    /// (groups, chunks, 2, c). Writes `dresidual`.
    pub(super) fn norm_sums(
        &mut self,
        spec: &NormSpec,
        Sums { dresidual, dz, gate, x, saved, gamma }: Sums,
    ) -> Result<(Slot<f32>, usize)> {
        let (&NormSpec { groups, rows, c }, cut) = (spec, Cut::new(spec, RESIDENT_BACK));
        let Cut { wide, tiles, chunk, chunks } = cut;
        let partial: Slot<f32> = self.scratch(0, cut.partial_len(groups, c))?;
        let kernel = kernels::NormBackwardReduce {
            partial,
            dresidual,
            dz,
            mask: gate.mask(),
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
        Ok((partial, chunks))
    }

    /// The gradients of two norms whose outputs were added up behind a ReLU.
    fn two_norms(
        &mut self,
        spec: &NormSpec,
        first: NormGrads,
        second: NormGrads,
        dz: Slot<Act>,
        mask: Slot<u8>,
    ) -> Result<()> {
        let (&NormSpec { groups, rows, c }, cut) = (spec, Cut::new(spec, RESIDENT_TWO));
        let Cut { wide, tiles, chunk, chunks } = cut;
        let len = cut.partial_len(groups, c);
        let partial = self.scratch(0, len)?;
        let partial_two = self.scratch(cut.scratch(spec), len)?;
        let (x, x_two) = (first.x, second.x);
        let kernel = kernels::NormBackwardReduceTwo {
            partial,
            partial_two,
            dz,
            mask,
            x,
            x_two,
            saved: first.saved,
            saved_two: second.saved,
            rows,
            c,
            chunk,
            wide,
        };
        self.launch((chunks, tiles, groups), 0, kernel)?;
        let mut finish = |NormGrads { dgamma, dbeta, saved, gamma, .. }, partial| {
            let finish = Finish { dgamma, dbeta, saved, gamma, beta: None };
            self.norm_gradients(spec, finish, partial, chunks)
        };
        let (line, line_two) = (finish(first, partial)?, finish(second, partial_two)?);
        let (dx, dx_two) = (first.dx, second.dx);
        let kernel = kernels::NormBackwardApplyTwo {
            dx,
            dx_two,
            dz,
            mask,
            x,
            x_two,
            line,
            line_two,
            rows,
            c,
            chunk,
            wide,
        };
        self.launch((chunks, tiles, groups), 0, kernel)
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
        let line = self.scratch(partial.offset + partial.bytes(), groups * 4 * c)?;
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
            for (resident, norms) in [(RESIDENT, 1), (RESIDENT_BACK, 1), (RESIDENT_TWO, 2)] {
                self.ask_scratch(norms * Cut::new(&spec, resident).scratch(&spec));
            }
        }
        Ok(0)
    }

    fn norm_statistics(&mut self, a: Passed<NormStatistics>) -> Result<()> {
        let NormStatistics { saved, x, params } = *a;
        if !a.spec().is_empty() {
            self.statistics(a.spec(), saved, x, params)?;
        }
        Ok(())
    }

    fn norm_forward(&mut self, a: Passed<NormForward>) -> Result<()> {
        let spec = a.spec();
        if spec.is_empty() {
            return Ok(());
        }
        let NormForward { z, mask, saved, x, residual, relu, params } = *a;
        let line = self.statistics(spec, saved, x, params)?;
        let (&NormSpec { groups, rows, c }, Cut { wide, tiles, chunk, chunks }) =
            (spec, Cut::new(spec, RESIDENT));
        let other = residual.and_then(Residual::norm);
        let kernel = kernels::NormApply {
            z,
            mask,
            x,
            residual: residual.map(Residual::map),
            line,
            saved: other.map(|norm| norm.saved),
            gamma: other.map(|norm| norm.gamma),
            beta: other.map(|norm| norm.beta),
            rows,
            c,
            chunk,
            wide,
            relu,
        };
        self.launch((chunks, tiles, groups), 0, kernel)
    }

    fn norm_backward(&mut self, a: Passed<NormBackward>) -> Result<()> {
        let spec = a.spec();
        if spec.is_empty() {
            return Ok(());
        }
        let NormBackward { dx, dresidual, dgamma, dbeta, dz, gate, x, saved, gamma } = *a;
        if let (Some(ResidualGrad::Norm(second)), Some(mask)) = (dresidual, gate.mask()) {
            let first = NormGrads { dx, dgamma, dbeta, x, saved, gamma };
            return self.two_norms(spec, first, second, dz, mask);
        }
        let dresidual = dresidual.and_then(ResidualGrad::map);
        let (&NormSpec { groups, rows, c }, Cut { wide, tiles, chunk, .. }) =
            (spec, Cut::new(spec, RESIDENT_BACK));
        let sums = Sums { dresidual, dz, gate, x, saved, gamma };
        let (partial, chunks) = self.norm_sums(spec, sums)?;
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
