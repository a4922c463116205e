use half::{bf16, f16};
use picie::device::Slot;
use picie::device::ops::{Softmax, SoftmaxLabels, SoftmaxSpec};

use crate::util::{Rig, below, close, signed};

/// Scores are f32 whatever the activations are: the engines differ by the order of sums, fused
/// multiplications and their exponentials, each within 2e-7.
const TOL: f32 = 2e-6;

fn labels_of(spec: SoftmaxSpec) -> Vec<u16> {
    // A store of five images; some labels are just beyond the classes, some the largest number, and
    // image 3 has none.
    let mut labels: Vec<u16> =
        below(3, 5 * spec.pixels, spec.k + 1).into_iter().map(|y| y as u16).collect();
    labels.iter_mut().skip(2).step_by(7).for_each(|y| *y = u16::MAX);
    labels[3 * spec.pixels..4 * spec.pixels].fill(u16::MAX);
    labels
}

/// Probabilities, gradient of scores, losses and their gradient.
fn run<B: Softmax>(mut rig: Rig<B>, spec: SoftmaxSpec, index: &[u32]) -> [Vec<f32>; 4] {
    let plan = rig.dev.plan_softmax(spec).unwrap();
    let scores: Vec<f32> = signed(1, spec.len()).iter().map(|s| 3.0 * s).collect();
    let (p, dp, gradient) =
        (rig.input(&scores), rig.input(&signed(2, spec.len())), rig.input(&scores));
    let losses = rig.output::<f32>(spec.n);
    let weights: Vec<f32> = signed(4, spec.k).iter().map(|w| w.abs() + 0.1).collect();
    let labels = SoftmaxLabels {
        labels: rig.input(&labels_of(spec)),
        index: rig.input(index),
        weights: rig.input(&weights),
    };
    rig.ready();
    rig.dev.softmax_forward(&plan, p).unwrap();
    rig.dev.softmax_backward(&plan, dp, p).unwrap();
    rig.dev.softmax_loss(&plan, losses, gradient, labels, 2.5).unwrap();
    [rig.read(p), rig.read(dp), rig.read(losses), rig.read(gradient)]
}

fn agree(name: &str, got: [Vec<f32>; 4], want: [Vec<f32>; 4]) {
    for ((what, got), want) in ["p", "dp", "losses", "gradient"].iter().zip(got).zip(want) {
        close(&format!("{name}: {what}"), &got, &want, TOL);
    }
}

/// Few classes, whole rows in a tile: pixels below, at and above its 128 rows; rows of odd and even
/// length, which walk through the tile with and without a rest, and the longest.
#[test]
fn few_classes_are_the_cpus() {
    for (pixels, k) in
        [(1, 2), (127, 3), (128, 27), (129, 32), (150, 50), (300, 45), (260, 63), (131, 64)]
    {
        let spec = SoftmaxSpec { n: 3, pixels, k };
        let Some(rig) = Rig::cuda::<f32>() else { return };
        agree(&format!("{spec:?}"), run(rig, spec, &[4, 3, 1]), run(Rig::new(), spec, &[4, 3, 1]));
    }
}

/// More classes, a warp a row: pixels around a block's 32 rows, classes around the 128 of a step.
#[test]
fn many_classes_are_the_cpus() {
    for (pixels, k) in [(31, 65), (32, 127), (33, 128), (70, 129), (5, 250), (3, 2500)] {
        let spec = SoftmaxSpec { n: 3, pixels, k };
        let Some(rig) = Rig::cuda::<f32>() else { return };
        agree(&format!("{spec:?}"), run(rig, spec, &[4, 3, 1]), run(Rig::new(), spec, &[4, 3, 1]));
    }
}

/// More images than the share's block has threads.
#[test]
fn engines_of_every_type_and_large_batches() {
    let spec = SoftmaxSpec { n: 131, pixels: 9, k: 5 };
    let index: Vec<u32> = (0..131).map(|i| i * 7 % 5).collect();
    let want = run(Rig::new(), spec, &index);
    let Some(rig) = Rig::cuda::<bf16>() else { return };
    agree("bf16", run(rig, spec, &index), want.clone());
    agree("f16", run(Rig::cuda::<f16>().unwrap(), spec, &index), want);
}

#[test]
fn without_a_label_losses_and_gradients_are_zero() {
    for k in [4, 70] {
        let spec = SoftmaxSpec { n: 2, pixels: 130, k };
        let Some(rig) = Rig::cuda::<f32>() else { return };
        let [_, _, losses, gradient] = run(rig, spec, &[3, 3]);
        assert!(losses.iter().chain(&gradient).all(|&v| v == 0.0), "{losses:?}");
    }
}

#[test]
fn extreme_scores() {
    for k in [18, 200] {
        let spec = SoftmaxSpec { n: 1, pixels: 3, k };
        let Some(mut rig) = Rig::cuda::<f32>() else { return };
        let plan = rig.dev.plan_softmax(spec).unwrap();
        let mut scores = vec![-1e30; spec.len()];
        (scores[k - 1], scores[k], scores[k + 9]) = (1e30, 100.0, 100.0);
        scores[2 * k..].fill(0.0);
        scores[3 * k - 1] = f32::NAN;
        let x = rig.input(&scores);
        rig.ready();
        rig.dev.softmax_forward(&plan, x).unwrap();
        let p = rig.read(x);
        assert_eq!((p[k - 1], p[k], p[k + 9]), (1.0, 0.5, 0.5));
        assert!(p[..2 * k].iter().sum::<f32>() == 2.0 && p[2 * k..].iter().all(|v| v.is_nan()));
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let spec = SoftmaxSpec { n: 2, pixels: 3, k: 4 };
    let Some(mut rig) = Rig::cuda::<bf16>() else { return };
    assert!(rig.dev.plan_softmax(SoftmaxSpec { k: 0, ..spec }).is_err());
    let large = rig.dev.plan_softmax(SoftmaxSpec { n: 65_536, ..spec }).unwrap_err().to_string();
    assert!(large.contains("65535 images"), "{large}");
    let plan = rig.dev.plan_softmax(spec).unwrap();
    let (x, short): (Slot<f32>, Slot<f32>) = (rig.zeros(24), rig.zeros(23));
    let (losses, weights): (Slot<f32>, Slot<f32>) = (rig.output(2), rig.zeros(4));
    let (labels, odd, far) = (rig.zeros::<u16>(6), rig.zeros::<u16>(7), rig.input(&[0u32, 2]));
    rig.ready();
    let fails = |r: picie::base::Result<()>, what: &str| {
        let e = r.unwrap_err().to_string();
        assert!(e.starts_with(what), "{e}");
    };
    fails(rig.dev.softmax_forward(&plan, short), "softmax_forward: x has 23");
    fails(rig.dev.softmax_backward(&plan, x, short), "softmax_backward: p has 23");
    let all = SoftmaxLabels { labels, index: far, weights };
    fails(
        rig.dev.softmax_loss(&plan, losses, x, SoftmaxLabels { labels: odd, ..all }, 1.0),
        "softmax_loss: labels has 7",
    );
    // A kernel cannot refuse an image that the store lacks: nothing is read outside of it, and the
    // loss is no number.
    rig.dev.softmax_loss(&plan, losses, x, all, 1.0).unwrap();
    assert!(rig.read(losses).iter().all(|l| l.is_nan()));
}
