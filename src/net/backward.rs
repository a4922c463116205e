//! The backward pass: where its gradients lie, and the order of its ops.

use crate::base::Result;
use crate::device::ops::{Backend, NormGrads};
use crate::device::{Element, Layout, Pool, Slot};
use crate::net::architecture::Unit;
use crate::net::params::Network;
use crate::net::program::{BlockStep, Program, UnitStep};

/// The gradients of one block, in the order of their lives.
struct BlockGrads<A> {
    dy2: Slot<A>,
    /// Gradient of the shortcut; without a downsampling it becomes the gradient of the block's
    /// input.
    dshortcut: Slot<A>,
    dz1: Slot<A>,
    dy1: Slot<A>,
    ddown: Option<Slot<A>>,
    dx: Slot<A>,
}

pub(super) struct Backward<A> {
    /// Gradients of p2..p5, written by the head; empty where the level is missing.
    pub dpyramid: [Slot<A>; 4],
    /// Gradient of the last block's output.
    dtop: Slot<A>,
    /// By block, last first.
    blocks: Vec<BlockGrads<A>>,
    dstem: Slot<A>,
}

/// What a forward kept.
pub(super) struct Saved<'a, B: Backend> {
    pub stem_y: Slot<B::Act>,
    pub pyramid: [Slot<B::Act>; 4],
    pub blocks: &'a [BlockStep<B>],
}

impl<A: Element> Backward<A> {
    /// Mirrors [`Program::backward`] line by line: what an op reads is released after it, what it
    /// writes is taken before it.
    pub fn plan<B: Backend<Act = A>>(
        layout: &mut Layout,
        net: &Network<B>,
        saved: &Saved<B>,
    ) -> Self {
        let dpyramid = saved.pyramid.map(|p| layout.take(Pool::Acts, "d pyramid", p.len));
        saved.pyramid.into_iter().for_each(|slot| layout.release(slot));
        let last = saved.blocks.last().expect("a network has blocks");
        let dtop = layout.take(Pool::Acts, "d top", last.conv2.z.len);
        let mut dz = dtop;
        let mut blocks = Vec::new();
        for (step, block) in saved.blocks.iter().rev().zip(net.stages.iter().flatten().rev()) {
            let take = |layout: &mut Layout, like: Slot<A>| {
                layout.take::<A>(Pool::Acts, "d block", like.len)
            };
            let (dy2, dshortcut) = (take(layout, step.conv2.y), take(layout, step.conv2.z));
            [dz, step.conv2.z, step.conv2.y].into_iter().for_each(|slot| layout.release(slot));
            let dz1 = take(layout, step.conv1.z);
            layout.release(dy2);
            let dy1 = take(layout, step.conv1.y);
            [dz1, step.conv1.z, step.conv1.y].into_iter().for_each(|slot| layout.release(slot));
            let (ddown, dx) = match (&step.down, &block.down) {
                (Some(down), Some(_)) => {
                    let ddown = take(layout, down.y);
                    [dshortcut, down.y, down.z].into_iter().for_each(|slot| layout.release(slot));
                    let dx = take(layout, step.x);
                    layout.release(ddown);
                    (Some(ddown), dx)
                }
                _ => (None, dshortcut),
            };
            layout.release(dy1);
            blocks.push(BlockGrads { dy2, dshortcut, dz1, dy1, ddown, dx });
            dz = dx;
        }
        let dstem = layout.take(Pool::Acts, "d stem", saved.stem_y.len);
        Backward { dpyramid, dtop, blocks, dstem }
    }
}

impl<B: Backend> Program<B> {
    /// Where the head writes the gradients of the pyramid. Only of a program in
    /// [`Mode::Train`](crate::net::Mode::Train).
    pub fn dpyramid(&self) -> [Slot<B::Act>; 4] {
        self.gradients().dpyramid
    }

    fn gradients(&self) -> &Backward<B::Act> {
        self.backward.as_ref().expect("only programs planned in Mode::Train have gradients")
    }

    /// d pyramid → gradients of all parameters (+=), after [`Program::forward`].
    pub fn backward(&self, dev: &mut B, net: &Network<B>) -> Result<()> {
        let grads = self.gradients();
        let levels = self.laterals.len();
        let mut level = levels;
        let mut dz = grads.dtop;
        let flat: Vec<_> = net.stages.iter().flatten().collect();
        for ((i, step), g) in self.blocks.iter().enumerate().rev().zip(&grads.blocks) {
            let block = flat[i];
            // A stage's last block also feeds the lateral of its level.
            if i % 2 == 1 {
                level -= 1;
                let (conv, lateral, dp) =
                    (&self.laterals[level], &net.laterals[level], grads.dpyramid[level]);
                dev.conv_backward_data(conv, dz, dp, net.weight(lateral), level + 1 < levels)?;
                let db = Some(net.grad(lateral, 1));
                dev.conv_backward_weight(conv, net.grad(lateral, 0), db, step.conv2.z, dp)?;
            }
            dev.range(net.name(&block.conv1), |dev| {
                let shortcut = Some(g.dshortcut);
                self.norm(
                    dev,
                    net,
                    &block.conv2,
                    &step.conv2,
                    g.dy2,
                    shortcut,
                    dz,
                    Some(step.conv2.z),
                )?;
                dev.conv_backward_data(
                    &step.conv2.conv,
                    g.dz1,
                    g.dy2,
                    net.weight(&block.conv2),
                    false,
                )?;
                dev.conv_backward_weight(
                    &step.conv2.conv,
                    net.grad(&block.conv2, 0),
                    None,
                    step.conv1.z,
                    g.dy2,
                )?;
                self.norm(
                    dev,
                    net,
                    &block.conv1,
                    &step.conv1,
                    g.dy1,
                    None,
                    g.dz1,
                    Some(step.conv1.z),
                )?;
                if let (Some(unit), Some(down), Some(ddown)) = (&block.down, &step.down, g.ddown) {
                    self.norm(dev, net, unit, down, ddown, None, g.dshortcut, None)?;
                    dev.conv_backward_data(&down.conv, g.dx, ddown, net.weight(unit), false)?;
                    dev.conv_backward_weight(&down.conv, net.grad(unit, 0), None, step.x, ddown)?;
                }
                dev.conv_backward_data(
                    &step.conv1.conv,
                    g.dx,
                    g.dy1,
                    net.weight(&block.conv1),
                    true,
                )?;
                dev.conv_backward_weight(
                    &step.conv1.conv,
                    net.grad(&block.conv1, 0),
                    None,
                    step.x,
                    g.dy1,
                )
            })?;
            dz = g.dx;
        }
        let argmax = self.argmax.expect("kept in Mode::Train");
        let (dgamma, dbeta) = (net.grad(&net.stem, 1), net.grad(&net.stem, 2));
        let params = net.norm(&net.stem);
        let (dx, x, saved) = (grads.dstem, self.stem_y, self.stem_saved);
        dev.stem_backward(&self.stem, dx, dgamma, dbeta, dz, argmax, x, saved, params)?;
        dev.conv_backward_weight(&self.stem_conv, net.grad(&net.stem, 0), None, self.x, grads.dstem)
    }

    /// dx of a unit's norm from dz.
    #[allow(clippy::too_many_arguments)]
    fn norm(
        &self,
        dev: &mut B,
        net: &Network<B>,
        unit: &Unit,
        step: &UnitStep<B>,
        dx: Slot<B::Act>,
        dresidual: Option<Slot<B::Act>>,
        dz: Slot<B::Act>,
        z: Option<Slot<B::Act>>,
    ) -> Result<()> {
        let grads =
            NormGrads { dx, dresidual, dgamma: net.grad(unit, 1), dbeta: net.grad(unit, 2) };
        dev.norm_backward(&step.norm, grads, dz, z, step.y, step.saved, net.norm(unit).gamma)
    }
}
