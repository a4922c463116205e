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
use crate::device::{Dtype, Engine, Peaks, Traced};
use crate::recipe::Recipe;
use crate::report::bench::{Account, BenchReport, KernelRow, KindRow, OpRow, PhaseRow, SCHEMA};
use crate::train::{EpochSeconds, Measured};

/// What the model says of one epoch.
pub struct Prediction {
    pub seconds: EpochSeconds,
    /// As a trace of the real GPU has it.
    pub traced: Traced,
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
    (&mut paper as &mut dyn Engine).start_trace()?;
    let seconds = measured.epoch(&mut paper, &mut |_| Ok(()))?;
    let traced = (&mut paper as &mut dyn Engine).take_trace()?;
    let convolutions = paper.convolutions();
    Ok(Prediction { seconds, traced, kernels: paper.take_kernels(), convolutions })
}

/// The report of `--model`.
pub fn report(
    model: Model,
    images: usize,
    args: &BenchArgs,
    recipe: Recipe,
) -> Result<(BenchReport, Traced)> {
    let gpu = match model {
        Model::H100 => H100,
        Model::H200 => H200,
    };
    let dtype = gpu_dtype(&args.engine);
    let Prediction { seconds, traced, kernels, convolutions } =
        predict(gpu, dtype, &recipe, images)?;
    let peaks = Peaks::known(gpu.copy / 1e9, gpu.products() / 1e12);
    let mut kernels: Vec<KernelRow> = kernels.into_iter().map(row).collect();
    kernels.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let mut traced = vec![traced];
    let ops = OpRow::all(&traced, &peaks);
    let phase = |(name, seconds)| {
        let account = Account::of(name, &[seconds], &traced, &peaks);
        PhaseRow::new(name, images, &[seconds], account, &peaks, false)
    };
    let report = BenchReport {
        schema: SCHEMA,
        date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        version: env!("CARGO_PKG_VERSION").into(),
        commit: env!("PICIE_COMMIT").into(),
        engine: format!("{} on paper, {}", gpu.name, dtype.name()),
        device: serde_json::json!({ "name": format!("{} on paper", gpu.name) }),
        recipe,
        images,
        sizes: None,
        warm_up_epochs: 0,
        stopped: "one is predicted".into(),
        startup: Vec::new(),
        conditions: Vec::new(),
        phases: seconds.named().into_iter().map(phase).collect(),
        peaks,
        choices: Vec::new(),
        kinds: KindRow::all(&ops),
        ops,
        kernels,
        assumed: Some(convolutions),
        against: None,
    };
    Ok((report, traced.pop().unwrap_or_default()))
}

fn row((kernel, predicted): (&'static str, Predicted)) -> KernelRow {
    let Predicted { launches, seconds, bound, .. } = predicted;
    let us = seconds / launches as f64 * 1e6;
    KernelRow { kernel: kernel.into(), launches, us, seconds, bound: bound.into() }
}
