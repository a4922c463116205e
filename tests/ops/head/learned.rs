//! Scores of learned classifiers and their gradients.

use super::*;

/// Where a run puts its numbers.
struct Slots {
    scores: Slot<f32>,
    dlaterals: [Slot<f32>; 4],
    dw: Slot<f32>,
    db: Slot<f32>,
}

/// head_scores and head_scores_backward of classifier 0 from what `g` holds; dw and db begin at 1
/// and 2.
fn run(spec: HeadSpec, g: &Numbers, crops: Option<&[Crop]>, wanted: bool) -> (Rig, Slots) {
    let mut rig = Rig::new();
    let laterals = laterals(&mut rig, &spec, g);
    let input = HeadInput { laterals, crops: crops.map(|c| rig.input(c)) };
    let c = classifier(&mut rig, &g["w0"], &g["b0"]);
    let (scores, dscores) = (rig.output(spec.n * spec.pixels() * c.k), rig.input(&g["dscores"]));
    let (dw, db) = (rig.input(&vec![1.0; c.w.len]), rig.input(&vec![2.0; c.k]));
    let dlaterals = outputs(&mut rig, &spec);
    let plan = rig.dev.plan_head(spec).unwrap();
    rig.ready();
    rig.dev.head_scores(&plan, scores, input, c).unwrap();
    rig.dev
        .head_scores_backward(&plan, wanted.then_some(dlaterals), dw, db, dscores, input, c)
        .unwrap();
    (rig, Slots { scores, dlaterals, dw, db })
}

#[test]
fn scores_and_their_gradients_are_torchs() {
    let g = golden("head");
    for (name, merge, crops, _, levels, unit) in CASES {
        let spec = HeadSpec { merge, levels, unit, ..SPEC };
        let want = |what: &str| &g[&format!("{name}.{what}")];
        let plus = |v: &[f32], more: f32| v.iter().map(|v| v + more).collect::<Vec<_>>();
        let crops = crops.then(|| crops_of(&g));
        for wanted in [true, false] {
            let (mut rig, got) = run(spec, &g, crops.as_deref(), wanted);
            // Eight products of interpolated and normalised numbers, and sums of 140 of those.
            close(&format!("{name}.scores"), &rig.read(got.scores), want("scores"), 1e-6);
            close(&format!("{name}.dw"), &rig.read(got.dw), &plus(want("dw"), 1.0), 2e-6);
            close(&format!("{name}.db"), &rig.read(got.db), &plus(want("db"), 2.0), 2e-6);
            for (level, slot) in got.dlaterals.into_iter().enumerate().take(levels) {
                if wanted {
                    let what = format!("learned{}", level + 2);
                    // Products of five terms, cancelled by the normalisation's projection.
                    close(&format!("{name}.{what}"), &rig.read(slot), want(&what), 3e-6);
                } else {
                    assert!(
                        rig.read(slot).iter().all(|v| v.is_nan()),
                        "a gradient that is not wanted stays"
                    );
                }
            }
        }
    }
}

/// L = Σ dscores·scores: every gradient by central differences.
#[test]
fn gradients_of_scores_agree_with_finite_differences() {
    let crops = [crop(1, 2, 4, 1), crop(0, 0, 5, 0), crop(2, 3, 2, 0)];
    for (merge, levels, unit, crops) in [
        (Merge::Direct, 2, true, Some(&crops[..])),
        (Merge::Cascade, 4, false, None),
        (Merge::Direct, 3, false, Some(&crops[..])),
    ] {
        let spec = HeadSpec { n: 3, h: 5, w: 7, merge, levels, unit, ..SPEC };
        let mut g = Random::new(spec, [5, 1], None).numbers;
        g.insert("dscores".into(), signed(40, 3 * 35 * 5));
        let (mut rig, got) = run(spec, &g, crops, true);
        let minus = |v: Vec<f32>, less: f32| v.iter().map(|v| v - less).collect::<Vec<_>>();
        let mut gradients =
            vec![("w0", minus(rig.read(got.dw), 1.0)), ("b0", minus(rig.read(got.db), 2.0))];
        gradients.extend(
            ["p2", "p3", "p4", "p5"]
                .into_iter()
                .zip(got.dlaterals.map(|d| rig.read(d)))
                .take(levels),
        );
        for (name, gradient) in gradients {
            let loss = |x: &[f32]| {
                let moved = Numbers::from_iter(
                    g.clone().into_iter().chain([(name.to_string(), x.to_vec())]),
                );
                let (mut rig, got) = run(spec, &moved, crops, false);
                let terms = rig.read(got.scores).into_iter().zip(&g["dscores"]);
                terms.map(|(s, d)| f64::from(s) * f64::from(*d)).sum()
            };
            // step²·f‴, and the rounding of 525 scores near 1 over the step.
            finite_difference(name, &g[name], &gradient, 10, 1e-2, 5e-3, loss);
        }
    }
}

#[test]
fn one_and_three_threads_give_the_same_bits_of_learned_classifiers() {
    let spec = HeadSpec { n: 5, h: 18, w: 17, d: 128, k: 33, levels: 3, ..SPEC };
    let mut g = Random::new(spec, [33, 1], None).numbers;
    g.insert("dscores".into(), signed(40, spec.n * spec.pixels() * 33));
    crate::util::same_bits_on_any_threads("learned", || {
        let (mut rig, got) = run(spec, &g, None, true);
        let [d2, d3, d4, _] = got.dlaterals;
        [got.scores, got.dw, got.db, d2, d3, d4]
            .into_iter()
            .flat_map(|slot| rig.read(slot))
            .collect()
    });
}
