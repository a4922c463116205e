//! The way back through batch norm: its sums, and its sweep.

use rayon::prelude::*;

use crate::device::cpu::Cpu;
use crate::device::cpu::norm::{ChannelSums, ROWS, affine, partial_len, reduce};
use crate::device::cpu::wide::wide;
use crate::device::ops::{NormGate, NormGrads, NormSpec};
use crate::device::{Act, Slot};

/// The factors a and b and the term c of each channel with which g·a + x·b + c is the gradient of
/// x, γ·rstd·(g − Σg/n − x̂·Σ(g·x̂)/n), from the gradient g of the normalised output. `sums` holds
/// Σg and Σ(g·x̂), which are added to dβ and dγ.
pub fn backward_affine(
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
pub struct Row<'a> {
    pub dz: &'a [f32],
    pub x: &'a [f32],
    /// What tells where the forward's output was above zero: a bit a channel, or its scale and
    /// shift of x.
    pub mask: Option<&'a [u8]>,
    pub line: Option<&'a (Vec<f32>, Vec<f32>)>,
}

impl Row<'_> {
    /// g = dz where the ReLU lets it through.
    #[inline(always)]
    fn mask(&self, g: &mut [f32]) {
        match (self.mask, self.line) {
            (Some(mask), _) => {
                for ((g, dz), byte) in g.chunks_mut(8).zip(self.dz.chunks(8)).zip(mask) {
                    for (i, (g, dz)) in g.iter_mut().zip(dz).enumerate() {
                        *g = if byte >> i & 1 == 1 { *dz } else { 0.0 };
                    }
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
pub fn gradient_sums<'a>(
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

impl Cpu {
    /// The gradients of one norm from dz; dresidual = dz where the gate lets it through.
    pub(super) fn norm_gradients(
        &mut self,
        &NormSpec { groups, rows, c }: &NormSpec,
        NormGrads { dx, dgamma, dbeta, x, saved, gamma }: NormGrads,
        dresidual: Option<Slot<Act>>,
        dz: Slot<Act>,
        gate: NormGate,
    ) {
        let (simd, partial) = (self.simd, self.scratch(partial_len(rows, c)));
        let told = (gate.mask(), gate.beta());
        let (dx, mut dresidual, dgamma, dbeta, dz, (mask, beta), x, saved, gamma, partial) =
            self.get((dx, dresidual, dgamma, dbeta, dz, told, x, saved, gamma, partial));
        let (mask, bytes) = (mask.as_deref(), c.div_ceil(8));
        for g in 0..groups {
            let group = g * rows * c..(g + 1) * rows * c;
            let (dz, x, saved) =
                (&dz[group.clone()], &x[group.clone()], &saved[g * 2 * c..][..2 * c]);
            let line = beta.as_deref().map(|beta| affine(saved, gamma, beta));
            let row = |i: usize| Row {
                dz: &dz[i * c..(i + 1) * c],
                x: &x[i * c..(i + 1) * c],
                mask: mask.map(|mask| &mask[(g * rows + i) * bytes..][..bytes]),
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
    }
}
