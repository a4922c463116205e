//! The state of a run as one safetensors file: torchvision's names, Adam's moments, centroids, and where in the epoch it is.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};
use crate::cluster::Summary;
use crate::device::Slot;
use crate::device::ops::Backend;
use crate::eval::record::Score;
use crate::method::Picie;
use crate::net::weights::{self, Data, Origin, Tensor, Weights};
use crate::net::{FEATURES, Network};
use crate::recipe::Recipe;

/// What comes next in the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    KMeans,
    Labels,
    Train,
}

/// Everything that is not a tensor.
///
/// NOTE: at the beginning of an epoch it holds no times, so that a resumed run ends with the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub recipe: Recipe,
    pub seed: u64,
    pub images: usize,
    /// Of the images' names, in order: pseudo labels belong to rows.
    pub fingerprint: u64,
    /// From 1.
    pub epoch: usize,
    pub phase: Phase,
    /// Training steps of this epoch that are done.
    pub step: usize,
    /// Of the whole run.
    pub adam_step: u64,
    /// Σ within and Σ cross over the done steps, each weighted by its images.
    pub losses: [f64; 2],
    pub kmeans: Vec<KMeansSummary>,
    /// k-means on the network before any training.
    pub untrained: Option<Score>,
    /// Seconds spent in this epoch's k-means, label and train phases before the save.
    pub seconds: [f64; 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct KMeansSummary {
    pub objective: f64,
    pub imbalance: f64,
    pub splits: u32,
}

impl From<Summary> for KMeansSummary {
    fn from(s: Summary) -> Self {
        KMeansSummary { objective: s.objective, imbalance: s.imbalance, splits: s.splits }
    }
}

impl State {
    pub fn begin(recipe: Recipe, seed: u64, (images, fingerprint): (usize, u64)) -> Self {
        State {
            recipe,
            seed,
            images,
            fingerprint,
            epoch: 1,
            phase: Phase::KMeans,
            step: 0,
            adam_step: 0,
            losses: [0.0; 2],
            kmeans: Vec::new(),
            untrained: None,
            seconds: [0.0; 3],
        }
    }

    /// The state at the beginning of the next epoch.
    pub fn next(&self) -> Self {
        let fresh = State::begin(self.recipe.clone(), self.seed, (self.images, self.fingerprint));
        State { epoch: self.epoch + 1, adam_step: self.adam_step, ..fresh }
    }
}

fn classifier_name(view: usize) -> String {
    format!("classifier{}.weight", view + 1)
}

/// Weights, running statistics and centroids: what evaluation needs.
fn evaluable<B: Backend>(dev: &mut B, picie: &Picie<B>, state: &State) -> Result<Weights> {
    let mut weights = Weights::default();
    picie.net.save(dev, &mut weights)?;
    for (view, slot) in picie.centroids.into_iter().enumerate() {
        let tensor = Tensor::from_f32(vec![picie.recipe.clusters, FEATURES, 1, 1], dev.read(slot)?);
        weights.tensors.insert(classifier_name(view), tensor);
    }
    let text = serde_json::to_string(state).expect("a state is plain data");
    weights.metadata.insert("picie".into(), text);
    Ok(weights)
}

/// Writes what evaluation needs after an epoch.
pub fn save_epoch<B: Backend>(path: &Path, dev: &mut B, picie: &Picie<B>, state: &State) -> Result<()> {
    weights::write(path, &evaluable(dev, picie, state)?)
}

/// Writes everything that resuming needs.
pub fn save<B: Backend>(path: &Path, dev: &mut B, picie: &Picie<B>, state: &State) -> Result<()> {
    let mut weights = evaluable(dev, picie, state)?;
    picie.net.save_moments(dev, &mut weights)?;
    if state.phase == Phase::Train {
        let side = picie.recipe.size / 4;
        for view in 0..2 {
            let (labels, counts) = (dev.read(picie.labels[view])?, dev.read(picie.counts[view])?);
            let shape = vec![state.images, side, side];
            weights.tensors.insert(format!("labels{}", view + 1), Tensor { shape, data: Data::U16(labels) });
            let counts = counts.into_iter().map(i64::from).collect::<Vec<_>>();
            let tensor = Tensor { shape: vec![counts.len()], data: Data::I64(counts) };
            weights.tensors.insert(format!("label_counts{}", view + 1), tensor);
        }
    }
    weights::write(path, &weights)
}

/// Reads a checkpoint back, the counterpart of [`save`]. The recipe and the number of images must be this run's.
pub fn load<B: Backend>(
    path: &Path,
    dev: &mut B,
    picie: &Picie<B>,
    recipe: &Recipe,
    seed: u64,
    (images, fingerprint): (usize, u64),
) -> Result<State> {
    let (weights, origin) = weights::load(path, &crate::net::expected(crate::net::Architecture::RESNET18))?;
    let state = state(path, &weights, origin)?;
    let other = |what: &str| {
        Err(Error::file(
            path,
            format!("the checkpoint is of another {what}"),
            "resume it with the same settings, or start a new --run",
        ))
    };
    if state.recipe != *recipe {
        return other("recipe");
    }
    if state.seed != seed {
        return other("seed");
    }
    if state.images != images {
        return other(&format!("data set ({} images, now {images})", state.images));
    }
    if state.fingerprint != fingerprint {
        return other("data set (as many images, but not the same ones)");
    }
    picie.net.load(dev, &weights)?;
    picie.net.load_moments(dev, &weights)?;
    for view in 0..2 {
        dev.write(picie.centroids[view], floats(path, &weights, &classifier_name(view))?)?;
    }
    if state.phase == Phase::Train {
        for view in 0..2 {
            let damaged = || Error::file(path, "the pseudo labels are missing or of another size", "start a new --run");
            match weights.tensors.get(&format!("labels{}", view + 1)).map(|t| &t.data) {
                Some(Data::U16(labels)) if labels.len() == picie.labels[view].len => {
                    dev.write(picie.labels[view], labels)?
                }
                _ => return Err(damaged()),
            }
            match weights.tensors.get(&format!("label_counts{}", view + 1)).map(|t| &t.data) {
                Some(Data::I64(counts)) if counts.len() == picie.recipe.clusters => {
                    dev.write(picie.counts[view], &counts.iter().map(|&c| c as u32).collect::<Vec<_>>())?;
                }
                _ => return Err(damaged()),
            }
        }
    }
    Ok(state)
}

/// The state in one of our own files.
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

fn floats<'a>(path: &Path, weights: &'a Weights, name: &str) -> Result<&'a [f32]> {
    weights
        .tensors
        .get(name)
        .and_then(Tensor::f32)
        .ok_or_else(|| Error::file(path, format!("{name} is missing"), "use the checkpoint of a trained run"))
}

/// A network to evaluate: the architecture's merge, how centroids score, and the classifier of view 1.
pub struct Trained {
    pub weights: Weights,
    pub recipe: Recipe,
    /// (clusters, FEATURES)
    pub centroids: Vec<f32>,
}

impl Trained {
    /// From a checkpoint of ours, or of the released code (cascade merge, dot-product scores of classifier 1).
    pub fn read(path: &Path) -> Result<Self> {
        let (weights, origin) = weights::load(path, &crate::net::expected(crate::net::Architecture::RESNET18))?;
        let recipe = match &origin {
            Origin::Picie => state(path, &weights, origin)?.recipe,
            Origin::ReleasedPicie { .. } => Recipe::picie_released(),
            Origin::Torchvision => {
                return Err(Error::file(
                    path,
                    "these are ImageNet weights, without a pyramid or clusters",
                    "train from them: picie train --weights",
                ));
            }
        };
        let centroids = floats(path, &weights, &classifier_name(0))?.to_vec();
        let bias = weights.tensors.get("classifier1.bias").and_then(Tensor::f32).unwrap_or_default();
        if bias.iter().any(|&b| b != 0.0) {
            let remedy = "use a checkpoint of PiCIE, whose classifier is its centroids";
            return Err(Error::file(path, "classifier1 has a bias that is not zero", remedy));
        }
        let recipe = Recipe { clusters: centroids.len() / FEATURES, ..recipe };
        Ok(Trained { weights, recipe, centroids })
    }

    pub fn load<B: Backend>(&self, dev: &mut B, net: &Network<B>, centroids: Slot<f32>) -> Result<()> {
        net.init(dev, 0)?;
        net.load(dev, &self.weights)?;
        dev.write(centroids, &self.centroids)
    }
}
