//! Modified DeepCluster (MDC, supplement of PiCIE; Caron et al., ECCV 2018, pixel by pixel).
//!
//! ```text
//! each epoch:  C = k-means of the one view,  y = nearest of C,  w = weights of its classes,  W = a new linear layer
//!              each batch: L = CE(W·f, y; w), which W learns too; without W (`classifier` centroids) CE(C·f, y; w)
//! ```
//! The view has photometric and geometric change, the same in k-means, labels and training.
//! Over-clustering is a larger number of clusters, matched many-to-one.

use crate::augment::View;
use crate::base::Result;
use crate::data::PictureSet;
use crate::device::ops::{Backend, Classifier, LossInput, SoftmaxLabels};
use crate::device::{Layout, Pool, Slot};
use crate::method::common::{Batch, Common, Ops, plan_network};
use crate::method::supervised::Scored;
use crate::method::{Clustering, Learned, Losses, Method, Start, TrainSet};
use crate::recipe::Recipe;

pub struct Mdc<B: Backend> {
    common: Common<B>,
    clustering: Clustering<B>,
    /// The layer that learns, where one does, and its scores.
    parametric: Option<(Learned<B>, Scored<B>)>,
    /// (images of a batch)
    losses: Slot<f32>,
}

impl<B: Backend> Mdc<B> {
    pub fn plan(
        dev: &mut B,
        layout: &mut Layout,
        recipe: &Recipe,
        seed: u64,
        set: TrainSet,
    ) -> Result<Self> {
        let images = set.images;
        let network = plan_network(dev, layout, recipe, images, 1)?;
        let clustering = Clustering::plan(dev, layout, &network.0, recipe, images, &[View::First])?;
        let parametric = if recipe.learned() {
            let learned = Learned::plan(dev, layout, recipe.clusters, true);
            Some((learned, Scored::plan(dev, layout, recipe, images)?))
        } else {
            None
        };
        let losses = layout.take(Pool::State, "losses", images.min(recipe.batch));
        let common = Common::plan(dev, layout, recipe, seed, set, vec![View::First], network)?;
        Ok(Mdc { common, clustering, parametric, losses })
    }
}

impl<B: Backend> Method<B> for Mdc<B> {
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

    fn learned(&self) -> Vec<(&'static str, &Learned<B>)> {
        self.parametric.iter().map(|(learned, _)| ("parametric", learned)).collect()
    }

    fn begin_steps(&mut self, dev: &mut B, epoch: usize, first: bool) -> Result<()> {
        if let (Some((learned, _)), true) = (&self.parametric, first) {
            learned.init(dev, self.common.seed, Start::Normal(0.01), epoch as u32)?;
        }
        self.clustering.prepare(dev, &self.common.recipe)
    }

    fn queue(
        &mut self,
        dev: &mut B,
        set: &PictureSet,
        batch: Batch,
        next: Option<Batch>,
    ) -> Result<()> {
        let (n, common, pseudo) =
            (batch.ids.len(), &mut self.common, self.clustering.pseudo()[0][0]);
        let adam = common.adam(n);
        let scale = 1.0 / adam.grad_scale;
        let (losses, index) = (self.losses.part(0, n), common.index.part(0, n));
        match &self.parametric {
            Some((learned, scored)) => {
                let labels =
                    SoftmaxLabels { labels: pseudo.labels, index, weights: pseudo.weights };
                common.step(
                    dev,
                    set.images(),
                    (batch, next),
                    1,
                    Ops {
                        // Its optimizer is as new as the layer is.
                        stage: &mut |dev, _, batch| {
                            learned.stage(dev, adam, (batch.before as u64 + 1, batch.rate))
                        },
                        loss: &|dev, program| {
                            scored.cross_entropy(dev, program, learned, losses, labels, scale)
                        },
                        update: &|dev| learned.update(dev, adam),
                    },
                )
            }
            None => common.step(
                dev,
                set.images(),
                (batch, next),
                1,
                Ops {
                    stage: &mut |_, _, _| Ok(()),
                    loss: &|dev, program| {
                        let loss = LossInput { targets: &[pseudo.target(scale)], index, view: n };
                        dev.head_loss(
                            &program.head,
                            losses,
                            program.dpyramid(),
                            program.warped(),
                            loss,
                        )
                    },
                    update: &|_| Ok(()),
                },
            ),
        }
    }

    fn losses(&self) -> Slot<f32> {
        self.losses
    }

    fn read_losses(&self, values: &[f32], images: usize, _round: usize) -> Losses {
        Losses { total: values[..images].iter().copied().map(f64::from).sum(), parts: Vec::new() }
    }

    fn scorer(&self, dev: &mut B, trained: bool) -> Result<Classifier> {
        match &self.parametric {
            Some((learned, _)) if trained => Ok(learned.classifier()),
            _ => self.clustering.scorer(dev, self.common.recipe.score_metric),
        }
    }
}
