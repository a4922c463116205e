//! One way of running the network: its plans, where every activation lies, and the forward pass.

use crate::base::{Error, Result};
use crate::device::ops::{
    Backend, ConvSpec, Crop, DataGrad, Epilogue, HeadInput, HeadSpec, Merge, NormSpec, StemSpec,
    Terms, Uses, WeightGrad,
};
use crate::device::{Layout, Pool, Slot};
use crate::net::FEATURES;
use crate::net::architecture::{Architecture, Block, Unit};
use crate::net::backward::{Backward, Saved};
use crate::net::params::Network;

/// Batch-norm statistics, and what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Statistics of the batch, running ones updated; everything a backward needs is kept.
    Train,
    /// Statistics of the batch, running ones updated; nothing is kept.
    Batch,
    /// Running statistics, folded into the convolutions by [`Network::fold`]; nothing is kept.
    Eval,
    /// As [`Mode::Eval`], and the outputs of the stages are kept ([`Program::stages`]).
    Stages,
}

impl Mode {
    /// Whether batch norm is folded into the convolutions.
    pub(super) fn folded(self) -> bool {
        matches!(self, Mode::Eval | Mode::Stages)
    }
}

/// What a program is planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Images of a batch.
    pub n: usize,
    /// Pixels, multiples of 32.
    pub h: usize,
    pub w: usize,
    /// Batch-norm groups; divides n.
    pub groups: usize,
    /// The largest number of clusters a classifier has.
    pub k: usize,
    pub merge: Merge,
    /// Whether features are divided by their norm.
    pub unit: bool,
}

/// A convolution with its norm.
pub(super) struct UnitStep<B: Backend> {
    pub conv: B::ConvPlan,
    pub norm: B::NormPlan,
    /// The convolution's output; where norms are folded there is only `z`.
    pub y: Slot<B::Act>,
    pub z: Slot<B::Act>,
    /// Batch statistics.
    pub saved: Slot<f32>,
}

pub(super) struct BlockStep<B: Backend> {
    pub conv1: UnitStep<B>,
    pub conv2: UnitStep<B>,
    pub down: Option<UnitStep<B>>,
    /// The block's input.
    pub x: Slot<B::Act>,
}

pub struct Program<B: Backend> {
    pub geometry: Geometry,
    mode: Mode,
    /// Input (n, h, w, [`Architecture::input`]).
    pub x: Slot<B::Act>,
    /// Feature-space windows (n), written before the head runs where views are warped.
    pub crops: Slot<Crop>,
    pub head: B::HeadPlan,
    /// p2..p5; empty where the level is missing.
    pub pyramid: [Slot<B::Act>; 4],
    /// Outputs of the stages (n, h/2ˢ⁺², w/2ˢ⁺², channels of stage s), readable after a forward in
    /// [`Mode::Stages`]; empty where the level is missing.
    pub stages: [Slot<B::Act>; 4],
    pub(super) stem_conv: B::ConvPlan,
    pub(super) stem: B::StemPlan,
    pub(super) stem_y: Slot<B::Act>,
    pub(super) stem_z: Slot<B::Act>,
    pub(super) stem_saved: Slot<f32>,
    pub(super) argmax: Option<Slot<u8>>,
    pub(super) blocks: Vec<BlockStep<B>>,
    pub(super) laterals: Vec<B::ConvPlan>,
    pub(super) backward: Option<Backward<B::Act>>,
}

/// Hands out activations and knows whether they are kept.
struct Planner<'a, B: Backend> {
    dev: &'a mut B,
    layout: &'a mut Layout,
    mode: Mode,
    geometry: Geometry,
    architecture: Architecture,
}

impl<B: Backend> Planner<'_, B> {
    fn take(&mut self, name: &str, len: usize) -> Slot<B::Act> {
        self.layout.take(Pool::Acts, name, len)
    }

    /// The end of an activation's life in a forward that keeps nothing.
    fn done(&mut self, slot: Slot<B::Act>) {
        if self.mode != Mode::Train {
            self.layout.release(slot);
        }
    }

    fn conv(&self, unit: &Unit, h: usize, w: usize) -> ConvSpec {
        let Unit { c, k, r, stride, .. } = *unit;
        ConvSpec { n: self.geometry.n, h, w, c, k, r, stride, pad: r / 2 }
    }

    /// What the convolution of a unit is asked to do: where its norm is folded into it, it has the
    /// terms `folded`.
    fn uses(&self, folded: Terms, backward_data: DataGrad) -> Uses {
        match self.mode {
            Mode::Eval | Mode::Stages => Uses::forward(folded),
            Mode::Batch => Uses::default(),
            Mode::Train => Uses::default().backward(backward_data, WeightGrad::Weight),
        }
    }

    /// What the lateral of `level` is asked to do. The last is the first to reach its map's
    /// gradient, the others add to it.
    fn lateral_uses(&self, level: usize) -> Uses {
        let backward_data = if level + 1 < self.architecture.levels {
            DataGrad::Accumulate
        } else {
            DataGrad::Overwrite
        };
        match self.mode {
            Mode::Eval | Mode::Stages | Mode::Batch => Uses::forward(Terms::BIAS),
            Mode::Train => {
                Uses::forward(Terms::BIAS).backward(backward_data, WeightGrad::WeightAndBias)
            }
        }
    }

    /// A unit on (n, h, w, c). Its output stays alive.
    fn unit(&mut self, unit: &Unit, h: usize, w: usize, uses: Uses) -> Result<UnitStep<B>> {
        let spec = self.conv(unit, h, w);
        let groups = self.geometry.groups;
        let norm = NormSpec { groups, rows: spec.n * spec.p() * spec.q() / groups, c: unit.k };
        let (conv, norm_plan) = (self.dev.plan_conv(spec, uses)?, self.dev.plan_norm(norm)?);
        let saved = self.layout.take(Pool::Acts, "statistics", norm.saved_len());
        if self.mode.folded() {
            let z = self.take("z", spec.y_len());
            return Ok(UnitStep { conv, norm: norm_plan, y: z, z, saved });
        }
        let y = self.take("y", spec.y_len());
        let z = self.take("z", spec.y_len());
        self.done(y);
        Ok(UnitStep { conv, norm: norm_plan, y, z, saved })
    }

    fn block(
        &mut self,
        block: &Block,
        x: Slot<B::Act>,
        h: usize,
        w: usize,
    ) -> Result<BlockStep<B>> {
        let (ho, wo) = (h / block.conv1.stride, w / block.conv1.stride);
        let terms = |residual, relu| Terms { bias: true, residual, relu };
        // The shortcut's gradient is in dx before that of conv1.
        let down = self.uses(terms(false, false), DataGrad::Overwrite);
        let conv1 = self.uses(terms(false, true), DataGrad::Accumulate);
        let conv2 = self.uses(terms(true, true), DataGrad::Overwrite);
        let down = block.down.as_ref().map(|d| self.unit(d, h, w, down)).transpose()?;
        let conv1 = self.unit(&block.conv1, h, w, conv1)?;
        let conv2 = self.unit(&block.conv2, ho, wo, conv2)?;
        self.done(conv1.z);
        if let Some(down) = &down {
            self.done(down.z);
        }
        Ok(BlockStep { conv1, conv2, down, x })
    }
}

impl<B: Backend> Program<B> {
    /// Plans a program over the activations pool, which it uses alone: programs follow each other
    /// on the same memory.
    pub fn plan(
        dev: &mut B,
        layout: &mut Layout,
        net: &Network<B>,
        geometry: Geometry,
        mode: Mode,
    ) -> Result<Self> {
        let Geometry { n, h, w, groups, k, merge, unit } = geometry;
        net.architecture.check()?;
        if n == 0 || h == 0 || w == 0 || h % 32 != 0 || w % 32 != 0 {
            return Err(Error::input(
                format!("images of {h}×{w} pixels"),
                "use a --size that is a multiple of 32",
            ));
        }
        layout.restart(Pool::Acts);
        let crops = layout.take(Pool::Staging, "feature crops", n);
        let mut p = Planner { dev, layout, mode, geometry, architecture: net.architecture };
        let x = p.take("x", n * h * w * net.architecture.input());
        let stem_spec = p.conv(&net.stem, h, w);
        let pool = StemSpec { groups, n, h: h / 2, w: w / 2, c: net.stem.k };
        let stem_uses = p.uses(Terms::BIAS, DataGrad::None);
        let (stem_conv, stem) = (p.dev.plan_conv(stem_spec, stem_uses)?, p.dev.plan_stem(pool)?);
        let stem_y = p.take("stem.y", pool.x_len());
        p.done(x);
        let stem_saved = p.layout.take(Pool::Acts, "stem.statistics", pool.saved_len());
        let argmax =
            (mode == Mode::Train).then(|| p.layout.take(Pool::Acts, "stem.argmax", pool.z_len()));
        let stem_z = p.take("stem.z", pool.z_len());
        p.done(stem_y);

        let mut blocks: Vec<BlockStep<B>> = Vec::new();
        let (mut at, mut hb, mut wb) = (stem_z, h / 4, w / 4);
        let (mut pyramid, mut stages) = ([Slot::empty(); 4], [Slot::empty(); 4]);
        let mut laterals = Vec::new();
        for (((stage, lateral), map), output) in
            net.stages.iter().zip(&net.laterals).zip(&mut pyramid).zip(&mut stages)
        {
            for (b, block) in stage.iter().enumerate() {
                let step = p.block(block, at, hb, wb)?;
                // A stage's first block reads the output of the stage before.
                if mode != Mode::Stages || b > 0 {
                    p.done(at);
                }
                (hb, wb) = (hb / block.conv1.stride, wb / block.conv1.stride);
                at = step.conv2.z;
                blocks.push(step);
            }
            let (spec, uses) = (p.conv(lateral, hb, wb), p.lateral_uses(laterals.len()));
            laterals.push(p.dev.plan_conv(spec, uses)?);
            *map = p.take("pyramid", spec.y_len());
            *output = at;
        }
        if mode != Mode::Stages {
            p.done(at);
        }
        let levels = net.architecture.levels;
        let head_spec = HeadSpec { n, h: h / 4, w: w / 4, d: FEATURES, k, merge, levels, unit };
        let head = p.dev.plan_head(head_spec)?;
        let saved = Saved { stem_y, pyramid, blocks: &blocks };
        let backward = (mode == Mode::Train).then(|| Backward::plan(p.layout, net, &saved));
        Ok(Program {
            geometry,
            mode,
            x,
            crops,
            head,
            pyramid,
            stages,
            stem_conv,
            stem,
            stem_y,
            stem_z,
            stem_saved,
            argmax,
            blocks,
            laterals,
            backward,
        })
    }

    /// x → pyramid.
    pub fn forward(&self, dev: &mut B, net: &Network<B>) -> Result<()> {
        if self.mode.folded() {
            let epilogue = Epilogue::bias(net.folded_bias[net.stem.norm]);
            dev.conv_forward(
                &self.stem_conv,
                self.stem_y,
                self.x,
                net.folded_weight(&net.stem),
                epilogue,
            )?;
            dev.stem_infer(&self.stem, self.stem_z, self.stem_y)?;
        } else {
            dev.conv_forward(
                &self.stem_conv,
                self.stem_y,
                self.x,
                net.weight(&net.stem),
                Epilogue::NONE,
            )?;
            let params = net.norm(&net.stem);
            dev.stem_forward(
                &self.stem,
                self.stem_z,
                self.argmax,
                self.stem_saved,
                self.stem_y,
                params,
            )?;
        }
        let mut steps = self.blocks.iter();
        for ((stage, lateral), (conv, p)) in
            net.stages.iter().zip(&net.laterals).zip(self.laterals.iter().zip(self.pyramid))
        {
            let mut out = self.stem_z;
            for (block, step) in stage.iter().zip(&mut steps) {
                let shortcut = match block.down.as_ref().zip(step.down.as_ref()) {
                    Some((unit, down)) => {
                        self.unit(dev, net, unit, down, step.x, None, false)?;
                        down.z
                    }
                    None => step.x,
                };
                self.unit(dev, net, &block.conv1, &step.conv1, step.x, None, true)?;
                self.unit(dev, net, &block.conv2, &step.conv2, step.conv1.z, Some(shortcut), true)?;
                out = step.conv2.z;
            }
            dev.conv_forward(conv, p, out, net.weight(lateral), Epilogue::bias(net.bias(lateral)))?;
        }
        Ok(())
    }

    /// z = relu?(norm(x ∗ w) + residual).
    #[allow(clippy::too_many_arguments)]
    fn unit(
        &self,
        dev: &mut B,
        net: &Network<B>,
        unit: &Unit,
        step: &UnitStep<B>,
        x: Slot<B::Act>,
        residual: Option<Slot<B::Act>>,
        relu: bool,
    ) -> Result<()> {
        dev.range(net.name(unit), |dev| {
            if self.mode.folded() {
                let epilogue = Epilogue { bias: Some(net.folded_bias[unit.norm]), residual, relu };
                return dev.conv_forward(&step.conv, step.z, x, net.folded_weight(unit), epilogue);
            }
            dev.conv_forward(&step.conv, step.y, x, net.weight(unit), Epilogue::NONE)?;
            dev.norm_forward(&step.norm, step.z, step.saved, step.y, residual, relu, net.norm(unit))
        })
    }

    /// The head's input, images warped by [`Program::crops`].
    pub fn warped(&self) -> HeadInput<B::Act> {
        HeadInput { laterals: self.pyramid, crops: Some(self.crops) }
    }

    /// The head's input, images as they are.
    pub fn plain(&self) -> HeadInput<B::Act> {
        HeadInput { laterals: self.pyramid, crops: None }
    }
}
