//! Training steps of the whole network: the CPU engine's losses and weights, recorded or not,
//! images resident or not.

use picie::augment::Augment;
use picie::data::{ImageStore, PictureSet};
use picie::device::cpu::Cpu;
use picie::device::cuda::{Autotune, Cuda, Options};
use picie::device::ops::{AdamSync, adam_sync};
use picie::device::{Dtype, Engine, Layout};
use picie::method::{self, Algorithm, Batch, Losses, PcaLaterals, Training, ViewPass};
use picie::net::FEATURES;
use picie::net::weights::{Source, Weights};
use picie::recipe::{KMeansStart, Laterals, NormMode, Recipe};

use crate::util::{close, on_host, signed, softgpu};

const IMAGES: usize = 8;

fn recipe() -> Recipe {
    Recipe {
        size: 64,
        stored: 64,
        batch: 4,
        batch_cluster: 8,
        clusters: 3,
        init_batches: 1,
        ..Recipe::picie_released()
    }
}

struct Trained {
    losses: Vec<Losses>,
    weights: Vec<f32>,
    /// Of each view, with how often each occurs.
    labels: [(Vec<u16>, Vec<u32>); 2],
}

/// Labels from given centroids, then four steps on them, or on `labels`: the third and fourth are
/// replayed where steps are recorded. `ahead`: each step is told of the next. `resident`: images
/// are on the device, else they come batch by batch.
fn steps(
    dev: &mut dyn Engine,
    labels: Option<&[(Vec<u16>, Vec<u32>); 2]>,
    (ahead, resident): (bool, bool),
) -> Trained {
    let set = PictureSet::Plain(ImageStore::noise(IMAGES, 64, 3));
    let mut layout = Layout::new(dev.dtype());
    let mut picie = method::plan(dev, &mut layout, &recipe(), 1, IMAGES).unwrap();
    if resident {
        picie.common_mut().place_images(dev, &mut layout).unwrap();
    } else {
        picie.common_mut().feeder.place_batches(dev, &mut layout);
    }
    dev.reserve(&layout).unwrap();
    picie.common_mut().load_images(dev, set.images()).unwrap();
    picie.init(dev).unwrap();
    let (common, clustering) = picie.clustering_mut().unwrap();
    let pseudo = [0, 1].map(|view| clustering.pseudo()[view][0]);
    for (view, pseudo) in pseudo.iter().enumerate() {
        let centroids = pseudo.scorer.centroids;
        dev.write(centroids, &signed(view as u64, centroids.len)).unwrap();
        clustering
            .label(common, dev, set.images(), ViewPass { epoch: 1, view }, &mut |_| Ok(()))
            .unwrap();
    }
    let found = pseudo.map(|p| (dev.read(p.labels).unwrap(), dev.read(p.counts).unwrap()));
    for (pseudo, (labels, counts)) in pseudo.iter().zip(labels.into_iter().flatten()) {
        dev.write(pseudo.labels, labels).unwrap();
        dev.write(pseudo.counts, counts).unwrap();
    }
    picie.begin_steps(dev, 1, true).unwrap();
    let batch = |step: u64| {
        let ids = &[[0, 1, 5, 2], [3, 7, 4, 6]][step as usize % 2];
        Batch { ids, epoch: 1, round: 0, before: step as usize - 1, step, rate: 1.0 }
    };
    let next = |step| (ahead && step < 4).then(|| batch(step + 1));
    let training = |step| Training { batch: batch(step), next: next(step) };
    let losses = (1..=4).map(|step| picie.step(dev, &set, training(step)).unwrap()).collect();
    Trained { losses, weights: dev.read(picie.common().net.blocks.weights).unwrap(), labels: found }
}

fn cuda(options: Options, resident: bool, like: &Trained) -> Trained {
    let ahead = !options.no_graph;
    let dev = &mut Cuda::new(options, Dtype::F32).unwrap();
    steps(dev, Some(&like.labels), (ahead, resident))
}

/// The same bits come from the same engines of cuDNN, each of which repeats itself.
fn reproducible(no_graph: bool) -> Options {
    Options { no_graph, deterministic: true, autotune: Autotune::Off, ..Options::default() }
}

#[test]
fn steps_follow_the_cpu_s_and_recorded_ones_are_the_same_bits() {
    if !softgpu::load() {
        return;
    }
    let want = steps(&mut Cpu::new(), None, (false, false));
    // As a run has it: which engine is the fastest, and in which order it sums, may be another
    // matter the next time.
    let got = cuda(Options::default(), true, &want);
    for (want, got) in want.labels.iter().zip(&got.labels) {
        let differ = want.0.iter().zip(&got.0).filter(|(a, b)| a != b).count();
        // Where two centroids are equally near within f32 rounding.
        assert!(differ * 100 <= want.0.len(), "{differ} labels differ");
    }
    let flat = |t: &Trained| {
        t.losses.iter().flat_map(|l| l.parts.iter().map(|part| part.1 as f32)).collect::<Vec<_>>()
    };
    // The first loss is a forward's (with fewer rows than eight a group, norms at the top divide by
    // next to nothing); the later ones have Adam's signs of small gradients in them.
    close("first losses", &flat(&got)[..2], &flat(&want)[..2], 1e-5);
    close("losses", &flat(&got), &flat(&want), 1e-2);
    close("weights", &got.weights, &want.weights, 1e-3);
    let recorded = cuda(reproducible(false), true, &want);
    for (what, no_graph, resident) in
        [("that is not recorded", true, true), ("whose images come as it runs", false, false)]
    {
        let other = cuda(reproducible(no_graph), resident, &want);
        assert!(
            other.losses == recorded.losses && other.weights == recorded.weights,
            "a step {what} is another step"
        );
    }
}

/// Laterals from the principal components of ImageNet's stages, and then centroids: of several
/// starts, and from there on. Returns the weights, and of two epochs the objectives and centroids.
fn start(dev: &mut dyn Engine) -> (Weights, [(f32, Vec<f32>); 2]) {
    let recipe = Recipe {
        laterals: Laterals::Pca,
        kmeans_restarts: 2,
        kmeans_iters: 2,
        kmeans_start: KMeansStart::Last,
        kmeans_norm: NormMode::Running,
        // The last stage has 32 pixels here, so half of its components are any: only pictures that
        // they are of lie apart from those.
        augment: Augment::none(),
        ..recipe()
    };
    let (set, mut layout) = (ImageStore::noise(IMAGES, 64, 3), Layout::new(dev.dtype()));
    let mut picie = method::plan(dev, &mut layout, &recipe, 1, IMAGES).unwrap();
    let laterals =
        PcaLaterals::plan(dev, &mut layout, &picie.common().net, &recipe, IMAGES).unwrap();
    picie.common_mut().place_images(dev, &mut layout).unwrap();
    dev.reserve(&layout).unwrap();
    picie.common_mut().load_images(dev, &set).unwrap();
    picie.init(dev).unwrap();
    let imagenet = Source::Imagenet.open(recipe.architecture).unwrap();
    picie.common().net.load(dev, &imagenet.weights.unwrap()).unwrap();
    laterals.fit(dev, picie.common_mut(), &set, &mut |_| Ok(())).unwrap();
    let (common, clustering) = picie.clustering_mut().unwrap();
    let centroids = [1, 2].map(|epoch| {
        let summary = clustering
            .kmeans(common, dev, &set, ViewPass { epoch, view: 0 }, &mut |_| Ok(()))
            .unwrap();
        (summary.objective as f32, dev.read(clustering.pseudo()[0][0].scorer.centroids).unwrap())
    });
    (on_host(dev, &common.net.saved()), centroids)
}

#[test]
fn laterals_and_clusters_begin_as_on_the_cpu() {
    if !softgpu::load() {
        return;
    }
    let (want, want_centroids) = start(&mut Cpu::new());
    let (got, got_centroids) = start(&mut Cuda::new(Options::default(), Dtype::F32).unwrap());
    for level in 2..=5 {
        let [want, got] =
            [&want, &got].map(|w| w.tensors[&format!("fpn.lateral{level}.weight")].f32().unwrap());
        assert_eq!(want.iter().any(|&w| w != 0.0), level >= 4, "level {level}");
        // The first component: those after it may lie close together, where rounding turns them.
        let (half, channels) = (FEATURES / 2, want.len() / FEATURES);
        let first = if level == 5 { half * channels } else { 0 };
        let [want, got] = [want, got].map(|w| &w[first..][..channels]);
        close(&format!("the first row of level {level}"), got, want, 1e-3);
    }
    // Centroids turn as the components do; distances stay.
    let objectives = |epochs: &[(f32, Vec<f32>); 2]| epochs.each_ref().map(|epoch| epoch.0);
    close(
        "objectives of two epochs",
        &objectives(&got_centroids),
        &objectives(&want_centroids),
        1e-2,
    );
    // The second epoch went on from the first, on either engine.
    for [(_, first), (_, second)] in [&want_centroids, &got_centroids] {
        let moved = first.iter().zip(second).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(moved <= 0.2, "{moved}");
    }
}

#[test]
fn a_weight_that_is_nan_makes_the_loss_of_the_same_step_nan() {
    if !softgpu::load() {
        return;
    }
    let dev: &mut dyn Engine = &mut Cuda::new(Options::default(), Dtype::Bf16).unwrap();
    let set = PictureSet::Plain(ImageStore::noise(IMAGES, 64, 3));
    let mut layout = Layout::new(dev.dtype());
    let mut picie = method::plan(dev, &mut layout, &recipe(), 1, IMAGES).unwrap();
    picie.common_mut().place_images(dev, &mut layout).unwrap();
    dev.reserve(&layout).unwrap();
    picie.common_mut().load_images(dev, set.images()).unwrap();
    picie.init(dev).unwrap();
    let (common, clustering) = picie.clustering_mut().unwrap();
    for view in 0..2 {
        let pseudo = clustering.pseudo()[view][0];
        let centroids = pseudo.scorer.centroids;
        dev.write(centroids, &signed(view as u64, centroids.len)).unwrap();
        clustering
            .label(common, dev, set.images(), ViewPass { epoch: 1, view }, &mut |_| Ok(()))
            .unwrap();
    }
    picie.begin_steps(dev, 1, true).unwrap();
    let blocks = picie.common().net.blocks;
    let whole = dev.read(blocks.weights).unwrap();
    for (step, at) in [0, whole.len() / 50, whole.len() / 2].into_iter().enumerate() {
        let mut broken = whole.clone();
        broken[at] = f32::NAN;
        dev.write(blocks.weights, &broken).unwrap();
        adam_sync(dev, AdamSync { blocks }).unwrap();
        let batch = Batch {
            ids: &[0, 1, 5, 2],
            epoch: 1,
            round: 0,
            before: step,
            step: step as u64 + 1,
            rate: 1.0,
        };
        let loss = picie.step(dev, &set, Training { batch, next: None }).unwrap().total;
        assert!(loss.is_nan(), "weight {at} of {} is NaN, and the loss is {loss}", whole.len());
    }
}

/// The labels and weights after two epochs in bf16: k-means, labels, two steps. `keeps`: views are
/// rendered once an epoch, and kept. `forgets`: before which phases of the second epoch they are
/// lost, as when a run is resumed there.
fn epochs(keeps: bool, forgets: &[&str]) -> (Vec<Vec<u16>>, Vec<f32>) {
    let dev: &mut dyn Engine = &mut Cuda::new(reproducible(false), Dtype::Bf16).unwrap();
    let (set, recipe) = (PictureSet::Plain(ImageStore::noise(IMAGES, 48, 3)), recipe());
    let recipe = Recipe { size: 32, stored: 48, batch_cluster: 4, ..recipe };
    let mut layout = Layout::new(dev.dtype());
    let mut picie = method::plan(dev, &mut layout, &recipe, 1, IMAGES).unwrap();
    if keeps {
        picie.common_mut().place_images(dev, &mut layout).unwrap();
    } else {
        picie.common_mut().feeder.place_batches(dev, &mut layout);
    }
    assert_eq!(layout.to_string().contains("view 2"), keeps, "{layout}");
    dev.reserve(&layout).unwrap();
    picie.common_mut().load_images(dev, set.images()).unwrap();
    picie.init(dev).unwrap();
    for epoch in 1..=2 {
        let forget = |picie: &mut dyn Algorithm, phase| {
            if epoch == 2 && forgets.contains(&phase) {
                picie.common_mut().feeder.draw_from(recipe.augment, 1);
            }
        };
        let (common, clustering) = picie.clustering_mut().unwrap();
        for view in 0..2 {
            let pass = ViewPass { epoch, view };
            clustering.kmeans(common, dev, set.images(), pass, &mut |_| Ok(())).unwrap();
        }
        forget(&mut *picie, "labels");
        let (common, clustering) = picie.clustering_mut().unwrap();
        for view in 0..2 {
            let pass = ViewPass { epoch, view };
            clustering.label(common, dev, set.images(), pass, &mut |_| Ok(())).unwrap();
        }
        forget(&mut *picie, "train");
        picie.begin_steps(dev, epoch, true).unwrap();
        for before in 0..2 {
            let ids = [&[0, 1, 5, 2], &[3, 7, 4, 6]];
            let batch = |before: usize| {
                let step = (2 * epoch - 1 + before) as u64;
                Batch { ids: ids[before], epoch, round: 0, before, step, rate: 1.0 }
            };
            let next = (before == 0).then(|| batch(1));
            picie.step(dev, &set, Training { batch: batch(before), next }).unwrap();
        }
    }
    let labels = picie.clustering().unwrap().pseudo().iter().map(|view| view[0].labels);
    let labels = labels.map(|labels| dev.read(labels).unwrap()).collect();
    (labels, dev.read(picie.common().net.blocks.weights).unwrap())
}

#[test]
fn views_that_were_kept_are_those_that_are_rendered_again() {
    if !softgpu::load() {
        return;
    }
    let rendered = epochs(false, &[]);
    for forgets in [&[][..], &["labels"], &["train"]] {
        assert!(epochs(true, forgets) == rendered, "kept, and lost before {forgets:?}");
    }
}
