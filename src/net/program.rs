//! One way of running the network: its plans, where every activation lies, and the forward pass.

use crate::base::Result;
use crate::device::ops::{
    ConvForward, Crop, Epilogue, HeadInput, HeadSpec, Merge, NormForward, NormParams,
    NormStatistics, Normed, Plan, Residual, StemForward, StemInfer, conv_forward, norm_forward,
    norm_statistics, stem_forward, stem_infer,
};
use crate::device::{Act, Engine, Slot};
use crate::net::STRIDE;
use crate::net::backward::Backward;
use crate::net::params::Network;
use crate::net::steps::{BlockStep, StageStep, StemStep, UnitStep};

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
pub struct ProgramSpec {
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

impl ProgramSpec {
    /// Feature vectors of a batch: pixels of all its feature maps.
    pub fn features(&self) -> usize {
        self.n * (self.h / STRIDE) * (self.w / STRIDE)
    }
}

pub struct Program {
    pub spec: ProgramSpec,
    pub(super) mode: Mode,
    /// Input (n, h, w, [`Architecture::input`](crate::net::Architecture::input)).
    pub x: Slot<Act>,
    /// Feature-space windows (n), written before the head runs where views are warped.
    pub crops: Slot<Crop>,
    pub head: Plan<HeadSpec>,
    /// p2..p5; empty where the level is missing.
    pub pyramid: [Slot<Act>; 4],
    /// Outputs of the stages (n, h/2ˢ⁺², w/2ˢ⁺², channels of stage s), readable after a forward in
    /// [`Mode::Stages`]; empty where the level is missing.
    pub stages: [Slot<Act>; 4],
    pub(super) stem: StemStep,
    pub(super) steps: Vec<StageStep>,
    pub(super) backward: Option<Backward>,
}

impl Program {
    /// Where the head writes the gradients of the pyramid. Only of a program in [`Mode::Train`].
    pub fn dpyramid(&self) -> [Slot<Act>; 4] {
        self.gradients().dpyramid
    }

    fn gradients(&self) -> &Backward {
        self.backward.as_ref().expect("only programs planned in Mode::Train have gradients")
    }

    /// Adds the gradients of all parameters, from those of the pyramid, after
    /// [`Program::forward`].
    pub fn backward(&self, dev: &mut dyn Engine, net: &Network) -> Result<()> {
        self.gradients().run(dev, net, self.x, &self.stem, &self.steps)
    }

    /// x → pyramid.
    pub fn forward(&self, dev: &mut dyn Engine, net: &Network) -> Result<()> {
        self.forward_stem(dev, net)?;
        for (stage, &y) in self.steps.iter().zip(&self.pyramid) {
            for block in &stage.blocks {
                self.forward_block(dev, net, block)?;
            }
            let epilogue = Epilogue::bias(net.bias(&stage.lateral));
            let w = net.weight(&stage.lateral);
            conv_forward(dev, &stage.conv, ConvForward { y, x: stage.z(), w, epilogue })?;
        }
        Ok(())
    }

    fn forward_stem(&self, dev: &mut dyn Engine, net: &Network) -> Result<()> {
        let StemStep { unit, conv, pool, y, z, saved, maxima } = &self.stem;
        let (x, y, z) = (self.x, *y, *z);
        if self.mode.folded() {
            let (w, epilogue) = (net.folded_weight(unit), Epilogue::bias(net.folded_bias(unit)));
            conv_forward(dev, conv, ConvForward { y, x, w, epilogue })?;
            return stem_infer(dev, pool, StemInfer { z, x: y });
        }
        let (w, epilogue) = (net.weight(&unit.conv), Epilogue::NONE);
        conv_forward(dev, conv, ConvForward { y, x, w, epilogue })?;
        let params = net.norm(unit);
        let a = StemForward { z, maxima: *maxima, saved: *saved, x: y, params };
        stem_forward(dev, pool, a)
    }

    fn forward_block(&self, dev: &mut dyn Engine, net: &Network, step: &BlockStep) -> Result<()> {
        let &BlockStep { mut x, ref chain, ref down } = step;
        let shortcut = match down {
            Some(down) => self.forward_down(dev, net, down, x)?,
            None => Residual::Map(x),
        };
        for (i, unit) in chain.iter().enumerate() {
            let residual = (i + 1 == chain.len()).then_some(shortcut);
            self.forward_unit(dev, net, unit, x, residual)?;
            x = unit.z;
        }
        Ok(())
    }

    /// The shortcut norm(x ∗ w); where the norm is not folded into w, the block's last op applies
    /// it.
    fn forward_down(
        &self,
        dev: &mut dyn Engine,
        net: &Network,
        step: &UnitStep,
        x: Slot<Act>,
    ) -> Result<Residual> {
        let &UnitStep { unit, ref conv, ref norm, y, saved, .. } = step;
        dev.range(net.name(&unit.conv), |dev| {
            if self.mode.folded() {
                let (w, bias) = (net.folded_weight(&unit), net.folded_bias(&unit));
                let a = ConvForward { y, x, w, epilogue: Epilogue::bias(bias) };
                conv_forward(dev, conv, a)?;
                return Ok(Residual::Map(y));
            }
            let (w, epilogue, params) = (net.weight(&unit.conv), Epilogue::NONE, net.norm(&unit));
            conv_forward(dev, conv, ConvForward { y, x, w, epilogue })?;
            norm_statistics(dev, norm, NormStatistics { saved, x: y, params })?;
            let NormParams { gamma, beta, .. } = params;
            Ok(Residual::Norm(Normed { x: y, saved, gamma, beta }))
        })
    }

    /// z = relu(norm(x ∗ w) + residual).
    fn forward_unit(
        &self,
        dev: &mut dyn Engine,
        net: &Network,
        step: &UnitStep,
        x: Slot<Act>,
        residual: Option<Residual>,
    ) -> Result<()> {
        let &UnitStep { unit, ref conv, ref norm, y, z, saved, mask } = step;
        let relu = true;
        dev.range(net.name(&unit.conv), |dev| {
            if self.mode.folded() {
                let (bias, residual) = (Some(net.folded_bias(&unit)), residual.map(Residual::map));
                let epilogue = Epilogue { bias, residual, relu };
                let w = net.folded_weight(&unit);
                return conv_forward(dev, conv, ConvForward { y: z, x, w, epilogue });
            }
            let (w, epilogue) = (net.weight(&unit.conv), Epilogue::NONE);
            conv_forward(dev, conv, ConvForward { y, x, w, epilogue })?;
            let params = net.norm(&unit);
            norm_forward(dev, norm, NormForward { z, mask, saved, x: y, residual, relu, params })
        })
    }

    /// The head's input, images warped by [`Program::crops`].
    pub fn warped(&self) -> HeadInput {
        HeadInput { laterals: self.pyramid, crops: Some(self.crops) }
    }

    /// The head's input, images as they are.
    pub fn plain(&self) -> HeadInput {
        HeadInput { laterals: self.pyramid, crops: None }
    }
}
