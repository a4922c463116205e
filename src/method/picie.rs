//! PiCIE (Cho et al., CVPR 2021): clusters pixels so that changes of colour do not change their
//! cluster (invariance), and a crop or flip moves clusters with the picture (equivariance).
//!
//! ```text
//! each epoch:  C₁ = k-means of view 1      C₂ = k-means of view 2
//!              y₁ = nearest of C₁          y₂ = nearest of C₂          and class weights w₁, w₂
//!              each batch: L = ¼ Σ over views v and classifiers j of CE(Cⱼ·fᵥ, yⱼ; wⱼ)
//! ```
//! Here fᵥ are the features of view v, and CE is the cross-entropy. Terms with v = j are the
//! within-view loss, those with v ≠ j the cross-view loss.
//!
//! PiCIE+H clusters each view a second time, into K₂ auxiliary clusters, and minimises λ₁·L +
//! λ₂·L′, the losses for both numbers of clusters, with λ₁ = log K₂/(log K₁ + log K₂) and λ₂ = 1 −
//! λ₁. NOTE: that formula is from memory (see [`Recipe::picie_h`]).

use crate::augment::View;
use crate::base::Result;
use crate::data::PictureSet;
use crate::device::ops::{Classifier, HeadLoss, head_loss};
use crate::device::{Engine, Layout, Pool, Slot};
use crate::method::common::{Common, Ops, Trainable, Training};
use crate::method::{Algorithm, Clustering, Losses};
use crate::recipe::Recipe;

/// PiCIE, planned for one data set.
pub struct Picie {
    common: Common,
    clustering: Clustering,
    /// (2 × images of a batch, targets), the losses of a step.
    losses: Slot<f32>,
}

/// The weights λ of the losses for each number of clusters; the smaller number has the larger
/// weight. One weight of 1 if `auxiliary` is 0.
pub fn shares(clusters: usize, auxiliary: usize) -> Vec<f64> {
    if auxiliary == 0 {
        return vec![1.0];
    }
    let [k1, k2] = [clusters, auxiliary].map(|k| (k as f64).ln());
    vec![k2 / (k1 + k2), k1 / (k1 + k2)]
}

impl Picie {
    /// Plans PiCIE for a data set of `images` images, except for the images' memory.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        recipe: &Recipe,
        seed: u64,
        images: usize,
    ) -> Result<Self> {
        let first = if recipe.bug_plain_view1 { View::FirstUnchanged } else { View::First };
        let trainable = Trainable::plan(dev, layout, recipe, images, vec![first, View::Second])?;
        let views = [View::First, View::Second];
        let clustering = Clustering::plan(dev, layout, &trainable.net, recipe, images, &views)?;
        let targets = clustering.pseudo().concat().len();
        let count = 2 * images.min(recipe.batch) * targets;
        let losses = layout.take(Pool::State, "losses", count);
        let common = Common::plan(dev, layout, recipe, seed, images, trainable, &views)?;
        Ok(Picie { common, clustering, losses })
    }
}

impl Algorithm for Picie {
    fn common(&self) -> &Common {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common {
        &mut self.common
    }

    fn clustering(&self) -> Option<&Clustering> {
        Some(&self.clustering)
    }

    fn clustering_mut(&mut self) -> Option<(&mut Common, &mut Clustering)> {
        Some((&mut self.common, &mut self.clustering))
    }

    fn begin_steps(&mut self, dev: &mut dyn Engine, _epoch: usize, _first: bool) -> Result<()> {
        self.clustering.prepare(dev, &self.common.recipe)
    }

    fn queue(&mut self, dev: &mut dyn Engine, set: &PictureSet, training: Training) -> Result<()> {
        let (n, common) = (training.batch.ids.len(), &mut self.common);
        let shares = shares(common.recipe.clusters, common.recipe.auxiliary);
        let scale = 0.25 / f64::from(common.adam(dev, n).grad_scale);
        // Targets are ordered by view, then by number of clusters.
        let labels = self.clustering.pseudo().iter().flat_map(|view| view.iter().zip(&shares));
        let targets: Vec<_> =
            labels.map(|(labels, share)| labels.target((share * scale) as f32)).collect();
        let losses = self.losses.part(0, 2 * n * targets.len());
        let index = common.index.part(0, 2 * n);
        let ops = Ops {
            rounds: 1,
            stage: &mut |_, _, _| Ok(()),
            loss: &|dev, program| {
                let (dlaterals, input) = (program.dpyramid(), program.warped());
                let targets = &targets;
                let args = HeadLoss { losses, dlaterals, input, targets, index, view: n };
                head_loss(dev, &program.head, args)
            },
            update: &|_| Ok(()),
        };
        common.step(dev, set.images(), training, ops)
    }

    fn losses(&self) -> Slot<f32> {
        self.losses
    }

    fn read_losses(&self, values: &[f32], images: usize, _round: usize) -> Losses {
        let shares = shares(self.common.recipe.clusters, self.common.recipe.auxiliary);
        let targets = 2 * shares.len();
        let [mut within, mut cross] = [0.0; 2];
        for (i, row) in values[..2 * images * targets].chunks(targets).enumerate() {
            for (j, &loss) in row.iter().enumerate() {
                let part = if i / images == j / shares.len() { &mut within } else { &mut cross };
                // Within and cross are each the mean of two terms.
                *part += shares[j % shares.len()] * f64::from(loss) / 2.0;
            }
        }
        Losses {
            total: (within + cross) / 2.0,
            parts: vec![("loss_within", within), ("loss_cross", cross)],
        }
    }

    fn classifier(&self, dev: &mut dyn Engine, _trained: bool) -> Result<Classifier> {
        self.clustering.classifier(dev, self.common.recipe.score_metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_log_ratios() {
        assert_eq!(shares(27, 0), [1.0]);
        // ln 100 = 4.605170, ln 27 = 3.295837.
        let [main, auxiliary] = shares(27, 100)[..] else { panic!() };
        assert!(
            (main - 0.582858).abs() <= 1e-6 && (auxiliary - 0.417142).abs() <= 1e-6,
            "{main} {auxiliary}"
        );
    }
}
