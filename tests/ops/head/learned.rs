//! Scores of learned classifiers and their gradients.

use picie::device::ops::{HeadScores, HeadScoresBackward, head_scores, head_scores_backward};

use super::engines::gradient_tolerance;
use super::torch::goldens;
use super::*;
use crate::util::golden;

impl Given {
    /// Scores of the first classifier.
    pub(super) fn score(&self) -> OpCase<'_> {
        OpCase::new(self.named("head_scores"), |rig| {
            let plan = plan_head(&mut *rig.dev, self.spec).unwrap();
            let scores = rig.output("scores", self.score_len());
            let a = HeadScores { scores, input: self.input(rig), classifier: self.classifier(rig) };
            move |dev| head_scores(dev, &plan, a)
        })
    }

    /// `wanted`: also the gradients of laterals.
    pub(super) fn score_backward<'a>(&'a self, dscores: &'a [f32], wanted: bool) -> OpCase<'a> {
        OpCase::new(self.named("head_scores_backward"), move |rig| {
            let plan = plan_head(&mut *rig.dev, self.spec).unwrap();
            let Learned { w, b, .. } = &self.learned[0];
            let a = HeadScoresBackward {
                dlaterals: wanted.then(|| self.gradients(rig)),
                dw: rig.adds("dw", w.len()),
                db: rig.adds("db", b.len()),
                dscores: rig.input("dscores", dscores),
                input: self.input(rig),
                classifier: self.classifier(rig),
            };
            move |dev| head_scores_backward(dev, &plan, a)
        })
    }

    pub(super) fn score_len(&self) -> usize {
        self.spec.n * self.spec.pixels() * self.learned[0].b.len()
    }

    /// CUDA against the CPU.
    fn agree_learned(&self, dtype: Dtype) {
        // 128 products of bf16 halves, as `same_labels` says, against the largest score; then sums
        // of hundreds of such products.
        self.score().agree(dtype, |_| 1e-5);
        let dscores = signed(31, self.score_len());
        for wanted in [true, false] {
            self.score_backward(&dscores, wanted).agree(dtype, |what| match what {
                "dw" | "db" => 1e-5,
                _ => gradient_tolerance(dtype),
            });
        }
    }
}

#[test]
fn scores_and_their_gradients_are_torchs() {
    let g = golden("head");
    for (name, given) in goldens(&g) {
        let want = |what: &str| g[&format!("{name}.{what}")].clone();
        // Eight products of interpolated and normalised numbers, and sums of 140 of those.
        let scores = Results::of([("scores", want("scores").into())]);
        given.score().cpu().close(&scores, |_| 1e-6);
        for wanted in [true, false] {
            let [dw, db] = ["dw", "db"].map(|what| added(&want(what)));
            let mut results = Results::of([("dw", dw.into()), ("db", db.into())]);
            for level in 0..if wanted { given.spec.levels } else { 0 } {
                let values = want(&format!("learned{}", level + 2));
                results.put(&gradient(level), values.into());
            }
            // Gradients are products of five terms, cancelled by the normalisation's projection.
            let tol = |what: &str| if what.starts_with('d') { 2e-6 } else { 3e-6 };
            given.score_backward(&g["dscores"], wanted).cpu().close(&results, tol);
        }
    }
}

/// L = Σ dscores·scores: every gradient by central differences.
#[test]
fn gradients_of_scores_agree_with_finite_differences() {
    let crops = [crop(1, 2, 4, 1), crop(0, 0, 5, 0), crop(2, 3, 2, 0)];
    for (merge, levels, unit, crops) in [
        (Merge::Direct, 2, true, Some(crops.to_vec())),
        (Merge::Cascade, 4, false, None),
        (Merge::Direct, 3, false, Some(crops.to_vec())),
    ] {
        let given = Given::new(HeadSpec { n: 3, merge, levels, unit, ..SPEC }, &[5], crops, 3);
        let dscores = signed(40, 3 * 35 * 5);
        let got = given.score_backward(&dscores, true).cpu();
        let mut gradients = vec![("w", got.bare("dw")), ("b", got.bare("db"))];
        for (level, name) in ["p2", "p3", "p4", "p5"].into_iter().enumerate().take(levels) {
            gradients.push((name, got[&*gradient(level)].clone()));
        }
        // step²·f‴, and the rounding of 525 scores near 1 over the step.
        let steps = Steps { picks: 10, step: 1e-2, tol: 5e-3 };
        given.score().slopes(On::Cpu, ("scores", &dscores), &gradients, steps);
    }
}

#[test]
fn one_and_three_threads_give_the_same_bits_of_learned_classifiers() {
    let given = Given::new(
        HeadSpec { n: 5, h: 18, w: 17, d: 128, k: 33, levels: 3, ..SPEC },
        &[33],
        None,
        5,
    );
    given.score().same_bits_on_any_threads();
    given.score_backward(&signed(40, given.score_len()), true).same_bits_on_any_threads();
}

/// Classes below, at and above a chunk of 32 and the 64 of a block of dw; maps below, at and above
/// a tile.
#[test]
fn learned_classifiers_agree_with_the_cpu() {
    let crops = |n: usize| {
        let all = [crop(1, 2, 4, 1), crop(0, 0, 5, 0), crop(0, 0, 5, 1), crop(2, 1, 3, 1)];
        Some(all[..n].to_vec())
    };
    let spec =
        |n, (h, w), merge, levels, unit| HeadSpec { n, h, w, d: 128, k: 100, merge, levels, unit };
    let (direct, cascade) = (Merge::Direct, Merge::Cascade);
    for (spec, k, crops, view) in [
        (spec(2, (9, 7), direct, 1, false), vec![5], None, 2),
        (
            spec(3, (8, 8), direct, 2, true),
            vec![32, 1, 40],
            Some(vec![Crop::whole(8), crop(1, 0, 5, 0), crop(0, 0, 8, 1)]),
            1,
        ),
        (spec(2, (13, 15), cascade, 4, true), vec![45, 3, 70, 33], crops(2), 2),
        (spec(4, (5, 13), direct, 3, false), vec![100], crops(4), 2),
        (spec(1, (9, 8), cascade, 4, false), vec![64, 65], crops(1), 1),
        (spec(1, (8, 8), direct, 4, true), vec![65, 64], None, 1),
    ] {
        let given = Given::new(spec, &k, crops, view);
        for dtype in Dtype::ALL {
            given.agree(dtype);
            given.agree_learned(dtype);
        }
    }
}

/// 400 tiles: where two groups of classes have half of the blocks each, these go on to others, of
/// another image.
#[test]
fn more_tiles_than_blocks_are_summed() {
    for k in [3, 65] {
        let spec = HeadSpec { n: 200, h: 9, w: 8, d: 128, k, levels: 1, ..SPEC };
        Given::new(spec, &[k], None, 1).agree_learned(Dtype::Bf16);
    }
}

#[test]
fn thousands_of_classes_have_scores_and_gradients() {
    let spec = HeadSpec { n: 1, d: 128, k: 2500, ..SPEC };
    Given::new(spec, &[2500], None, 1).agree_learned(Dtype::F16);
}

#[test]
fn slots_of_a_wrong_size_are_refused() {
    let given = Given::new(SPEC, &[6], Some(vec![crop(0, 0, 5, 0); 4]), 4);
    given.score().refuses_other_sizes("head_scores", &[]);
    let dscores = vec![0.0; given.score_len()];
    let case = given.score_backward(&dscores, true);
    case.refuses_other_sizes("head_scores_backward", &[]);
}
