//! How a program is planned: every op in the order of the forward pass, every activation from the
//! op that writes it to the last one that reads it.

use crate::base::{Error, Result};
use crate::device::ops::{
    ConvSpec, DataGrad, HeadSpec, NormSpec, StemMaxima, StemSpec, Terms, Uses, WeightGrad,
    plan_conv, plan_head, plan_norm, plan_stem,
};
use crate::device::{Act, Engine, Layout, Pool, Slot};
use crate::net::architecture::{Block, Conv, Unit};
use crate::net::backward::Backward;
use crate::net::program::{Mode, Program, ProgramSpec};
use crate::net::steps::{BlockStep, StageStep, StemStep, UnitStep};
use crate::net::{FEATURES, Network, STRIDE};

/// Hands out activations and knows whether they are kept.
struct Planner<'a> {
    dev: &'a mut dyn Engine,
    layout: &'a mut Layout,
    mode: Mode,
    spec: ProgramSpec,
    levels: usize,
}

/// Where a unit stands in its block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is the downsampling.
    Down,
    /// It is the chain's last, which adds the shortcut.
    Last,
    Inner,
}

impl Planner<'_> {
    fn take(&mut self, name: &str, len: usize) -> Slot<Act> {
        self.layout.acts(Pool::Acts, name, len)
    }

    /// The end of an activation's life in a forward that keeps nothing.
    fn done(&mut self, slot: Slot<Act>) {
        if self.mode != Mode::Train {
            self.layout.release(slot);
        }
    }

    /// A convolution on (n, h, w, c).
    fn conv(&self, conv: &Conv, (h, w): (usize, usize)) -> ConvSpec {
        let Conv { c, k, r, stride, .. } = *conv;
        ConvSpec { n: self.spec.n, h, w, c, k, r, stride, pad: r / 2 }
    }

    /// What a unit's convolution is planned for. Where its norm is folded into it, it has the terms
    /// `folded`.
    fn uses(&self, folded: Terms, backward_data: DataGrad) -> Uses {
        match self.mode {
            Mode::Eval | Mode::Stages => Uses::forward(folded),
            Mode::Batch => Uses::default(),
            Mode::Train => Uses::default().backward(backward_data, WeightGrad::Weight),
        }
    }

    /// What the lateral of `level` is planned for. Backward runs from the coarsest level down: that
    /// level's lateral writes the gradient of its stage's output, the finer ones add to what the
    /// stage after theirs wrote; and it has the gradient of its bias, which is that of all others.
    fn lateral_uses(&self, level: usize) -> Uses {
        let last = level + 1 == self.levels;
        let gradients = match last {
            true => (DataGrad::Overwrite, WeightGrad::WeightAndBias),
            false => (DataGrad::Accumulate, WeightGrad::Weight),
        };
        let forward = Uses::forward(Terms::BIAS);
        match self.mode {
            Mode::Eval | Mode::Stages | Mode::Batch => forward,
            Mode::Train => forward.backward(gradients.0, gradients.1),
        }
    }

    fn stem(&mut self, unit: Unit, x: Slot<Act>) -> Result<StemStep> {
        let ProgramSpec { n, h, w, groups, .. } = self.spec;
        let spec = self.conv(&unit.conv, (h, w));
        let pool = StemSpec { groups, n, h: spec.p(), w: spec.q(), c: spec.k };
        let uses = self.uses(Terms::BIAS, DataGrad::None);
        let (conv, pool) = (plan_conv(self.dev, spec, uses)?, plan_stem(self.dev, pool)?);
        let y = self.take("stem.y", spec.y_len());
        self.done(x);
        let saved = self.layout.take(Pool::Acts, "stem.statistics", pool.spec.saved_len());
        let maxima = (self.mode == Mode::Train).then(|| StemMaxima {
            argmax: self.layout.take(Pool::Acts, "stem.argmax", pool.spec.z_len()),
            peak: self.take("stem.peak", pool.spec.z_len()),
        });
        let z = self.take("stem.z", pool.spec.z_len());
        self.done(y);
        Ok(StemStep { unit, conv, pool, y, z, saved, maxima })
    }

    /// A unit on pixels of `size`. Its output stays alive.
    fn unit(
        &mut self,
        unit: Unit,
        size: (usize, usize),
        uses: Uses,
        place: Place,
    ) -> Result<UnitStep> {
        let (spec, groups) = (self.conv(&unit.conv, size), self.spec.groups);
        let norm = NormSpec { groups, rows: spec.n * spec.p() * spec.q() / groups, c: spec.k };
        let (conv, norm) = (plan_conv(self.dev, spec, uses)?, plan_norm(self.dev, norm)?);
        let saved = self.layout.take(Pool::Acts, "statistics", norm.spec.saved_len());
        if self.mode.folded() || place == Place::Down {
            let z = self.take("z", spec.y_len());
            return Ok(UnitStep { unit, conv, norm, y: z, z, saved, mask: None });
        }
        let y = self.take("y", spec.y_len());
        let kept = self.mode == Mode::Train && place == Place::Last;
        let len = norm.spec.mask_len();
        let mask = kept.then(|| self.layout.take(Pool::Acts, "mask", len));
        let z = self.take("z", spec.y_len());
        self.done(y);
        Ok(UnitStep { unit, conv, norm, y, z, saved, mask })
    }

    /// A block on pixels of `size`, which becomes that of its output.
    fn block(
        &mut self,
        block: &Block,
        x: Slot<Act>,
        size: &mut (usize, usize),
    ) -> Result<BlockStep> {
        let terms = |residual, relu| Terms { bias: true, residual, relu };
        let down = self.uses(terms(false, false), DataGrad::Overwrite);
        let down = block.down.map(|unit| self.unit(unit, *size, down, Place::Down)).transpose()?;
        let mut chain: Vec<UnitStep> = Vec::new();
        for (i, &unit) in block.chain.iter().enumerate() {
            // The shortcut's gradient is in dx before that of the first unit.
            let dx = if i == 0 { DataGrad::Accumulate } else { DataGrad::Overwrite };
            let last = i + 1 == block.chain.len();
            let uses = self.uses(terms(last, true), dx);
            let place = if last { Place::Last } else { Place::Inner };
            let step = self.unit(unit, *size, uses, place)?;
            *size = (step.conv.spec.spec.p(), step.conv.spec.spec.q());
            if let Some(before) = chain.last() {
                self.done(before.z);
            }
            chain.push(step);
        }
        if let Some(down) = &down {
            self.done(down.z);
        }
        Ok(BlockStep { x, chain, down })
    }
}

impl Program {
    /// Plans a program over the activations pool, which it uses alone: programs follow each other
    /// on the same memory.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        net: &Network,
        spec: ProgramSpec,
        mode: Mode,
    ) -> Result<Self> {
        let ProgramSpec { n, h, w, k, merge, unit, .. } = spec;
        net.architecture.check()?;
        if n == 0 || h == 0 || w == 0 || h % 32 != 0 || w % 32 != 0 {
            return Err(Error::input(
                format!("images of {h}×{w} pixels"),
                "use a --size that is a multiple of 32",
            ));
        }
        layout.restart(Pool::Acts);
        let crops = layout.take(Pool::Staging, "feature crops", n);
        let levels = net.architecture.levels;
        let mut p = Planner { dev, layout, mode, spec, levels };
        let x = p.take("x", n * h * w * net.architecture.input());
        let stem = p.stem(net.stem, x)?;
        let (mut at, mut size) = (stem.z, (stem.pool.spec.p(), stem.pool.spec.q()));
        let (mut pyramid, mut stages) = ([Slot::empty(); 4], [Slot::empty(); 4]);
        let mut steps = Vec::new();
        for (level, (stage, &lateral)) in net.stages.iter().zip(&net.laterals).enumerate() {
            let mut blocks = Vec::new();
            for (b, block) in stage.iter().enumerate() {
                let step = p.block(block, at, &mut size)?;
                // A stage's first block reads the output of the stage before.
                if mode != Mode::Stages || b > 0 {
                    p.done(at);
                }
                at = step.z();
                blocks.push(step);
            }
            let spec = p.conv(&lateral, size);
            let uses = p.lateral_uses(level);
            let conv = plan_conv(p.dev, spec, uses)?;
            pyramid[level] = p.take("pyramid", spec.y_len());
            stages[level] = at;
            steps.push(StageStep { blocks, lateral, conv });
        }
        if mode != Mode::Stages {
            p.done(at);
        }
        let (h, w) = (h / STRIDE, w / STRIDE);
        let head = plan_head(p.dev, HeadSpec { n, h, w, d: FEATURES, k, merge, levels, unit })?;
        let train = mode == Mode::Train;
        let backward = train.then(|| Backward::plan(p.layout, &stem, &steps, pyramid));
        Ok(Program { spec, mode, x, crops, head, pyramid, stages, stem, steps, backward })
    }
}
