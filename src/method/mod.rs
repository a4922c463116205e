//! The methods: each reads like the algorithm box of its paper.

mod evaluate;
mod picie;

pub use evaluate::Evaluator;
pub use picie::{Losses, Picie, Tick};

use crate::base::Result;
use crate::device::Layout;
use crate::device::ops::Backend;
use crate::net::{Geometry, Mode, Network, Program};

/// A program for full batches, and one for what is left of the data set.
pub struct Programs<B: Backend> {
    full: Program<B>,
    tail: Option<Program<B>>,
}

impl<B: Backend> Programs<B> {
    /// For `total` images in batches of `batch`; `geometry.n` and `geometry.groups` are per `views` views of an image.
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
