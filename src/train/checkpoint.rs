//! The state of a run as one safetensors file: parameters by torchvision's names, Adam's moments,
//! centroids, and the place in the epoch.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::base::say::warn;
use crate::base::{Error, Result};
use crate::cluster::Summary;
use crate::data::Fingerprint;
use crate::device::Engine;
use crate::eval::Segment;
use crate::eval::epochs::Score;
use crate::method::{Algorithm, PseudoLabels};
use crate::net::weights::{self, Data, Origin, Provenance, Source, Weights};
use crate::net::{FEATURES, Saved};
use crate::recipe::Recipe;
use crate::train::run::{Settings, upright};

/// The phase of an epoch that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// k-means of each view.
    KMeans,
    /// Pseudo labels of each view.
    Labels,
    /// Training steps, and the evaluation after them.
    Train,
}

/// Everything in a checkpoint that is not a tensor, stored as JSON.
///
/// NOTE: at the beginning of an epoch it holds no times, so that the files of a resumed run have
/// the same bytes as those of an uninterrupted one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The run's hyperparameters.
    pub recipe: Recipe,
    /// The run's seed.
    pub seed: u64,
    /// The weights that the network started from.
    pub start: Provenance,
    /// The training images.
    #[serde(flatten)]
    pub set: Fingerprint,
    /// Whether they were turned upright as their EXIF orientation says. Checkpoints of older
    /// versions do not say: the images were.
    #[serde(default = "upright")]
    pub exif: bool,
    /// The present epoch, counted from 1.
    pub epoch: usize,
    /// The phase of the epoch that comes next, or is under way.
    pub phase: Phase,
    /// Number of training steps that are done in this epoch.
    pub step: usize,
    /// Number of training steps that are done in the whole run.
    pub adam_step: u64,
    /// For each loss, by name: its sum over this epoch's steps, weighted by their images, and the
    /// number of these images.
    pub losses: BTreeMap<String, [f64; 2]>,
    /// The results of this epoch's k-means, by view.
    pub kmeans: Vec<Summary>,
    /// The score before any training.
    pub untrained: Option<Score>,
    /// Seconds spent in this epoch's k-means, label and training phases so far.
    pub seconds: [f64; 3],
    /// What each cluster is called and drawn in: since the last epoch that was evaluated on labels,
    /// as the class that it is. Checkpoints of older versions do not say: clusters have no names.
    #[serde(default)]
    pub segments: Vec<Segment>,
}

impl State {
    /// The state at the beginning of a run with these settings, on the images `set`.
    pub fn begin(settings: &Settings, set: Fingerprint) -> Self {
        State {
            recipe: settings.recipe.clone(),
            seed: settings.seed,
            start: settings.start.clone(),
            set,
            exif: settings.exif,
            epoch: 1,
            phase: Phase::KMeans,
            step: 0,
            adam_step: 0,
            losses: BTreeMap::new(),
            kmeans: Vec::new(),
            untrained: None,
            seconds: [0.0; 3],
            segments: Segment::unnamed(settings.recipe.clusters),
        }
    }

    /// The state at the beginning of the next epoch.
    pub fn next(&self) -> Self {
        State {
            epoch: self.epoch + 1,
            phase: Phase::KMeans,
            step: 0,
            losses: BTreeMap::new(),
            kmeans: Vec::new(),
            untrained: None,
            seconds: [0.0; 3],
            ..self.clone()
        }
    }
}

/// The pseudo labels of a method, with their names in the file. Empty if the method has none.
fn pseudo(method: &dyn Algorithm) -> Vec<(String, PseudoLabels)> {
    let views = method.clustering().map(|clustering| clustering.pseudo()).unwrap_or_default();
    let name = |view: usize, which: usize| format!("{}{}", ["", "auxiliary"][which], view + 1);
    let each = |(view, all): (usize, &Vec<PseudoLabels>)| {
        all.iter()
            .enumerate()
            .map(move |(which, pseudo)| (name(view, which), *pseudo))
            .collect::<Vec<_>>()
    };
    views.iter().enumerate().flat_map(each).collect()
}

/// The tensors that evaluation needs: weights, running statistics, centroids and learned
/// classifiers.
fn evaluable(method: &dyn Algorithm) -> Vec<Saved> {
    let mut tensors = method.common().net.saved();
    tensors.extend(pseudo(method).into_iter().map(|(name, pseudo)| {
        let (name, k) = (format!("classifier{name}.weight"), pseudo.scorer.k());
        Saved::floats(name, vec![k, FEATURES, 1, 1], pseudo.scorer.centroids)
    }));
    for (name, learned) in method.learned() {
        tensors.extend(learned.saved(name).into_iter().take(2));
    }
    tensors
}

/// The tensors that resuming needs. `labelled`: there are pseudo labels.
fn resumable(method: &dyn Algorithm, labelled: bool) -> Vec<Saved> {
    let mut tensors = evaluable(method);
    tensors.extend(method.common().net.moments());
    for (name, learned) in method.learned() {
        tensors.extend(learned.saved(name).into_iter().skip(2));
    }
    if labelled {
        let side = method.common().recipe.feature_side();
        for (name, PseudoLabels { labels, counts, .. }) in pseudo(method) {
            let shape = vec![labels.len / (side * side), side, side];
            tensors.push(Saved::labels(format!("labels{name}"), shape, labels));
            tensors.push(Saved::counts(format!("label_counts{name}"), counts));
        }
    }
    tensors
}

/// What saving takes, in bytes.
pub(super) struct Cost {
    /// Host memory beside the plan.
    pub memory: usize,
    /// The checkpoint, which is the largest file.
    pub checkpoint: usize,
    /// The file of an epoch.
    pub epoch: usize,
}

/// What it takes to save a run of this method.
pub(super) fn cost(method: &dyn Algorithm) -> Cost {
    let tensors = resumable(method, true);
    let bytes = |tensors: &[Saved]| tensors.iter().map(Saved::bytes).sum();
    Cost {
        memory: tensors.iter().map(Saved::copied).max().unwrap_or(0),
        checkpoint: bytes(&tensors),
        epoch: bytes(&evaluable(method)),
    }
}

fn metadata(state: &State) -> BTreeMap<String, String> {
    let text = serde_json::to_string(state).expect("a state is plain data");
    BTreeMap::from([("picie".into(), text)])
}

/// Writes the file of an epoch, which has everything that evaluation needs.
pub fn save_epoch(
    path: &Path,
    dev: &mut dyn Engine,
    method: &dyn Algorithm,
    state: &State,
) -> Result<()> {
    crate::net::save(path, dev, &evaluable(method), &metadata(state))
}

/// Writes the checkpoint, which has everything that resuming needs.
pub fn save(
    path: &Path,
    dev: &mut dyn Engine,
    method: &dyn Algorithm,
    state: &State,
) -> Result<()> {
    let tensors = resumable(method, state.phase == Phase::Train);
    crate::net::save(path, dev, &tensors, &metadata(state))
}

/// The checkpoint of a run, on the host.
pub struct Checkpoint<'a> {
    path: &'a Path,
    weights: Weights,
    /// Everything that is not a tensor.
    pub state: State,
}

/// Reads a checkpoint that [`save`] wrote. Fails if the file is damaged, or if its recipe, seed or
/// data set are not those of this run.
pub fn read<'a>(
    path: &'a Path,
    recipe: &Recipe,
    seed: u64,
    set: Fingerprint,
) -> Result<Checkpoint<'a>> {
    let (weights, origin) = weights::load(path, &crate::net::expected(recipe.architecture))?;
    let state = state(path, &weights, origin)?;
    let other = |what: &str| {
        Err(Error::file(
            path,
            format!("the checkpoint is of another {what}"),
            "resume it with the same settings, or start a new --run",
        ))
    };
    // The first weights may have moved, and a run may be given more epochs.
    let lasting =
        |of: &Recipe| Recipe { weights: Source::None, epochs: recipe.epochs, ..of.clone() };
    if lasting(&state.recipe) != lasting(recipe) {
        return other("recipe");
    }
    if state.seed != seed {
        return other("seed");
    }
    if state.set.images != set.images {
        let (images, now) = (state.set.images, set.images);
        return other(&format!("data set ({images} images, now {now})"));
    }
    if !state.set.same_names(&set) {
        return other("data set (as many images, but not of the same names)");
    }
    if state.set.content.is_some_and(|content| Some(content) != set.content) {
        warn(format_args!(
            "warning: {}: since it was written images have changed under their names; the run goes \
             on with what they are now",
            path.display()
        ));
    }
    let segments = Segment::completed(state.segments, state.recipe.clusters);
    let weights_from = state.recipe.weights.clone();
    let recipe = Recipe { weights: weights_from, ..recipe.clone() };
    let state = State { set, recipe, segments, ..state };
    Ok(Checkpoint { path, weights, state })
}

impl Checkpoint<'_> {
    /// Writes the tensors to the device, and returns the state. Fails if a tensor is missing, or
    /// cannot be what it claims.
    pub fn restore(self, dev: &mut dyn Engine, method: &dyn Algorithm) -> Result<State> {
        let Checkpoint { path, weights, state } = self;
        let labelled = state.phase == Phase::Train;
        let damaged = |name: &str, what: &str| {
            Error::file(path, format!("{name} {what}"), "remove this file: the run begins anew")
        };
        // Steps are counted in the epoch and in the whole run.
        let steps = state.set.images.div_ceil(state.recipe.batch.max(1)) * method.rounds();
        let done = state.epoch.checked_sub(1).and_then(|epochs| epochs.checked_mul(steps));
        let done = done.and_then(|done| done.checked_add(state.step));
        if state.step > if labelled { steps } else { 0 }
            || done.map(|done| done as u64) != Some(state.adam_step)
        {
            return Err(damaged("its number of steps", "is not one of this run"));
        }
        for saved in resumable(method, labelled) {
            if !weights.tensors.get(&saved.name).is_some_and(|tensor| saved.takes(tensor)) {
                return Err(damaged(&saved.name, "is missing or of another kind"));
            }
        }
        method.common().net.load(dev, &weights)?;
        method.common().net.load_moments(dev, &weights)?;
        for (name, learned) in method.learned() {
            learned.load(dev, name, &weights)?;
        }
        for (name, pseudo) in pseudo(method) {
            let data = |name: &String| &weights.tensors[name].data;
            if let Data::F32(centroids) = data(&format!("classifier{name}.weight")) {
                dev.write(pseudo.scorer.centroids, centroids)?;
            }
            let names = [format!("labels{name}"), format!("label_counts{name}")];
            if labelled && let [Data::U16(labels), Data::I64(counts)] = names.each_ref().map(data) {
                if labels.iter().any(|&label| usize::from(label) >= pseudo.scorer.k()) {
                    return Err(damaged(&names[0], "holds a label that no cluster has"));
                }
                let mut found = vec![0u32; pseudo.scorer.k()];
                labels.iter().for_each(|&label| found[usize::from(label)] += 1);
                if !counts.iter().copied().eq(found.iter().map(|&count| i64::from(count))) {
                    return Err(damaged(&names[1], "does not count its labels"));
                }
                dev.write(pseudo.labels, labels)?;
                dev.write(pseudo.counts, &found)?;
            }
        }
        Ok(state)
    }
}

/// The state in a file that this program wrote. Fails on other files.
pub(super) fn state(path: &Path, weights: &Weights, origin: Origin) -> Result<State> {
    match (origin, weights.metadata.get("picie")) {
        (Origin::Picie, Some(text)) => serde_json::from_str(text).map_err(|e| {
            Error::file(
                path,
                format!("not a checkpoint of this version of picie ({e})"),
                "train again, or use the version that wrote it",
            )
        }),
        _ => Err(Error::file(
            path,
            "these are weights, not the checkpoint of a run",
            "give them to --weights of a new run",
        )),
    }
}
