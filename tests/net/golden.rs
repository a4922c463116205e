//! The whole network against PyTorch: laterals, features, running statistics, every gradient; ten
//! steps of training; ImageNet's features. What is drawn and what is stored: the heads of
//! `golden/network.py`, `golden/train.py` and `golden/imagenet.py`.

use picie::base::rng::{Rng, Stream};
use picie::device::cpu::Cpu;
use picie::device::ops::{
    AdamSpec, Classifier, Crop, HeadFeatures, HeadLoss, Merge, Target, head_features, head_loss,
};
use picie::device::{Dtype, Element, Engine, Layout, Pool, Slot};
use picie::net::weights::Source;
use picie::net::{
    Architecture, FEATURES, Mode, Network, Program, ProgramSpec, RESNET34, RESNET50, expected,
};

use super::{TWO, drawn, picture};
use crate::util::{close, golden, on_host, uniform};

/// L2 norm, sum and eight elements, as `golden/base/net.py` takes them; and the number of elements.
fn summary(v: &[f32]) -> ([f64; 10], usize) {
    let wide = || v.iter().map(|&v| f64::from(v));
    let mut out = [0.0; 10];
    out[0] = wide().map(|v| v * v).sum::<f64>().sqrt();
    out[1] = wide().sum();
    for i in 0..8 {
        out[2 + i] = f64::from(v[(2 * i + 1) * v.len() / 16]);
    }
    (out, v.len())
}

/// Compares a tensor with its summary: the norm by itself, the sum by the norm·√len that bounds it,
/// elements by ten times their root mean square.
#[track_caller]
fn summarised(name: &str, got: &[f32], want: &[f32], tol: f64) {
    let (got, len) = summary(got);
    let norm = f64::from(want[0]);
    let root = (len as f64).sqrt();
    for (i, (g, &w)) in got.iter().zip(want).enumerate() {
        let scale = [norm, norm * root].get(i).copied().unwrap_or(10.0 * norm / root);
        let err = (g - f64::from(w)).abs() / scale;
        assert!(
            err <= tol,
            "{name}, number {i} of the summary: got {g:e}, want {w:e}, error {err:e} is not within {tol:e}"
        );
    }
}

/// Calls `each(small pixel, large pixel, weight)` for the bilinear resampling (align_corners =
/// false) of n maps.
fn bilinear(
    n: usize,
    small: (usize, usize),
    large: (usize, usize),
    mut each: impl FnMut(usize, usize, f64),
) {
    let taps = |o: usize, from: usize, to: usize| {
        let at = ((o as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0);
        let (low, t) = (at as usize, at.fract());
        [(low, 1.0 - t), ((low + 1).min(from - 1), t)]
    };
    for (i, row, column) in (0..n * large.0 * large.1)
        .map(|v| (v / large.0 / large.1, v / large.1 % large.0, v % large.1))
    {
        for (r, a) in taps(row, small.0, large.0) {
            for (c, b) in taps(column, small.1, large.1) {
                each(
                    (i * small.0 + r) * small.1 + c,
                    (i * large.0 + row) * large.1 + column,
                    a * b,
                );
            }
        }
    }
}

/// to[t] += weight · from[f], channel by channel.
fn add_scaled(to: &mut [f64], t: usize, from: &[f64], f: usize, weight: f64) {
    for j in 0..FEATURES {
        to[t * FEATURES + j] += weight * from[f * FEATURES + j];
    }
}

/// The gradient of Σ F̂·r with respect to the laterals, in f64.
fn gradient(
    n: usize,
    sizes: &[(usize, usize)],
    merge: Merge,
    pyramid: &[Vec<f32>],
    r: &[f32],
) -> Vec<Vec<f32>> {
    // The level that each level is resampled to.
    let onto = |level: usize| if merge == Merge::Direct { 0 } else { level - 1 };
    let mut maps: Vec<Vec<f64>> =
        pyramid.iter().map(|p| p.iter().map(|&v| f64::from(v)).collect()).collect();
    for level in (1..maps.len()).rev() {
        let (low, high) = maps.split_at_mut(level);
        let to = &mut low[onto(level)];
        bilinear(n, sizes[level], sizes[onto(level)], |s, l, w| add_scaled(to, l, &high[0], s, w));
    }
    let mut grads: Vec<Vec<f64>> = maps.iter().map(|m| vec![0.0; m.len()]).collect();
    for ((f, d), r) in
        maps[0].chunks(FEATURES).zip(grads[0].chunks_mut(FEATURES)).zip(r.chunks(FEATURES))
    {
        let length = f.iter().map(|v| v * v).sum::<f64>().sqrt();
        let along: f64 = f.iter().zip(r).map(|(f, &r)| f / length * f64::from(r)).sum();
        for ((d, f), &r) in d.iter_mut().zip(f).zip(r) {
            *d = (f64::from(r) - f / length * along) / length;
        }
    }
    for level in 1..maps.len() {
        let (low, high) = grads.split_at_mut(level);
        let from = &low[onto(level)];
        bilinear(n, sizes[level], sizes[onto(level)], |s, l, w| {
            add_scaled(&mut high[0], s, from, l, w)
        });
    }
    grads.iter().map(|g| g.iter().map(|&v| v as f32).collect()).collect()
}

/// Stored under `prefix` what all merges share, under `name` what this one gives.
fn features_statistics_and_gradients(
    prefix: &str,
    name: &str,
    architecture: Architecture,
    t: u32,
    merge: Merge,
) {
    let (golden, seed, n, (h, w)) = (golden("network"), 7, 4, (64, 96));
    let levels = architecture.levels;
    let sizes = &[(16, 24), (8, 12), (4, 6), (2, 3)][..levels];
    let (x, r) = (
        picture(seed, t, n * h * w, architecture),
        uniform(seed, 1001, n * 16 * 24 * FEATURES, -1.0, 1.0),
    );
    let (dev, mut layout): (&mut dyn Engine, _) = (&mut Cpu::new(), Layout::new(Dtype::F32));
    let net = Network::plan(&mut layout, architecture);
    let features = layout.acts(Pool::State, "features", r.len());
    let spec = ProgramSpec { n, h, w, groups: 2, k: 1, merge, unit: true };
    let train = Program::plan(dev, &mut layout, &net, spec, Mode::Train).unwrap();
    let eval = Program::plan(dev, &mut layout, &net, spec, Mode::Eval).unwrap();
    let raw = ProgramSpec { unit: false, ..spec };
    let raw = Program::plan(dev, &mut layout, &net, raw, Mode::Eval).unwrap();
    dev.reserve(&layout).unwrap();
    net.load(dev, &drawn(seed, architecture)).unwrap();
    net.zero_grad(dev).unwrap();

    // Pixel 0, 61, 122, …
    let picked = |dev: &mut dyn Engine, program: &Program| -> Vec<f32> {
        let a = HeadFeatures { features, input: program.plain() };
        head_features(dev, &program.head, a).unwrap();
        dev.read_acts(features).unwrap().chunks(FEATURES).step_by(61).flatten().copied().collect()
    };
    let maps = |dev: &mut dyn Engine, program: &Program| -> Vec<Vec<f32>> {
        assert!(program.pyramid[levels..].iter().all(|p| p.len == 0));
        program.pyramid[..levels].iter().map(|&p| dev.read_acts(p).unwrap()).collect()
    };
    dev.write_acts(train.x, &x).unwrap();
    train.forward(dev, &net).unwrap();
    let pyramid = maps(dev, &train);
    let summaries = |name: &str, tensors: &[Vec<f32>], tol| {
        let rows = golden[&format!("{prefix}{name}")].chunks(10);
        assert_eq!(rows.len(), tensors.len());
        tensors.iter().zip(rows).for_each(|(tensor, want)| summarised(name, tensor, want, tol));
    };
    // f32 through 18 layers: PyTorch's own is off by 3e-6 of the features' norm, Winograd adds to
    // that; elements spread wider.
    summaries("laterals", &pyramid, 1e-5);
    close("features", &picked(dev, &train), &golden[&format!("{name}.features")], 2e-5);
    summaries("running", &net.running(dev).unwrap(), 1e-5);

    for (slot, d) in train.dpyramid().into_iter().zip(gradient(n, sizes, merge, &pyramid, &r)) {
        dev.write_acts(slot, &d).unwrap();
    }
    train.backward(dev, &net).unwrap();
    let grads = on_host(dev, &net.gradients());
    let names = expected(architecture)
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| !name.contains("running"));
    let rows = golden[&format!("{name}.grads")].chunks(10);
    assert_eq!(rows.len(), grads.tensors.len());
    for (param, want) in names.zip(rows) {
        // PyTorch's own f32 is off by 1e-5 of the norm, mostly by ReLUs and maxima that round the
        // other way.
        summarised(&param, grads.tensors[&param].f32().unwrap(), want, 5e-5);
    }

    net.fold(dev).unwrap();
    dev.write_acts(eval.x, &x).unwrap();
    eval.forward(dev, &net).unwrap();
    summaries("eval.laterals", &maps(dev, &eval), 1e-5);
    let want = &golden[&format!("{name}.eval")];
    close("features in eval mode", &picked(dev, &eval), want, 2e-5);
    dev.write_acts(raw.x, &x).unwrap();
    raw.forward(dev, &net).unwrap();
    let raw = picked(dev, &raw);
    let norm = |f: &[f32]| f.iter().map(|v| v * v).sum::<f32>().sqrt();
    assert!(raw.chunks(FEATURES).all(|f| norm(f) > 1.5));
    let unit: Vec<f32> =
        raw.chunks(FEATURES).flat_map(|f| f.iter().map(move |v| v / norm(f))).collect();
    close("features without norm, divided by theirs", &unit, want, 2e-5);
}

#[test]
fn features_statistics_and_every_gradient_are_pytorchs() {
    for (merge, name) in [(Merge::Direct, "direct"), (Merge::Cascade, "cascade")] {
        features_statistics_and_gradients("", name, Architecture::RESNET18, 1000, merge);
    }
}

#[test]
fn two_levels_on_five_channels_are_pytorchs() {
    features_statistics_and_gradients("two.", "two", TWO, 1002, Merge::Direct);
}

#[test]
fn a_resnet_34_is_pytorchs() {
    let architecture = Architecture::of(&RESNET34);
    features_statistics_and_gradients("resnet34.", "resnet34", architecture, 1000, Merge::Direct);
}

#[test]
fn a_resnet_50_is_pytorchs() {
    let architecture = Architecture::of(&RESNET50);
    features_statistics_and_gradients("resnet50.", "resnet50", architecture, 1000, Merge::Direct);
}

#[test]
fn ten_steps_of_training_lose_what_pytorch_loses() {
    let (golden, seed, b, k, side) = (golden("train"), 11, 4, 5, 16);
    let (dev, mut layout): (&mut dyn Engine, _) = (&mut Cpu::new(), Layout::new(Dtype::F32));
    let net = Network::plan(&mut layout, Architecture::RESNET18);
    let spec =
        ProgramSpec { n: 2 * b, h: 64, w: 64, groups: 2, k, merge: Merge::Direct, unit: true };
    let program = Program::plan(dev, &mut layout, &net, spec, Mode::Train).unwrap();
    fn take<T: Element>(layout: &mut Layout, name: &str, len: usize) -> Slot<T> {
        layout.take(Pool::State, name, len)
    }
    let losses = take::<f32>(&mut layout, "losses", 4 * b);
    let classifiers = [0; 2].map(|_| Classifier {
        w: take(&mut layout, "w", k * FEATURES),
        b: take(&mut layout, "b", k),
        k,
    });
    let labels = [0; 2].map(|_| take::<u16>(&mut layout, "labels", b * side * side));
    let weights = [0; 2].map(|_| take::<f32>(&mut layout, "weights", k));
    let index = take::<u32>(&mut layout, "index", 2 * b);
    let (adam, correction) = (AdamSpec::new(1e-3), take(&mut layout, "correction", 2));
    dev.reserve(&layout).unwrap();

    net.load(dev, &drawn(seed, Architecture::RESNET18)).unwrap();
    for block in [net.blocks.m, net.blocks.v] {
        dev.zero(block).unwrap();
    }
    dev.write_acts(program.x, &picture(seed, 1000, 2 * b * 64 * 64, Architecture::RESNET18))
        .unwrap();
    let bound = (3.0f64 / 128.0).sqrt() as f32;
    for j in 0..2 {
        let t = j as u32;
        dev.write(classifiers[j].w, &uniform(seed, 1001 + t, k * FEATURES, -bound, bound)).unwrap();
        dev.zero(classifiers[j].b).unwrap();
        let mut rng = Rng::new(seed, Stream::Other, 1003 + t, 0);
        let drawn: Vec<u16> = (0..labels[j].len).map(|_| rng.below(k) as u16).collect();
        dev.write(labels[j], &drawn).unwrap();
        dev.write(weights[j], &uniform(seed, 1005 + t, k, 0.25, 1.75)).unwrap();
    }
    dev.write(index, &[0, 1, 2, 3, 0, 1, 2, 3]).unwrap();
    let crop = |c: &[f32]| Crop {
        top: c[0] as u32,
        left: c[1] as u32,
        side: c[2] as u32,
        flip: c[3] as u32,
    };
    let crops =
        [vec![Crop::whole(side); b], golden["crops"].chunks(4).map(crop).collect()].concat();
    dev.write(program.crops, &crops).unwrap();

    let targets = [0, 1].map(|j| Target {
        classifier: classifiers[j],
        labels: labels[j],
        weights: weights[j],
        scale: 0.25,
    });
    let (dlaterals, input) = (program.dpyramid(), program.warped());
    let loss = HeadLoss { losses, dlaterals, input, targets: &targets, index, view: b };
    for (step, want) in golden["exact"].chunks(2).enumerate() {
        program.forward(dev, &net).unwrap();
        head_loss(dev, &program.head, loss).unwrap();
        net.zero_grad(dev).unwrap();
        program.backward(dev, &net).unwrap();
        dev.write(correction, &adam.correction(step as u64 + 1, 1.0)).unwrap();
        net.update(dev, adam, correction).unwrap();
        // Rows are images, columns classifiers; view i against labels i is within.
        let losses = dev.read(losses).unwrap();
        let (one, two) = losses.split_at(2 * b);
        let sum = |view: &[f32], j: usize| view.iter().skip(j).step_by(2).sum::<f32>();
        let got = [(sum(one, 0) + sum(two, 1)) / 2.0, (sum(one, 1) + sum(two, 0)) / 2.0];
        // PyTorch in f32 leaves PyTorch in f64 by 2e-5 within ten steps: Adam's first steps divide
        // small gradients by themselves.
        close(&format!("loss of step {step}"), &got, want, if step == 0 { 2e-6 } else { 5e-5 });
    }
}

/// The weights inside the binary against torchvision's network, on a drawn scene
/// (`golden/imagenet.py`).
#[test]
fn imagenet_weights_compute_what_torchvision_computes() {
    let golden = golden("imagenet");
    let scene = image::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/scene.png"))
        .unwrap()
        .to_rgb8();
    let (h, w) = (scene.height() as usize, scene.width() as usize);
    let normal = |c: usize, v: u8| {
        (f32::from(v) / 255.0 - [0.485, 0.456, 0.406][c]) / [0.229, 0.224, 0.225][c]
    };
    let x: Vec<f32> = scene
        .pixels()
        .flat_map(|p| [normal(0, p[0]), normal(1, p[1]), normal(2, p[2]), 0.0])
        .collect();
    let (dev, mut layout): (&mut dyn Engine, _) = (&mut Cpu::new(), Layout::new(Dtype::F32));
    let net = Network::plan(&mut layout, Architecture::RESNET18);
    let spec = ProgramSpec { n: 1, h, w, groups: 1, k: 1, merge: Merge::Direct, unit: true };
    let program = Program::plan(dev, &mut layout, &net, spec, Mode::Stages).unwrap();
    dev.reserve(&layout).unwrap();
    net.init(dev, 1).unwrap();
    let start = Source::Imagenet.open(Architecture::RESNET18).unwrap();
    net.load(dev, &start.weights.unwrap()).unwrap();
    net.fold(dev).unwrap();
    dev.write_acts(program.x, &x).unwrap();
    program.forward(dev, &net).unwrap();
    for (stage, every) in [64, 16, 4, 1].into_iter().enumerate() {
        let channels = 64 << stage;
        let map = dev.read_acts(program.stages[stage]).unwrap();
        let got: Vec<f32> = map.chunks(channels).step_by(every).flatten().copied().collect();
        // Twenty convolutions in f32, Winograd's among them, against f64.
        close(&format!("stage {}", stage + 2), &got, &golden[&format!("stage{}", stage + 2)], 2e-5);
    }
}
