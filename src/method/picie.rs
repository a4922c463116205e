//! PiCIE (Cho et al., CVPR 2021): pixel-level clustering with invariance to photometric and
//! equivariance to geometric change.
//!
//! ```text
//! each epoch:  C₁ = k-means of view 1      C₂ = k-means of view 2
//!              y₁ = nearest of C₁          y₂ = nearest of C₂             and their class weights w₁, w₂
//!              each batch: L = ¼ Σ over views v and classifiers j of CE(Cⱼ·fᵥ, yⱼ; wⱼ)
//! ```
//! v = j are the within-view terms, v ≠ j the cross-view ones.
//!
//! PiCIE+H clusters each view a second time, into K₂ auxiliary clusters, and minimises λ₁·L + λ₂·L′
//! of both numbers of clusters: λ₁ = log K₂/(log K₁ + log K₂), λ₂ = 1 − λ₁. NOTE: that formula is
//! from memory (see [`Recipe::picie_h`]).

use crate::augment::View;
use crate::base::Result;
use crate::data::PictureSet;
use crate::device::ops::{Backend, Classifier, LossInput};
use crate::device::{Layout, Pool, Slot};
use crate::method::common::{Batch, Common, Ops, plan_network};
use crate::method::{Clustering, Losses, Method, TrainSet};
use crate::recipe::Recipe;

pub struct Picie<B: Backend> {
    common: Common<B>,
    clustering: Clustering<B>,
    /// (2 views of a batch, targets)
    losses: Slot<f32>,
}

/// λ of each number of clusters, the larger for the fewer.
pub fn shares(clusters: usize, auxiliary: usize) -> Vec<f64> {
    if auxiliary == 0 {
        return vec![1.0];
    }
    let [k1, k2] = [clusters, auxiliary].map(|k| (k as f64).ln());
    vec![k2 / (k1 + k2), k1 / (k1 + k2)]
}

impl<B: Backend> Picie<B> {
    pub fn plan(
        dev: &mut B,
        layout: &mut Layout,
        recipe: &Recipe,
        seed: u64,
        set: TrainSet,
    ) -> Result<Self> {
        let images = set.images;
        let network = plan_network(dev, layout, recipe, images, 2)?;
        let clustering = Clustering::plan(
            dev,
            layout,
            &network.0,
            recipe,
            images,
            &[View::First, View::Second],
        )?;
        let targets = clustering.pseudo().concat().len();
        let losses = layout.take(Pool::State, "losses", 2 * images.min(recipe.batch) * targets);
        let first = if recipe.bug_plain_view1 { View::FirstUnchanged } else { View::First };
        let common =
            Common::plan(dev, layout, recipe, seed, set, vec![first, View::Second], network)?;
        Ok(Picie { common, clustering, losses })
    }
}

impl<B: Backend> Method<B> for Picie<B> {
    fn common(&self) -> &Common<B> {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common<B> {
        &mut self.common
    }

    fn clustering(&self) -> Option<&Clustering<B>> {
        Some(&self.clustering)
    }

    fn clustering_mut(&mut self) -> Option<(&mut Common<B>, &mut Clustering<B>)> {
        Some((&mut self.common, &mut self.clustering))
    }

    fn begin_steps(&mut self, dev: &mut B, _epoch: usize, _first: bool) -> Result<()> {
        self.clustering.prepare(dev, &self.common.recipe)
    }

    fn queue(
        &mut self,
        dev: &mut B,
        set: &PictureSet,
        batch: Batch,
        next: Option<Batch>,
    ) -> Result<()> {
        let (n, common) = (batch.ids.len(), &mut self.common);
        let shares = shares(common.recipe.clusters, common.recipe.auxiliary);
        let scale = 0.25 / f64::from(common.adam(n).grad_scale);
        // View by view, and in each the numbers of clusters.
        let labels = self.clustering.pseudo().iter().flat_map(|view| view.iter().zip(&shares));
        let targets: Vec<_> =
            labels.map(|(labels, share)| labels.target((share * scale) as f32)).collect();
        let losses = self.losses.part(0, 2 * n * targets.len());
        let index = common.index.part(0, 2 * n);
        common.step(
            dev,
            set.images(),
            (batch, next),
            1,
            Ops {
                stage: &mut |_, _, _| Ok(()),
                loss: &|dev, program| {
                    let loss = LossInput { targets: &targets, index, view: n };
                    dev.head_loss(&program.head, losses, program.dpyramid(), program.warped(), loss)
                },
                update: &|_| Ok(()),
            },
        )
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
                // Either is the mean of two terms.
                *part += shares[j % shares.len()] * f64::from(loss) / 2.0;
            }
        }
        Losses {
            total: (within + cross) / 2.0,
            parts: vec![("loss_within", within), ("loss_cross", cross)],
        }
    }

    fn scorer(&self, dev: &mut B, _trained: bool) -> Result<Classifier> {
        self.clustering.scorer(dev, self.common.recipe.score_metric)
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
