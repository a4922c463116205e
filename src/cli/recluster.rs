//! The command `picie recluster`, which finds another number of clusters with a trained network.

use serde_json::json;

use crate::augment::View;
use crate::base::{Error, Result};
use crate::cli::args::ReclusterArgs;
use crate::cli::engine::Chosen;
use crate::cli::name::listed;
use crate::cli::outputs::{self, Output};
use crate::cli::paths::text;
use crate::cli::say;
use crate::data::{PictureSet, Square};
use crate::device::cuda::Autotune;
use crate::device::{Engine, Layout};
use crate::eval::{Matching, Segment};
use crate::method::{Batching, EvalShape, Evaluator};
use crate::recipe::Recipe;
use crate::report::Progress;
use crate::train::{Loaded, Trained, save_centroids};

/// Runs the command: a k-means of the images' features, and a checkpoint of its centroids.
pub fn run(args: &ReclusterArgs) -> Result<()> {
    let engine = Chosen::new(&args.engine, Autotune::Cached)?;
    outputs::check_name(&args.out, "--out", "a checkpoint", &["safetensors"])?;
    let trained = Trained::read(&args.checkpoint)?;
    if !trained.recipe.clustered() {
        let what = format!("{} learns a layer and has no clusters", trained.recipe.name);
        let remedy = "use a checkpoint of PiCIE or MDC, or train with other --clusters";
        return Err(Error::file(&args.checkpoint, what, remedy));
    }
    let out = [Output::new(&args.out, "--out")];
    outputs::check(&out, [&*args.checkpoint], "name another file")?;
    outputs::check_place(&args.out)?;
    let recipe = Recipe { clusters: args.clusters.into(), ..trained.recipe.clone() };
    let square = Square::new(recipe.eval_size, recipe.fit);
    let set = args.set.turned([trained.exif]).pictures(None, false, square)?;
    let (centroids, segments) = cluster(&mut *engine.open()?, &trained, &recipe, &set)?;
    save_centroids(&args.checkpoint, &args.out, centroids, segments.clone())?;
    let images = set.images().len();
    if args.json {
        return say(json!({
            "checkpoint": text(&args.out), "images": images, "segments": listed(&segments)
        }));
    }
    let (clusters, out) = (args.clusters, args.out.display());
    say(format_args!("{clusters} clusters of {images} images: {out}"))
}

/// The centroids (clusters, FEATURES) of the images' features, and what their clusters are called:
/// the classes that they are, if there are labels.
fn cluster(
    dev: &mut dyn Engine,
    trained: &Trained,
    recipe: &Recipe,
    set: &PictureSet,
) -> Result<(Vec<f32>, Vec<Segment>)> {
    let images = set.images();
    let mut layout = Layout::new(dev.dtype());
    let loaded = Loaded::plan(&mut layout, recipe);
    let (net, scorer) = (&loaded.net, &loaded.scorer);
    let classes = match set {
        PictureSet::Labelled(store) => store.taxonomy.classes.len(),
        PictureSet::Plain(_) => 0,
    };
    let batching = Batching { images: images.len(), batch: recipe.batch_cluster.min(32) };
    let (shape, schedule) =
        (EvalShape { batching, size: recipe.eval_size }, Some(recipe.schedule()));
    let mut evaluator = Evaluator::plan(dev, &mut layout, net, recipe, shape, classes, schedule)?;
    dev.reserve(&layout)?;
    trained.load_network(dev, &loaded)?;
    let phase = Progress::phase("k-means", images.len() as u64);
    evaluator.cluster(dev, net, images, scorer, &mut |n| phase.tick(n))?;
    phase.finish();
    let segments = match set {
        PictureSet::Labelled(store) => {
            let classifier = scorer.by(dev, recipe.score_metric)?;
            let phase = Progress::phase("name", images.len() as u64);
            let tick = &mut |n| phase.tick(n);
            let confusion = evaluator.run(dev, net, store, classifier, View::Plain, tick)?;
            phase.finish();
            let class_of = Matching::ManyToOne.of(&confusion)?;
            Segment::matched(&Segment::classes(store.taxonomy.classes), &class_of)
        }
        PictureSet::Plain(_) => Segment::unnamed(recipe.clusters),
    };
    Ok((dev.read(scorer.centroids)?, segments))
}
