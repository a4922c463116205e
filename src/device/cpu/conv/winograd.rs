//! Winograd convolution F(2×2, 3×3) (Lavin & Gray, CVPR 2016): an output tile of 2×2 from an input
//! tile of 4×4 by 16 multiplications instead of 36.
//!
//! y = Aᵀ[(G w Gᵀ) ⊙ (Bᵀ x B)]A, summed over input channels: 16 products (tiles, c)·(c, k), one for
//! each position of a 4×4 tile. The gradient of x is the same convolution of dy with the mirrored,
//! transposed weights; the gradient of w is dw = Gᵀ[Σ over tiles (A dy Aᵀ) ⊙ (Bᵀ x B)]G.
//!
//! Work is cut by rows of tiles: consecutive ones write a contiguous part of the output.

use pulp::Arch;
use rayon::prelude::*;

use super::Finish;
use super::tiles::{Grid, POINTS, plane};
use super::transform::{Input, Output, OutputGradient, Tiles, WeightGradient, transform_weights};
use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cpu::share::{share, workers};
use crate::device::cpu::wide::wide;
use crate::device::ops::ConvSpec;

/// Number of tiles in a piece of work: 16 products of this height, their operands within a core's
/// second-level cache for 64 channels.
const TILES: usize = 128;
/// Floats of scratch for the transformed operands of a weight gradient (32 MiB), shared by all
/// threads.
const ROUND: usize = 8 << 20;
/// A convolution that is computed by F(2×2, 3×3).
#[derive(Clone, Copy)]
pub struct Winograd {
    pub simd: Arch,
    pub spec: ConvSpec,
}

impl Winograd {
    /// Whether the algorithm applies: channels must come in whole vector registers of any width up
    /// to 16.
    pub fn applies(s: ConvSpec) -> bool {
        s.r == 3 && s.stride == 1 && s.pad == 1 && s.c.is_multiple_of(16) && s.k.is_multiple_of(16)
    }

    /// The tiles of the output.
    fn grid(&self) -> Grid {
        Grid { spec: self.spec }
    }

    /// Number of rows of tiles in a piece.
    fn piece_rows(&self) -> usize {
        (TILES / self.grid().across()).clamp(1, self.grid().rows())
    }

    fn piece_tiles(&self) -> usize {
        self.piece_rows() * self.grid().across()
    }

    /// Floats of the transformed input and output of a piece.
    fn operands_len(&self) -> usize {
        POINTS * (plane(self.piece_tiles(), self.spec.c) + plane(self.piece_tiles(), self.spec.k))
    }

    /// Number of pieces whose operands a weight gradient holds at a time.
    fn round_pieces(&self) -> usize {
        (ROUND / self.operands_len()).clamp(1, self.grid().rows().div_ceil(self.piece_rows()))
    }

    pub fn scratch_len(&self) -> usize {
        let (c, k) = (self.spec.c, self.spec.k);
        POINTS * c * k + self.operands_len() * self.round_pieces().max(workers())
    }

    pub fn forward(
        &self,
        y: &mut [f32],
        x: &[f32],
        w: &[f32],
        finish: Finish,
        scratch: &mut [f32],
    ) {
        let ConvSpec { c, k, .. } = self.spec;
        let (u, scratch) = scratch.split_at_mut(POINTS * c * k);
        transform_weights(self.simd, u, w, c, k, false);
        self.convolve(y, x, (c, k), finish, scratch, |v, m, point, tiles| {
            let u = &u[point * c * k..][..c * k];
            gemm(m, k, false, Mat::row_major(v, c), Mat::transposed(u, c), (tiles, k, c));
        });
    }

    pub fn backward_data(
        &self,
        dx: &mut [f32],
        dy: &[f32],
        w: &[f32],
        accumulate: bool,
        scratch: &mut [f32],
    ) {
        let ConvSpec { c, k, .. } = self.spec;
        let (u, scratch) = scratch.split_at_mut(POINTS * c * k);
        transform_weights(self.simd, u, w, c, k, true);
        let finish = Finish { accumulate, ..Finish::default() };
        self.convolve(dx, dy, (k, c), finish, scratch, |v, m, point, tiles| {
            let u = &u[point * c * k..][..c * k];
            gemm(m, c, false, Mat::row_major(v, k), Mat::row_major(u, c), (tiles, c, k));
        });
    }

    /// out (n, h, w, co) = the convolution of `input` (n, h, w, ci), finished. `product(v, m,
    /// point, tiles)` multiplies the transformed input v (tiles, ci) of a piece by the weights of a
    /// point to m (tiles, co).
    fn convolve(
        &self,
        mut out: &mut [f32],
        input: &[f32],
        (ci, co): (usize, usize),
        finish: Finish,
        scratch: &mut [f32],
        product: impl Fn(&[f32], &mut [f32], usize, usize) + Sync,
    ) {
        let (grid, mut start) = (self.grid(), 0);
        let pieces = (0..grid.rows()).step_by(self.piece_rows()).map(|first| {
            let rows = self.piece_rows().min(grid.rows() - first);
            let len = (grid.first_row(first + rows) - grid.first_row(first)) * self.spec.w * co;
            let (piece, rest) = std::mem::take(&mut out).split_at_mut(len);
            out = rest;
            start += len;
            (first, rows, start - len, piece)
        });
        share(pieces, scratch, |(first, rows, start, out), scratch| {
            let tiles = rows * grid.across();
            let (vs, ms) = (plane(tiles, ci), plane(tiles, co));
            let (v, rest) = scratch.split_at_mut(POINTS * vs);
            let m = &mut rest[..POINTS * ms];
            self.simd.dispatch(Tiles {
                grid,
                first,
                rows,
                channels: ci,
                kind: Input { v, x: input },
            });
            for point in 0..POINTS {
                let (v, m) = (&v[point * vs..][..tiles * ci], &mut m[point * ms..][..tiles * co]);
                product(v, m, point, tiles);
            }
            self.simd.dispatch(Tiles {
                grid,
                first,
                rows,
                channels: co,
                kind: Output { y: out, m, accumulate: finish.accumulate },
            });
            if finish.bias.is_some() || finish.residual.is_some() || finish.relu {
                wide(
                    self.simd,
                    #[inline(always)]
                    || finish.at(start).apply(out, co),
                );
            }
        });
    }

    pub fn backward_weight(&self, dw: &mut [f32], x: &[f32], dy: &[f32], scratch: &mut [f32]) {
        let (grid, ConvSpec { c, k, .. }) = (self.grid(), self.spec);
        let (du, scratch) = scratch.split_at_mut(POINTS * c * k);
        let (piece, split) = (self.operands_len(), POINTS * plane(self.piece_tiles(), c));
        let firsts: Vec<usize> = (0..grid.rows()).step_by(self.piece_rows()).collect();
        for (round, firsts) in firsts.chunks(self.round_pieces()).enumerate() {
            scratch.par_chunks_mut(piece).zip(firsts).for_each(|(operands, &first)| {
                let rows = self.piece_rows().min(grid.rows() - first);
                let (v, m) = operands.split_at_mut(split);
                self.simd.dispatch(Tiles { grid, first, rows, channels: c, kind: Input { v, x } });
                self.simd.dispatch(Tiles {
                    grid,
                    first,
                    rows,
                    channels: k,
                    kind: OutputGradient { m, dy },
                });
            });
            // Each point is one thread's, and adds the pieces in their order.
            du.par_chunks_mut(c * k).enumerate().for_each(|(point, du)| {
                for (i, (operands, first)) in scratch.chunks(piece).zip(firsts).enumerate() {
                    let tiles = self.piece_rows().min(grid.rows() - first) * grid.across();
                    let (v, m) = operands.split_at(split);
                    let (v, m) = (
                        &v[point * plane(tiles, c)..][..tiles * c],
                        &m[point * plane(tiles, k)..][..tiles * k],
                    );
                    gemm(
                        du,
                        c,
                        round + i > 0,
                        Mat::transposed(m, k),
                        Mat::row_major(v, c),
                        (k, c, tiles),
                    );
                }
            });
        }
        self.simd.dispatch(WeightGradient { dw, du, c });
    }
}
