//! `picie eval`.

use crate::base::rng::{Rng, Stream};
use crate::base::{Error, Result};
use crate::cli::args::{ClassifierName, EvalArgs};
use crate::cli::engine::{Engine, Job};
use crate::cli::plan::{FileBar, cache, check_limit};
use crate::cli::say;
use crate::cli::train::{list_skipped, loading};
use crate::cluster::Schedule;
use crate::data::{self, EvalStore};
use crate::device::{Backend, Layout, Pool};
use crate::eval::hungarian;
use crate::method::Evaluator;
use crate::net::{Architecture, FEATURES, Network};
use crate::report::{EvalReport, Progress};
use crate::train::Trained;

pub fn run(args: &EvalArgs) -> Result<()> {
    let engine = Engine::choose(&args.engine)?;
    let trained = Trained::read(&args.checkpoint)?;
    let recipe = &trained.recipe;
    let size = args.size.unwrap_or(recipe.size);
    if size == 0 || !size.is_multiple_of(32) {
        return Err(Error::input(format!("--size {size}"), "use a multiple of 32, such as 128 or 320"));
    }
    check_limit(args.limit)?;
    let bar = FileBar::new("select");
    let mut set = data::open(&args.data, args.dataset, &args.split, args.classes, &|d, t| bar.set(d, t))?;
    bar.finish();
    set.items.truncate(args.limit.unwrap_or(usize::MAX));
    let bar = FileBar::new("read images");
    let store = EvalStore::load(&set, &loading(size, args.strict, &cache(), &|d, t| bar.set(d, t)))?;
    bar.finish();
    list_skipped(&store.images);

    engine.run(Evaluate { args, trained: &trained, store: &store, size })
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
        let (images, k, classes) = (store.images.len(), recipe.clusters, store.taxonomy.classes.len());
        let mut layout = Layout::default();
        let net = Network::plan(dev, &mut layout, Architecture::RESNET18);
        let centroids = layout.take(Pool::State, "centroids", k * FEATURES);
        let schedule = Schedule {
            init_batches: recipe.init_batches,
            iters: recipe.kmeans_iters,
            update_every: recipe.update_every,
        };
        let fresh = (args.classifier == ClassifierName::Kmeans).then_some(schedule);
        // Evaluation does not depend on the batch; a small one needs little memory.
        let shape = (images, recipe.batch_cluster.min(32), size);
        let mut evaluator = Evaluator::plan(dev, &mut layout, &net, shape, (k, classes, recipe.merge), fresh)?;
        dev.reserve(&layout)?;
        trained.load(dev, &net, centroids)?;

        let mut metric = recipe.score_metric;
        match args.classifier {
            ClassifierName::Trained => {}
            ClassifierName::Random => {
                let mut rng = Rng::new(1, Stream::KMeansInit, 0, 2);
                let random: Vec<f32> = (0..k * FEATURES).map(|_| rng.normal()).collect();
                dev.write(centroids, &random)?;
                // Directions: their lengths say nothing.
                metric = crate::device::ops::Metric::Cosine;
            }
            ClassifierName::Kmeans => {
                let phase = Progress::phase("k-means", images as u64);
                evaluator.cluster(dev, &net, &store.images, centroids, &mut |n| {
                    phase.add(n as u64);
                    Ok(())
                })?;
                phase.finish();
            }
        }
        let phase = Progress::phase("evaluate", images as u64);
        let confusion = evaluator.run(dev, &net, store, centroids, metric, &mut |n| {
            phase.add(n as u64);
            Ok(())
        })?;
        phase.finish();
        let names: Vec<String> = store.taxonomy.classes.iter().map(|n| n.to_string()).collect();
        let report = EvalReport::new(&confusion, &hungarian(&confusion), images, &names, &store.taxonomy.parts)?;
        say(if args.json { serde_json::to_string(&report).expect("a report is plain data") } else { report.text() })
    }
}
