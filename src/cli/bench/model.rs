//! Predictions: the same training on a GPU on paper.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::base::Result;
use crate::cli::args::{BenchArgs, Model};
use crate::cli::engine::gpu_dtype;
use crate::cli::paths::cudnn_engines;
use crate::data::{ImageStore, PictureSet};
use crate::device::cuda::EngineTimes;
use crate::device::paper::{Gpu, H100, H200, Paper, Predicted};
use crate::device::{Dtype, Engine, Timing};
use crate::recipe::Recipe;
use crate::report::bench::{BenchReport, KernelRow, OpRow, Peaks, PhaseRate};
use crate::train::{EpochSeconds, Measured};

/// What the model says of one epoch.
pub struct Prediction {
    pub seconds: EpochSeconds,
    /// By op and shape, as a trace of the real GPU has them.
    pub ops: BTreeMap<String, Timing>,
    kernels: BTreeMap<&'static str, Predicted>,
    /// What the times of convolutions rest on.
    convolutions: String,
}

/// The model of the GPU that calls itself `name`, if there is one.
pub fn of(name: &str) -> Option<Gpu> {
    [H100, H200].into_iter().find(|gpu| name.contains(gpu.name))
}

/// Predicts an epoch of `images` images.
pub fn predict(gpu: Gpu, dtype: Dtype, recipe: &Recipe, images: usize) -> Result<Prediction> {
    let set = PictureSet::Plain(ImageStore::black(images, recipe.stored));
    let times = EngineTimes::read(&cudnn_engines(), gpu.name, dtype);
    let mut paper = Paper::new(gpu, dtype, Some(times));
    let mut measured = Measured::plan(&mut paper, recipe, &set, 1)?;
    paper.take_kernels();
    (&mut paper as &mut dyn Engine).start_trace();
    let seconds = measured.epoch(&mut paper, &mut |_| Ok(()))?;
    let ops = (&mut paper as &mut dyn Engine).traced()?;
    let convolutions = paper.convolutions();
    Ok(Prediction { seconds, ops, kernels: paper.take_kernels(), convolutions })
}

/// The report of `--model`.
pub fn report(model: Model, args: &BenchArgs, recipe: Recipe) -> Result<BenchReport> {
    let gpu = match model {
        Model::H100 => H100,
        Model::H200 => H200,
    };
    let (dtype, images) = (gpu_dtype(&args.engine), args.images);
    let Prediction { seconds, ops, kernels, convolutions } = predict(gpu, dtype, &recipe, images)?;
    let peaks = Peaks { copy_gb_per_s: gpu.copy / 1e9, tflop_per_s: Some(gpu.products() / 1e12) };
    let phases = [
        ("k-means", seconds.kmeans),
        ("labels", seconds.labels),
        ("train", seconds.train),
        ("epoch", seconds.total()),
    ];
    let mut kernels: Vec<KernelRow> = kernels.into_iter().map(row).collect();
    kernels.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok(BenchReport {
        date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("PICIE_COMMIT"),
        engine: format!("{} on paper, {}", gpu.name, dtype.name()),
        device: serde_json::json!({ "name": format!("{} on paper", gpu.name) }),
        recipe,
        images,
        warm_up_epochs: 0,
        phases: phases
            .into_iter()
            .filter(|(_, seconds)| *seconds > 0.0)
            .map(|(name, seconds)| PhaseRate::new(name, images, vec![seconds]))
            .collect(),
        peaks,
        choices: Vec::new(),
        ops: OpRow::all(&ops, &peaks),
        kernels,
        assumed: Some(convolutions),
    })
}

fn row((kernel, predicted): (&'static str, Predicted)) -> KernelRow {
    let Predicted { launches, seconds, bound, .. } = predicted;
    KernelRow { kernel, launches, us: seconds / launches as f64 * 1e6, seconds, bound }
}
