//! Learned classifiers, heads of fewer levels, features without norm, one to four targets.

use super::*;

/// What scores and their gradients are.
struct Learned {
    scores: Vec<f32>,
    gradients: [Vec<f32>; 4],
    dw: Vec<f32>,
    db: Vec<f32>,
}

impl Case {
    /// Of the first classifier; the gradient of a random linear function of its scores, added to
    /// what dw and db hold.
    fn learned<B: Head>(&self, mut rig: Rig<B>, wanted: bool) -> Learned {
        let (spec, c, input) = (self.spec, self.classifier(&mut rig, 0), self.input(&mut rig));
        let len = spec.n * spec.pixels() * c.k;
        let (scores, dscores) = (rig.output::<f32>(len), rig.input(&signed(31, len)));
        let (dw, db) = (rig.input(&signed(32, c.k * D)), rig.input(&signed(33, c.k)));
        let dlaterals = [0, 1, 2, 3].map(|level| rig.act_output(spec.lateral_len(level)));
        let plan = rig.dev.plan_head(spec).unwrap();
        rig.ready();
        rig.dev.head_scores(&plan, scores, input, c).unwrap();
        rig.dev
            .head_scores_backward(&plan, wanted.then_some(dlaterals), dw, db, dscores, input, c)
            .unwrap();
        let gradients = dlaterals.map(|d| rig.read_act(d));
        Learned { scores: rig.read(scores), gradients, dw: rig.read(dw), db: rig.read(db) }
    }
}

fn agree_learned<A: Activation>(name: &str, case: &Case) {
    for wanted in [true, false] {
        let Some(rig) = Rig::cuda::<A>() else { return };
        let (got, want) = (case.learned(rig, wanted), case.learned(Rig::new(), wanted));
        let named = |what: &str| format!("{name}, {}: {what}", A::NAME);
        // f32 inside and out: taps, a norm and 128 products; then sums of hundreds of products in
        // another order.
        close(&named("scores"), &got.scores, &want.scores, 2e-6);
        close(&named("dw"), &got.dw, &want.dw, 5e-6);
        close(&named("db"), &got.db, &want.db, 5e-6);
        for (level, (got, want)) in got.gradients.iter().zip(&want.gradients).enumerate() {
            if wanted {
                close(&named(&format!("dp{}", level + 2)), got, want, gradient_tolerance::<A>());
            } else {
                assert!(got.iter().all(|v| v.is_nan()), "a gradient that is not wanted stays");
            }
        }
    }
}

/// Classes below, at and above a chunk of 32 and the 64 of a block of dw; maps below, at and above
/// a tile.
fn cases<A: Activation>() {
    let crops = |n: usize| {
        Some(
            vec![crop(1, 2, 4, 1), crop(0, 0, 5, 0), crop(0, 0, 5, 1), crop(2, 1, 3, 1)][..n]
                .to_vec(),
        )
    };
    let spec =
        |n, (h, w), merge, levels, unit| HeadSpec { n, h, w, d: D, k: 100, merge, levels, unit };
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
        let name = format!("{spec:?}, {k:?} classes");
        let case = Case::new::<A>(spec, k, crops, view);
        agree::<A>(&name, &case);
        agree_learned::<A>(&name, &case);
    }
}

#[test]
fn f32_agrees_with_the_cpu() {
    cases::<f32>();
}

#[test]
fn bf16_agrees_with_the_cpu() {
    cases::<half::bf16>();
}

#[test]
fn f16_agrees_with_the_cpu() {
    cases::<half::f16>();
}

/// 270 tiles: blocks go on to others, of another image; two groups of classes, each with half of
/// the blocks.
#[test]
fn more_tiles_than_blocks_are_summed() {
    for k in [3, 65] {
        let spec =
            HeadSpec { n: 135, h: 9, w: 8, d: D, k, merge: Merge::Direct, levels: 1, unit: true };
        agree_learned::<half::bf16>(
            &format!("{k} classes"),
            &Case::new::<half::bf16>(spec, [k], None, 1),
        );
    }
}

#[test]
fn thousands_of_classes_have_scores_and_gradients() {
    let spec =
        HeadSpec { n: 1, h: 5, w: 7, d: D, k: 2500, merge: Merge::Direct, levels: 4, unit: true };
    agree_learned::<half::f16>("2500 classes", &Case::new::<half::f16>(spec, [2500], None, 1));
}
