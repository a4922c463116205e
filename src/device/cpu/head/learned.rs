//! Scores of classifiers that are learned, and their gradient down to the laterals and to the
//! classifier.

use super::gradient::by_image;
use super::{Images, Room, part_len, scratch_len};
use crate::base::Result;
use crate::device::cpu::Cpu;
use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cpu::share::share;
use crate::device::cpu::vector::add_scaled;
use crate::device::ops::{Classifier, HeadScores, HeadScoresBackward, Passed};

pub fn head_scores(cpu: &mut Cpu, a: Passed<HeadScores>) -> Result<()> {
    let (simd, spec, Classifier { w, b, k }) = (cpu.simd, a.spec(), a.classifier);
    let scratch = cpu.scratch(scratch_len(spec));
    let (scratch, scores, input, w, b) = cpu.get((scratch, a.scores, a.input, w, b));
    let images = Images::new(simd, spec, input)?;
    let (w, b, d) = (Mat::transposed(w, spec.d), &*b, spec.d);
    share(scores.chunks_exact_mut(spec.pixels() * k).enumerate(), scratch, |(i, scores), mine| {
        let (mut room, _) = Room::new(spec, mine);
        images.features(i, &mut room);
        for row in scores.chunks_exact_mut(k) {
            row.copy_from_slice(b);
        }
        gemm(scores, k, true, Mat::row_major(room.features, d), w, (spec.pixels(), k, d));
    });
    Ok(())
}

pub fn head_scores_backward(cpu: &mut Cpu, a: Passed<HeadScoresBackward>) -> Result<()> {
    let (spec, Classifier { w, k, .. }) = (a.spec(), a.classifier);
    let (simd, d, pixels) = (cpu.simd, spec.d, spec.pixels());
    let scratch = cpu.scratch(scratch_len(spec));
    let (scratch, dw, db, dscores, dlaterals, input, w) =
        cpu.get((scratch, a.dw, a.db, a.dscores, a.dlaterals, a.input, w));
    let images = Images::new(simd, spec, input)?;
    let (dscores, w) = (&*dscores, Mat::row_major(w, d));

    let (parts, rest) = scratch.split_at_mut(spec.n * part_len(spec));
    let gradients = by_image(spec.n, dlaterals.unwrap_or_default());
    share(
        parts.chunks_exact_mut(part_len(spec)).zip(gradients).enumerate(),
        rest,
        |(i, (part, gradients)), mine| {
            let (mut room, _) = Room::new(spec, mine);
            let dscores = &dscores[i * pixels * k..][..pixels * k];
            if a.dlaterals.is_some() {
                images.sweep(i, gradients, &mut room, |first, f, g| {
                    let dscores = Mat::row_major(&dscores[first * k..], k);
                    gemm(g, d, false, dscores, w, (f.len() / d, d, k));
                });
            } else {
                images.features(i, &mut room);
            }
            let (dw, db) = part.split_at_mut(k * d);
            let features = Mat::row_major(room.features, d);
            gemm(dw, d, false, Mat::transposed(dscores, k), features, (k, d, pixels));
            let db = &mut db[..k];
            db.fill(0.0);
            for row in dscores.chunks_exact(k) {
                add_scaled(db, 1.0, row);
            }
        },
    );
    for part in parts.chunks_exact(part_len(spec)) {
        add_scaled(dw, 1.0, &part[..k * d]);
        add_scaled(db, 1.0, &part[k * d..][..k]);
    }
    Ok(())
}
