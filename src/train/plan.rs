//! What a run will do and where its tensors will lie, before anything is allocated.

use crate::base::{Error, Result};
use crate::device::ops::Backend;
use crate::device::{Layout, Pool};
use crate::method::{self, Evaluator, Method, PcaLaterals, TrainSet};
use crate::recipe::{Laterals, Recipe};
use crate::train::kept::Kept;
use crate::train::{Sets, Settings};

/// What a run will do, and where every tensor of it will lie.
pub struct Plan<'a, B: Backend> {
    pub(super) layout: Layout,
    pub(super) method: Box<dyn Method<B> + 'a>,
    pub(super) laterals: Option<PcaLaterals<B>>,
    pub(super) evaluator: Evaluator<B>,
    pub(super) kept: Kept,
}

impl<B: Backend> Plan<'_, B> {
    /// What the engine chose, and the memory, pool by pool.
    pub fn text(&self, dev: &B) -> String {
        dev.choices().into_iter().chain([self.layout.to_string()]).collect::<Vec<_>>().join("\n")
    }
}

/// Nothing is allocated yet.
pub fn plan<'a, B: Backend + 'a>(
    dev: &mut B,
    settings: &Settings,
    sets: &Sets,
) -> Result<Plan<'a, B>> {
    let recipe = &settings.recipe;
    let images = sets.train.images().len();
    let (mut layout, (method, laterals, evaluator, kept)) =
        method::plan_images(dev, |dev, layout, resident| {
            let method =
                method::plan(dev, layout, recipe, settings.seed, TrainSet { images, resident })?;
            let net = &method.common().net;
            let laterals = match recipe.laterals {
                Laterals::Pca => Some(PcaLaterals::plan(dev, layout, net, recipe, images)?),
                Laterals::Random => None,
            };
            let val = (sets.val.images().len(), recipe.batch_cluster, recipe.eval_size);
            let evaluator =
                Evaluator::plan(dev, layout, net, recipe, val, sets.val.classes(), None)?;
            let kept = Kept::plan(layout, method.losses());
            Ok((method, laterals, evaluator, kept))
        })?;
    // Only for the plan's readers: engines reserve their scratch by themselves.
    layout.take::<u8>(Pool::Scratch, "the largest op's", dev.scratch_bytes());
    Ok(Plan { layout, method, laterals, evaluator, kept })
}

/// Says of a plan that is too large which batches would fit.
pub(super) fn name_batches(e: Error, recipe: &Recipe) -> Error {
    let Error::Memory { share: Some(share), .. } = e else { return e };
    let part = |batch: usize| ((batch as f64 * share) as usize).max(1);
    let [batch, cluster] = [recipe.batch, recipe.batch_cluster].map(part);
    let remedy = format!(
        "--batch {batch} --batch-cluster {cluster} would fit; --size and --init-batches count too"
    );
    Error::input(e.to_string().split("; ").next().unwrap_or_default(), remedy)
}
