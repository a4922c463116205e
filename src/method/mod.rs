//! The learning methods. Each file reads like the algorithm box of its paper.
//!
//! ```text
//! picie mdc iic supervised     the methods that train a network
//! clustering learned           the pseudo labels of an epoch; classifiers with learned weights
//! laterals                     first weights of the pyramid, by principal component analysis
//! choose                       the choice of the number of clusters, if the user gives none
//! common                       the network, the views of a data set, the skeleton of a step
//! evaluate search              evaluation of a trained network; search for similar pixels
//! predict baselines            predictions for any pictures; baselines, which train nothing
//! ```

pub mod baselines;
mod choose;
mod clustering;
mod common;
mod evaluate;
mod iic;
mod laterals;
mod learned;
mod mdc;
mod picie;
pub mod predict;
mod search;
mod supervised;

pub use choose::{Candidate, Chooser, chosen};
pub use clustering::{Clustering, PseudoLabels, ViewPass};
pub use common::{Batch, Common, Training};
pub use evaluate::{EvalShape, Evaluator};
pub use laterals::PcaLaterals;
pub use learned::{FirstWeights, Learned};
pub use search::{Neighbor, Search, Wanted};

use crate::base::{BySize, Result};
use crate::data::PictureSet;
use crate::device::ops::Classifier;
use crate::device::{Engine, Layout, Slot};
use crate::net::{Mode, Network, Program, ProgramSpec};
use crate::recipe::{self, Recipe};

/// A function that is called after each batch with its number of images. An error from it stops the
/// pass.
pub type Tick<'a> = &'a mut dyn FnMut(usize) -> Result<()>;

/// The loss of a training step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Losses {
    /// The number that the step minimises.
    pub total: f64,
    /// Parts of the loss, with the names that the method gives them in logs.
    pub parts: Vec<(&'static str, f64)>,
}

/// A method that trains a network, planned for one data set.
pub trait Algorithm {
    /// The parts that all methods have.
    fn common(&self) -> &Common;

    /// The parts that all methods have.
    fn common_mut(&mut self) -> &mut Common;

    /// The k-means and label passes that an epoch begins with. `None` if the method has no pseudo
    /// labels.
    fn clustering(&self) -> Option<&Clustering> {
        None
    }

    /// The same as [`Algorithm::clustering`], with the common parts that the passes need.
    fn clustering_mut(&mut self) -> Option<(&mut Common, &mut Clustering)> {
        None
    }

    /// The classifiers that are learned besides the network, each with its name in checkpoints.
    fn learned(&self) -> Vec<(&'static str, &Learned)> {
        Vec::new()
    }

    /// Writes random weights for the network and for the classifiers that are learned besides it,
    /// and zeros for centroids, which a run that is stopped in its first k-means saves.
    fn init(&mut self, dev: &mut dyn Engine) -> Result<()> {
        let common = self.common();
        common.net.init(dev, common.seed)?;
        for (which, (_, learned)) in self.learned().into_iter().enumerate() {
            learned.init(dev, common.seed, FirstWeights::FanIn, which as u32)?;
        }
        for pseudo in self.clustering().iter().flat_map(|c| c.pseudo()).flatten() {
            dev.zero(pseudo.scorer.centroids)?;
        }
        Ok(())
    }

    /// Number of training passes over the data set in an epoch.
    fn rounds(&self) -> usize {
        1
    }

    /// Prepares the training steps of an epoch. `first`: none of them has been done yet; else a
    /// checkpoint from the middle of the epoch was loaded.
    fn begin_steps(&mut self, dev: &mut dyn Engine, epoch: usize, first: bool) -> Result<()>;

    /// Queues one optimizer step, and returns before the device has finished it.
    fn queue(&mut self, dev: &mut dyn Engine, set: &PictureSet, training: Training) -> Result<()>;

    /// The slot that steps write their losses to, from its beginning. It is large enough for the
    /// largest batch.
    fn losses(&self) -> Slot<f32>;

    /// The losses of a step on `images` images in round `round`, from the values in that slot.
    fn read_losses(&self, values: &[f32], images: usize, round: usize) -> Losses;

    /// Runs one optimizer step, and waits for its losses.
    fn step(
        &mut self,
        dev: &mut dyn Engine,
        set: &PictureSet,
        training: Training,
    ) -> Result<Losses> {
        self.queue(dev, set, training)?;
        let values = dev.read(self.losses())?;
        let Batch { ids, round, .. } = training.batch;
        Ok(self.read_losses(&values, ids.len(), round))
    }

    /// The classifier for evaluation. `trained`: training steps of this epoch have been done.
    fn classifier(&self, dev: &mut dyn Engine, trained: bool) -> Result<Classifier>;
}

/// Plans the recipe's method for a data set of `images` images. The images themselves get their
/// memory last, by [`Common::place_images`], when everything else has its place. Fails on sizes
/// that the engine cannot run.
pub fn plan(
    dev: &mut dyn Engine,
    layout: &mut Layout,
    recipe: &Recipe,
    seed: u64,
    images: usize,
) -> Result<Box<dyn Algorithm>> {
    Ok(match recipe.method {
        recipe::Method::Picie => Box::new(picie::Picie::plan(dev, layout, recipe, seed, images)?),
        recipe::Method::Mdc => Box::new(mdc::Mdc::plan(dev, layout, recipe, seed, images)?),
        recipe::Method::Iic => Box::new(iic::Iic::plan(dev, layout, recipe, seed, images)?),
        recipe::Method::Supervised => {
            Box::new(supervised::Supervised::plan(dev, layout, recipe, seed, images)?)
        }
    })
}

/// The division of a data set into batches.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Number of images in the data set.
    pub images: usize,
    /// Number of images in a full batch, if the data set has as many.
    pub batch: usize,
}

impl Batching {
    /// Number of images in a full batch.
    pub fn full(self) -> usize {
        self.batch.min(self.images)
    }

    /// The numbers of images that batches have: that of a full batch, and that of the last one if
    /// it is not full.
    pub fn sizes(self) -> Vec<usize> {
        let tail = if self.images < self.batch { 0 } else { self.images % self.batch };
        [self.full(), tail].into_iter().filter(|&images| images > 0).collect()
    }
}

/// Programs (sequences of the network's ops), one for each size of batch.
pub struct Programs(BySize<Program>);

impl Programs {
    /// Plans a program for each size of batch, with `views` views of each image. `spec.n` and
    /// `spec.groups` are ignored: they are set to images × views, and to views.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        net: &Network,
        batching: Batching,
        views: usize,
        spec: ProgramSpec,
        mode: Mode,
    ) -> Result<Self> {
        let sizes = batching.sizes().into_iter().map(|images| images * views);
        let programs = BySize::plan(sizes, |n| {
            Program::plan(dev, layout, net, ProgramSpec { n, groups: views, ..spec }, mode)
        });
        Ok(Programs(programs?))
    }

    /// The program for batches of `n` inputs: images × views.
    pub fn of(&self, n: usize) -> &Program {
        self.0.of(n)
    }
}

/// The sizes of programs for this recipe, except for `n` and `groups`, which callers set.
fn program_spec(recipe: &Recipe) -> ProgramSpec {
    let Recipe { size, merge, .. } = *recipe;
    ProgramSpec {
        n: 0,
        h: size,
        w: size,
        groups: 1,
        k: recipe.most_clusters(),
        merge,
        unit: recipe.unit(),
    }
}
