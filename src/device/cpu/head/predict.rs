//! Scores resampled to the size of the labels, then arg-max: a row of the resampled scores is the
//! most that exists at once.

use super::resample::Samples;
use super::scores::{Packed, argmax_by, columns, packed_len};
use super::{Images, Room, scratch_len};
use crate::base::Result;
use crate::device::cpu::Cpu;
use crate::device::cpu::share::share;
use crate::device::cpu::vector::LANES;
use crate::device::cpu::wide::wide;
use crate::device::ops::{HeadPredict, Passed};

pub fn head_predict(cpu: &mut Cpu, a: Passed<HeadPredict>) -> Result<()> {
    let (simd, spec, k) = (cpu.simd, a.spec(), a.classifier.k);
    let (views, out) = (a.views(spec), (a.height, a.width));
    cpu.pack(spec, std::iter::once(a.classifier));
    let scratch = cpu.scratch(scratch_len(spec));
    let (scratch, pred, input) = cpu.get((scratch, a.pred, a.input));
    let images = Images::new(simd, spec, input)?;

    let (packed, rest) = scratch.split_at_mut(packed_len(columns(k), spec.d));
    let packed = Packed::again(packed, columns(k), spec.d);
    share(pred.chunks_exact_mut(out.0 * out.1).enumerate(), rest, |(i, pred), mine| {
        let (mut room, scores) = Room::new(spec, mine);
        let width = spec.w * columns(k);
        let (scores, row) = scores.split_at_mut(spec.h * width);
        images.features(i, &mut room);
        packed.scores(scores, room.features);
        if views == 2 {
            images.features(spec.n / 2 + i, &mut room);
            packed.add_scores(scores, room.features);
        }
        upsample_argmax(simd, pred, out, scores, &mut row[..width], (spec.h, spec.w, k));
    });
    Ok(())
}

/// pred (out) = the arg-max over k of the scores (h, w, columns(k)) resampled to the height and
/// width of `out`. `row` is scratch for one row of scores.
fn upsample_argmax(
    simd: pulp::Arch,
    pred: &mut [u16],
    out: (usize, usize),
    scores: &[f32],
    row: &mut [f32],
    (h, w, k): (usize, usize, usize),
) {
    let (rows, cols, columns, width) =
        (Samples::whole(h, out.0), Samples::whole(w, out.1), columns(k), row.len());
    wide(
        simd,
        #[inline(always)]
        || {
            for (y, pred) in pred.chunks_exact_mut(out.1).enumerate() {
                let v = rows.tap(y);
                let (top, bottom) =
                    (&scores[v.lo * width..][..width], &scores[v.hi * width..][..width]);
                for ((r, a), b) in row.iter_mut().zip(top).zip(bottom) {
                    *r = a + v.t * (b - a);
                }
                for (x, pred) in pred.iter_mut().enumerate() {
                    let h = cols.tap(x);
                    let lo = row[h.lo * columns..][..columns].as_chunks::<LANES>().0;
                    let hi = row[h.hi * columns..][..columns].as_chunks::<LANES>().0;
                    let (a, _) = argmax_by(
                        columns,
                        #[inline(always)]
                        |j| std::array::from_fn(|l| lo[j][l] + h.t * (hi[j][l] - lo[j][l])),
                    );
                    *pred = a.min(k - 1) as u16;
                }
            }
        },
    );
}
