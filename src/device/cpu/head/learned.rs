//! Scores of classifiers that are learned, and their gradient down to the laterals and to the
//! classifier.

use super::gradient::{by_image, sweep};
use super::{Images, Room, part_len, scratch_len};
use crate::base::Result;
use crate::device::Slot;
use crate::device::cpu::Cpu;
use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cpu::share::share;
use crate::device::cpu::vector::add_scaled;
use crate::device::ops::{Classifier, HeadInput, HeadSpec};

pub fn head_scores(
    cpu: &mut Cpu,
    spec: &HeadSpec,
    scores: Slot<f32>,
    input: HeadInput<f32>,
    classifier: Classifier,
) -> Result<()> {
    spec.check_scores("head_scores", scores, &input, classifier)?;
    let (simd, scratch, [p2, p3, p4, p5]) =
        (cpu.simd, cpu.scratch(scratch_len(spec)), input.laterals);
    let Classifier { w, b, k } = classifier;
    let (scratch, scores, p2, p3, p4, p5, crops, w, b) =
        cpu.get((scratch, scores, p2, p3, p4, p5, input.crops, w, b));
    let images = Images::new(spec, [p2, p3, p4, p5], crops.as_deref())?;
    let (w, b, d) = (Mat::transposed(w, spec.d), &*b, spec.d);
    share(scores.chunks_exact_mut(spec.pixels() * k).enumerate(), scratch, |(i, scores), mine| {
        let room = Room::new(spec, mine);
        images.features(simd, i, room.features, room.merge, room.inverse);
        for row in scores.chunks_exact_mut(k) {
            row.copy_from_slice(b);
        }
        gemm(scores, k, true, Mat::row_major(room.features, d), w, (spec.pixels(), k, d));
    });
    Ok(())
}

pub fn head_scores_backward(
    cpu: &mut Cpu,
    spec: &HeadSpec,
    dlaterals: Option<[Slot<f32>; 4]>,
    (dw, db): (Slot<f32>, Slot<f32>),
    dscores: Slot<f32>,
    input: HeadInput<f32>,
    classifier: Classifier,
) -> Result<()> {
    spec.check_scores_backward(dlaterals, (dw, db), dscores, &input, classifier)?;
    let (simd, scratch, [p2, p3, p4, p5]) =
        (cpu.simd, cpu.scratch(scratch_len(spec)), input.laterals);
    let [d2, d3, d4, d5] = [0, 1, 2, 3].map(|level| dlaterals.map(|d| d[level]));
    let (scratch, dw, db, dscores, d2, d3, d4, d5, p2, p3, p4, p5, crops, w) = cpu.get((
        scratch,
        dw,
        db,
        dscores,
        d2,
        d3,
        d4,
        d5,
        p2,
        p3,
        p4,
        p5,
        input.crops,
        classifier.w,
    ));
    let images = Images::new(spec, [p2, p3, p4, p5], crops.as_deref())?;
    let (k, d, pixels, dscores, w) =
        (classifier.k, spec.d, spec.pixels(), &*dscores, Mat::row_major(w, spec.d));

    let (parts, rest) = scratch.split_at_mut(spec.n * part_len(spec));
    let gradients = by_image(spec.n, [d2, d3, d4, d5].map(Option::unwrap_or_default));
    share(
        parts.chunks_exact_mut(part_len(spec)).zip(gradients).enumerate(),
        rest,
        |(i, (part, gradients)), mine| {
            let Room { features, merge, inverse, .. } = Room::new(spec, mine);
            let dscores = &dscores[i * pixels * k..][..pixels * k];
            if dlaterals.is_some() {
                sweep(
                    simd,
                    spec,
                    &images.get(i),
                    gradients,
                    (&mut *features, merge, inverse),
                    |first, f, g| {
                        let rows = f.len() / d;
                        gemm(
                            g,
                            d,
                            false,
                            Mat::row_major(&dscores[first * k..], k),
                            w,
                            (rows, d, k),
                        );
                    },
                );
            } else {
                images.features(simd, i, features, merge, inverse);
            }
            let (dw, db) = part.split_at_mut(k * d);
            gemm(
                dw,
                d,
                false,
                Mat::transposed(dscores, k),
                Mat::row_major(features, d),
                (k, d, pixels),
            );
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
