//! The numbers. A recipe is a set of typed constants, each line with its source; every one can be overridden by a flag.
//!
//! Sources: SUPP is the supplement of PiCIE (CVPR 2021), P the released code (janghyuncho/PiCIE at c3aa029). The fields are
//! also the places where paper and released code differ.

use serde::{Deserialize, Serialize};

use crate::augment::Augment;
use crate::base::{Error, Result};
use crate::device::ops::{Merge, Metric};

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

/// Everything that decides what training computes, except data and seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    pub name: String,
    /// Side of the network's input in pixels.
    pub size: usize,
    /// Side of the stored images that views are cut from.
    pub stored: usize,
    /// Images of a training step; each gives two views.
    pub batch: usize,
    /// Images of a step of the k-means, label and evaluation passes.
    pub batch_cluster: usize,
    pub epochs: usize,
    pub clusters: usize,
    pub lr: f32,
    pub balance: Balance,
    pub merge: Merge,
    /// Batches whose points Lloyd's k-means starts from.
    pub init_batches: usize,
    /// Batches between two mini-batch updates of the centroids.
    pub update_every: usize,
    /// Iterations of Lloyd's k-means.
    pub kmeans_iters: usize,
    /// Batch norm in the k-means pass and in the label pass.
    pub kmeans_norm: NormMode,
    pub label_norm: NormMode,
    /// How pseudo labels are chosen.
    pub label_metric: Metric,
    /// How centroids score features in the loss and in evaluation.
    pub score_metric: Metric,
    /// After the last epoch, also evaluate centroids of a fresh k-means on images without augmentation.
    pub fresh_kmeans: bool,
    /// The released Cityscapes data set trains view 1 on images without photometric change, though its labels came from changed
    /// ones (P cityscapes_train_dataset.py:80). A bug, off in every recipe.
    pub bug_plain_view1: bool,
    pub augment: Augment,
}

impl Recipe {
    /// SUPP: epochs where no ImageNet weights are given.
    pub const EPOCHS_FROM_SCRATCH: usize = 20;

    /// The supplement's numbers.
    pub fn picie() -> Self {
        Recipe {
            name: "picie".into(),
            size: 320,                     // SUPP: "resizing and center-crop to 320×320"
            stored: 640,                   // P --res2 640; SUPP is silent on what the crops are cut from
            batch: 128,                    // SUPP
            batch_cluster: 128,            // SUPP: k-means batches of 128
            epochs: 10,                    // SUPP: 10 from ImageNet weights, 20 from scratch
            clusters: 27,                  // SUPP
            lr: 1e-3,                      // SUPP: Adam 1e-3, no weight decay
            balance: Balance::Inverse,     // SUPP: "balanced with the size of each cluster"
            merge: Merge::Direct,          // SUPP S1: each level straight to 1/4 and summed
            init_batches: 50,              // SUPP: first 50 batches
            update_every: 20,              // SUPP: every 20 iterations
            kmeans_iters: 20,              // P scripts; SUPP is silent
            kmeans_norm: NormMode::Batch,  // SUPP is silent; as released
            label_norm: NormMode::Running, // as released
            label_metric: Metric::Cosine,  // paper: cosine distance to the prototypes
            score_metric: Metric::Cosine,  // the same scores train and evaluate
            fresh_kmeans: false,
            bug_plain_view1: false,
            augment: Augment::supplement(),
        }
    }

    /// The released code's COCO script, pass for pass.
    pub fn picie_released() -> Self {
        Recipe {
            name: "picie-released".into(),
            batch_cluster: 256,        // P sh_files/train_picie.sh
            lr: 1e-4,                  // P sh_files/train_picie.sh:9
            balance: Balance::Size,    // P commons.py:181
            merge: Merge::Cascade,     // P modules/fpn.py:34-45
            init_batches: 20,          // P sh_files/train_picie.sh
            update_every: 1,           // P KM_NUM=1
            label_metric: Metric::L2,  // P utils.py:125-128
            score_metric: Metric::Dot, // P train_picie.py:121-135, commons.py:206
            fresh_kmeans: true,        // P train_picie.py:295-338, repeats 1
            augment: Augment::released(),
            ..Self::picie()
        }
    }

    /// Learns visibly from random weights on a few hundred small scenes within minutes on two cores. Numbers without a source
    /// are chosen by trial on the drawn scenes, seeds 1, 2 and 3.
    pub fn demo() -> Self {
        Recipe {
            name: "demo".into(),
            size: 128,
            stored: 256,
            batch: 16, // more steps from few images: 32 gains 7 points of mIoU over the untrained network, 16 gains 8
            batch_cluster: 32,
            epochs: 5,       // in batches of 32, 8 were not better
            clusters: 9,     // the classes of the scenes
            init_batches: 8, // all images
            update_every: 1,
            label_metric: Metric::L2, // as released
            score_metric: Metric::Dot,
            ..Self::picie()
        }
    }

    /// Every contradiction inside the recipe, before any image is read.
    pub fn check(&self) -> Result<()> {
        let fail = |what: String, remedy: &str| Err(Error::input(what, remedy));
        if self.size == 0 || !self.size.is_multiple_of(32) {
            return fail(format!("--size {}", self.size), "use a multiple of 32, such as 128 or 320");
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
        ] {
            if value == 0 {
                return fail(format!("{flag} 0"), "use at least 1");
            }
        }
        if self.clusters < 2 || self.clusters > usize::from(u16::MAX) {
            return fail(format!("--clusters {}", self.clusters), "use 2 to 65535");
        }
        if !(self.lr.is_finite() && self.lr > 0.0) {
            return fail(format!("--lr {}", self.lr), "use a positive number, such as 1e-3");
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
    fn recipes_are_consistent_and_bugs_are_off() {
        for recipe in [Recipe::picie(), Recipe::picie_released(), Recipe::demo()] {
            recipe.check().unwrap();
            assert!(!recipe.bug_plain_view1);
            let text = serde_json::to_string(&recipe).unwrap();
            assert_eq!(serde_json::from_str::<Recipe>(&text).unwrap(), recipe);
        }
        let odd = Recipe { size: 100, ..Recipe::demo() };
        assert!(odd.check().unwrap_err().to_string().contains("--size 100"));
    }
}
