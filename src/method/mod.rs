//! The methods: each reads like the algorithm box of its paper.
//!
//! ```text
//! picie mdc iic supervised     the algorithms
//! clustering learned           pseudo labels of an epoch; a classifier with weights of its own
//! laterals                     where the pyramid of a trained backbone begins
//! choose                       the number of clusters, where nobody says it
//! common                       the network, views of a data set, the skeleton of a training step
//! evaluate search              predictions of a trained network; pixels with like features
//! predict baselines            clusters of any pictures, by a network or by what trains nothing
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
pub use clustering::{Clustering, PseudoLabels};
pub use common::{Batch, Common, Training};
pub use evaluate::{EvalShape, Evaluator};
pub use laterals::PcaLaterals;
pub use learned::{Learned, Start};
pub use search::{Neighbour, Search, Wanted};

use crate::base::{BySize, Result};
use crate::data::PictureSet;
use crate::device::ops::Classifier;
use crate::device::{Engine, Layout, Slot};
use crate::net::{Mode, Network, Program, ProgramSpec};
use crate::recipe::{self, Recipe};

/// Called after each batch with its number of images; an error stops the pass.
pub type Tick<'a> = &'a mut dyn FnMut(usize) -> Result<()>;

/// What a training step minimised, and the parts that a method has names for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Losses {
    pub total: f64,
    pub parts: Vec<(&'static str, f64)>,
}

/// A way of learning, planned for one data set.
pub trait Algorithm {
    fn common(&self) -> &Common;

    fn common_mut(&mut self) -> &mut Common;

    /// The k-means and label passes that an epoch begins with, where it does.
    fn clustering(&self) -> Option<&Clustering> {
        None
    }

    fn clustering_mut(&mut self) -> Option<(&mut Common, &mut Clustering)> {
        None
    }

    /// What is learned besides the network, each with its name in checkpoints.
    fn learned(&self) -> Vec<(&'static str, &Learned)> {
        Vec::new()
    }

    /// Random weights: of the network, and of what is learned besides.
    fn init(&mut self, dev: &mut dyn Engine) -> Result<()> {
        let common = self.common();
        common.net.init(dev, common.seed)?;
        for (which, (_, learned)) in self.learned().into_iter().enumerate() {
            learned.init(dev, common.seed, Start::FanIn, which as u32)?;
        }
        Ok(())
    }

    /// Training passes over the data set in an epoch.
    fn rounds(&self) -> usize {
        1
    }

    /// Before the training steps of an epoch. `first`: none of them has been done yet (else a
    /// checkpoint brought back what they did).
    fn begin_steps(&mut self, dev: &mut dyn Engine, epoch: usize, first: bool) -> Result<()>;

    /// One optimizer step; the device may still be at it.
    fn queue(&mut self, dev: &mut dyn Engine, set: &PictureSet, training: Training) -> Result<()>;

    /// Where steps leave their losses: at the beginning of this slot, which is as large as the
    /// largest batch wants it.
    fn losses(&self) -> Slot<f32>;

    /// What the values in that slot say of a step on `images` images in round `round`.
    fn read_losses(&self, values: &[f32], images: usize, round: usize) -> Losses;

    /// One optimizer step, done.
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

    /// What evaluation scores with. `trained`: after training steps, else before the first.
    fn classifier(&self, dev: &mut dyn Engine, trained: bool) -> Result<Classifier>;
}

/// Plans the recipe's algorithm for a data set of `images` images, all but the place of the images
/// themselves: that comes last ([`Common::place_images`]), when everything else has its place.
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

/// How a data set is cut into batches.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Images of the data set.
    pub images: usize,
    /// Images of a full batch, at most.
    pub batch: usize,
}

impl Batching {
    /// Images of a full batch.
    pub fn full(self) -> usize {
        self.batch.min(self.images)
    }

    /// Images of a full batch, and of the last one where it is not full.
    pub fn sizes(self) -> Vec<usize> {
        let tail = if self.images < self.batch { 0 } else { self.images % self.batch };
        [self.full(), tail].into_iter().filter(|&images| images > 0).collect()
    }
}

/// A program for each size of batch.
pub struct Programs(BySize<Program>);

impl Programs {
    /// `geometry.n` and `geometry.groups` are per `views` views of an image.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        net: &Network,
        batching: Batching,
        views: usize,
        geometry: ProgramSpec,
        mode: Mode,
    ) -> Result<Self> {
        let sizes = batching.sizes().into_iter().map(|images| images * views);
        let programs = BySize::plan(sizes, |n| {
            Program::plan(dev, layout, net, ProgramSpec { n, groups: views, ..geometry }, mode)
        });
        Ok(Programs(programs?))
    }

    /// The program for `n` images in memory (views counted).
    pub fn of(&self, n: usize) -> &Program {
        self.0.of(n)
    }
}

/// The recipe's geometry; images of a batch and their groups are still to be said.
fn geometry(recipe: &Recipe) -> ProgramSpec {
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
