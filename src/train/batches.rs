//! The division of an epoch's images into training batches, round after round.

use crate::base::rng::Stream;
use crate::method::{Algorithm, Batch};
use crate::recipe::{Decay, Recipe};

/// The training batches of an epoch. A round is one pass over the data set.
pub struct Batches {
    /// The random order of images in each round.
    orders: Vec<Vec<u32>>,
    /// Number of images in a full batch.
    size: usize,
    /// The epoch, counted from 1.
    epoch: usize,
    /// Number of optimizer steps in all epochs before.
    before: u64,
    /// The decay of the learning rate.
    decay: Decay,
    /// Number of optimizer steps in the whole run.
    total: u64,
}

impl Batches {
    /// The batches of an epoch. `before` is the number of optimizer steps in all epochs before.
    pub fn new(method: &dyn Algorithm, epoch: usize, before: u64) -> Self {
        let common = method.common();
        let orders = (0..method.rounds())
            .map(|round| common.order(Stream::TrainOrder, epoch, round))
            .collect();
        let Recipe { batch, lr_decay, epochs, .. } = common.recipe;
        let batches = Batches { orders, size: batch, epoch, before, decay: lr_decay, total: 0 };
        Batches { total: (epochs * batches.len()) as u64, ..batches }
    }

    /// Number of batches in a round.
    fn per_round(&self) -> usize {
        self.orders[0].len().div_ceil(self.size)
    }

    /// Number of batches in the epoch.
    pub fn len(&self) -> usize {
        self.orders.len() * self.per_round()
    }

    /// Number of images in all batches together.
    pub fn images(&self) -> usize {
        self.orders.iter().map(Vec::len).sum()
    }

    /// The batch number `i` of the epoch, from 0.
    pub fn get(&self, i: usize) -> Batch<'_> {
        let (round, at) = (i / self.per_round(), i % self.per_round() * self.size);
        let order = &self.orders[round];
        let ids = &order[at..(at + self.size).min(order.len())];
        let done = self.before + i as u64;
        Batch {
            ids,
            epoch: self.epoch,
            round,
            before: i,
            step: done + 1,
            rate: self.decay.rate(done, self.total),
        }
    }
}
