//! The ops, one file a family: its specs, the arguments of each op with their checks and their
//! cost, and the door. The file's stem also names the bodies (cpu/, cuda/), the kernels, the test
//! and the bench.
//!
//! Shapes use one alphabet: `n` images, `h`×`w` pixels, `c` channels in, `k` channels out or
//! clusters, `d` feature channels. All tensors are contiguous, in the order NHWC. In the arguments,
//! `=` marks a slot that the op overwrites and `+=` one that it adds to; it only reads the others,
//! unless their text says more. No two slots of a call may overlap.
//!
//! An op's door is the function that callers use. It refuses slots whose sizes do not fit
//! ([`Error::Shape`](crate::base::Error::Shape)), traces the op, and runs the engine's body. A body
//! checks nothing: it takes [`Passed`] arguments, which only a door can make. Sizes that cannot be
//! run are refused earlier, by the family's `plan_…`.

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
    NormBackward, NormFold, NormForward, NormGate, NormGrads, NormParams, NormSpec, NormStatistics,
    Normed, Residual, ResidualGrad, norm_backward, norm_fold, norm_forward, norm_statistics,
    plan_norm,
};
pub use softmax::{
    SoftmaxBackward, SoftmaxForward, SoftmaxLabels, SoftmaxLoss, SoftmaxSpec, plan_softmax,
    softmax_backward, softmax_forward, softmax_loss,
};
pub use stem::{
    StemBackward, StemForward, StemInfer, StemMaxima, StemSpec, plan_stem, stem_backward,
    stem_forward, stem_infer,
};
pub use top::{TopSpec, TopUpdate, plan_top, top_update};
pub use view::{
    Crop, KeptViews, Photo, ViewRender, ViewSobel, ViewSpec, plan_view, view_render, view_sobel,
};

use std::fmt;
use std::ops::Deref;

use crate::base::{Error, Result};
use crate::device::{Engine, Slot, Work, trace};

macro_rules! bodies {
    ($($family:path),+ $(,)?) => {
        /// The bodies of all ops, which every engine implements.
        pub trait Bodies: $($family +)+ {}
        impl<E: $($family +)+> Bodies for E {}
    };
}

bodies!(
    adam::AdamOps,
    confusion::ConfusionOps,
    conv::ConvOps,
    head::HeadOps,
    iic::IicOps,
    kmeans::KMeansOps,
    norm::NormOps,
    softmax::SoftmaxOps,
    stem::StemOps,
    top::TopOps,
    view::ViewOps,
);

/// A promise of calls of a family's ops: their spec, and the engine's own number for what it
/// prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plan<S> {
    /// The sizes, and what else the calls have in common.
    pub spec: S,
    /// The engine's number for what it prepared; 0 if it keeps nothing.
    pub(super) number: usize,
}

/// The spec of ops that need no plan, because their arguments say everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Unplanned;

impl fmt::Display for Unplanned {
    fn fmt(&self, _: &mut fmt::Formatter) -> fmt::Result {
        Ok(())
    }
}

/// The plan of all ops that need none.
const UNPLANNED: Plan<Unplanned> = Plan { spec: Unplanned, number: 0 };

/// The arguments of an op.
pub trait Op {
    /// The spec that its plan is made for. Displayed, it is the shape that traces show.
    type Spec: fmt::Display;

    /// The op's name in traces, errors and profilers.
    const NAME: &'static str;

    /// Fails if a slot's size differs from the spec's, or if the call is one that no engine can
    /// run.
    fn check(&self, spec: &Self::Spec) -> Result<()>;

    /// The bytes that the op must move and the FLOPs that it must compute, however it is
    /// implemented.
    fn work(&self, spec: &Self::Spec) -> Work;

    /// The shape that traces show.
    fn shape(&self, spec: &Self::Spec) -> String {
        spec.to_string()
    }
}

/// Arguments that the door has checked, with the plan that they fit. Bodies take these.
pub struct Passed<'a, O: Op> {
    plan: &'a Plan<O::Spec>,
    args: &'a O,
}

impl<O: Op> Passed<'_, O> {
    /// The spec that the arguments fit.
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

/// The work of every door: checks `args`, and runs `body` under the trace.
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

/// Fails with [`Error::Shape`] if the slot, which is called `what`, does not have `len` elements.
fn want<T>(op: &'static str, what: &'static str, slot: Slot<T>, len: usize) -> Result<()> {
    if slot.len == len { Ok(()) } else { Err(Error::Shape { op, what, got: slot.len, want: len }) }
}

/// Like [`want`], for a slot that may be missing.
fn want_if<T>(
    op: &'static str,
    what: &'static str,
    slot: Option<Slot<T>>,
    len: usize,
) -> Result<()> {
    slot.map_or(Ok(()), |slot| want(op, what, slot, len))
}

/// Fails if a call asks for something other than its plan was made for.
fn planned<T: PartialEq + fmt::Debug>(op: &str, asked: T, planned: T) -> Result<()> {
    if asked == planned {
        return Ok(());
    }
    Err(Error::input(
        format!("{op} is asked for {asked:?}, its plan was made for {planned:?}"),
        "plan what is asked for",
    ))
}
