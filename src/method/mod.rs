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
pub use common::{Batch, Common};
pub use evaluate::Evaluator;
pub use laterals::PcaLaterals;
pub use learned::{Learned, Start};
pub use search::{Neighbour, STRIDE, Search};

use crate::base::Result;
use crate::data::PictureSet;
use crate::device::ops::{Backend, Classifier};
use crate::device::{Layout, Slot};
use crate::net::{Geometry, Mode, Network, Program};
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
pub trait Method<B: Backend> {
    fn common(&self) -> &Common<B>;

    fn common_mut(&mut self) -> &mut Common<B>;

    /// The k-means and label passes that an epoch begins with, where it does.
    fn clustering(&self) -> Option<&Clustering<B>> {
        None
    }

    fn clustering_mut(&mut self) -> Option<(&mut Common<B>, &mut Clustering<B>)> {
        None
    }

    /// What is learned besides the network, each with its name in checkpoints.
    fn learned(&self) -> Vec<(&'static str, &Learned<B>)> {
        Vec::new()
    }

    /// Random weights: of the network, and of what is learned besides.
    fn init(&mut self, dev: &mut B) -> Result<()> {
        let common = self.common();
        common.net.init(dev, common.seed)?;
        let mut learned = self.learned().into_iter().enumerate();
        learned.try_for_each(|(which, (_, learned))| {
            learned.init(dev, common.seed, Start::FanIn, which as u32)
        })
    }

    /// Training passes over the data set in an epoch.
    fn rounds(&self) -> usize {
        1
    }

    /// Before the training steps of an epoch. `first`: none of them has been done yet (else a
    /// checkpoint brought back what they did).
    fn begin_steps(&mut self, dev: &mut B, epoch: usize, first: bool) -> Result<()>;

    /// One optimizer step; the device may still be at it. `next`: the batch that follows in the
    /// same epoch, where there is one; its inputs are written while this one runs.
    fn queue(
        &mut self,
        dev: &mut B,
        set: &PictureSet,
        batch: Batch,
        next: Option<Batch>,
    ) -> Result<()>;

    /// Where steps leave their losses: at the beginning of this slot, which is as large as the
    /// largest batch wants it.
    fn losses(&self) -> Slot<f32>;

    /// What the values in that slot say of a step on `images` images in round `round`.
    fn read_losses(&self, values: &[f32], images: usize, round: usize) -> Losses;

    /// One optimizer step, done.
    fn step(
        &mut self,
        dev: &mut B,
        set: &PictureSet,
        batch: Batch,
        next: Option<Batch>,
    ) -> Result<Losses> {
        self.queue(dev, set, batch, next)?;
        let values = dev.read(self.losses())?;
        Ok(self.read_losses(&values, batch.ids.len(), batch.round))
    }

    /// What evaluation scores with. `trained`: after training steps, else before the first.
    fn scorer(&self, dev: &mut B, trained: bool) -> Result<Classifier>;
}

/// The images to train on, as a plan sees them.
#[derive(Clone, Copy, Debug)]
pub struct TrainSet {
    pub images: usize,
    /// Whether all of them lie on the device, loaded once; else they come batch by batch.
    pub resident: bool,
}

/// Plans the recipe's method for a data set.
pub fn plan<'a, B: Backend + 'a>(
    dev: &mut B,
    layout: &mut Layout,
    recipe: &Recipe,
    seed: u64,
    set: TrainSet,
) -> Result<Box<dyn Method<B> + 'a>> {
    Ok(match recipe.method {
        recipe::Method::Picie => Box::new(picie::Picie::plan(dev, layout, recipe, seed, set)?),
        recipe::Method::Mdc => Box::new(mdc::Mdc::plan(dev, layout, recipe, seed, set)?),
        recipe::Method::Iic => Box::new(iic::Iic::plan(dev, layout, recipe, seed, set)?),
        recipe::Method::Supervised => {
            Box::new(supervised::Supervised::plan(dev, layout, recipe, seed, set)?)
        }
    })
}

/// What `plan` makes of a layout and of whether images are resident: they are where the engine has
/// memory of its own, and all that was planned fits there.
pub fn plan_images<B: Backend, P>(
    dev: &mut B,
    mut plan: impl FnMut(&mut B, &mut Layout, bool) -> Result<P>,
) -> Result<(Layout, P)> {
    if dev.free_bytes().is_some() {
        let mut layout = Layout::default();
        let planned = plan(dev, &mut layout, true)?;
        dev.decide()?;
        let wanted = layout.total_bytes() + dev.scratch_bytes();
        if dev.free_bytes().is_some_and(|free| wanted <= free) {
            return Ok((layout, planned));
        }
    }
    let mut layout = Layout::default();
    let planned = plan(dev, &mut layout, false)?;
    dev.decide()?;
    Ok((layout, planned))
}

/// A program for full batches, and one for what is left of the data set.
pub struct Programs<B: Backend> {
    full: Program<B>,
    tail: Option<Program<B>>,
}

impl<B: Backend> Programs<B> {
    /// For `total` images in batches of `batch`; `geometry.n` and `geometry.groups` are per `views`
    /// views of an image.
    pub fn plan(
        dev: &mut B,
        layout: &mut Layout,
        net: &Network<B>,
        (total, batch, views): (usize, usize, usize),
        geometry: Geometry,
        mode: Mode,
    ) -> Result<Self> {
        let mut plan = |images: usize| {
            let geometry = Geometry { n: images * views, groups: views, ..geometry };
            Program::plan(dev, layout, net, geometry, mode)
        };
        let [full, tail] = batch_sizes(total, batch);
        Ok(Programs { full: plan(full)?, tail: (tail > 0).then(|| plan(tail)).transpose()? })
    }

    /// The program for `n` images in memory (views counted).
    pub fn of(&self, n: usize) -> &Program<B> {
        let all = [Some(&self.full), self.tail.as_ref()];
        all.into_iter().flatten().find(|p| p.geometry.n == n).expect("every batch size was planned")
    }
}

/// Images in a full batch, and in the last one (0: it is full too).
pub fn batch_sizes(total: usize, batch: usize) -> [usize; 2] {
    if total < batch { [total, 0] } else { [batch, total % batch] }
}

/// The recipe's geometry; images of a batch and their groups are still to be said.
fn geometry(recipe: &Recipe) -> Geometry {
    let Recipe { size, merge, .. } = *recipe;
    Geometry {
        n: 0,
        h: size,
        w: size,
        groups: 1,
        k: recipe.most_clusters(),
        merge,
        unit: recipe.unit(),
    }
}
