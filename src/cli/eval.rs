//! `picie eval`.

use std::collections::BTreeMap;

use crate::augment::{Augment, View};
use crate::base::Result;
use crate::base::rng::{Rng, Stream};
use crate::cli::args::{ClassifierName, EvalArgs};
use crate::cli::engine::{Engine, Job};
use crate::cli::plan::check_size;
use crate::cli::say;
use crate::data::{EvalStore, ImageStore, PictureSet, Square};
use crate::device::cuda::Autotune;
use crate::device::ops::Metric;
use crate::device::{Backend, Layout, Pool};
use crate::eval::epochs::Score;
use crate::eval::{Matching, Scores};
use crate::method::Evaluator;
use crate::method::predict::{Frames, Scorer, other_size, unlabelled};
use crate::net::Mode;
use crate::recipe::Recipe;
use crate::report::{EvalReport, Progress, table, unlabelled as report};
use crate::train::{Loaded, Trained};

pub fn run(args: &EvalArgs) -> Result<()> {
    let engine = Engine::choose(&args.engine, Autotune::Cached)?;
    let trained = Trained::read(&args.checkpoint)?;
    let recipe = &trained.recipe;
    let size = args.size.unwrap_or(recipe.eval_size);
    check_size(size)?;
    // What is about scores wants labels.
    let asked = args.classes.is_some() || args.matching.is_some() || args.tta || args.flip_tta;
    match args.set.pictures(args.classes, asked, Square::new(size, recipe.fit))? {
        PictureSet::Labelled(store) => {
            engine.run(Evaluate { args, trained: &trained, store: &store, size })
        }
        PictureSet::Plain(images) => {
            engine.run(Look { args, trained: &trained, images: &images, size })
        }
    }
}

struct Evaluate<'a> {
    args: &'a EvalArgs,
    trained: &'a Trained,
    store: &'a EvalStore,
    size: usize,
}

impl Job for Evaluate<'_> {
    type Out = ();

    fn run<B: Backend>(self, dev: &mut B) -> Result<()> {
        let Evaluate { args, trained, store, size } = self;
        let recipe = &trained.recipe;
        let (images, classes) = (store.images.len(), store.taxonomy.classes.len());
        let mut layout = Layout::default();
        let loaded = Loaded::plan(dev, &mut layout, recipe);
        let fresh = (args.classifier == ClassifierName::Kmeans).then(|| recipe.schedule());
        // Evaluation does not depend on the batch; a small one needs little memory.
        let shape = (images, recipe.batch_cluster.min(32), size);
        let mut evaluator =
            Evaluator::plan(dev, &mut layout, &loaded.net, recipe, shape, classes, fresh)?;
        if args.flip_tta {
            evaluator.add_mirror(dev, &mut layout, &loaded.net, recipe, shape)?;
        }
        dev.reserve(&layout)?;
        trained.load(dev, &loaded)?;
        choose_classifier(dev, args.classifier, recipe, &loaded, &mut evaluator, &store.images)?;
        let matching = match args.classifier {
            // These were not trained on labels, whatever the network was.
            ClassifierName::Random | ClassifierName::Kmeans
                if recipe.matching == Matching::Identity =>
            {
                Matching::OneToOne
            }
            _ => recipe.matching,
        };
        let matching = args.matching.unwrap_or(matching);
        if args.tta {
            return tta(dev, args, store, (&loaded, &mut evaluator, matching));
        }
        let phase = Progress::phase("evaluate", images as u64);
        let scorer = (loaded.classifier, View::Plain);
        let confusion = evaluator.run(dev, &loaded.net, store, scorer, &mut |n| phase.tick(n))?;
        phase.finish();
        let names: Vec<String> = store.taxonomy.classes.iter().map(|n| n.to_string()).collect();
        let report = EvalReport::new(
            &confusion,
            &matching.of(&confusion)?,
            images,
            size,
            &names,
            &store.taxonomy.parts,
        )?;
        say(if args.json {
            serde_json::to_string(&report).expect("a report is plain data")
        } else {
            report.text()
        })
    }
}

/// What is measured of images without labels.
struct Look<'a> {
    args: &'a EvalArgs,
    trained: &'a Trained,
    images: &'a ImageStore,
    size: usize,
}

impl Job for Look<'_> {
    type Out = ();

    fn run<B: Backend>(self, dev: &mut B) -> Result<()> {
        let Look { args, trained, images, size } = self;
        let recipe = &trained.recipe;
        let mut layout = Layout::default();
        let loaded = Loaded::plan(dev, &mut layout, recipe);
        let batch = recipe.batch_cluster.min(32).min(images.len());
        let fresh = (args.classifier == ClassifierName::Kmeans).then(|| recipe.schedule());
        let mut evaluator = Evaluator::plan(
            dev,
            &mut layout,
            &loaded.net,
            recipe,
            (images.len(), batch, size),
            0,
            fresh,
        )?;
        let other = other_size(size);
        let frames = Frames::plan(
            dev,
            &mut layout,
            &loaded.net,
            recipe,
            (batch, &[size, other]),
            Mode::Eval,
        )?;
        let pred = layout.take(Pool::State, "predictions", batch * size * size);
        dev.reserve(&layout)?;
        trained.load(dev, &loaded)?;
        choose_classifier(dev, args.classifier, recipe, &loaded, &mut evaluator, images)?;
        let phase = Progress::phase("measure", images.len() as u64);
        let mut scorer =
            Scorer { dev, net: &loaded.net, frames: &frames, classifier: loaded.classifier, pred };
        let measured =
            unlabelled(&mut scorer, images, (batch, recipe.clusters), &mut |n| phase.tick(n))?;
        phase.finish();
        if !args.json {
            return say(report::unlabelled(&[(recipe.name.clone(), measured)], images.len(), size));
        }
        let (images, clusters, unlabelled) = (images.len(), recipe.clusters, &measured[0]);
        say(serde_json::json!({ "images": images, "clusters": clusters, "unlabelled": unlabelled }))
    }
}

/// Puts what the flag names in the place of the checkpoint's classifier.
fn choose_classifier<B: Backend>(
    dev: &mut B,
    name: ClassifierName,
    recipe: &Recipe,
    loaded: &Loaded<B>,
    evaluator: &mut Evaluator<B>,
    images: &ImageStore,
) -> Result<()> {
    match name {
        ClassifierName::Trained => Ok(()),
        ClassifierName::Random => {
            let mut rng = Rng::new(1, Stream::KMeansInit, 0, 2);
            let random: Vec<f32> = (0..loaded.centroids.len).map(|_| rng.normal()).collect();
            dev.write(loaded.centroids, &random)?;
            // Directions: their lengths say nothing.
            loaded.score_by_centroids(dev, Metric::Cosine)
        }
        ClassifierName::Kmeans => {
            let phase = Progress::phase("k-means", images.len() as u64);
            evaluator
                .cluster(dev, &loaded.net, images, loaded.centroids, &mut |n| phase.tick(n))?;
            phase.finish();
            loaded.score_by_centroids(dev, recipe.score_metric)
        }
    }
}

/// Table 2 of the supplement: the scores under each of its transforms alone, the photometric ones
/// together, the geometric ones, all. A row's transforms are always on.
fn tta<B: Backend>(
    dev: &mut B,
    args: &EvalArgs,
    store: &EvalStore,
    (loaded, evaluator, matching): (&Loaded<B>, &mut Evaluator<B>, Matching),
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
        let confusion =
            evaluator
                .run(dev, &loaded.net, store, (loaded.classifier, view), &mut |n| phase.tick(n))?;
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
