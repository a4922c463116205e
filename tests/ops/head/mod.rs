mod learned;
mod views;

use std::collections::BTreeMap;

use picie::device::Slot;
use picie::device::ops::{Classifier, Crop, Head, HeadInput, HeadSpec, LossInput, Merge, Target};

use crate::util::{Rig, below, close, finite_difference, golden, signed};

type Numbers = BTreeMap<String, Vec<f32>>;

/// The goldens' sizes.
const SPEC: HeadSpec =
    HeadSpec { n: 4, h: 5, w: 7, d: 8, k: 6, merge: Merge::Direct, levels: 4, unit: true };
const SCALES: [f32; 4] = [0.25, 0.5, 1.0, 2.0];
/// Name, merge, whether images are warped, targets, levels, unit features.
type Golden = (&'static str, Merge, bool, usize, usize, bool);
const CASES: [Golden; 5] = [
    ("direct", Merge::Direct, false, 2, 4, true),
    ("cascade", Merge::Cascade, true, 2, 4, true),
    ("one", Merge::Direct, true, 1, 1, false),
    ("two", Merge::Direct, true, 4, 2, true),
    ("plain", Merge::Cascade, false, 1, 4, false),
];

fn crops_of(g: &Numbers) -> Vec<Crop> {
    let u = |v: f32| v as u32;
    g["crops"]
        .chunks(4)
        .map(|c| Crop { top: u(c[0]), left: u(c[1]), side: u(c[2]), flip: u(c[3]) })
        .collect()
}

/// Those of levels that there are; the others are empty.
fn laterals(rig: &mut Rig, spec: &HeadSpec, g: &Numbers) -> [Slot<f32>; 4] {
    [0, 1, 2, 3].map(|level| {
        rig.input(if level < spec.levels { &g[&format!("p{}", level + 2)] } else { &[] })
    })
}

fn outputs(rig: &mut Rig, spec: &HeadSpec) -> [Slot<f32>; 4] {
    [0, 1, 2, 3].map(|level| rig.output(spec.lateral_len(level)))
}

fn classifier(rig: &mut Rig, w: &[f32], b: &[f32]) -> Classifier {
    Classifier { w: rig.input(w), b: rig.input(b), k: b.len() }
}

fn integers<T: TryFrom<u32, Error: std::fmt::Debug>>(v: &[f32]) -> Vec<T> {
    v.iter().map(|&v| T::try_from(v as u32).unwrap()).collect()
}

/// The first targets, one a scale.
fn targets(rig: &mut Rig, g: &Numbers, scales: &[f32]) -> Vec<Target> {
    let target = |(c, &scale): (usize, &f32)| Target {
        classifier: classifier(rig, &g[&format!("w{c}")], &g[&format!("b{c}")]),
        labels: rig.input::<u16>(&integers(&g[&format!("labels{c}")])),
        weights: rig.input(&g[&format!("weights{c}")]),
        scale,
    };
    scales.iter().enumerate().map(target).collect()
}

#[test]
fn features_labels_sums_and_predictions_are_torchs() {
    let g = golden("head");
    for (name, merge, crops, _, levels, unit) in CASES {
        let spec = HeadSpec { merge, levels, unit, ..SPEC };
        let want = |what: &str| &g[&format!("{name}.{what}")];
        let mut rig = Rig::new();
        let laterals = laterals(&mut rig, &spec, &g);
        let input = HeadInput { laterals, crops: crops.then(|| rig.input(&crops_of(&g))) };
        let c = classifier(&mut rig, &g["w0"], &g["b0"]);
        let index = rig.input::<u32>(&integers(&g["index"]));
        let features = rig.output::<f32>(spec.lateral_len(0));
        let (labels, counts) = (rig.output::<u16>(6 * 35), rig.input(&[100u32; 5]));
        let (sums, sizes, score) =
            (rig.input(&[3.0f32; 5 * 8]), rig.input(&[7u32; 5]), rig.input(&[0.5f32]));
        let pred = rig.output::<u16>(4 * 11 * 9);
        let plan = rig.dev.plan_head(spec).unwrap();
        rig.ready();

        rig.dev.head_features(&plan, features, input).unwrap();
        // Interpolation and normalisation: a handful of f32 roundings, 6e-8 each.
        close("features", &rig.read(features), want("features"), 5e-7);

        rig.dev.head_assign(&plan, labels, counts, input, index, c).unwrap();
        let (labels, expected) = (rig.read(labels), integers::<u16>(want("labels")));
        for (image, &row) in integers::<u32>(&g["index"]).iter().enumerate() {
            assert_eq!(
                labels[row as usize * 35..][..35],
                expected[image * 35..][..35],
                "{name}: image {image}"
            );
        }
        assert!(
            [2, 4].iter().all(|row| labels[row * 35..][..35] == [u16::MAX; 35]),
            "rows that no image has stay"
        );
        let plus = |v: &[f32], more: f32| v.iter().map(|v| v + more).collect::<Vec<_>>();
        assert_eq!(rig.read(counts), integers::<u32>(&plus(want("counts"), 100.0)));

        rig.dev.head_accumulate(&plan, sums, sizes, score, input, c).unwrap();
        // Sums of some thirty features.
        close("sums", &rig.read(sums), &plus(want("sums"), 3.0), 1e-6);
        close("score", &rig.read(score), &plus(want("score"), 0.5), 1e-6);
        assert_eq!(rig.read(sizes), integers::<u32>(&plus(want("counts"), 7.0)));

        rig.dev.head_predict(&plan, pred, (11, 9), input, c).unwrap();
        let pred = rig.read(pred);
        let sure =
            pred.iter().zip(want("pred")).zip(want("sure")).filter(|(_, sure)| **sure == 1.0);
        assert!(sure.clone().count() * 100 >= 99 * pred.len());
        assert!(sure.clone().all(|((p, w), _)| f32::from(*p) == *w), "{name}: predictions");
    }
}

#[test]
fn losses_and_gradients_are_torchs() {
    let g = golden("head");
    for (name, merge, crops, count, levels, unit) in CASES {
        let spec = HeadSpec { merge, levels, unit, ..SPEC };
        let mut rig = Rig::new();
        let laterals = laterals(&mut rig, &spec, &g);
        let input = HeadInput { laterals, crops: crops.then(|| rig.input(&crops_of(&g))) };
        let (targets, index) =
            (targets(&mut rig, &g, &SCALES[..count]), rig.input::<u32>(&integers(&g["index"])));
        let loss = LossInput { targets: &targets, index, view: 2 };
        let (losses, dlaterals) = (rig.output::<f32>(4 * count), outputs(&mut rig, &spec));
        let plan = rig.dev.plan_head(spec).unwrap();
        rig.ready();
        rig.dev.head_loss(&plan, losses, dlaterals, input, loss).unwrap();
        // Logarithms of sums of six exponentials, each within 2e-7.
        close("losses", &rig.read(losses), &g[&format!("{name}.losses")], 1e-6);
        for (level, slot) in dlaterals.into_iter().enumerate().take(levels) {
            let what = format!("{name}.dp{}", level + 2);
            // Products of eight terms, cancelled by the normalisation's projection.
            close(&what, &rig.read(slot), &g[&what], 3e-6);
        }
    }
}

/// Sizes of random data: several blocks of pixels, 128 channels, clusters on both sides of a
/// register's width.
struct Random {
    spec: HeadSpec,
    numbers: Numbers,
    crops: Option<Vec<Crop>>,
}

impl Random {
    fn new(spec: HeadSpec, k: [usize; 2], crops: Option<Vec<Crop>>) -> Self {
        let mut numbers = Numbers::new();
        for level in 0..4 {
            numbers
                .insert(format!("p{}", level + 2), signed(level as u64, spec.lateral_len(level)));
        }
        let whole = |v: Vec<usize>| v.into_iter().map(|v| v as f32).collect();
        for (c, k) in k.into_iter().enumerate() {
            let seed = 10 + c as u64;
            numbers.insert(format!("w{c}"), signed(seed, k * spec.d));
            numbers.insert(format!("b{c}"), signed(seed + 2, k));
            numbers.insert(
                format!("weights{c}"),
                signed(seed + 4, k).iter().map(|v| v.abs()).collect(),
            );
            numbers.insert(format!("labels{c}"), whole(below(seed + 6, spec.n * spec.pixels(), k)));
        }
        numbers.insert("index".into(), (0..spec.n).rev().map(|i| i as f32).collect());
        Random { spec, numbers, crops }
    }

    /// losses and dlaterals of all images as one view, with `p2`.. replaced by `moved`.
    fn loss(&self, moved: Option<(&str, &[f32])>) -> (Vec<f32>, Vec<Vec<f32>>) {
        let mut numbers = self.numbers.clone();
        if let Some((name, values)) = moved {
            numbers.insert(name.into(), values.to_vec());
        }
        let mut rig = Rig::new();
        let laterals = laterals(&mut rig, &self.spec, &numbers);
        let input = HeadInput { laterals, crops: self.crops.as_ref().map(|c| rig.input(c)) };
        let (targets, index) = (
            targets(&mut rig, &numbers, &[1.0; 2]),
            rig.input::<u32>(&integers(&numbers["index"])),
        );
        let loss = LossInput { targets: &targets, index, view: self.spec.n };
        let (losses, dlaterals) =
            (rig.output::<f32>(2 * self.spec.n), outputs(&mut rig, &self.spec));
        let plan = rig.dev.plan_head(self.spec).unwrap();
        rig.ready();
        rig.dev.head_loss(&plan, losses, dlaterals, input, loss).unwrap();
        (rig.read(losses), dlaterals.iter().map(|&d| rig.read(d)).collect())
    }

    fn features(&self) -> Vec<f32> {
        let mut rig = Rig::new();
        let laterals = laterals(&mut rig, &self.spec, &self.numbers);
        let input = HeadInput { laterals, crops: self.crops.as_ref().map(|c| rig.input(c)) };
        let features = rig.output::<f32>(self.spec.lateral_len(0));
        let plan = rig.dev.plan_head(self.spec).unwrap();
        rig.ready();
        rig.dev.head_features(&plan, features, input).unwrap();
        rig.read(features)
    }
}

fn crop(top: u32, left: u32, side: u32, flip: u32) -> Crop {
    Crop { top, left, side, flip }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let crops = vec![crop(1, 2, 4, 1), crop(0, 0, 5, 0), crop(2, 3, 2, 0)];
    for (merge, crops) in [(Merge::Direct, Some(crops)), (Merge::Cascade, None)] {
        let spec = HeadSpec { n: 3, h: 5, w: 7, d: 8, k: 5, merge, ..SPEC };
        let r = Random::new(spec, [5, 4], crops);
        let (_, gradients) = r.loss(None);
        for (level, name) in ["p2", "p3", "p4", "p5"].into_iter().enumerate() {
            let total = |x: &[f32]| r.loss(Some((name, x))).0.iter().map(|&l| f64::from(l)).sum();
            // step²·f‴ and the f32 rounding of six losses over the step are some 1e-3 of the
            // largest gradient.
            finite_difference(name, &r.numbers[name], &gradients[level], 25, 1e-2, 5e-3, total);
        }
    }
}

/// Plain f64 loops over F̂ for losses, for more pixels than a block and 128 channels.
#[test]
fn losses_of_many_channels_and_blocks_agree_with_plain_loops() {
    for (k, w) in [([27, 16], 19), ([1, 33], 16), ([17, 2], 1)] {
        let spec = HeadSpec { n: 2, h: 16, w, d: 128, k: 33, merge: Merge::Direct, ..SPEC };
        let r = Random::new(spec, k, None);
        let (f, g) = (r.features(), &r.numbers);
        let (losses, _) = r.loss(None);
        for (c, k) in k.into_iter().enumerate() {
            let (cw, cb, weights) =
                (&g[&format!("w{c}")], &g[&format!("b{c}")], &g[&format!("weights{c}")]);
            let labels =
                |i: usize| &g[&format!("labels{c}")][(1 - i) * spec.pixels()..][..spec.pixels()];
            let norm: f64 = (0..2).flat_map(labels).map(|&y| f64::from(weights[y as usize])).sum();
            for i in 0..2 {
                let rows = f[i * spec.pixels() * 128..][..spec.pixels() * 128].chunks(128);
                let want: f64 = rows
                    .zip(labels(i))
                    .map(|(f, &y)| {
                        let score = |j: usize| {
                            let dot = f
                                .iter()
                                .zip(&cw[j * 128..])
                                .map(|(a, b)| f64::from(a * b))
                                .sum::<f64>();
                            dot + f64::from(cb[j])
                        };
                        let lse = (0..k).map(|j| score(j).exp()).sum::<f64>().ln();
                        f64::from(weights[y as usize]) * (lse - score(y as usize)) / norm
                    })
                    .sum();
                let err = (f64::from(losses[i * 2 + c]) - want).abs();
                // Losses are near 2; each term is within a few 1e-7.
                assert!(
                    err <= 2e-6,
                    "k {k}, width {w}, image {i}: {} and {want}",
                    losses[i * 2 + c]
                );
            }
        }
    }
}

#[test]
fn a_whole_crop_changes_no_bit_and_features_have_unit_norm() {
    let spec = HeadSpec { n: 3, h: 17, w: 17, d: 128, k: 4, merge: Merge::Cascade, ..SPEC };
    let plain = Random::new(spec, [4, 3], None);
    let whole = Random::new(spec, [4, 3], Some(vec![Crop::whole(17); 3]));
    assert_eq!(plain.features(), whole.features());
    assert_eq!(plain.loss(None), whole.loss(None));
    let flipped = Random::new(spec, [4, 3], Some(vec![crop(0, 0, 17, 1); 3])).features();
    for (i, pixel) in plain.features().chunks(128).enumerate() {
        let (row, x) = (i / 17, i % 17);
        assert_eq!(
            pixel,
            &flipped[(row * 17 + 16 - x) * 128..][..128],
            "a flip is a mirror, to the bit"
        );
        let norm = pixel.iter().map(|v| v * v).sum::<f32>().sqrt();
        assert!((norm - 1.0).abs() <= 1e-6, "{norm}");
    }
}

#[test]
fn a_view_without_weight_has_no_loss_and_features_of_zero_no_projection() {
    let spec = HeadSpec { n: 1, h: 3, w: 2, d: 4, k: 3, merge: Merge::Direct, ..SPEC };
    let mut r = Random::new(spec, [3, 2], None);
    r.numbers.insert("weights0".into(), vec![0.0; 3]);
    let (losses, _) = r.loss(None);
    assert!(losses[0] == 0.0 && losses[1] > 0.0, "{losses:?}");
    r.numbers.insert("weights1".into(), vec![0.0; 2]);
    let (losses, gradients) = r.loss(None);
    assert_eq!(losses, [0.0, 0.0]);
    assert!(gradients.iter().flatten().all(|&g| g == 0.0));

    let mut r = Random::new(spec, [3, 2], None);
    for level in 0..4 {
        r.numbers.insert(format!("p{}", level + 2), vec![0.0; spec.lateral_len(level)]);
    }
    assert_eq!(r.features(), vec![0.0; 24]);
    // The norm is the constant 1e-12 there, so the gradient is that of linear scores at 0, over
    // 1e-12.
    let (_, gradients) = r.loss(None);
    let largest = gradients[0].iter().fold(0.0f32, |m, g| m.max(g.abs()));
    assert!((1e9..=1e13).contains(&largest), "{largest}");
    let tiny: Vec<f32> = signed(7, 24).iter().map(|v| v * 2e-13).collect();
    r.numbers.insert("p2".into(), tiny.clone());
    let gradient = r.loss(None).1.swap_remove(0);
    let total = |x: &[f32]| r.loss(Some(("p2", x))).0.iter().map(|&l| f64::from(l)).sum();
    // F̂ = 1e12·F has a norm below 1: a projection would change the slope by tenths.
    finite_difference("clamped", &tiny, &gradient, 12, 1e-14, 5e-3, total);
}

#[test]
fn a_loss_of_nan_features_is_nan() {
    let spec = HeadSpec { n: 1, h: 3, w: 2, d: 4, k: 3, merge: Merge::Direct, ..SPEC };
    let mut r = Random::new(spec, [3, 2], None);
    r.numbers.get_mut("p2").unwrap()[5] = f32::NAN;
    assert!(r.loss(None).0.iter().all(|l| l.is_nan()));
}

#[test]
fn one_and_three_threads_give_the_same_bits() {
    let spec = HeadSpec { n: 5, h: 18, w: 17, d: 128, k: 27, merge: Merge::Direct, ..SPEC };
    let crops = vec![
        crop(1, 2, 9, 1),
        crop(0, 0, 17, 0),
        crop(2, 3, 12, 0),
        crop(0, 0, 17, 1),
        crop(5, 4, 13, 0),
    ];
    let r = Random::new(spec, [27, 20], Some(crops));
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut rig = Rig::new();
            let laterals = laterals(&mut rig, &spec, &r.numbers);
            let input = HeadInput { laterals, crops: r.crops.as_ref().map(|c| rig.input(c)) };
            let c = classifier(&mut rig, &r.numbers["w0"], &r.numbers["b0"]);
            let (sums, counts, score) =
                (rig.zeros::<f32>(27 * 128), rig.zeros::<u32>(27), rig.zeros::<f32>(1));
            let plan = rig.dev.plan_head(spec).unwrap();
            rig.ready();
            rig.dev.head_accumulate(&plan, sums, counts, score, input, c).unwrap();
            (rig.read(sums), rig.read(counts), rig.read(score), r.loss(None))
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut rig = Rig::new();
    assert!(
        rig.dev
            .plan_head(HeadSpec { k: 70_000, ..SPEC })
            .unwrap_err()
            .to_string()
            .contains("16 bits")
    );
    assert!(rig.dev.plan_head(HeadSpec { h: 0, ..SPEC }).is_err());
    let plan = rig.dev.plan_head(SPEC).unwrap();
    let good = outputs(&mut rig, &SPEC);
    let features = rig.output::<f32>(SPEC.lateral_len(0));
    let crops =
        rig.input(&[crop(0, 0, 5, 0), crop(0, 3, 5, 0), crop(0, 0, 5, 0), crop(0, 0, 5, 0)]);
    let classifier = classifier(&mut rig, &[0.0; 6 * 8], &[0.0; 6]);
    let (labels, index) = (rig.output::<u16>(4 * 35), rig.input(&[0u32, 1, 2, 3]));
    rig.ready();
    let [p2, p3, p4, p5] = good;
    let swapped = HeadInput { laterals: [p2, p4, p3, p5], crops: None };
    assert!(
        rig.dev
            .head_features(&plan, features, swapped)
            .unwrap_err()
            .to_string()
            .contains("p3 has 128")
    );
    let outside = HeadInput { laterals: good, crops: Some(crops) };
    assert!(
        rig.dev
            .head_features(&plan, features, outside)
            .unwrap_err()
            .to_string()
            .contains("not inside")
    );
    let refused = |spec: HeadSpec| {
        Rig::new().dev.plan_head(spec).err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert!(refused(HeadSpec { levels: 0, ..SPEC }).contains("0 levels"));
    assert!(refused(HeadSpec { levels: 5, ..SPEC }).contains("5 levels"));
    assert!(
        refused(HeadSpec { levels: 3, merge: Merge::Cascade, ..SPEC }).contains("--merge direct")
    );
    let input = HeadInput { laterals: good, crops: None };
    let target = Target { classifier, labels, weights: classifier.b, scale: 1.0 };
    for count in [0, 5] {
        let loss = LossInput { targets: &vec![target; count], index, view: 4 };
        let said =
            rig.dev.head_loss(&plan, classifier.b, good, input, loss).unwrap_err().to_string();
        assert!(said.contains(&format!("{count} targets")), "{said}");
    }
    let said = rig.dev.head_scores(&plan, features, input, classifier).unwrap_err().to_string();
    assert!(said.contains("scores has 1120"), "{said}");
}
