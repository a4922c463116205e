//! The choice of the number of clusters K from the images: the largest on which random halves of
//! them agree.
//!
//! ```text
//! some pixels' features of each image, by the network before training
//! several times:  the images in two halves at random
//!     for each K: A = k-means of one half, B = of the other
//!                 agreement = mean over both halves of the adjusted Rand index of the
//!                             labellings by the nearest of A and by the nearest of B
//! K = the largest whose mean agreement is at least NEAR times the best one's
//! ```
//! A cluster that is found in both halves will be found in the next photo, too; one that is found
//! in only one half is an accident of these pictures. Agreement falls as K grows, so the best
//! agreement alone would nearly always choose the smallest K. Two other measures do not work: the
//! objective of k-means falls steadily and has no knee, and the agreement of two k-means of the
//! same points only tells how lucky their starts were.
//!
//! Source: prediction strength (Tibshirani and Walther 2005), but with the adjusted Rand index of
//! Hubert and Arabie (1985) in place of the worst cluster's strength.

use std::ops::RangeInclusive;

use rayon::prelude::*;

use crate::augment::View;
use crate::base::rng::{Rng, Stream};
use crate::base::{Result, stop};
use crate::cluster::{MiniBatch, Schedule, Scorer};
use crate::data::ImageStore;
use crate::device::ops::{HeadFeatures, head_features};
use crate::device::{Act, Engine, Layout, Pool, Slot};
use crate::method::common::{Common, Trainable};
use crate::method::{Batching, PcaLaterals, Programs, Tick, program_spec};
use crate::net::weights::{Start, Weights};
use crate::net::{FEATURES, Mode};
use crate::recipe::{Freeze, Laterals, Recipe};

/// Largest number of images that are looked at.
const IMAGES: usize = 256;
/// Approximate number of pixels that are taken from all of them together.
const POINTS: usize = 16384;
/// Number of random divisions into halves.
const SPLITS: usize = 5;
/// Number of random starts of each k-means.
const RESTARTS: usize = 3;
/// Fraction of the best agreement that is enough.
const NEAR: f64 = 0.85;

/// A number of clusters, and how well the halves agree on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The number of clusters.
    pub clusters: usize,
    /// Mean squared distance of a half's points to the nearest of its own centroids.
    pub objective: f64,
    /// Mean adjusted Rand index. 1: both halves have the same clusters; 0: they are no more alike
    /// than by chance.
    pub agreement: f64,
}

/// The largest number of clusters whose agreement is near the best one. `candidates` are in
/// ascending order, and there is at least one.
pub fn chosen(candidates: &[Candidate]) -> usize {
    let best = candidates.iter().map(|c| c.agreement).fold(f64::NEG_INFINITY, f64::max);
    let near = candidates.iter().rev().find(|c| c.agreement >= NEAR * best);
    near.unwrap_or(&candidates[0]).clusters
}

/// Measures every number of clusters. It is planned on an engine of its own, before the run is
/// planned.
pub struct Chooser {
    common: Common,
    /// The programs of forward passes.
    programs: Programs,
    /// The computation of the pyramid's first weights, if the recipe has them from the images.
    laterals: Option<PcaLaterals>,
    /// (images of a batch, size/4, size/4, FEATURES), the features of a batch.
    features: Slot<Act>,
    /// (capacity, FEATURES), the points of a half.
    points: Slot<Act>,
    /// The k-means and the centroids for each number of clusters.
    cluster: Vec<(MiniBatch, Scorer)>,
    /// Number of points taken from each image.
    each: usize,
}

impl Chooser {
    /// Plans the choice among `candidates` for a data set of at least two images. Fails if a half
    /// has fewer points than clusters.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        recipe: &Recipe,
        seed: u64,
        images: usize,
        candidates: RangeInclusive<usize>,
    ) -> Result<Self> {
        let most = *candidates.end();
        // There is one kind of batch only: no training step is run here.
        let recipe =
            &Recipe { batch: recipe.batch_cluster, clusters: most, auxiliary: 0, ..recipe.clone() };
        let batching = Batching { images, batch: recipe.batch };
        let frozen = &Recipe { freeze: Freeze::Backbone, ..recipe.clone() };
        let trainable = Trainable::plan(dev, layout, frozen, images, vec![View::Plain])?;
        let shape = program_spec(recipe);
        let programs = Programs::plan(dev, layout, &trainable.net, batching, 1, shape, Mode::Eval)?;
        let laterals = match recipe.laterals {
            Laterals::Pca => Some(PcaLaterals::plan(dev, layout, &trainable.net, recipe, images)?),
            Laterals::Random => None,
        };
        let pixels = recipe.feature_pixels();
        let looked = images.min(IMAGES);
        let each = (POINTS / looked).clamp(1, pixels);
        let features = batching.full() * pixels * FEATURES;
        let features = layout.acts(Pool::State, "features", features);
        let points = looked.div_ceil(2) * each * FEATURES;
        let points = layout.acts(Pool::State, "points of a half", points);
        let (iters, restarts) = (recipe.kmeans_iters, RESTARTS);
        let schedule = Schedule { init_batches: 1, iters, restarts, update_every: 1 };
        let mut cluster = Vec::new();
        for k in candidates {
            let scorer = Scorer::plan(layout, &format!(" of {k}"), k);
            cluster.push((MiniBatch::plan(dev, layout, schedule, k, points)?, scorer));
        }
        let common = Common::plan(dev, layout, recipe, seed, images, trainable, &[])?;
        Ok(Chooser { common, programs, laterals, features, points, cluster, each })
    }

    /// Gives the images a place, as the last step of the plan.
    pub fn place_images(&mut self, dev: &mut dyn Engine, layout: &mut Layout) -> Result<()> {
        self.common.place_images(dev, layout)
    }

    /// Number of images that [`Chooser::run`] will look at, for progress. Those for the laterals
    /// count again.
    pub fn images(&self, start: &Start) -> usize {
        let (recipe, images) = (&self.common.recipe, self.common.images);
        let laterals = self.laterals.is_some() && !start.has_laterals();
        images.min(IMAGES) + if laterals { PcaLaterals::images(recipe, images) } else { 0 }
    }

    /// Measures each candidate with the features of the network that training will start from. Also
    /// returns the laterals, if they were computed, so that training need not compute them again.
    pub fn run(
        mut self,
        dev: &mut dyn Engine,
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
        for (kmeans, scorer) in &mut self.cluster {
            let clusters = scorer.k();
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
                    dev.write_acts(self.points.part(0, half.len()), half)?;
                    let rows = half.len() / FEATURES;
                    let summary = kmeans.cluster_points(dev, rows, scorer, &mut rng)?;
                    objective += summary.objective / (2 * SPLITS) as f64;
                    centroids.push(dev.read(scorer.centroids)?);
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

    /// The features of `each` random pixels of every image that is looked at: a list of floats for
    /// each image.
    fn points(
        &mut self,
        dev: &mut dyn Engine,
        set: &ImageStore,
        tick: Tick,
    ) -> Result<Vec<Vec<f32>>> {
        let Chooser { common, programs, each, .. } = self;
        let order = common.order(Stream::ClusterOrder, 0, 0);
        let pixels = common.recipe.feature_pixels();
        let mut points = Vec::new();
        common.net.fold(dev)?;
        // Whole batches only, because those are what programs were planned for.
        for ids in order.chunks(common.recipe.batch).take(IMAGES.div_ceil(common.recipe.batch)) {
            let program = programs.of(ids.len());
            common.stage_views(dev, program, set, ids, 0, &[View::Plain])?;
            common.feeder.render(dev, program.x, ids.len(), 0, View::Plain)?;
            program.forward(dev, &common.net)?;
            let features = self.features.part(0, ids.len() * pixels * FEATURES);
            let input = program.warped();
            head_features(dev, &program.head, HeadFeatures { features, input })?;
            let features = dev.read_acts(features)?;
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

/// The number of the nearest centroid for each point; both arguments are (.., FEATURES).
fn nearest(points: &[f32], centroids: &[f32]) -> Vec<usize> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let bias: Vec<f32> = centroids.chunks(FEATURES).map(|c| dot(c, c) / 2.0).collect();
    let of = |point: &[f32]| {
        let scores = centroids.chunks(FEATURES).zip(&bias).map(|(c, bias)| dot(point, c) - bias);
        scores.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(k, _)| k)
    };
    points.par_chunks(FEATURES).map(of).collect()
}

/// The adjusted Rand index of two labellings of the same points by k classes (Hubert and Arabie
/// 1985): 1 if they differ at most in the numbers of classes, 0 on average if they are independent.
fn rand_index(a: &[usize], b: &[usize], k: usize) -> f64 {
    let mut table = vec![0u64; k * k];
    a.iter().zip(b).for_each(|(&a, &b)| table[a * k + b] += 1);
    let pairs = |n: u64| n as f64 * (n as f64 - 1.0) / 2.0;
    let both: f64 = table.iter().map(|&n| pairs(n)).sum();
    let rows: f64 = table.chunks(k).map(|row| pairs(row.iter().sum())).sum();
    let columns: f64 = (0..k).map(|c| pairs(table.iter().skip(c).step_by(k).sum())).sum();
    let chance = rows * columns / pairs(a.len() as u64).max(1.0);
    let most = (rows + columns) / 2.0;
    // If either side has one class only, both labellings are the same.
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
        // Computed by hand: 4 points, pairs in rows {1, 1} and in columns {1, 1}, none in both; by
        // chance 2·2/6.
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
        // A number between two good ones may be bad.
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
