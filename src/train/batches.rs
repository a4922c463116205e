//! The training batches of an epoch, round after round.

use crate::base::rng::Stream;
use crate::method::{Algorithm, Batch};
use crate::recipe::{Decay, Recipe};

pub struct Batches {
    /// Images in the order of each round.
    orders: Vec<Vec<u32>>,
    size: usize,
    epoch: usize,
    /// Optimizer steps before this epoch.
    before: u64,
    decay: Decay,
    /// Optimizer steps of the whole run.
    total: u64,
}

impl Batches {
    /// `before`: optimizer steps of the epochs before.
    pub fn new(method: &dyn Algorithm, epoch: usize, before: u64) -> Self {
        let common = method.common();
        let orders = (0..method.rounds())
            .map(|round| common.order(Stream::TrainOrder, epoch, round))
            .collect();
        let Recipe { batch, lr_decay, epochs, .. } = common.recipe;
        let batches = Batches { orders, size: batch, epoch, before, decay: lr_decay, total: 0 };
        Batches { total: (epochs * batches.len()) as u64, ..batches }
    }

    fn per_round(&self) -> usize {
        self.orders[0].len().div_ceil(self.size)
    }

    pub fn len(&self) -> usize {
        self.orders.len() * self.per_round()
    }

    /// Images of all batches together.
    pub fn images(&self) -> usize {
        self.orders.iter().map(Vec::len).sum()
    }

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
