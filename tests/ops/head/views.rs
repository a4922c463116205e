//! Predictions from two views of each image.

use super::torch::goldens;
use super::*;
use crate::util::golden;

#[test]
fn scores_of_two_views_are_added_before_the_largest_is_taken() {
    let g = golden("head");
    for warped in [false, true] {
        let (_, mut given) = goldens(&g).swap_remove(usize::from(warped));
        given.spec.merge = Merge::Direct;
        let (n, size, k) = (SPEC.n, (SPEC.h, SPEC.w), given.learned[0].b.len());
        let (scores, pred) = (given.score().cpu(), given.predict(size, n / 2).cpu());
        let pred = pred.integers("pred");
        let (one, other) = scores["scores"].split_at(scores["scores"].len() / 2);
        for ((one, other), &pred) in one.chunks(k).zip(other.chunks(k)).zip(pred) {
            let sum: Vec<f32> = one.iter().zip(other).map(|(a, b)| a + b).collect();
            let most = sum.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
            // Scores of order 1, summed in another order.
            assert!(sum[pred as usize] >= most - 1e-5, "{sum:?}: {pred}");
        }
        let single = given.predict(size, n).cpu();
        let single = &single.integers("pred")[..pred.len()];
        assert_ne!(single, pred, "the other view changes nothing");
    }
}

/// One pair of views and three, classes below and above a chunk; what a view's scores take is no
/// multiple of a cache line.
#[test]
fn scores_of_two_views_are_added_as_on_the_cpu() {
    for (n, k) in [(2, 5), (6, 37)] {
        let spec = HeadSpec { n, h: 7, w: 7, d: 128, k: 40, merge: Merge::Cascade, ..SPEC };
        let view = |i| Crop { flip: u32::from(i >= n / 2), ..Crop::whole(7) };
        let given = Given::new(spec, &[k], Some((0..n).map(view).collect()), n);
        for dtype in Dtype::ALL {
            // Interpolated scores may tie within a few roundings; the seeds have no such pixel.
            given.predict((21, 19), n / 2).agree(dtype, |_| EXACT);
        }
    }
}

#[test]
fn a_prediction_of_another_size_is_refused() {
    let given = Given::new(HeadSpec { h: 7, w: 7, ..SPEC }, &[5], None, 4);
    let said = given.predict((21, 19), 1).refusal(Rig::cpu(Dtype::F32)).to_string();
    assert!(said.contains("head_predict: pred has 399"), "{said}");
}
