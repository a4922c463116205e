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

/// The algorithm that learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// PiCIE: pixels of two views are clustered, each view on its own, and every view learns the
    /// pseudo labels of both. With `auxiliary` clusters it is PiCIE+H.
    Picie,
    /// Modified DeepCluster: pixels of one view are clustered, and it learns its pseudo labels.
    Mdc,
    /// Invariant information clustering: maximises the mutual information between the class
    /// probabilities of two views.
    Iic,
    /// Supervised training: cross-entropy on the labels of the data set.
    Supervised,
}

/// The classifier by which MDC learns its pseudo labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ClassifierKind {
    /// A layer that starts anew in each epoch and is learned.
    Parametric,
    /// The centroids of k-means, which are not learned.
    Centroids,
}

/// The part of the network that stays as it is while the rest learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Freeze {
    None,
    /// ResNet and pyramid: what learns is one linear layer (a linear probe).
    Backbone,
}

/// The numbers of the mutual information that IIC maximises.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Information {
    /// The weight of the marginals' entropies in the main head.
    pub lambda: f32,
    /// The same weight in the auxiliary head.
    pub lambda_auxiliary: f32,
    /// The largest shift T: views are compared under all shifts of up to T pixels of the input.
    pub shifts: usize,
    /// True where all shifts share one joint distribution, instead of having one each.
    pub collapsed: bool,
}

/// The rule by which a class's weight in the cross-entropy follows from its number of pseudo
/// labels.
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
    /// The weight of each class, from its number of pseudo labels.
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

/// The statistics that batch norm uses in a pass without gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormMode {
    /// The statistics of the batch itself; running ones are updated as in training.
    Batch,
    /// The running statistics.
    Running,
}

/// The course of the learning rate over a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// The rate stays as it is (the paper, the released code).
    Constant,
    /// The rate falls to 0 in a straight line over the steps of the run.
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

/// The values that the laterals of the pyramid begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Laterals {
    /// Random numbers, as torch's Conv2d begins (the paper, the released code).
    Random,
    /// Principal components of the last stages' outputs on the data (`method/laterals.rs`).
    Pca,
}

/// The centroids from which the k-means of an epoch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KMeansStart {
    /// Random points, in every epoch (the released code).
    Fresh,
    /// The centroids of the epoch before, so that clusters keep their meaning; in the first epoch
    /// random points.
    Last,
}

/// Everything that decides what training computes, except data and seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    pub name: String,
    pub method: Method,
    pub architecture: Architecture,
    /// The weights that the network starts from.
    pub weights: Source,
    pub laterals: Laterals,
    /// The way in which a picture of any shape becomes a square.
    pub fit: Fit,
    /// The side of the network's input in pixels.
    pub size: usize,
    /// The side of the network's input, and of the label maps, in evaluation.
    pub eval_size: usize,
    /// The side of the stored images that views are cut from.
    pub stored: usize,
    /// The images of a training step; each gives as many views as the method has.
    pub batch: usize,
    /// The images of a step of the k-means, label and evaluation passes.
    pub batch_cluster: usize,
    pub epochs: usize,
    pub clusters: usize,
    /// The clusters of the auxiliary over-clustering; 0 where there is none.
    pub auxiliary: usize,
    /// The rule by which clusters stand for classes in evaluation.
    pub matching: Matching,
    pub lr: f32,
    pub lr_decay: Decay,
    pub classifier: ClassifierKind,
    pub freeze: Freeze,
    pub information: Information,
    pub balance: Balance,
    pub merge: Merge,
    /// The number of batches whose points Lloyd's k-means starts from.
    pub init_batches: usize,
    /// The number of batches between two mini-batch updates of the centroids.
    pub update_every: usize,
    /// The iterations of Lloyd's k-means.
    pub kmeans_iters: usize,
    /// The number of random starts of Lloyd's k-means, of which the best by objective stays.
    pub kmeans_restarts: usize,
    pub kmeans_start: KMeansStart,
    /// Batch norm's statistics in the k-means pass.
    pub kmeans_norm: NormMode,
    /// Batch norm's statistics in the label pass.
    pub label_norm: NormMode,
    /// The metric by which pseudo labels are chosen.
    pub label_metric: Metric,
    /// The metric by which centroids score features in the loss and in evaluation.
    pub score_metric: Metric,
    /// The factor on scores by centroids in the loss: the inverse of a temperature.
    /// Cosines lie within ±1, where a softmax over few clusters never saturates: at 1 the loss goes
    /// on pulling pixels that are at their centroid already.
    pub score_scale: f32,
    /// True where, after the last epoch, the network is also evaluated with the centroids of a
    /// fresh k-means on images without augmentation.
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

    /// The schedule of its k-means passes.
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

    /// The short side, in pixels, at which photos are shown to the network: twice that of training,
    /// where masks are finer and better (`docs/usage.md`).
    pub fn photo_size(&self) -> usize {
        2 * self.size
    }

    /// Whether evaluation scores by a learned layer, instead of by centroids.
    pub fn learned(&self) -> bool {
        !self.clustered()
            || (self.method == Method::Mdc && self.classifier == ClassifierKind::Parametric)
    }

    /// The largest number of clusters a classifier has.
    pub fn most_clusters(&self) -> usize {
        self.clusters.max(self.auxiliary)
    }

    /// Refuses contradictions inside the recipe, before any image is read.
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
                "over-clustering is PiCIE+H's and IIC's: use --recipe picie-h or iic, and at \
                 least 2",
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
