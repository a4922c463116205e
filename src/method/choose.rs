//! The number of clusters, from the images: as many as two halves of them agree on.
//!
//! ```text
//! some pixels' features of each image, by the network before training
//! several times:  the images in two halves at random
//!     for each K: A = k-means of one half, B = of the other
//!                 agreement = the adjusted Rand index of nearest-of-A and nearest-of-B, on either half
//! K = the largest whose mean agreement is at least NEAR of the best one's
//! ```
//! A cluster that is found in both halves will be found in the next photo, too; one that only some
//! pictures have is an accident of these. Agreement falls as K grows, so the best number alone
//! would nearly always be the fewest. The objective of k-means falls steadily and has no knee; the
//! agreement of two k-means of the same points tells how lucky their starts were.
//!
//! Source: prediction strength (Tibshirani and Walther 2005), with the index of Hubert and Arabie
//! (1985) in place of its worst cluster.

use std::ops::RangeInclusive;

use rayon::prelude::*;

use crate::augment::View;
use crate::base::rng::{Rng, Stream};
use crate::base::{Result, stop};
use crate::cluster::{MiniBatch, Schedule};
use crate::data::ImageStore;
use crate::device::ops::Backend;
use crate::device::{Layout, Pool, Slot};
use crate::method::common::Common;
use crate::method::{PcaLaterals, Programs, Tick, TrainSet, batch_sizes, geometry};
use crate::net::weights::{Start, Weights};
use crate::net::{FEATURES, Mode, Network};
use crate::recipe::{Laterals, Recipe};

/// Images that are looked at, at most.
const IMAGES: usize = 256;
/// Pixels of them together, about.
const POINTS: usize = 16384;
/// Halvings.
const SPLITS: usize = 5;
/// Random starts of each k-means.
const RESTARTS: usize = 3;
/// How much of the best number's agreement is enough.
const NEAR: f64 = 0.85;

/// What a number of clusters is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    pub clusters: usize,
    /// Mean squared distance of a half's points to the nearest of its own centroids.
    pub objective: f64,
    /// 1: both halves have the same clusters; 0: no more alike than by chance.
    pub agreement: f64,
}

/// The largest number whose agreement is near the best one's. `candidates` in ascending order, at
/// least one.
pub fn chosen(candidates: &[Candidate]) -> usize {
    let best = candidates.iter().map(|c| c.agreement).fold(f64::NEG_INFINITY, f64::max);
    let near = candidates.iter().rev().find(|c| c.agreement >= NEAR * best);
    near.unwrap_or(&candidates[0]).clusters
}

/// Planned on an engine of its own, before a run is.
pub struct Chooser<B: Backend> {
    common: Common<B>,
    programs: Programs<B>,
    laterals: Option<PcaLaterals<B>>,
    /// Features of a batch (images, size/4, size/4, FEATURES).
    features: Slot<f32>,
    /// Points of a half (capacity, FEATURES).
    points: Slot<f32>,
    /// For the largest candidate.
    centroids: Slot<f32>,
    /// By number of clusters.
    cluster: Vec<(usize, MiniBatch<B>)>,
    /// Points of an image.
    each: usize,
}

impl<B: Backend> Chooser<B> {
    /// For a data set of at least two images. Errors: halves with fewer points than clusters.
    pub fn plan(
        dev: &mut B,
        layout: &mut Layout,
        recipe: &Recipe,
        seed: u64,
        set: TrainSet,
        candidates: RangeInclusive<usize>,
    ) -> Result<Self> {
        let images = set.images;
        let most = *candidates.end();
        // One kind of batch: training's are not run here.
        let recipe =
            &Recipe { batch: recipe.batch_cluster, clusters: most, auxiliary: 0, ..recipe.clone() };
        let net = Network::plan(dev, layout, recipe.architecture);
        let mut programs = |net: &_| {
            Programs::plan(
                dev,
                layout,
                net,
                (images, recipe.batch, 1),
                geometry(recipe),
                Mode::Eval,
            )
        };
        let (own, commons) = (programs(&net)?, programs(&net)?);
        let laterals = match recipe.laterals {
            Laterals::Pca => Some(PcaLaterals::plan(dev, layout, &net, recipe, images)?),
            Laterals::Random => None,
        };
        let pixels = (recipe.size / 4).pow(2);
        let looked = images.min(IMAGES);
        let each = (POINTS / looked).clamp(1, pixels);
        let features = layout.take(
            Pool::State,
            "features",
            batch_sizes(images, recipe.batch)[0] * pixels * FEATURES,
        );
        let points =
            layout.take(Pool::State, "points of a half", looked.div_ceil(2) * each * FEATURES);
        let centroids = layout.take(Pool::State, "centroids", most * FEATURES);
        let schedule = Schedule {
            init_batches: 1,
            iters: recipe.kmeans_iters,
            restarts: RESTARTS,
            update_every: 1,
        };
        let cluster =
            candidates.map(|k| Ok((k, MiniBatch::plan(dev, layout, schedule, k, points)?)));
        let cluster = cluster.collect::<Result<_>>()?;
        let common =
            Common::plan(dev, layout, recipe, seed, set, vec![View::Plain], (net, commons))?;
        Ok(Chooser { common, programs: own, laterals, features, points, centroids, cluster, each })
    }

    /// Images that [`Chooser::run`] will look at, those for the laterals counted again.
    pub fn images(&self, start: &Start) -> usize {
        let (recipe, images) = (&self.common.recipe, self.common.images);
        let laterals = self.laterals.is_some() && !start.has_laterals();
        images.min(IMAGES) + if laterals { PcaLaterals::<B>::images(recipe, images) } else { 0 }
    }

    /// What each candidate is worth to the network that training will start from, and the laterals
    /// that were computed for it, which training will not have to compute again.
    pub fn run(
        mut self,
        dev: &mut B,
        start: &Start,
        set: &ImageStore,
        tick: Tick,
    ) -> Result<(Vec<Candidate>, Option<Weights>)> {
        self.common.load_images(dev, set)?;
        self.common.net.init(dev, self.common.seed)?;
        if let Some(weights) = &start.weights {
            self.common.net.load(dev, weights)?;
        }
        let laterals = self.laterals.take().filter(|_| !start.has_laterals());
        let laterals =
            laterals.map(|laterals| laterals.fit(dev, &mut self.common, set, tick)).transpose()?;
        let points = self.points(dev, set, tick)?;
        let seed = self.common.seed;
        let mut candidates = Vec::new();
        for at in 0..self.cluster.len() {
            let clusters = self.cluster[at].0;
            let (mut objective, mut agreement) = (0.0, 0.0);
            for split in 0..SPLITS {
                stop::check()?;
                let order =
                    Rng::new(seed, Stream::Other, split as u32, 0).permutation(points.len());
                let (left, right) = order.split_at(points.len() / 2);
                let half = |ids: &[u32]| {
                    ids.iter().flat_map(|&i| &points[i as usize]).copied().collect::<Vec<f32>>()
                };
                let halves = [half(left), half(right)];
                let mut centroids = Vec::new();
                for (side, half) in halves.iter().enumerate() {
                    let mut rng = Rng::new(
                        seed,
                        Stream::KMeansInit,
                        clusters as u32,
                        (2 * split + side) as u32,
                    );
                    dev.write(self.points.part(0, half.len()), half)?;
                    let slot = self.centroids.part(0, clusters * FEATURES);
                    let rows = half.len() / FEATURES;
                    let summary = self.cluster[at].1.of_points(dev, rows, slot, &mut rng)?;
                    objective += summary.objective / (2 * SPLITS) as f64;
                    centroids.push(dev.read(slot)?);
                }
                for half in &halves {
                    let [a, b] = [0, 1].map(|side| nearest(half, &centroids[side]));
                    agreement += rand_index(&a, &b, clusters) / (2 * SPLITS) as f64;
                }
            }
            candidates.push(Candidate { clusters, objective, agreement });
        }
        Ok((candidates, laterals))
    }

    /// Features of `each` pixels of every image that is looked at.
    fn points(&mut self, dev: &mut B, set: &ImageStore, tick: Tick) -> Result<Vec<Vec<f32>>> {
        let Chooser { common, programs, each, .. } = self;
        let order = common.order(Stream::ClusterOrder, 0, 0);
        let pixels = (common.recipe.size / 4).pow(2);
        let mut points = Vec::new();
        common.net.fold(dev)?;
        // Whole batches only, because those are what programs were planned for.
        for ids in order.chunks(common.recipe.batch).take(IMAGES.div_ceil(common.recipe.batch)) {
            let program = programs.of(ids.len());
            common.stage_view(dev, program, set, ids, 0, View::Plain)?;
            common.feeder.render(dev, program.x, ids.len(), 0, View::Plain)?;
            program.forward(dev, &common.net)?;
            let features = self.features.part(0, ids.len() * pixels * FEATURES);
            dev.head_features(&program.head, features, program.warped())?;
            let features = dev.read(features)?;
            for (&id, image) in ids.iter().zip(features.chunks(pixels * FEATURES)) {
                let some = Rng::new(common.seed, Stream::Other, id, 1).choose(pixels, *each);
                points.push(
                    some.iter()
                        .flat_map(|&p| &image[p as usize * FEATURES..][..FEATURES])
                        .copied()
                        .collect(),
                );
            }
            tick(ids.len())?;
        }
        points.truncate(IMAGES);
        Ok(points)
    }
}

/// The nearest centroid of each point; both (.., FEATURES).
fn nearest(points: &[f32], centroids: &[f32]) -> Vec<usize> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let bias: Vec<f32> = centroids.chunks(FEATURES).map(|c| dot(c, c) / 2.0).collect();
    let of = |point: &[f32]| {
        let scores = centroids.chunks(FEATURES).zip(&bias).map(|(c, bias)| dot(point, c) - bias);
        scores.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(k, _)| k)
    };
    points.par_chunks(FEATURES).map(of).collect()
}

/// The adjusted Rand index of two labellings of the same points by k classes: 1 where they are the
/// same but for the names of classes, 0 on average where they have nothing to do with each other.
fn rand_index(a: &[usize], b: &[usize], k: usize) -> f64 {
    let mut table = vec![0u64; k * k];
    a.iter().zip(b).for_each(|(&a, &b)| table[a * k + b] += 1);
    let pairs = |n: u64| n as f64 * (n as f64 - 1.0) / 2.0;
    let both: f64 = table.iter().map(|&n| pairs(n)).sum();
    let rows: f64 = table.chunks(k).map(|row| pairs(row.iter().sum())).sum();
    let columns: f64 = (0..k).map(|c| pairs(table.iter().skip(c).step_by(k).sum())).sum();
    let chance = rows * columns / pairs(a.len() as u64).max(1.0);
    let most = (rows + columns) / 2.0;
    // One class alone on either side: the same labelling.
    if most > chance { (both - chance) / (most - chance) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_knows_equal_and_unrelated_labellings() {
        let a = [0, 0, 0, 1, 1, 1, 2, 2];
        assert_eq!(rand_index(&a, &a.map(|c| (c + 1) % 3), 3), 1.0);
        assert_eq!(rand_index(&[1; 5], &[0; 5], 2), 1.0);
        // By hand: 4 points, rows of pairs {1, 1}, columns {1, 1}, none together; chance 2·2/6.
        let index = rand_index(&[0, 0, 1, 1], &[0, 1, 0, 1], 2);
        assert!((index - (0.0 - 2.0 / 3.0) / (2.0 - 2.0 / 3.0)).abs() < 1e-12, "{index}");
        let mut rng = Rng::new(1, Stream::Other, 0, 0);
        let mut random = || (0..4000).map(|_| rng.below(5)).collect::<Vec<_>>();
        let index = rand_index(&random(), &random(), 5);
        assert!(index.abs() < 0.01, "{index}");
    }

    #[test]
    fn the_largest_number_near_the_best_is_chosen() {
        let of = |agreements: &[f64]| {
            let candidate =
                |(i, &agreement)| Candidate { clusters: 6 + i, objective: 0.0, agreement };
            chosen(&agreements.iter().enumerate().map(candidate).collect::<Vec<_>>())
        };
        assert_eq!(of(&[0.6, 0.55, 0.52, 0.5, 0.4]), 8);
        // A number in between may be a bad one.
        assert_eq!(of(&[0.6, 0.3, 0.55, 0.2]), 8);
        assert_eq!(of(&[0.2, 0.3, 0.9]), 8);
        assert_eq!(of(&[-0.01, -0.02]), 6);
    }

    #[test]
    fn points_go_to_the_nearest_centroid() {
        let mut centroids = vec![0.0; 2 * FEATURES];
        (centroids[0], centroids[FEATURES + 1]) = (1.0, 0.5);
        let mut points = vec![0.0; 3 * FEATURES];
        (points[0], points[FEATURES + 1], points[2 * FEATURES]) = (0.9, 0.4, 0.3);
        // 0.3 on the first axis is 0.7 from the one and 0.58 from the other.
        assert_eq!(nearest(&points, &centroids), [0, 1, 1]);
    }
}
