//! The numbers. A recipe is a set of typed constants, each line with its source ([`presets`]);
//! every one can be overridden by a flag.
//!
//! The fields are also the places where paper and released code differ.

mod presets;

use serde::{Deserialize, Serialize};

use crate::augment::Augment;
use crate::base::{Error, Result};
use crate::cluster::Schedule;
use crate::data::Fit;
use crate::device::ops::{Merge, Metric};
use crate::eval::Matching;
use crate::net::weights::Source;
use crate::net::{Architecture, STRIDE};

/// Which algorithm learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Two views, each clustered; every view learns both views' pseudo labels. With `auxiliary`
    /// clusters it is PiCIE+H.
    Picie,
    /// One view; its pseudo labels are learned (modified DeepCluster).
    Mdc,
    /// Mutual information between the class probabilities of two views (invariant information
    /// clustering).
    Iic,
    /// Cross-entropy on the labels of the data set.
    Supervised,
}

/// What scores the pseudo labels that MDC learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ClassifierKind {
    /// A layer that starts anew in each epoch and is learned.
    Parametric,
    /// The centroids, which are not.
    Centroids,
}

/// What stays as it is while the rest learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Freeze {
    None,
    /// ResNet and pyramid: what learns is one linear layer (a linear probe).
    Backbone,
}

/// Numbers of the mutual information that IIC maximises.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Information {
    /// Weight of the marginals' entropies, of the main head and of the auxiliary one.
    pub lambda: f32,
    pub lambda_auxiliary: f32,
    /// T: views are compared under all shifts of up to T pixels of the input.
    pub shifts: usize,
    /// One joint distribution over all shifts, instead of one each.
    pub collapsed: bool,
}

/// How a class's weight in the cross-entropy follows from its number of pseudo labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// count / total: large clusters count more (P commons.py:181; it is not a balancing).
    Size,
    /// 1 / (count / total + 0.001): small clusters count more.
    Inverse,
    None,
}

impl Balance {
    pub fn weights(self, counts: &[u32]) -> Vec<f32> {
        let total = counts.iter().map(|&c| f64::from(c)).sum::<f64>().max(1.0);
        let weight = |&count: &u32| {
            let share = f64::from(count) / total;
            match self {
                Balance::Size => share as f32,
                Balance::Inverse => (1.0 / (share + 1e-3)) as f32,
                Balance::None => 1.0,
            }
        };
        counts.iter().map(weight).collect()
    }
}

/// Whose statistics batch norm uses in a pass without gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormMode {
    /// The batch's own; running statistics are updated as in training.
    Batch,
    /// The running ones.
    Running,
}

/// How the learning rate goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// It stays (the paper, the released code).
    Constant,
    /// It falls to 0 in a straight line over the steps of the run.
    Linear,
}

impl Decay {
    /// The share of the learning rate that a step has after `done` of `total`.
    pub fn rate(self, done: u64, total: u64) -> f64 {
        match self {
            Decay::Constant => 1.0,
            Decay::Linear => 1.0 - done as f64 / total.max(done + 1) as f64,
        }
    }
}

/// How the laterals of the pyramid begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Laterals {
    /// Random numbers, as torch's Conv2d begins (the paper, the released code).
    Random,
    /// Principal components of the last stages' outputs on the data (`method/laterals.rs`).
    Pca,
}

/// Where the k-means of an epoch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KMeansStart {
    /// At random points, in every epoch (the released code).
    Fresh,
    /// At the centroids of the epoch before, so that clusters keep their meaning; in the first
    /// epoch at random points.
    Last,
}

/// Everything that decides what training computes, except data and seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    pub name: String,
    pub method: Method,
    pub architecture: Architecture,
    /// What the network starts from.
    pub weights: Source,
    pub laterals: Laterals,
    /// How a picture of any shape becomes a square one.
    pub fit: Fit,
    /// Side of the network's input in pixels.
    pub size: usize,
    /// The same in evaluation, and the side of the label maps there; photos are segmented at this
    /// short side.
    pub eval_size: usize,
    /// Side of the stored images that views are cut from.
    pub stored: usize,
    /// Images of a training step; each gives as many views as the method has.
    pub batch: usize,
    /// Images of a step of the k-means, label and evaluation passes.
    pub batch_cluster: usize,
    pub epochs: usize,
    pub clusters: usize,
    /// Clusters of the auxiliary over-clustering; 0: there is none.
    pub auxiliary: usize,
    /// Which classes clusters stand for in evaluation.
    pub matching: Matching,
    pub lr: f32,
    pub lr_decay: Decay,
    pub classifier: ClassifierKind,
    pub freeze: Freeze,
    pub information: Information,
    pub balance: Balance,
    pub merge: Merge,
    /// Batches whose points Lloyd's k-means starts from.
    pub init_batches: usize,
    /// Batches between two mini-batch updates of the centroids.
    pub update_every: usize,
    /// Iterations of Lloyd's k-means.
    pub kmeans_iters: usize,
    /// Random starts of Lloyd's k-means, of which the best by objective stays.
    pub kmeans_restarts: usize,
    pub kmeans_start: KMeansStart,
    /// Batch norm in the k-means pass and in the label pass.
    pub kmeans_norm: NormMode,
    pub label_norm: NormMode,
    /// How pseudo labels are chosen.
    pub label_metric: Metric,
    /// How centroids score features in the loss and in evaluation.
    pub score_metric: Metric,
    /// What scores by centroids are multiplied by in the loss: the inverse of a temperature.
    /// Cosines lie within ±1, where a softmax over few clusters never saturates: at 1 the loss goes
    /// on pulling pixels that are at their centroid already.
    pub score_scale: f32,
    /// After the last epoch, also evaluate centroids of a fresh k-means on images without
    /// augmentation.
    pub fresh_kmeans: bool,
    /// The released Cityscapes data set trains view 1 on images without photometric change, though
    /// its labels came from changed ones (P cityscapes_train_dataset.py:80). A bug, off in every
    /// recipe.
    pub bug_plain_view1: bool,
    pub augment: Augment,
}

impl Recipe {
    /// Side of the feature map that the network makes of its input.
    pub fn feature_side(&self) -> usize {
        self.size / STRIDE
    }

    pub fn feature_pixels(&self) -> usize {
        self.feature_side().pow(2)
    }

    /// Whether features are divided by their norm before they are scored.
    pub fn unit(&self) -> bool {
        matches!(self.method, Method::Picie | Method::Mdc)
    }

    /// How its k-means passes go.
    pub fn schedule(&self) -> Schedule {
        Schedule {
            init_batches: self.init_batches,
            iters: self.kmeans_iters,
            restarts: self.kmeans_restarts,
            update_every: self.update_every,
        }
    }

    /// Whether an epoch begins with k-means.
    pub fn clustered(&self) -> bool {
        matches!(self.method, Method::Picie | Method::Mdc)
    }

    /// Whether what evaluation scores with is learned, instead of being centroids.
    pub fn learned(&self) -> bool {
        !self.clustered()
            || (self.method == Method::Mdc && self.classifier == ClassifierKind::Parametric)
    }

    /// The largest number of clusters a classifier has.
    pub fn most_clusters(&self) -> usize {
        self.clusters.max(self.auxiliary)
    }

    /// Every contradiction inside the recipe, before any image is read.
    pub fn check(&self) -> Result<()> {
        let fail = |what: String, remedy: &str| Err(Error::input(what, remedy));
        for (flag, side) in [("--size", self.size), ("--eval-size", self.eval_size)] {
            if side == 0 || !side.is_multiple_of(32) {
                return fail(format!("{flag} {side}"), "use a multiple of 32, such as 128 or 320");
            }
        }
        if self.stored < self.size {
            return fail(
                format!("--stored {} is below --size {}", self.stored, self.size),
                "store images at least as large as the network's input",
            );
        }
        for (flag, value) in [
            ("--batch", self.batch),
            ("--batch-cluster", self.batch_cluster),
            ("--epochs", self.epochs),
            ("--init-batches", self.init_batches),
            ("--update-every", self.update_every),
            ("--kmeans-iters", self.kmeans_iters),
            ("kmeans_restarts", self.kmeans_restarts),
        ] {
            if value == 0 {
                return fail(format!("{flag} 0"), "use at least 1");
            }
        }
        if self.clusters < 2 || self.most_clusters() > usize::from(u16::MAX) {
            return fail(format!("--clusters {}", self.clusters), "use 2 to 65535");
        }
        if self.auxiliary == 1
            || (self.auxiliary > 0 && !matches!(self.method, Method::Picie | Method::Iic))
        {
            return fail(
                format!("--auxiliary {} in the recipe {}", self.auxiliary, self.name),
                "over-clustering is PiCIE+H's and IIC's: use --recipe picie-h or iic, and at least 2",
            );
        }
        let positive = |number: f32| number.is_finite() && number > 0.0;
        if !positive(self.lr) {
            return fail(format!("--lr {}", self.lr), "use a positive number, such as 1e-3");
        }
        if !positive(self.score_scale) {
            return fail(
                format!("score_scale {}", self.score_scale),
                "use a positive number, such as 1 or 8",
            );
        }
        if !matches!(self.architecture.levels, 1 | 2 | 4) {
            return fail(
                format!("{} levels of the pyramid", self.architecture.levels),
                "use 4, or 2 or 1 as IIC-res12 has",
            );
        }
        if self.architecture.levels < 4 && self.merge == Merge::Cascade {
            return fail("--merge cascade of a part of the pyramid".into(), "use --merge direct");
        }
        if self.freeze == Freeze::Backbone && self.method != Method::Supervised {
            return fail(
                format!("--freeze backbone in the recipe {}", self.name),
                "a frozen network learns from labels only: use --recipe transfer",
            );
        }
        if !positive(self.information.lambda) || !positive(self.information.lambda_auxiliary) {
            return fail(
                format!("--lambda {}", self.information.lambda),
                "use a positive number, such as 1 or 1.5",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balance_weights_follow_their_formulas() {
        assert_eq!(Balance::Size.weights(&[3, 0, 1]), [0.75, 0.0, 0.25]);
        assert_eq!(Balance::None.weights(&[3, 0]), [1.0, 1.0]);
        let inverse = Balance::Inverse.weights(&[3, 0, 1]);
        assert_eq!(inverse, [1.0 / 0.751, 1000.0, 1.0 / 0.251].map(|w: f64| w as f32));
    }

    #[test]
    fn a_linear_rate_falls_to_nothing_after_the_last_step() {
        assert_eq!([0, 1, 3].map(|done| Decay::Linear.rate(done, 4)), [1.0, 0.75, 0.25]);
        assert_eq!(Decay::Constant.rate(3, 4), 1.0);
        // A run that goes on for longer than was said takes ever smaller steps, and none backwards.
        assert!(Decay::Linear.rate(9, 4) > 0.0);
    }

    #[test]
    fn recipes_are_consistent_and_bugs_are_off() {
        for recipe in Recipe::all() {
            for recipe in [recipe.clone().small(), recipe] {
                recipe.check().unwrap();
                assert!(!recipe.bug_plain_view1);
                let text = serde_json::to_string(&recipe).unwrap();
                assert_eq!(serde_json::from_str::<Recipe>(&text).unwrap(), recipe);
            }
        }
    }

    #[test]
    fn photos_get_epochs_for_their_number() {
        let epochs = [1, 30, 94, 224, 700, 3000].map(|n| Recipe::photos().photos_epochs(n));
        assert_eq!(epochs, [20, 20, 10, 5, 2, 2]);
    }

    #[test]
    fn contradictions_name_the_flag() {
        let of = |recipe: Recipe| recipe.check().unwrap_err().to_string();
        assert!(of(Recipe { size: 100, ..Recipe::demo() }).contains("--size 100"));
        assert!(of(Recipe { auxiliary: 45, ..Recipe::mdc() }).contains("--auxiliary 45"));
        assert!(
            of(Recipe { freeze: Freeze::Backbone, ..Recipe::iic() }).contains("--recipe transfer")
        );
        assert!(
            of(Recipe { merge: Merge::Cascade, ..Recipe::iic_res12() }).contains("--merge direct")
        );
    }
}
