//! The head's calls: a map of 40×40 features, 25 whole tiles, of one whole view and one warped.

use picie::device::ops::*;
use picie::device::{Act, Slot};

use super::cases::{D, K, MANY, N, classifier};
use crate::util::{OpCase, Rig, below, signed};

const SIDE: usize = 40;
const SPEC: HeadSpec =
    HeadSpec { n: N, h: SIDE, w: SIDE, d: D, k: K, merge: Merge::Direct, levels: 4, unit: true };

fn input(rig: &mut Rig, spec: &HeadSpec) -> HeadInput {
    let window = Crop { top: 3, left: 5, side: SIDE as u32 * 3 / 4, flip: 1 };
    let lateral = |l| rig.acts(&format!("p{l}"), &signed(l as u64, spec.lateral_len(l)));
    let laterals = [0, 1, 2, 3].map(lateral);
    HeadInput { laterals, crops: Some(rig.input("crops", &[Crop::whole(SIDE), window])) }
}

fn gradients(rig: &mut Rig) -> [Slot<Act>; 4] {
    [0, 1, 2, 3].map(|l| rig.act_output(&format!("dp{l}"), SPEC.lateral_len(l)))
}

fn labels(k: usize) -> Vec<u16> {
    below(1, N * SPEC.pixels(), k).into_iter().map(|v| v as u16).collect()
}

fn index() -> Vec<u32> {
    Vec::from_iter(0..N as u32)
}

pub fn each(run: &mut dyn FnMut(OpCase)) {
    for merge in [Merge::Direct, Merge::Cascade] {
        let spec = HeadSpec { merge, ..SPEC };
        run(OpCase::new("head_features".into(), move |rig| {
            let plan = plan_head(&mut *rig.dev, spec).unwrap();
            let features = rig.act_output("features", spec.lateral_len(0));
            let a = HeadFeatures { features, input: input(rig, &spec) };
            move |dev| head_features(dev, &plan, a)
        }));
        run(OpCase::new("head_assign".into(), move |rig| {
            let plan = plan_head(&mut *rig.dev, spec).unwrap();
            let a = HeadAssign {
                labels: rig.output("labels", N * spec.pixels()),
                counts: rig.adds("counts", K),
                input: input(rig, &spec),
                index: rig.input("index", &index()),
                classifier: classifier(rig, K),
            };
            move |dev| head_assign(dev, &plan, a)
        }));
    }
    run(OpCase::new("head_accumulate".into(), |rig| {
        let plan = plan_head(&mut *rig.dev, SPEC).unwrap();
        let a = HeadAccumulate {
            sums: rig.adds("sums", K * D),
            counts: rig.adds("counts", K),
            score: rig.adds("score", 1),
            input: input(rig, &SPEC),
            classifier: classifier(rig, K),
        };
        move |dev| head_accumulate(dev, &plan, a)
    }));
    for k in [K, MANY] {
        run(OpCase::new("head_loss".into(), move |rig| {
            let spec = HeadSpec { k, ..SPEC };
            let plan = plan_head(&mut *rig.dev, spec).unwrap();
            let (losses, dlaterals) = (rig.output("losses", 2 * N), gradients(rig));
            let (input, index) = (input(rig, &spec), rig.input("index", &index()));
            let targets = [0, 1].map(|_| Target {
                classifier: classifier(rig, k),
                labels: rig.input("labels", &labels(k)),
                weights: rig.input("weights", &vec![1.0f32; k]),
                scale: 0.25,
            });
            move |dev| {
                let a =
                    HeadLoss { losses, dlaterals, input, targets: &targets, index, view: N / 2 };
                head_loss(dev, &plan, a)
            }
        }));
    }
    let len = N * SPEC.pixels() * K;
    run(OpCase::new("head_scores".into(), move |rig| {
        let plan = plan_head(&mut *rig.dev, SPEC).unwrap();
        let scores = rig.output("scores", len);
        let a = HeadScores { scores, input: input(rig, &SPEC), classifier: classifier(rig, K) };
        move |dev| head_scores(dev, &plan, a)
    }));
    run(OpCase::new("head_scores_backward".into(), move |rig| {
        let plan = plan_head(&mut *rig.dev, SPEC).unwrap();
        let a = HeadScoresBackward {
            dlaterals: Some(gradients(rig)),
            dw: rig.adds("dw", K * D),
            db: rig.adds("db", K),
            dscores: rig.input("dscores", &signed(1, len)),
            input: input(rig, &SPEC),
            classifier: classifier(rig, K),
        };
        move |dev| head_scores_backward(dev, &plan, a)
    }));
    run(OpCase::new("head_predict".into(), |rig| {
        let plan = plan_head(&mut *rig.dev, SPEC).unwrap();
        let (height, width) = (4 * SIDE, 4 * SIDE);
        let pred = rig.output("pred", N * height * width);
        let (input, classifier) = (input(rig, &SPEC), classifier(rig, K));
        let a = HeadPredict { pred, height, width, input, classifier };
        move |dev| head_predict(dev, &plan, a)
    }));
}
