//! Softmax over scores, its gradient, and the cross-entropy against labels. Scores are f32 whatever
//! activations are.

use picie::base::Error;
use picie::device::Dtype;
use picie::device::ops::{
    SoftmaxBackward, SoftmaxForward, SoftmaxLabels, SoftmaxLoss, SoftmaxSpec, plan_softmax,
    softmax_backward, softmax_forward, softmax_loss,
};

use crate::util::{On, OpCase, Results, Rig, Steps, below, close, golden, signed};

/// Sizes of the goldens.
const N: usize = 4;
const PIXELS: usize = 7;

fn forward(spec: SoftmaxSpec, scores: &[f32]) -> OpCase<'_> {
    OpCase::new(format!("softmax_forward of {spec:?}"), move |rig| {
        let plan = plan_softmax(&mut *rig.dev, spec).unwrap();
        let a = SoftmaxForward { x: rig.inout("x", scores) };
        move |dev| softmax_forward(dev, &plan, a)
    })
}

fn backward<'a>(spec: SoftmaxSpec, dp: &'a [f32], p: &'a [f32]) -> OpCase<'a> {
    OpCase::new(format!("softmax_backward of {spec:?}"), move |rig| {
        let plan = plan_softmax(&mut *rig.dev, spec).unwrap();
        let a = SoftmaxBackward { dp: rig.inout("dp", dp), p: rig.input("p", p) };
        move |dev| softmax_backward(dev, &plan, a)
    })
}

struct Loss {
    spec: SoftmaxSpec,
    scores: Vec<f32>,
    labels: Vec<u16>,
    index: Vec<u32>,
    weights: Vec<f32>,
    scale: f32,
}

impl Loss {
    /// Losses; the scores' gradient in their place.
    fn case(&self) -> OpCase<'_> {
        OpCase::new(format!("softmax_loss of {:?}", self.spec), |rig| {
            let (spec, scale) = (self.spec, self.scale);
            let plan = plan_softmax(&mut *rig.dev, spec).unwrap();
            let a = SoftmaxLoss {
                losses: rig.output("losses", spec.n),
                scores: rig.inout("scores", &self.scores),
                labels: SoftmaxLabels {
                    labels: rig.input("labels", &self.labels),
                    index: rig.input("index", &self.index),
                    weights: rig.input("weights", &self.weights),
                },
                scale,
            };
            move |dev| softmax_loss(dev, &plan, a)
        })
    }

    /// Of a store of five images; some labels are just beyond the classes, some the largest number,
    /// and image 3 has none.
    fn random(spec: SoftmaxSpec, index: Vec<u32>) -> Self {
        let SoftmaxSpec { pixels, k, .. } = spec;
        let mut labels: Vec<u16> =
            below(3, 5 * pixels, k + 1).into_iter().map(|y| y as u16).collect();
        labels.iter_mut().skip(2).step_by(7).for_each(|y| *y = u16::MAX);
        labels[3 * pixels..4 * pixels].fill(u16::MAX);
        Loss {
            scores: signed(1, spec.len()).iter().map(|s| 3.0 * s).collect(),
            weights: signed(4, k).iter().map(|w| w.abs() + 0.1).collect(),
            scale: 2.5,
            spec,
            labels,
            index,
        }
    }
}

/// CUDA against the CPU: all three ops. They differ by the order of sums, fused multiplications and
/// their exponentials, each within 2e-7.
fn agree(spec: SoftmaxSpec, index: Vec<u32>, dtypes: &[Dtype]) {
    let loss = Loss::random(spec, index);
    let dp = signed(2, spec.len());
    for &dtype in dtypes {
        let Some([_, p]) = forward(spec, &loss.scores).agree(dtype, |_| 2e-6) else { return };
        backward(spec, &dp, &p["x"]).agree(dtype, |_| 2e-6);
        loss.case().agree(dtype, |_| 2e-6);
    }
}

#[test]
fn probabilities_and_their_gradient_are_pytorchs() {
    let g = golden("softmax");
    for k in [2, 21, 150] {
        let spec = SoftmaxSpec { n: N, pixels: PIXELS, k };
        let of = |name: &str| &g[&format!("{name}{k}")];
        // A few roundings, and sums of at most 150 numbers.
        close("p", &forward(spec, of("scores")).cpu()["x"], of("p"), 1e-6);
        close("dscores", &backward(spec, of("dp"), of("p")).cpu()["dp"], of("dscores"), 1e-6);
    }
}

#[test]
fn losses_and_gradients_are_pytorchs_with_ignored_pixels_images_and_batches() {
    let g = golden("softmax");
    for k in [2, 21, 150] {
        let of = |name: &str| &g[&format!("{name}{k}")];
        let mut loss = Loss {
            spec: SoftmaxSpec { n: N, pixels: PIXELS, k },
            scores: of("scores").clone(),
            labels: of("labels").iter().map(|&y| y as u16).collect(),
            index: vec![],
            weights: of("weights").clone(),
            scale: 4.0,
        };
        for batch in ["some", "none"] {
            loss.index = g[&format!("index_{batch}")].iter().map(|&i| i as u32).collect();
            let (losses, slopes) =
                (&g[&format!("losses{k}_{batch}")], &g[&format!("grad{k}_{batch}")]);
            let slopes: Vec<f32> = slopes.iter().map(|v| 4.0 * v).collect();
            let want = [("losses", losses.clone().into()), ("scores", slopes.into())];
            loss.case().cpu().close(&Results::of(want), |_| 1e-6);
        }
        // Exactly: whatever the scores are.
        loss.scores.fill(f32::NAN);
        loss.index = vec![3; N];
        let got = loss.case().cpu();
        assert!(got["losses"].iter().chain(&got["scores"]).all(|&v| v == 0.0), "{got:?}");
    }
}

#[test]
fn any_label_beyond_the_classes_is_ignored_and_weightless_classes_do_not_count() {
    let spec = SoftmaxSpec { n: 1, pixels: 4, k: 3 };
    let mut loss = Loss {
        spec,
        scores: signed(1, spec.len()),
        labels: vec![3, 65_535, 1, 4],
        index: vec![0],
        weights: vec![0.5, 2.0, 1.0],
        scale: 1.0,
    };
    let got = loss.case().cpu();
    let single = Loss {
        spec: SoftmaxSpec { pixels: 1, ..spec },
        scores: loss.scores[6..9].to_vec(),
        labels: vec![1],
        index: vec![0],
        weights: vec![1.0; 3],
        scale: 1.0,
    };
    let want = single.case().cpu();
    close("losses", &got["losses"], &want["losses"], 1e-6);
    let slopes = [&[0.0; 6], &want["scores"][..], &[0.0; 3]].concat();
    close("gradient", &got["scores"], &slopes, 1e-6);
    (loss.labels, loss.weights) = (vec![0, 0, 9, 0], vec![0.0, 2.0, 1.0]);
    let got = loss.case().cpu();
    assert!(got["losses"].iter().chain(&got["scores"]).all(|&v| v == 0.0), "{got:?}");
}

#[test]
fn without_a_label_losses_and_gradients_are_zero() {
    for (k, on) in [4, 70].into_iter().flat_map(|k| On::all().into_iter().map(move |on| (k, on))) {
        let loss = Loss::random(SoftmaxSpec { n: 2, pixels: 130, k }, vec![3, 3]);
        let got = loss.case().run(on.rig());
        assert!(got["losses"].iter().chain(&got["scores"]).all(|&v| v == 0.0), "{got:?}");
    }
}

#[test]
fn large_scores_do_not_overflow_and_nan_is_not_hidden() {
    for (k, on) in [18, 200].into_iter().flat_map(|k| On::all().into_iter().map(move |on| (k, on)))
    {
        let spec = SoftmaxSpec { n: 1, pixels: 3, k };
        let mut scores = vec![-1e30; spec.len()];
        (scores[k - 1], scores[k], scores[k + 9]) = (1e30, 100.0, 100.0);
        scores[2 * k..].fill(0.0);
        scores[3 * k - 1] = f32::NAN;
        let p = &forward(spec, &scores).run(on.rig())["x"];
        assert_eq!((p[k - 1], p[k], p[k + 9]), (1.0, 0.5, 0.5));
        assert!(p[..2 * k].iter().sum::<f32>() == 2.0 && p[2 * k..].iter().all(|v| v.is_nan()));
    }
}

/// Gradients against finite differences of f64 sums, for k around a vector's width.
#[test]
fn gradients_are_slopes() {
    for (k, on) in
        [3, 16, 17, 40].into_iter().flat_map(|k| On::all().into_iter().map(move |on| (k, on)))
    {
        let spec = SoftmaxSpec { n: 2, pixels: 3, k };
        // Rounding of probabilities of 1e-7 over a step of 1e-2.
        let steps = Steps { picks: 20, step: 1e-2, tol: 1e-3 };
        let (scores, dp) = (signed(k as u64, spec.len()), signed(2, spec.len()));
        let p = forward(spec, &scores).run(on.rig());
        let gradient = backward(spec, &dp, &p["x"]).run(on.rig())["dp"].clone();
        forward(spec, &scores).slopes(on, ("x", &dp), &[("x", gradient)], steps);
        let loss = Loss {
            spec,
            scores,
            labels: below(3, 6, k).into_iter().map(|y| y as u16).collect(),
            index: vec![1, 0],
            weights: signed(4, k).iter().map(|w| w.abs()).collect(),
            scale: 1.0,
        };
        let gradient = loss.case().run(on.rig())["scores"].clone();
        loss.case().slopes(on, ("losses", &[1.0; 2]), &[("scores", gradient)], steps);
    }
}

/// Several pieces an image, and a rest.
#[test]
fn the_same_bits_for_any_number_of_threads() {
    for (pixels, k) in [(2500, 27), (31, 2501), (40_000, 2)] {
        let spec = SoftmaxSpec { n: 3, pixels, k };
        let loss = Loss::random(spec, vec![2, 0, 1]);
        let dp = signed(2, spec.len());
        let p = forward(spec, &loss.scores).cpu();
        forward(spec, &loss.scores).same_bits_on_any_threads();
        backward(spec, &dp, &p["x"]).same_bits_on_any_threads();
        loss.case().same_bits_on_any_threads();
        let total: f64 = p["x"].iter().map(|&p| f64::from(p)).sum();
        close("rows sum to one", &[(total / spec.rows() as f64) as f32], &[1.0], 1e-4);
    }
}

/// Few classes, whole rows in a tile: pixels below, at and above its 128 rows; rows of odd and even
/// length, which walk through the tile with and without a rest, and the longest.
#[test]
fn few_classes_are_the_cpus() {
    for (pixels, k) in
        [(1, 2), (127, 3), (128, 27), (129, 32), (150, 50), (300, 45), (260, 63), (131, 64)]
    {
        agree(SoftmaxSpec { n: 3, pixels, k }, vec![4, 3, 1], &[Dtype::F32]);
    }
}

/// More classes, a warp a row: pixels around a block's 32 rows, classes around the 128 of a step.
#[test]
fn many_classes_are_the_cpus() {
    for (pixels, k) in [(31, 65), (32, 127), (33, 128), (70, 129), (5, 250), (3, 2500)] {
        agree(SoftmaxSpec { n: 3, pixels, k }, vec![4, 3, 1], &[Dtype::F32]);
    }
}

/// More images than the share's block has threads.
#[test]
fn engines_of_every_type_and_large_batches() {
    let index = (0..131).map(|i| i * 7 % 5).collect();
    agree(SoftmaxSpec { n: 131, pixels: 9, k: 5 }, index, &Dtype::ALL);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let spec = SoftmaxSpec { n: 2, pixels: 3, k: 4 };
    let mut loss = Loss::random(spec, vec![1, 0]);
    forward(spec, &loss.scores).refuses_other_sizes("softmax_forward", &[]);
    backward(spec, &loss.scores, &loss.scores).refuses_other_sizes("softmax_backward", &[]);
    loss.case().refuses_other_sizes("softmax_loss", &[("labels", "labels")]);
    for on in On::all() {
        let refused = |spec| plan_softmax(&mut *on.rig().dev, spec).err().map(|e| e.to_string());
        assert!(refused(SoftmaxSpec { pixels: 0, ..spec }).is_some());
        assert!(refused(SoftmaxSpec { k: 0, ..spec }).is_some());
        assert!(refused(SoftmaxSpec { k: 65_536, ..spec }).is_some());
        let images = refused(SoftmaxSpec { n: 65_536, ..spec });
        assert!(on == On::Cpu || images.is_some_and(|said| said.contains("65535 images")));
    }
    // An image that the store lacks: the index lies in the engine's memory, where no door looks.
    loss.index = vec![0, 5];
    let said = loss.case().refusal(Rig::cpu(Dtype::F32));
    let what = "a label store that is indexed";
    assert!(matches!(said, Error::Shape { what: w, got: 5, want: 6, .. } if w == what), "{said}");
    // A kernel cannot refuse it: nothing is read outside of it, and the loss is no number.
    let Some(rig) = Rig::cuda(Dtype::Bf16) else { return };
    assert!(loss.case().run(rig)["losses"].iter().all(|l| l.is_nan()));
}
