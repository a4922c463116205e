//! PiCIE's passes against the same algorithm written down on the host, point by point.

mod reference;

use picie::augment::{Feeder, FeederSpec, View};
use picie::base::rng::{Rng, Stream};
use picie::data::{self, Classes, Fit, ImageStore, Load, PictureSet, Square};
use picie::device::cpu::Cpu;
use picie::device::ops::{AdamSync, HeadFeatures, Metric, adam_sync, head_features};
use picie::device::{Act, Engine, Layout, Pool, Slot};
use picie::method::{self, Algorithm, Batch, PseudoLabels, Training, ViewPass};
use picie::net::{FEATURES, Mode, Program, ProgramSpec};
use picie::recipe::{KMeansStart, NormMode, Recipe};

use crate::util::close;
use reference::{Begin, cross_entropy, nearest, reference};

const IMAGES: usize = 7;
const EPOCH: usize = 3;
const SEED: u64 = 5;

/// Noise over a few colours, by way of files.
fn images(side: usize) -> PictureSet {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(9, Stream::Other, 0, 0);
    for i in 0..IMAGES {
        let base = rng.below(200) as u8;
        let pixels =
            (0..side * side * 3).map(|_| base.saturating_add(rng.below(60) as u8)).collect();
        image::RgbImage::from_raw(side as u32, side as u32, pixels)
            .unwrap()
            .save(dir.path().join(format!("{i}.png")))
            .unwrap();
    }
    let set = data::open(dir.path(), None, "train", Classes::default(), &|_, _| ()).unwrap();
    let load = Load {
        square: Square::new(side, Fit::Crop),
        budget: u64::MAX,
        cache: dir.path(),
        keep: None,
        exif: true,
        strict: true,
        on_progress: &|_, _| (),
    };
    PictureSet::Plain(ImageStore::load(&set, &load).unwrap())
}

/// Batches of 3 over 7 images leave one of 1, so a full and a last batch differ.
fn recipe(update_every: usize) -> Recipe {
    Recipe {
        size: 32,
        stored: 48,
        batch: 3,
        batch_cluster: 3,
        clusters: 4,
        init_batches: 1,
        update_every,
        kmeans_iters: 3,
        kmeans_norm: NormMode::Running,
        label_metric: Metric::L2,
        ..Recipe::picie()
    }
}

struct Rig {
    dev: Box<dyn Engine>,
    picie: Box<dyn Algorithm>,
    set: PictureSet,
    feeder: Feeder,
    program: Program,
    features: Slot<Act>,
}

impl Rig {
    fn new(recipe: Recipe) -> Self {
        let mut dev: Box<dyn Engine> = Box::new(Cpu::new());
        let mut layout = Layout::new(dev.dtype());
        let mut picie = method::plan(&mut *dev, &mut layout, &recipe, SEED, IMAGES).unwrap();
        let shape = program(&recipe, 1, 1);
        let net = &picie.common().net;
        let program = Program::plan(&mut *dev, &mut layout, net, shape, Mode::Eval).unwrap();
        let feeder = feeder(&mut *dev, &mut layout, &recipe, &[1]);
        let features = layout.acts(Pool::State, "features", 64 * FEATURES);
        picie.common_mut().place_images(&mut *dev, &mut layout).unwrap();
        dev.reserve(&layout).unwrap();
        picie.init(&mut *dev).unwrap();
        Rig { dev, picie, set: images(recipe.stored), feeder, program, features }
    }

    /// F̂ (64, FEATURES) of one view of one image.
    fn features(&mut self, image: u32, view: View) -> Vec<[f64; FEATURES]> {
        let Rig { dev, picie, set, feeder, program, features } = self;
        let (dev, net) = (&mut **dev, &picie.common().net);
        net.fold(dev).unwrap();
        feeder.stage(dev, set.images(), &[image], EPOCH, &[view]).unwrap();
        feeder.render(dev, program.x, 1, 0, view).unwrap();
        dev.write(program.crops, &feeder.feature_crops(&[image], EPOCH, view, 8)).unwrap();
        program.forward(dev, net).unwrap();
        let (features, input) = (*features, program.warped());
        head_features(dev, &program.head, HeadFeatures { features, input }).unwrap();
        let flat = dev.read_acts(features).unwrap();
        flat.chunks(FEATURES).map(|f| std::array::from_fn(|j| f64::from(f[j]))).collect()
    }
}

/// `n` images in `groups` groups of batch norm.
fn program(recipe: &Recipe, n: usize, groups: usize) -> ProgramSpec {
    let (h, w, k, merge) = (recipe.size, recipe.size, recipe.clusters, recipe.merge);
    ProgramSpec { n, h, w, groups, k, merge, unit: true }
}

fn feeder(dev: &mut dyn Engine, layout: &mut Layout, recipe: &Recipe, batches: &[usize]) -> Feeder {
    let Recipe { augment, stored, size, .. } = *recipe;
    let repeated = &[];
    let spec = FeederSpec { augment, seed: SEED, stored, size, channels: 4, batches, repeated };
    let mut feeder = Feeder::plan(dev, layout, spec).unwrap();
    feeder.place_batches(dev, layout);
    feeder
}

/// The images of every step.
const IDS: [u32; 3] = [4, 0, 2];

fn batch(step: u64) -> Training<'static> {
    let batch = Batch { ids: &IDS, epoch: EPOCH, round: 0, before: 0, step, rate: 1.0 };
    Training { batch, next: None }
}

/// k-means and labels of both views, and what steps need of them.
fn cluster(picie: &mut dyn Algorithm, dev: &mut dyn Engine, set: &PictureSet) -> [PseudoLabels; 2] {
    let (common, clustering) = picie.clustering_mut().unwrap();
    for view in 0..2 {
        clustering
            .kmeans(common, dev, set.images(), ViewPass { epoch: EPOCH, view }, &mut |_| Ok(()))
            .unwrap();
        clustering
            .label(common, dev, set.images(), ViewPass { epoch: EPOCH, view }, &mut |_| Ok(()))
            .unwrap();
    }
    let pseudo = [0, 1].map(|view| clustering.pseudo()[view][0]);
    picie.begin_steps(dev, EPOCH, true).unwrap();
    pseudo
}

#[test]
fn kmeans_and_labels_are_the_reference_s() {
    // Batches between updates, view, random starts, and whether the pass begins at the last epoch's
    // centroids.
    for (every, view, restarts, warm) in
        [(1, 0, 1, false), (1, 1, 1, false), (2, 0, 1, false), (1, 0, 5, false), (1, 1, 5, true)]
    {
        let start = if warm { KMeansStart::Last } else { KMeansStart::Fresh };
        let mut rig =
            Rig::new(Recipe { kmeans_restarts: restarts, kmeans_start: start, ..recipe(every) });
        let which = [View::First, View::Second][view];
        let order = rig.picie.common().order(Stream::ClusterOrder, EPOCH, 0);
        let batches: Vec<_> = order
            .chunks(3)
            .map(|ids| ids.iter().flat_map(|&id| rig.features(id, which)).collect::<Vec<_>>())
            .collect();
        let begin = if warm {
            // Points far from those that the draw would choose, in the place of an epoch before.
            let centroids: Vec<_> = [3, 70, 100, 190].map(|i| batches[0][i]).to_vec();
            let flat: Vec<f32> = centroids.iter().flatten().map(|&v| v as f32).collect();
            let slot = rig.picie.clustering().unwrap().pseudo()[view][0].scorer.centroids;
            rig.dev.write(slot, &flat).unwrap();
            Begin::At(centroids)
        } else {
            Begin::Drawn(restarts, Rng::new(SEED, Stream::KMeansInit, EPOCH as u32, view as u32))
        };
        let (want, objective) = reference(&batches, 4, 3, every, begin);

        let Rig { dev, picie, set, .. } = &mut rig;
        let dev = &mut **dev;
        let mut seen = 0;
        let (common, clustering) = picie.clustering_mut().unwrap();
        let pseudo = clustering.pseudo()[view][0];
        let summary = clustering
            .kmeans(common, dev, set.images(), ViewPass { epoch: EPOCH, view }, &mut |n| {
                seen += n;
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, IMAGES);
        let got = dev.read(pseudo.scorer.centroids).unwrap();
        let flat: Vec<f32> = want.iter().flatten().map(|&v| v as f32).collect();
        // f32 sums of up to 192 unit vectors, four assignments deep; a point that changed sides
        // would show as 1e-2.
        close(
            &format!("centroids, every {every}, {restarts} starts, {start:?}"),
            &got,
            &flat,
            1e-4,
        );
        assert!(
            (summary.objective - objective).abs() <= 1e-4 * objective.max(0.01),
            "{} {objective}",
            summary.objective
        );

        clustering
            .label(common, dev, set.images(), ViewPass { epoch: EPOCH, view }, &mut |_| Ok(()))
            .unwrap();
        let labels = dev.read(pseudo.labels).unwrap();
        let counts = dev.read(pseudo.counts).unwrap();
        let mut expected = vec![0; 4];
        for (id, f) in order.iter().zip(batches.concat().chunks(64)) {
            for (pixel, f) in f.iter().enumerate() {
                let label = labels[*id as usize * 64 + pixel];
                expected[usize::from(label)] += 1;
                let (nearest, distance) = nearest(f, &want);
                let chosen: f64 =
                    f.iter().zip(&want[usize::from(label)]).map(|(a, b)| (a - b).powi(2)).sum();
                // Between two centroids equally far, rounding may choose either.
                assert!(
                    usize::from(label) == nearest || chosen - distance <= 1e-5,
                    "image {id}, pixel {pixel}"
                );
            }
        }
        assert_eq!(counts, expected);
    }
}

#[test]
fn a_stopped_pass_passes_the_error_on() {
    let mut rig = Rig::new(recipe(1));
    let Rig { dev, picie, set, .. } = &mut rig;
    let dev = &mut **dev;
    let mut calls = 0;
    let (common, clustering) = picie.clustering_mut().unwrap();
    let stopped = clustering.kmeans(
        common,
        dev,
        set.images(),
        ViewPass { epoch: EPOCH, view: 0 },
        &mut |_| {
            calls += 1;
            Err(picie::base::stop::stopped())
        },
    );
    assert!(stopped.is_err());
    assert_eq!(calls, 1);
}

#[test]
fn training_steps_lower_the_loss_on_fixed_labels() {
    let mut rig = Rig::new(Recipe { lr: 1e-3, kmeans_norm: NormMode::Batch, ..recipe(1) });
    let Rig { dev, picie, set, .. } = &mut rig;
    let dev = &mut **dev;
    cluster(&mut **picie, dev, set);
    let losses: Vec<f64> =
        (1..=12).map(|step| picie.step(dev, set, batch(step)).unwrap().total).collect();
    assert!(losses.iter().all(|l| l.is_finite()));
    assert!(losses[11] < losses[0] - 0.02, "{losses:?}");
}

/// ReLU, pooling and the variance of batch norm must not turn NaN into a number: a run that has
/// gone wrong would go on.
#[test]
fn a_weight_that_is_nan_makes_the_loss_of_the_same_step_nan() {
    let mut rig = Rig::new(recipe(1));
    let Rig { dev, picie, set, .. } = &mut rig;
    let dev = &mut **dev;
    cluster(&mut **picie, dev, set);
    let blocks = picie.common().net.blocks;
    let whole = dev.read(blocks.weights).unwrap();
    // Of conv1, and of convolutions up to the last stage's.
    for at in [0, whole.len() / 50, whole.len() / 8, whole.len() / 2, whole.len() * 9 / 10] {
        let mut broken = whole.clone();
        broken[at] = f32::NAN;
        dev.write(blocks.weights, &broken).unwrap();
        adam_sync(dev, AdamSync { blocks }).unwrap();
        let loss = picie.step(dev, set, batch(1)).unwrap().total;
        assert!(loss.is_nan(), "weight {at} of {} is NaN, and the loss is {loss}", whole.len());
    }
}

#[test]
fn a_step_s_losses_are_those_of_the_algorithm() {
    step_s_losses(1.0);
}

#[test]
fn scores_in_the_loss_are_scaled_as_the_recipe_says() {
    step_s_losses(8.0);
}

fn step_s_losses(score_scale: f32) {
    let recipe = Recipe { score_metric: Metric::Dot, score_scale, ..recipe(1) };
    let ids = IDS;
    let dev: &mut dyn Engine = &mut Cpu::new();
    let mut layout = Layout::new(dev.dtype());
    let mut picie = method::plan(dev, &mut layout, &recipe, SEED, IMAGES).unwrap();
    let (net, shape) = (&picie.common().net, program(&recipe, 6, 2));
    let program = Program::plan(dev, &mut layout, net, shape, Mode::Batch).unwrap();
    let mut feeder = feeder(dev, &mut layout, &recipe, &[3]);
    let features = layout.acts(Pool::State, "features", 6 * 64 * FEATURES);
    picie.common_mut().place_images(dev, &mut layout).unwrap();
    dev.reserve(&layout).unwrap();
    picie.init(dev).unwrap();
    let set = images(recipe.stored);
    let pseudo = cluster(&mut *picie, dev, &set);

    // Both views as one batch of two batch-norm groups, view 1 cropped in the input, view 2 in the
    // features.
    let views = [View::First, View::Second];
    feeder.stage(dev, set.images(), &ids, EPOCH, &views).unwrap();
    let half = program.x.len / 2;
    feeder.render(dev, program.x.part(0, half), 3, 0, views[0]).unwrap();
    feeder.render(dev, program.x.part(half, half), 3, 1, views[1]).unwrap();
    let crops = views.map(|view| feeder.feature_crops(&ids, EPOCH, view, 8)).concat();
    dev.write(program.crops, &crops).unwrap();
    program.forward(dev, &picie.common().net).unwrap();
    let input = program.warped();
    head_features(dev, &program.head, HeadFeatures { features, input }).unwrap();
    let points = dev.read_acts(features).unwrap();
    let ce = |dev: &mut dyn Engine, view: usize, j: usize| {
        let labels = dev.read(pseudo[j].labels).unwrap();
        let labels: Vec<u16> =
            ids.iter().flat_map(|&id| labels[id as usize * 64..][..64].to_vec()).collect();
        let weights = recipe.balance.weights(&dev.read(pseudo[j].counts).unwrap());
        let centroids: Vec<f32> = dev
            .read(pseudo[j].scorer.centroids)
            .unwrap()
            .into_iter()
            .map(|c| recipe.score_scale * c)
            .collect();
        cross_entropy(
            &points[view * 3 * 64 * FEATURES..][..3 * 64 * FEATURES],
            &centroids,
            &labels,
            &weights,
        )
    };
    let within = (ce(dev, 0, 0) + ce(dev, 1, 1)) / 2.0;
    let cross = (ce(dev, 0, 1) + ce(dev, 1, 0)) / 2.0;
    let got = picie.step(dev, &set, batch(1)).unwrap();
    let [got_within, got_cross] = [0, 1].map(|part| got.parts[part].1);
    // f32 features and scores against f64 sums of 192 pixels.
    assert!((within - cross).abs() > 1e-3, "the terms must differ for the test to see a swap");
    assert!(
        (got_within - within).abs() <= 1e-5 && (got_cross - cross).abs() <= 1e-5,
        "{got:?} {within} {cross}"
    );
}

#[test]
fn more_points_than_clusters_are_needed() {
    let many = Recipe { clusters: 200, ..recipe(1) };
    let dev = &mut Cpu::new();
    let mut layout = Layout::new(dev.dtype());
    let planned = method::plan(dev, &mut layout, &many, SEED, IMAGES);
    let error = planned.err().unwrap().to_string();
    assert!(
        error.contains("192 points cannot form 200 clusters") && error.contains("--clusters"),
        "{error}"
    );
}
