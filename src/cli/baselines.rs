//! The command `picie baselines`, which measures what is reached without training, on the images
//! and by the matching of `picie eval`.

use std::collections::BTreeMap;

use crate::base::say::warn;
use crate::base::{Error, Result, stop};
use crate::cli::args::{BaselinesArgs, SetArgs};
use crate::cli::engine::Chosen;
use crate::cli::limits::check_size;
use crate::cli::say;
use crate::data::{Fit, ImageStore, PictureSet, Square};
use crate::device::cuda::Autotune;
use crate::device::{Engine, Layout, Pool};
use crate::eval::epochs::Score;
use crate::eval::{Confusion, Matching, Scores, Unlabelled};
use crate::method::Tick;
use crate::method::baselines::{Clustered, Features, Lab, Pyramid, Stages, pca, settle};
use crate::method::predict::{Constant, Frames, FramesShape, confusions, other_size, unlabelled};
use crate::net::weights::{Source, Weights};
use crate::net::{Architecture, FEATURES, Mode, Network, STRIDE};
use crate::recipe::Recipe;
use crate::report::{Progress, table, unlabelled as report};

/// Number of pixels that are worked on at a time.
const BATCH_PIXELS: usize = 8 * 256 * 256;

/// Runs the command, and prints its table or JSON.
pub fn run(args: &BaselinesArgs) -> Result<()> {
    let engine = Chosen::new(&args.engine, Autotune::Cached)?;
    check_size(args.size)?;
    if args.clusters < 2 || args.clusters > usize::from(u16::MAX) {
        return Err(Error::input(format!("--clusters {}", args.clusters), "use 2 to 65535"));
    }
    if args.matching == Some(Matching::Identity) {
        let remedy = "clusters of k-means are no classes: use one-to-one or many-to-one";
        return Err(Error::input("--matching identity", remedy));
    }
    let architecture = Architecture::of(args.backbone);
    let recipe = Recipe { clusters: args.clusters, architecture, ..Recipe::picie() };
    let start = args.weights.open(recipe.architecture)?;
    if let Some(warning) = &start.warning {
        warn(warning);
    }
    // A checkpoint may have trained laterals; here they are random or computed from the images.
    let mut weights = start.weights;
    weights
        .iter_mut()
        .for_each(|weights| weights.tensors.retain(|name, _| !name.starts_with("fpn.")));
    let asked = args.classes.is_some() || args.matching.is_some();
    let square = Square::new(args.size, Fit::Crop);
    let set = args.set.pictures(args.classes, asked, square)?;
    let matching = args.matching.unwrap_or(Matching::OneToOne);
    if let PictureSet::Labelled(store) = &set {
        matching.check(store.occurring()?, args.clusters)?;
    }
    let train = SetArgs { split: args.train_split.clone(), ..args.set.clone() };
    let train = train.images(&train.limited(train.list_plain()?), square)?;
    let images = train.len().max(set.images().len());
    let mut table = Table {
        args,
        matching,
        train: &train,
        set: &set,
        batch: (BATCH_PIXELS / (args.size * args.size)).clamp(1, 32).min(images),
        scores: Vec::new(),
        looks: Vec::new(),
    };
    table.fill(&mut *engine.open()?, &recipe, weights.as_ref())?;
    let Table { scores, looks, .. } = table;
    match (&set, args.json) {
        (PictureSet::Labelled(_), true) => say_json(scores),
        (PictureSet::Labelled(_), false) => say(format_args!(
            "{}\n{}",
            table::scores("baseline", &scores),
            table::scored_at(args.size)
        )),
        (PictureSet::Plain(_), true) => say_json(looks),
        (PictureSet::Plain(images), false) => {
            say(report::unlabelled(&looks, images.len(), args.size))
        }
    }
}

/// Prints one line of JSON: for each row's name its values, one for each seed.
fn say_json<T: serde::Serialize>(rows: Vec<(String, Vec<T>)>) -> Result<()> {
    let rows: BTreeMap<_, _> = rows.into_iter().collect();
    say(serde_json::to_string(&rows).expect("rows are plain data"))
}

/// The table's rows, and the images that they are measured on.
struct Table<'a> {
    args: &'a BaselinesArgs,
    matching: Matching,
    train: &'a ImageStore,
    set: &'a PictureSet,
    /// Number of pictures that are worked on at a time.
    batch: usize,
    /// The rows if there are labels: a score for each seed, or one if nothing is random.
    scores: Vec<(String, Vec<Score>)>,
    /// The rows if there are no labels.
    looks: Vec<(String, Vec<Unlabelled>)>,
}

impl Table<'_> {
    /// The sides of pictures at which predictions are needed.
    fn sides(&self) -> Vec<usize> {
        let size = self.args.size;
        match self.set {
            PictureSet::Labelled(_) => vec![size],
            PictureSet::Plain(_) => vec![size, other_size(size)],
        }
    }

    /// Begins a row.
    fn row(&mut self, name: &str) {
        match self.set {
            PictureSet::Labelled(_) => self.scores.push((name.into(), Vec::new())),
            PictureSet::Plain(_) => self.looks.push((name.into(), Vec::new())),
        }
    }

    /// Adds to the last row the results of k-means of the features, for each of `seeds`.
    fn add(&mut self, features: &mut dyn Features, seeds: &[u64]) -> Result<()> {
        let name = self.scores.last().map(|row| &row.0).or(self.looks.last().map(|row| &row.0));
        let images = self.train.len() + self.set.images().len();
        let phase = Progress::phase(name.expect("a row has begun"), images as u64);
        let tick: Tick = &mut |n| phase.tick(n);
        let (k, sides) = (self.args.clusters, self.sides());
        let shape = FramesShape { batch: self.batch, sides: &sides };
        let mut clustered = Clustered::fit(features, self.train, k, seeds, shape, tick)?;
        match self.set {
            PictureSet::Labelled(store) => {
                let confusions = confusions(&mut clustered, store, self.batch, tick)?;
                let scores = confusions
                    .iter()
                    .map(|m| score(m, self.matching))
                    .collect::<Result<Vec<_>>>()?;
                self.scores.last_mut().expect("a row has begun").1.extend(scores);
            }
            PictureSet::Plain(images) => {
                let measured = unlabelled(&mut clustered, images, self.batch, tick)?;
                self.looks.last_mut().expect("a row has begun").1.extend(measured);
            }
        }
        phase.finish();
        Ok(())
    }

    /// Measures all rows, one after the other. `weights` are those of a backbone, without laterals.
    fn fill(
        &mut self,
        dev: &mut dyn Engine,
        recipe: &Recipe,
        weights: Option<&Weights>,
    ) -> Result<()> {
        let (train, batch, sides) = (self.train, self.batch, self.sides());
        let seeds = &self.args.seeds;
        if let PictureSet::Labelled(store) = self.set {
            self.row("largest class");
            let one = confusions(&mut Constant, store, batch, &mut |_| stop::check())?;
            self.scores[0].1.push(score(&one[0], Matching::ManyToOne)?);
        }
        self.row("Lab");
        self.add(&mut Lab { height: false }, seeds)?;
        self.row("Lab + height");
        self.add(&mut Lab { height: true }, seeds)?;

        let mut layout = Layout::new(dev.dtype());
        let net = Network::plan(&mut layout, recipe.architecture);
        let own = FramesShape { batch, sides: &[train.size()] };
        let settling = Frames::plan(dev, &mut layout, &net, recipe, own, Mode::Batch)?;
        let shape = FramesShape { batch, sides: &sides };
        let frames = Frames::plan(dev, &mut layout, &net, recipe, shape, Mode::Stages)?;
        let room = batch * (shape.largest() / STRIDE).pow(2) * FEATURES;
        let room = layout.acts(Pool::State, "features", room);
        dev.reserve(&layout)?;
        self.row("random network");
        for &seed in seeds {
            net.init(dev, seed)?;
            settle(dev, &net, &settling, train)?;
            net.fold(dev)?;
            self.add(&mut Pyramid { dev: &mut *dev, net: &net, frames: &frames, room }, &[seed])?;
        }
        let Some(weights) = weights else { return Ok(()) };
        let name = name(&self.args.weights);
        let [random, by_pca, stages] = ["random laterals", "PCA laterals", "layer3, layer4"]
            .map(|part| format!("{name}, {part}"));
        self.row(&random);
        for &seed in seeds {
            net.init(dev, seed)?;
            net.load(dev, weights)?;
            net.fold(dev)?;
            self.add(&mut Pyramid { dev: &mut *dev, net: &net, frames: &frames, room }, &[seed])?;
        }
        self.row(&by_pca);
        let laterals = pca(dev, &net, &frames, train)?;
        net.load(dev, &laterals)?;
        net.fold(dev)?;
        self.add(&mut Pyramid { dev: &mut *dev, net: &net, frames: &frames, room }, seeds)?;
        self.row(&stages);
        self.add(&mut Stages { dev: &mut *dev, net: &net, frames: &frames }, seeds)?;
        Ok(())
    }
}

/// The score of a confusion matrix under a matching of clusters to classes.
fn score(m: &Confusion, matching: Matching) -> Result<Score> {
    let Scores { acc, miou, miou_present, .. } = Scores::new(m, &matching.of(m)?, &[])?;
    Ok(Score { acc, miou, miou_present })
}

/// The name of the weights in rows.
fn name(source: &Source) -> String {
    match source {
        Source::File(path) => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        named => named.to_string(),
    }
}
