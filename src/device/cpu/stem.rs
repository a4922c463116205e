//! Batch norm + ReLU + max-pool on the CPU: an image is one piece of work.

use rayon::prelude::*;

use crate::base::Result;
use crate::device::cpu::norm::{
    Row, affine, backward_affine, gradient_sums, partial_len, statistics,
};
use crate::device::cpu::{Cpu, share::share, share::workers, wide::wide};
use crate::device::ops::stem::StemOps;
use crate::device::ops::{
    NormParams, Passed, StemBackward, StemForward, StemInfer, StemMaxima, StemSpec,
};

/// The taps of the window at output position `o` that lie inside of `len` input positions, as
/// (first input position, number of taps skipped before it, number of taps).
#[inline(always)]
fn window(o: usize, len: usize) -> (usize, usize, usize) {
    // Position 2·o − 1 is tap 0.
    let skip = usize::from(o == 0);
    let first = 2 * o + skip - 1;
    (first, skip, (2 * o + 2).min(len) - first)
}

/// The larger of two numbers; NaN where either is NaN.
#[inline(always)]
fn larger(v: f32, z: f32) -> f32 {
    if (v > z) | v.is_nan() { v } else { z }
}

/// The name of a maximum that is zero.
const CLOSED: f32 = 9.0;

/// One image: z (p, q, c) = the maximum of relu(x·scale + shift) in windows of 3×3 at a stride of
/// 2, and what a backward needs of it: argmax and peak. `tap` (c) is scratch.
#[inline(always)]
fn pool(
    s: &StemSpec,
    z: &mut [f32],
    maxima: &mut Option<(&mut [u8], &mut [f32])>,
    x: &[f32],
    affine: Option<(&[f32], &[f32])>,
    tap: &mut [f32],
) {
    let (q, c) = (s.q(), s.c);
    for (o, z) in z.chunks_exact_mut(c).enumerate() {
        let ((y, above, rows), (left, before, columns)) = (window(o / q, s.h), window(o % q, s.w));
        let pixel = |i: usize, j: usize| &x[((y + i) * s.w + left + j) * c..][..c];
        // NOTE: the ReLU's floor of zero is the first candidate: where it wins no gradient flows. A
        // NaN wins over every number, so that it is not hidden.
        z.fill(0.0);
        tap[..c].fill(CLOSED);
        for i in 0..rows {
            for j in 0..columns {
                let x = pixel(i, j);
                let name = ((above + i) * 3 + before + j) as f32;
                match affine {
                    Some((scale, shift)) => {
                        for ((((z, t), x), a), b) in
                            z.iter_mut().zip(&mut *tap).zip(x).zip(scale).zip(shift)
                        {
                            let v = x.mul_add(*a, *b);
                            *t = if v > *z { name } else { *t };
                            *z = larger(v, *z);
                        }
                    }
                    None => z.iter_mut().zip(x).for_each(|(z, x)| *z = larger(*x, *z)),
                }
            }
        }
        if let Some((argmax, peak)) = maxima {
            let each = argmax[o * c..][..c].iter_mut().zip(&mut peak[o * c..][..c]).zip(&*tap);
            for (k, ((argmax, peak), tap)) in each.enumerate() {
                *argmax = *tap as u8;
                let (i, j) = match *argmax as usize {
                    tap if *argmax < 9 => (tap / 3 - above, tap % 3 - before),
                    _ => (0, 0),
                };
                *peak = pixel(i, j)[k];
            }
        }
    }
}

/// One image: dx (h, w, c) = dz where x was the maximum of its window, and zero elsewhere.
#[inline(always)]
fn unpool(s: &StemSpec, dx: &mut [f32], dz: &[f32], argmax: &[u8]) {
    let (q, c) = (s.q(), s.c);
    dx.fill(0.0);
    for (o, (dz, argmax)) in dz.chunks_exact(c).zip(argmax.chunks_exact(c)).enumerate() {
        let ((y, above, rows), (left, before, columns)) = (window(o / q, s.h), window(o % q, s.w));
        for i in 0..rows {
            for j in 0..columns {
                let dx = &mut dx[((y + i) * s.w + left + j) * c..][..c];
                let name = ((above + i) * 3 + before + j) as u8;
                for ((dx, dz), a) in dx.iter_mut().zip(dz).zip(argmax) {
                    *dx += if *a == name { *dz } else { 0.0 };
                }
            }
        }
    }
}

impl StemOps for Cpu {
    fn plan_stem(&mut self, spec: StemSpec) -> Result<usize> {
        let per_group = spec.n / spec.groups;
        let rows = per_group * spec.h * spec.w;
        self.ask_scratch(partial_len(rows, spec.c).max(workers() * spec.c));
        Ok(0)
    }

    fn stem_forward(&mut self, a: Passed<StemForward>) -> Result<()> {
        let (spec, c) = (a.spec(), a.spec().c);
        let (simd, scratch) = (self.simd, self.whole_scratch());
        let StemForward { z, maxima, saved, x, params } = *a;
        let NormParams { gamma, beta, running_mean, running_var } = params;
        let maxima = maxima.map(|StemMaxima { argmax, peak }| (argmax, peak));
        let (z, mut maxima, saved, x, gamma, beta, running_mean, running_var, scratch) =
            self.get((z, maxima, saved, x, gamma, beta, running_mean, running_var, scratch));
        let (xs, zs) = (spec.x_len() / spec.groups, spec.z_len() / spec.groups);
        let (x_image, z_image) = (spec.h * spec.w * c, spec.p() * spec.q() * c);
        for g in 0..spec.groups {
            let (x, z, saved) =
                (&x[g * xs..][..xs], &mut z[g * zs..][..zs], &mut saved[g * 2 * c..][..2 * c]);
            statistics(simd, saved, (running_mean, running_var), x, scratch);
            let (scale, shift) = affine(saved, gamma, beta);
            let images = z.chunks_mut(z_image).zip(x.chunks(x_image));
            let work = |z: &mut [f32],
                        mut maxima: Option<(&mut [u8], &mut [f32])>,
                        x: &[f32],
                        tap: &mut [f32]| {
                wide(
                    simd,
                    #[inline(always)]
                    || pool(spec, z, &mut maxima, x, Some((&scale, &shift)), tap),
                )
            };
            match &mut maxima {
                Some((argmax, peak)) => {
                    let argmax = argmax[g * zs..][..zs].chunks_mut(z_image);
                    let maxima = argmax.zip(peak[g * zs..][..zs].chunks_mut(z_image));
                    let images = images.zip(maxima);
                    share(images, scratch, |((z, x), maxima), tap| work(z, Some(maxima), x, tap));
                }
                None => share(images, scratch, |(z, x), tap| work(z, None, x, tap)),
            }
        }
        Ok(())
    }

    fn stem_infer(&mut self, a: Passed<StemInfer>) -> Result<()> {
        let spec = a.spec();
        let (simd, scratch) = (self.simd, self.whole_scratch());
        let (z, x, scratch) = self.get((a.z, a.x, scratch));
        let images = z.chunks_mut(spec.z_len() / spec.n).zip(x.chunks(spec.x_len() / spec.n));
        share(images, scratch, |(z, x), tap| {
            wide(
                simd,
                #[inline(always)]
                || pool(spec, z, &mut None, x, None, tap),
            )
        });
        Ok(())
    }

    fn stem_backward(&mut self, a: Passed<StemBackward>) -> Result<()> {
        let (spec, c) = (a.spec(), a.spec().c);
        let windows = spec.z_len() / spec.groups / c;
        let (simd, partial) = (self.simd, self.scratch(partial_len(windows, c)));
        let StemBackward { dx, dgamma, dbeta, dz, maxima, x, saved, params } = *a;
        let (StemMaxima { argmax, peak }, NormParams { gamma, beta, .. }) = (maxima, params);
        let (dx, dgamma, dbeta, dz, (argmax, peak), x, saved, gamma, beta, partial) =
            self.get((dx, dgamma, dbeta, dz, (argmax, peak), x, saved, gamma, beta, partial));
        let (xs, zs) = (spec.x_len() / spec.groups, spec.z_len() / spec.groups);
        let (x_image, z_image) = (spec.h * spec.w * c, spec.p() * spec.q() * c);
        for g in 0..spec.groups {
            let (dx, x) = (&mut dx[g * xs..][..xs], &x[g * xs..][..xs]);
            let [dz, peak] = [&dz, &peak].map(|map| &map[g * zs..][..zs]);
            let (argmax, saved) = (&argmax[g * zs..][..zs], &saved[g * 2 * c..][..2 * c]);
            let line = affine(saved, gamma, beta);
            let row = |i: usize| {
                let [dz, x] = [dz, peak].map(|map| &map[i * c..(i + 1) * c]);
                Row { dz, x, mask: None, line: Some(&line) }
            };
            let sums = gradient_sums(simd, zs / c, partial, saved, row);
            let [a, b, s] = backward_affine(&sums, xs / c, saved, gamma, dgamma, dbeta);
            dx.par_chunks_mut(x_image)
                .zip(x.par_chunks(x_image))
                .zip(dz.par_chunks(z_image).zip(argmax.par_chunks(z_image)))
                .for_each(|((dx, x), (dz, argmax))| {
                    wide(
                        simd,
                        #[inline(always)]
                        || {
                            // dx holds the gradient of the normalised output first.
                            unpool(spec, dx, dz, argmax);
                            for (dx, x) in dx.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                                for ((((dx, x), a), b), s) in
                                    dx.iter_mut().zip(x).zip(&a).zip(&b).zip(&s)
                                {
                                    *dx = a.mul_add(*dx, b.mul_add(*x, *s));
                                }
                            }
                        },
                    );
                });
        }
        Ok(())
    }
}
