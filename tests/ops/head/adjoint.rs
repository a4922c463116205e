//! From the gradient of F down to the laterals: maps beyond what a block of the CUDA engine has at
//! once, windows of few pixels, and NaN.

use super::engines::gradient_tolerance;
use super::*;
use crate::util::rounding;

/// Without unit features the gradient of F is that of the scores times the classifier.
fn given((h, w): (usize, usize), merge: Merge, levels: usize, crops: Vec<Crop>) -> Given {
    let spec = HeadSpec { n: crops.len(), h, w, d: 128, k: 5, merge, levels, unit: false };
    Given::new(spec, &[5], Some(crops), spec.n)
}

/// 80 columns at once, strips of 40 where there are more; windows whose samples are more than 80 in
/// a row, at the edges of strips and maps.
#[test]
fn gradients_of_wide_and_high_maps_agree_with_the_cpu() {
    for (size, crops) in [
        ((4, 80), vec![crop(0, 76, 4, 1), crop(1, 39, 3, 0)]),
        ((5, 81), vec![crop(0, 76, 5, 0), crop(2, 38, 3, 1)]),
        ((3, 203), vec![crop(0, 0, 3, 1), crop(2, 202, 1, 0), crop(1, 119, 2, 0)]),
        ((43, 129), vec![crop(3, 20, 40, 1), crop(0, 43, 43, 0)]),
        ((90, 5), vec![crop(41, 0, 5, 1), crop(89, 4, 1, 0)]),
        ((1, 1), vec![crop(0, 0, 1, 1), crop(0, 0, 1, 0)]),
    ] {
        for (merge, levels) in
            [(Merge::Direct, 1), (Merge::Direct, 3), (Merge::Direct, 4), (Merge::Cascade, 4)]
        {
            let warped = given(size, merge, levels, crops.clone());
            let plain = Given { crops: None, ..warped.clone() };
            for given in [warped, plain] {
                let dscores = signed(31, given.score_len());
                for dtype in Dtype::ALL {
                    // The gradient of F is rounded, its sums are, and in bf16 the weights before;
                    // a cascade rounds each map on the way to the next.
                    let roundings = if merge == Merge::Cascade { 2.5 } else { 2.0 };
                    let tol = gradient_tolerance(dtype).max(roundings * rounding(dtype));
                    given.score_backward(&dscores, true).agree(dtype, |what| match what {
                        // Sums of thousands of products of bf16 halves, in another order.
                        "dw" | "db" => 1e-5,
                        _ => tol,
                    });
                }
            }
        }
    }
}

/// NaN reaches the pixels that weigh it, and no others: a weight of 0 does not pass it on.
#[test]
fn nan_reaches_what_weighs_it() {
    // Samples fall on pixels of maps of odd sizes, and beyond the pixels at all edges.
    for (size, crops) in [
        ((9, 7), vec![crop(1, 2, 4, 1), crop(0, 0, 7, 0)]),
        ((5, 81), vec![crop(0, 40, 5, 0), crop(1, 3, 3, 1)]),
    ] {
        for merge in [Merge::Direct, Merge::Cascade] {
            let warped = given(size, merge, 4, crops.clone());
            let plain = Given { crops: None, ..warped.clone() };
            for given in [warped, plain] {
                let mut dscores = signed(31, given.score_len());
                for i in [0, 17, 30, 41, 62, given.spec.pixels() + 3] {
                    dscores[5 * i] = f32::NAN;
                }
                let Some([got, want]) = given.score_backward(&dscores, true).both(Dtype::F32)
                else {
                    return;
                };
                for name in [0, 1, 2, 3].map(gradient) {
                    let nan =
                        |r: &Results| r[&*name].iter().map(|v| v.is_nan()).collect::<Vec<_>>();
                    let (got, want) = (nan(&got), nan(&want));
                    assert!(want.contains(&true) && want.contains(&false), "{name} of {size:?}");
                    equal(&name, &got, &want);
                }
            }
        }
    }
}
