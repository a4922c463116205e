//! From correlations to joint matrices, from these to the loss and their gradient, and back to the
//! gradient of the correlations.
//!
//! The joint matrix Q of a shift is a sum of correlations with coefficients that are products of
//! one for rows and one for columns (see the contract): the sums are taken over columns first, then
//! over rows.

use rayon::prelude::*;

use super::{BACK, REVERSED, Tables, add};
use crate::device::ops::IicSpec;
use crate::device::ops::iic::{CLASSES, EPS, INNER};

impl Tables {
    /// mixed (lags and classes of rows, shifts of columns, k, k) = the correlations `c` summed over
    /// groups, and over lags and classes of columns with their coefficients.
    pub fn mix_columns(&self, mixed: &mut [f32], c: &[f32]) {
        let (k, lags, lagged) = (self.spec.k, self.x.lags(), self.lagged());
        let square = k * k;
        let group = self.rows() * CLASSES * lagged;
        mixed.par_chunks_exact_mut(self.x.shifts * square).enumerate().for_each(|(row, mixed)| {
            let mut sum = vec![0.0; CLASSES * lagged];
            for group in c.chunks_exact(group) {
                add(&mut sum, 1.0, &group[row * CLASSES * lagged..][..CLASSES * lagged]);
            }
            for (mixed, k_shift) in
                mixed.chunks_exact_mut(square).zip(self.kx.chunks_exact(lags * CLASSES))
            {
                mixed.fill(0.0);
                for (at, &weight) in
                    k_shift.iter().enumerate().filter(|(_, weight)| **weight != 0.0)
                {
                    let (j, class) = (at / CLASSES, at % CLASSES);
                    for (a, row) in mixed.chunks_exact_mut(k).enumerate() {
                        add(row, weight, &sum[class * lagged + (a * lags + j) * k..][..k]);
                    }
                }
            }
        });
    }

    /// joint (shifts, k, k) = Q, the sum of `mixed` over lags and classes of rows with their
    /// coefficients, which then becomes the gradient of Q; returns the loss.
    pub fn joints(&self, joint: &mut [f32], mixed: &[f32], scale: f32) -> f64 {
        let (square, columns) = (self.spec.k * self.spec.k, self.x.shifts);
        let losses: Vec<f64> = joint
            .par_chunks_exact_mut(square)
            .enumerate()
            .map(|(shift, q)| {
                q.fill(0.0);
                let weights = &self.ky[shift / columns * self.rows()..][..self.rows()];
                for (row, &weight) in weights.iter().enumerate() {
                    add(q, weight, &mixed[(row * columns + shift % columns) * square..][..square]);
                }
                mutual(q, &self.spec, scale)
            })
            .collect();
        losses.iter().sum()
    }

    /// back (lags and classes of rows, BACK, k, lags, k) = the gradient of the correlations, from
    /// that of Q in `joint`. `mixed` is scratch for the gradient of what lay there.
    pub fn unmix(&self, back: &mut [f32], mixed: &mut [f32], joint: &[f32]) {
        let (k, lags, lagged) = (self.spec.k, self.x.lags(), self.lagged());
        let (square, rows) = (k * k, self.rows());
        let line = self.x.shifts * square;
        let work = back
            .par_chunks_exact_mut(BACK * lagged)
            .zip(mixed.par_chunks_exact_mut(line))
            .enumerate();
        work.for_each(|(row, (back, mixed))| {
            mixed.fill(0.0);
            for (joint, weights) in joint.chunks_exact(line).zip(self.ky.chunks_exact(rows)) {
                add(mixed, weights[row], joint);
            }
            back.fill(0.0);
            for (mixed, k_shift) in
                mixed.chunks_exact(square).zip(self.kx.chunks_exact(lags * CLASSES))
            {
                for (at, &weight) in
                    k_shift.iter().enumerate().filter(|(_, weight)| **weight != 0.0)
                {
                    let (j, class) = (at / CLASSES, at % CLASSES);
                    for (a, row) in mixed.chunks_exact(k).enumerate() {
                        add(&mut back[class * lagged + (a * lags + j) * k..][..k], weight, row);
                    }
                }
            }
            let (classes, reversed) = back.split_at_mut(REVERSED * lagged);
            let inner = classes[INNER * lagged..][..lagged].chunks_exact(lags * k);
            for (reversed, inner) in reversed.chunks_exact_mut(lags * k).zip(inner) {
                reversed
                    .chunks_exact_mut(k)
                    .zip(inner.chunks_exact(k).rev())
                    .for_each(|(r, i)| r.copy_from_slice(i));
            }
        });
    }
}

/// The loss of one joint matrix: returns what Q (k, k) adds to the loss, and overwrites `q` by
/// scale · the gradient of that.
///
/// With P and its marginals clamped to at least EPS, the gradient of P is `G = −(log P + 1) +
/// λ·(log p_a + log p_b)`, 0 where P was below EPS, plus `λ·(Σ_b P)/p_a` and the same for b (each
/// is λ where nothing was below EPS). The gradient of Q is (G − ⟨G, P⟩)/ΣQ.
fn mutual(q: &mut [f32], spec: &IicSpec, scale: f32) -> f64 {
    let (k, lambda) = (spec.k, f64::from(spec.lambda));
    let total: f64 = q.iter().map(|&q| f64::from(q)).sum();
    let joint =
        |a: usize, b: usize| (f64::from(q[a * k + b]) + f64::from(q[b * k + a])) / (2.0 * total);
    let marginal: Vec<f64> = (0..k).map(|a| (0..k).map(|b| joint(a, b)).sum()).collect();
    let log: Vec<f64> = marginal.iter().map(|m| lambda * m.max(EPS).ln()).collect();
    // P is symmetric: one half of it, off the diagonal counted twice.
    let mut slopes = Vec::with_capacity(k * (k + 1) / 2);
    let (mut clamped_rows, mut loss, mut mean) = (vec![0.0; k], 0.0, 0.0);
    for a in 0..k {
        for b in 0..=a {
            let p = joint(a, b);
            let (clamped, times) = (p.max(EPS), if a == b { 1.0 } else { 2.0 });
            let gain = clamped.ln() - log[a] - log[b];
            let slope = if p < EPS { 0.0 } else { -(gain + 1.0) };
            loss -= times * clamped * gain;
            mean += times * p * slope;
            clamped_rows[a] += clamped;
            if a != b {
                clamped_rows[b] += clamped;
            }
            slopes.push(slope);
        }
    }
    let of_marginal = |(&m, &row): (&f64, &f64)| if m < EPS { 0.0 } else { lambda * row / m };
    let row_slope: Vec<f64> = marginal.iter().zip(&clamped_rows).map(of_marginal).collect();
    mean += 2.0 * marginal.iter().zip(&row_slope).map(|(m, slope)| m * slope).sum::<f64>();
    if spec.collapsed {
        mean = 0.0;
    }
    let rate = f64::from(scale) * spec.share() / total;
    let mut slopes = slopes.into_iter();
    for a in 0..k {
        for (b, slope) in (0..=a).zip(&mut slopes) {
            let gradient = (rate * (slope + row_slope[a] + row_slope[b] - mean)) as f32;
            q[a * k + b] = gradient;
            q[b * k + a] = gradient;
        }
    }
    loss * spec.share()
}
