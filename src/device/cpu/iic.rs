//! IIC's loss on the CPU: correlations of coarse maps as matrix products (see the contract), two
//! small mixings, and back.
//!
//! For a lag of rows, the lags of columns are *one* product: the windows of 2·radius + 1 pixels
//! around all pixels of a row are the rows of a matrix whose stride is one pixel, so
//! `x1ᵀ·windows(x2)` (k × lags·k) needs no copies of shifted maps. The inner columns (neither pixel
//! at a border) lie in scratch with zeros between rows, which a window at a row's end reads. Pairs
//! with a pixel in a border column are a few products of columns.
//!
//! f32 throughout but for the joint matrices' sums, logarithms and entropies, which are f64: at the
//! start P is almost p_a·p_b, and both the loss and its gradient are what is left of numbers that
//! cancel. They are few.

use rayon::prelude::*;

use super::Cpu;
use super::gemm::{Mat, gemm};
use super::share::{share, workers};
use crate::base::Result;
use crate::device::Slot;
use crate::device::ops::iic::{Axis, CLASSES, EPS, FIRST, INNER, LAST};
use crate::device::ops::{Iic, IicSpec};

/// Pairs are cut into at most this many groups, whatever the threads, and fewer where their
/// correlations would take more than `GROUP_FLOATS`.
const GROUPS: usize = 8;
const GROUP_FLOATS: usize = 1 << 24;

/// Matrices (k, lags·k) of a lag and class of rows on the way back: by class of columns, and the
/// inner one with lags reversed.
const BACK: usize = CLASSES + 1;
const REVERSED: usize = CLASSES;

#[derive(Clone)]
pub struct IicPlan {
    spec: IicSpec,
    y: Axis,
    x: Axis,
    /// K of rows (shifts, lags, classes), and of columns.
    ky: Vec<f32>,
    kx: Vec<f32>,
    groups: usize,
}

impl IicPlan {
    /// Floats of a pixel row of inner columns and the zeros behind it; 0 where there are none.
    fn pitch(&self) -> usize {
        if self.x.len > 2 { self.x.len - 2 + self.x.radius } else { 0 }
    }

    /// Floats of one image's inner columns: zeros, then rows.
    fn inner_image(&self) -> usize {
        (self.x.radius + self.y.len * self.pitch()) * self.spec.k
    }

    /// Floats of one (k, lags of columns · k).
    fn lagged(&self) -> usize {
        self.x.lags() * self.spec.k * self.spec.k
    }

    /// Lags and classes of rows.
    fn rows(&self) -> usize {
        self.y.lags() * CLASSES
    }

    /// Floats of scratch: inner columns; correlations of each group, later their gradients; rows ×
    /// shifts of columns; Q; a thread's.
    fn parts(&self) -> [usize; 5] {
        let square = self.spec.k * self.spec.k;
        let lags = self.rows() * self.lagged() * (self.groups * CLASSES).max(BACK);
        let mixed = self.rows() * self.x.shifts * square;
        let joint = self.y.shifts * self.x.shifts * square;
        [
            2 * self.spec.n * self.inner_image(),
            lags,
            mixed,
            joint,
            workers() * self.y.len * self.pitch() * self.spec.k,
        ]
    }

    /// Where a pixel of the map, in an inner column, lies in its padded image.
    fn inner_at(&self, row: usize, column: usize) -> usize {
        (self.x.radius + row * self.pitch() + column - 1) * self.spec.k
    }

    /// Where the window around it begins.
    fn window_at(&self, row: usize, column: usize) -> usize {
        self.inner_at(row, column) - self.x.radius * self.spec.k
    }

    /// The inner columns of a map, zeros between rows.
    fn pad(&self, padded: &mut [f32], map: &[f32]) {
        let (k, width) = (self.spec.k, self.x.len * self.spec.k);
        padded.fill(0.0);
        if self.pitch() == 0 {
            return;
        }
        for (row, pixels) in map.chunks_exact(width).enumerate() {
            let inner = &pixels[k..width - k];
            padded[self.inner_at(row, 1)..][..inner.len()].copy_from_slice(inner);
        }
    }

    /// Pixels of one run: from the first inner one of a row on, over `count` rows, the zeros
    /// between them included.
    fn run(&self, count: usize) -> usize {
        (count - 1) * self.pitch() + self.x.len - 2
    }

    /// Class, lag and columns (p, q) of the pairs with a pixel in a border column.
    fn borders(&self) -> impl Iterator<Item = (usize, usize, usize, usize)> {
        let lags = (0..self.x.lags()).flat_map(|j| [(FIRST, j), (LAST, j)]);
        lags.filter_map(|(class, j)| self.x.pairs(j, class).map(|(p, q, _)| (class, j, p, q)))
    }

    /// c (classes of rows, classes of columns, k, lags, k) += an image's correlations at the i-th
    /// lag of rows.
    fn correlate(&self, c: &mut [f32], i: usize, maps: [&[f32]; 2], inner: [&[f32]; 2]) {
        let (k, lagged) = (self.spec.k, self.lagged());
        let (width, line) = (self.x.lags() * k, self.x.len * k);
        for (class, c) in c.chunks_exact_mut(CLASSES * lagged).enumerate() {
            let Some((p, q, count)) = self.y.pairs(i, class) else { continue };
            if self.pitch() > 0 {
                let a = Mat::transposed(&inner[0][self.inner_at(p, 1)..], k);
                let windows = Mat::row_major(&inner[1][self.window_at(q, 1)..], k);
                gemm(
                    &mut c[INNER * lagged..],
                    width,
                    true,
                    a,
                    windows,
                    (k, width, self.run(count)),
                );
            }
            for (class, j, px, qx) in self.borders() {
                let a = Mat::transposed(&maps[0][p * line + px * k..], line);
                let b = Mat::row_major(&maps[1][q * line + qx * k..], line);
                gemm(&mut c[class * lagged + j * k..], width, true, a, b, (k, k, count));
            }
        }
    }

    /// The correlations of all pairs, a part a group: (groups, lags of rows, classes of rows,
    /// classes of columns, k, lags, k).
    fn correlations(&self, c: &mut [f32], maps: &[f32], inner: &[f32]) {
        let IicSpec { n, h, w, k, .. } = self.spec;
        let (image, padded) = (h * w * k, self.inner_image());
        let each = n.div_ceil(self.groups);
        let lags = self.y.lags();
        c.par_chunks_exact_mut(CLASSES * CLASSES * self.lagged()).enumerate().for_each(
            |(item, c)| {
                c.fill(0.0);
                for at in (item / lags * each)..n.min((item / lags + 1) * each) {
                    let views = [at, n + at];
                    let maps = views.map(|at| &maps[at * image..][..image]);
                    self.correlate(
                        c,
                        item % lags,
                        maps,
                        views.map(|at| &inner[at * padded..][..padded]),
                    );
                }
            },
        );
    }

    /// mixed (lags and classes of rows, shifts of columns, k, k) = Σ K · the correlations, and over
    /// groups.
    fn mix_columns(&self, mixed: &mut [f32], c: &[f32]) {
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

    /// joint (shifts, k, k) = Q, then the gradient of Q; returns the loss.
    fn joints(&self, joint: &mut [f32], mixed: &[f32], scale: f32) -> f64 {
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

    /// back (lags and classes of rows, BACK, k, lags, k) = the gradient of the correlations,
    /// through `mixed`.
    fn unmix(&self, back: &mut [f32], mixed: &mut [f32], joint: &[f32]) {
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

    /// dmap (h, w, k) of one image of a view, from the other view's. `room` is for inner columns.
    ///
    /// NOTE: gradients of joint matrices are symmetric, and so are those of the correlations: (a,
    /// b) and (b, a) are one.
    fn backward(
        &self,
        dmap: &mut [f32],
        view: usize,
        map: &[f32],
        inner: &[f32],
        back: &[f32],
        room: &mut [f32],
    ) {
        let (k, lagged, pitch) = (self.spec.k, self.lagged(), self.pitch());
        let (width, line) = (self.x.lags() * k, self.x.len * k);
        // Where the gradient goes, and where the other map is read: p and q of view 1.
        let turn = |(p, q): (usize, usize)| if view == 0 { (p, q) } else { (q, p) };
        room.fill(0.0);
        dmap.fill(0.0);
        for (row, back) in back.chunks_exact(BACK * lagged).enumerate() {
            let Some((p, q, count)) = self.y.pairs(row / CLASSES, row % CLASSES) else { continue };
            let (to, from) = turn((p, q));
            if pitch > 0 {
                let windows = Mat::row_major(&inner[self.window_at(from, 1)..], k);
                let lags = Mat::transposed(
                    &back[if view == 0 { INNER } else { REVERSED } * lagged..],
                    width,
                );
                gemm(
                    &mut room[to * pitch * k..],
                    k,
                    true,
                    windows,
                    lags,
                    (self.run(count), k, width),
                );
            }
            for (class, j, px, qx) in self.borders() {
                let (to_x, from_x) = turn((px, qx));
                let a = Mat::row_major(&map[from * line + from_x * k..], line);
                let b = Mat::transposed(&back[class * lagged + j * k..], width);
                gemm(&mut dmap[to * line + to_x * k..], line, true, a, b, (count, k, k));
            }
        }
        if pitch > 0 {
            for (dmap, room) in dmap.chunks_exact_mut(line).zip(room.chunks_exact(pitch * k)) {
                add(&mut dmap[k..line - k], 1.0, &room[..line - 2 * k]);
            }
        }
    }
}

/// y += weight · x
fn add(y: &mut [f32], weight: f32, x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += weight * x);
}

/// q (k, k) = scale · the gradient of what it adds to the loss, which is returned.
///
/// With both clamped to at least EPS, `G = −(log P + 1) + λ·(log p_a + log p_b)`, 0 where P was
/// below it, plus `λ·(Σ_b P)/p_a` and the same of b (each λ where nothing was below it) is the
/// gradient of P; that of Q is (G − ⟨G, P⟩)/ΣQ.
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

impl Iic for Cpu {
    type IicPlan = IicPlan;

    fn plan_iic(&mut self, spec: IicSpec) -> Result<IicPlan> {
        let [y, x] = spec.axes()?;
        let mut plan =
            IicPlan { spec, y, x, ky: y.coefficients(), kx: x.coefficients(), groups: 1 };
        let part = plan.rows() * CLASSES * plan.lagged();
        plan.groups = (GROUP_FLOATS / part).clamp(1, GROUPS.min(spec.n));
        self.ask_scratch(plan.parts().iter().sum());
        Ok(plan)
    }

    fn iic_loss(
        &mut self,
        plan: &IicPlan,
        loss: Slot<f32>,
        dmaps: Slot<f32>,
        maps: Slot<f32>,
        scale: f32,
    ) -> Result<()> {
        plan.spec.check(loss, dmaps, maps)?;
        let IicSpec { n, h, w, k, .. } = plan.spec;
        let (image, padded) = (h * w * k, plan.inner_image());
        let [inner, lags, mixed, joint, room] = plan.parts();
        let scratch = self.scratch(inner + lags + mixed + joint + room);
        let (loss, dmaps, maps, scratch) = self.get((loss, dmaps, maps, scratch));
        let maps = &*maps;
        let (inner, scratch) = scratch.split_at_mut(inner);
        let (lags, scratch) = scratch.split_at_mut(lags);
        let (mixed, scratch) = scratch.split_at_mut(mixed);
        let (joint, room) = scratch.split_at_mut(joint);

        inner
            .par_chunks_exact_mut(padded.max(1))
            .zip(maps.par_chunks_exact(image))
            .for_each(|(i, m)| plan.pad(i, m));
        let part = plan.rows() * CLASSES * plan.lagged();
        plan.correlations(&mut lags[..plan.groups * part], maps, inner);
        plan.mix_columns(mixed, &lags[..plan.groups * part]);
        loss[0] = plan.joints(joint, mixed, scale) as f32;
        let back = &mut lags[..plan.rows() * BACK * plan.lagged()];
        plan.unmix(back, mixed, joint);
        let (back, inner) = (&*back, &*inner);
        share(dmaps.chunks_exact_mut(image).enumerate(), room, |(at, dmap), room| {
            let other = (at + n) % (2 * n);
            let (map, inner) =
                (&maps[other * image..][..image], &inner[other * padded..][..padded]);
            plan.backward(dmap, at / n, map, inner, back, &mut room[..h * plan.pitch() * k]);
        });
        Ok(())
    }
}
