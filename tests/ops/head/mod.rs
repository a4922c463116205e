//! From laterals to features, labels, sums, or losses and gradients: PyTorch's numbers, plain
//! loops, finite differences, threads; then CUDA against the CPU.

mod adjoint;
mod engines;
mod learned;
mod torch;
mod views;

use picie::device::ops::{
    Classifier, Crop, HeadAccumulate, HeadAssign, HeadFeatures, HeadInput, HeadLoss, HeadPredict,
    HeadSpec, Merge, Target, head_accumulate, head_assign, head_features, head_loss, head_predict,
    plan_head,
};
use picie::device::{Act, Dtype, Slot};

use crate::util::{EXACT, On, OpCase, Results, Rig, Steps, added, below, close, equal, signed};

/// Sizes of the goldens.
const SPEC: HeadSpec =
    HeadSpec { n: 4, h: 5, w: 7, d: 8, k: 6, merge: Merge::Direct, levels: 4, unit: true };

/// A classifier, and what its scores are compared with.
#[derive(Clone)]
struct Learned {
    w: Vec<f32>,
    b: Vec<f32>,
    /// Of classes.
    weights: Vec<f32>,
    /// Of stored images.
    labels: Vec<u16>,
    scale: f32,
}

/// What all ops of the family read.
#[derive(Clone)]
struct Given {
    spec: HeadSpec,
    laterals: [Vec<f32>; 4],
    crops: Option<Vec<Crop>>,
    learned: Vec<Learned>,
    index: Vec<u32>,
    view: usize,
}

impl Given {
    /// Random numbers for classifiers of `k` clusters each. The labels are of one image more: row 1
    /// is nobody's.
    fn new(spec: HeadSpec, k: &[usize], crops: Option<Vec<Crop>>, view: usize) -> Self {
        let learned = |(c, &k): (usize, &usize)| {
            let numbers = |seed: usize, len| signed((10 * c + seed) as u64, len);
            let labels = below((10 * c + 13) as u64, (spec.n + 1) * spec.pixels(), k);
            Learned {
                w: numbers(10, k * spec.d),
                b: numbers(11, k),
                weights: numbers(12, k).iter().map(|v| v.abs()).collect(),
                labels: labels.into_iter().map(|v| v as u16).collect(),
                scale: 1.0,
            }
        };
        Given {
            spec,
            laterals: [0, 1, 2, 3].map(|level| signed(level as u64, spec.lateral_len(level))),
            crops,
            learned: k.iter().enumerate().map(learned).collect(),
            index: (0..spec.n as u32).map(|i| if i == 0 { 0 } else { i + 1 }).rev().collect(),
            view,
        }
    }

    fn named(&self, op: &str) -> String {
        let k: Vec<usize> = self.learned.iter().map(|c| c.b.len()).collect();
        format!("{op} of {:?}, {k:?} clusters, warped: {}", self.spec, self.crops.is_some())
    }

    fn input(&self, rig: &mut Rig) -> HeadInput {
        let lateral = |level: usize| rig.acts(&format!("p{}", level + 2), &self.laterals[level]);
        let laterals = [0, 1, 2, 3].map(lateral);
        HeadInput { laterals, crops: self.crops.as_ref().map(|c| rig.input("crops", c)) }
    }

    /// Gradients of laterals, which errors call by the names of those.
    fn gradients(&self, rig: &mut Rig) -> [Slot<Act>; 4] {
        let len = |level| self.spec.lateral_len(level);
        [0, 1, 2, 3].map(|level| rig.act_output(&gradient(level), len(level)))
    }

    /// The first one.
    fn classifier(&self, rig: &mut Rig) -> Classifier {
        let Learned { w, b, .. } = &self.learned[0];
        Classifier { w: rig.input("w", w), b: rig.input("b", b), k: b.len() }
    }

    fn features(&self) -> OpCase<'_> {
        OpCase::new(self.named("head_features"), |rig| {
            let plan = plan_head(&mut *rig.dev, self.spec).unwrap();
            let features = rig.act_output("features", self.spec.lateral_len(0));
            let a = HeadFeatures { features, input: self.input(rig) };
            move |dev| head_features(dev, &plan, a)
        })
    }

    fn assign(&self) -> OpCase<'_> {
        OpCase::new(self.named("head_assign"), |rig| {
            let plan = plan_head(&mut *rig.dev, self.spec).unwrap();
            let Learned { b, labels, .. } = &self.learned[0];
            let a = HeadAssign {
                labels: rig.output("labels", labels.len()),
                counts: rig.adds("counts", b.len()),
                input: self.input(rig),
                index: rig.input("index", &self.index),
                classifier: self.classifier(rig),
            };
            move |dev| head_assign(dev, &plan, a)
        })
    }

    /// `times` in a row.
    fn accumulate(&self, times: usize) -> OpCase<'_> {
        OpCase::new(self.named("head_accumulate"), move |rig| {
            let plan = plan_head(&mut *rig.dev, self.spec).unwrap();
            let Learned { w, b, .. } = &self.learned[0];
            let a = HeadAccumulate {
                sums: rig.adds("sums", w.len()),
                counts: rig.adds("counts", b.len()),
                score: rig.adds("score", 1),
                input: self.input(rig),
                classifier: self.classifier(rig),
            };
            move |dev| (0..times).try_for_each(|_| head_accumulate(dev, &plan, a))
        })
    }

    /// Of `images` images, as many as there are or half of that.
    fn predict(&self, (height, width): (usize, usize), images: usize) -> OpCase<'_> {
        OpCase::new(self.named("head_predict"), move |rig| {
            let plan = plan_head(&mut *rig.dev, self.spec).unwrap();
            let pred = rig.output("pred", images * height * width);
            let (input, classifier) = (self.input(rig), self.classifier(rig));
            let a = HeadPredict { pred, height, width, input, classifier };
            move |dev| head_predict(dev, &plan, a)
        })
    }

    /// Against all targets.
    fn loss(&self) -> OpCase<'_> {
        OpCase::new(self.named("head_loss"), |rig| {
            let plan = plan_head(&mut *rig.dev, self.spec).unwrap();
            let losses = rig.output("losses", self.spec.n * self.learned.len());
            let (dlaterals, input) = (self.gradients(rig), self.input(rig));
            let index = rig.input("index", &self.index);
            let target = |(c, t): (usize, &Learned)| Target {
                classifier: Classifier {
                    w: rig.input(&format!("w#{c}"), &t.w),
                    b: rig.input(&format!("b#{c}"), &t.b),
                    k: t.b.len(),
                },
                labels: rig.input(&format!("labels#{c}"), &t.labels),
                weights: rig.input(&format!("weights#{c}"), &t.weights),
                scale: t.scale,
            };
            let targets: Vec<Target> = self.learned.iter().enumerate().map(target).collect();
            let view = self.view;
            move |dev| {
                let a = HeadLoss { losses, dlaterals, input, targets: &targets, index, view };
                head_loss(dev, &plan, a)
            }
        })
    }
}

/// The name of a level's gradient.
fn gradient(level: usize) -> String {
    format!("p{}#gradient", level + 2)
}

fn crop(top: u32, left: u32, side: u32, flip: u32) -> Crop {
    Crop { top, left, side, flip }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let crops = vec![crop(1, 2, 4, 1), crop(0, 0, 5, 0), crop(2, 3, 2, 0)];
    for (merge, crops) in [(Merge::Direct, Some(crops)), (Merge::Cascade, None)] {
        for (on, d, k, steps) in [
            // step²·f‴ and the f32 rounding of six losses over the step are some 1e-3 of the
            // largest gradient.
            (On::Cpu, 8, [5, 4], Steps { picks: 25, step: 1e-2, tol: 5e-3 }),
            // Of six f32 losses near 2 over a step of 0.1, the same.
            (On::Cuda, 128, [5, 40], Steps { picks: 8, step: 5e-2, tol: 1e-2 }),
        ] {
            if !On::all().contains(&on) {
                continue;
            }
            let spec = HeadSpec { n: 3, d, k: 40, merge, ..SPEC };
            let given = Given::new(spec, &k, crops.clone(), 3);
            let got = given.loss().run(on.rig());
            let gradients = [("p2", 0), ("p3", 1), ("p4", 2), ("p5", 3)]
                .map(|(name, level)| (name, got[&*gradient(level)].clone()));
            given.loss().slopes(on, ("losses", &[1.0; 6]), &gradients, steps);
        }
    }
}

/// Plain f64 loops over F̂ for losses, for more pixels than a block and 128 channels.
#[test]
fn losses_of_many_channels_and_blocks_agree_with_plain_loops() {
    for (k, w) in [([27, 16], 19), ([1, 33], 16), ([17, 2], 1)] {
        let spec = HeadSpec { n: 2, h: 16, w, d: 128, k: 33, ..SPEC };
        let given = Given::new(spec, &k, None, 2);
        let (features, got) = (given.features().cpu(), given.loss().cpu());
        for (c, t) in given.learned.iter().enumerate() {
            let labels =
                |i: usize| &t.labels[given.index[i] as usize * spec.pixels()..][..spec.pixels()];
            let weight = |y: u16| f64::from(t.weights[usize::from(y)]);
            let norm: f64 = (0..2).flat_map(labels).map(|&y| weight(y)).sum();
            for i in 0..2 {
                let rows = &features["features"][i * spec.pixels() * 128..][..spec.pixels() * 128];
                let loss = |(f, &y): (&[f32], &u16)| {
                    let dot = |j: usize| -> f64 {
                        f.iter().zip(&t.w[j * 128..]).map(|(a, b)| f64::from(a * b)).sum()
                    };
                    let score = |j: usize| dot(j) + f64::from(t.b[j]);
                    let lse = (0..t.b.len()).map(|j| score(j).exp()).sum::<f64>().ln();
                    weight(y) * (lse - score(usize::from(y))) / norm
                };
                let want: f64 = rows.chunks(128).zip(labels(i)).map(loss).sum();
                let got = got["losses"][i * 2 + c];
                // Losses are near 2; each term is within a few 1e-7.
                let err = (f64::from(got) - want).abs();
                assert!(err <= 2e-6, "{k:?}, width {w}, image {i}: {got} and {want}");
            }
        }
    }
}

#[test]
fn a_whole_crop_changes_no_bit_and_features_have_unit_norm() {
    let spec = HeadSpec { h: 17, w: 17, n: 3, d: 128, merge: Merge::Cascade, ..SPEC };
    let side = 17;
    for on in On::all() {
        let with = |crops| Given::new(spec, &[4, 3], crops, 3);
        let plain = with(None).features().run(on.rig());
        let whole = with(Some(vec![Crop::whole(side); 3]));
        whole.features().run(on.rig()).close(&plain, |_| EXACT);
        whole.loss().run(on.rig()).close(&with(None).loss().run(on.rig()), |_| EXACT);
        let flipped = with(Some(vec![crop(0, 0, side as u32, 1); 3])).features().run(on.rig());
        for (i, pixel) in plain["features"].chunks(128).enumerate() {
            let mirrored = i / side * side + side - 1 - i % side;
            equal("a mirror", pixel, &flipped["features"][mirrored * 128..][..128]);
            let norm = pixel.iter().map(|v| v * v).sum::<f32>().sqrt();
            assert!((norm - 1.0).abs() <= 1e-6, "{norm}");
        }
    }
}

#[test]
fn a_view_without_weight_has_no_loss_and_features_of_zero_no_projection() {
    let spec = HeadSpec { n: 1, h: 3, w: 2, d: 4, k: 3, ..SPEC };
    let mut given = Given::new(spec, &[3, 2], None, 1);
    given.learned[0].weights.fill(0.0);
    let losses = given.loss().cpu()["losses"].clone();
    assert!(losses[0] == 0.0 && losses[1] > 0.0, "{losses:?}");
    given.learned[1].weights.fill(0.0);
    let got = given.loss().cpu();
    for name in ["losses", &gradient(0), &gradient(1), &gradient(2), &gradient(3)] {
        assert!(got[name].iter().all(|&v| v == 0.0), "{name}");
    }

    let mut given = Given::new(spec, &[3, 2], None, 1);
    given.laterals.iter_mut().for_each(|p| p.fill(0.0));
    assert_eq!(given.features().cpu()["features"], vec![0.0; 24]);
    // The norm is the constant 1e-12 there, so the gradient is that of linear scores at 0, over
    // 1e-12.
    let largest = given.loss().cpu()[&*gradient(0)].iter().fold(0.0f32, |m, g| m.max(g.abs()));
    assert!((1e9..=1e13).contains(&largest), "{largest}");
    given.laterals[0] = signed(7, 24).iter().map(|v| v * 2e-13).collect();
    let tiny = [("p2", given.loss().cpu()[&*gradient(0)].clone())];
    // F̂ = 1e12·F has a norm below 1: a projection would change the slope by tenths.
    let steps = Steps { picks: 12, step: 1e-14, tol: 5e-3 };
    given.loss().slopes(On::Cpu, ("losses", &[1.0; 2]), &tiny, steps);
}

#[test]
fn a_loss_of_nan_features_is_nan() {
    let spec = HeadSpec { n: 1, h: 3, w: 2, d: 4, k: 3, ..SPEC };
    let mut given = Given::new(spec, &[3, 2], None, 1);
    given.laterals[0][5] = f32::NAN;
    assert!(given.loss().cpu()["losses"].iter().all(|l| l.is_nan()));
}

#[test]
fn one_and_three_threads_give_the_same_bits() {
    let spec = HeadSpec { n: 5, h: 18, w: 17, d: 128, k: 27, ..SPEC };
    let crops = vec![
        crop(1, 2, 9, 1),
        crop(0, 0, 17, 0),
        crop(2, 3, 12, 0),
        crop(0, 0, 17, 1),
        crop(5, 4, 13, 0),
    ];
    let given = Given::new(spec, &[27, 20], Some(crops), 5);
    given.accumulate(1).same_bits_on_any_threads();
    given.loss().same_bits_on_any_threads();
}

#[test]
fn slots_of_a_wrong_size_are_refused() {
    let given = Given::new(SPEC, &[6, 3], Some(vec![crop(0, 0, 5, 0); 4]), 4);
    given.features().refuses_other_sizes("head_features", &[]);
    // A store has whole images.
    given.assign().refuses_other_sizes("head_assign", &[("labels", "labels")]);
    given.accumulate(1).refuses_other_sizes("head_accumulate", &[]);
    given.predict((9, 7), 4).refuses_other_sizes("head_predict", &[]);
    let stores = [("labels#0", "labels"), ("labels#1", "labels")];
    given.loss().refuses_other_sizes("head_loss", &stores);
}

#[test]
fn what_does_not_fit_is_refused() {
    for on in On::all() {
        let refused = |spec: HeadSpec| {
            let said = plan_head(&mut *on.rig().dev, spec).err();
            said.map(|e| e.to_string()).unwrap_or_default()
        };
        let wide = HeadSpec { d: 128, ..SPEC };
        assert!(refused(HeadSpec { k: 70_000, ..wide }).contains("16 bits"));
        assert!(refused(HeadSpec { h: 0, ..wide }).contains("without content"));
        assert!(refused(HeadSpec { levels: 0, ..wide }).contains("0 levels"));
        assert!(refused(HeadSpec { levels: 5, ..wide }).contains("5 levels"));
        let cascade = HeadSpec { levels: 3, merge: Merge::Cascade, ..wide };
        assert!(refused(cascade).contains("--merge direct"));
        if on == On::Cuda {
            assert!(refused(HeadSpec { d: 64, ..wide }).contains("128 channels"));
            assert!(refused(HeadSpec { n: 70_000, ..wide }).contains("too many"));
        }
    }
    let said = |case: OpCase| case.refusal(Rig::cpu(Dtype::F32)).to_string();
    // A crop lies in the engine's memory, where no door looks.
    let outside = vec![crop(0, 0, 5, 0), crop(0, 3, 5, 0), crop(0, 0, 5, 0), crop(0, 0, 5, 0)];
    assert!(said(Given::new(SPEC, &[6], Some(outside), 4).features()).contains("not inside"));
    for count in [0, 5] {
        let said = said(Given::new(SPEC, &vec![6; count], None, 4).loss());
        assert!(said.contains(&format!("{count} targets")), "{said}");
    }
    let said = said(Given::new(SPEC, &[6], None, 3).loss());
    assert!(said.contains("views of 3 images"), "{said}");
}
