//! The parameter block: names and shapes as torch has them, memory as convolutions read it.

use crate::base::rng::{Rng, Stream};
use crate::base::{Error, Result};
use crate::device::ops::{
    AdamSpec, AdamStep, AdamSync, NormFold, NormParams, ParamBlocks, adam_step, adam_sync,
    norm_fold,
};
use crate::device::{Act, Engine, Layout, Pool, Slot};
use crate::net::architecture::{Architecture, Block, Conv, Param, Table, Unit, Units};
use crate::net::saved::Saved;
use crate::net::torch_order::to_device;
use crate::net::weights::{Tensor, Weights};

/// The stages of a ResNet, a biased 1×1 convolution to 128 channels on each, Adam's state.
pub struct Network {
    pub architecture: Architecture,
    pub blocks: ParamBlocks,
    params: Vec<Param>,
    /// Batch norms in the order of the parameters: name, running mean and variance.
    norms: Vec<(String, Slot<f32>, Slot<f32>)>,
    pub(super) stem: Unit,
    pub(super) stages: Vec<Vec<Block>>,
    pub(super) laterals: Vec<Conv>,
    /// Convolution weights with batch norm folded in, laid out as the weights, and their biases by
    /// norm.
    folded: Slot<Act>,
    folded_bias: Vec<Slot<Act>>,
}

impl Network {
    /// Takes the parameter blocks and running statistics from the layout.
    pub fn plan(layout: &mut Layout, architecture: Architecture) -> Self {
        let Table { params, norms, len, units: Units { stem, stages, laterals } } =
            Table::new(architecture);
        let blocks = ParamBlocks::plan(layout, len);
        let folded =
            |(name, k): &(String, usize)| layout.acts(Pool::State, format!("{name}.folded"), *k);
        let folded_bias = norms.iter().map(folded).collect();
        let mut stat = |name: &str, what: &str, k: usize| {
            layout.take::<f32>(Pool::State, format!("{name}.{what}"), k)
        };
        let running = |(name, k): (String, usize)| {
            let (mean, var) = (stat(&name, "running_mean", k), stat(&name, "running_var", k));
            (name, mean, var)
        };
        let norms = norms.into_iter().map(running).collect();
        let folded = layout.acts(Pool::State, "folded weights", len);
        Network { architecture, blocks, params, norms, stem, stages, laterals, folded, folded_bias }
    }

    pub(super) fn weight(&self, conv: &Conv) -> Slot<Act> {
        let p = &self.params[conv.weight];
        self.blocks.compute.part(p.offset, p.len)
    }

    /// The convolution's name as torch has it, such as layer1.0.conv1.
    pub(super) fn name(&self, conv: &Conv) -> &str {
        self.params[conv.weight].name.trim_end_matches(".weight")
    }

    /// The unit's weight with batch norm folded in.
    pub(super) fn folded_weight(&self, unit: &Unit) -> Slot<Act> {
        let p = &self.params[unit.conv.weight];
        self.folded.part(p.offset, p.len)
    }

    /// What is left of the unit's batch norm then.
    pub(super) fn folded_bias(&self, unit: &Unit) -> Slot<Act> {
        self.folded_bias[unit.norm]
    }

    /// The convolution's parameter number `which` after the weight (0: the weight itself) in a
    /// block of masters or gradients.
    fn nth(&self, block: Slot<f32>, conv: &Conv, which: usize) -> Slot<f32> {
        let p = &self.params[conv.weight + which];
        block.part(p.offset, p.len)
    }

    pub(super) fn grad(&self, conv: &Conv, which: usize) -> Slot<f32> {
        self.nth(self.blocks.grads, conv, which)
    }

    /// The bias of a lateral.
    pub(super) fn bias(&self, lateral: &Conv) -> Slot<Act> {
        let p = &self.params[lateral.weight + 1];
        self.blocks.compute.part(p.offset, p.len)
    }

    pub(super) fn norm(&self, unit: &Unit) -> NormParams {
        let (_, running_mean, running_var) = self.norms[unit.norm];
        NormParams {
            gamma: self.nth(self.blocks.weights, &unit.conv, 1),
            beta: self.nth(self.blocks.weights, &unit.conv, 2),
            running_mean,
            running_var,
        }
    }

    /// Channels of the output of stage `level`, from 0.
    pub fn stage_channels(&self, level: usize) -> usize {
        self.laterals[level].c
    }

    /// Every unit with a batch norm.
    fn normed(&self) -> impl Iterator<Item = &Unit> {
        let blocks = self.stages.iter().flatten().flat_map(|b| b.chain.iter().chain(&b.down));
        std::iter::once(&self.stem).chain(blocks)
    }

    /// Folds batch norm into the convolutions, for programs in
    /// [`Mode::Eval`](crate::net::Mode::Eval).
    pub fn fold(&self, dev: &mut dyn Engine) -> Result<()> {
        for unit in self.normed() {
            let a = NormFold {
                folded: self.folded_weight(unit),
                bias: self.folded_bias(unit),
                w: self.weight(&unit.conv),
                params: self.norm(unit),
            };
            norm_fold(dev, a)?;
        }
        Ok(())
    }

    /// The parameters in the order of a forward pass, by their names after `prefix`, where they lie
    /// in one of the parameter blocks.
    pub fn tensors(&self, prefix: &str, block: Slot<f32>) -> Vec<(String, Slot<f32>)> {
        self.params
            .iter()
            .map(|p| (format!("{prefix}{}", p.name), block.part(p.offset, p.len)))
            .collect()
    }

    /// The running statistics in the order of a forward pass, by name.
    pub fn statistics(&self) -> Vec<(String, Slot<f32>)> {
        let both = |(name, mean, var): &(String, Slot<f32>, Slot<f32>)| {
            [(format!("{name}.running_mean"), *mean), (format!("{name}.running_var"), *var)]
        };
        self.norms.iter().flat_map(both).collect()
    }

    pub fn zero_grad(&self, dev: &mut dyn Engine) -> Result<()> {
        dev.zero(self.blocks.grads)
    }

    /// One Adam step; `correction` holds [`AdamSpec::correction`] of its number.
    pub fn update(
        &self,
        dev: &mut dyn Engine,
        spec: AdamSpec,
        correction: Slot<f32>,
    ) -> Result<()> {
        adam_step(dev, AdamStep { blocks: self.blocks, spec, correction })
    }

    /// Random weights: convolutions of the backbone He-normal by fan-out, norms 1 and 0
    /// (torchvision's ResNet), laterals uniform in ±1/√fan-in (torch's Conv2d).
    pub fn init(&self, dev: &mut dyn Engine, seed: u64) -> Result<()> {
        let ParamBlocks { weights, m, v, .. } = self.blocks;
        for slot in [weights, m, v] {
            dev.zero(slot)?;
        }
        for (i, p) in self.params.iter().enumerate() {
            let mut rng = Rng::new(seed, Stream::Init, i as u32, 0);
            let values: Vec<f32> = match (&p.shape[..], p.name.starts_with("fpn.")) {
                ([k, c, r, _], false) => {
                    let std = (2.0 / (k * r * r) as f32).sqrt();
                    (0..k * c * r * r).map(|_| std * rng.normal()).collect()
                }
                (shape, true) => {
                    // A lateral's bias follows its weight, whose fan-in it shares.
                    let fan_in =
                        if shape.len() == 4 { shape[1] } else { self.params[i - 1].shape[1] };
                    let bound = 1.0 / (fan_in as f32).sqrt();
                    (0..shape.iter().product()).map(|_| rng.uniform(-bound, bound)).collect()
                }
                (shape, false) => {
                    vec![if p.name.ends_with("weight") { 1.0 } else { 0.0 }; shape[0]]
                }
            };
            dev.write(weights.part(p.offset, p.len), &to_device(p.len, &p.shape, &values))?;
        }
        adam_sync(dev, AdamSync { blocks: self.blocks })?;
        for (_, mean, var) in &self.norms {
            dev.zero(*mean)?;
            dev.write(*var, &vec![1.0; var.len])?;
        }
        Ok(())
    }

    /// Writes weights and running statistics over the present ones; names that are missing keep
    /// theirs. Shapes were checked by whoever read the file.
    pub fn load(&self, dev: &mut dyn Engine, weights: &Weights) -> Result<()> {
        self.load_block(dev, self.blocks.weights, "", weights)?;
        adam_sync(dev, AdamSync { blocks: self.blocks })?;
        for (name, slot) in self.statistics() {
            if let Some(t) = weights.tensors.get(&name) {
                dev.write(slot, floats(&name, t)?)?;
            }
        }
        Ok(())
    }

    /// Adam's moments, as [`Network::moments`] has them.
    pub fn load_moments(&self, dev: &mut dyn Engine, weights: &Weights) -> Result<()> {
        self.load_block(dev, self.blocks.m, "adam.m.", weights)?;
        self.load_block(dev, self.blocks.v, "adam.v.", weights)
    }

    /// The weights and running statistics, for a file.
    pub fn saved(&self) -> Vec<Saved> {
        let statistics = self.statistics().into_iter();
        let statistics = statistics.map(|(name, slot)| Saved::floats(name, vec![slot.len], slot));
        self.block(self.blocks.weights, "").chain(statistics).collect()
    }

    /// Adam's moments, for a file.
    pub fn moments(&self) -> Vec<Saved> {
        let ParamBlocks { m, v, .. } = self.blocks;
        self.block(m, "adam.m.").chain(self.block(v, "adam.v.")).collect()
    }

    /// The gradient of every parameter, by name and in torch's layout.
    pub fn gradients(&self) -> Vec<Saved> {
        self.block(self.blocks.grads, "").collect()
    }

    /// A copy of the running statistics, to undo what a pass in train mode does to them.
    pub fn running(&self, dev: &mut dyn Engine) -> Result<Vec<Vec<f32>>> {
        self.norms
            .iter()
            .flat_map(|(_, mean, var)| [mean, var])
            .map(|slot| dev.read(*slot))
            .collect()
    }

    pub fn restore_running(&self, dev: &mut dyn Engine, running: &[Vec<f32>]) -> Result<()> {
        let slots = self.norms.iter().flat_map(|(_, mean, var)| [mean, var]);
        slots.zip(running).try_for_each(|(slot, values)| dev.write(*slot, values))
    }

    fn load_block(
        &self,
        dev: &mut dyn Engine,
        slot: Slot<f32>,
        prefix: &str,
        weights: &Weights,
    ) -> Result<()> {
        for p in &self.params {
            if let Some(t) = weights.tensors.get(&format!("{prefix}{}", p.name)) {
                if t.shape != p.shape {
                    return Err(Error::input(
                        format!(
                            "{prefix}{} has shape {:?}, this network's is {:?}",
                            p.name, t.shape, p.shape
                        ),
                        "use weights of a network of the same architecture",
                    ));
                }
                dev.write(
                    slot.part(p.offset, p.len),
                    &to_device(p.len, &p.shape, floats(&p.name, t)?),
                )?;
            }
        }
        Ok(())
    }

    /// The parameters, with torch's shapes, where they lie in a parameter block.
    fn block(&self, block: Slot<f32>, prefix: &str) -> impl Iterator<Item = Saved> {
        let tensors = self.tensors(prefix, block).into_iter().zip(&self.params);
        tensors.map(|((name, slot), p)| Saved::floats(name, p.shape.clone(), slot))
    }
}

fn floats<'a>(name: &str, tensor: &'a Tensor) -> Result<&'a [f32]> {
    tensor.f32().ok_or_else(|| {
        Error::input(format!("{name} holds integers"), "use a file with float weights")
    })
}
