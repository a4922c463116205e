//! Every system of the paper on small drawn scenes: it learns, and a run that was stopped anywhere
//! ends with the bytes of one that was not.

use std::path::Path;
use std::sync::OnceLock;

use clap::ValueEnum;
use picie::base::Error;
use picie::base::rng::{Rng, Stream};
use picie::cli::args::RecipeName;
use picie::data::{self, Classes, EvalStore, Fit, Load, PictureSet, Square, scenes};
use picie::device::cpu::Cpu;
use picie::eval::EpochRow;
use picie::net::weights::{Start, Tensor};
use picie::recipe::{ClassifierKind, Freeze, Laterals, Method, Recipe};
use picie::train::{Begun, Host, Observer, RunFolder, Sets, Settings, train};

/// The scenes of a newcomer's first run: 256 to train on, 64 to evaluate.
fn drawn() -> &'static Path {
    static DRAWN: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = DRAWN.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        scenes::write(&dir.path().join("scenes"), 256, 64, 1, &|_, _| ()).unwrap();
        dir
    });
    dir.path()
}

/// The first `limit` images of each split, at the sizes of a recipe.
fn sets(recipe: &Recipe, limit: usize) -> Sets {
    let load = |split: &str, size: usize| {
        let mut set =
            data::open(&drawn().join("scenes"), None, split, Classes::default(), &|_, _| ())
                .unwrap();
        set.items.truncate(limit);
        let load = Load {
            square: Square::new(size, Fit::Crop),
            budget: u64::MAX,
            cache: drawn(),
            keep: None,
            exif: true,
            strict: true,
            on_progress: &|_, _| (),
        };
        PictureSet::Labelled(EvalStore::load(&set, &load).unwrap())
    };
    Sets { train: load("train", recipe.stored), val: load("val", recipe.eval_size) }
}

/// Counts images over all phases, and stops after so many.
struct StopAfter {
    seen: usize,
    stop: usize,
}

impl Observer for StopAfter {
    fn begin(&mut self, _phase: &str, _images: usize) {}

    fn advance(&mut self, images: usize) {
        self.seen += images;
    }

    fn end(&mut self) {}

    fn interrupted(&self) -> bool {
        self.seen >= self.stop
    }

    fn note(&mut self, _line: &str) {}

    fn profiled(&self, _step: u64) -> bool {
        false
    }
}

/// A run in `dir`, or what is left of it, and the images it saw.
fn run(
    dir: &Path,
    (recipe, start): (&Recipe, &Start),
    sets: &Sets,
    resume: bool,
    stop: usize,
) -> (picie::base::Result<Vec<EpochRow>>, usize) {
    let folder = RunFolder::open(dir).unwrap();
    let settings = Settings {
        recipe: recipe.clone(),
        seed: 3,
        data: drawn().into(),
        dataset: None,
        split: "train".into(),
        val_split: "val".into(),
        classes: Classes::default(),
        limit: None,
        exif: true,
        images: None,
        start: start.provenance.clone(),
        version: String::new(),
        host: Host::here(),
        begun: Begun::now(),
        engine: None,
        seconds: 0.0,
    };
    let mut watch = StopAfter { seen: 0, stop };
    let rows = train(&mut Cpu::new(), &folder, &settings, sets, start, resume, &mut watch)
        .map(|outcome| outcome.rows);
    (rows, watch.seen)
}

/// Every recipe in the numbers of a tiny run, where `photos` is `demo`; MDC both ways, supervised
/// training also of a probe alone.
fn tiny() -> Vec<Recipe> {
    let shrink = |recipe: Recipe| Recipe {
        size: 32,
        eval_size: 32,
        stored: 48,
        batch: 3,
        batch_cluster: 4,
        epochs: 2,
        clusters: if recipe.method == Method::Supervised { 27 } else { 9 },
        auxiliary: recipe.auxiliary.min(12),
        init_batches: 1,
        update_every: 1,
        kmeans_iters: 3,
        fit: Fit::Crop,
        ..recipe
    };
    let all = RecipeName::value_variants().iter().map(|name| name.recipe());
    let mut recipes: Vec<Recipe> = all.filter(|r| r.name != "photos").map(shrink).collect();
    recipes.push(shrink(Recipe { classifier: ClassifierKind::Centroids, ..Recipe::mdc() }));
    recipes.push(shrink(Recipe { freeze: Freeze::Backbone, ..Recipe::transfer() }));
    recipes
}

#[test]
fn a_run_that_was_stopped_ends_with_the_same_bytes() {
    for recipe in tiny() {
        let name = format!(
            "{} {:?} {:?} {:?}",
            recipe.name, recipe.classifier, recipe.freeze, recipe.architecture
        );
        // 7 images: batches of 3 and one of 1.
        let (sets, dir) = (sets(&recipe, 7), tempfile::tempdir().unwrap());
        let begun = (&recipe, &Start::random());
        let whole = dir.path().join("whole");
        let (rows, images) = run(&whole, begun, &sets, false, usize::MAX);
        rows.unwrap_or_else(|e| panic!("{name}: {e}"));
        for tenths in [1, 4, 6, 9] {
            let stopped = dir.path().join(format!("stopped-{tenths}"));
            let (rows, _) = run(&stopped, begun, &sets, false, images * tenths / 10);
            assert!(matches!(rows, Err(Error::Interrupted { .. })), "{name} was not stopped");
            run(&stopped, begun, &sets, true, usize::MAX)
                .0
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            for file in ["checkpoint.safetensors", "epoch-01.safetensors", "epoch-02.safetensors"] {
                let [a, b] = [&whole, &stopped].map(|run| std::fs::read(run.join(file)).unwrap());
                assert!(a == b, "{name}: {file} has other bytes after a stop at {tenths}/10");
            }
        }
    }
}

#[test]
fn a_stop_saves_no_state_that_is_not_finite() {
    // Adam divides this rate by a tenth, more than f32 holds: after the first step the weights are
    // infinite, and no loss has seen them.
    let recipe =
        Recipe { lr: 1e38, method: Method::Picie, laterals: Laterals::Random, ..tiny()[0].clone() };
    let (sets, dir) = (sets(&recipe, 7), tempfile::tempdir().unwrap());
    // Two views of k-means, the evaluation and two views of labels look at 7 images each.
    let (rows, _) = run(dir.path(), (&recipe, &Start::random()), &sets, false, 5 * 7 + 3);
    let why = rows.unwrap_err().to_string();
    assert!(
        why.contains("conv1.weight holds")
            && why.contains("at step 1 of the run, in epoch 1; start again"),
        "{why}"
    );
    assert!(!dir.path().join("checkpoint.safetensors").exists());
}

/// The weights with the elements of every tensor in another order: as large, and without what they
/// learned.
fn scrambled(start: &Start) -> Start {
    let mut start = start.clone();
    let mut rng = Rng::new(1, Stream::Other, 0, 0);
    for tensor in start.weights.as_mut().unwrap().tensors.values_mut() {
        let values = tensor.f32().unwrap();
        let order = rng.permutation(values.len());
        let values = order.iter().map(|&i| values[i as usize]).collect();
        *tensor = Tensor::from_f32(tensor.shape.clone(), values);
    }
    start
}

/// What a trained network begins with is more than its statistics, and a little training keeps it.
#[test]
fn imagenet_weights_see_more_than_the_same_numbers_in_another_order() {
    let recipe = Recipe { epochs: 1, ..Recipe::demo() };
    let sets = sets(&recipe, 48);
    let imagenet = recipe.weights.open(recipe.architecture).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let [(start, end), (scrambled_start, scrambled_end)] =
        [&imagenet, &scrambled(&imagenet)].map(|start| {
            let folder = dir.path().join(format!("{:p}", start));
            let rows = run(&folder, (&recipe, start), &sets, false, usize::MAX).0.unwrap();
            (rows[0].untrained.unwrap().miou, rows[0].miou.unwrap())
        });
    println!("start {start:.2}, end {end:.2}; scrambled {scrambled_start:.2}, {scrambled_end:.2}");
    assert!(start >= scrambled_start + 10.0, "{start} beside {scrambled_start}");
    assert!(
        end >= scrambled_end + 10.0 && end >= start - 4.0,
        "{start} to {end} beside {scrambled_end}"
    );
}

/// From ImageNet weights PiCIE gains on the k-means that it starts from, and is better than MDC,
/// which is better than IIC; a network that was trained on labels is right on four pixels in five.
/// The recipes are those that `picie train --recipe NAME` runs on the scenes.
#[test]
#[ignore = "takes minutes; .ci/run runs it"]
fn each_system_learns() {
    let dir = tempfile::tempdir().unwrap();
    let learn = |recipe: Recipe| {
        let small = recipe.small();
        let recipe = Recipe {
            clusters: if small.method == Method::Supervised { 27 } else { small.clusters },
            ..small
        };
        let start = recipe.weights.open(recipe.architecture).unwrap();
        let folder = dir.path().join(&recipe.name);
        let rows = run(&folder, (&recipe, &start), &sets(&recipe, usize::MAX), false, usize::MAX)
            .0
            .unwrap();
        let (acc, miou) = rows.last().map(|row| (row.acc.unwrap(), row.miou.unwrap())).unwrap();
        println!(
            "{}: accuracy {acc:.2}, mIoU {miou:.2}, before {:?}",
            recipe.name, rows[0].untrained
        );
        (acc, miou, rows[0].untrained)
    };
    let (_, picie, start) = learn(Recipe::picie());
    let start = start.expect("PiCIE begins with k-means").miou;
    assert!(picie >= start + 2.0 && picie >= 50.0, "PiCIE {picie} after {start}");
    // The paper's order. Over seeds 1, 2 and 3 PiCIE is 2.6 to 4.4 points above MDC, and IIC no
    // better than colours.
    let (mdc, iic) = (learn(Recipe::mdc()).1, learn(Recipe::iic()).1);
    assert!(
        picie >= mdc + 1.0 && mdc >= iic + 10.0 && iic >= 12.0,
        "PiCIE {picie}, MDC {mdc}, IIC {iic}"
    );
    let (acc, miou, _) = learn(Recipe::supervised());
    assert!(acc >= 80.0 && miou >= 60.0, "supervised: accuracy {acc}, mIoU {miou}");
}
