//! Bilinear resampling of a map (rows, columns, d) and its adjoint: the merge of the laterals and
//! the warp are both this.

use crate::device::cpu::vector::add_scaled;
use crate::device::cpu::wide::wide;

/// Where one side of a map is sampled: `out` samples of the window `start..start + len`, mirrored
/// with `flip`. It is torch's `interpolate`, align_corners = false, of the cut-out window.
#[derive(Clone, Copy)]
pub struct Samples {
    pub start: usize,
    pub len: usize,
    pub out: usize,
    pub flip: bool,
}

/// The two elements that a sample lies between: it is (1 − t)·map[lo] + t·map[hi].
#[derive(Clone, Copy)]
pub struct Tap {
    pub lo: usize,
    pub hi: usize,
    pub t: f32,
}

impl Samples {
    /// The whole side of `len`, as `out` samples.
    pub fn whole(len: usize, out: usize) -> Self {
        Samples { start: 0, len, out, flip: false }
    }

    /// Sample `i`.
    #[inline(always)]
    pub fn tap(&self, i: usize) -> Tap {
        let i = if self.flip { self.out - 1 - i } else { i };
        let at = ((i as f32 + 0.5) * (self.len as f32 / self.out as f32) - 0.5).max(0.0);
        let lo = (at as usize).min(self.len - 1);
        let hi = (lo + 1).min(self.len - 1);
        Tap { lo: self.start + lo, hi: self.start + hi, t: at - lo as f32 }
    }
}

/// How a map is sampled: its two sides, its width and its channels.
#[derive(Clone, Copy)]
pub struct Sampling {
    pub rows: Samples,
    pub cols: Samples,
    /// Pixels from row to row of the sampled map.
    pub width: usize,
    pub d: usize,
}

impl Sampling {
    /// All of a map of size `from`, resampled to size `to`.
    pub fn whole(from: (usize, usize), to: (usize, usize), d: usize) -> Self {
        Sampling {
            rows: Samples::whole(from.0, to.0),
            cols: Samples::whole(from.1, to.1),
            width: from.1,
            d,
        }
    }

    /// out (rows, columns, d) = the samples of `map`, or += with `ADD`.
    pub fn forward<const ADD: bool>(&self, simd: pulp::Arch, out: &mut [f32], map: &[f32]) {
        wide(
            simd,
            #[inline(always)]
            || {
                let Sampling { rows, cols, width, d } = *self;
                for (y, line) in out.chunks_exact_mut(cols.out * d).enumerate() {
                    let v = rows.tap(y);
                    let (top, bottom) = (&map[v.lo * width * d..], &map[v.hi * width * d..]);
                    for (x, out) in line.chunks_exact_mut(d).enumerate() {
                        let h = cols.tap(x);
                        let (lo, hi) = (h.lo * d..(h.lo + 1) * d, h.hi * d..(h.hi + 1) * d);
                        let top = top[lo.clone()].iter().zip(&top[hi.clone()]);
                        let bottom = bottom[lo].iter().zip(&bottom[hi]);
                        for (o, ((a, b), (c, e))) in out.iter_mut().zip(top.zip(bottom)) {
                            let (above, below) = (a + h.t * (b - a), c + h.t * (e - c));
                            let value = above + v.t * (below - above);
                            *o = if ADD { *o + value } else { value };
                        }
                    }
                }
            },
        );
    }

    /// dmap += what dout (rows, columns, d) sends to each sampled pixel: the exact transpose of
    /// [`Sampling::forward`].
    pub fn adjoint(&self, simd: pulp::Arch, dmap: &mut [f32], dout: &[f32]) {
        wide(
            simd,
            #[inline(always)]
            || {
                let Sampling { rows, cols, width, d } = *self;
                for (y, line) in dout.chunks_exact(cols.out * d).enumerate() {
                    let v = rows.tap(y);
                    for (x, dout) in line.chunks_exact(d).enumerate() {
                        let h = cols.tap(x);
                        for (row, wy) in [(v.lo, 1.0 - v.t), (v.hi, v.t)] {
                            for (col, wx) in [(h.lo, 1.0 - h.t), (h.hi, h.t)] {
                                if wy * wx != 0.0 {
                                    add_scaled(
                                        &mut dmap[(row * width + col) * d..][..d],
                                        wy * wx,
                                        dout,
                                    );
                                }
                            }
                        }
                    }
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::{Rng, Stream};

    #[test]
    fn the_adjoint_is_the_transpose() {
        let simd = pulp::Arch::new();
        let mut rng = Rng::new(1, Stream::Other, 0, 0);
        let window = Sampling {
            rows: Samples { start: 1, len: 3, out: 5, flip: false },
            cols: Samples { start: 2, len: 4, out: 7, flip: true },
            width: 7,
            d: 3,
        };
        for (s, map) in [
            (Sampling::whole((3, 4), (5, 7), 3), 12),
            (window, 35),
            (Sampling::whole((1, 1), (3, 2), 3), 1),
        ] {
            let x: Vec<f32> = (0..map * 3).map(|_| rng.normal()).collect();
            let g: Vec<f32> = (0..s.rows.out * s.cols.out * 3).map(|_| rng.normal()).collect();
            let (mut y, mut dx) = (vec![0.0; g.len()], vec![0.0; x.len()]);
            s.forward::<false>(simd, &mut y, &x);
            s.adjoint(simd, &mut dx, &g);
            let inner =
                |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            let (left, right) = (inner(&y, &g), inner(&x, &dx));
            // About a hundred products of size 1, each rounded a few times at 6e-8.
            assert!((left - right).abs() <= 2e-5, "<Ax, g> = {left}, <x, A'g> = {right}");
        }
    }
}
