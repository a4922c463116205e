//! The command `picie bench`, which measures images per second and the time of every op, or
//! predicts both.

mod model;

use std::path::Path;
use std::time::SystemTime;

use crate::base::{Error, Result, stop};
use crate::cli::args::{BenchArgs, Clusters};
use crate::cli::engine::Chosen;
use crate::cli::read::Reader;
use crate::cli::say;
use crate::data::{self, Classes, Fit, ImageStore, PictureSet, Square};
use crate::device::cuda::Autotune;
use crate::device::{Dtype, Engine, Layout, Pool};
use crate::recipe::{Method, Recipe};
use crate::report::Progress;
use crate::report::bench::{BenchReport, OpRow, Peaks, PhaseRate};
use crate::train::{EpochSeconds, Measured};

/// The speed of GPUs, by name, in dense 16-bit matrix products with f32 sums, in TFLOP/s. It was
/// measured with large matrices on one H200, and is assumed for the H100, which has the same units.
const TENSOR_CORES: [(&str, f64); 2] = [("H200", 790.0), ("H100", 790.0)];

/// Runs the command, and prints its measurements as tables or JSON.
pub fn run(args: &BenchArgs) -> Result<()> {
    let recipe = args.shape.overridden(args.recipe.recipe());
    recipe.check()?;
    if args.shape.clusters == Some(Clusters::Auto) {
        return Err(Error::input(
            "--clusters auto",
            "say a number: what is measured must not depend on the images",
        ));
    }
    if args.epochs == 0 || args.images == 0 {
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
    let report = match args.model {
        Some(model) => model::report(model, args, recipe)?,
        None => {
            let engine = Chosen::new(&args.engine, Autotune::Load)?;
            let set = match &args.data {
                Some(dir) => read(dir, args, recipe.stored)?,
                None => ImageStore::noise(args.images, recipe.stored, 1),
            };
            measure(&mut *engine.open()?, args, recipe, &PictureSet::Plain(set))?
        }
    };
    say(if args.json {
        serde_json::to_string(&report).expect("a report is plain data")
    } else {
        report.text()
    })
}

/// Reads the first `--images` images of a folder.
fn read(dir: &Path, args: &BenchArgs, stored: usize) -> Result<ImageStore> {
    let mut set = data::open(dir, None, "train", Classes::default(), &|_, _| ())?;
    set.items.truncate(args.images);
    Reader::new(false, &args.keep).images(&set, Square::new(stored, Fit::Crop), "read images")
}

fn measure(
    dev: &mut dyn Engine,
    args: &BenchArgs,
    recipe: Recipe,
    set: &PictureSet,
) -> Result<BenchReport> {
    let images = set.images().len();
    let device = dev.describe();
    let name = device["name"].as_str().unwrap_or_default();
    let peak = TENSOR_CORES.iter().find(|(gpu, _)| name.contains(gpu));
    let peaks = Peaks {
        copy_gb_per_s: copy_bandwidth(dev)?,
        // Tensor cores do not compute in f32.
        tflop_per_s: peak.filter(|_| dev.dtype() != Dtype::F32).map(|(_, peak)| *peak),
    };
    let bar = Progress::phase("bench", (images * (args.warm_up + args.epochs + 2)) as u64);
    let mut measured = Measured::plan(dev, &recipe, set, args.check_finite.into())?;
    let mut epochs: Vec<EpochSeconds> = Vec::new();
    for epoch in 0..args.warm_up + args.epochs {
        let seconds = measured.epoch(dev, &mut |_| stop::check())?;
        epochs.extend((epoch >= args.warm_up).then_some(seconds));
        bar.add(images as u64);
    }
    drop(measured);

    dev.start_trace();
    let mut measured = Measured::plan(dev, &recipe, set, args.check_finite.into())?;
    measured.epoch(dev, &mut |_| stop::check())?;
    bar.add(images as u64);
    dev.start_trace();
    measured.epoch(dev, &mut |_| stop::check())?;
    bar.finish();
    let mut ops = OpRow::all(&dev.traced()?, &peaks);
    if let Some(gpu) = model::of(name) {
        let predicted = model::predict(gpu, dev.dtype(), &recipe, images)?;
        ops.iter_mut().for_each(|row| row.predict(&predicted.ops));
    }

    let choices = dev.choices();
    let phase = |name, of: fn(&EpochSeconds) -> f64| {
        PhaseRate::new(name, images, epochs.iter().map(of).collect())
    };
    let phases = vec![
        phase("k-means", |s| s.kmeans),
        phase("labels", |s| s.labels),
        phase("train", |s| s.train),
        phase("epoch", EpochSeconds::total),
    ];
    Ok(BenchReport {
        date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("PICIE_COMMIT"),
        engine: format!("{name}, {}", dev.dtype().name()),
        device: device.clone(),
        images,
        warm_up_epochs: args.warm_up,
        // IIC has neither k-means nor labels.
        phases: phases.into_iter().filter(|phase| phase.seconds.iter().any(|&s| s > 0.0)).collect(),
        recipe,
        choices,
        peaks,
        ops,
        kernels: Vec::new(),
        assumed: None,
    })
}

/// The bandwidth of the engine's copy in GB/s, bytes read and written: the median of nine copies,
/// of buffers that are too large for caches.
fn copy_bandwidth(dev: &mut dyn Engine) -> Result<f64> {
    let len = 256 << 20;
    let mut layout = Layout::new(dev.dtype());
    let [a, b] = ["from", "to"].map(|name| layout.take::<u8>(Pool::Acts, name, len));
    dev.reserve(&layout)?;
    dev.zero(a)?;
    dev.copy(b, a)?;
    let mut seconds = Vec::new();
    for _ in 0..9 {
        let start = dev.mark()?;
        dev.copy(b, a)?;
        let end = dev.mark()?;
        seconds.push(dev.seconds(&start, &end)?);
    }
    seconds.sort_by(f64::total_cmp);
    Ok(2.0 * len as f64 / seconds[4] / 1e9)
}
