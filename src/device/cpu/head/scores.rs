//! Linear scores of a block of unit features, and what is read off them: arg-max, sums by cluster,
//! cross-entropy.

use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cpu::vector::{self, LANES, add_scaled, tree};
use crate::device::cpu::wide::wide;

/// Number of pixels that are scored at a time, so that their features and scores stay in the
/// second-level cache.
pub const BLOCK: usize = 256;

/// A score that no real one is below, and finite, so that interpolating it stays a number.
const NEVER: f32 = -1e30;

/// Number of columns of scores that `k` clusters take: whole registers.
pub fn columns(k: usize) -> usize {
    k.next_multiple_of(LANES)
}

/// f32 that packed classifiers of `columns` columns take.
pub fn packed_len(columns: usize, d: usize) -> usize {
    columns * (d + 1)
}

/// Classifiers side by side, each padded to whole registers with clusters that never win.
#[derive(Clone, Copy)]
pub struct Packed<'a> {
    /// (columns, d)
    w: &'a [f32],
    /// (columns)
    b: &'a [f32],
    d: usize,
}

impl<'a> Packed<'a> {
    /// Packs w (k, d) and b (k) into the first elements of `room`.
    pub fn new(room: &'a mut [f32], d: usize, w: &[f32], b: &[f32]) -> Self {
        let total = columns(b.len());
        Packed::put(room, (total, d), 0, w, b);
        Packed::again(room, total, d)
    }

    /// Packs w (k, d) and b (k) into columns `first..` of the `total` that `room` begins with.
    pub fn put(room: &mut [f32], (total, d): (usize, usize), first: usize, w: &[f32], b: &[f32]) {
        let (ws, bs) = room[..packed_len(total, d)].split_at_mut(total * d);
        let width = columns(b.len());
        let (ws, ws_rest) = ws[first * d..][..width * d].split_at_mut(w.len());
        let (bs, bs_rest) = bs[first..][..width].split_at_mut(b.len());
        ws.copy_from_slice(w);
        ws_rest.fill(0.0);
        bs.copy_from_slice(b);
        bs_rest.fill(NEVER);
    }

    /// The classifiers that were packed into `room`.
    pub fn again(room: &'a [f32], total: usize, d: usize) -> Self {
        let (w, b) = room[..packed_len(total, d)].split_at(total * d);
        Packed { w, b, d }
    }

    pub fn columns(&self) -> usize {
        self.b.len()
    }

    /// scores (rows, columns) = features (rows, d)·wᵀ + b.
    pub fn scores(&self, scores: &mut [f32], features: &[f32]) {
        for row in scores.chunks_exact_mut(self.columns()) {
            row.copy_from_slice(self.b);
        }
        self.add_products(scores, features);
    }

    /// scores (rows, columns) += features (rows, d)·wᵀ + b.
    pub fn add_scores(&self, scores: &mut [f32], features: &[f32]) {
        for row in scores.chunks_exact_mut(self.columns()) {
            add_scaled(row, 1.0, self.b);
        }
        self.add_products(scores, features);
    }

    fn add_products(&self, scores: &mut [f32], features: &[f32]) {
        let (rows, columns) = (features.len() / self.d, self.columns());
        let (f, w) = (Mat::row_major(features, self.d), Mat::transposed(self.w, self.d));
        gemm(scores, columns, true, f, w, (rows, columns, self.d));
    }

    /// dfeatures (rows, d) = dscores (rows, columns)·w.
    pub fn backward(&self, dfeatures: &mut [f32], dscores: &[f32]) {
        let (rows, columns) = (dfeatures.len() / self.d, self.columns());
        let (ds, w) = (Mat::row_major(dscores, columns), Mat::row_major(self.w, self.d));
        gemm(dfeatures, self.d, false, ds, w, (rows, self.d, columns));
    }
}

/// The place of the largest element of a padded row, the first of equals, and the element.
#[inline(always)]
pub fn argmax(row: &[f32]) -> (usize, f32) {
    argmax_by(row.len(), |chunk| row.as_chunks::<LANES>().0[chunk])
}

/// As [`argmax`], of a row whose chunks `chunk` computes.
#[inline(always)]
pub fn argmax_by(columns: usize, chunk: impl Fn(usize) -> [f32; LANES]) -> (usize, f32) {
    let mut best = [f32::NEG_INFINITY; LANES];
    let mut place = [0u32; LANES];
    for j in 0..columns / LANES {
        let row = chunk(j);
        for l in 0..LANES {
            let wins = row[l] > best[l];
            best[l] = if wins { row[l] } else { best[l] };
            place[l] = if wins { j as u32 } else { place[l] };
        }
    }
    let max = tree(best, |a, b| if a > b { a } else { b });
    let mut first = [0u32; LANES];
    for l in 0..LANES {
        first[l] = if best[l] == max { place[l] * LANES as u32 + l as u32 } else { u32::MAX };
    }
    (tree(first, |a, b| a.min(b)) as usize, max)
}

/// Calls `each(row, cluster, score)` with the arg-max of each row of scores against `k` clusters.
pub fn each_argmax(
    simd: pulp::Arch,
    scores: &[f32],
    k: usize,
    mut each: impl FnMut(usize, usize, f32),
) {
    wide(
        simd,
        #[inline(always)]
        || {
            for (p, row) in scores.chunks_exact(columns(k)).enumerate() {
                let (a, score) = argmax(row);
                // NOTE: scores that are NaN lose against the padding, but a label must be a
                // cluster.
                each(p, a.min(k - 1), score);
            }
        },
    );
}

/// Sums over points by the cluster that each is assigned to: the points themselves (k, d), their
/// counts (k), and their scores, added up over clusters.
pub struct ClusterSums<'a> {
    pub sums: &'a mut [f32],
    pub counts: &'a mut [u32],
    pub score: f64,
}

impl ClusterSums<'_> {
    /// Adds the sums over other points. Callers do so in a fixed order.
    pub fn add_part(&mut self, sums: &[f32], counts: &[u32], score: f64) {
        self.sums.iter_mut().zip(sums).for_each(|(a, b)| *a += b);
        self.counts.iter_mut().zip(counts).for_each(|(a, b)| *a += b);
        self.score += score;
    }

    /// Adds each row of `points` (rows, d) to the cluster of its arg-max. `room` holds [`BLOCK`]
    /// rows of scores.
    pub fn add(&mut self, simd: pulp::Arch, points: &[f32], classifier: Packed, room: &mut [f32]) {
        let (d, k) = (classifier.d, self.counts.len());
        for block in points.chunks(BLOCK * d) {
            let scores = &mut room[..block.len() / d * classifier.columns()];
            classifier.scores(scores, block);
            each_argmax(
                simd,
                scores,
                k,
                #[inline(always)]
                |p, a, score| {
                    add_scaled(&mut self.sums[a * d..][..d], 1.0, &block[p * d..][..d]);
                    self.counts[a] += 1;
                    self.score += f64::from(score);
                },
            );
        }
    }
}

/// What the cross-entropy of one image against one target reads beside the scores.
pub struct Truth<'a> {
    /// A label for each pixel.
    pub labels: &'a [u16],
    /// Class weights (k).
    pub weights: &'a [f32],
    /// 1 / Σ w[y] over the view, 0 if that sum is 0.
    pub share: f64,
    /// The gradient is multiplied by this.
    pub scale: f32,
}

/// The cross-entropy of rows of `stride` scores against one target, whose scores stand in columns
/// `first..first + columns(k)`: returns Σ w[y]·(log Σ exp(scores) − score[y]), and overwrites these
/// scores by the gradient of that times `scale`·`share`.
pub fn cross_entropy(
    simd: pulp::Arch,
    scores: &mut [f32],
    stride: usize,
    first: usize,
    truth: &Truth,
) -> f64 {
    let Truth { labels, weights, share, scale } = *truth;
    let columns = columns(weights.len());
    wide(
        simd,
        #[inline(always)]
        || {
            let mut loss = 0.0;
            for (row, &y) in scores.chunks_exact_mut(stride).zip(labels) {
                let row = &mut row[first..first + columns];
                let y = usize::from(y);
                let slope = scale * (f64::from(weights[y]) * share) as f32;
                loss += f64::from(weights[y]) * f64::from(vector::cross_entropy(row, y, slope));
            }
            loss
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_scores_the_first_wins_in_any_lane() {
        let mut row = [NEVER; 48];
        row[..40].fill(-3.0);
        assert_eq!(argmax(&row), (0, -3.0));
        for (late, early) in [(39, 5), (16, 15), (33, 17), (20, 4)] {
            let mut row = row;
            (row[late], row[early]) = (2.0, 2.0);
            assert_eq!(argmax(&row), (early, 2.0));
        }
    }

    #[test]
    fn scores_that_are_not_numbers_still_have_a_label() {
        let mut row = [NEVER; 16];
        row[..3].fill(f32::NAN);
        each_argmax(pulp::Arch::new(), &row, 3, |_, a, _| assert_eq!(a, 2));
    }
}
