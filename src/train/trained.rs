//! A trained network and its classifier, from the checkpoint of a run or of the released code.

use std::path::Path;

use crate::base::say::quoted;
use crate::base::{Error, Result};
use crate::cluster::Scorer;
use crate::device::ops::Classifier;
use crate::device::{Engine, Layout};
use crate::eval::Segment;
use crate::net::weights::{self, Origin, Tensor, Weights};
use crate::net::{Architecture, FEATURES, Network};
use crate::recipe::{self, Recipe};
use crate::train::checkpoint::{State, state};

/// A trained network and its classifier, read from a file.
pub struct Trained {
    /// The network's parameters and running statistics.
    pub weights: Weights,
    /// The recipe that it was trained with.
    pub recipe: Recipe,
    /// Whether the images that it was trained on were turned as their EXIF orientation says.
    pub exif: bool,
    /// What each cluster is called and drawn in.
    pub segments: Vec<Segment>,
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
        let (recipe, exif, segments) = match &origin {
            Origin::Picie => {
                let State { recipe, exif, segments, .. } = state(path, &weights, origin)?;
                (recipe, exif, segments)
            }
            Origin::ReleasedPicie { .. } => {
                (Recipe { architecture, ..Recipe::picie_released() }, true, Vec::new())
            }
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
        let segments = Segment::completed(segments, recipe.clusters);
        Ok(Trained { weights, recipe, exif, segments, classifier, bias })
    }

    /// Copies the network alone to the device, with batch norm folded.
    pub fn load_network(&self, dev: &mut dyn Engine, to: &Loaded) -> Result<()> {
        to.net.init(dev, 0)?;
        to.net.load(dev, &self.weights)?;
        to.net.fold(dev)
    }

    /// Copies the network, with batch norm folded, and the classifier to the device. Returns the
    /// classifier.
    pub fn load(&self, dev: &mut dyn Engine, to: &Loaded) -> Result<Classifier> {
        self.load_network(dev, to)?;
        if self.recipe.learned() {
            return to.scorer.learned(dev, &self.classifier, &self.bias);
        }
        dev.write(to.scorer.centroids, &self.classifier)?;
        to.scorer.by(dev, self.recipe.score_metric)
    }
}

/// The values of a tensor of `weights`, which were read from `path`. Fails if there is no such
/// tensor of f32.
fn floats<'a>(path: &Path, weights: &'a Weights, name: &str) -> Result<&'a [f32]> {
    weights.tensors.get(name).and_then(Tensor::f32).ok_or_else(|| {
        Error::file(path, format!("{name} is missing"), "use the checkpoint of a trained run")
    })
}
