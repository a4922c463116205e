//! The plan of a run: what it will do and where its tensors will lie, before anything is allocated.

use crate::base::{Error, Result};
use crate::device::{Engine, Layout, Pool};
use crate::method::{self, Algorithm, Batching, EvalShape, Evaluator, PcaLaterals};
use crate::recipe::{Laterals, Recipe};
use crate::train::unseen::Unseen;
use crate::train::{SHOWN, Sets, Settings, checkpoint};

/// Bytes of memory that the pictures of a run and its report take: for each pixel of a picture (the
/// image, its prediction and its truth, drawn, encoded, and as the text of a page), and at least.
const PICTURE: usize = 40;
const PICTURES: usize = 8 << 20;

/// The plan of a run: its passes, and the place of each of its tensors.
pub struct RunPlan {
    /// The place of every tensor.
    pub(super) layout: Layout,
    /// The method's passes and steps.
    pub(super) method: Box<dyn Algorithm>,
    /// The computation of the pyramid's first weights, if the recipe has them from the images.
    pub(super) laterals: Option<PcaLaterals>,
    /// The evaluation after each epoch.
    pub(super) evaluator: Evaluator,
    /// Room for losses that have not been looked at.
    pub(super) unseen: Unseen,
}

impl RunPlan {
    /// The plan as text: the engine's choices, and the memory pool by pool.
    pub fn text(&self, dev: &dyn Engine) -> String {
        dev.choices().into_iter().chain([self.layout.to_string()]).collect::<Vec<_>>().join("\n")
    }

    /// The plan as JSON: the engine's choices, and the slots of each pool.
    pub fn json(&self, dev: &dyn Engine) -> serde_json::Value {
        serde_json::json!({ "choices": dev.choices(), "pools": self.layout.json() })
    }
}

/// Plans a run, without allocating anything. Fails on sizes that the engine cannot run.
pub fn plan(dev: &mut dyn Engine, settings: &Settings, sets: &Sets) -> Result<RunPlan> {
    let recipe = &settings.recipe;
    let images = sets.train.images().len();
    let mut layout = Layout::new(dev.dtype());
    let mut method = method::plan(dev, &mut layout, recipe, settings.seed, images)?;
    let net = &method.common().net;
    let laterals = match recipe.laterals {
        Laterals::Pca => Some(PcaLaterals::plan(dev, &mut layout, net, recipe, images)?),
        Laterals::Random => None,
    };
    let batching = Batching { images: sets.val.images().len(), batch: recipe.batch_cluster };
    let val = EvalShape { batching, size: recipe.eval_size };
    let classes = sets.val.classes();
    let evaluator = Evaluator::plan(dev, &mut layout, net, recipe, val, classes, None)?;
    let unseen = Unseen::plan(&mut layout, method.losses());
    method.common_mut().place_images(dev, &mut layout)?;
    layout.beside("a tensor that is saved, and its copy", checkpoint::cost(&*method).memory);
    layout.beside("pictures and the report", PICTURES + SHOWN * recipe.eval_size.pow(2) * PICTURE);
    // This slot is only for people who read the plan: engines allocate their scratch themselves.
    layout.take::<u8>(Pool::Scratch, "the largest op's", dev.scratch_bytes());
    Ok(RunPlan { layout, method, laterals, evaluator, unseen })
}

/// Adds to the error for a plan that is too large which batches would fit. Other errors stay as
/// they are.
pub(super) fn name_batches(e: Error, recipe: &Recipe) -> Error {
    let Error::Memory { share: Some(share), .. } = e else { return e };
    let part = |batch: usize| ((batch as f64 * share) as usize).max(1);
    let [batch, cluster] = [recipe.batch, recipe.batch_cluster].map(part);
    let remedy = format!(
        "--batch {batch} --batch-cluster {cluster} would fit; --size and --init-batches count too"
    );
    Error::input(e.to_string().split("; ").next().unwrap_or_default(), remedy)
}
