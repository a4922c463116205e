//! Ten training steps of every method against PyTorch, and the same steps of the CUDA engine
//! against the CPU's. What is drawn: the head of `golden/methods.py`.

use picie::augment::Augment;
use picie::base::rng::{Rng, Stream};
use picie::data::{self, Classes, EvalStore, Fit, Load, PictureSet, Square};
use picie::device::cpu::Cpu;
use picie::device::cuda::{Cuda, Options};
use picie::device::{Dtype, Engine, Layout};
use picie::method::{self, Algorithm, Batch, FirstWeights, Learned, PseudoLabels, Training};
use picie::net::weights::{Tensor, Weights};
use picie::net::{Architecture, FEATURES, expected};
use picie::recipe::{ClassifierKind, Freeze, Information, Recipe};

use crate::net::drawn;
use crate::util::{close, error, golden, on_host, softgpu, uniform};

const SEED: u64 = 13;
const IMAGES: usize = 8;
const SIDE: usize = 64;
const IDS: [[u32; 4]; 2] = [[0, 1, 5, 2], [3, 7, 4, 6]];
/// The head that each step of IIC trains.
const ROUNDS: [usize; 10] = [0, 1, 0, 0, 1, 1, 0, 1, 0, 0];
/// Steps before the first, which left no moments.
const SKIPPED: u64 = 20;

fn draws(t: usize) -> Rng {
    Rng::new(SEED, Stream::Other, t as u32, 0)
}

fn labels(t: usize, len: usize, k: usize) -> Vec<u16> {
    let mut rng = draws(t);
    (0..len).map(|_| rng.below(k) as u16).collect()
}

/// Pictures and label maps, by way of files.
fn pictures() -> PictureSet {
    let dir = tempfile::tempdir().unwrap();
    let (imgs, gt) = (dir.path().join("imgs"), dir.path().join("gt"));
    [&imgs, &gt].into_iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
    let save = |path, bytes: &[u8], colour| {
        image::save_buffer(path, bytes, SIDE as u32, SIDE as u32, colour).unwrap()
    };
    for i in 0..IMAGES {
        let (name, mut rng) = (format!("{i}.png"), draws(3000 + i));
        let pixels: Vec<u8> =
            (0..SIDE * SIDE * 3 / 4).flat_map(|_| rng.u32().to_le_bytes()).collect();
        save(imgs.join(&name), &pixels, image::ColorType::Rgb8);
        let map = labels(2200 + i, SIDE * SIDE, 8)
            .into_iter()
            .map(|class| if class > 5 { 255 } else { class as u8 });
        save(gt.join(&name), &map.collect::<Vec<_>>(), image::ColorType::L8);
    }
    let set = data::open(dir.path(), None, "train", Classes(6), &|_, _| ()).unwrap();
    let load = Load {
        square: Square::new(SIDE, Fit::Crop),
        budget: u64::MAX,
        cache: dir.path(),
        keep: None,
        exif: true,
        strict: true,
        on_progress: &|_, _| (),
    };
    PictureSet::Labelled(EvalStore::load(&set, &load).unwrap())
}

fn recipe(case: &str) -> Recipe {
    let information = |main, auxiliary, collapsed| Information {
        lambda: main,
        lambda_auxiliary: auxiliary,
        shifts: 3,
        collapsed,
    };
    let recipe = match case {
        "picie" => Recipe::picie(),
        "picie-h" => Recipe::picie_h(),
        "mdc" => Recipe::mdc(),
        "mdc-centroids" => {
            Recipe { classifier: ClassifierKind::Centroids, ..Recipe::mdc_released() }
        }
        "iic" => Recipe { information: information(1.0, 1.0, false), ..Recipe::iic() },
        "iic-collapsed" => Recipe { information: information(1.5, 1.2, true), ..Recipe::iic() },
        "iic-res12" => Recipe {
            architecture: Architecture { levels: 2, sobel: true, ..Architecture::RESNET18 },
            information: information(1.5, 1.0, false),
            ..Recipe::iic_res12()
        },
        "supervised" => Recipe::supervised(),
        "transfer" => Recipe { freeze: Freeze::Backbone, ..Recipe::transfer() },
        other => panic!("{other}"),
    };
    let recipe = Recipe {
        size: SIDE,
        stored: SIDE,
        batch: 4,
        batch_cluster: 8,
        clusters: if case == "supervised" || case == "transfer" { 6 } else { 5 },
        auxiliary: if recipe.auxiliary > 0 { 8 } else { 0 },
        lr: 1e-3,
        // Every picture is mirrored.
        augment: Augment { flip_p: 1.0, ..Augment::none() },
        ..recipe
    };
    recipe.check().unwrap();
    recipe
}

/// Weights of the network; running statistics of `transfer` alone matter.
fn network(case: &str, architecture: Architecture) -> Weights {
    let mut weights = drawn(SEED, architecture);
    let running = expected(architecture)
        .into_iter()
        .filter(|(name, _)| name.contains("running") && case == "transfer");
    for (i, (name, shape)) in running.enumerate() {
        let (lo, hi) = if name.ends_with("mean") { (-0.5, 0.5) } else { (1.0, 3.0) };
        let values = uniform(SEED, 2100 + i as u32, shape[0], lo, hi);
        weights.tensors.insert(name, Tensor::from_f32(shape, values));
    }
    weights
}

/// Weights of a learned classifier, moments of 0.
fn classifier(case: &str, name: &str, k: usize) -> Weights {
    let bound = if case.starts_with("iic") { 0.3 } else { 0.1 };
    let t = if name == "auxiliary" { 2001 } else { 2000 };
    let bias =
        if case.starts_with("iic") { vec![0.0; k] } else { uniform(SEED, 2002, k, -0.1, 0.1) };
    let mut weights = Weights::default();
    let mut insert = |name, values: Vec<f32>| {
        weights.tensors.insert(name, Tensor::from_f32(vec![values.len()], values))
    };
    insert(format!("{name}.weight"), uniform(SEED, t, k * FEATURES, -bound, bound));
    insert(format!("{name}.bias"), bias);
    for moment in ["m", "v"] {
        insert(format!("adam.{moment}.{name}.weight"), vec![0.0; k * FEATURES]);
        insert(format!("adam.{moment}.{name}.bias"), vec![0.0; k]);
    }
    weights
}

/// Centroids, labels and counts of one view and number of clusters.
fn cluster(dev: &mut dyn Engine, pseudo: &PseudoLabels, view: usize, which: usize) {
    let (k, t) = (pseudo.counts.len, 2 * view + which);
    dev.write(pseudo.scorer.centroids, &uniform(SEED, 2010 + t as u32, k * FEATURES, -0.5, 0.5))
        .unwrap();
    let labels = labels(2020 + t, pseudo.labels.len, k);
    let mut counts = vec![0; k];
    labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
    dev.write(pseudo.labels, &labels).unwrap();
    dev.write(pseudo.counts, &counts).unwrap();
}

fn batch(method: &dyn Algorithm, i: usize) -> Batch<'static> {
    let round = if method.rounds() > 1 { ROUNDS[i] } else { 0 };
    Batch { ids: &IDS[i % 2], epoch: 1, round, before: i, step: SKIPPED + 1 + i as u64, rate: 1.0 }
}

/// A step that none follows.
fn alone(method: &dyn Algorithm, i: usize) -> Training<'static> {
    Training { batch: batch(method, i), next: None }
}

/// A method in the state that the goldens begin with.
fn begin(dev: &mut dyn Engine, case: &str, set: &PictureSet) -> Box<dyn Algorithm> {
    let (recipe, mut layout) = (recipe(case), Layout::new(dev.dtype()));
    let mut method = method::plan(dev, &mut layout, &recipe, 1, IMAGES).unwrap();
    method.common_mut().place_images(dev, &mut layout).unwrap();
    dev.reserve(&layout).unwrap();
    method.common_mut().load_images(dev, set.images()).unwrap();
    method.init(dev).unwrap();
    method.common().net.load(dev, &network(case, recipe.architecture)).unwrap();
    for (name, learned) in method.learned() {
        learned.load(dev, name, &classifier(case, name, learned.k)).unwrap();
    }
    for (view, pseudo) in method.clustering().iter().flat_map(|c| c.pseudo()).enumerate() {
        pseudo.iter().enumerate().for_each(|(which, pseudo)| cluster(dev, pseudo, view, which));
    }
    method.begin_steps(dev, 1, false).unwrap();
    method
}

/// What each step lost: the parts that the goldens have.
fn losses(dev: &mut dyn Engine, case: &str, steps: usize) -> Vec<f32> {
    let set = pictures();
    let mut method = begin(dev, case, &set);
    let mut losses = Vec::new();
    for i in 0..steps {
        let next = (i + 1 < steps).then(|| batch(&*method, i + 1));
        let training = Training { batch: batch(&*method, i), next };
        let lost = method.step(dev, &set, training).unwrap();
        if case.starts_with("picie") {
            losses.extend(lost.parts.iter().map(|part| part.1 as f32));
        } else {
            losses.push(lost.total as f32);
        }
    }
    losses
}

fn against_pytorch(case: &str) {
    let golden = golden("methods");
    let (exact, single) = (&golden[&format!("{case}.exact")], &golden[&format!("{case}.losses")]);
    let got = losses(&mut Cpu::new(), case, 10);
    let parts = exact.len() / 10;
    let mut noise = 0.0f32;
    for (step, ((got, exact), single)) in
        got.chunks(parts).zip(exact.chunks(parts)).zip(single.chunks(parts)).enumerate()
    {
        // What PyTorch itself loses in f32 so far: Adam's first steps make much of small gradients,
        // whose signs rounding decides. Another order of its sums is another draw of that: with two
        // threads instead of one its sixth step is 12 times as far off.
        noise = noise.max(error(single, exact));
        let tol = 15.0 * noise + if step == 0 { 2e-6 } else { 1e-5 };
        close(&format!("{case}, loss of step {}", step + 1), got, exact, tol);
    }
}

#[test]
fn picie_with_and_without_auxiliary_clusters_loses_what_pytorch_loses() {
    ["picie", "picie-h"].into_iter().for_each(against_pytorch);
}

#[test]
fn mdc_with_a_layer_or_with_centroids_loses_what_pytorch_loses() {
    ["mdc", "mdc-centroids"].into_iter().for_each(against_pytorch);
}

#[test]
fn iic_and_iic_res12_lose_what_pytorch_loses() {
    ["iic", "iic-collapsed", "iic-res12"].into_iter().for_each(against_pytorch);
}

#[test]
fn supervised_training_and_the_linear_probe_lose_what_pytorch_loses() {
    ["supervised", "transfer"].into_iter().for_each(against_pytorch);
}

/// No op of a linear probe's step writes a weight, a statistic, a gradient or a moment of the
/// network.
#[test]
fn a_frozen_network_has_no_gradient_and_stays_the_same_bits() {
    let set = pictures();
    let dev: &mut dyn Engine = &mut Cpu::new();
    let mut method = begin(dev, "transfer", &set);
    let blocks = method.common().net.blocks;
    for block in [blocks.grads, blocks.m, blocks.v] {
        dev.write(block, &vec![0.5; block.len]).unwrap();
    }
    let everything = |dev: &mut dyn Engine, method: &dyn Algorithm| {
        let net = &method.common().net;
        let blocks = [blocks.weights, blocks.grads, blocks.m, blocks.v]
            .map(|block| dev.read(block).unwrap());
        let bits = |values: &Vec<f32>| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        blocks.iter().chain(&net.running(dev).unwrap()).map(bits).collect::<Vec<_>>()
    };
    let before = everything(dev, &*method);
    let probe = |dev: &mut dyn Engine, method: &dyn Algorithm| {
        dev.read(method.learned()[0].1.classifier().w).unwrap()
    };
    let first = probe(dev, &*method);
    for i in 0..3 {
        method.step(dev, &set, alone(&*method, i)).unwrap();
    }
    assert!(everything(dev, &*method) == before);
    // The layer on top has learned meanwhile.
    assert!(error(&probe(dev, &*method), &first) > 1e-3);
}

/// The classifier of MDC that an epoch begins with.
#[test]
fn mdc_s_layer_starts_anew_in_each_epoch() {
    let set = pictures();
    let dev: &mut dyn Engine = &mut Cpu::new();
    let mut method = begin(dev, "mdc", &set);
    let read = |dev: &mut dyn Engine, method: &dyn Algorithm| {
        let classifier = method.learned()[0].1.classifier();
        (dev.read(classifier.w).unwrap(), dev.read(classifier.b).unwrap())
    };
    let weights = on_host(dev, &method.common().net.saved());
    // The first step of epoch 2, on the network as it was: with moments of epoch 1 left behind, or
    // with none.
    let [after, fresh] = [3, 0].map(|steps| {
        method.begin_steps(dev, 1, true).unwrap();
        for i in 0..steps {
            method.step(dev, &set, alone(&*method, i)).unwrap();
        }
        let moved = read(dev, &*method);
        method.begin_steps(dev, 1, false).unwrap();
        assert!(read(dev, &*method) == moved, "a checkpoint's layer goes on");
        method.common().net.load(dev, &weights).unwrap();
        method.begin_steps(dev, 2, true).unwrap();
        let reset = read(dev, &*method);
        assert!(reset.0 != moved.0);
        method.step(dev, &set, alone(&*method, 0)).unwrap();
        (reset, read(dev, &*method))
    });
    assert!(after == fresh);
    assert!(after.0 != after.1 && after.0.1.iter().all(|&b| b == 0.0));
    // Adam's first step is one of the learning rate in each direction, less where gradients are as
    // small as its ε.
    let step: Vec<f32> =
        after.1.0.iter().zip(&after.0.0).map(|(new, old)| (new - old).abs() / 1e-3).collect();
    let mean = step.iter().sum::<f32>() / step.len() as f32;
    assert!(mean > 0.99 && step.iter().all(|&s| s < 1.001), "{mean} {step:?}");
}

#[test]
fn a_new_layer_is_normal_and_other_in_other_epochs() {
    let dev: &mut dyn Engine = &mut Cpu::new();
    let (mut layout, k) = (Layout::new(dev.dtype()), 27);
    let learned = Learned::plan(&mut layout, k, true);
    dev.reserve(&layout).unwrap();
    let [first, second] = [1, 2].map(|epoch| {
        learned.init(dev, 5, FirstWeights::Normal(0.01), epoch).unwrap();
        let classifier = learned.classifier();
        assert!(dev.read(classifier.b).unwrap().iter().all(|&b| b == 0.0));
        dev.read(classifier.w).unwrap()
    });
    let n = first.len() as f64;
    let moment =
        |w: &[f32], power| w.iter().map(|&v| (f64::from(v) / 0.01).powi(power)).sum::<f64>() / n;
    for w in [&first, &second] {
        // Four standard errors, of the mean (1/√n) and of the mean square (√(2/n)).
        assert!(
            moment(w, 1).abs() <= 4.0 / n.sqrt()
                && (moment(w, 2) - 1.0).abs() <= 4.0 * (2.0 / n).sqrt()
        );
    }
    // Nor are the two epochs' layers alike.
    let products: Vec<f32> = first.iter().zip(&second).map(|(a, b)| 100.0 * a * b).collect();
    assert!(moment(&products, 1).abs() <= 4.0 / n.sqrt());
}

/// The CUDA engine's losses against the CPU's: of the first step, and of all.
fn on_the_gpu(dtype: Dtype, case: &str, want: &[f32], steps: usize, (first, all): (f32, f32)) {
    let got = losses(&mut Cuda::new(Options::default(), dtype).unwrap(), case, steps);
    let parts = got.len() / steps;
    let name = |what: &str| format!("{case} in {}, {what}", dtype.name());
    close(&name("first loss"), &got[..parts], &want[..parts], first);
    close(&name("all losses"), &got, &want[..got.len()], all);
}

/// Two steps, in f32 a third one, which is replayed where steps are recorded. `noise`: how many
/// times as much as of other losses roundings of activations make of the first one.
fn against_the_cpu(case: &str, noise: f32) {
    if !softgpu::load() {
        return;
    }
    let want = losses(&mut Cpu::new(), case, 3);
    on_the_gpu(Dtype::F32, case, &want, 3, (1e-5, 1e-2));
    on_the_gpu(Dtype::Bf16, case, &want, 2, (noise * 2e-2, noise * 5e-2));
    on_the_gpu(Dtype::F16, case, &want, 2, (noise * 5e-3, noise * 2e-2));
}

#[test]
fn picie_h_s_steps_on_the_gpu_are_the_cpu_s() {
    against_the_cpu("picie-h", 1.0);
}

#[test]
fn mdc_s_steps_on_the_gpu_are_the_cpu_s() {
    ["mdc", "mdc-centroids"].into_iter().for_each(|case| against_the_cpu(case, 1.0));
}

#[test]
fn iic_s_steps_on_the_gpu_are_the_cpu_s() {
    // The mutual information of a new network's maps is 0.01 and less, a small difference of
    // entropies; collapsed maps have more.
    [("iic", 3.0), ("iic-collapsed", 1.0), ("iic-res12", 3.0)]
        .into_iter()
        .for_each(|(case, noise)| against_the_cpu(case, noise));
}

#[test]
fn supervised_steps_on_the_gpu_are_the_cpu_s() {
    ["supervised", "transfer"].into_iter().for_each(|case| against_the_cpu(case, 1.0));
}
