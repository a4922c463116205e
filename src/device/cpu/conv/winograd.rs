//! Winograd convolution F(2×2, 3×3) (Lavin & Gray, CVPR 2016): an output tile of 2×2 from an input tile of 4×4 by 16
//! multiplications instead of 36.
//!
//! y = Aᵀ[(G w Gᵀ) ⊙ (Bᵀ x B)]A, summed over input channels: 16 products (tiles, c)·(c, k), one for each position of a 4×4
//! tile. The gradient of x is the same convolution of dy with the mirrored, transposed weights; the gradient of w is
//! dw = Gᵀ[Σ over tiles (A dy Aᵀ) ⊙ (Bᵀ x B)]G.
//!
//! Work is cut by rows of tiles: consecutive ones write a contiguous part of the output.

// Index loops, because iterators over arrays of registers are not inlined into a vector unit's function.
#![allow(clippy::needless_range_loop)]

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::Finish;
use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cpu::share::{share, workers};
use crate::device::cpu::wide::wide;
use crate::device::ops::ConvSpec;

/// Tiles in a piece: 16 products of this height, their operands within a core's second-level cache for 64 channels.
const TILES: usize = 128;
/// Scratch for the transformed operands of a weight gradient, in f32 (32 MiB), shared by all threads.
const ROUND: usize = 8 << 20;
/// Positions of a transformed tile.
const POINTS: usize = 16;

/// Elements from one point's (tiles, channels) matrix to the next.
///
/// NOTE: a cache line more than the matrix: at a multiple of 4 KiB all 16 would fall into one set of the first-level cache.
fn plane(tiles: usize, channels: usize) -> usize {
    tiles * channels + 16
}

#[derive(Clone, Copy, Debug)]
pub struct Winograd {
    pub spec: ConvSpec,
}

impl Winograd {
    /// Channels come in whole vector registers of any width up to 16.
    pub fn applies(s: ConvSpec) -> bool {
        s.r == 3 && s.stride == 1 && s.pad == 1 && s.c.is_multiple_of(16) && s.k.is_multiple_of(16)
    }

    fn tiles_across(&self) -> usize {
        self.spec.w.div_ceil(2)
    }

    /// Rows of tiles over all images.
    fn tile_rows(&self) -> usize {
        self.spec.n * self.spec.h.div_ceil(2)
    }

    /// Rows of tiles in a piece.
    fn piece_rows(&self) -> usize {
        (TILES / self.tiles_across()).clamp(1, self.tile_rows())
    }

    fn piece_tiles(&self) -> usize {
        self.piece_rows() * self.tiles_across()
    }

    /// Transformed input and output of a piece.
    fn operands_len(&self) -> usize {
        POINTS * (plane(self.piece_tiles(), self.spec.c) + plane(self.piece_tiles(), self.spec.k))
    }

    /// Pieces whose operands a weight gradient holds at a time.
    fn round_pieces(&self) -> usize {
        (ROUND / self.operands_len()).clamp(1, self.tile_rows().div_ceil(self.piece_rows()))
    }

    pub fn scratch_len(&self) -> usize {
        let (c, k) = (self.spec.c, self.spec.k);
        POINTS * c * k + self.operands_len() * self.round_pieces().max(workers())
    }

    pub fn forward(&self, simd: Arch, y: &mut [f32], x: &[f32], w: &[f32], finish: Finish, scratch: &mut [f32]) {
        let ConvSpec { c, k, .. } = self.spec;
        let (u, scratch) = scratch.split_at_mut(POINTS * c * k);
        transform_weights(simd, u, w, c, k, false);
        self.convolve(simd, y, x, (c, k), false, finish, scratch, |v, m, point, tiles| {
            let u = &u[point * c * k..][..c * k];
            gemm(m, k, false, Mat::row_major(v, c), Mat::transposed(u, c), (tiles, k, c));
        });
    }

    pub fn backward_data(
        &self,
        simd: Arch,
        dx: &mut [f32],
        dy: &[f32],
        w: &[f32],
        accumulate: bool,
        scratch: &mut [f32],
    ) {
        let ConvSpec { c, k, .. } = self.spec;
        let (u, scratch) = scratch.split_at_mut(POINTS * c * k);
        transform_weights(simd, u, w, c, k, true);
        self.convolve(simd, dx, dy, (k, c), accumulate, Finish::NONE, scratch, |v, m, point, tiles| {
            let u = &u[point * c * k..][..c * k];
            gemm(m, c, false, Mat::row_major(v, k), Mat::row_major(u, c), (tiles, c, k));
        });
    }

    /// out = (or +=) the convolution of `input` (n, h, w, channels.0) to channels.1, with `product(v, m, point, tiles)` for each point.
    #[allow(clippy::too_many_arguments)]
    fn convolve(
        &self,
        simd: Arch,
        mut out: &mut [f32],
        input: &[f32],
        (ci, co): (usize, usize),
        accumulate: bool,
        finish: Finish,
        scratch: &mut [f32],
        product: impl Fn(&[f32], &mut [f32], usize, usize) + Sync,
    ) {
        let mut start = 0;
        let pieces = (0..self.tile_rows()).step_by(self.piece_rows()).map(|first| {
            let rows = self.piece_rows().min(self.tile_rows() - first);
            let len = (self.first_row(first + rows) - self.first_row(first)) * self.spec.w * co;
            let (piece, rest) = std::mem::take(&mut out).split_at_mut(len);
            out = rest;
            start += len;
            (first, rows, start - len, piece)
        });
        share(pieces, scratch, |(first, rows, start, out), scratch| {
            let tiles = rows * self.tiles_across();
            let (vs, ms) = (plane(tiles, ci), plane(tiles, co));
            let (v, rest) = scratch.split_at_mut(POINTS * vs);
            let m = &mut rest[..POINTS * ms];
            simd.dispatch(Tiles { conv: self, first, rows, channels: ci, kind: Input { v, x: input } });
            for point in 0..POINTS {
                let (v, m) = (&v[point * vs..][..tiles * ci], &mut m[point * ms..][..tiles * co]);
                product(v, m, point, tiles);
            }
            simd.dispatch(Tiles { conv: self, first, rows, channels: co, kind: Output { y: out, m, accumulate } });
            if finish.bias.is_some() || finish.residual.is_some() || finish.relu {
                wide(
                    simd,
                    #[inline(always)]
                    || finish.at(start).apply(out, co),
                );
            }
        });
    }

    pub fn backward_weight(&self, simd: Arch, dw: &mut [f32], x: &[f32], dy: &[f32], scratch: &mut [f32]) {
        let ConvSpec { c, k, .. } = self.spec;
        let (du, scratch) = scratch.split_at_mut(POINTS * c * k);
        let (piece, split) = (self.operands_len(), POINTS * plane(self.piece_tiles(), c));
        let firsts: Vec<usize> = (0..self.tile_rows()).step_by(self.piece_rows()).collect();
        for (round, firsts) in firsts.chunks(self.round_pieces()).enumerate() {
            scratch.par_chunks_mut(piece).zip(firsts).for_each(|(operands, &first)| {
                let rows = self.piece_rows().min(self.tile_rows() - first);
                let (v, m) = operands.split_at_mut(split);
                simd.dispatch(Tiles { conv: self, first, rows, channels: c, kind: Input { v, x } });
                simd.dispatch(Tiles { conv: self, first, rows, channels: k, kind: OutputGradient { m, dy } });
            });
            // Each point is one thread's, and adds the pieces in their order.
            du.par_chunks_mut(c * k).enumerate().for_each(|(point, du)| {
                for (i, (operands, first)) in scratch.chunks(piece).zip(firsts).enumerate() {
                    let tiles = self.piece_rows().min(self.tile_rows() - first) * self.tiles_across();
                    let (v, m) = operands.split_at(split);
                    let (v, m) =
                        (&v[point * plane(tiles, c)..][..tiles * c], &m[point * plane(tiles, k)..][..tiles * k]);
                    gemm(du, c, round + i > 0, Mat::transposed(m, k), Mat::row_major(v, c), (k, c, tiles));
                }
            });
        }
        simd.dispatch(WeightGradient { dw, du, c });
    }

    /// The first row of pixels, counted over all images, of a row of tiles.
    fn first_row(&self, tile_row: usize) -> usize {
        let per = self.spec.h.div_ceil(2);
        tile_row / per * self.spec.h + tile_row % per * 2
    }
}

/// What is done with each tile.
trait Kind {
    /// Channels `lane..` of one vector: tile number `t` of `tiles` in this piece, whose top left output pixel is (`y`, `x`) of `image`.
    #[allow(clippy::too_many_arguments)]
    fn tile<S: Simd>(&mut self, s: S, conv: &ConvSpec, at: At, t: usize, tiles: usize, lane: usize, channels: usize);
}

/// Where a tile lies.
#[derive(Clone, Copy)]
struct At {
    /// Row of pixels over all images where this image begins, relative to the buffer that the kind holds.
    image: usize,
    y: usize,
    x: usize,
    /// Rows of pixels over all images before this piece.
    piece: usize,
}

struct Tiles<'a, K> {
    conv: &'a Winograd,
    first: usize,
    rows: usize,
    channels: usize,
    kind: K,
}

impl<K: Kind> WithSimd for Tiles<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, s: S) {
        let (per, across) = (self.conv.spec.h.div_ceil(2), self.conv.tiles_across());
        let tiles = self.rows * across;
        let piece = self.conv.first_row(self.first);
        for row in 0..self.rows {
            let tile_row = self.first + row;
            let (image, y) = (tile_row / per * self.conv.spec.h, tile_row % per * 2);
            for column in 0..across {
                let at = At { image, y, x: column * 2, piece };
                for lane in (0..self.channels).step_by(S::F32_LANES) {
                    self.kind.tile(s, &self.conv.spec, at, row * across + column, tiles, lane, self.channels);
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
struct Input<'a> {
    v: &'a mut [f32],
    x: &'a [f32],
}

impl Kind for Input<'_> {
    #[inline(always)]
    fn tile<S: Simd>(&mut self, s: S, conv: &ConvSpec, at: At, t: usize, tiles: usize, lane: usize, c: usize) {
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

/// y = (or +=) Aᵀ m A of each transformed tile, m (point, tile, k), rows and columns outside of the image dropped.
struct Output<'a> {
    y: &'a mut [f32],
    m: &'a [f32],
    accumulate: bool,
}

impl Kind for Output<'_> {
    #[inline(always)]
    fn tile<S: Simd>(&mut self, s: S, conv: &ConvSpec, at: At, t: usize, tiles: usize, lane: usize, k: usize) {
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
                    let y = if self.accumulate { s.add_f32s(column[i], load(s, to)) } else { column[i] };
                    store(s, to, y);
                }
            }
        }
    }
}

/// Aᵀ m.
#[inline(always)]
fn pair<S: Simd>(s: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 2] {
    [s.add_f32s(s.add_f32s(a, b), c), s.sub_f32s(s.sub_f32s(b, c), d)]
}

/// m (point, tile, k) = A dy Aᵀ of each 2×2 output tile.
struct OutputGradient<'a> {
    m: &'a mut [f32],
    dy: &'a [f32],
}

impl Kind for OutputGradient<'_> {
    #[inline(always)]
    fn tile<S: Simd>(&mut self, s: S, conv: &ConvSpec, at: At, t: usize, tiles: usize, lane: usize, k: usize) {
        let zero = s.splat_f32s(0.0);
        let mut rows = [[zero; 4]; 2];
        for i in 0..2 {
            let mut d = [zero; 2];
            for j in 0..2 {
                if at.y + i < conv.h && at.x + j < conv.w {
                    d[j] = load(s, &self.dy[((at.image + at.y + i) * conv.w + at.x + j) * k + lane..]);
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

/// A d.
#[inline(always)]
fn spread<S: Simd>(s: S, [a, b]: [S::f32s; 2]) -> [S::f32s; 4] {
    [a, s.add_f32s(a, b), s.sub_f32s(a, b), s.neg_f32s(b)]
}

/// u (point, k, c) = G w Gᵀ of each 3×3 kernel, w (k, 3, 3, c); mirrored in both directions for the gradient of x.
fn transform_weights(simd: Arch, u: &mut [f32], w: &[f32], c: usize, k: usize, mirror: bool) {
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

/// G w.
#[inline(always)]
fn widen<S: Simd>(s: S, [a, b, c]: [S::f32s; 3]) -> [S::f32s; 4] {
    let half = s.splat_f32s(0.5);
    let (ends, middle) = (s.mul_f32s(half, s.add_f32s(a, c)), s.mul_f32s(half, b));
    [a, s.add_f32s(ends, middle), s.sub_f32s(ends, middle), c]
}

/// Gᵀ u.
#[inline(always)]
fn narrow<S: Simd>(s: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 3] {
    let half = s.splat_f32s(0.5);
    let (sum, difference) = (s.mul_f32s(half, s.add_f32s(b, c)), s.mul_f32s(half, s.sub_f32s(b, c)));
    [s.add_f32s(a, sum), difference, s.add_f32s(sum, d)]
}

/// dw (k, 3, 3, c) += Gᵀ du G, du (point, k, c).
struct WeightGradient<'a> {
    dw: &'a mut [f32],
    du: &'a [f32],
    c: usize,
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
