//! IIC (Ji et al., ICCV 2019) with ResNet-18 and pyramid, as the supplement of PiCIE compares it.
//!
//! ```text
//! each epoch, for the auxiliary head, then for the main one:
//!     each batch: p₁, p₂ = softmax(W·f) of a window of each image, and of the same window jittered and mirrored (mirrored back)
//!                 L = −I(p₁; p₂), the mutual information over all shifts of up to T pixels of the input, λ times the marginals
//! ```
//! Heads are linear layers without bias; one Adam has all parameters, so the idle head goes on by
//! its momentum (as it did in the reference, where gradients were zeroed). The reference masks
//! pixels by ground truth; nothing is masked here.

use crate::augment::View;
use crate::base::Result;
use crate::data::PictureSet;
use crate::device::ops::{Backend, Classifier, IicSpec, SoftmaxSpec};
use crate::device::{Layout, Pool, Slot};
use crate::method::common::{Batch, Common, Ops, plan_network};
use crate::method::{Learned, Losses, Method, TrainSet, batch_sizes};
use crate::recipe::Recipe;

/// A head, and what its loss is computed with.
struct Head<B: Backend> {
    name: &'static str,
    loss_name: &'static str,
    learned: Learned<B>,
    /// By pairs of a batch.
    plans: Vec<(usize, B::SoftmaxPlan, B::IicPlan)>,
}

pub struct Iic<B: Backend> {
    common: Common<B>,
    /// In the order of an epoch's rounds: the auxiliary one, where there is one, and the main one.
    heads: Vec<Head<B>>,
    /// Probabilities of a batch (2·pairs, size/4, size/4, clusters), and their gradient.
    maps: Slot<f32>,
    dmaps: Slot<f32>,
    loss: Slot<f32>,
}

impl<B: Backend> Iic<B> {
    pub fn plan(
        dev: &mut B,
        layout: &mut Layout,
        recipe: &Recipe,
        seed: u64,
        set: TrainSet,
    ) -> Result<Self> {
        let images = set.images;
        let network = plan_network(dev, layout, recipe, images, 2)?;
        let (side, i) = (recipe.size / 4, recipe.information);
        let mut heads = Vec::new();
        for (name, loss_name, k, lambda) in [
            ("auxiliary", "loss_auxiliary", recipe.auxiliary, i.lambda_auxiliary),
            ("classifier1", "loss_main", recipe.clusters, i.lambda),
        ] {
            if k == 0 {
                continue;
            }
            let mut plans = Vec::new();
            for n in batch_sizes(images, recipe.batch).into_iter().filter(|&n| n > 0) {
                let spec = IicSpec {
                    n,
                    h: side,
                    w: side,
                    k,
                    up: 4,
                    t: i.shifts,
                    collapsed: i.collapsed,
                    lambda,
                };
                let softmax = SoftmaxSpec { n: 2 * n, pixels: side * side, k };
                plans.push((n, dev.plan_softmax(softmax)?, dev.plan_iic(spec)?));
            }
            heads.push(Head {
                name,
                loss_name,
                learned: Learned::plan(dev, layout, k, false),
                plans,
            });
        }
        let len = 2 * images.min(recipe.batch) * side * side * recipe.most_clusters();
        let [maps, dmaps] =
            ["probabilities", "d probabilities"].map(|name| layout.take(Pool::State, name, len));
        let loss = layout.take(Pool::State, "loss", 1);
        let common = Common::plan(
            dev,
            layout,
            recipe,
            seed,
            set,
            vec![View::Window, View::Mirrored],
            network,
        )?;
        Ok(Iic { common, heads, maps, dmaps, loss })
    }

    fn main(&self) -> &Learned<B> {
        &self.heads[self.heads.len() - 1].learned
    }
}

impl<B: Backend> Method<B> for Iic<B> {
    fn common(&self) -> &Common<B> {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common<B> {
        &mut self.common
    }

    fn learned(&self) -> Vec<(&'static str, &Learned<B>)> {
        self.heads.iter().map(|head| (head.name, &head.learned)).collect()
    }

    fn rounds(&self) -> usize {
        self.heads.len()
    }

    fn begin_steps(&mut self, _dev: &mut B, _epoch: usize, _first: bool) -> Result<()> {
        Ok(())
    }

    fn queue(
        &mut self,
        dev: &mut B,
        set: &PictureSet,
        batch: Batch,
        next: Option<Batch>,
    ) -> Result<()> {
        let (n, loss) = (batch.ids.len(), self.loss);
        let (head, heads) = (&self.heads[batch.round], &self.heads);
        let (_, softmax, iic) =
            head.plans.iter().find(|(m, ..)| *m == n).expect("every batch size was planned");
        let len = 2 * n * (self.common.recipe.size / 4).pow(2) * head.learned.k;
        let (maps, dmaps) = (self.maps.part(0, len), self.dmaps.part(0, len));
        let adam = self.common.adam(n);
        self.common.step(
            dev,
            set.images(),
            (batch, next),
            heads.len(),
            Ops {
                stage: &mut |dev, _, batch| {
                    heads
                        .iter()
                        .try_for_each(|h| h.learned.stage(dev, adam, (batch.step, batch.rate)))
                },
                loss: &|dev, program| {
                    let (input, classifier) = (program.warped(), head.learned.classifier());
                    dev.head_scores(&program.head, maps, input, classifier)?;
                    dev.softmax_forward(softmax, maps)?;
                    dev.iic_loss(iic, loss, dmaps, maps, 1.0 / adam.grad_scale)?;
                    dev.softmax_backward(softmax, dmaps, maps)?;
                    heads.iter().try_for_each(|h| h.learned.zero_grad(dev))?;
                    let (dw, db) = head.learned.gradients();
                    dev.head_scores_backward(
                        &program.head,
                        Some(program.dpyramid()),
                        dw,
                        db,
                        dmaps,
                        input,
                        classifier,
                    )
                },
                update: &|dev| heads.iter().try_for_each(|h| h.learned.update(dev, adam)),
            },
        )
    }

    fn losses(&self) -> Slot<f32> {
        self.loss
    }

    fn read_losses(&self, values: &[f32], _images: usize, round: usize) -> Losses {
        let total = f64::from(values[0]);
        Losses { total, parts: vec![(self.heads[round].loss_name, total)] }
    }

    fn scorer(&self, _dev: &mut B, _trained: bool) -> Result<Classifier> {
        Ok(self.main().classifier())
    }
}
