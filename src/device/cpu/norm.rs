//! Batch norm on the CPU: one sweep for the statistics, one for the rest, both ways.

use rayon::prelude::*;

use crate::base::Result;
use crate::device::cpu::Cpu;
use crate::device::cpu::vector::at_least;
use crate::device::cpu::wide::wide;
use crate::device::ops::norm::{EPS, MOMENTUM, NormOps};
use crate::device::ops::{NormBackward, NormFold, NormForward, NormParams, NormSpec, Passed};

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

/// The factors a and b and the term c of each channel with which g·a + x·b + c is the gradient of
/// x, γ·rstd·(g − Σg/n − x̂·Σ(g·x̂)/n), from the gradient g of the normalised output. `sums` holds
/// Σg and Σ(g·x̂), which are added to dβ and dγ.
pub(super) fn backward_affine(
    sums: &ChannelSums,
    rows: usize,
    saved: &[f32],
    gamma: &[f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
) -> [Vec<f32>; 3] {
    let c = gamma.len();
    let (mean, rstd) = saved.split_at(c);
    let mut out = [vec![0.0; c], vec![0.0; c], vec![0.0; c]];
    for j in 0..c {
        let (g, gx) = (sums.first[j], sums.second[j]);
        dbeta[j] += g as f32;
        dgamma[j] += gx as f32;
        let (rstd, n) = (f64::from(rstd[j]), rows as f64);
        let a = f64::from(gamma[j]) * rstd;
        let b = -a * rstd * gx / n;
        out[0][j] = a as f32;
        out[1][j] = b as f32;
        out[2][j] = (-a * g / n - b * f64::from(mean[j])) as f32;
    }
    out
}

/// A row of the backward pass.
pub(super) struct Row<'a> {
    pub dz: &'a [f32],
    pub x: &'a [f32],
    /// What tells where the forward's output was above zero: itself, or its scale and shift of x.
    pub z: Option<&'a [f32]>,
    pub line: Option<&'a (Vec<f32>, Vec<f32>)>,
}

impl Row<'_> {
    /// g = dz where the ReLU lets it through.
    #[inline(always)]
    fn mask(&self, g: &mut [f32]) {
        match (self.z, self.line) {
            (Some(z), _) => {
                for ((g, dz), z) in g.iter_mut().zip(self.dz).zip(z) {
                    *g = if *z > 0.0 { *dz } else { 0.0 };
                }
            }
            (None, Some((scale, shift))) => {
                for ((((g, dz), x), a), b) in
                    g.iter_mut().zip(self.dz).zip(self.x).zip(scale).zip(shift)
                {
                    *g = if x.mul_add(*a, *b) > 0.0 { *dz } else { 0.0 };
                }
            }
            (None, None) => g.copy_from_slice(self.dz),
        }
    }
}

/// Σg and Σ(g·x̂) of a group's rows, x̂ by `saved` (2, c), the statistics of its group.
pub(super) fn gradient_sums<'a>(
    simd: pulp::Arch,
    rows: usize,
    partial: &mut [f32],
    saved: &[f32],
    row: impl Fn(usize) -> Row<'a> + Sync,
) -> ChannelSums {
    let c = saved.len() / 2;
    let (mean, rstd) = saved.split_at(c);
    reduce(simd, rows, c, partial, |first, rows, sums| {
        let (sum, product) = sums.split_at_mut(c);
        let mut masked = vec![0.0; c];
        for row in (first..first + rows).map(&row) {
            row.mask(&mut masked);
            let sums = sum.iter_mut().zip(&mut *product);
            for ((((g, x), mean), rstd), (s, p)) in
                masked.iter().zip(row.x).zip(mean).zip(rstd).zip(sums)
            {
                *s += g;
                *p = g.mul_add((x - mean) * rstd, *p);
            }
        }
    })
}

impl NormOps for Cpu {
    fn plan_norm(&mut self, spec: NormSpec) -> Result<usize> {
        self.ask_scratch(partial_len(spec.rows, spec.c));
        Ok(0)
    }

    fn norm_forward(&mut self, a: Passed<NormForward>) -> Result<()> {
        let NormSpec { groups, rows, c } = *a.spec();
        let (simd, partial) = (self.simd, self.scratch(partial_len(rows, c)));
        let NormForward { z, saved, x, residual, relu, params } = *a;
        let NormParams { gamma, beta, running_mean, running_var } = params;
        let (z, saved, x, residual, gamma, beta, running_mean, running_var, partial) =
            self.get((z, saved, x, residual, gamma, beta, running_mean, running_var, partial));
        let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
        for g in 0..groups {
            let x = &x[g * rows * c..][..rows * c];
            let saved = &mut saved[g * 2 * c..][..2 * c];
            statistics(simd, saved, (running_mean, running_var), x, partial);
            let (scale, shift) = affine(saved, gamma, beta);
            let residual = residual.as_deref().map(|r| &r[g * rows * c..][..rows * c]);
            z[g * rows * c..][..rows * c].par_chunks_mut(ROWS * c).enumerate().for_each(
                |(i, z)| {
                    let range = i * ROWS * c..i * ROWS * c + z.len();
                    let x = &x[range.clone()];
                    wide(
                        simd,
                        #[inline(always)]
                        || match residual {
                            Some(residual) => {
                                let rows = z
                                    .chunks_exact_mut(c)
                                    .zip(x.chunks_exact(c))
                                    .zip(residual[range.clone()].chunks_exact(c));
                                for ((z, x), r) in rows {
                                    for ((((z, x), r), a), b) in
                                        z.iter_mut().zip(x).zip(r).zip(&scale).zip(&shift)
                                    {
                                        *z = at_least(x.mul_add(*a, *b) + r, floor);
                                    }
                                }
                            }
                            None => {
                                for (z, x) in z.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                                    for (((z, x), a), b) in
                                        z.iter_mut().zip(x).zip(&scale).zip(&shift)
                                    {
                                        *z = at_least(x.mul_add(*a, *b), floor);
                                    }
                                }
                            }
                        },
                    );
                },
            );
        }
        Ok(())
    }

    fn norm_backward(&mut self, a: Passed<NormBackward>) -> Result<()> {
        let NormSpec { groups, rows, c } = *a.spec();
        let (simd, partial) = (self.simd, self.scratch(partial_len(rows, c)));
        let NormBackward { dx, dresidual, dgamma, dbeta, dz, gate, x, saved, gamma } = *a;
        let told = (gate.output(), gate.beta());
        let (dx, mut dresidual, dgamma, dbeta, dz, (z, beta), x, saved, gamma, partial) =
            self.get((dx, dresidual, dgamma, dbeta, dz, told, x, saved, gamma, partial));
        for g in 0..groups {
            let group = g * rows * c..(g + 1) * rows * c;
            let (dz, x, saved) =
                (&dz[group.clone()], &x[group.clone()], &saved[g * 2 * c..][..2 * c]);
            let z = z.as_deref().map(|z| &z[group.clone()]);
            let line = beta.as_deref().map(|beta| affine(saved, gamma, beta));
            let row = |i: usize| Row {
                dz: &dz[i * c..(i + 1) * c],
                x: &x[i * c..(i + 1) * c],
                z: z.map(|z| &z[i * c..(i + 1) * c]),
                line: line.as_ref(),
            };
            let sums = gradient_sums(simd, rows, partial, saved, row);
            let [a, b, s] = backward_affine(&sums, rows, saved, gamma, dgamma, dbeta);
            let dx = dx[group.clone()].par_chunks_mut(ROWS * c);
            let sweep = |i: usize, dx: &mut [f32], mut dresidual: Option<&mut [f32]>| {
                wide(
                    simd,
                    #[inline(always)]
                    || {
                        for (j, dx) in dx.chunks_exact_mut(c).enumerate() {
                            let row = row(i * ROWS + j);
                            // dx holds the masked gradient first, and feeds the residual's.
                            row.mask(dx);
                            if let Some(dresidual) = dresidual.as_deref_mut() {
                                dresidual[j * c..(j + 1) * c].copy_from_slice(dx);
                            }
                            for ((((dx, x), a), b), s) in
                                dx.iter_mut().zip(row.x).zip(&a).zip(&b).zip(&s)
                            {
                                *dx = a.mul_add(*dx, b.mul_add(*x, *s));
                            }
                        }
                    },
                );
            };
            match dresidual.as_deref_mut() {
                Some(dresidual) => dx
                    .zip(dresidual[group].par_chunks_mut(ROWS * c))
                    .enumerate()
                    .for_each(|(i, (dx, dresidual))| sweep(i, dx, Some(dresidual))),
                None => dx.enumerate().for_each(|(i, dx)| sweep(i, dx, None)),
            }
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
