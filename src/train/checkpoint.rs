//! The state of a run as one safetensors file: torchvision's names, Adam's moments, centroids, and
//! where in the epoch it is.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};
use crate::cluster::Summary;
use crate::data::Fingerprint;
use crate::device::ops::{Backend, Classifier, Metric};
use crate::device::{Layout, Pool, Slot};
use crate::eval::epochs::Score;
use crate::method::{Method, PseudoLabels};
use crate::net::weights::{self, Data, Origin, StartRecord, Tensor, Weights};
use crate::net::{Architecture, FEATURES, Network};
use crate::recipe::{self, Recipe};

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
/// NOTE: at the beginning of an epoch it holds no times, so that a resumed run ends with the same
/// bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub recipe: Recipe,
    pub seed: u64,
    /// What the network started from.
    pub start: StartRecord,
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
    /// Of each loss the sum over the done steps, weighted by their images, and the images.
    pub losses: BTreeMap<String, [f64; 2]>,
    pub kmeans: Vec<KMeansSummary>,
    /// Before any training.
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
    pub fn begin(recipe: Recipe, seed: u64, start: StartRecord, data: Fingerprint) -> Self {
        State {
            recipe,
            seed,
            start,
            images: data.images,
            fingerprint: data.names,
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
        let data = Fingerprint { images: self.images, names: self.fingerprint };
        let fresh = State::begin(self.recipe.clone(), self.seed, self.start.clone(), data);
        State { epoch: self.epoch + 1, adam_step: self.adam_step, ..fresh }
    }
}

/// Names of a clustering method's pseudo labels in a file, each with its place.
fn pseudo<B: Backend>(method: &dyn Method<B>) -> Vec<(String, PseudoLabels)> {
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

/// Weights, running statistics, centroids and learned classifiers: what evaluation needs.
fn evaluable<B: Backend>(dev: &mut B, method: &dyn Method<B>, state: &State) -> Result<Weights> {
    let mut weights = Weights::default();
    method.common().net.save(dev, &mut weights)?;
    for (name, pseudo) in pseudo(method) {
        let tensor = Tensor::from_f32(
            vec![pseudo.classifier.k, FEATURES, 1, 1],
            dev.read(pseudo.centroids)?,
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

/// Writes what evaluation needs after an epoch.
pub fn save_epoch<B: Backend>(
    path: &Path,
    dev: &mut B,
    method: &dyn Method<B>,
    state: &State,
) -> Result<()> {
    weights::write(path, &evaluable(dev, method, state)?)
}

/// Writes everything that resuming needs.
pub fn save<B: Backend>(
    path: &Path,
    dev: &mut B,
    method: &dyn Method<B>,
    state: &State,
) -> Result<()> {
    let mut weights = evaluable(dev, method, state)?;
    let common = method.common();
    common.net.save_moments(dev, &mut weights)?;
    for (name, learned) in method.learned() {
        learned.save_moments(dev, name, &mut weights)?;
    }
    if state.phase == Phase::Train {
        let side = common.recipe.size / 4;
        for (name, pseudo) in pseudo(method) {
            let (labels, counts) = (dev.read(pseudo.labels)?, dev.read(pseudo.counts)?);
            let shape = vec![state.images, side, side];
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

/// Reads a checkpoint back, the counterpart of [`save`]. The recipe and the number of images must
/// be this run's.
pub fn load<B: Backend>(
    path: &Path,
    dev: &mut B,
    method: &dyn Method<B>,
    recipe: &Recipe,
    seed: u64,
    data: Fingerprint,
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
    if state.recipe != *recipe {
        return other("recipe");
    }
    if state.seed != seed {
        return other("seed");
    }
    if state.images != data.images {
        return other(&format!("data set ({} images, now {})", state.images, data.images));
    }
    if state.fingerprint != data.names {
        return other("data set (as many images, but not the same ones)");
    }
    method.common().net.load(dev, &weights)?;
    method.common().net.load_moments(dev, &weights)?;
    for (name, learned) in method.learned() {
        learned.load(dev, name, &weights)?;
    }
    for (name, pseudo) in pseudo(method) {
        dev.write(pseudo.centroids, floats(path, &weights, &format!("classifier{name}.weight"))?)?;
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
    weights.tensors.get(name).and_then(Tensor::f32).ok_or_else(|| {
        Error::file(path, format!("{name} is missing"), "use the checkpoint of a trained run")
    })
}

/// A network to evaluate, and what scores its features.
pub struct Trained {
    pub weights: Weights,
    pub recipe: Recipe,
    /// (clusters, FEATURES): centroids, or the weights of a learned classifier.
    classifier: Vec<f32>,
    /// (clusters)
    bias: Vec<f32>,
}

/// Where a [`Trained`] lies in an engine's memory.
pub struct Loaded<B: Backend> {
    pub net: Network<B>,
    pub classifier: Classifier,
    /// (clusters, FEATURES)
    pub centroids: Slot<f32>,
}

impl<B: Backend> Loaded<B> {
    pub fn plan(dev: &mut B, layout: &mut Layout, recipe: &Recipe) -> Self {
        let (net, k) = (Network::plan(dev, layout, recipe.architecture), recipe.clusters);
        let mut state = |name: &str, len: usize| layout.take(Pool::State, name, len);
        let classifier =
            Classifier { w: state("classifier", k * FEATURES), b: state("classifier bias", k), k };
        Loaded { net, classifier, centroids: state("centroids", k * FEATURES) }
    }

    /// Scores by the centroids from here on.
    pub fn score_by_centroids(&self, dev: &mut B, metric: Metric) -> Result<()> {
        dev.kmeans_classifier(self.classifier, self.centroids, metric)
    }
}

impl Trained {
    /// From a checkpoint of ours, or of the released code (cascade merge, dot-product scores of
    /// classifier 1).
    pub fn read(path: &Path) -> Result<Self> {
        let file = weights::read(path)?;
        let ours =
            file.metadata.get("picie").and_then(|text| serde_json::from_str::<State>(text).ok());
        let architecture = ours.map_or(Architecture::RESNET18, |state| state.recipe.architecture);
        let (weights, origin) =
            weights::canonical(file, path, &crate::net::expected(architecture))?;
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
        // MDC's layer is learned anew in each epoch; before the first there are only centroids.
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

    /// Brings network and classifier to the device, batch norm folded.
    pub fn load<B: Backend>(&self, dev: &mut B, to: &Loaded<B>) -> Result<()> {
        to.net.init(dev, 0)?;
        to.net.load(dev, &self.weights)?;
        to.net.fold(dev)?;
        if self.recipe.learned() {
            dev.write(to.classifier.w, &self.classifier)?;
            return dev.write(to.classifier.b, &self.bias);
        }
        dev.write(to.centroids, &self.classifier)?;
        to.score_by_centroids(dev, self.recipe.score_metric)
    }
}
