//! Launchers of Adam: four parameters a thread.

use crate::base::Result;
use crate::device::cuda::context::{Cuda, Grid};
use crate::device::ops::{Adam, AdamSpec, ParamBlocks, want};
use crate::device::{Activation, Layout, Pool, Slot};

const THREADS: u32 = 256;

/// Blocks for `len` parameters.
fn grid(len: usize) -> Grid {
    Grid::new(len.div_ceil(4 * THREADS as usize), THREADS)
}

impl<A: Activation> Adam for Cuda<A> {
    fn plan_params(&mut self, layout: &mut Layout, len: usize) -> ParamBlocks<A> {
        let mut block = |name| layout.take(Pool::Params, name, len);
        let weights = block("weights");
        let (grads, m, v) = (block("gradients"), block("Adam's m"), block("Adam's v"));
        let compute = if A::NAME == f32::NAME {
            Slot::new(weights.pool, weights.offset, len)
        } else {
            layout.take(Pool::Params, format!("weights in {}", A::NAME), len)
        };
        ParamBlocks { weights, grads, m, v, compute }
    }

    fn adam_step(
        &mut self,
        blocks: ParamBlocks<A>,
        spec: AdamSpec,
        correction: Slot<f32>,
    ) -> Result<()> {
        const OP: &str = "adam_step";
        let len = blocks.weights.len;
        for (what, slot) in [("grads", blocks.grads), ("m", blocks.m), ("v", blocks.v)] {
            want(OP, what, slot, len)?;
        }
        want(OP, "compute", blocks.compute, len)?;
        want(OP, "correction", correction, 2)?;
        let (new1, new2) = ((1.0 - spec.beta1) as f32, (1.0 - spec.beta2) as f32);
        let kernel = self.kernel("adam_step")?;
        let args = [
            self.at(blocks.weights),
            self.at(blocks.m),
            self.at(blocks.v),
            self.at_or_null(blocks.copy()),
            self.at(blocks.grads),
            self.at(correction),
            len.into(),
            spec.lr.into(),
            new1.into(),
            (spec.beta2 as f32).into(),
            new2.into(),
            spec.eps.into(),
            spec.grad_scale.into(),
        ];
        self.launch(kernel, grid(len), &args)
    }

    fn sync_compute(&mut self, blocks: ParamBlocks<A>) -> Result<()> {
        let Some(compute) = blocks.copy() else { return Ok(()) };
        let len = blocks.weights.len;
        want("sync_compute", "compute", compute, len)?;
        let kernel = self.kernel("adam_sync")?;
        self.launch(kernel, grid(len), &[self.at(compute), self.at(blocks.weights), len.into()])
    }
}
