//! Training on labels, either of the whole network or, if the recipe's `freeze` is `backbone`, of
//! only one linear layer on top of it (transfer).
//!
//! ```text
//! each batch: L = CE(W·f + b, y),  y the label map at the features' size
//! ```
//! Pixels without a class are left out. PiCIE's supplement states Adam and the learning rate. The
//! rest is a choice made here: one view with the recipe's augmentation, labels resized by nearest
//! neighbor, and features that are not normalised.

use crate::augment::{Feeder, View, crop_labels};
use crate::base::{BySize, Error, Result};
use crate::data::{IGNORE, PictureSet};
use crate::device::ops::{
    Classifier, HeadScores, HeadScoresBackward, Plan, SoftmaxLabels, SoftmaxLoss, SoftmaxSpec,
    head_scores, head_scores_backward, plan_softmax, softmax_loss,
};
use crate::device::{Engine, Layout, Pool, Slot};
use crate::method::common::{Batch, Common, Ops, Trainable, Training};
use crate::method::{Algorithm, Batching, Learned, Losses};
use crate::net::{Program, STRIDE};
use crate::recipe::{Freeze, Recipe};

/// The cross-entropy of a learned classifier's scores, which stay in memory between the forward and
/// the backward pass.
pub struct CrossEntropy {
    /// The plans of the loss, by number of images in a batch.
    plans: BySize<Plan<SoftmaxSpec>>,
    /// (images of a batch, size/4, size/4, clusters), the scores.
    scores: Slot<f32>,
    /// Whether the network's weights are not trained.
    frozen: bool,
}

impl CrossEntropy {
    /// Plans the scores and their loss for training on a data set of `images` images.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        recipe: &Recipe,
        images: usize,
    ) -> Result<Self> {
        let (pixels, k) = (recipe.feature_pixels(), recipe.clusters);
        let batching = Batching { images, batch: recipe.batch };
        let spec = |n| SoftmaxSpec { n, pixels, k };
        let plans = BySize::plan(batching.sizes(), |n| plan_softmax(dev, spec(n)))?;
        let scores = layout.take(Pool::State, "scores", batching.full() * pixels * k);
        Ok(CrossEntropy { plans, scores, frozen: recipe.freeze == Freeze::Backbone })
    }

    /// Queues the loss and its gradients: losses (n) = each image's share of the mean
    /// cross-entropy; then the gradients, times `scale`, of the classifier and, unless the network
    /// is frozen, of the pyramid.
    pub fn queue(
        &self,
        dev: &mut dyn Engine,
        program: &Program,
        learned: &Learned,
        losses: Slot<f32>,
        labels: SoftmaxLabels,
        scale: f32,
    ) -> Result<()> {
        let (head, input, classifier) = (&program.head, program.warped(), learned.classifier());
        let scores = self.scores.part(0, program.spec.features() * learned.k);
        head_scores(dev, head, HeadScores { scores, input, classifier })?;
        let plan = self.plans.of(program.spec.n);
        softmax_loss(dev, plan, SoftmaxLoss { losses, scores, labels, scale })?;
        learned.zero_grad(dev)?;
        let (dw, db) = learned.gradients();
        let (dlaterals, dscores) = ((!self.frozen).then(|| program.dpyramid()), scores);
        let args = HeadScoresBackward { dlaterals, dw, db, dscores, input, classifier };
        head_scores_backward(dev, head, args)
    }
}

/// Supervised training, planned for one data set.
pub struct Supervised {
    common: Common,
    /// The linear layer on the features.
    classifier: Learned,
    /// The loss of its scores.
    cross_entropy: CrossEntropy,
    /// (images of a batch, size/4, size/4), the labels of a batch.
    labels: Slot<u16>,
    /// (images of a batch), the rows of `labels`: 0, 1, 2, …
    rows: Slot<u32>,
    /// (clusters), class weights, which are all 1.
    weights: Slot<f32>,
    /// (images of a batch), the losses of a step.
    losses: Slot<f32>,
}

impl Supervised {
    /// Plans supervised training for a data set of `images` images, except for the images' memory.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        recipe: &Recipe,
        seed: u64,
        images: usize,
    ) -> Result<Self> {
        let trainable = Trainable::plan(dev, layout, recipe, images, vec![View::First])?;
        let classifier = Learned::plan(layout, recipe.clusters, true);
        let cross_entropy = CrossEntropy::plan(dev, layout, recipe, images)?;
        let batch = images.min(recipe.batch);
        let labels = layout.take(Pool::Staging, "labels", batch * recipe.feature_pixels());
        let rows = layout.take(Pool::State, "label rows", batch);
        let weights = layout.take(Pool::State, "class weights", recipe.clusters);
        let losses = layout.take(Pool::State, "losses", batch);
        let common = Common::plan(dev, layout, recipe, seed, images, trainable, &[])?;
        Ok(Supervised { common, classifier, cross_entropy, labels, rows, weights, losses })
    }

    /// The label maps (n, size/4, size/4) of a batch, cropped and mirrored as its view is;
    /// `u16::MAX` for pixels without a class. Fails if the images have no labels.
    fn view_labels(feeder: &Feeder, set: &PictureSet, batch: &Batch) -> Result<Vec<u16>> {
        let PictureSet::Labelled(set) = set else {
            let remedy = "give labelled images, or choose a recipe that needs none, such as picie";
            return Err(Error::input(
                "this recipe learns from labels, and these images have none",
                remedy,
            ));
        };
        let (stored, side) = (set.images.size(), feeder.size() / STRIDE);
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

impl Algorithm for Supervised {
    fn common(&self) -> &Common {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common {
        &mut self.common
    }

    fn learned(&self) -> Vec<(&'static str, &Learned)> {
        vec![("classifier1", &self.classifier)]
    }

    fn begin_steps(&mut self, dev: &mut dyn Engine, _epoch: usize, _first: bool) -> Result<()> {
        dev.write(self.weights, &vec![1.0; self.weights.len])?;
        dev.write(self.rows, &Vec::from_iter(0..self.rows.len as u32))?;
        // Only a frozen network runs with its batch norms folded into the convolutions.
        if self.common.frozen() { self.common.net.fold(dev) } else { Ok(()) }
    }

    fn queue(&mut self, dev: &mut dyn Engine, set: &PictureSet, training: Training) -> Result<()> {
        let n = training.batch.ids.len();
        let adam = self.common.adam(dev, n);
        let Supervised { common, classifier, cross_entropy, labels: store, .. } = self;
        let (losses, index) = (self.losses.part(0, n), self.rows.part(0, n));
        let labels = SoftmaxLabels { labels: *store, index, weights: self.weights };
        let scale = 1.0 / adam.grad_scale;
        let ops = Ops {
            rounds: 1,
            stage: &mut |dev, feeder, batch| {
                dev.write(*store, &Self::view_labels(feeder, set, batch)?)?;
                classifier.stage(dev, adam, batch.step, batch.rate)
            },
            loss: &|dev, program| {
                cross_entropy.queue(dev, program, classifier, losses, labels, scale)
            },
            update: &|dev| classifier.update(dev, adam),
        };
        common.step(dev, set.images(), training, ops)
    }

    fn losses(&self) -> Slot<f32> {
        self.losses
    }

    fn read_losses(&self, values: &[f32], images: usize, _round: usize) -> Losses {
        Losses { total: values[..images].iter().copied().map(f64::from).sum(), parts: Vec::new() }
    }

    fn classifier(&self, _dev: &mut dyn Engine, _trained: bool) -> Result<Classifier> {
        Ok(self.classifier.classifier())
    }
}
