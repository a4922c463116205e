//! The four linear transforms of Winograd F(2×2, 3×3), vectorised over channels: Bᵀ x B of inputs,
//! Aᵀ m A to outputs, A dy Aᵀ of output gradients, G w Gᵀ of weights and Gᵀ du G back to them.

// Index loops, because iterators over arrays of registers are not inlined into a vector unit's
// function.
#![allow(clippy::needless_range_loop)]

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::tiles::{Grid, POINTS, plane};
use crate::device::ops::ConvSpec;

/// What is done with each tile.
pub(super) trait Kind {
    /// Transforms one vector of channels of one tile.
    fn tile<S: Simd>(&mut self, s: S, conv: &ConvSpec, at: At);
}

/// Where one vector of channels of a tile lies.
#[derive(Clone, Copy)]
pub(super) struct At {
    /// The row of pixels, counted over all images, where the tile's image begins.
    pub image: usize,
    /// The tile's top left output pixel in the image.
    pub y: usize,
    pub x: usize,
    /// The row of pixels, counted over all images, where this piece begins.
    pub piece: usize,
    /// The tile's number in this piece, of `tiles`.
    pub tile: usize,
    pub tiles: usize,
    /// The first channel of the vector, of `channels`.
    pub lane: usize,
    pub channels: usize,
}

/// Rows `first..first + rows` of tiles, counted over all images, all channels of each.
pub(super) struct Tiles<K> {
    pub grid: Grid,
    pub first: usize,
    pub rows: usize,
    pub channels: usize,
    pub kind: K,
}

impl<K: Kind> WithSimd for Tiles<K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, s: S) {
        let (conv, down, across) = (self.grid.spec, self.grid.down(), self.grid.across());
        let (tiles, channels) = (self.rows * across, self.channels);
        let piece = self.grid.first_row(self.first);
        for row in 0..self.rows {
            let tile_row = self.first + row;
            let (image, y) = (tile_row / down * conv.h, tile_row % down * 2);
            for column in 0..across {
                let (x, tile) = (column * 2, row * across + column);
                for lane in (0..channels).step_by(S::F32_LANES) {
                    let at = At { image, y, x, piece, tile, tiles, lane, channels };
                    self.kind.tile(s, &conv, at);
                }
            }
        }
    }
}

#[inline(always)]
fn load<S: Simd>(_: S, from: &[f32]) -> S::f32s {
    S::as_simd_f32s(&from[..S::F32_LANES]).0[0]
}

#[inline(always)]
fn store<S: Simd>(_: S, to: &mut [f32], v: S::f32s) {
    S::as_mut_simd_f32s(&mut to[..S::F32_LANES]).0[0] = v;
}

/// v (point, tile, c) = Bᵀ x B of each 4×4 input tile, zero outside of the image.
pub(super) struct Input<'a> {
    pub v: &'a mut [f32],
    pub x: &'a [f32],
}

impl Kind for Input<'_> {
    #[inline(always)]
    fn tile<S: Simd>(&mut self, s: S, conv: &ConvSpec, at: At) {
        let At { tile: t, tiles, lane, channels: c, .. } = at;
        let mut d = [[s.splat_f32s(0.0); 4]; 4];
        let inside = at.y > 0 && at.x > 0 && at.y + 3 <= conv.h && at.x + 3 <= conv.w;
        for i in 0..4 {
            for j in 0..4 {
                // The tile begins one pixel above and left of its output.
                let (y, x) = (at.y + i, at.x + j);
                if inside || (y >= 1 && y <= conv.h && x >= 1 && x <= conv.w) {
                    d[i][j] = load(s, &self.x[((at.image + y - 1) * conv.w + x - 1) * c + lane..]);
                }
            }
        }
        for i in 0..4 {
            let [a, b, c, e] = d[i];
            d[i] = [s.sub_f32s(a, c), s.add_f32s(b, c), s.sub_f32s(c, b), s.sub_f32s(b, e)];
        }
        let plane = plane(tiles, c);
        for j in 0..4 {
            let [p, q, r, t4] = [d[0][j], d[1][j], d[2][j], d[3][j]];
            let column = [s.sub_f32s(p, r), s.add_f32s(q, r), s.sub_f32s(r, q), s.sub_f32s(q, t4)];
            for i in 0..4 {
                store(s, &mut self.v[(4 * i + j) * plane + t * c + lane..], column[i]);
            }
        }
    }
}

/// y = (or +=) Aᵀ m A of each transformed tile, m (point, tile, k), rows and columns outside of the
/// image dropped.
pub(super) struct Output<'a> {
    pub y: &'a mut [f32],
    pub m: &'a [f32],
    pub accumulate: bool,
}

impl Kind for Output<'_> {
    #[inline(always)]
    fn tile<S: Simd>(&mut self, s: S, conv: &ConvSpec, at: At) {
        let At { tile: t, tiles, lane, channels: k, .. } = at;
        let plane = plane(tiles, k);
        let mut rows = [[s.splat_f32s(0.0); 2]; 4];
        for i in 0..4 {
            let mut m = [s.splat_f32s(0.0); 4];
            for j in 0..4 {
                m[j] = load(s, &self.m[(4 * i + j) * plane + t * k + lane..]);
            }
            rows[i] = pair(s, m);
        }
        for j in 0..2 {
            let column = pair(s, [rows[0][j], rows[1][j], rows[2][j], rows[3][j]]);
            for i in 0..2 {
                if at.y + i < conv.h && at.x + j < conv.w {
                    let row = at.image + at.y + i - at.piece;
                    let to = &mut self.y[(row * conv.w + at.x + j) * k + lane..];
                    let y = if self.accumulate {
                        s.add_f32s(column[i], load(s, to))
                    } else {
                        column[i]
                    };
                    store(s, to, y);
                }
            }
        }
    }
}

/// Aᵀ m of one column.
#[inline(always)]
fn pair<S: Simd>(s: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 2] {
    [s.add_f32s(s.add_f32s(a, b), c), s.sub_f32s(s.sub_f32s(b, c), d)]
}

/// m (point, tile, k) = A dy Aᵀ of each 2×2 output tile.
pub(super) struct OutputGradient<'a> {
    pub m: &'a mut [f32],
    pub dy: &'a [f32],
}

impl Kind for OutputGradient<'_> {
    #[inline(always)]
    fn tile<S: Simd>(&mut self, s: S, conv: &ConvSpec, at: At) {
        let At { tile: t, tiles, lane, channels: k, .. } = at;
        let zero = s.splat_f32s(0.0);
        let mut rows = [[zero; 4]; 2];
        for i in 0..2 {
            let mut d = [zero; 2];
            for j in 0..2 {
                if at.y + i < conv.h && at.x + j < conv.w {
                    d[j] =
                        load(s, &self.dy[((at.image + at.y + i) * conv.w + at.x + j) * k + lane..]);
                }
            }
            rows[i] = spread(s, d);
        }
        let plane = plane(tiles, k);
        for j in 0..4 {
            let column = spread(s, [rows[0][j], rows[1][j]]);
            for i in 0..4 {
                store(s, &mut self.m[(4 * i + j) * plane + t * k + lane..], column[i]);
            }
        }
    }
}

/// A d of one column.
#[inline(always)]
fn spread<S: Simd>(s: S, [a, b]: [S::f32s; 2]) -> [S::f32s; 4] {
    [a, s.add_f32s(a, b), s.sub_f32s(a, b), s.neg_f32s(b)]
}

/// u (point, k, c) = G w Gᵀ of each 3×3 kernel, w (k, 3, 3, c); mirrored in both directions for the
/// gradient of x.
pub(super) fn transform_weights(
    simd: Arch,
    u: &mut [f32],
    w: &[f32],
    c: usize,
    k: usize,
    mirror: bool,
) {
    struct Kernel<'a> {
        points: Vec<&'a mut [f32]>,
        w: &'a [f32],
        c: usize,
        mirror: bool,
    }
    impl WithSimd for Kernel<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(mut self, s: S) {
            let c = self.c;
            for lane in (0..c).step_by(S::F32_LANES) {
                let mut rows = [[s.splat_f32s(0.0); 4]; 3];
                for i in 0..3 {
                    let mut w = [s.splat_f32s(0.0); 3];
                    for j in 0..3 {
                        let tap = if self.mirror { 8 - 3 * i - j } else { 3 * i + j };
                        w[j] = load(s, &self.w[tap * c + lane..]);
                    }
                    rows[i] = widen(s, w);
                }
                for j in 0..4 {
                    let column = widen(s, [rows[0][j], rows[1][j], rows[2][j]]);
                    for i in 0..4 {
                        store(s, &mut self.points[4 * i + j][lane..], column[i]);
                    }
                }
            }
        }
    }
    // Row ko of every point belongs to kernel ko.
    let mut points: Vec<_> = u.chunks_mut(k * c).map(|p| p.chunks_mut(c)).collect();
    let kernels: Vec<Vec<&mut [f32]>> =
        (0..k).map(|_| points.iter_mut().filter_map(Iterator::next).collect()).collect();
    kernels
        .into_par_iter()
        .zip(w.par_chunks(9 * c))
        .for_each(|(points, w)| simd.dispatch(Kernel { points, w, c, mirror }));
}

/// G w of one column.
#[inline(always)]
fn widen<S: Simd>(s: S, [a, b, c]: [S::f32s; 3]) -> [S::f32s; 4] {
    let half = s.splat_f32s(0.5);
    let (ends, middle) = (s.mul_f32s(half, s.add_f32s(a, c)), s.mul_f32s(half, b));
    [a, s.add_f32s(ends, middle), s.sub_f32s(ends, middle), c]
}

/// Gᵀ u of one column.
#[inline(always)]
fn narrow<S: Simd>(s: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 3] {
    let half = s.splat_f32s(0.5);
    let (sum, difference) =
        (s.mul_f32s(half, s.add_f32s(b, c)), s.mul_f32s(half, s.sub_f32s(b, c)));
    [s.add_f32s(a, sum), difference, s.add_f32s(sum, d)]
}

/// dw (k, 3, 3, c) += Gᵀ du G, du (point, k, c).
pub(super) struct WeightGradient<'a> {
    pub dw: &'a mut [f32],
    pub du: &'a [f32],
    pub c: usize,
}

impl WithSimd for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let c = self.c;
        let stride = self.du.len() / POINTS;
        for (ko, dw) in self.dw.chunks_exact_mut(9 * c).enumerate() {
            for lane in (0..c).step_by(S::F32_LANES) {
                let mut rows = [[s.splat_f32s(0.0); 3]; 4];
                for i in 0..4 {
                    let mut u = [s.splat_f32s(0.0); 4];
                    for j in 0..4 {
                        u[j] = load(s, &self.du[(4 * i + j) * stride + ko * c + lane..]);
                    }
                    rows[i] = narrow(s, u);
                }
                for j in 0..3 {
                    let column = narrow(s, [rows[0][j], rows[1][j], rows[2][j], rows[3][j]]);
                    for i in 0..3 {
                        let to = &mut dw[(3 * i + j) * c + lane..];
                        let sum = s.add_f32s(column[i], load(s, to));
                        store(s, to, sum);
                    }
                }
            }
        }
    }
}
