//! Lloyd's k-means on points with any number of channels. It runs several times, from starts that
//! are spread out, and the best result counts.
//!
//! This is for clusterings that happen once and outside of training. Its ops run on the CPU engine,
//! whichever engine made the points.

use rayon::prelude::*;

use crate::base::rng::{Rng, Stream};
use crate::base::{Error, Result, stop};
use crate::device::cpu::Cpu;
use crate::device::ops::{
    Classifier, KMeansAccumulate, KMeansClassifier, KMeansMean, KMeansSpec, Metric, Plan,
    kmeans_accumulate, kmeans_classifier, kmeans_mean, plan_kmeans,
};
use crate::device::{Act, Dtype, Engine, Layout, Pool, Slot};

/// Number of starts that are tried.
const RESTARTS: u32 = 4;
/// Largest number of iterations from one start. They end when the objective falls by no more than
/// [`SETTLED`] of itself.
const ITERATIONS: usize = 100;
/// The relative fall of the objective at which iterations end.
const SETTLED: f64 = 1e-5;

/// The best clustering of all starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// (k, d), the centroids.
    pub centroids: Vec<f32>,
    /// Mean squared distance of the points to their nearest centroid.
    pub objective: f64,
}

/// Points on the CPU engine, to be clustered with one seed after another.
pub struct Lloyd<'a> {
    cpu: Box<dyn Engine>,
    plan: Plan<KMeansSpec>,
    /// (n, d), the points.
    host: &'a [f32],
    /// Sum of the points' squared norms. The objective is this − 2·Σ score.
    squares: f64,
    /// (n, d), the points on the device, whose activations are f32.
    points: Slot<Act>,
    /// (k, d), the centroids.
    centroids: Slot<f32>,
    /// Room for the centroids' classifier.
    classifier: Classifier,
    /// (k, d), the sum of each cluster's points.
    sums: Slot<f32>,
    /// (k), the number of each cluster's points.
    counts: Slot<u32>,
    /// (1), the sum of the points' best scores.
    score: Slot<f32>,
    /// (1), the number of empty clusters, which nobody reads.
    splits: Slot<u32>,
}

impl<'a> Lloyd<'a> {
    /// Prepares the clustering of `points` (n, `d`) into `k` clusters. Fails if there are fewer
    /// points than clusters.
    pub fn new(points: &'a [f32], d: usize, k: usize) -> Result<Self> {
        let n = points.len() / d;
        if n < k {
            let remedy = "use more images, a larger --size or fewer --clusters";
            return Err(Error::input(format!("{n} points cannot form {k} clusters"), remedy));
        }
        let mut cpu: Box<dyn Engine> = Box::new(Cpu::new());
        let mut layout = Layout::new(Dtype::F32);
        let slot = layout.acts(Pool::State, "points", points.len());
        let mut state = |name: &str, len: usize| layout.take(Pool::State, name, len);
        let centroids = state("centroids", k * d);
        let classifier =
            Classifier { w: state("classifier", k * d), b: state("classifier bias", k), k };
        let (sums, score) = (state("sums", k * d), state("score", 1));
        let counts = layout.take(Pool::State, "counts", k);
        let splits = layout.take(Pool::State, "splits", 1);
        let plan = plan_kmeans(&mut *cpu, KMeansSpec { k, d })?;
        cpu.reserve(&layout)?;
        cpu.write_acts(slot, points)?;
        let squares = points.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        Ok(Lloyd {
            cpu,
            plan,
            host: points,
            squares,
            points: slot,
            centroids,
            classifier,
            sums,
            counts,
            score,
            splits,
        })
    }

    /// Clusters the points with starts drawn from `seed`.
    pub fn fit(&mut self, seed: u64) -> Result<Fit> {
        let mut best: Option<Fit> = None;
        for restart in 0..RESTARTS {
            let mut rng = Rng::new(seed, Stream::KMeansInit, restart, 0);
            let start = spread(self.host, self.plan.spec.d, self.plan.spec.k, &mut rng);
            self.cpu.write(self.centroids, &start)?;
            let objective = self.descend()?;
            if best.as_ref().is_none_or(|best| objective < best.objective) {
                best = Some(Fit { centroids: self.cpu.read(self.centroids)?, objective });
            }
        }
        let best = best.expect("there is a start");
        let points = self.host.len() / self.plan.spec.d;
        Ok(Fit { objective: best.objective / points as f64, ..best })
    }

    /// Moves the centroids until they settle. Returns the sum of the points' squared distances to
    /// them before the last move.
    fn descend(&mut self) -> Result<f64> {
        let Lloyd { plan, points, centroids, classifier, sums, counts, score, splits, .. } = *self;
        let cpu = &mut *self.cpu;
        let mut objective = f64::INFINITY;
        for _ in 0..ITERATIONS {
            stop::check()?;
            kmeans_classifier(cpu, KMeansClassifier { classifier, centroids, metric: Metric::L2 })?;
            cpu.zero(sums)?;
            cpu.zero(counts)?;
            cpu.zero(score)?;
            let assigned = KMeansAccumulate { sums, counts, score, points, classifier };
            kmeans_accumulate(cpu, &plan, assigned)?;
            let now = self.squares - 2.0 * f64::from(cpu.read(score)?[0]);
            kmeans_mean(cpu, KMeansMean { centroids, counts, splits, sums })?;
            if objective - now <= SETTLED * now.abs() {
                return Ok(now);
            }
            objective = now;
        }
        Ok(objective)
    }
}

/// Chooses `k` of the points (n, `d`) as first centroids (k, d), each with a probability
/// proportional to its squared distance from the nearest one chosen before. Source: Arthur and
/// Vassilvitskii, "k-means++: the advantages of careful seeding" (SODA 2007).
fn spread(points: &[f32], d: usize, k: usize, rng: &mut Rng) -> Vec<f32> {
    let n = points.len() / d;
    let mut least = vec![f32::INFINITY; n];
    let mut at = rng.below(n);
    let mut chosen = Vec::with_capacity(k * d);
    for _ in 0..k {
        let centre = &points[at * d..][..d];
        chosen.extend_from_slice(centre);
        least.par_iter_mut().zip(points.par_chunks_exact(d)).for_each(|(least, point)| {
            let apart: f32 = point.iter().zip(centre).map(|(p, c)| (p - c) * (p - c)).sum();
            *least = least.min(apart);
        });
        let total: f64 = least.iter().map(|&v| f64::from(v)).sum();
        let mut rest = f64::from(rng.unit()) * total;
        // If all distances are 0, any point is as good as another: the last one is taken.
        at = least
            .iter()
            .position(|&v| {
                rest -= f64::from(v);
                rest < 0.0
            })
            .unwrap_or(n - 1);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns `n` points around each of three centres in `d` dimensions, in turn.
    fn blobs(n: usize, d: usize) -> (Vec<f32>, [f32; 3]) {
        let centres = [-10.0, 0.0, 25.0];
        let mut rng = Rng::new(7, Stream::Other, 0, 0);
        ((0..3 * n * d).map(|i| centres[i / d % 3] + rng.uniform(-1.0, 1.0)).collect(), centres)
    }

    #[test]
    fn separate_blobs_have_a_centroid_each_from_every_seed_and_width() {
        for d in [1, 3, 4, 19] {
            let (points, centres) = blobs(200, d);
            let mut lloyd = Lloyd::new(&points, d, 3).unwrap();
            for seed in 0..5 {
                let Fit { centroids, objective } = lloyd.fit(seed).unwrap();
                let mut firsts: Vec<f32> = centroids.iter().step_by(d).copied().collect();
                firsts.sort_by(f32::total_cmp);
                let off =
                    firsts.iter().zip(centres).map(|(f, c)| (f - c).abs()).fold(0.0, f32::max);
                assert!(off <= 0.2, "d {d}, seed {seed}: {firsts:?}");
                // A uniform draw in ±1 has the variance 1/3.
                let want = d as f64 / 3.0;
                assert!(
                    (objective - want).abs() <= 0.1 * want,
                    "d {d}, seed {seed}: {objective}, wanted {want}"
                );
            }
        }
    }

    #[test]
    fn the_same_seed_is_the_same_on_any_threads() {
        let (points, _) = blobs(500, 5);
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Lloyd::new(&points, 5, 7).unwrap().fit(3).unwrap())
        };
        assert_eq!(on(1), on(3));
        assert_ne!(on(1), Lloyd::new(&points, 5, 7).unwrap().fit(4).unwrap());
    }

    #[test]
    fn starts_are_spread_over_the_points() {
        // There are 98 points in one place and one in each of two others: three starts drawn evenly
        // would seldom be in three places.
        let mut points = vec![0.0f32; 98];
        points.extend([50.0, -80.0]);
        for seed in 0..20 {
            let mut start = spread(&points, 1, 3, &mut Rng::new(seed, Stream::KMeansInit, 0, 0));
            start.sort_by(f32::total_cmp);
            assert_eq!(start, [-80.0, 0.0, 50.0], "seed {seed}");
        }
    }

    #[test]
    fn equal_points_are_clustered_and_too_few_are_refused() {
        // The empty cluster takes half of the other one's points and begins a thousandth beside it.
        assert!(Lloyd::new(&[4.0; 12], 3, 2).unwrap().fit(1).unwrap().objective <= 1e-3);
        let text = Lloyd::new(&[0.0; 12], 3, 5).map(|_| ()).unwrap_err().to_string();
        assert!(text.contains("4 points cannot form 5 clusters"), "{text}");
    }
}
