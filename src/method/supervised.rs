//! Training on labels, of the whole network or (transfer, `freeze` backbone) of one linear layer on
//! top of it.
//!
//! ```text
//! each batch: L = CE(W·f + b, y),  y the label map at the features' size, pixels without a class left out
//! ```
//! The supplement says Adam and the learning rate; views, label size and the rest are this engine's
//! choice: one view with the recipe's changes, labels by nearest neighbour, features as the pyramid
//! leaves them.

use crate::augment::{Feeder, View, crop_labels};
use crate::base::{Error, Result};
use crate::data::{IGNORE, PictureSet};
use crate::device::ops::{Backend, Classifier, SoftmaxLabels, SoftmaxSpec};
use crate::device::{Layout, Pool, Slot};
use crate::method::common::{Batch, Common, Ops, plan_network};
use crate::method::{Learned, Losses, Method, TrainSet, batch_sizes};
use crate::net::Program;
use crate::recipe::{Freeze, Recipe};

/// Scores of a learned classifier that stay in memory between its forward and backward.
pub struct Scored<B: Backend> {
    /// By images of a batch.
    plans: Vec<(usize, B::SoftmaxPlan)>,
    /// (images of a batch, size/4, size/4, clusters)
    scores: Slot<f32>,
    frozen: bool,
}

impl<B: Backend> Scored<B> {
    pub fn plan(dev: &mut B, layout: &mut Layout, recipe: &Recipe, images: usize) -> Result<Self> {
        let (pixels, k) = ((recipe.size / 4).pow(2), recipe.clusters);
        let mut plans = Vec::new();
        for n in batch_sizes(images, recipe.batch).into_iter().filter(|&n| n > 0) {
            plans.push((n, dev.plan_softmax(SoftmaxSpec { n, pixels, k })?));
        }
        let scores = layout.take(Pool::State, "scores", images.min(recipe.batch) * pixels * k);
        Ok(Scored { plans, scores, frozen: recipe.freeze == Freeze::Backbone })
    }

    /// losses (n) = shares of the mean cross-entropy; gradients of the classifier, and of the
    /// pyramid unless it is frozen.
    pub fn cross_entropy(
        &self,
        dev: &mut B,
        program: &Program<B>,
        learned: &Learned<B>,
        losses: Slot<f32>,
        labels: SoftmaxLabels,
        scale: f32,
    ) -> Result<()> {
        let n = program.geometry.n;
        let (_, plan) =
            self.plans.iter().find(|(m, _)| *m == n).expect("every batch size was planned");
        let (input, classifier) = (program.warped(), learned.classifier());
        let scores =
            self.scores.part(0, n * program.geometry.h * program.geometry.w / 16 * learned.k);
        dev.head_scores(&program.head, scores, input, classifier)?;
        dev.softmax_loss(plan, losses, scores, labels, scale)?;
        learned.zero_grad(dev)?;
        let (dw, db) = learned.gradients();
        let dpyramid = (!self.frozen).then(|| program.dpyramid());
        dev.head_scores_backward(&program.head, dpyramid, dw, db, scores, input, classifier)
    }
}

pub struct Supervised<B: Backend> {
    common: Common<B>,
    classifier: Learned<B>,
    scored: Scored<B>,
    /// Labels (images of a batch, size/4, size/4); their rows (images of a batch); weights of 1.
    labels: Slot<u16>,
    rows: Slot<u32>,
    weights: Slot<f32>,
    losses: Slot<f32>,
}

impl<B: Backend> Supervised<B> {
    pub fn plan(
        dev: &mut B,
        layout: &mut Layout,
        recipe: &Recipe,
        seed: u64,
        set: TrainSet,
    ) -> Result<Self> {
        let images = set.images;
        let network = plan_network(dev, layout, recipe, images, 1)?;
        let classifier = Learned::plan(dev, layout, recipe.clusters, true);
        let scored = Scored::plan(dev, layout, recipe, images)?;
        let batch = images.min(recipe.batch);
        let labels = layout.take(Pool::Staging, "labels", batch * (recipe.size / 4).pow(2));
        let rows = layout.take(Pool::State, "label rows", batch);
        let weights = layout.take(Pool::State, "class weights", recipe.clusters);
        let losses = layout.take(Pool::State, "losses", batch);
        let common = Common::plan(dev, layout, recipe, seed, set, vec![View::First], network)?;
        Ok(Supervised { common, classifier, scored, labels, rows, weights, losses })
    }

    /// The label maps (n, size/4, size/4) of a batch, cut as its view is.
    fn view_labels(feeder: &Feeder<B>, set: &PictureSet, batch: &Batch) -> Result<Vec<u16>> {
        let PictureSet::Labelled(set) = set else {
            let remedy = "give labelled images, or choose a recipe that needs none, such as picie";
            return Err(Error::input(
                "this recipe learns from labels, and these images have none",
                remedy,
            ));
        };
        let (stored, side) = (set.images.size(), feeder.size() / 4);
        let mut maps = vec![IGNORE; batch.ids.len() * stored * stored];
        set.gather_labels(batch.ids, &mut maps)?;
        let crops = feeder.input_crops(batch.ids, batch.epoch, View::First);
        let cut = maps
            .chunks(stored * stored)
            .zip(crops)
            .map(|(map, crop)| crop_labels(map, stored, crop, side));
        Ok(cut
            .flatten()
            .map(|class| if class == IGNORE { u16::MAX } else { u16::from(class) })
            .collect())
    }
}

impl<B: Backend> Method<B> for Supervised<B> {
    fn common(&self) -> &Common<B> {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common<B> {
        &mut self.common
    }

    fn learned(&self) -> Vec<(&'static str, &Learned<B>)> {
        vec![("classifier1", &self.classifier)]
    }

    fn begin_steps(&mut self, dev: &mut B, _epoch: usize, _first: bool) -> Result<()> {
        dev.write(self.weights, &vec![1.0; self.weights.len])?;
        dev.write(self.rows, &Vec::from_iter(0..self.rows.len as u32))?;
        // Only a frozen network is run with its norms folded.
        if self.common.frozen() { self.common.net.fold(dev) } else { Ok(()) }
    }

    fn queue(
        &mut self,
        dev: &mut B,
        set: &PictureSet,
        batch: Batch,
        next: Option<Batch>,
    ) -> Result<()> {
        let n = batch.ids.len();
        let adam = self.common.adam(n);
        let (losses, classifier, store) = (self.losses.part(0, n), &self.classifier, self.labels);
        let labels =
            SoftmaxLabels { labels: store, index: self.rows.part(0, n), weights: self.weights };
        self.common.step(
            dev,
            set.images(),
            (batch, next),
            1,
            Ops {
                stage: &mut |dev, feeder, batch| {
                    dev.write(store, &Self::view_labels(feeder, set, batch)?)?;
                    classifier.stage(dev, adam, (batch.step, batch.rate))
                },
                loss: &|dev, program| {
                    self.scored.cross_entropy(
                        dev,
                        program,
                        classifier,
                        losses,
                        labels,
                        1.0 / adam.grad_scale,
                    )
                },
                update: &|dev| classifier.update(dev, adam),
            },
        )
    }

    fn losses(&self) -> Slot<f32> {
        self.losses
    }

    fn read_losses(&self, values: &[f32], images: usize, _round: usize) -> Losses {
        Losses { total: values[..images].iter().copied().map(f64::from).sum(), parts: Vec::new() }
    }

    fn scorer(&self, _dev: &mut B, _trained: bool) -> Result<Classifier> {
        Ok(self.classifier.classifier())
    }
}
