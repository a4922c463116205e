//! The state of a run as one safetensors file: parameters by torchvision's names, Adam's moments,
//! centroids, and the place in the epoch.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::base::say::{quoted, warn};
use crate::base::{Error, Result};
use crate::cluster::{Scorer, Summary};
use crate::data::Fingerprint;
use crate::device::ops::Classifier;
use crate::device::{Engine, Layout};
use crate::eval::epochs::Score;
use crate::method::{Algorithm, PseudoLabels};
use crate::net::weights::{self, Data, Origin, Provenance, Source, Tensor, Weights};
use crate::net::{Architecture, FEATURES, Network};
use crate::recipe::{self, Recipe};

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
}

impl State {
    /// The state at the beginning of a run on the data set `data`.
    pub fn begin(recipe: Recipe, seed: u64, start: Provenance, set: Fingerprint) -> Self {
        State {
            recipe,
            seed,
            start,
            set,
            epoch: 1,
            phase: Phase::KMeans,
            step: 0,
            adam_step: 0,
            losses: BTreeMap::new(),
            kmeans: Vec::new(),
            untrained: None,
            seconds: [0.0; 3],
        }
    }

    /// The state at the beginning of the next epoch.
    pub fn next(&self) -> Self {
        let fresh = State::begin(self.recipe.clone(), self.seed, self.start.clone(), self.set);
        State { epoch: self.epoch + 1, adam_step: self.adam_step, ..fresh }
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
/// classifiers; and the state.
fn evaluable(dev: &mut dyn Engine, method: &dyn Algorithm, state: &State) -> Result<Weights> {
    let mut weights = Weights::default();
    method.common().net.save(dev, &mut weights)?;
    for (name, pseudo) in pseudo(method) {
        let tensor = Tensor::from_f32(
            vec![pseudo.scorer.k(), FEATURES, 1, 1],
            dev.read(pseudo.scorer.centroids)?,
        );
        weights.tensors.insert(format!("classifier{name}.weight"), tensor);
    }
    for (name, learned) in method.learned() {
        learned.save(dev, name, &mut weights)?;
    }
    let text = serde_json::to_string(state).expect("a state is plain data");
    weights.metadata.insert("picie".into(), text);
    Ok(weights)
}

/// Writes the file of an epoch, which has everything that evaluation needs.
pub fn save_epoch(
    path: &Path,
    dev: &mut dyn Engine,
    method: &dyn Algorithm,
    state: &State,
) -> Result<()> {
    weights::write(path, &evaluable(dev, method, state)?)
}

/// Writes the checkpoint, which has everything that resuming needs.
pub fn save(
    path: &Path,
    dev: &mut dyn Engine,
    method: &dyn Algorithm,
    state: &State,
) -> Result<()> {
    let mut weights = evaluable(dev, method, state)?;
    let common = method.common();
    common.net.save_moments(dev, &mut weights)?;
    for (name, learned) in method.learned() {
        learned.save_moments(dev, name, &mut weights)?;
    }
    if state.phase == Phase::Train {
        let side = common.recipe.feature_side();
        for (name, pseudo) in pseudo(method) {
            let (labels, counts) = (dev.read(pseudo.labels)?, dev.read(pseudo.counts)?);
            let shape = vec![state.set.images, side, side];
            weights
                .tensors
                .insert(format!("labels{name}"), Tensor { shape, data: Data::U16(labels) });
            let counts = counts.into_iter().map(i64::from).collect::<Vec<_>>();
            let tensor = Tensor { shape: vec![counts.len()], data: Data::I64(counts) };
            weights.tensors.insert(format!("label_counts{name}"), tensor);
        }
    }
    weights::write(path, &weights)
}

/// Reads a checkpoint that [`save`] wrote, writes its tensors to the device, and returns the state.
/// Fails if the file is damaged, or if its recipe, seed or data set are not those of this run.
pub fn load(
    path: &Path,
    dev: &mut dyn Engine,
    method: &dyn Algorithm,
    recipe: &Recipe,
    seed: u64,
    set: Fingerprint,
) -> Result<State> {
    let (weights, origin) = weights::load(path, &crate::net::expected(recipe.architecture))?;
    let state = state(path, &weights, origin)?;
    let other = |what: &str| {
        Err(Error::file(
            path,
            format!("the checkpoint is of another {what}"),
            "resume it with the same settings, or start a new --run",
        ))
    };
    // The first weights may have moved.
    let weights_of = |recipe: &Recipe| Recipe { weights: Source::None, ..recipe.clone() };
    if weights_of(&state.recipe) != weights_of(recipe) {
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
    method.common().net.load(dev, &weights)?;
    method.common().net.load_moments(dev, &weights)?;
    for (name, learned) in method.learned() {
        learned.load(dev, name, &weights)?;
    }
    for (name, pseudo) in pseudo(method) {
        dev.write(
            pseudo.scorer.centroids,
            floats(path, &weights, &format!("classifier{name}.weight"))?,
        )?;
        if state.phase != Phase::Train {
            continue;
        }
        let damaged = || {
            Error::file(
                path,
                "the pseudo labels are missing or of another size",
                "start a new --run",
            )
        };
        match weights.tensors.get(&format!("labels{name}")).map(|t| &t.data) {
            Some(Data::U16(labels)) if labels.len() == pseudo.labels.len => {
                dev.write(pseudo.labels, labels)?
            }
            _ => return Err(damaged()),
        }
        match weights.tensors.get(&format!("label_counts{name}")).map(|t| &t.data) {
            Some(Data::I64(counts)) if counts.len() == pseudo.counts.len => {
                dev.write(pseudo.counts, &counts.iter().map(|&c| c as u32).collect::<Vec<_>>())?;
            }
            _ => return Err(damaged()),
        }
    }
    Ok(State { set, ..state })
}

/// The state in a file that this program wrote. Fails on other files.
fn state(path: &Path, weights: &Weights, origin: Origin) -> Result<State> {
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

/// The values of a tensor of `weights`, which were read from `path`. Fails if there is no such
/// tensor of f32.
fn floats<'a>(path: &Path, weights: &'a Weights, name: &str) -> Result<&'a [f32]> {
    weights.tensors.get(name).and_then(Tensor::f32).ok_or_else(|| {
        Error::file(path, format!("{name} is missing"), "use the checkpoint of a trained run")
    })
}

/// A trained network and its classifier, read from a file.
pub struct Trained {
    /// The network's parameters and running statistics.
    pub weights: Weights,
    /// The recipe that it was trained with.
    pub recipe: Recipe,
    /// (clusters, FEATURES), centroids, or the weights of a learned classifier.
    classifier: Vec<f32>,
    /// (clusters), the biases of a learned classifier, or zeros.
    bias: Vec<f32>,
}

/// The memory of a trained network and its classifier on an engine.
pub struct Loaded {
    /// The network's parameters.
    pub net: Network,
    /// The centroids, and room for the classifier.
    pub scorer: Scorer,
}

impl Loaded {
    /// Takes the memory for a network and classifier of `recipe`.
    pub fn plan(layout: &mut Layout, recipe: &Recipe) -> Self {
        let net = Network::plan(layout, recipe.architecture);
        Loaded { net, scorer: Scorer::plan(layout, "", recipe.clusters) }
    }
}

impl Trained {
    /// Reads a checkpoint of this program, or one of the released code, which merges by cascade and
    /// scores by dot products with its first classifier. Fails if the file is damaged or holds only
    /// ImageNet weights.
    pub fn read(path: &Path) -> Result<Self> {
        let file = weights::read(path)?;
        let ours =
            file.metadata.get("picie").and_then(|text| serde_json::from_str::<State>(text).ok());
        let foreign = || Architecture::of(weights::backbone(&file.tensors).unwrap_or_default());
        let architecture = ours.map_or_else(foreign, |state| state.recipe.architecture);
        let (weights, origin) =
            weights::canonical(file, path, &crate::net::expected(architecture))?;
        let recipe = match &origin {
            Origin::Picie => state(path, &weights, origin)?.recipe,
            Origin::ReleasedPicie { .. } => Recipe { architecture, ..Recipe::picie_released() },
            Origin::Torchvision => {
                return Err(Error::file(
                    path,
                    "these are ImageNet weights, without a pyramid or clusters",
                    format!("train from them: picie train --weights {}", quoted(path)),
                ));
            }
        };
        // MDC learns its layer anew in each epoch, so there are only centroids before the first.
        let name = match recipe.method {
            recipe::Method::Mdc if recipe.learned() => "parametric",
            _ => "classifier1",
        };
        let classifier = floats(path, &weights, &format!("{name}.weight"))?.to_vec();
        let bias =
            weights.tensors.get(&format!("{name}.bias")).and_then(Tensor::f32).unwrap_or_default();
        if !recipe.learned() && bias.iter().any(|&b| b != 0.0) {
            let remedy = "use a checkpoint of PiCIE, whose classifier is its centroids";
            return Err(Error::file(path, "classifier1 has a bias that is not zero", remedy));
        }
        let recipe = Recipe { clusters: classifier.len() / FEATURES, ..recipe };
        let bias = if bias.is_empty() { vec![0.0; recipe.clusters] } else { bias.to_vec() };
        Ok(Trained { weights, recipe, classifier, bias })
    }

    /// Copies the network, with batch norm folded, and the classifier to the device. Returns the
    /// classifier.
    pub fn load(&self, dev: &mut dyn Engine, to: &Loaded) -> Result<Classifier> {
        to.net.init(dev, 0)?;
        to.net.load(dev, &self.weights)?;
        to.net.fold(dev)?;
        if self.recipe.learned() {
            return to.scorer.learned(dev, &self.classifier, &self.bias);
        }
        dev.write(to.scorer.centroids, &self.classifier)?;
        to.scorer.by(dev, self.recipe.score_metric)
    }
}
