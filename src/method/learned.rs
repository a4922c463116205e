//! A linear classifier whose weights are learned. MDC, IIC and supervised training have one besides
//! the network.

use crate::base::rng::{Rng, Stream};
use crate::base::{Error, Result};
use crate::device::ops::{AdamSpec, AdamStep, Classifier, ParamBlocks, adam_step};
use crate::device::{ALIGN, Engine, Layout, Pool, Slot};
use crate::net::weights::{Tensor, Weights};
use crate::net::{FEATURES, Saved};

/// The distribution of a classifier's first weights. First biases are 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FirstWeights {
    /// A normal distribution with this standard deviation (0.01 in the released code of MDC).
    Normal(f32),
    /// A uniform distribution in ±1/√FEATURES, as in torch's Conv2d.
    FanIn,
}

/// A linear classifier of features, with its gradients and Adam's moments.
pub struct Learned {
    /// Number of classes.
    pub k: usize,
    /// The parameters: weights (k, FEATURES), then biases (k) if they are learned.
    blocks: ParamBlocks,
    /// (2), Adam's bias corrections for the step.
    correction: Slot<f32>,
    /// Biases (k) that are 0 and their gradients (k), which nobody reads, if biases are not
    /// learned. IIC's heads have none.
    unbiased: Option<[Slot<f32>; 2]>,
}

impl Learned {
    /// Takes the memory for a classifier of `k` classes. `biased`: biases are learned.
    pub fn plan(layout: &mut Layout, k: usize, biased: bool) -> Self {
        let len = Self::bias_at(k) + if biased { k } else { 0 };
        let zeros = ["classifier bias", "classifier bias gradient"];
        Learned {
            k,
            blocks: ParamBlocks::plan(layout, len),
            correction: layout.take(Pool::Staging, "classifier's adam correction", 2),
            unbiased: (!biased).then(|| zeros.map(|name| layout.take(Pool::State, name, k))),
        }
    }

    /// The element at which the biases begin: on a cache line, even if elements have two bytes.
    fn bias_at(k: usize) -> usize {
        (k * FEATURES).next_multiple_of(ALIGN / 2)
    }

    /// The weights (k, FEATURES) and biases (k) in one of the parameter blocks. `unbiased` says
    /// which of [`Learned::unbiased`] to return if there are no biases.
    fn parts(&self, block: Slot<f32>, unbiased: usize) -> (Slot<f32>, Slot<f32>) {
        let bias = match self.unbiased {
            Some(zeros) => zeros[unbiased],
            None => block.part(Self::bias_at(self.k), self.k),
        };
        (block.part(0, self.k * FEATURES), bias)
    }

    /// The classifier for ops.
    pub fn classifier(&self) -> Classifier {
        let (w, b) = self.parts(self.blocks.weights, 0);
        Classifier { w, b, k: self.k }
    }

    /// The gradients of weights and biases, which ops add to.
    pub fn gradients(&self) -> (Slot<f32>, Slot<f32>) {
        self.parts(self.blocks.grads, 1)
    }

    /// Writes new random weights, and zeros for biases and Adam's moments. Different numbers
    /// `which` give different weights.
    pub fn init(
        &self,
        dev: &mut dyn Engine,
        seed: u64,
        first: FirstWeights,
        which: u32,
    ) -> Result<()> {
        let mut rng = Rng::new(seed, Stream::Classifier, which, 0);
        let bound = 1.0 / (FEATURES as f32).sqrt();
        let draw = |_| match first {
            FirstWeights::Normal(std) => std * rng.normal(),
            FirstWeights::FanIn => rng.uniform(-bound, bound),
        };
        let weights: Vec<f32> = (0..self.k * FEATURES).map(draw).collect();
        let ParamBlocks { weights: w, m, v, .. } = self.blocks;
        for slot in [w, m, v].into_iter().chain(self.unbiased.into_iter().flatten()) {
            dev.zero(slot)?;
        }
        dev.write(w, &weights)
    }

    /// The weights, the biases and Adam's moments of both, by their names in checkpoints.
    pub fn tensors(&self, name: &str) -> Vec<(String, Slot<f32>)> {
        let ParamBlocks { weights, m, v, .. } = self.blocks;
        let both = |(block, prefix): (Slot<f32>, &str)| {
            let (w, b) = self.parts(block, 0);
            [(format!("{prefix}{name}.weight"), w), (format!("{prefix}{name}.bias"), b)]
        };
        [(weights, ""), (m, "adam.m."), (v, "adam.v.")].into_iter().flat_map(both).collect()
    }

    /// Zeroes the gradients.
    pub fn zero_grad(&self, dev: &mut dyn Engine) -> Result<()> {
        dev.zero(self.blocks.grads)
    }

    /// Writes Adam's corrections for the classifier's own step number `step`, from 1, at `rate`
    /// times the learning rate.
    pub fn stage(&self, dev: &mut dyn Engine, adam: AdamSpec, step: u64, rate: f64) -> Result<()> {
        dev.write(self.correction, &adam.correction(step, rate))
    }

    /// Queues one step of Adam.
    pub fn update(&self, dev: &mut dyn Engine, adam: AdamSpec) -> Result<()> {
        adam_step(dev, AdamStep { blocks: self.blocks, spec: adam, correction: self.correction })
    }

    /// The tensors of a checkpoint, with the shapes of a 1×1 convolution's. The first two are
    /// weights and biases; Adam's moments follow.
    pub fn saved(&self, name: &str) -> Vec<Saved> {
        let shape = |slot: Slot<f32>| {
            if slot.len == self.k { vec![self.k] } else { vec![self.k, FEATURES, 1, 1] }
        };
        let tensors = self.tensors(name).into_iter();
        tensors.map(|(name, slot)| Saved::floats(name, shape(slot), slot)).collect()
    }

    /// Reads what [`Learned::saved`] was written to. Fails if a tensor is missing or of another
    /// size.
    pub fn load(&self, dev: &mut dyn Engine, name: &str, weights: &Weights) -> Result<()> {
        for (name, slot) in self.tensors(name) {
            let values =
                weights.tensors.get(&name).and_then(Tensor::f32).filter(|v| v.len() == slot.len);
            let missing = || {
                Error::input(format!("{name} is missing or of another size"), "start a new --run")
            };
            dev.write(slot, values.ok_or_else(missing)?)?;
        }
        Ok(())
    }
}
