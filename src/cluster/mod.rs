//! Mini-batch k-means on unit feature vectors (paper section 3.2; released code commons.py:52-133).
//!
//! Lloyd's algorithm on the points of the first batches, then one update of the centroids every few
//! batches. Everything stays on the device; the host reads a few numbers at the end, so that it can
//! queue batches ahead of the device.
//!
//! [`lloyd`] is k-means on points of any width, for the baselines.

pub mod lloyd;
mod scorer;

pub use scorer::Scorer;

use crate::base::rng::Rng;
use crate::base::{Error, Result, stop};
use crate::device::ops::{
    Classifier, HeadAccumulate, HeadFeatures, KMeansAccumulate, KMeansMean, KMeansSpec, KMeansStep,
    Metric, Plan, head_accumulate, head_features, kmeans_accumulate, kmeans_mean, kmeans_step,
    plan_kmeans,
};
use crate::device::{ALIGN, Engine, Layout, Pool, Slot};
use crate::net::{FEATURES, Program};

/// Floats from one kept score to the next: slots begin on lines.
const LINE: usize = ALIGN / size_of::<f32>();
/// Scores that are kept before the host reads them.
const KEPT: usize = 256;

/// What one pass of k-means is told.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Batches whose points are stored for the start.
    pub init_batches: usize,
    /// Iterations of Lloyd's algorithm on them.
    pub iters: usize,
    /// Random starts of it, of which the best by objective stays.
    pub restarts: usize,
    /// Batches from one mini-batch update to the next; a rest that fills none is dropped.
    pub update_every: usize,
}

/// What a pass reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Mean squared distance to the nearest centroid: of the points of the start, then of each
    /// update, averaged.
    pub objective: f64,
    /// K·Σ sizeₖ² / (Σ sizeₖ)²: 1 for equal clusters, K where one has everything (Faiss's imbalance
    /// factor).
    pub imbalance: f64,
    /// Clusters that were empty in Lloyd's iterations and took half of another.
    pub splits: u32,
}

/// Buffers and state of one clustering at a time.
pub struct MiniBatch {
    plan: Plan<KMeansSpec>,
    schedule: Schedule,
    k: usize,
    /// Points of the first batches (capacity, FEATURES).
    points: Slot<f32>,
    sums: Slot<f32>,
    counts: Slot<u32>,
    score: Slot<f32>,
    totals: Slot<f32>,
    splits: Slot<u32>,
    /// Centroids of the best random start so far.
    best: Slot<f32>,
    /// The centroids as they were at the last update: what batches are summed by until the next.
    scores_by: Option<Classifier>,
    /// Whether this pass begins at the centroids that are there.
    warm: bool,
    /// Rows of `points` that are filled.
    stored: usize,
    batches: usize,
    /// Points that `sums` are of.
    summed: usize,
    /// Scores of updates that the host has not read yet (KEPT, LINE), and the points that each is
    /// of.
    kept: Slot<f32>,
    unread: Vec<usize>,
    /// Objective of the start and of each update.
    objectives: Vec<f64>,
}

impl MiniBatch {
    /// `points` (capacity, FEATURES) has room for those of `schedule.init_batches` batches;
    /// clusterings of the same batches may share it. Errors: fewer points than clusters.
    pub fn plan(
        dev: &mut dyn Engine,
        layout: &mut Layout,
        schedule: Schedule,
        k: usize,
        points: Slot<f32>,
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

    /// Forgets the pass before. `warm`: the centroids it left are where this one begins.
    pub fn begin(&mut self, dev: &mut dyn Engine, warm: bool) -> Result<()> {
        self.warm = warm;
        (self.stored, self.batches) = (0, 0);
        self.objectives.clear();
        self.unread.clear();
        dev.zero(self.splits)?;
        self.clear_sums(dev)
    }

    fn clear_sums(&mut self, dev: &mut dyn Engine) -> Result<()> {
        self.summed = 0;
        dev.zero(self.sums)?;
        dev.zero(self.counts)?;
        dev.zero(self.score)
    }

    /// Feeds the features of a program that just ran forward. The scorer's centroids are created
    /// and moved; `rng` chooses the first ones among the stored points. `last`: no batch follows.
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

    /// k-means of the first `rows` points, which are there already, from random starts. The
    /// scorer's centroids are created.
    pub fn of_points(
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

    /// Lloyd's algorithm on the stored points: from the centroids that are there, or from K of the
    /// points chosen at random, the best of several such starts.
    fn lloyd(&mut self, dev: &mut dyn Engine, scorer: &Scorer, rng: &mut Rng) -> Result<()> {
        let points = self.points.part(0, self.stored * FEATURES);
        let centroids = scorer.centroids;
        let starts = if self.warm { 0 } else { self.schedule.restarts };
        let mut highest = f32::NEG_INFINITY;
        for start in 0..starts {
            for (k, &point) in rng.choose(self.stored, self.k).iter().enumerate() {
                let row = |slot: Slot<f32>, at: usize| slot.part(at * FEATURES, FEATURES);
                dev.copy(row(centroids, k), row(points, point as usize))?;
            }
            self.iterate(dev, scorer, points)?;
            if starts == 1 {
                break;
            }
            // The largest score is the smallest objective.
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

    /// Moves the centroids. There is one assignment more than updates: its counts are where the
    /// mini-batch updates begin.
    fn iterate(&mut self, dev: &mut dyn Engine, scorer: &Scorer, points: Slot<f32>) -> Result<()> {
        let centroids = scorer.centroids;
        for _ in 0..self.schedule.iters {
            stop::check()?;
            self.assign(dev, scorer, points)?;
            let MiniBatch { sums, counts, splits, .. } = *self;
            kmeans_mean(dev, KMeansMean { centroids, counts, splits, sums })?;
        }
        self.assign(dev, scorer, points)
    }

    /// Sums, counts and score of the stored points' nearest centroids.
    fn assign(&mut self, dev: &mut dyn Engine, scorer: &Scorer, points: Slot<f32>) -> Result<()> {
        self.clear_sums(dev)?;
        let classifier = scorer.by(dev, Metric::L2)?;
        let MiniBatch { sums, counts, score, .. } = *self;
        let assigned = KMeansAccumulate { sums, counts, score, points, classifier };
        kmeans_accumulate(dev, &self.plan, assigned)?;
        self.summed = self.stored;
        Ok(())
    }

    /// Keeps the score of the points just summed: for unit vectors ‖f − c‖² = 1 − 2·score.
    fn note_objective(&mut self, dev: &mut dyn Engine) -> Result<()> {
        dev.copy(self.kept.part(self.unread.len() * LINE, 1), self.score)?;
        self.unread.push(self.summed);
        if self.unread.len() == KEPT { self.read_objectives(dev) } else { Ok(()) }
    }

    /// Means over the points of each score that was kept.
    fn read_objectives(&mut self, dev: &mut dyn Engine) -> Result<()> {
        let kept = dev.read(self.kept)?;
        let scores = kept.iter().step_by(LINE).map(|&score| f64::from(score));
        let means = scores
            .zip(self.unread.drain(..))
            .map(|(score, points)| 1.0 - 2.0 * score / points.max(1) as f64);
        self.objectives.extend(means);
        Ok(())
    }

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
