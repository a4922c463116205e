//! Adam on the CPU: one elementwise pass, bound by the memory's seven streams.

use rayon::prelude::*;

use super::Cpu;
use super::wide::wide;
use crate::base::Result;
use crate::device::ops::{Adam, AdamSpec, ParamBlocks, want};
use crate::device::{Layout, Pool, Slot};

/// Parameters a piece.
const PIECE: usize = 1 << 15;

impl Adam for Cpu {
    fn plan_params(&mut self, layout: &mut Layout, len: usize) -> ParamBlocks<f32> {
        let mut block = |name| layout.take(Pool::Params, name, len);
        let weights = block("weights");
        ParamBlocks {
            weights,
            grads: block("gradients"),
            m: block("Adam's m"),
            v: block("Adam's v"),
            compute: weights,
        }
    }

    fn adam_step(
        &mut self,
        blocks: ParamBlocks<f32>,
        spec: AdamSpec,
        correction: Slot<f32>,
    ) -> Result<()> {
        const OP: &str = "adam_step";
        for (what, slot) in [("grads", blocks.grads), ("m", blocks.m), ("v", blocks.v)] {
            want(OP, what, slot, blocks.weights.len)?;
        }
        want(OP, "correction", correction, 2)?;
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

    /// Nothing to do: both are the same memory.
    fn sync_compute(&mut self, _: ParamBlocks<f32>) -> Result<()> {
        Ok(())
    }
}
