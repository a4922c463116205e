//! The ops. One file a family: its specs, the arguments of each op, what refuses them, what they
//! cost, and the door. The same stem names the bodies, the kernels, the test and the bench.
//!
//! Shapes use one alphabet: `n` images, `h`×`w` pixels, `c` channels in, `k` channels out or
//! clusters, `d` feature channels. All tensors are NHWC and contiguous. `=` overwrites, `+=` adds.
//! No two slots of a call may overlap.
//!
//! A door is a function: it refuses slots whose sizes do not fit
//! ([`Error::Shape`](crate::base::Error::Shape)), traces the op, and lets the engine's body run. A
//! body checks nothing: it takes [`Passed`] arguments, which only a door makes. Everything else
//! that can be refused is refused by the family's `plan_…`.

pub mod adam;
pub mod confusion;
pub mod conv;
pub mod head;
pub mod iic;
pub mod kmeans;
pub mod norm;
pub mod softmax;
pub mod stem;
pub mod top;
pub mod view;

pub use adam::{AdamSpec, AdamStep, AdamSync, ParamBlocks, adam_step, adam_sync};
pub use confusion::{ConfusionCount, confusion_count};
pub use conv::{
    ConvBackwardData, ConvBackwardWeight, ConvForward, ConvSpec, ConvUse, DataGrad, Epilogue,
    Terms, Uses, WeightGrad, conv_backward_data, conv_backward_weight, conv_forward, plan_conv,
};
pub use head::{
    Classifier, HeadAccumulate, HeadAssign, HeadFeatures, HeadInput, HeadLoss, HeadPredict,
    HeadScores, HeadScoresBackward, HeadSpec, Merge, Target, head_accumulate, head_assign,
    head_features, head_loss, head_predict, head_scores, head_scores_backward, plan_head,
};
pub use iic::{IicLoss, IicSpec, iic_loss, plan_iic};
pub use kmeans::{
    KMeansAccumulate, KMeansClassifier, KMeansMean, KMeansSpec, KMeansStep, Metric,
    kmeans_accumulate, kmeans_classifier, kmeans_mean, kmeans_step, plan_kmeans,
};
pub use norm::{
    NormBackward, NormFold, NormForward, NormParams, NormSpec, norm_backward, norm_fold,
    norm_forward, plan_norm,
};
pub use softmax::{
    SoftmaxBackward, SoftmaxForward, SoftmaxLabels, SoftmaxLoss, SoftmaxSpec, plan_softmax,
    softmax_backward, softmax_forward, softmax_loss,
};
pub use stem::{
    StemBackward, StemForward, StemInfer, StemSpec, plan_stem, stem_backward, stem_forward,
    stem_infer,
};
pub use top::{TopSpec, TopUpdate, plan_top, top_update};
pub use view::{Crop, Photo, ViewRender, ViewSobel, ViewSpec, plan_view, view_render, view_sobel};

use std::fmt;
use std::ops::Deref;

use crate::base::{Error, Result};
use crate::device::{Engine, Slot, Work, trace};

/// The bodies of all ops.
pub trait Bodies:
    view::View
    + conv::Conv
    + norm::Norm
    + stem::Stem
    + head::Head
    + softmax::Softmax
    + kmeans::KMeans
    + iic::Iic
    + adam::Adam
    + confusion::Confusion
    + top::Top
{
}
impl<E> Bodies for E where
    E: view::View
        + conv::Conv
        + norm::Norm
        + stem::Stem
        + head::Head
        + softmax::Softmax
        + kmeans::KMeans
        + iic::Iic
        + adam::Adam
        + confusion::Confusion
        + top::Top
{
}

/// What an engine will be asked to do: a family's spec, and the engine's number for what it made
/// of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plan<S> {
    pub spec: S,
    /// 0 where the engine keeps nothing.
    pub(super) number: usize,
}

/// The spec of ops that need no plan: all that there is to know stands in their arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Unplanned;

impl fmt::Display for Unplanned {
    fn fmt(&self, _: &mut fmt::Formatter) -> fmt::Result {
        Ok(())
    }
}

const UNPLANNED: Plan<Unplanned> = Plan { spec: Unplanned, number: 0 };

/// The arguments of an op.
pub trait Op {
    /// What its plan is made for. It displays as the shape that traces show.
    type Spec: fmt::Display;

    /// As traces, errors and profilers call it.
    const NAME: &'static str;

    /// Refuses slots of other sizes than the spec's, and what else no engine can run.
    fn check(&self, spec: &Self::Spec) -> Result<()>;

    /// What it must move and compute: its floor on perfect hardware.
    fn work(&self, spec: &Self::Spec) -> Work;

    /// The shape, as traces show it.
    fn shape(&self, spec: &Self::Spec) -> String {
        spec.to_string()
    }
}

/// Arguments that passed the door of their op, with the plan that they passed for.
pub struct Passed<'a, O: Op> {
    plan: &'a Plan<O::Spec>,
    args: &'a O,
}

impl<O: Op> Passed<'_, O> {
    pub fn spec(&self) -> &O::Spec {
        &self.plan.spec
    }

    /// The engine's number for the plan.
    pub(super) fn number(&self) -> usize {
        self.plan.number
    }
}

impl<O: Op> Deref for Passed<'_, O> {
    type Target = O;

    fn deref(&self) -> &O {
        self.args
    }
}

/// What every door does.
fn door<'a, O: Op>(
    dev: &mut dyn Engine,
    plan: &'a Plan<O::Spec>,
    args: &'a O,
    body: impl FnOnce(&mut dyn Engine, Passed<'a, O>) -> Result<()>,
) -> Result<()> {
    args.check(&plan.spec)?;
    let (shape, work) = (|| args.shape(&plan.spec), || args.work(&plan.spec));
    trace::op(dev, O::NAME, shape, work, |dev| body(dev, Passed { plan, args }))
}

/// Refuses a slot of another length.
fn want<T>(op: &'static str, what: &'static str, slot: Slot<T>, len: usize) -> Result<()> {
    if slot.len == len { Ok(()) } else { Err(Error::Shape { op, what, got: slot.len, want: len }) }
}

/// As [`want`], where there is one.
fn want_if<T>(
    op: &'static str,
    what: &'static str,
    slot: Option<Slot<T>>,
    len: usize,
) -> Result<()> {
    slot.map_or(Ok(()), |slot| want(op, what, slot, len))
}

/// Refuses a call that its plan was not made for.
fn planned<T: PartialEq + fmt::Debug>(op: &str, asked: T, planned: T) -> Result<()> {
    if asked == planned {
        return Ok(());
    }
    Err(Error::input(
        format!("{op} is asked for {asked:?}, its plan was made for {planned:?}"),
        "plan what is asked for",
    ))
}
