//! The loop of a run: k-means, labels, training and evaluation of each epoch, the saving of
//! checkpoints, and the handling of Ctrl-C.

mod about;
mod batches;
mod checkpoint;
mod epoch;
mod epoch_end;
mod finite;
mod measure;
mod observer;
mod outlook;
mod plan;
mod rewrite;
mod run;
mod trained;
mod unseen;

pub use about::about;
pub use measure::{EpochSeconds, Measured};
pub use observer::Observer;
pub use plan::{RunPlan, plan};
pub use rewrite::{rename, save_centroids};
pub use run::{Begun, Computed, Host, RunFolder, Settings};
pub use trained::{Loaded, Trained};
pub use unseen::MOST as MOST_UNSEEN;

use std::time::Instant;

use crate::base::say::warn;
use crate::base::{Error, Result};
use crate::data::PictureSet;
use crate::device::Engine;
use crate::eval::epochs::{self, EpochRow};
use crate::eval::{Confusion, Segment};
use crate::method::PcaLaterals;
use crate::net::weights::Start;
use crate::train::checkpoint::State;
use crate::train::epoch::Trainer;
use crate::train::observer::ticker;
use crate::train::plan::name_batches;

/// The data sets of a run.
pub struct Sets {
    /// The images to learn from.
    pub train: PictureSet,
    /// The images to make pictures of, and, if they have labels, to evaluate on.
    pub val: PictureSet,
}

/// The number of validation images of which pictures are made.
pub const SHOWN: usize = 6;

/// What the network makes of the validation images, from which scores and pictures follow.
pub struct Seen {
    /// The confusion matrix of all images. `None`: they have no labels.
    pub confusion: Option<Confusion>,
    /// The numbers of n ≤ [`SHOWN`] images that are spread over all.
    pub shown: Vec<usize>,
    /// The clusters (n, S, S) of these.
    pub clusters: Vec<u16>,
    /// What each cluster is called and drawn in.
    pub segments: Vec<Segment>,
}

/// The result of a finished run.
pub struct Outcome {
    /// What the trained network makes of the validation images.
    pub seen: Seen,
    /// The rows of `metrics.jsonl` for all epochs.
    pub rows: Vec<EpochRow>,
}

/// Trains to the end of the recipe's epochs, from the weights of `start`, or with `resume` from the
/// folder's checkpoint if there is one. The settings are written once everything is known to be in
/// order, so that an error before that leaves nothing behind. Fails if memory does not suffice, a
/// file cannot be written, the checkpoint belongs to other settings or data, or a loss is not
/// finite; and with [`Error::Interrupted`](crate::base::Error::Interrupted) after the state was
/// saved, if the user asked to stop.
pub fn train(
    dev: &mut dyn Engine,
    folder: &RunFolder,
    settings: &Settings,
    sets: &Sets,
    start: &Start,
    resume: bool,
    watch: &mut dyn Observer,
) -> Result<Outcome> {
    let recipe = &settings.recipe;
    let plan = plan(dev, settings, sets)?;
    let text = plan.text(dev);
    outlook::of(recipe, sets.train.images(), plan.layout.total_bytes())
        .iter()
        .for_each(|line| watch.note(line));
    let RunPlan { layout, mut method, laterals, evaluator, unseen } = plan;
    let images = [&sets.train, &sets.val].map(|set| set.images().fingerprint());
    let set = images[0];
    // Read before memory is reserved, so that what it takes counts.
    let checkpoint = folder.checkpoint();
    let saved = (resume && checkpoint.exists())
        .then(|| checkpoint::read(&checkpoint, recipe, settings.seed, set))
        .transpose()?;
    settings.check_images(&images)?;
    let begun = saved.as_ref().map_or(1, |saved| saved.state.epoch);
    let left = (recipe.epochs + 1).saturating_sub(begun);
    if left > 0 {
        // A checkpoint is written beside the one before, and each epoch has a file.
        let checkpoint::Cost { checkpoint: bytes, epoch, .. } = checkpoint::cost(&*method);
        let checkpoints = bytes * if checkpoint.exists() { 1 } else { 2 };
        let all = checkpoints.saturating_add(
            epoch.saturating_mul(folder.keep.map_or(left, |keep| left.min(keep + 1))),
        );
        folder.check_room(bytes as u64, all as u64)?;
    }
    dev.reserve(&layout).map_err(|e| name_batches(e, recipe))?;
    method.common_mut().load_images(dev, sets.train.images())?;
    method.init(dev)?;
    let state = if let Some(saved) = saved {
        saved.restore(dev, &*method)?
    } else {
        // ImageNet weights have no pyramid: it keeps its random weights, or gets some computed from
        // the images.
        if let Some(weights) = &start.weights {
            method.common().net.load(dev, weights)?;
        }
        if let Some(laterals) = laterals.filter(|_| !start.has_laterals()) {
            watch.begin("laterals", PcaLaterals::images(recipe, set.images));
            laterals.fit(dev, method.common_mut(), sets.train.images(), &mut ticker(watch))?;
            watch.end();
        }
        State::begin(settings, set)
    };
    // A run that goes on may have found its images or first weights in another place.
    let engine = Some(Computed::by(dev));
    let settings = Settings { images: Some(images), engine, ..settings.clone() };
    if !resume || folder.read_settings()? != settings {
        folder.write_settings(&settings)?;
    }
    folder.write_plan(&text)?;
    epochs::truncate_from(&folder.metrics(), state.epoch)?;
    let (seen, started) = (None, Instant::now());
    let goes_on = state.epoch <= recipe.epochs;
    let mut trainer = Trainer { dev, sets, folder, watch, method, evaluator, unseen, state, seen };
    let mut done = Ok(());
    while done.is_ok() && trainer.state.epoch <= recipe.epochs {
        trainer.dev.enter(&format!("epoch {}", trainer.state.epoch));
        done = trainer.epoch();
        trainer.dev.leave();
    }
    if goes_on && matches!(done, Ok(()) | Err(Error::Interrupted { .. })) {
        let seconds = settings.seconds + started.elapsed().as_secs_f64();
        // The run is saved already, and its duration is for readers.
        if let Err(e) = folder.write_settings(&Settings { seconds, ..settings }) {
            warn(format_args!("warning: run.json does not say how long the run took: {e}"));
        }
    }
    done?;
    let seen = match trainer.seen.take() {
        Some(seen) => seen,
        // No epoch was left.
        None => trainer.see().map_err(|e| folder.kept(e))?,
    };
    Ok(Outcome { seen, rows: epochs::read(&folder.metrics())? })
}
