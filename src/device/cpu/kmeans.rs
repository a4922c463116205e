//! k-means on the CPU. Centroids are small; only the pass over stored points is worth threads.

use rayon::prelude::*;

use super::Cpu;
use super::head::scores::{BLOCK, ClusterSums, Packed, columns, packed_len};
use crate::base::Result;
use crate::device::ops::kmeans::KMeansOps;
use crate::device::ops::{
    Classifier, KMeansAccumulate, KMeansClassifier, KMeansMean, KMeansSpec, KMeansStep, Metric,
    Passed,
};

/// Stored points are cut into at most this many pieces, whatever the threads.
const PIECES: usize = 64;

/// Relative distance by which the two halves of a split cluster are moved apart (Faiss).
const EPS: f32 = 1.0 / 1024.0;

/// w (d) = the row by which a linear classifier scores points against centroid c (d); returns the
/// bias.
fn classify(w: &mut [f32], c: &[f32], metric: Metric) -> f32 {
    w.copy_from_slice(c);
    let square = c.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
    match metric {
        Metric::L2 => (-0.5 * square) as f32,
        Metric::Dot => 0.0,
        Metric::Cosine => {
            let norm = square.sqrt().max(1e-12);
            w.iter_mut().for_each(|w| *w = (f64::from(*w) / norm) as f32);
            0.0
        }
    }
}

/// Gives every empty cluster half of the largest, in ascending order; returns how many were empty.
/// Without any points there is nothing to share.
fn split_empty(centroids: &mut [f32], counts: &mut [u32], d: usize) -> u32 {
    let empty: Vec<usize> = (0..counts.len()).filter(|&i| counts[i] == 0).collect();
    if empty.len() == counts.len() {
        return counts.len() as u32;
    }
    for &i in &empty {
        let largest = counts.iter().max().copied().unwrap_or(0);
        let donor = counts.iter().position(|&c| c == largest).unwrap_or(0);
        for j in 0..d {
            let e = if j % 2 == 0 { EPS } else { -EPS };
            let c = centroids[donor * d + j];
            centroids[i * d + j] = c * (1.0 + e);
            centroids[donor * d + j] = c * (1.0 - e);
        }
        counts[i] = largest / 2;
        counts[donor] -= counts[i];
    }
    empty.len() as u32
}

impl KMeansOps for Cpu {
    /// Partial sums are allocated where they are needed: no scratch.
    fn plan_kmeans(&mut self, _: KMeansSpec) -> Result<usize> {
        Ok(0)
    }

    fn kmeans_classifier(&mut self, a: Passed<KMeansClassifier>) -> Result<()> {
        let Classifier { w, b, k } = a.classifier;
        let d = w.len / k;
        let (w, b, centroids) = self.get((w, b, a.centroids));
        for ((w, b), c) in w.chunks_exact_mut(d).zip(b).zip(centroids.chunks_exact(d)) {
            *b = classify(w, c, a.metric);
        }
        Ok(())
    }

    fn kmeans_accumulate(&mut self, a: Passed<KMeansAccumulate>) -> Result<()> {
        let (Classifier { w, b, k }, d) = (a.classifier, a.spec().d);
        let simd = self.simd;
        let (sums, counts, score, points, w, b) =
            self.get((a.sums, a.counts, a.score, a.points, w, b));
        // NOTE: room that is allocated in an op: 64 partial sums, little beside the pass over all
        // points.
        let mut packed = vec![0.0; packed_len(columns(k), d)];
        let packed = Packed::new(&mut packed, d, w, b);
        let piece = (points.len() / d).div_ceil(PIECES).next_multiple_of(BLOCK) * d;
        let pieces: Vec<(Vec<f32>, Vec<u32>, f64)> = points
            .par_chunks(piece)
            .map_init(
                || vec![0.0; BLOCK * columns(k)],
                |room, points| {
                    let (mut sums, mut counts) = (vec![0.0; k * d], vec![0; k]);
                    let mut all = ClusterSums { sums: &mut sums, counts: &mut counts, score: 0.0 };
                    all.add(simd, points, packed, room);
                    let score = all.score;
                    (sums, counts, score)
                },
            )
            .collect();
        let mut total = ClusterSums { sums, counts, score: 0.0 };
        for (sums, counts, score) in &pieces {
            total.add_part(sums, counts, *score);
        }
        score[0] += total.score as f32;
        Ok(())
    }

    fn kmeans_mean(&mut self, a: Passed<KMeansMean>) -> Result<()> {
        let d = a.centroids.len / a.counts.len;
        let (centroids, counts, splits, sums) = self.get((a.centroids, a.counts, a.splits, a.sums));
        for ((c, s), &m) in centroids.chunks_exact_mut(d).zip(sums.chunks_exact(d)).zip(&*counts) {
            if m > 0 {
                c.iter_mut().zip(s).for_each(|(c, s)| *c = s / m as f32);
            }
        }
        splits[0] += split_empty(centroids, counts, d);
        Ok(())
    }

    fn kmeans_step(&mut self, a: Passed<KMeansStep>) -> Result<()> {
        let d = a.centroids.len / a.counts.len;
        let (centroids, totals, sums, counts) = self.get((a.centroids, a.totals, a.sums, a.counts));
        let rows = centroids.chunks_exact_mut(d).zip(sums.chunks_exact(d));
        for (((c, s), total), &m) in rows.zip(totals).zip(&*counts).filter(|(_, m)| **m > 0) {
            let m = m as f32;
            *total += m;
            let rate = m / (*total + 1e-6);
            c.iter_mut().zip(s).for_each(|(c, s)| *c = (1.0 - rate) * *c + rate * (s / m));
        }
        Ok(())
    }
}
