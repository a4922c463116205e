//! Convolution as products with unfolded patches ("im2col"), one piece of output pixels at a time.
//!
//! A row of `col` is the r·r·c patch under one output pixel, in the order of a kernel's weights, so
//! y = col · wᵀ.

use pulp::Arch;

use super::Finish;
use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cpu::share::{share, workers};
use crate::device::cpu::wide::wide;
use crate::device::ops::ConvSpec;

/// Number of output pixels in a piece of work: enough for the product to run at speed, few enough
/// for `col` to stay in cache.
const PIXELS: usize = 256;
/// Number of partial weight gradients, which are summed in order; a constant, so that the sum does
/// not depend on threads.
const PARTS: usize = 8;

/// A convolution that is computed with unfolded patches.
#[derive(Clone, Copy)]
pub struct Unfold {
    pub simd: Arch,
    pub spec: ConvSpec,
}

impl Unfold {
    /// Floats of a patch.
    fn patch(&self) -> usize {
        self.spec.r * self.spec.r * self.spec.c
    }

    /// Whether a patch is one pixel: then x itself is `col`.
    fn pointwise(&self) -> bool {
        self.spec.r == 1 && self.spec.stride == 1 && self.spec.pad == 0
    }

    pub fn scratch_len(&self) -> usize {
        workers() * PIXELS * self.patch() + PARTS * self.spec.w_len()
    }

    pub fn forward(
        &self,
        y: &mut [f32],
        x: &[f32],
        w: &[f32],
        finish: Finish,
        scratch: &mut [f32],
    ) {
        let (k, patch) = (self.spec.k, self.patch());
        let pieces = y.chunks_mut(PIXELS * k).enumerate();
        share(pieces, scratch, |(i, y), col| {
            let rows = y.len() / k;
            let col = self.unfold(col, x, i * PIXELS, rows);
            gemm(
                y,
                k,
                false,
                Mat::row_major(col, patch),
                Mat::transposed(w, patch),
                (rows, k, patch),
            );
            wide(
                self.simd,
                #[inline(always)]
                || finish.at(i * PIXELS * k).apply(y, k),
            );
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
        let s = self.spec;
        let (k, patch) = (s.k, self.patch());
        if self.pointwise() {
            let pieces = dx.chunks_mut(PIXELS * s.c).zip(dy.chunks(PIXELS * k));
            share(pieces, scratch, |(dx, dy), _| {
                let rows = dy.len() / k;
                gemm(
                    dx,
                    s.c,
                    accumulate,
                    Mat::row_major(dy, k),
                    Mat::row_major(w, s.c),
                    (rows, s.c, k),
                );
            });
            return;
        }
        // One piece owns whole images, because patches of neighboring pixels overlap.
        let (out, image) = (s.p() * s.q(), s.h * s.w * s.c);
        let images = (PIXELS / out).max(1);
        let pieces = dx.chunks_mut(images * image).zip(dy.chunks(images * out * k));
        share(pieces, scratch, |(dx, dy), col| {
            if !accumulate {
                dx.fill(0.0);
            }
            for (i, dy) in dy.chunks(PIXELS * k).enumerate() {
                let rows = dy.len() / k;
                let col = &mut col[..rows * patch];
                gemm(
                    col,
                    patch,
                    false,
                    Mat::row_major(dy, k),
                    Mat::row_major(w, patch),
                    (rows, patch, k),
                );
                wide(
                    self.simd,
                    #[inline(always)]
                    || self.fold(dx, col, i * PIXELS, rows),
                );
            }
        });
    }

    pub fn backward_weight(&self, dw: &mut [f32], x: &[f32], dy: &[f32], scratch: &mut [f32]) {
        let (k, patch) = (self.spec.k, self.patch());
        let (parts, scratch) = scratch.split_at_mut(PARTS * dw.len());
        let total = dy.len() / k;
        // Whole pieces to each part.
        let per = total.div_ceil(PARTS).next_multiple_of(PIXELS);
        share(parts.chunks_mut(dw.len()).enumerate(), scratch, |(i, dw), col| {
            let (start, end) = ((i * per).min(total), ((i + 1) * per).min(total));
            dw.fill(0.0);
            for first in (start..end).step_by(PIXELS) {
                let rows = PIXELS.min(end - first);
                let col = self.unfold(col, x, first, rows);
                let dy = &dy[first * k..(first + rows) * k];
                gemm(
                    dw,
                    patch,
                    true,
                    Mat::transposed(dy, k),
                    Mat::row_major(col, patch),
                    (k, patch, rows),
                );
            }
        });
        wide(
            self.simd,
            #[inline(always)]
            || {
                for part in parts.chunks(dw.len()) {
                    dw.iter_mut().zip(part).for_each(|(d, p)| *d += p);
                }
            },
        );
    }

    /// The patches under output pixels `first..first + rows`, counted over all images.
    fn unfold<'a>(&self, col: &'a mut [f32], x: &'a [f32], first: usize, rows: usize) -> &'a [f32] {
        let patch = self.patch();
        if self.pointwise() {
            return &x[first * patch..(first + rows) * patch];
        }
        let col = &mut col[..rows * patch];
        wide(
            self.simd,
            #[inline(always)]
            || {
                self.runs(first, rows, |to, from, len| match from {
                    Some(from) => col[to..to + len].copy_from_slice(&x[from..from + len]),
                    None => col[to..to + len].fill(0.0),
                });
            },
        );
        col
    }

    /// The adjoint of [`Unfold::unfold`]: adds patches into dx, whose first pixel is output pixel
    /// 0's image.
    #[inline(always)]
    fn fold(&self, dx: &mut [f32], col: &[f32], first: usize, rows: usize) {
        self.runs(first, rows, |at, to, len| {
            if let Some(to) = to {
                dx[to..to + len].iter_mut().zip(&col[at..at + len]).for_each(|(d, c)| *d += c);
            }
        });
    }

    /// Calls `run(position in col, position in x or None for padding, length)` for each contiguous
    /// run of the patches under output pixels `first..first + rows`.
    #[inline(always)]
    fn runs(&self, first: usize, rows: usize, mut run: impl FnMut(usize, Option<usize>, usize)) {
        let ConvSpec { h, w, c, r, stride, pad, .. } = self.spec;
        let (p, q) = (self.spec.p(), self.spec.q());
        let mut at = 0;
        for pixel in first..first + rows {
            let (image, py, px) = (pixel / (p * q), pixel / q % p, pixel % q);
            // Columns of the patch that fall inside of the image: lo..hi of 0..r.
            let left = px * stride;
            let (lo, hi) = (pad.saturating_sub(left).min(r), r.min((w + pad).saturating_sub(left)));
            for dy in 0..r {
                let y = py * stride + dy;
                if y < pad || y >= h + pad || lo >= hi {
                    run(at, None, r * c);
                } else {
                    let from = ((image * h + y - pad) * w + left + lo - pad) * c;
                    if lo > 0 {
                        run(at, None, lo * c);
                    }
                    run(at + lo * c, Some(from), (hi - lo) * c);
                    if hi < r {
                        run(at + hi * c, None, (r - hi) * c);
                    }
                }
                at += r * c;
            }
        }
    }
}
