//! Launchers of `cuda/head_loss.cu`: cross-entropy against the targets and its gradient down to the
//! laterals.
//!
//! Scratch behind o3: Σ w[y] (n, targets) | shares (views, targets) | losses of tiles (n·tiles,
//! targets) | dF of warped images (n, h, w, d).

use bytemuck::{Pod, Zeroable};

use super::{HeadPlan, THREADS, TILE_BYTES, WARPS, aligned, gradient};
use crate::base::Result;
use crate::device::cuda::context::{Arg, Cuda, Grid, Kernel};
use crate::device::ops::head::MOST_TARGETS;
use crate::device::ops::{HeadInput, LossInput};
use crate::device::{Activation, Slot};

#[derive(Clone)]
pub(super) struct Kernels {
    weigh: Kernel,
    shares: Kernel,
    loss: Kernel,
    losses: Kernel,
}

/// `Target` of cuda/head_loss.cu.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct TargetArg {
    w: u64,
    b: u64,
    weights: u64,
    labels: u64,
    k: i32,
    scale: f32,
}

/// `Targets` of cuda/head_loss.cu.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Targets {
    at: [TargetArg; MOST_TARGETS],
    index: u64,
    count: i32,
    images: i32,
    view: i32,
    pixels: i32,
}

impl<A: Activation> Cuda<A> {
    pub(super) fn plan_head_loss(&mut self) -> Result<Kernels> {
        let kernels = Kernels {
            weigh: self.kernel("head_weigh")?,
            shares: self.kernel("head_shares")?,
            loss: self.kernel("head_loss")?,
            losses: self.kernel("head_losses")?,
        };
        self.allow_shared(kernels.loss, TILE_BYTES)?;
        Ok(kernels)
    }

    fn targets(&self, plan: &HeadPlan, loss: &LossInput, images: usize) -> Targets {
        let (view, pixels) = (loss.view as i32, plan.spec.pixels() as i32);
        let (count, images) = (loss.targets.len() as i32, images as i32);
        let mut targets = Targets {
            index: self.address(loss.index),
            count,
            images,
            view,
            pixels,
            ..Zeroable::zeroed()
        };
        for (arg, target) in targets.at.iter_mut().zip(loss.targets) {
            *arg = TargetArg {
                w: self.address(target.classifier.w),
                b: self.address(target.classifier.b),
                weights: self.address(target.weights),
                labels: self.address(target.labels),
                k: target.classifier.k as i32,
                scale: target.scale,
            };
        }
        targets
    }
}

impl HeadPlan {
    /// Bytes where the parts of the scratch begin, and where the last ends.
    fn loss_parts(&self, act: usize) -> [usize; 5] {
        let numbers = |n: usize| aligned(MOST_TARGETS * n * 4);
        let weights = self.o3;
        let shares = weights + numbers(self.spec.n);
        let partial = shares + numbers(self.spec.n);
        let warped = partial + numbers(self.spec.n * self.tiles());
        [weights, shares, partial, warped, warped + self.spec.lateral_len(0) * act]
    }

    pub(super) fn loss_scratch(&self, act: usize) -> usize {
        self.loss_parts(act)[4]
    }
}

pub(super) fn head_loss<A: Activation>(
    dev: &mut Cuda<A>,
    plan: &HeadPlan,
    losses: Slot<f32>,
    dlaterals: [Slot<A>; 4],
    input: HeadInput<A>,
    loss: LossInput,
) -> Result<()> {
    let (spec, kernels, count) = (&plan.spec, &plan.loss, loss.targets.len());
    let images = spec.check_loss(losses, dlaterals, &input, &loss)?;
    let (n, tiles, targets) = (spec.n, plan.tiles(), dev.targets(plan, &loss, images));
    let [weights, shares, partial, warped, _] = plan.loss_parts(size_of::<A>());
    let weights = dev.at(dev.scratch::<f32>(weights, count * n)?);
    let shares = dev.at(dev.scratch::<f32>(shares, count * n)?);
    let partial = dev.at(dev.scratch::<f32>(partial, count * n * tiles)?);
    let dwarped = dev.scratch::<A>(warped, spec.lateral_len(0))?;
    let view = Arg::from(loss.view);

    dev.launch(kernels.weigh, Grid::new((n, count), THREADS), &[weights, Arg::by_value(&targets)])?;
    dev.launch(kernels.shares, Grid::new(1, 32), &[shares, weights, n.into(), view, count.into()])?;
    let laterals = dev.merge(plan, &input)?;
    let (laterals, targets) = (Arg::by_value(&laterals), Arg::by_value(&targets));
    let args = [partial, dev.at(dlaterals[0]), dev.at(dwarped), shares, laterals, targets];
    dev.launch(kernels.loss, plan.grid().shared(TILE_BYTES), &args)?;
    let args = [dev.at(losses), partial, shares, n.into(), tiles.into(), view, count.into()];
    dev.launch(kernels.losses, Grid::new(n.div_ceil(WARPS), THREADS), &args)?;
    gradient::to_laterals(dev, plan, dlaterals, dwarped, input.crops)
}
