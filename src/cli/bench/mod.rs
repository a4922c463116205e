//! The command `picie bench`, which measures images per second and the time of every op, or
//! predicts both.

mod against;
mod measure;
mod model;
mod sampler;

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::base::fs::write_atomic;
use crate::base::{Error, Result};
use crate::cli::args::{BenchArgs, Clusters};
use crate::cli::engine::Chosen;
use crate::cli::outputs::{self, Output};
use crate::cli::read::{Reader, account};
use crate::cli::say;
use crate::data::{self, Classes, Fit, ImageStore, PictureSet, Square};
use crate::device::Traced;
use crate::device::cuda::Autotune;
use crate::recipe::{Method, Recipe};
use crate::report::bench::{BenchReport, Comparison, trace};
use measure::{Measuring, Stop};

/// Random images where --images does not say how many, on a GPU and on the CPU.
const IMAGES: usize = 2048;
const FEW_IMAGES: usize = 64;

/// Runs the command, and prints its measurements as tables or JSON.
pub fn run(args: &BenchArgs) -> Result<()> {
    check_outputs(args)?;
    let before = match args.against.as_deref() {
        Some(path) => Some((path, against::read(path)?)),
        None => None,
    };
    let (mut report, traced) = match &args.from {
        Some(path) => (against::read(path)?, None),
        None => report(args).map(|(report, traced)| (report, Some(traced)))?,
    };
    if let Some((path, old)) = &before {
        report.against = Some(against::compare(old, &report, path, args.ignore_device)?);
    }
    // First what a path that cannot be written must not cost.
    say(if args.json {
        serde_json::to_string(&report).expect("a report is plain data")
    } else {
        report.text(args.top)
    })?;
    let write = |path: &Option<PathBuf>, text: &dyn Fn() -> String| match path {
        Some(path) => write_atomic(path, |out| out.write_all(text().as_bytes())),
        None => Ok(()),
    };
    let picture = args
        .report
        .as_ref()
        .is_some_and(|path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("svg")));
    write(&args.report, &|| if picture { report.roofline_picture() } else { report.html() })?;
    write(&args.csv, &|| report.csv())?;
    write(&args.trace, &|| traced.as_ref().map(trace).unwrap_or_default())?;
    let slowest = report.against.as_ref().and_then(Comparison::slowest);
    match (slowest, args.fail_above, &args.against) {
        (Some((row, percent)), Some(most), Some(path)) if percent > most => Err(Error::input(
            format!("{} is {percent:.1} % slower than in {}", row.what, path.display()),
            format!("find out why: --fail-above {most}"),
        )),
        _ => Ok(()),
    }
}

/// Fails if a file cannot be written, or not over what it would replace.
fn check_outputs(args: &BenchArgs) -> Result<()> {
    let flags: [(&Option<PathBuf>, &str, &str, &[&str]); 3] = [
        (&args.report, "--report", "an HTML page, or SVG,", &["html", "htm", "svg"]),
        (&args.csv, "--csv", "CSV", &["csv", "txt"]),
        (&args.trace, "--trace", "JSON", &["json"]),
    ];
    let mut written = Vec::new();
    for (path, flag, what, endings) in flags {
        let Some(path) = path else { continue };
        outputs::check_name(path, flag, what, endings)?;
        written.push(Output::new(path, flag));
    }
    let read = [&args.from, &args.against].into_iter().flatten().map(|path| &**path);
    outputs::check(&written, read, "name another file")?;
    written.iter().try_for_each(|output| outputs::check_place(&output.path))
}

/// Measures or predicts; with the last epoch that was traced.
fn report(args: &BenchArgs) -> Result<(BenchReport, Traced)> {
    let mut recipe = args.shape.overridden(args.recipe.recipe());
    if args.shape.clusters == Some(Clusters::Auto) {
        return Err(Error::input(
            "--clusters auto",
            "say a number: what is measured must not depend on the images",
        ));
    }
    if args.epochs == Some(0) || args.images == Some(0) {
        return Err(Error::input(
            "nothing is to be measured",
            "use --epochs and --images of at least 1",
        ));
    }
    if recipe.method == Method::Supervised {
        let what =
            format!("the recipe {} learns from labels, which are not measured with", recipe.name);
        return Err(Error::input(
            what,
            "measure --recipe mdc: its steps are the same but for k-means",
        ));
    }
    match args.model {
        Some(model) => {
            recipe.check()?;
            model::report(model, args.images.unwrap_or(IMAGES), args, recipe)
        }
        None => {
            let started = Instant::now();
            let engine = Chosen::new(&args.engine, Autotune::Load)?;
            let mut sizes = None;
            let mut images = args.images.unwrap_or(IMAGES);
            if !engine.is_gpu() {
                images = args.images.unwrap_or(FEW_IMAGES);
                sizes = made_small(args, &mut recipe);
            }
            recipe.check()?;
            let mut dev = engine.open()?;
            let mut measuring = Measuring::new(&mut *dev, started);
            let set = match &args.data {
                Some(dir) => read(dir, args, images, recipe.stored)?,
                None => ImageStore::noise(images, recipe.stored, 1),
            };
            measuring.done("make or read images");
            let stop = match args.epochs {
                Some(epochs) => Stop::Epochs(epochs),
                None => Stop::Noise { percent: args.noise, seconds: args.seconds },
            };
            let set = PictureSet::Plain(set);
            let look_every = args.check_finite.into();
            let (report, traced) = measuring.run(recipe, &set, look_every, args.warm_up, stop)?;
            Ok((BenchReport { sizes, ..report }, traced))
        }
    }
}

/// Makes the sizes that were not given small enough for two cores, and says which these are.
fn made_small(args: &BenchArgs, recipe: &mut Recipe) -> Option<String> {
    let (was, shape) = (recipe.clone(), &args.shape);
    recipe.size = shape.size.unwrap_or(128.min(was.size));
    // Views are cut from images that are larger than they are.
    recipe.stored = shape.stored.unwrap_or(2 * recipe.size);
    recipe.batch = shape.batch.unwrap_or(32.min(was.batch));
    recipe.batch_cluster = shape.batch_cluster.unwrap_or(32.min(was.batch_cluster));
    let flags = [
        ("--size", recipe.size, was.size),
        ("--stored", recipe.stored, was.stored),
        ("--batch", recipe.batch, was.batch),
        ("--batch-cluster", recipe.batch_cluster, was.batch_cluster),
    ];
    let mut smaller: Vec<String> = flags
        .iter()
        .filter(|(_, now, was)| now != was)
        .map(|(flag, now, was)| format!("{flag} {now} for {was}"))
        .collect();
    if args.images.is_none() {
        smaller.push(format!("--images {FEW_IMAGES}"));
    }
    (!smaller.is_empty()).then(|| format!("chosen for the CPU: {}", smaller.join(", ")))
}

/// Reads the first `images` images of a folder.
fn read(dir: &Path, args: &BenchArgs, images: usize, stored: usize) -> Result<ImageStore> {
    let mut set = data::open(dir, None, "train", Classes::default(), &|_, _| ())?;
    account(&set);
    set.items.truncate(images);
    Reader::new(false, &args.keep, true).images(&set, Square::new(stored, Fit::Crop), "read images")
}
