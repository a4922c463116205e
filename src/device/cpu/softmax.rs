//! Softmax on the CPU: rows are independent, so pieces of rows go to whichever thread is free.

use rayon::prelude::*;

use super::vector::{cross_entropy, dot, exp_row};
use super::wide::wide;
use super::{Cpu, check_index};
use crate::base::Result;
use crate::device::ops::softmax::SoftmaxOps;
use crate::device::ops::{
    Op, Passed, SoftmaxBackward, SoftmaxForward, SoftmaxLabels, SoftmaxLoss, SoftmaxSpec,
};

/// Least number of scores in a piece of work: they stay in the second-level cache.
const PIECE: usize = 1 << 15;

impl SoftmaxSpec {
    /// Number of rows in a piece of work.
    fn piece(&self) -> usize {
        PIECE.div_ceil(self.k)
    }
}

impl SoftmaxOps for Cpu {
    /// All is in place: no scratch.
    fn plan_softmax(&mut self, _: SoftmaxSpec) -> Result<usize> {
        Ok(0)
    }

    fn softmax_forward(&mut self, a: Passed<SoftmaxForward>) -> Result<()> {
        let spec = a.spec();
        let (simd, k) = (self.simd, spec.k);
        let (x,) = self.get((a.x,));
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

    fn softmax_backward(&mut self, a: Passed<SoftmaxBackward>) -> Result<()> {
        let spec = a.spec();
        let (simd, k, piece) = (self.simd, spec.k, spec.piece() * spec.k);
        let (dp, p) = self.get((a.dp, a.p));
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

    fn softmax_loss(&mut self, a: Passed<SoftmaxLoss>) -> Result<()> {
        let (spec, scale) = (a.spec(), a.scale);
        let SoftmaxSpec { pixels, k, .. } = *spec;
        let (simd, piece) = (self.simd, spec.piece());
        let SoftmaxLabels { labels, index, weights } = a.labels;
        let (losses, scores, labels, index, weights) =
            self.get((a.losses, a.scores, labels, index, weights));
        let (labels, index, weights): (&[u16], &[u32], &[f32]) = (labels, index, weights);
        check_index(SoftmaxLoss::NAME, index, a.images(spec))?;

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
