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

mod joint;

use std::sync::Arc;

use rayon::prelude::*;

use super::Cpu;
use super::gemm::{Mat, gemm};
use super::share::{share, workers};
use crate::base::Result;
use crate::device::ops::iic::{Axis, CLASSES, FIRST, INNER, IicOps, LAST};
use crate::device::ops::{IicLoss, IicSpec, Passed};

/// Pairs are cut into at most this many groups, whatever the threads, and fewer where their
/// correlations would take more than `GROUP_FLOATS`.
const GROUPS: usize = 8;
const GROUP_FLOATS: usize = 1 << 24;

/// Number of matrices (k, lags·k) that the backward needs for a lag and class of rows: one for each
/// class of columns, and a copy of the inner one with its lags reversed, for view 2.
const BACK: usize = CLASSES + 1;
const REVERSED: usize = CLASSES;

/// What a plan computes ahead: the axes of its maps and their coefficients.
pub struct Tables {
    spec: IicSpec,
    y: Axis,
    x: Axis,
    /// The coefficients K along rows (shifts, lags, classes), and along columns.
    ky: Vec<f32>,
    kx: Vec<f32>,
    /// Number of groups that pairs are cut into.
    groups: usize,
}

impl Tables {
    /// Floats of a row of inner columns and the zeros behind it; 0 where there are none.
    fn pitch(&self) -> usize {
        if self.x.len > 2 { self.x.len - 2 + self.x.radius } else { 0 }
    }

    /// Floats of one image's inner columns: zeros, then rows.
    fn inner_image(&self) -> usize {
        (self.x.radius + self.y.len * self.pitch()) * self.spec.k
    }

    /// Floats of one matrix (k, lags of columns · k).
    fn lagged(&self) -> usize {
        self.x.lags() * self.spec.k * self.spec.k
    }

    /// Number of lags and classes of rows.
    fn rows(&self) -> usize {
        self.y.lags() * CLASSES
    }

    /// Floats of the five parts of scratch: the inner columns of both views; the correlations of
    /// each group, later their gradients; the matrices by lag of rows and shift of columns; Q; and
    /// the rooms of the threads.
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

    /// Where the window around such a pixel begins.
    fn window_at(&self, row: usize, column: usize) -> usize {
        self.inner_at(row, column) - self.x.radius * self.spec.k
    }

    /// padded = the inner columns of a map, zeros between rows.
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

    /// The pairs with a pixel in a border column, as (class, lag, p, q) where p and q are columns.
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

    /// c (groups, lags of rows, classes of rows, classes of columns, k, lags, k) = the correlations
    /// of all pairs, group by group.
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

    /// dmap (h, w, k) = the gradient of one image's map in a view, from the other view's `map` and
    /// its `inner` columns, and from `back`. `room` is scratch for inner columns.
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

/// y += weight · x.
fn add(y: &mut [f32], weight: f32, x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += weight * x);
}

impl IicOps for Cpu {
    fn plan_iic(&mut self, spec: IicSpec) -> Result<usize> {
        let [y, x] = spec.axes()?;
        let mut plan = Tables { spec, y, x, ky: y.coefficients(), kx: x.coefficients(), groups: 1 };
        let part = plan.rows() * CLASSES * plan.lagged();
        plan.groups = (GROUP_FLOATS / part).clamp(1, GROUPS.min(spec.n));
        self.ask_scratch(plan.parts().iter().sum());
        self.tables.push(Arc::new(plan));
        Ok(self.tables.len() - 1)
    }

    fn iic_loss(&mut self, a: Passed<IicLoss>) -> Result<()> {
        let plan = Arc::clone(&self.tables[a.number()]);
        let IicSpec { n, h, w, k, .. } = plan.spec;
        let (image, padded) = (h * w * k, plan.inner_image());
        let [inner, lags, mixed, joint, room] = plan.parts();
        let scratch = self.scratch(inner + lags + mixed + joint + room);
        let (loss, dmaps, maps, scratch) = self.get((a.loss, a.dmaps, a.maps, scratch));
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
        loss[0] = plan.joints(joint, mixed, a.scale) as f32;
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
