//! Adam on the CPU: one elementwise pass, bound by the memory's seven streams.

use rayon::prelude::*;

use super::Cpu;
use super::wide::wide;
use crate::base::Result;
use crate::device::ops::adam::AdamOps;
use crate::device::ops::{AdamStep, AdamSync, Passed};

/// Number of parameters in a piece of work.
const PIECE: usize = 1 << 15;

impl AdamOps for Cpu {
    fn adam_step(&mut self, a: Passed<AdamStep>) -> Result<()> {
        let AdamStep { blocks, spec, correction } = *a;
        let (new1, new2) = ((1.0 - spec.beta1) as f32, (1.0 - spec.beta2) as f32);
        let (beta2, eps, scale) = (spec.beta2 as f32, spec.eps, spec.grad_scale);
        let simd = self.simd;
        let (w, g, m, v, c) =
            self.get((blocks.weights, blocks.grads, blocks.m, blocks.v, correction));
        let (rate, root) = (spec.lr / c[0], c[1].sqrt());
        let state = m.par_chunks_mut(PIECE).zip(v.par_chunks_mut(PIECE));
        w.par_chunks_mut(PIECE).zip(g.par_chunks(PIECE)).zip(state).for_each(|((w, g), (m, v))| {
            wide(
                simd,
                #[inline(always)]
                || {
                    for ((w, g), (m, v)) in w.iter_mut().zip(g).zip(m.iter_mut().zip(v.iter_mut()))
                    {
                        let g = scale * g;
                        *m += new1 * (g - *m);
                        *v = beta2 * *v + new2 * g * g;
                        *w -= rate * *m / (v.sqrt() / root + eps);
                    }
                },
            );
        });
        Ok(())
    }

    /// Nothing to do: convolutions read the weights themselves.
    fn adam_sync(&mut self, _: Passed<AdamSync>) -> Result<()> {
        Ok(())
    }
}
