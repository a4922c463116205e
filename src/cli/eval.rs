//! The command `picie eval`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::augment::{Augment, View};
use crate::base::Result;
use crate::base::rng::{Rng, Stream};
use crate::cli::args::{ClassifierName, EvalArgs};
use crate::cli::engine::Chosen;
use crate::cli::limits::check_size;
use crate::cli::name::listed;
use crate::cli::say;
use crate::data::{EvalStore, ImageStore, PictureSet, Square};
use crate::device::cuda::Autotune;
use crate::device::ops::{Classifier, Metric};
use crate::device::{Engine, Layout, Pool};
use crate::eval::epochs::Score;
use crate::eval::{Matching, Scores};
use crate::method::predict::{Frames, FramesShape, NetworkPredictor, other_size, unlabelled};
use crate::method::{Batching, EvalShape, Evaluator};
use crate::net::Mode;
use crate::recipe::Recipe;
use crate::report::{EvalReport, Progress, table, unlabelled as report};
use crate::train::{Loaded, Trained};

/// Runs the command, and prints its scores as a table or JSON.
pub fn run(args: &EvalArgs) -> Result<()> {
    let engine = Chosen::new(&args.engine, Autotune::Cached)?;
    let trained = Trained::read(&args.checkpoint)?;
    let recipe = &trained.recipe;
    let size = args.size.unwrap_or(recipe.eval_size);
    check_size(size)?;
    // Flags about scores need labels.
    let asked = args.classes.is_some() || args.matching.is_some() || args.tta || args.flip_tta;
    let set = args.set.turned([trained.exif]);
    let set = set.pictures(args.classes, asked, Square::new(size, recipe.fit))?;
    let dev = &mut *engine.open()?;
    match set {
        PictureSet::Labelled(store) => evaluate(dev, args, &trained, &store, size),
        PictureSet::Plain(images) => look(dev, args, &trained, &images, size),
    }
}

/// A classifier that is evaluated, with what that needs.
struct Scored<'a> {
    loaded: &'a Loaded,
    classifier: Classifier,
    evaluator: &'a mut Evaluator,
    matching: Matching,
}

/// Evaluates a checkpoint on labelled images, and prints its scores.
fn evaluate(
    dev: &mut dyn Engine,
    args: &EvalArgs,
    trained: &Trained,
    store: &EvalStore,
    size: usize,
) -> Result<()> {
    let recipe = &trained.recipe;
    let (images, classes) = (store.images.len(), store.taxonomy.classes.len());
    let mut layout = Layout::new(dev.dtype());
    let loaded = Loaded::plan(&mut layout, recipe);
    let fresh = (args.classifier == ClassifierName::Kmeans).then(|| recipe.schedule());
    // The result does not depend on the size of batches; small ones need little memory.
    let batching = Batching { images, batch: recipe.batch_cluster.min(32) };
    let (shape, net) = (EvalShape { batching, size }, &loaded.net);
    let mut evaluator = Evaluator::plan(dev, &mut layout, net, recipe, shape, classes, fresh)?;
    if args.flip_tta {
        evaluator.add_mirror(dev, &mut layout, net, recipe, shape)?;
    }
    dev.reserve(&layout)?;
    let own = trained.load(dev, &loaded)?;
    let (name, images) = (args.classifier, &store.images);
    let classifier = chosen(dev, name, recipe, &loaded, &mut evaluator, images)?.unwrap_or(own);
    let matching = match args.classifier {
        // These classifiers were not trained on labels, even if the network was.
        ClassifierName::Random | ClassifierName::Kmeans
            if recipe.matching == Matching::Identity =>
        {
            Matching::OneToOne
        }
        _ => recipe.matching,
    };
    let matching = args.matching.unwrap_or(matching);
    if args.tta {
        let (loaded, evaluator) = (&loaded, &mut evaluator);
        return tta(dev, args, store, Scored { loaded, classifier, evaluator, matching });
    }
    let phase = Progress::phase("evaluate", images.len() as u64);
    let tick = &mut |n| phase.tick(n);
    let confusion = evaluator.run(dev, net, store, classifier, View::Plain, tick)?;
    phase.finish();
    let report = EvalReport::new(
        &confusion,
        &matching.of(&confusion)?,
        images.len(),
        size,
        &store.taxonomy.classes,
        &store.taxonomy.parts,
    )?;
    if !args.json {
        return say(report.text());
    }
    let segments = named(args, trained);
    say(serde_json::to_string(&Line { report, segments }).expect("a report is plain data"))
}

/// The line of `--json`.
#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    report: EvalReport,
    /// What the checkpoint calls its clusters.
    segments: Option<Vec<Value>>,
}

/// What the checkpoint calls its clusters. `None`: other ones are evaluated.
fn named(args: &EvalArgs, trained: &Trained) -> Option<Vec<Value>> {
    (args.classifier == ClassifierName::Trained).then(|| listed(&trained.segments))
}

/// Measures a checkpoint on images without labels.
fn look(
    dev: &mut dyn Engine,
    args: &EvalArgs,
    trained: &Trained,
    images: &ImageStore,
    size: usize,
) -> Result<()> {
    let recipe = &trained.recipe;
    let mut layout = Layout::new(dev.dtype());
    let loaded = Loaded::plan(&mut layout, recipe);
    let batch = recipe.batch_cluster.min(32).min(images.len());
    let fresh = (args.classifier == ClassifierName::Kmeans).then(|| recipe.schedule());
    let shape = EvalShape { batching: Batching { images: images.len(), batch }, size };
    let net = &loaded.net;
    let mut evaluator = Evaluator::plan(dev, &mut layout, net, recipe, shape, 0, fresh)?;
    let shape = FramesShape { batch, sides: &[size, other_size(size)] };
    let frames = Frames::plan(dev, &mut layout, net, recipe, shape, Mode::Eval)?;
    let pred = layout.take(Pool::State, "predictions", batch * size * size);
    dev.reserve(&layout)?;
    let own = trained.load(dev, &loaded)?;
    let name = args.classifier;
    let classifier = chosen(dev, name, recipe, &loaded, &mut evaluator, images)?.unwrap_or(own);
    let phase = Progress::phase("measure", images.len() as u64);
    let mut predictor = NetworkPredictor { dev, net, frames: &frames, classifier, pred };
    let tick = &mut |n| phase.tick(n);
    let measured = unlabelled(&mut predictor, images, batch, tick)?;
    phase.finish();
    if !args.json {
        let rows = [(recipe.name.clone(), measured)];
        return say(report::unlabelled(&rows, images.len(), size));
    }
    let (images, clusters, unlabelled) = (images.len(), recipe.clusters, &measured[0]);
    let segments = named(args, trained);
    say(json!({
        "images": images, "clusters": clusters, "unlabelled": unlabelled, "segments": segments
    }))
}

/// The classifier that the flag names. `None`: the checkpoint's own.
fn chosen(
    dev: &mut dyn Engine,
    name: ClassifierName,
    recipe: &Recipe,
    Loaded { net, scorer }: &Loaded,
    evaluator: &mut Evaluator,
    images: &ImageStore,
) -> Result<Option<Classifier>> {
    Ok(match name {
        ClassifierName::Trained => None,
        ClassifierName::Random => {
            let mut rng = Rng::new(1, Stream::KMeansInit, 0, 2);
            let random: Vec<f32> = (0..scorer.centroids.len).map(|_| rng.normal()).collect();
            dev.write(scorer.centroids, &random)?;
            // Only the directions of these centroids matter, not their lengths.
            Some(scorer.by(dev, Metric::Cosine)?)
        }
        ClassifierName::Kmeans => {
            let phase = Progress::phase("k-means", images.len() as u64);
            evaluator.cluster(dev, net, images, scorer, &mut |n| phase.tick(n))?;
            phase.finish();
            Some(scorer.by(dev, recipe.score_metric)?)
        }
    })
}

/// Table 2 of the paper's supplement: the scores on images changed by each transform alone, by all
/// photometric ones, by all geometric ones, and by all.
fn tta(
    dev: &mut dyn Engine,
    args: &EvalArgs,
    store: &EvalStore,
    Scored { loaded, classifier, evaluator, matching }: Scored,
) -> Result<()> {
    let rows = Augment::supplement().rows();
    let phase = Progress::phase("evaluate", (rows.len() * store.images.len()) as u64);
    let mut scores = Vec::new();
    for (name, augment) in rows {
        evaluator.draw_from(augment, args.seed);
        let view = match (augment.photometric(), augment.geometric()) {
            (false, false) => View::Plain,
            (true, false) => View::Photometric,
            (false, true) => View::FirstUnchanged,
            (true, true) => View::First,
        };
        let tick = &mut |n| phase.tick(n);
        let confusion = evaluator.run(dev, &loaded.net, store, classifier, view, tick)?;
        let Scores { acc, miou, miou_present, .. } =
            Scores::new(&confusion, &matching.of(&confusion)?, &[])?;
        scores.push((name.to_string(), vec![Score { acc, miou, miou_present }]));
    }
    phase.finish();
    if !args.json {
        return say(format_args!(
            "{}\n{}",
            table::scores("transform", &scores),
            table::scored_at(store.images.size())
        ));
    }
    let json: BTreeMap<_, _> = scores.iter().map(|(name, score)| (name, score[0])).collect();
    say(serde_json::to_string(&json).expect("scores are plain data"))
}
