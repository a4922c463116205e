//! Softmax on the CPU: rows are independent, so pieces of rows go to whichever thread is free.

use rayon::prelude::*;

use super::vector::{cross_entropy, dot, exp_row};
use super::wide::wide;
use super::{Cpu, check_index};
use crate::base::Result;
use crate::device::Slot;
use crate::device::ops::{Softmax, SoftmaxLabels, SoftmaxSpec, want};

/// Scores a piece, at least: they stay in the second-level cache.
const PIECE: usize = 1 << 15;

impl SoftmaxSpec {
    /// Rows of a piece.
    fn piece(&self) -> usize {
        PIECE.div_ceil(self.k)
    }
}

impl Softmax for Cpu {
    type SoftmaxPlan = SoftmaxSpec;

    fn plan_softmax(&mut self, spec: SoftmaxSpec) -> Result<SoftmaxSpec> {
        spec.check()?;
        Ok(spec)
    }

    fn softmax_forward(&mut self, spec: &SoftmaxSpec, x: Slot<f32>) -> Result<()> {
        want("softmax_forward", "x", x, spec.len())?;
        let (simd, k) = (self.simd, spec.k);
        let (x,) = self.get((x,));
        x.par_chunks_mut(spec.piece() * k).for_each(|x| {
            wide(
                simd,
                #[inline(always)]
                || {
                    for row in x.chunks_exact_mut(k) {
                        let factor = 1.0 / exp_row(row).1;
                        row.iter_mut().for_each(|v| *v *= factor);
                    }
                },
            );
        });
        Ok(())
    }

    fn softmax_backward(&mut self, spec: &SoftmaxSpec, dp: Slot<f32>, p: Slot<f32>) -> Result<()> {
        const OP: &str = "softmax_backward";
        want(OP, "dp", dp, spec.len())?;
        want(OP, "p", p, spec.len())?;
        let (simd, k, piece) = (self.simd, spec.k, spec.piece() * spec.k);
        let (dp, p) = self.get((dp, p));
        dp.par_chunks_mut(piece).zip(p.par_chunks(piece)).for_each(|(dp, p)| {
            wide(
                simd,
                #[inline(always)]
                || {
                    for (dp, p) in dp.chunks_exact_mut(k).zip(p.chunks_exact(k)) {
                        let mean = dot(dp, p);
                        dp.iter_mut().zip(p).for_each(|(dp, p)| *dp = p * (*dp - mean));
                    }
                },
            );
        });
        Ok(())
    }

    fn softmax_loss(
        &mut self,
        spec: &SoftmaxSpec,
        losses: Slot<f32>,
        scores: Slot<f32>,
        labels: SoftmaxLabels,
        scale: f32,
    ) -> Result<()> {
        let images = spec.check_loss(losses, scores, labels)?;
        let SoftmaxSpec { pixels, k, .. } = *spec;
        let (simd, piece) = (self.simd, spec.piece());
        let (losses, scores, labels, index, weights) =
            self.get((losses, scores, labels.labels, labels.index, labels.weights));
        let (labels, index, weights): (&[u16], &[u32], &[f32]) = (labels, index, weights);
        check_index("softmax_loss", index, images)?;

        let labels_of = |i: usize| &labels[index[i] as usize * pixels..][..pixels];
        let weigh = |y: &u16| weights.get(usize::from(*y)).map_or(0.0, |&w| f64::from(w));
        let sums: Vec<f64> =
            (0..spec.n).into_par_iter().map(|i| labels_of(i).iter().map(weigh).sum()).collect();
        let total = sums.iter().sum::<f64>();
        let share = if total == 0.0 { 0.0 } else { 1.0 / total };

        let batch = losses.par_iter_mut().zip(scores.par_chunks_exact_mut(pixels * k)).enumerate();
        batch.for_each(|(i, (loss, scores))| {
            let pieces = scores.par_chunks_mut(piece * k).zip(labels_of(i).par_chunks(piece));
            let parts: Vec<f64> = pieces
                .map(|(scores, labels)| {
                    wide(
                        simd,
                        #[inline(always)]
                        || {
                            let mut part = 0.0;
                            for (row, &y) in scores.chunks_exact_mut(k).zip(labels) {
                                let y = usize::from(y);
                                if y < k {
                                    let weight = f64::from(weights[y]);
                                    let slope = scale * (weight * share) as f32;
                                    part += weight * f64::from(cross_entropy(row, y, slope));
                                } else {
                                    row.fill(0.0);
                                }
                            }
                            part
                        },
                    )
                })
                .collect();
            *loss = (parts.iter().sum::<f64>() * share) as f32;
        });
        Ok(())
    }
}
