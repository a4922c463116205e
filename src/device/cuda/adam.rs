//! Bodies of Adam: four parameters a thread.

use crate::base::Result;
use crate::device::cuda::Cuda;
use crate::device::cuda::kernels;
use crate::device::cuda::kernels::consts::adam::{EACH, THREADS};
use crate::device::ops::adam::AdamOps;
use crate::device::ops::{AdamStep, AdamSync, Passed};

/// Blocks for `len` parameters.
fn blocks(len: usize) -> usize {
    len.div_ceil(EACH * THREADS)
}

impl AdamOps for Cuda {
    fn adam_step(&mut self, a: Passed<AdamStep>) -> Result<()> {
        let (params, spec, len) = (a.blocks, a.spec, a.blocks.weights.len);
        let kernel = kernels::AdamStep {
            weights: params.weights,
            m: params.m,
            v: params.v,
            compute: params.copy(),
            grads: params.grads,
            correction: a.correction,
            len,
            lr: spec.lr,
            new1: (1.0 - spec.beta1) as f32,
            beta2: spec.beta2 as f32,
            new2: (1.0 - spec.beta2) as f32,
            eps: spec.eps,
            grad_scale: spec.grad_scale,
        };
        self.launch(blocks(len), 0, kernel)
    }

    fn adam_sync(&mut self, a: Passed<AdamSync>) -> Result<()> {
        let Some(compute) = a.blocks.copy() else { return Ok(()) };
        let weights = a.blocks.weights;
        let kernel = kernels::AdamSync { compute, weights, len: weights.len };
        self.launch(blocks(weights.len), 0, kernel)
    }
}
