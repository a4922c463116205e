//! IIC (Invariant Information Clustering; Ji et al., ICCV 2019) with a ResNet-18 and a feature
//! pyramid, as PiCIE's supplement compares it.
//!
//! ```text
//! each epoch, for the auxiliary head, then for the main one:
//!     each batch: p₁, p₂ = softmax(W·f) of a window, and of it jittered and mirrored (and back)
//!                 L = −I(p₁; p₂), mutual information over all shifts of up to T input pixels
//! ```
//! In I, the marginals' entropies are weighted by λ (see [`IicSpec`]). Heads are linear layers
//! without bias. All parameters share one Adam, so the head that is not trained in a step still
//! moves by its momentum, as in the reference code, where its gradients are zero. The reference
//! masks pixels by the ground truth; nothing is masked here.

use crate::augment::View;
use crate::base::{BySize, Result};
use crate::data::PictureSet;
use crate::device::ops::{
    Classifier, HeadScores, HeadScoresBackward, IicLoss, IicSpec, Plan, SoftmaxBackward,
    SoftmaxForward, SoftmaxSpec, head_scores, head_scores_backward, iic_loss, plan_iic,
    plan_softmax, softmax_backward, softmax_forward,
};
use crate::device::{Engine, Layout, Pool, Slot};
use crate::method::common::{Common, Ops, Trainable, Training};
use crate::method::{Algorithm, Batching, Learned, Losses};
use crate::net::STRIDE;
use crate::recipe::Recipe;

/// A linear layer that is learned, and the plans of its loss.
struct Head {
    /// The head's name in checkpoints.
    name: &'static str,
    /// The name of its loss in logs.
    loss_name: &'static str,
    /// The linear layer.
    learned: Learned,
    /// The plans of its ops, by number of pairs in a batch.
    plans: BySize<(Plan<SoftmaxSpec>, Plan<IicSpec>)>,
}

/// IIC, planned for one data set.
pub struct Iic {
    common: Common,
    /// The heads in the order of an epoch's rounds: the auxiliary one, if any, and the main one.
    heads: Vec<Head>,
    /// (2·pairs, size/4, size/4, clusters), the class probabilities of a batch.
    maps: Slot<f32>,
    /// (2·pairs, size/4, size/4, clusters), their gradient.
    dmaps: Slot<f32>,
    /// (1), the loss of a step.
    loss: Slot<f32>,
}

impl Iic {
    /// Plans IIC for a data set of `images` images, except for the images' memory. Fails on shifts
    /// as large as the input.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        recipe: &Recipe,
        seed: u64,
        images: usize,
    ) -> Result<Self> {
        let views = vec![View::Window, View::Mirrored];
        let trainable = Trainable::plan(dev, layout, recipe, images, views)?;
        let (side, i) = (recipe.feature_side(), recipe.information);
        let batching = Batching { images, batch: recipe.batch };
        let mut heads = Vec::new();
        for (name, loss_name, k, lambda) in [
            ("auxiliary", "loss_auxiliary", recipe.auxiliary, i.lambda_auxiliary),
            ("classifier1", "loss_main", recipe.clusters, i.lambda),
        ] {
            if k == 0 {
                continue;
            }
            let plans = BySize::plan(batching.sizes(), |n| {
                let (up, t, collapsed) = (STRIDE, i.shifts, i.collapsed);
                let iic = IicSpec { n, h: side, w: side, k, up, t, collapsed, lambda };
                let softmax = SoftmaxSpec { n: 2 * n, pixels: side * side, k };
                Ok((plan_softmax(dev, softmax)?, plan_iic(dev, iic)?))
            })?;
            heads.push(Head { name, loss_name, learned: Learned::plan(layout, k, false), plans });
        }
        let len = 2 * batching.full() * side * side * recipe.most_clusters();
        let [maps, dmaps] =
            ["probabilities", "d probabilities"].map(|name| layout.take(Pool::State, name, len));
        let loss = layout.take(Pool::State, "loss", 1);
        let common = Common::plan(dev, layout, recipe, seed, images, trainable, &[])?;
        Ok(Iic { common, heads, maps, dmaps, loss })
    }

    /// The main head's layer.
    fn main(&self) -> &Learned {
        &self.heads[self.heads.len() - 1].learned
    }
}

impl Algorithm for Iic {
    fn common(&self) -> &Common {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common {
        &mut self.common
    }

    fn learned(&self) -> Vec<(&'static str, &Learned)> {
        self.heads.iter().map(|head| (head.name, &head.learned)).collect()
    }

    fn rounds(&self) -> usize {
        self.heads.len()
    }

    fn begin_steps(&mut self, _dev: &mut dyn Engine, _epoch: usize, _first: bool) -> Result<()> {
        Ok(())
    }

    fn queue(&mut self, dev: &mut dyn Engine, set: &PictureSet, training: Training) -> Result<()> {
        let (n, loss) = (training.batch.ids.len(), self.loss);
        let (head, heads) = (&self.heads[training.batch.round], &self.heads);
        let (softmax, iic) = head.plans.of(n);
        let len = 2 * n * self.common.recipe.feature_pixels() * head.learned.k;
        let (maps, dmaps) = (self.maps.part(0, len), self.dmaps.part(0, len));
        let adam = self.common.adam(dev, n);
        let scale = 1.0 / adam.grad_scale;
        let ops = Ops {
            rounds: heads.len(),
            stage: &mut |dev, _, batch| {
                let stage = |h: &Head| h.learned.stage(dev, adam, batch.step, batch.rate);
                heads.iter().try_for_each(stage)
            },
            loss: &|dev, program| {
                let (input, classifier) = (program.warped(), head.learned.classifier());
                let scores = HeadScores { scores: maps, input, classifier };
                head_scores(dev, &program.head, scores)?;
                softmax_forward(dev, softmax, SoftmaxForward { x: maps })?;
                iic_loss(dev, iic, IicLoss { loss, dmaps, maps, scale })?;
                softmax_backward(dev, softmax, SoftmaxBackward { dp: dmaps, p: maps })?;
                heads.iter().try_for_each(|h| h.learned.zero_grad(dev))?;
                let (dw, db) = head.learned.gradients();
                let (dlaterals, dscores) = (Some(program.dpyramid()), dmaps);
                let args = HeadScoresBackward { dlaterals, dw, db, dscores, input, classifier };
                head_scores_backward(dev, &program.head, args)
            },
            update: &|dev| heads.iter().try_for_each(|h| h.learned.update(dev, adam)),
        };
        self.common.step(dev, set.images(), training, ops)
    }

    fn losses(&self) -> Slot<f32> {
        self.loss
    }

    fn read_losses(&self, values: &[f32], _images: usize, round: usize) -> Losses {
        let total = f64::from(values[0]);
        Losses { total, parts: vec![(self.heads[round].loss_name, total)] }
    }

    fn classifier(&self, _dev: &mut dyn Engine, _trained: bool) -> Result<Classifier> {
        Ok(self.main().classifier())
    }
}
