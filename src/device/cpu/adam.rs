//! Adam on the CPU: one elementwise pass, bound by the memory's seven streams.

use rayon::prelude::*;

use super::Cpu;
use super::wide::wide;
use crate::base::{Error, Result};
use crate::device::ops::{Adam, AdamSpec, ParamBlocks, want};
use crate::device::{Layout, Pool};

/// Parameters a piece.
const PIECE: usize = 1 << 15;

impl Adam for Cpu {
    fn plan_params(&mut self, layout: &mut Layout, len: usize) -> ParamBlocks<f32> {
        let mut block = |name| layout.take(Pool::Params, name, len);
        let weights = block("weights");
        ParamBlocks { weights, grads: block("gradients"), m: block("Adam's m"), v: block("Adam's v"), compute: weights }
    }

    fn adam_step(&mut self, blocks: ParamBlocks<f32>, spec: AdamSpec, step: u64) -> Result<()> {
        const OP: &str = "adam_step";
        for (what, slot) in [("grads", blocks.grads), ("m", blocks.m), ("v", blocks.v)] {
            want(OP, what, slot, blocks.weights.len)?;
        }
        if step == 0 {
            return Err(Error::input("Adam's step 0 has no bias correction", "count steps from 1"));
        }
        // Everything that does not depend on the parameter in f64, as torch computes it.
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        let rate = (f64::from(spec.lr) / correction(spec.beta1)) as f32;
        let root = correction(spec.beta2).sqrt() as f32;
        let (new1, new2) = ((1.0 - spec.beta1) as f32, (1.0 - spec.beta2) as f32);
        let (beta2, eps) = (spec.beta2 as f32, spec.eps);
        let simd = self.simd;
        let (w, g, m, v) = self.get((blocks.weights, blocks.grads, blocks.m, blocks.v));
        let state = m.par_chunks_mut(PIECE).zip(v.par_chunks_mut(PIECE));
        w.par_chunks_mut(PIECE).zip(g.par_chunks(PIECE)).zip(state).for_each(|((w, g), (m, v))| {
            wide(
                simd,
                #[inline(always)]
                || {
                    for ((w, g), (m, v)) in w.iter_mut().zip(g).zip(m.iter_mut().zip(v.iter_mut())) {
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
