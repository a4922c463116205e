use picie::device::Slot;
use picie::device::ops::{Softmax, SoftmaxLabels, SoftmaxSpec};

use crate::util::{Rig, below, close, finite_difference, golden, same_bits_on_any_threads, signed};

/// Sizes of the goldens.
const N: usize = 4;
const PIXELS: usize = 7;

fn forward(spec: SoftmaxSpec, scores: &[f32]) -> Vec<f32> {
    let mut rig = Rig::new();
    let plan = rig.dev.plan_softmax(spec).unwrap();
    let x = rig.input(scores);
    rig.ready();
    rig.dev.softmax_forward(&plan, x).unwrap();
    rig.read(x)
}

fn backward(spec: SoftmaxSpec, dp: &[f32], p: &[f32]) -> Vec<f32> {
    let mut rig = Rig::new();
    let plan = rig.dev.plan_softmax(spec).unwrap();
    let (dp, p) = (rig.input(dp), rig.input(p));
    rig.ready();
    rig.dev.softmax_backward(&plan, dp, p).unwrap();
    rig.read(dp)
}

/// Losses and gradient.
fn loss(
    spec: SoftmaxSpec,
    scores: &[f32],
    labels: &[u16],
    index: &[u32],
    weights: &[f32],
    scale: f32,
) -> (Vec<f32>, Vec<f32>) {
    let mut rig = Rig::new();
    let plan = rig.dev.plan_softmax(spec).unwrap();
    let (losses, scores) = (rig.output(spec.n), rig.input(scores));
    let labels = SoftmaxLabels {
        labels: rig.input(labels),
        index: rig.input(index),
        weights: rig.input(weights),
    };
    rig.ready();
    rig.dev.softmax_loss(&plan, losses, scores, labels, scale).unwrap();
    (rig.read(losses), rig.read(scores))
}

#[test]
fn probabilities_and_their_gradient_are_pytorchs() {
    let g = golden("softmax");
    for k in [2, 21, 150] {
        let spec = SoftmaxSpec { n: N, pixels: PIXELS, k };
        let of = |name: &str| &g[&format!("{name}{k}")];
        // A few roundings, and sums of at most 150 numbers.
        close("p", &forward(spec, of("scores")), of("p"), 1e-6);
        close("dscores", &backward(spec, of("dp"), of("p")), of("dscores"), 1e-6);
    }
}

#[test]
fn losses_and_gradients_are_pytorchs_with_ignored_pixels_images_and_batches() {
    let g = golden("softmax");
    for k in [2, 21, 150] {
        let spec = SoftmaxSpec { n: N, pixels: PIXELS, k };
        let of = |name: &str| &g[&format!("{name}{k}")];
        let labels: Vec<u16> = of("labels").iter().map(|&y| y as u16).collect();
        for batch in ["some", "none"] {
            let index: Vec<u32> = g[&format!("index_{batch}")].iter().map(|&i| i as u32).collect();
            let (losses, gradient) = loss(spec, of("scores"), &labels, &index, of("weights"), 4.0);
            let (want, slopes) =
                (&g[&format!("losses{k}_{batch}")], &g[&format!("grad{k}_{batch}")]);
            let slopes: Vec<f32> = slopes.iter().map(|v| 4.0 * v).collect();
            close(&format!("{k}, {batch}: losses"), &losses, want, 1e-6);
            close(&format!("{k}, {batch}: gradient"), &gradient, &slopes, 1e-6);
        }
        // Exactly: whatever the scores are.
        let nan = vec![f32::NAN; spec.len()];
        let (losses, gradient) = loss(spec, &nan, &labels, &[3; N], of("weights"), 4.0);
        assert_eq!((losses, gradient), (vec![0.0; N], vec![0.0; spec.len()]));
    }
}

#[test]
fn any_label_beyond_the_classes_is_ignored_and_weightless_classes_do_not_count() {
    let spec = SoftmaxSpec { n: 1, pixels: 4, k: 3 };
    let scores = signed(1, spec.len());
    let (losses, gradient) = loss(spec, &scores, &[3, 65_535, 1, 4], &[0], &[0.5, 2.0, 1.0], 1.0);
    let single = SoftmaxSpec { pixels: 1, ..spec };
    let (want, slopes) = loss(single, &scores[6..9], &[1], &[0], &[1.0; 3], 1.0);
    close("losses", &losses, &want, 1e-6);
    close("gradient", &gradient, &[&[0.0; 6], &slopes[..], &[0.0; 3]].concat(), 1e-6);
    let (losses, gradient) = loss(spec, &scores, &[0, 0, 9, 0], &[0], &[0.0, 2.0, 1.0], 1.0);
    assert_eq!(losses, [0.0]);
    assert!(gradient.iter().all(|&v| v == 0.0), "{gradient:?}");
}

#[test]
fn large_scores_do_not_overflow_and_nan_is_not_hidden() {
    let spec = SoftmaxSpec { n: 1, pixels: 3, k: 18 };
    let mut scores = vec![-1e30; spec.len()];
    (scores[17], scores[20], scores[21]) = (1e30, 100.0, 100.0);
    scores[36..].fill(0.0);
    scores[53] = f32::NAN;
    let p = forward(spec, &scores);
    assert_eq!((p[17], p[20], p[21]), (1.0, 0.5, 0.5));
    assert!(p[..36].iter().sum::<f32>() == 2.0 && p[36..].iter().all(|v| v.is_nan()));
}

/// Gradients against finite differences of f64 sums, for k around a vector's width.
#[test]
fn gradients_are_slopes() {
    for k in [3, 16, 17, 40] {
        let spec = SoftmaxSpec { n: 2, pixels: 3, k };
        let scores = signed(k as u64, spec.len());
        let dp = signed(2, spec.len());
        let gradient = backward(spec, &dp, &forward(spec, &scores));
        // Rounding of probabilities of 1e-7 over a step of 1e-2.
        finite_difference("softmax", &scores, &gradient, 20, 1e-2, 1e-3, |x| {
            forward(spec, x).iter().zip(&dp).map(|(&p, &d)| f64::from(p) * f64::from(d)).sum()
        });
        let labels: Vec<u16> = below(3, 6, k).into_iter().map(|y| y as u16).collect();
        let weights: Vec<f32> = signed(4, k).iter().map(|w| w.abs()).collect();
        let run = |x: &[f32]| loss(spec, x, &labels, &[1, 0], &weights, 1.0);
        finite_difference("loss", &scores, &run(&scores).1, 20, 1e-2, 1e-3, |x| {
            run(x).0.iter().map(|&l| f64::from(l)).sum()
        });
    }
}

/// Several pieces an image, and a rest.
#[test]
fn the_same_bits_for_any_number_of_threads() {
    for (pixels, k) in [(2500, 27), (31, 2501), (40_000, 2)] {
        let spec = SoftmaxSpec { n: 3, pixels, k };
        let (scores, dp) = (signed(1, spec.len()), signed(2, spec.len()));
        let labels: Vec<u16> = below(3, 3 * pixels, k + 1).into_iter().map(|y| y as u16).collect();
        let weights: Vec<f32> = signed(4, k).iter().map(|w| w.abs()).collect();
        same_bits_on_any_threads(&format!("{spec:?}"), || {
            let p = forward(spec, &scores);
            let back = backward(spec, &dp, &p);
            let (losses, gradient) = loss(spec, &scores, &labels, &[2, 0, 1], &weights, 1.0);
            [p, back, losses, gradient].concat()
        });
        let total: f32 = forward(spec, &scores).iter().sum();
        close("rows sum to one", &[total / spec.rows() as f32], &[1.0], 1e-4);
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let spec = SoftmaxSpec { n: 2, pixels: 3, k: 4 };
    let mut rig = Rig::new();
    assert!(rig.dev.plan_softmax(SoftmaxSpec { pixels: 0, ..spec }).is_err());
    assert!(rig.dev.plan_softmax(SoftmaxSpec { k: 65_536, ..spec }).is_err());
    let plan = rig.dev.plan_softmax(spec).unwrap();
    let (x, y, short): (Slot<f32>, Slot<f32>, Slot<f32>) =
        (rig.zeros(24), rig.zeros(24), rig.zeros(23));
    let (losses, weights, few): (Slot<f32>, Slot<f32>, Slot<f32>) =
        (rig.zeros(2), rig.zeros(4), rig.zeros(3));
    let (labels, odd, index, far) =
        (rig.zeros::<u16>(6), rig.zeros::<u16>(7), rig.input(&[1u32, 0]), rig.input(&[0u32, 2]));
    rig.ready();
    let fails = |r: picie::base::Result<()>, what: &str| {
        let e = r.unwrap_err().to_string();
        assert!(e.starts_with(what), "{e}");
    };
    let all = SoftmaxLabels { labels, index, weights };
    rig.dev.softmax_loss(&plan, losses, x, all, 1.0).unwrap();
    fails(rig.dev.softmax_forward(&plan, short), "softmax_forward: x has 23");
    fails(rig.dev.softmax_backward(&plan, short, y), "softmax_backward: dp has 23");
    fails(rig.dev.softmax_backward(&plan, x, short), "softmax_backward: p has 23");
    fails(rig.dev.softmax_loss(&plan, weights, x, all, 1.0), "softmax_loss: losses has 4");
    fails(rig.dev.softmax_loss(&plan, losses, short, all, 1.0), "softmax_loss: scores has 23");
    let mut loss = |labels| rig.dev.softmax_loss(&plan, losses, x, labels, 1.0);
    fails(loss(SoftmaxLabels { labels: odd, ..all }), "softmax_loss: labels has 7");
    fails(loss(SoftmaxLabels { weights: few, ..all }), "softmax_loss: weights has 3");
    fails(
        loss(SoftmaxLabels { index: far, ..all }),
        "softmax_loss: a label store that is indexed has 2",
    );
}
