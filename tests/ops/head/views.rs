//! Predictions from two views of each image.

use super::*;

#[test]
fn scores_of_two_views_are_added_before_the_largest_is_taken() {
    let g = golden("head");
    let (n, pixels, k) = (SPEC.n, SPEC.pixels(), g["b0"].len());
    for crops in [false, true] {
        let mut rig = Rig::new();
        let laterals = laterals(&mut rig, &SPEC, &g);
        let input = HeadInput { laterals, crops: crops.then(|| rig.input(&crops_of(&g))) };
        let c = classifier(&mut rig, &g["w0"], &g["b0"]);
        let (scores, pred) = (rig.output::<f32>(n * pixels * k), rig.output::<u16>(n / 2 * pixels));
        let single = rig.output::<u16>(n * pixels);
        let plan = rig.dev.plan_head(SPEC).unwrap();
        rig.ready();
        rig.dev.head_scores(&plan, scores, input, c).unwrap();
        rig.dev.head_predict(&plan, pred, (SPEC.h, SPEC.w), input, c).unwrap();
        rig.dev.head_predict(&plan, single, (SPEC.h, SPEC.w), input, c).unwrap();
        let (scores, pred) = (rig.read(scores), rig.read(pred));
        let (one, other) = scores.split_at(scores.len() / 2);
        for ((one, other), &pred) in one.chunks(k).zip(other.chunks(k)).zip(&pred) {
            let sum: Vec<f32> = one.iter().zip(other).map(|(a, b)| a + b).collect();
            let most = sum.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
            // Scores of order 1, summed in another order.
            assert!(sum[usize::from(pred)] >= most - 1e-5, "{sum:?}: {pred}");
        }
        assert_ne!(rig.read(single)[..pred.len()], pred, "the other view changes nothing");
    }
}
