//! Mini-batch k-means on unit feature vectors (paper section 3.2; released code commons.py:52-133).
//!
//! Lloyd's algorithm runs on the points of the first batches; after that the centroids are updated
//! once every few batches. Everything stays on the device, and the host reads only the points that
//! are the first centroids, and a few numbers at the end, so that it can queue batches ahead of the
//! device.
//!
//! [`lloyd`] is k-means on points with any number of channels, for the baselines.

pub mod lloyd;
mod scorer;

pub use scorer::Scorer;

use serde::{Deserialize, Serialize};

use crate::base::rng::Rng;
use crate::base::{Error, Result, stop};
use crate::device::ops::{
    Classifier, HeadAccumulate, HeadFeatures, KMeansAccumulate, KMeansMean, KMeansSpec, KMeansStep,
    Metric, Plan, head_accumulate, head_features, kmeans_accumulate, kmeans_mean, kmeans_step,
    plan_kmeans,
};
use crate::device::{ALIGN, Act, Engine, Layout, Pool, Slot};
use crate::net::{FEATURES, Program};

/// Distance between two kept scores, in floats: slots begin on cache lines.
const LINE: usize = ALIGN / size_of::<f32>();
/// Capacity of the ring of scores on the device. The host reads it when full, so it seldom waits.
const KEPT: usize = 256;

/// The settings of one pass of k-means.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Number of first batches, whose points are stored for Lloyd's algorithm.
    pub init_batches: usize,
    /// Iterations of Lloyd's algorithm on these points.
    pub iters: usize,
    /// Number of random starts of Lloyd's algorithm. The one with the lowest objective is kept.
    pub restarts: usize,
    /// Number of batches summed per centroid update. Batches left over at the end of the pass are
    /// not used.
    pub update_every: usize,
}

/// The result of a pass, for reports and checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Mean squared distance of points to their nearest centroid: the average of its value for the
    /// stored points and its values for the batches of each update.
    pub objective: f64,
    /// Faiss's imbalance factor, K·Σ sizeₖ² / (Σ sizeₖ)²: 1 if all clusters have the same size, K
    /// if one has all points.
    pub imbalance: f64,
    /// Number of times that a cluster was empty in Lloyd's iterations and took half of another one.
    pub splits: u32,
}

/// Mini-batch k-means: the buffers and the state of one clustering at a time.
pub struct MiniBatch {
    plan: Plan<KMeansSpec>,
    schedule: Schedule,
    /// Number of clusters.
    k: usize,
    /// (capacity, FEATURES), the points of the first batches.
    points: Slot<Act>,
    /// (k, FEATURES), the sum of each cluster's points since the last update.
    sums: Slot<f32>,
    /// (k), the number of each cluster's points since the last update.
    counts: Slot<u32>,
    /// (1), the sum of the points' best scores since the last update.
    score: Slot<f32>,
    /// (k), the number of each cluster's points in this pass.
    totals: Slot<f32>,
    /// (1), the number of empty clusters so far in this pass.
    splits: Slot<u32>,
    /// (k, FEATURES), the centroids of the best random start so far. Empty if there is only one
    /// start.
    best: Slot<f32>,
    /// The classifier of the centroids at the last update. Batches are assigned by it until the
    /// next update.
    scores_by: Option<Classifier>,
    /// Whether this pass starts from the present centroids.
    warm: bool,
    /// Number of filled rows in `points`.
    stored: usize,
    /// Number of batches so far in this pass.
    batches: usize,
    /// Number of points in `sums`.
    summed: usize,
    /// (KEPT, LINE), the scores of updates that the host has not read yet.
    kept: Slot<f32>,
    /// Number of points behind each score that the host has not read yet.
    unread: Vec<usize>,
    /// The objectives of the start and of each update: mean squared distances.
    objectives: Vec<f64>,
}

impl MiniBatch {
    /// Plans a clustering into `k` clusters. `points` (capacity, FEATURES) must have room for the
    /// points of `schedule.init_batches` batches; clusterings of the same batches may share it.
    /// Fails if there are fewer points than clusters.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        schedule: Schedule,
        k: usize,
        points: Slot<Act>,
    ) -> Result<Self> {
        let capacity = points.len / FEATURES;
        if capacity < k {
            return Err(Error::input(
                format!("{capacity} points cannot form {k} clusters"),
                "use more images, a larger --size or fewer --clusters",
            ));
        }
        Ok(MiniBatch {
            plan: plan_kmeans(dev, KMeansSpec { k, d: FEATURES })?,
            schedule,
            k,
            points,
            sums: layout.take(Pool::State, "k-means sums", k * FEATURES),
            counts: layout.take(Pool::State, "k-means counts", k),
            score: layout.take(Pool::State, "k-means score", 1),
            totals: layout.take(Pool::State, "k-means totals", k),
            splits: layout.take(Pool::State, "k-means splits", 1),
            best: match schedule.restarts {
                0 | 1 => Slot::empty(),
                _ => layout.take(Pool::State, "k-means best", k * FEATURES),
            },
            scores_by: None,
            warm: false,
            stored: 0,
            batches: 0,
            summed: 0,
            kept: layout.take(Pool::State, "k-means scores of updates", KEPT * LINE),
            unread: Vec::new(),
            objectives: Vec::new(),
        })
    }

    /// Begins a new pass. `warm`: it starts from the centroids that the last pass left.
    pub fn begin(&mut self, dev: &mut dyn Engine, warm: bool) -> Result<()> {
        self.warm = warm;
        (self.stored, self.batches) = (0, 0);
        self.objectives.clear();
        self.unread.clear();
        dev.zero(self.splits)?;
        self.clear_sums(dev)
    }

    /// Zeroes the sums, counts and score.
    fn clear_sums(&mut self, dev: &mut dyn Engine) -> Result<()> {
        self.summed = 0;
        dev.zero(self.sums)?;
        dev.zero(self.counts)?;
        dev.zero(self.score)
    }

    /// Adds a batch: the features of a program whose forward pass was just queued. This creates and
    /// moves the scorer's centroids; `rng` chooses the first ones among the stored points. `last`:
    /// no batch follows.
    pub fn push(
        &mut self,
        dev: &mut dyn Engine,
        program: &Program,
        scorer: &Scorer,
        rng: &mut Rng,
        last: bool,
    ) -> Result<()> {
        self.batches += 1;
        let rows = program.spec.features();
        let (head, input) = (&program.head, program.warped());
        if self.batches <= self.schedule.init_batches {
            let features = self.points.part(self.stored * FEATURES, rows * FEATURES);
            head_features(dev, head, HeadFeatures { features, input })?;
            self.stored += rows;
            if self.batches == self.schedule.init_batches || last {
                self.lloyd(dev, scorer, rng)?;
            }
            return Ok(());
        }
        let since = self.batches - self.schedule.init_batches;
        if (since - 1).is_multiple_of(self.schedule.update_every) {
            self.clear_sums(dev)?;
            self.scores_by = Some(scorer.by(dev, Metric::L2)?);
        }
        let classifier = self.scores_by.expect("made with the first of the batches");
        let MiniBatch { sums, counts, score, totals, .. } = *self;
        head_accumulate(dev, head, HeadAccumulate { sums, counts, score, input, classifier })?;
        self.summed += rows;
        if since.is_multiple_of(self.schedule.update_every) {
            self.note_objective(dev)?;
            let centroids = scorer.centroids;
            kmeans_step(dev, KMeansStep { centroids, totals, sums, counts })?;
        }
        Ok(())
    }

    /// Clusters the first `rows` rows of `points`, which were written already, from random starts.
    /// The scorer's centroids are overwritten with the result.
    pub fn cluster_points(
        &mut self,
        dev: &mut dyn Engine,
        rows: usize,
        scorer: &Scorer,
        rng: &mut Rng,
    ) -> Result<Summary> {
        self.begin(dev, false)?;
        self.stored = rows;
        self.lloyd(dev, scorer, rng)?;
        self.finish(dev)
    }

    /// Runs Lloyd's algorithm on the stored points. It starts from the present centroids if the
    /// pass is warm, else from K of the points chosen at random; of several such starts the best is
    /// kept.
    fn lloyd(&mut self, dev: &mut dyn Engine, scorer: &Scorer, rng: &mut Rng) -> Result<()> {
        let points = self.points.part(0, self.stored * FEATURES);
        let centroids = scorer.centroids;
        let starts = if self.warm { 0 } else { self.schedule.restarts };
        let mut highest = f32::NEG_INFINITY;
        for start in 0..starts {
            let mut first = Vec::with_capacity(self.k * FEATURES);
            for &point in &rng.choose(self.stored, self.k) {
                let row = points.part(point as usize * FEATURES, FEATURES);
                first.extend(dev.read_acts(row)?);
            }
            dev.write(centroids, &first)?;
            self.iterate(dev, scorer, points)?;
            if starts == 1 {
                break;
            }
            // The highest score means the lowest objective.
            let score = dev.read(self.score)?[0];
            if start == 0 || score > highest {
                highest = score;
                dev.copy(self.best, centroids)?;
            }
        }
        match starts {
            0 => self.iterate(dev, scorer, points)?,
            1 => {}
            _ => {
                dev.copy(centroids, self.best)?;
                self.assign(dev, scorer, points)?;
            }
        }
        self.note_objective(dev)?;
        let counts: Vec<f32> = dev.read(self.counts)?.into_iter().map(|c| c as f32).collect();
        dev.write(self.totals, &counts)
    }

    /// Runs the iterations of Lloyd's algorithm. There is one assignment more than there are
    /// updates of centroids: mini-batch updates start from its counts.
    fn iterate(&mut self, dev: &mut dyn Engine, scorer: &Scorer, points: Slot<Act>) -> Result<()> {
        let centroids = scorer.centroids;
        for _ in 0..self.schedule.iters {
            stop::check()?;
            self.assign(dev, scorer, points)?;
            let MiniBatch { sums, counts, splits, .. } = *self;
            kmeans_mean(dev, KMeansMean { centroids, counts, splits, sums })?;
        }
        self.assign(dev, scorer, points)
    }

    /// Assigns each stored point to its nearest centroid, and takes the sums, counts and score.
    fn assign(&mut self, dev: &mut dyn Engine, scorer: &Scorer, points: Slot<Act>) -> Result<()> {
        self.clear_sums(dev)?;
        let classifier = scorer.by(dev, Metric::L2)?;
        let MiniBatch { sums, counts, score, .. } = *self;
        let assigned = KMeansAccumulate { sums, counts, score, points, classifier };
        kmeans_accumulate(dev, &self.plan, assigned)?;
        self.summed = self.stored;
        Ok(())
    }

    /// Keeps the score of the points just summed, from which the host computes their objective.
    fn note_objective(&mut self, dev: &mut dyn Engine) -> Result<()> {
        dev.copy(self.kept.part(self.unread.len() * LINE, 1), self.score)?;
        self.unread.push(self.summed);
        if self.unread.len() == KEPT { self.read_objectives(dev) } else { Ok(()) }
    }

    /// Turns the kept scores into objectives: for unit vectors ‖f − c‖² = 1 − 2·score, averaged
    /// over the points of each score.
    fn read_objectives(&mut self, dev: &mut dyn Engine) -> Result<()> {
        let kept = dev.read(self.kept)?;
        let scores = kept.iter().step_by(LINE).map(|&score| f64::from(score));
        let means = scores
            .zip(self.unread.drain(..))
            .map(|(score, points)| 1.0 - 2.0 * score / points.max(1) as f64);
        self.objectives.extend(means);
        Ok(())
    }

    /// Ends the pass and returns its summary (a host synchronisation).
    pub fn finish(&mut self, dev: &mut dyn Engine) -> Result<Summary> {
        self.read_objectives(dev)?;
        let totals: Vec<f64> = dev.read(self.totals)?.into_iter().map(f64::from).collect();
        let sum: f64 = totals.iter().sum();
        Ok(Summary {
            objective: self.objectives.iter().sum::<f64>() / self.objectives.len() as f64,
            imbalance: self.k as f64 * totals.iter().map(|t| t * t).sum::<f64>() / (sum * sum),
            splits: dev.read(self.splits)?[0],
        })
    }
}
