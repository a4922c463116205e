//! A norm folded into the convolution before it: PyTorch's numbers, CUDA against the CPU, threads.

use picie::device::Dtype;
use picie::device::ops::{NormFold, norm_fold};

use super::{Params, tolerance};
use crate::util::{OpCase, Results, golden_cases, signed, uniform};

/// Eval mode of w (c, …) as weights.
fn fold<'a>(w: &'a [f32], params: &'a Params) -> OpCase<'a> {
    let c = params.gamma.len();
    OpCase::new(format!("norm_fold of {} weights, {c} channels", w.len()), move |rig| {
        let a = NormFold {
            folded: rig.act_output("folded", w.len()),
            bias: rig.act_output("bias", c),
            w: rig.acts("w", w),
            params: params.read(rig),
        };
        move |dev| norm_fold(dev, a)
    })
}

#[test]
fn folded_weights_are_pytorchs_eval_mode() {
    for (i, _, g) in golden_cases("norm") {
        let c = g["bias"].len();
        let want = ["folded", "bias"].map(|name| (name, g[name].clone().into()));
        // A root, a division, a product and a difference.
        let (w, params) = (uniform(i, 7, c * 6, -1.0, 1.0), Params::new(i, 3, c));
        fold(&w, &params).cpu().close(&Results::of(want), |_| 5e-7);
    }
}

#[test]
fn folded_weights_agree_with_the_cpu() {
    // Shorter than a block, its length, longer; the stem's 7·7·4 is no multiple of 8.
    for (k, taps) in [(5, 3), (64, 196), (3, 256), (24, 577)] {
        let (w, params) = (uniform(7, 0, k * taps, -1.0, 1.0), Params::new(k as u64, 3, k));
        for dtype in Dtype::ALL {
            fold(&w, &params).agree(dtype, tolerance(dtype));
        }
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    for c in [33, 5, 300] {
        let params = Params::new(9, 3, c);
        fold(&uniform(9, 8, c * 18, -1.0, 1.0), &params).same_bits_on_any_threads();
    }
}

#[test]
fn slots_of_a_wrong_size_are_refused() {
    // Sizes are those of w and γ.
    let (w, params) = (signed(1, 20), Params::new(1, 3, 4));
    let sizes = [("w", "folded"), ("gamma", "bias")];
    fold(&w, &params).refuses_other_sizes("norm_fold", &sizes);
}
