//! The command `picie compare`, which draws the predictions of several checkpoints for the same
//! images: as classes where there are labels, else as each checkpoint's own clusters.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::augment::View;
use crate::base::say::warn;
use crate::base::stats::spread;
use crate::base::{Error, Result};
use crate::cli::args::CompareArgs;
use crate::cli::engine::Chosen;
use crate::cli::outputs::{self, Output};
use crate::cli::paths::text;
use crate::cli::pictures::{named, picture, truth};
use crate::cli::say;
use crate::data::transform::Placement;
use crate::data::{PictureSet, Square};
use crate::device::cuda::Autotune;
use crate::device::{Engine, Layout};
use crate::eval::{Matching, Segment};
use crate::method::{Batching, EvalShape, Evaluator};
use crate::report::Progress;
use crate::report::palette::Colour;
use crate::report::pictures::{NONE, relabel, write_rgb};
use crate::report::sheet::{SheetRow, sheet};
use crate::train::{Loaded, Trained};

pub fn run(args: &CompareArgs) -> Result<()> {
    let engine = Chosen::new(&args.engine, Autotune::Cached)?;
    if args.images == 0 {
        return Err(Error::input("--images 0", "show at least 1"));
    }
    outputs::check_name(&args.out, "--out", "a PNG", &["png"])?;
    let read = |path: &PathBuf| Trained::read(path);
    let trained: Vec<Trained> = args.checkpoints.iter().map(read).collect::<Result<_>>()?;
    let frames: Vec<Square> =
        trained.iter().map(|t| Square::new(t.recipe.eval_size, t.recipe.fit)).collect();
    let shown = frames
        .iter()
        .rev()
        .max_by_key(|frame| frame.side)
        .copied()
        .expect("at least one checkpoint is required");

    let from = args.set.turned(trained.iter().map(|trained| trained.exif));
    let set = from.list(args.classes)?;
    let files = set.files().chain(args.checkpoints.iter().map(|path| &**path));
    outputs::check(&[Output::new(&args.out, "--out")], files, "name another file")?;
    outputs::check_place(&args.out)?;
    let set = from.limited(set);
    let labelled = set.is_labelled();
    if let Some(why) = set.unlabelled().filter(|_| !labelled) {
        warn(format_args!("drawn without labels: {why}"));
    }
    if let Some(taxonomy) = set.taxonomy.as_ref().filter(|_| labelled) {
        check_labels(&args.checkpoints, &trained, taxonomy.classes.len())?;
    }
    let before: Vec<usize> = (0..trained.len())
        .map(|i| trained[..i].iter().map(|before| before.segments.len()).sum())
        .collect();
    let mut columns = vec![Vec::new(); trained.len()];
    let mut rows = Vec::new();
    let titles = titles(&args.checkpoints, &trained);
    let mut legend = if labelled { Vec::new() } else { clusters(&trained, &titles) };
    for (at, &frame) in
        frames.iter().enumerate().filter(|(at, frame)| !frames[..*at].contains(frame))
    {
        // One set of images is in memory at a time; checkpoints with the same frame share it.
        let store = from.read(&set, labelled, frame)?;
        let images = store.images();
        let chosen: Vec<usize> =
            args.show.iter().map(|name| named(images, name)).collect::<Result<_>>()?;
        let chosen = match chosen.is_empty() {
            true => spread(images.len(), args.images),
            false => chosen,
        };
        for (i, trained) in trained.iter().enumerate().skip(at).filter(|(i, _)| frames[*i] == frame)
        {
            let mut labels = predict(&mut *engine.open()?, trained, &store, &chosen)?;
            if !labelled {
                // The legend has the clusters of one checkpoint after those of the other.
                labels.iter_mut().for_each(|label| *label += before[i] as u16);
            }
            let labels = labels.chunks(frame.side * frame.side).zip(&chosen);
            columns[i] =
                labels.map(|(map, &at)| moved(map, images.sizes[at], frame, shown)).collect();
        }
        if frame == shown {
            for &i in &chosen {
                let truth = match &store {
                    PictureSet::Labelled(store) => Some(truth(store, i)?),
                    PictureSet::Plain(_) => None,
                };
                rows.push((picture(images, i)?, truth));
            }
            if let PictureSet::Labelled(store) = &store {
                legend = Segment::class_legend(&Segment::classes(&store.taxonomy));
            }
        }
    }
    let row = |(i, (image, truth))| SheetRow {
        image,
        predictions: columns.iter_mut().map(|column| std::mem::take(&mut column[i])).collect(),
        truth,
    };
    let rows: Vec<SheetRow> = rows.into_iter().enumerate().map(row).collect();
    write_rgb(&args.out, &sheet(&rows, &titles, &legend)?)?;
    if args.json {
        let (out, images, size) = (text(&args.out), rows.len(), shown.side);
        return say(json!({ "out": out, "images": images, "size": size }));
    }
    if frames.iter().any(|frame| *frame != shown) {
        let what =
            "each network sees images at its own input size and is grey where it sees nothing";
        say(format_args!("{what}; they are shown at {} pixels", shown.side))?;
    }
    say(format_args!("{} images: {}", rows.len(), args.out.display()))
}

/// The clusters of all checkpoints in legends, one checkpoint after the other.
fn clusters(trained: &[Trained], titles: &[String]) -> Vec<(String, Colour)> {
    let of = |(trained, title): (&Trained, &String)| -> Vec<(String, Colour)> {
        let own = Segment::legend(&trained.segments).into_iter();
        own.map(|(name, colour)| (format!("{title}: {name}"), colour)).collect()
    };
    match trained {
        [one] => Segment::legend(&one.segments),
        several => several.iter().zip(titles).flat_map(of).collect(),
    }
}

/// Fails if a network was trained on other classes, because a sheet has colours for one set of
/// classes only.
fn check_labels(paths: &[PathBuf], trained: &[Trained], classes: usize) -> Result<()> {
    for (path, trained) in paths.iter().zip(trained) {
        let (recipe, learned) = (&trained.recipe, trained.recipe.clusters);
        if recipe.matching == Matching::Identity && learned != classes {
            let what = format!(
                "{} was trained on {learned} classes, and the sheet has {classes}",
                recipe.name
            );
            return Err(Error::file(
                path,
                what,
                "compare it on the --classes that it was trained on",
            ));
        }
    }
    Ok(())
}

/// The titles of columns: the recipes' names, with the run folder if several have the same, and
/// with the file's name if that is the same, too.
fn titles(paths: &[PathBuf], trained: &[Trained]) -> Vec<String> {
    let places: Vec<[String; 3]> = paths
        .iter()
        .zip(trained)
        .map(|(path, trained)| {
            let path = path.canonicalize().unwrap_or_else(|_| path.clone());
            let text = |part: Option<&std::ffi::OsStr>| {
                part.unwrap_or_default().to_string_lossy().into_owned()
            };
            let folder = text(path.parent().and_then(Path::file_name));
            [trained.recipe.name.clone(), folder, text(path.file_stem())]
        })
        .collect();
    let title = |place: &[String; 3]| {
        let unlike = |parts: usize| {
            places.iter().filter(|other| other[..parts] == place[..parts]).count() == 1
        };
        let parts = (1..3).find(|&parts| unlike(parts)).unwrap_or(3);
        place[..parts].join(" ")
    };
    places.iter().map(title).collect()
}

/// Moves the label map of a picture (width, height) from one frame to another. Pixels that the
/// first frame does not show are [`NONE`].
fn moved(map: &[u16], (width, height): (usize, usize), from: Square, to: Square) -> Vec<u16> {
    if from == to {
        return map.to_vec();
    }
    let [here, there] = [from, to].map(|square| Placement::new(width, height, square));
    let middle = |i: usize| ((i % to.side) as f64 + 0.5, (i / to.side) as f64 + 0.5);
    let label = |i: usize| {
        let at = there.to_picture(middle(i)).and_then(|point| here.to_square(point));
        at.map_or(NONE, |(x, y)| map[y * from.side + x])
    };
    (0..to.side * to.side).map(label).collect()
}

/// The classes (n, size, size) that a checkpoint predicts for `chosen` images, in their order, or
/// its clusters where there are no labels.
fn predict(
    dev: &mut dyn Engine,
    trained: &Trained,
    set: &PictureSet,
    chosen: &[usize],
) -> Result<Vec<u16>> {
    let recipe = &trained.recipe;
    let images = set.images().len();
    let mut layout = Layout::new(dev.dtype());
    let loaded = Loaded::plan(&mut layout, recipe);
    let batching = Batching { images, batch: recipe.batch_cluster.min(32) };
    let (shape, net) = (EvalShape { batching, size: recipe.eval_size }, &loaded.net);
    let mut evaluator = Evaluator::plan(dev, &mut layout, net, recipe, shape, set.classes(), None)?;
    dev.reserve(&layout)?;
    let classifier = trained.load(dev, &loaded)?;
    let confusion = if let PictureSet::Labelled(store) = set {
        let phase = Progress::phase(&recipe.name, images as u64);
        let tick = &mut |n| phase.tick(n);
        let confusion = evaluator.run(dev, net, store, classifier, View::Plain, tick)?;
        phase.finish();
        Some(confusion)
    } else {
        None
    };
    let mut rising = chosen.to_vec();
    rising.sort_unstable();
    rising.dedup();
    let clusters = evaluator.predict(dev, net, set.images(), classifier, &rising)?;
    let pixels = recipe.eval_size.pow(2);
    let place = |image: &usize| rising.binary_search(image).expect("it was predicted") * pixels;
    let clusters: Vec<u16> = chosen
        .iter()
        .flat_map(|image| clusters[place(image)..][..pixels].iter().copied())
        .collect();
    match confusion {
        Some(confusion) => Ok(relabel(&clusters, &recipe.matching.in_pictures(&confusion)?)),
        None => Ok(clusters),
    }
}
