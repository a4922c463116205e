mod learned;
mod views;

use std::fmt::Debug;

use picie::device::cpu::Cpu;
use picie::device::cuda::Cuda;
use picie::device::ops::{
    Classifier, Crop, Head, HeadInput, HeadSpec, LossInput, Memory, Merge, Target,
};
use picie::device::{Activation, Slot};

use crate::util::{Rig, below, close, finite_difference, plus, round, signed};

const D: usize = 128;

/// Inputs of all ops, rounded to an element type that both engines then read.
struct Case {
    spec: HeadSpec,
    laterals: [Vec<f32>; 4],
    crops: Option<Vec<Crop>>,
    /// Of each classifier: w, b, class weights, labels of `n + 1` images.
    w: Vec<Vec<f32>>,
    b: Vec<Vec<f32>>,
    weights: Vec<Vec<f32>>,
    labels: Vec<Vec<u16>>,
    scales: Vec<f32>,
    index: Vec<u32>,
    view: usize,
}

/// What the ops leave.
struct Results {
    features: Vec<f32>,
    labels: Vec<u16>,
    counts: Vec<u32>,
    sums: Vec<f32>,
    sizes: Vec<u32>,
    score: Vec<f32>,
    pred: Vec<u16>,
    losses: Vec<f32>,
    gradients: [Vec<f32>; 4],
}

const OUT: (usize, usize) = (21, 19);

impl Case {
    fn new<A: Activation>(
        spec: HeadSpec,
        k: impl AsRef<[usize]>,
        crops: Option<Vec<Crop>>,
        view: usize,
    ) -> Self {
        let (stored, k) = ((spec.n + 1) * spec.pixels(), k.as_ref());
        let numbers = |seed: usize, each: usize| -> Vec<Vec<f32>> {
            k.iter().enumerate().map(|(c, k)| signed((10 * c + seed) as u64, k * each)).collect()
        };
        let labels = |(c, &k): (usize, &usize)| {
            below((10 * c + 13) as u64, stored, k).into_iter().map(|v| v as u16).collect()
        };
        Case {
            spec,
            laterals: [0, 1, 2, 3]
                .map(|level| round::<A>(&signed(level as u64, spec.lateral_len(level)))),
            crops,
            w: numbers(10, D),
            b: numbers(11, 1),
            weights: numbers(12, 1)
                .into_iter()
                .map(|w| w.iter().map(|v| v.abs()).collect())
                .collect(),
            labels: k.iter().enumerate().map(labels).collect(),
            // A mean over hundreds of pixels, brought back to where f16 has all its bits; another
            // one for each target.
            scales: (0..k.len()).map(|c| 256.0 / (c + 1) as f32).collect(),
            // Row 1 is nobody's.
            index: (0..spec.n as u32).map(|i| if i == 0 { 0 } else { i + 1 }).rev().collect(),
            view,
        }
    }

    fn input<B: Memory>(&self, rig: &mut Rig<B>) -> HeadInput<B::Act> {
        let laterals = self.laterals.each_ref().map(|p| rig.act(p));
        HeadInput { laterals, crops: self.crops.as_ref().map(|c| rig.input(c)) }
    }

    fn classifier<B: Memory>(&self, rig: &mut Rig<B>, c: usize) -> Classifier {
        Classifier { w: rig.input(&self.w[c]), b: rig.input(&self.b[c]), k: self.b[c].len() }
    }

    fn targets<B: Memory>(&self, rig: &mut Rig<B>) -> Vec<Target> {
        let target = |c| Target {
            classifier: self.classifier(rig, c),
            labels: rig.input(&self.labels[c]),
            weights: rig.input(&self.weights[c]),
            scale: self.scales[c],
        };
        (0..self.w.len()).map(target).collect()
    }

    /// The loss alone: losses and gradients.
    fn loss<B: Head>(&self, mut rig: Rig<B>) -> (Vec<f32>, [Vec<f32>; 4]) {
        let (input, targets, index) =
            (self.input(&mut rig), self.targets(&mut rig), rig.input(&self.index));
        let loss = LossInput { targets: &targets, index, view: self.view };
        let losses = rig.output::<f32>(targets.len() * self.spec.n);
        let dlaterals = [0, 1, 2, 3].map(|level| rig.act_output(self.spec.lateral_len(level)));
        let plan = rig.dev.plan_head(self.spec).unwrap();
        rig.ready();
        rig.dev.head_loss(&plan, losses, dlaterals, input, loss).unwrap();
        (rig.read(losses), dlaterals.map(|d| rig.read_act(d)))
    }

    /// Everything, the first classifier where there is one.
    fn run<B: Head>(&self, mut rig: Rig<B>) -> Results {
        let (spec, k) = (self.spec, self.b[0].len());
        let (input, targets, index) =
            (self.input(&mut rig), self.targets(&mut rig), rig.input(&self.index));
        let (c, loss) =
            (targets[0].classifier, LossInput { targets: &targets, index, view: self.view });
        let features = rig.output::<f32>(spec.lateral_len(0));
        let labels: Slot<u16> = rig.output((spec.n + 1) * spec.pixels());
        let (counts, sizes) = (rig.input(&vec![100u32; k]), rig.input(&vec![7u32; k]));
        let (sums, score) = (rig.input(&vec![3.0f32; k * D]), rig.input(&[0.5f32]));
        let pred = rig.output::<u16>(spec.n * OUT.0 * OUT.1);
        let losses = rig.output::<f32>(targets.len() * spec.n);
        let dlaterals = [0, 1, 2, 3].map(|level| rig.act_output(spec.lateral_len(level)));
        let plan = rig.dev.plan_head(spec).unwrap();
        rig.ready();
        rig.dev.head_features(&plan, features, input).unwrap();
        rig.dev.head_assign(&plan, labels, counts, input, index, c).unwrap();
        rig.dev.head_accumulate(&plan, sums, sizes, score, input, c).unwrap();
        rig.dev.head_predict(&plan, pred, OUT, input, c).unwrap();
        rig.dev.head_loss(&plan, losses, dlaterals, input, loss).unwrap();
        Results {
            features: rig.read(features),
            labels: rig.read(labels),
            counts: rig.read(counts),
            sums: rig.read(sums),
            sizes: rig.read(sizes),
            score: rig.read(score),
            pred: rig.read(pred),
            losses: rig.read(losses),
            gradients: dlaterals.map(|d| rig.read_act(d)),
        }
    }

    /// Scores (n, h, w, k) of the first classifier in f64.
    fn scores(&self, features: &[f32]) -> Vec<f64> {
        let of = |f: &[f32]| {
            let dot = |w: &[f32]| {
                f.iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
            };
            self.w[0]
                .chunks(D)
                .zip(&self.b[0])
                .map(|(w, b)| dot(w) + f64::from(*b))
                .collect::<Vec<_>>()
        };
        features.chunks(D).flat_map(of).collect()
    }
}

fn crop(top: u32, left: u32, side: u32, flip: u32) -> Crop {
    Crop { top, left, side, flip }
}

/// Labels are equal, or a tie within the rounding of a score: 128 products of size 0.1 (1 without
/// unit features), each within 6e-8.
fn same_label(what: &str, unit: bool, scores: &[f64], got: u16, want: u16) {
    assert!(usize::from(got) < scores.len(), "{what}: label {got}");
    let gap = scores[usize::from(want)] - scores[usize::from(got)];
    assert!(
        gap.abs() <= if unit { 2e-6 } else { 2e-5 },
        "{what}: {got} instead of {want}, whose score is higher by {gap}"
    );
}

fn all_equal<T: PartialEq + Debug>(what: &str, got: &[T], want: &[T]) {
    let off = got.iter().zip(want).position(|(g, w)| g != w);
    assert!(got.len() == want.len() && off.is_none(), "{what}: {off:?}: {:?} and {:?}", got, want);
}

/// f32: exponentials within 2e-7 and products cancelled by the projection. Else a stored gradient
/// is rounded to half a unit of its last place, that of a warped image twice.
fn gradient_tolerance<A: Activation>() -> f32 {
    match A::NAME {
        "f32" => 5e-6,
        "bf16" => 1.5 / 256.0,
        _ => 1.5 / 2048.0,
    }
}

fn agree<A: Activation>(name: &str, case: &Case) {
    let Some(rig) = Rig::cuda::<A>() else { return };
    let (got, want) = (case.run::<Cuda<A>>(rig), case.run::<Cpu>(Rig::new()));
    let named = |what: &str| format!("{name}, {}: {what}", A::NAME);

    // Everything but the gradients is f32 inside and out: taps, a norm and sums of 128 products of
    // f32.
    close(&named("features"), &got.features, &want.features, 1e-6);
    let (k, pixels) = (case.b[0].len(), case.spec.pixels());
    let scores = case.scores(&want.features);
    for (image, &row) in case.index.iter().enumerate() {
        let rows = row as usize * pixels..(row as usize + 1) * pixels;
        for (p, (g, w)) in got.labels[rows.clone()].iter().zip(&want.labels[rows]).enumerate() {
            same_label(
                &named("labels"),
                case.spec.unit,
                &scores[(image * pixels + p) * k..][..k],
                *g,
                *w,
            );
        }
    }
    assert!(
        got.labels[pixels..2 * pixels].iter().all(|&l| l == u16::MAX),
        "{}",
        named("a row that no image has stays")
    );
    all_equal(&named("counts"), &got.counts, &want.counts);
    all_equal(&named("sizes"), &got.sizes, &want.sizes);
    // Of tens of features, each within 1e-6.
    close(&named("sums"), &got.sums, &want.sums, 3e-6);
    close(&named("score"), &got.score, &want.score, 1e-6);
    // Interpolated scores may tie within a few roundings; the seeds have no such pixel.
    all_equal(&named("predictions"), &got.pred, &want.pred);

    close(&named("losses"), &got.losses, &want.losses, 2e-6);
    let tol = gradient_tolerance::<A>();
    for (level, (got, want)) in got.gradients.iter().zip(&want.gradients).enumerate() {
        close(&named(&format!("dp{}", level + 2)), got, want, tol);
    }
}

/// Maps below, at and above a tile of 64 pixels; classes below, at and above a chunk of 32 and sums
/// in shared memory (64).
fn cases<A: Activation>() {
    let crops = [
        vec![crop(1, 2, 4, 1), crop(0, 0, 7, 0), crop(2, 3, 3, 0)],
        vec![Crop::whole(8), crop(0, 0, 8, 1)],
        vec![crop(3, 5, 11, 1)],
        vec![crop(0, 8, 5, 1), crop(4, 12, 1, 0), crop(0, 0, 5, 0), crop(1, 3, 4, 0)],
    ];
    let shapes =
        [(9, 7, [5, 27], 3), (8, 8, [32, 1], 1), (17, 17, [33, 70], 1), (5, 13, [70, 5], 2)];
    for ((h, w, k, view), crops) in shapes.into_iter().zip(crops) {
        for merge in [Merge::Direct, Merge::Cascade] {
            for crops in [None, Some(crops.clone())] {
                let n = match (h, w) {
                    (9, 7) => 3,
                    (8, 8) => 2,
                    (17, 17) => 1,
                    _ => 4,
                };
                let name =
                    format!("{n}×{h}×{w}, {k:?} clusters, {merge:?}, warped: {}", crops.is_some());
                let spec = HeadSpec { n, h, w, d: D, k: 70, merge, levels: 4, unit: true };
                agree::<A>(&name, &Case::new::<A>(spec, k, crops, view));
            }
        }
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

#[test]
fn gradients_agree_with_finite_differences() {
    let crops = vec![crop(1, 2, 4, 1), crop(0, 0, 5, 0), crop(2, 3, 2, 0)];
    for (merge, crops) in [(Merge::Direct, Some(crops)), (Merge::Cascade, None)] {
        let spec = HeadSpec { n: 3, h: 5, w: 7, d: D, k: 40, merge, levels: 4, unit: true };
        let mut case = Case::new::<f32>(spec, [5, 40], crops, 3);
        case.scales = vec![1.0; 2];
        let Some(rig) = Rig::cuda::<f32>() else { return };
        let (_, gradients) = case.loss(rig);
        for (level, gradient) in gradients.iter().enumerate() {
            let x = case.laterals[level].clone();
            let mut total = |x: &[f32]| {
                case.laterals[level] = x.to_vec();
                case.loss(Rig::cuda::<f32>().unwrap()).0.iter().map(|&l| f64::from(l)).sum()
            };
            // Of six f32 losses near 2 over a step of 0.1, some 1e-3 of the largest gradient.
            finite_difference(&format!("dp{}", level + 2), &x, gradient, 8, 5e-2, 1e-2, &mut total);
            case.laterals[level] = x;
        }
    }
}

#[test]
fn a_whole_crop_changes_no_bit_and_a_flip_is_a_mirror() {
    let spec =
        HeadSpec { n: 2, h: 9, w: 9, d: D, k: 4, merge: Merge::Cascade, levels: 4, unit: true };
    let run = |crops: Option<Vec<Crop>>| {
        Rig::cuda::<half::bf16>()
            .map(|rig| Case::new::<half::bf16>(spec, [4, 3], crops, 2).run(rig))
    };
    let Some(plain) = run(None) else { return };
    let whole = run(Some(vec![Crop::whole(9); 2])).unwrap();
    assert!(
        plain.features == whole.features
            && plain.gradients == whole.gradients
            && plain.losses == whole.losses
    );
    let flipped = run(Some(vec![crop(0, 0, 9, 1); 2])).unwrap();
    for (i, pixel) in plain.features.chunks(D).enumerate() {
        assert_eq!(pixel, &flipped.features[(i / 9 * 9 + 8 - i % 9) * D..][..D]);
    }
}

#[test]
fn edges_of_the_loss_are_the_cpus() {
    let spec =
        HeadSpec { n: 2, h: 3, w: 2, d: D, k: 3, merge: Merge::Direct, levels: 4, unit: true };
    let new = || Case::new::<f32>(spec, [3, 2], None, 1);
    let check = |name: &str, case: &Case| {
        let Some(rig) = Rig::cuda::<f32>() else { return };
        let (got, want) = (case.loss(rig), case.loss(Rig::new()));
        close(name, &got.0, &want.0, 1e-6);
        for level in 0..4 {
            close(&format!("{name}: dp{}", level + 2), &got.1[level], &want.1[level], 5e-6);
        }
    };
    // A view without weight has no loss; here the first classifier's.
    let mut case = new();
    case.weights[0].fill(0.0);
    check("no weight", &case);
    case.weights[1].fill(0.0);
    let Some(rig) = Rig::cuda::<f32>() else { return };
    let (losses, gradients) = case.loss(rig);
    assert!(losses.iter().chain(gradients.iter().flatten()).all(|&v| v == 0.0));

    // Norms of 0 and below 1e-12 are the constant 1e-12.
    let mut case = new();
    case.laterals.iter_mut().for_each(|p| p.fill(0.0));
    check("zeros", &case);
    case.laterals[0] = signed(7, spec.lateral_len(0)).iter().map(|v| v * 2e-14).collect();
    check("tiny", &case);

    let mut case = new();
    case.laterals[0][5] = f32::NAN;
    let nan = case.loss(Rig::cuda::<f32>().unwrap()).0;
    assert!(
        nan[..2].iter().all(|l| l.is_nan()) && nan[2..].iter().all(|l| l.is_finite()),
        "{nan:?}"
    );
}

#[test]
fn sums_are_added_to_and_of_equal_scores_the_first_wins() {
    let Some(mut rig) = Rig::cuda::<f32>() else { return };
    let spec =
        HeadSpec { n: 2, h: 9, w: 8, d: D, k: 70, merge: Merge::Direct, levels: 4, unit: true };
    let mut case = Case::new::<f32>(spec, [70, 1], None, 2);
    // Clusters 3, 36 and 69 are the same, and the best.
    for k in [3, 36, 69] {
        case.w[0][k * D..][..D].fill(0.0);
        case.b[0][k] = 50.0;
    }
    let (input, c) = (case.input(&mut rig), case.classifier(&mut rig, 0));
    let (sums, counts, score) =
        (rig.zeros::<f32>(70 * D), rig.zeros::<u32>(70), rig.zeros::<f32>(1));
    let features = rig.output::<f32>(spec.lateral_len(0));
    let plan = rig.dev.plan_head(spec).unwrap();
    rig.ready();
    rig.dev.head_features(&plan, features, input).unwrap();
    for _ in 0..2 {
        rig.dev.head_accumulate(&plan, sums, counts, score, input, c).unwrap();
    }
    let mut want = [0; 70];
    want[3] = 2 * 2 * 72;
    all_equal("counts", &rig.read(counts), &want);
    let mut total = vec![0.0; 70 * D];
    for f in rig.read(features).chunks(D) {
        let row = plus(&total[3 * D..4 * D], &f.iter().map(|f| 2.0 * f).collect::<Vec<_>>());
        total[3 * D..4 * D].copy_from_slice(&row);
    }
    // Sums of 144 numbers.
    close("sums", &rig.read(sums), &total, 2e-6);
    close("score", &rig.read(score), &[50.0 * 288.0], 1e-7);
}

/// 270 tiles: some blocks go on to a second one, of another image.
#[test]
fn more_tiles_than_blocks_are_summed() {
    fn run<B: Head>(case: &Case, mut rig: Rig<B>) -> (Vec<f32>, Vec<u32>, Vec<f32>) {
        let (input, c) = (case.input(&mut rig), case.classifier(&mut rig, 0));
        let (sums, counts, score) =
            (rig.zeros::<f32>(c.k * D), rig.zeros::<u32>(c.k), rig.zeros::<f32>(1));
        let plan = rig.dev.plan_head(case.spec).unwrap();
        rig.ready();
        rig.dev.head_accumulate(&plan, sums, counts, score, input, c).unwrap();
        (rig.read(sums), rig.read(counts), rig.read(score))
    }
    for k in [3, 65] {
        let spec =
            HeadSpec { n: 135, h: 9, w: 8, d: D, k, merge: Merge::Direct, levels: 4, unit: true };
        let case = Case::new::<half::bf16>(spec, [k, 1], None, 1);
        let Some(rig) = Rig::cuda::<half::bf16>() else { return };
        let (got, want) = (run(&case, rig), run(&case, Rig::new()));
        all_equal("counts", &got.1, &want.1);
        // Of thousands of features in another order.
        close("sums", &got.0, &want.0, 5e-6);
        close("score", &got.2, &want.2, 1e-6);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let Some(mut rig) = Rig::cuda::<f32>() else { return };
    let spec =
        HeadSpec { n: 1, h: 5, w: 7, d: D, k: 6, merge: Merge::Direct, levels: 4, unit: true };
    let mut refused =
        |spec: HeadSpec| rig.dev.plan_head(spec).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(refused(HeadSpec { k: 70_000, ..spec }).contains("16 bits"));
    assert!(refused(HeadSpec { d: 64, ..spec }).contains("128 channels"));
    assert!(refused(HeadSpec { h: 0, ..spec }).contains("without content"));
    assert!(refused(HeadSpec { n: 70_000, ..spec }).contains("too many"));
    let plan = rig.dev.plan_head(spec).unwrap();
    let [p2, p3, p4, p5] = [0, 1, 2, 3].map(|level| rig.act_output(spec.lateral_len(level)));
    let features = rig.output::<f32>(spec.lateral_len(0));
    rig.ready();
    let swapped = HeadInput { laterals: [p2, p4, p3, p5], crops: None };
    assert!(
        rig.dev.head_features(&plan, features, swapped).unwrap_err().to_string().contains("p3 has")
    );
}
