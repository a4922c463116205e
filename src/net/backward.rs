//! The backward pass: where its gradients lie, and the order of its ops.

use crate::base::Result;
use crate::device::ops::{
    ConvBackwardData, ConvBackwardWeight, NormBackward, NormGate, NormGrads, ResidualGrad,
    StemBackward, conv_backward_data, conv_backward_weight, norm_backward, stem_backward,
};
use crate::device::{Act, Engine, Layout, Pool, Slot};
use crate::net::architecture::Conv;
use crate::net::params::Network;
use crate::net::steps::{BlockStep, StageStep, StemStep, UnitStep};

/// The gradients of a unit's output and of its convolution's.
struct UnitGrads {
    dz: Slot<Act>,
    dy: Slot<Act>,
}

/// The gradients of one block.
struct BlockGrads {
    chain: Vec<UnitGrads>,
    /// Gradient of the output of the downsampling's convolution. Without a downsampling, that of
    /// the shortcut, which becomes the gradient of the block's input.
    dshortcut: Slot<Act>,
    dx: Slot<Act>,
}

impl BlockGrads {
    /// Gradient of the block's output.
    fn dz(&self) -> Slot<Act> {
        self.chain.last().expect("a block has convolutions").dz
    }
}

pub(super) struct Backward {
    /// Gradients of p2..p5, written by the head; empty where the level is missing.
    pub dpyramid: [Slot<Act>; 4],
    /// By block, last first.
    blocks: Vec<BlockGrads>,
    dstem: Slot<Act>,
}

impl Backward {
    /// Mirrors [`Backward::run`] line by line: what an op reads is released after it, what it
    /// writes is taken before it.
    pub fn plan(
        layout: &mut Layout,
        stem: &StemStep,
        steps: &[StageStep],
        pyramid: [Slot<Act>; 4],
    ) -> Self {
        let dpyramid = pyramid.map(|p| layout.acts(Pool::Acts, "d pyramid", p.len));
        pyramid.into_iter().for_each(|slot| layout.release(slot));
        let top = steps.last().expect("a network has stages").z();
        let mut dz = layout.acts(Pool::Acts, "d top", top.len);
        let mut blocks = Vec::new();
        for step in steps.iter().flat_map(|stage| &stage.blocks).rev() {
            let grads = BlockGrads::plan(layout, step, dz);
            dz = grads.dx;
            blocks.push(grads);
        }
        let dstem = layout.acts(Pool::Acts, "d stem", stem.y.len);
        Backward { dpyramid, blocks, dstem }
    }
}

impl BlockGrads {
    /// `dz`: the gradient of the block's output.
    fn plan(layout: &mut Layout, step: &BlockStep, dz: Slot<Act>) -> Self {
        let take =
            |layout: &mut Layout, like: Slot<Act>| layout.acts(Pool::Acts, "d block", like.len);
        let release = |layout: &mut Layout, slots: &[Slot<Act>]| {
            slots.iter().for_each(|&slot| layout.release(slot));
        };
        let (last, inner) = step.chain.split_last().expect("a block has convolutions");
        // Of z the mask is left.
        release(layout, &[last.z]);
        let (dy, dshortcut) = (take(layout, last.y), take(layout, last.z));
        release(layout, &[dz, last.y]);
        layout.release(last.mask.expect("kept in Mode::Train"));
        if let Some(down) = &step.down {
            release(layout, &[down.y]);
        }
        let mut chain = vec![UnitGrads { dz, dy }];
        let mut after = dy;
        for unit in inner.iter().rev() {
            let dz = take(layout, unit.z);
            release(layout, &[after, unit.z]);
            let dy = take(layout, unit.y);
            release(layout, &[dz, unit.y]);
            chain.push(UnitGrads { dz, dy });
            after = dy;
        }
        chain.reverse();
        let dx = match &step.down {
            Some(_) => {
                let dx = take(layout, step.x);
                release(layout, &[dshortcut]);
                dx
            }
            None => dshortcut,
        };
        release(layout, &[after]);
        BlockGrads { chain, dshortcut, dx }
    }
}

impl Backward {
    /// Adds the gradients of all parameters, from those of the pyramid: after a forward of these
    /// steps on `x`.
    pub fn run(
        &self,
        dev: &mut dyn Engine,
        net: &Network,
        x: Slot<Act>,
        stem: &StemStep,
        steps: &[StageStep],
    ) -> Result<()> {
        let Backward { dpyramid, blocks, dstem } = self;
        let mut grads = blocks.iter().peekable();
        let mut coarsest = None;
        for (level, stage) in steps.iter().enumerate().rev() {
            // A stage's last block also feeds the lateral of its level.
            let dz = grads.peek().expect("every block has gradients").dz();
            backward_lateral(dev, net, stage, dz, dpyramid[level], coarsest)?;
            coarsest = coarsest.or(Some(&stage.lateral));
            for (step, g) in stage.blocks.iter().rev().zip(&mut grads) {
                let name = net.name(&step.chain[0].unit.conv);
                dev.range(name, |dev| backward_block(dev, net, step, g))?;
            }
        }
        let dz = blocks.last().expect("a network has blocks").dx;
        let StemStep { unit, conv, pool, y, saved, maxima, .. } = stem;
        let a = StemBackward {
            dx: *dstem,
            dgamma: net.grad(&unit.conv, 1),
            dbeta: net.grad(&unit.conv, 2),
            dz,
            maxima: maxima.expect("kept in Mode::Train"),
            x: *y,
            saved: *saved,
            params: net.norm(unit),
        };
        stem_backward(dev, pool, a)?;
        let dw = net.grad(&unit.conv, 0);
        conv_backward_weight(dev, conv, ConvBackwardWeight { dw, db: None, x, dy: *dstem })
    }
}

/// The gradients of a lateral; dz, that of its stage's output, is added to if there is a coarser
/// level, else written.
///
/// The bias of a lateral is added to all pixels of its level, and the weights of a pixel that is
/// resampled add up to 1. So every bias adds to all features of the head alike, and all have the
/// same gradient: the coarsest level's, which has the fewest pixels to be summed.
fn backward_lateral(
    dev: &mut dyn Engine,
    net: &Network,
    stage: &StageStep,
    dz: Slot<Act>,
    dy: Slot<Act>,
    coarsest: Option<&Conv>,
) -> Result<()> {
    let StageStep { lateral, conv, .. } = stage;
    let accumulate = coarsest.is_some();
    let a = ConvBackwardData { dx: dz, dy, w: net.weight(lateral), accumulate };
    conv_backward_data(dev, conv, a)?;
    let (dw, own) = (net.grad(lateral, 0), net.grad(lateral, 1));
    let db = coarsest.is_none().then_some(own);
    conv_backward_weight(dev, conv, ConvBackwardWeight { dw, db, x: stage.z(), dy })?;
    coarsest.map_or(Ok(()), |coarsest| dev.copy(own, net.grad(coarsest, 1)))
}

fn backward_block(
    dev: &mut dyn Engine,
    net: &Network,
    step: &BlockStep,
    g: &BlockGrads,
) -> Result<()> {
    let last = step.chain.len() - 1;
    for i in (0..=last).rev() {
        let (unit, UnitGrads { dz, dy }) = (&step.chain[i], &g.chain[i]);
        let dresidual = (i == last).then(|| match &step.down {
            Some(down) => ResidualGrad::Norm(norm_grads(net, down, g.dshortcut)),
            None => ResidualGrad::Map(g.dshortcut),
        });
        let gate = match unit.mask {
            Some(mask) => NormGate::Mask(mask),
            None => NormGate::Beta(net.norm(&unit.unit).beta),
        };
        backward_norm(dev, net, unit, *dy, dresidual, *dz, gate)?;
        if i > 0 {
            backward_conv(dev, net, unit, g.chain[i - 1].dz, *dy, step.chain[i - 1].z, false)?;
        }
    }
    if let Some(down) = &step.down {
        backward_conv(dev, net, down, g.dx, g.dshortcut, step.x, false)?;
    }
    backward_conv(dev, net, &step.chain[0], g.dx, g.chain[0].dy, step.x, true)
}

/// dy of a unit's convolution from dz.
fn backward_norm(
    dev: &mut dyn Engine,
    net: &Network,
    step: &UnitStep,
    dy: Slot<Act>,
    dresidual: Option<ResidualGrad>,
    dz: Slot<Act>,
    gate: NormGate,
) -> Result<()> {
    let NormGrads { dx, dgamma, dbeta, x, saved, gamma } = norm_grads(net, step, dy);
    let a = NormBackward { dx, dresidual, dgamma, dbeta, dz, gate, x, saved, gamma };
    norm_backward(dev, &step.norm, a)
}

/// What the backward of a unit's norm writes and reads; dy is the gradient of its convolution's
/// output.
fn norm_grads(net: &Network, step: &UnitStep, dy: Slot<Act>) -> NormGrads {
    let &UnitStep { unit, y, saved, .. } = step;
    NormGrads {
        dx: dy,
        dgamma: net.grad(&unit.conv, 1),
        dbeta: net.grad(&unit.conv, 2),
        x: y,
        saved,
        gamma: net.norm(&unit).gamma,
    }
}

/// dx and dw of a unit's convolution.
fn backward_conv(
    dev: &mut dyn Engine,
    net: &Network,
    step: &UnitStep,
    dx: Slot<Act>,
    dy: Slot<Act>,
    x: Slot<Act>,
    accumulate: bool,
) -> Result<()> {
    let weight = &step.unit.conv;
    let a = ConvBackwardData { dx, dy, w: net.weight(weight), accumulate };
    conv_backward_data(dev, &step.conv, a)?;
    let dw = net.grad(weight, 0);
    conv_backward_weight(dev, &step.conv, ConvBackwardWeight { dw, db: None, x, dy })
}
