//! Batch norm + ReLU + max-pool on the CPU: an image is one piece of work.

use rayon::prelude::*;

use crate::base::Result;
use crate::device::cpu::norm::{ChannelSums, affine, backward_affine, partial_len, statistics};
use crate::device::cpu::{Cpu, share::share, share::workers, wide::wide};
use crate::device::ops::stem::StemOps;
use crate::device::ops::{NormParams, Passed, StemBackward, StemForward, StemInfer, StemSpec};

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

/// One image: z (p, q, c) = the maximum of relu(x·scale + shift) in windows of 3×3 at a stride of
/// 2, argmax = which tap of the window it was. `tap` (c) is scratch.
#[inline(always)]
fn pool(
    s: &StemSpec,
    z: &mut [f32],
    mut argmax: Option<&mut [u8]>,
    x: &[f32],
    affine: Option<(&[f32], &[f32])>,
    tap: &mut [f32],
) {
    let (q, c) = (s.q(), s.c);
    for (o, z) in z.chunks_exact_mut(c).enumerate() {
        let ((y, above, rows), (left, before, columns)) = (window(o / q, s.h), window(o % q, s.w));
        // NOTE: the ReLU's floor of zero is the first candidate: where it wins no gradient flows,
        // whichever tap is named. A NaN wins over every number, so that it is not hidden.
        z.fill(0.0);
        tap[..c].fill(0.0);
        for i in 0..rows {
            for j in 0..columns {
                let x = &x[((y + i) * s.w + left + j) * c..][..c];
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
        if let Some(argmax) = argmax.as_deref_mut() {
            argmax[o * c..][..c].iter_mut().zip(&*tap).for_each(|(a, t)| *a = *t as u8);
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
        self.ask_scratch(
            partial_len(rows, spec.c).max(workers() * spec.c).max(per_group * 2 * spec.c),
        );
        Ok(0)
    }

    fn stem_forward(&mut self, a: Passed<StemForward>) -> Result<()> {
        let (spec, c) = (a.spec(), a.spec().c);
        let (simd, scratch) = (self.simd, self.whole_scratch());
        let StemForward { z, argmax, saved, x, params } = *a;
        let NormParams { gamma, beta, running_mean, running_var } = params;
        let (z, mut argmax, saved, x, gamma, beta, running_mean, running_var, scratch) =
            self.get((z, argmax, saved, x, gamma, beta, running_mean, running_var, scratch));
        let (xs, zs) = (spec.x_len() / spec.groups, spec.z_len() / spec.groups);
        let (x_image, z_image) = (spec.h * spec.w * c, spec.p() * spec.q() * c);
        for g in 0..spec.groups {
            let (x, z, saved) =
                (&x[g * xs..][..xs], &mut z[g * zs..][..zs], &mut saved[g * 2 * c..][..2 * c]);
            statistics(simd, saved, (running_mean, running_var), x, scratch);
            let (scale, shift) = affine(saved, gamma, beta);
            let images = z.chunks_mut(z_image).zip(x.chunks(x_image));
            let work =
                |z: &mut [f32], mut argmax: Option<&mut [u8]>, x: &[f32], tap: &mut [f32]| {
                    wide(
                        simd,
                        #[inline(always)]
                        || pool(spec, z, argmax.as_deref_mut(), x, Some((&scale, &shift)), tap),
                    )
                };
            match argmax.as_deref_mut() {
                Some(argmax) => {
                    let images = images.zip(argmax[g * zs..][..zs].chunks_mut(z_image));
                    share(images, scratch, |((z, x), argmax), tap| work(z, Some(argmax), x, tap));
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
                || pool(spec, z, None, x, None, tap),
            )
        });
        Ok(())
    }

    fn stem_backward(&mut self, a: Passed<StemBackward>) -> Result<()> {
        let (spec, c) = (a.spec(), a.spec().c);
        let (simd, scratch) = (self.simd, self.whole_scratch());
        let StemBackward { dx, dgamma, dbeta, dz, argmax, x, saved, params } = *a;
        let (dx, dgamma, dbeta, dz, argmax, x, saved, gamma, beta, scratch) =
            self.get((dx, dgamma, dbeta, dz, argmax, x, saved, params.gamma, params.beta, scratch));
        let (xs, zs) = (spec.x_len() / spec.groups, spec.z_len() / spec.groups);
        let (x_image, z_image) = (spec.h * spec.w * c, spec.p() * spec.q() * c);
        for g in 0..spec.groups {
            let (dx, x) = (&mut dx[g * xs..][..xs], &x[g * xs..][..xs]);
            let (dz, argmax) = (&dz[g * zs..][..zs], &argmax[g * zs..][..zs]);
            let saved = &saved[g * 2 * c..][..2 * c];
            let (mean, rstd) = saved.split_at(c);
            let (scale, shift) = affine(saved, gamma, beta);
            // dx holds the gradient of the normalised output first.
            let images = spec.n / spec.groups;
            let partial = &mut scratch[..images * 2 * c];
            partial
                .par_chunks_mut(2 * c)
                .zip(dx.par_chunks_mut(x_image))
                .zip(x.par_chunks(x_image))
                .zip(dz.par_chunks(z_image).zip(argmax.par_chunks(z_image)))
                .for_each(|(((sums, dx), x), (dz, argmax))| {
                    wide(
                        simd,
                        #[inline(always)]
                        || {
                            unpool(spec, dx, dz, argmax);
                            sums.fill(0.0);
                            let (sum, product) = sums.split_at_mut(c);
                            for (dx, x) in dx.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                                let line = scale.iter().zip(&shift).zip(mean.iter().zip(rstd));
                                let sums = sum.iter_mut().zip(&mut *product);
                                for (((dx, x), ((a, b), (mean, rstd))), (s, p)) in
                                    dx.iter_mut().zip(x).zip(line).zip(sums)
                                {
                                    let g = if x.mul_add(*a, *b) > 0.0 { *dx } else { 0.0 };
                                    *dx = g;
                                    *s += g;
                                    *p = g.mul_add((x - mean) * rstd, *p);
                                }
                            }
                        },
                    );
                });
            let sums = ChannelSums::of(partial, c);
            let [a, b, s] =
                backward_affine(&sums, images * spec.h * spec.w, saved, gamma, dgamma, dbeta);
            dx.par_chunks_mut(x_image).zip(x.par_chunks(x_image)).for_each(|(dx, x)| {
                wide(
                    simd,
                    #[inline(always)]
                    || {
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
