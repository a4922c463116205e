//! Modified DeepCluster (MDC), a baseline in PiCIE's supplement: DeepCluster applied to pixels
//! (Caron et al., ECCV 2018).
//!
//! ```text
//! each epoch:  C = k-means of the view, y = nearest of C, w = class weights, W = a new layer
//!              each batch: L = CE(W·f, y; w), which trains W too; without W, CE(C·f, y; w)
//! ```
//! The view has photometric and geometric changes, the same in k-means, labels and training. The
//! recipe's `classifier` says whether W is learned or the centroids C are the classifier.
//! Over-clustering is a larger number of clusters, matched many-to-one to classes.

use crate::augment::View;
use crate::base::Result;
use crate::data::PictureSet;
use crate::device::ops::{Classifier, HeadLoss, SoftmaxLabels, head_loss};
use crate::device::{Engine, Layout, Pool, Slot};
use crate::method::common::{Common, Ops, Trainable, Training};
use crate::method::supervised::CrossEntropy;
use crate::method::{Algorithm, Clustering, FirstWeights, Learned, Losses};
use crate::recipe::Recipe;

/// MDC, planned for one data set.
pub struct Mdc {
    common: Common,
    clustering: Clustering,
    /// The layer W and the loss of its scores. `None` if the centroids are the classifier.
    parametric: Option<(Learned, CrossEntropy)>,
    /// (images of a batch), the losses of a step.
    losses: Slot<f32>,
}

impl Mdc {
    /// Plans MDC for a data set of `images` images, except for the images' memory.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        recipe: &Recipe,
        seed: u64,
        images: usize,
    ) -> Result<Self> {
        let views = vec![View::First];
        let trainable = Trainable::plan(dev, layout, recipe, images, views.clone())?;
        let clustering = Clustering::plan(dev, layout, &trainable.net, recipe, images, &views)?;
        let parametric = if recipe.learned() {
            let learned = Learned::plan(layout, recipe.clusters, true);
            Some((learned, CrossEntropy::plan(dev, layout, recipe, images)?))
        } else {
            None
        };
        let losses = layout.take(Pool::State, "losses", images.min(recipe.batch));
        let common = Common::plan(dev, layout, recipe, seed, images, trainable, &views)?;
        Ok(Mdc { common, clustering, parametric, losses })
    }
}

impl Algorithm for Mdc {
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

    fn learned(&self) -> Vec<(&'static str, &Learned)> {
        self.parametric.iter().map(|(learned, _)| ("parametric", learned)).collect()
    }

    fn begin_steps(&mut self, dev: &mut dyn Engine, epoch: usize, first: bool) -> Result<()> {
        if let (Some((learned, _)), true) = (&self.parametric, first) {
            learned.init(dev, self.common.seed, FirstWeights::Normal(0.01), epoch as u32)?;
        }
        self.clustering.prepare(dev, &self.common.recipe)
    }

    fn queue(&mut self, dev: &mut dyn Engine, set: &PictureSet, training: Training) -> Result<()> {
        let (n, common) = (training.batch.ids.len(), &mut self.common);
        let pseudo = self.clustering.pseudo()[0][0];
        let adam = common.adam(dev, n);
        let scale = 1.0 / adam.grad_scale;
        let (losses, index) = (self.losses.part(0, n), common.index.part(0, n));
        let Some((learned, cross_entropy)) = &self.parametric else {
            let ops = Ops {
                rounds: 1,
                stage: &mut |_, _, _| Ok(()),
                loss: &|dev, program| {
                    let (dlaterals, input) = (program.dpyramid(), program.warped());
                    let targets = &[pseudo.target(scale)];
                    let args = HeadLoss { losses, dlaterals, input, targets, index, view: n };
                    head_loss(dev, &program.head, args)
                },
                update: &|_| Ok(()),
            };
            return common.step(dev, set.images(), training, ops);
        };
        let labels = SoftmaxLabels { labels: pseudo.labels, index, weights: pseudo.weights };
        let ops = Ops {
            rounds: 1,
            // The layer is new in each epoch, so its Adam counts the steps of the epoch.
            stage: &mut |dev, _, batch| {
                learned.stage(dev, adam, batch.before as u64 + 1, batch.rate)
            },
            loss: &|dev, program| cross_entropy.queue(dev, program, learned, losses, labels, scale),
            update: &|dev| learned.update(dev, adam),
        };
        common.step(dev, set.images(), training, ops)
    }

    fn losses(&self) -> Slot<f32> {
        self.losses
    }

    fn read_losses(&self, values: &[f32], images: usize, _round: usize) -> Losses {
        Losses { total: values[..images].iter().copied().map(f64::from).sum(), parts: Vec::new() }
    }

    fn classifier(&self, dev: &mut dyn Engine, trained: bool) -> Result<Classifier> {
        match &self.parametric {
            Some((learned, _)) if trained => Ok(learned.classifier()),
            _ => self.clustering.classifier(dev, self.common.recipe.score_metric),
        }
    }
}
