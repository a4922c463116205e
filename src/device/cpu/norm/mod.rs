//! Batch norm on the CPU: one sweep for the statistics, one for the rest, both ways.

mod backward;

pub(super) use backward::{Row, backward_affine, gradient_sums};

use rayon::prelude::*;

use crate::base::Result;
use crate::device::cpu::Cpu;
use crate::device::cpu::vector::at_least;
use crate::device::cpu::wide::wide;
use crate::device::ops::norm::{EPS, MOMENTUM, NormOps};
use crate::device::ops::{
    NormBackward, NormFold, NormForward, NormGrads, NormParams, NormSpec, NormStatistics, Passed,
    Residual, ResidualGrad,
};

/// Number of rows in a piece of work: sums over one are f32, sums over pieces f64 in the order of
/// the pieces.
const ROWS: usize = 256;

/// Two sums over all rows of a group, each channel by channel (c): what [`reduce`] returns.
pub(super) struct ChannelSums {
    first: Vec<f64>,
    second: Vec<f64>,
}

impl ChannelSums {
    /// Adds up the sums of all pieces (pieces, 2, c) in their order.
    fn of(partial: &[f32], c: usize) -> Self {
        let mut sums = ChannelSums { first: vec![0.0; c], second: vec![0.0; c] };
        for part in partial.chunks(2 * c) {
            let (first, second) = part.split_at(c);
            sums.first.iter_mut().zip(first).for_each(|(s, &p)| *s += f64::from(p));
            sums.second.iter_mut().zip(second).for_each(|(s, &p)| *s += f64::from(p));
        }
        sums
    }
}

/// Adds up two per-channel sums over `rows` rows: `piece(first row, rows, sums (2, c))` adds those
/// of one piece.
fn reduce(
    simd: pulp::Arch,
    rows: usize,
    c: usize,
    partial: &mut [f32],
    piece: impl Fn(usize, usize, &mut [f32]) + Sync,
) -> ChannelSums {
    let partial = &mut partial[..partial_len(rows, c)];
    partial.par_chunks_mut(2 * c).enumerate().for_each(|(i, sums)| {
        sums.fill(0.0);
        wide(
            simd,
            #[inline(always)]
            || piece(i * ROWS, ROWS.min(rows - i * ROWS), sums),
        );
    });
    ChannelSums::of(partial, c)
}

/// Floats of the sums of all pieces, the room that [`reduce`] works in.
pub(super) fn partial_len(rows: usize, c: usize) -> usize {
    rows.div_ceil(ROWS) * 2 * c
}

/// saved (2, c) = the mean and 1/√(var + ε) of x (rows, c), channel by channel. Moves the running
/// statistics towards them.
pub(super) fn statistics(
    simd: pulp::Arch,
    saved: &mut [f32],
    running: (&mut [f32], &mut [f32]),
    x: &[f32],
    partial: &mut [f32],
) {
    let c = saved.len() / 2;
    let rows = x.len() / c;
    // Sums are of differences to the first row, so that a mean far from zero does not eat the
    // variance's digits.
    let shift = &x[..c];
    let sums = reduce(simd, rows, c, partial, |first, rows, sums| {
        let (sum, squares) = sums.split_at_mut(c);
        for row in x[first * c..(first + rows) * c].chunks_exact(c) {
            for (((x, k), s), q) in row.iter().zip(shift).zip(&mut *sum).zip(&mut *squares) {
                let d = x - k;
                *s += d;
                *q = d.mul_add(d, *q);
            }
        }
    });
    let (mean, rstd) = saved.split_at_mut(c);
    let n = rows as f64;
    for j in 0..c {
        let d = sums.first[j] / n;
        let var = sums.second[j] / n - d * d;
        // Rounding may leave it below zero. NOTE: not f64::max, which would turn NaN into 0.
        let var = if var < 0.0 { 0.0 } else { var };
        mean[j] = (f64::from(shift[j]) + d) as f32;
        rstd[j] = (1.0 / (var + f64::from(EPS)).sqrt()) as f32;
        // One row has no unbiased variance; torch refuses it, here it leaves the running one as it
        // is.
        let unbiased = if rows > 1 { (var * n / (n - 1.0)) as f32 } else { running.1[j] };
        running.0[j] += MOMENTUM * (mean[j] - running.0[j]);
        running.1[j] += MOMENTUM * (unbiased - running.1[j]);
    }
}

/// The scale and the shift of each channel with which x·scale + shift is γ·(x − mean)·rstd + β,
/// rounded as the GPU's are: a backward finds the sign of the forward's output by them.
pub(super) fn affine(saved: &[f32], gamma: &[f32], beta: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mean, rstd) = saved.split_at(gamma.len());
    let scale: Vec<f32> = gamma.iter().zip(rstd).map(|(g, r)| g * r).collect();
    let shift = beta.iter().zip(&scale).zip(mean).map(|((b, s), m)| (-m).mul_add(*s, *b)).collect();
    (scale, shift)
}

/// mask (rows, ⌈c/8⌉) = the bits of where z (rows, c) is above zero.
fn mask_of(simd: pulp::Arch, mask: &mut [u8], z: &[f32], c: usize) {
    let wide_mask = c.div_ceil(8);
    mask.par_chunks_mut(ROWS * wide_mask).zip(z.par_chunks(ROWS * c)).for_each(|(mask, z)| {
        wide(
            simd,
            #[inline(always)]
            || {
                for (mask, z) in mask.chunks_exact_mut(wide_mask).zip(z.chunks_exact(c)) {
                    for (byte, z) in mask.iter_mut().zip(z.chunks(8)) {
                        let bits = z.iter().enumerate().map(|(i, z)| u8::from(*z > 0.0) << i);
                        *byte = bits.sum();
                    }
                }
            },
        );
    });
}

impl NormOps for Cpu {
    fn plan_norm(&mut self, spec: NormSpec) -> Result<usize> {
        self.ask_scratch(partial_len(spec.rows, spec.c));
        Ok(0)
    }

    fn norm_statistics(&mut self, a: Passed<NormStatistics>) -> Result<()> {
        let NormSpec { rows, c, .. } = *a.spec();
        let (simd, partial) = (self.simd, self.scratch(partial_len(rows, c)));
        let NormStatistics { saved, x, params } = *a;
        let (saved, x, mean, var, partial) =
            self.get((saved, x, params.running_mean, params.running_var, partial));
        for (saved, x) in saved.chunks_exact_mut(2 * c).zip(x.chunks_exact(rows * c)) {
            statistics(simd, saved, (mean, var), x, partial);
        }
        Ok(())
    }

    fn norm_forward(&mut self, a: Passed<NormForward>) -> Result<()> {
        let NormSpec { groups, rows, c } = *a.spec();
        let (simd, partial) = (self.simd, self.scratch(partial_len(rows, c)));
        let NormForward { z, mask, saved, x, residual, relu, params } = *a;
        let NormParams { gamma, beta, running_mean, running_var } = params;
        let own = residual.and_then(Residual::norm).map(|n| (n.saved, n.gamma, n.beta));
        let residual = residual.map(Residual::map);
        let (z, mask, saved, x, (residual, own), gamma, beta, running, partial) = self.get((
            z,
            mask,
            saved,
            x,
            (residual, own),
            gamma,
            beta,
            (running_mean, running_var),
            partial,
        ));
        let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
        for g in 0..groups {
            let group = g * rows * c..(g + 1) * rows * c;
            let (x, of_saved) = (&x[group.clone()], g * 2 * c..(g + 1) * 2 * c);
            let residual = residual.as_deref().map(|r| &r[group.clone()]);
            let own = own.as_ref().map(|(saved, g, b)| affine(&saved[of_saved.clone()], g, b));
            let saved = &mut saved[of_saved];
            statistics(simd, saved, (running.0, running.1), x, partial);
            let (scale, shift) = affine(saved, gamma, beta);
            z[group].par_chunks_mut(ROWS * c).enumerate().for_each(|(i, z)| {
                let range = i * ROWS * c..i * ROWS * c + z.len();
                let (x, residual) = (&x[range.clone()], residual.map(|r| &r[range]));
                let mut rows = z.chunks_exact_mut(c).zip(x.chunks_exact(c));
                wide(
                    simd,
                    #[inline(always)]
                    || match (residual, &own) {
                        (Some(residual), own) => {
                            for ((z, x), r) in rows.by_ref().zip(residual.chunks_exact(c)) {
                                let line = scale.iter().zip(&shift);
                                let all = z.iter_mut().zip(x).zip(r).zip(line);
                                match own {
                                    Some((scale, shift)) => {
                                        let own = scale.iter().zip(shift);
                                        for ((((z, x), r), (a, b)), (ra, rb)) in all.zip(own) {
                                            let r = r.mul_add(*ra, *rb);
                                            *z = at_least(x.mul_add(*a, *b) + r, floor);
                                        }
                                    }
                                    None => {
                                        for (((z, x), r), (a, b)) in all {
                                            *z = at_least(x.mul_add(*a, *b) + r, floor);
                                        }
                                    }
                                }
                            }
                        }
                        (None, _) => {
                            for (z, x) in rows.by_ref() {
                                for (((z, x), a), b) in z.iter_mut().zip(x).zip(&scale).zip(&shift)
                                {
                                    *z = at_least(x.mul_add(*a, *b), floor);
                                }
                            }
                        }
                    },
                );
            });
        }
        if let Some(mask) = mask {
            mask_of(simd, mask, z, c);
        }
        Ok(())
    }

    fn norm_backward(&mut self, a: Passed<NormBackward>) -> Result<()> {
        let NormBackward { dx, dresidual, dgamma, dbeta, dz, gate, x, saved, gamma } = *a;
        let first = NormGrads { dx, dgamma, dbeta, x, saved, gamma };
        let map = dresidual.and_then(ResidualGrad::map);
        self.norm_gradients(a.spec(), first, map, dz, gate);
        if let Some(second) = dresidual.and_then(ResidualGrad::norm) {
            self.norm_gradients(a.spec(), second, None, dz, gate);
        }
        Ok(())
    }

    fn norm_fold(&mut self, a: Passed<NormFold>) -> Result<()> {
        let k = a.params.gamma.len;
        let NormParams { gamma, beta, running_mean, running_var } = a.params;
        let (folded, bias, w, gamma, beta, mean, var) =
            self.get((a.folded, a.bias, a.w, gamma, beta, running_mean, running_var));
        let per = w.len() / k;
        for j in 0..k {
            let scale = gamma[j] / (var[j] + EPS).sqrt();
            bias[j] = beta[j] - mean[j] * scale;
            folded[j * per..][..per]
                .iter_mut()
                .zip(&w[j * per..])
                .for_each(|(f, w)| *f = w * scale);
        }
        Ok(())
    }
}
