//! `picie bench` as it is typed.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::cli::args::{EngineArgs, KeepArgs, RecipeName, ShapeArgs};
use crate::train::MOST_UNSEEN;

#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// Method to measure, with its numbers
    #[arg(help_heading = "Recipe", long, value_enum, default_value = "picie-released")]
    pub recipe: RecipeName,
    /// Folder with images [default: random ones]
    #[arg(help_heading = "Data", long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Number of images, or with --data the largest; if they do not fit on a GPU, they are copied
    /// to it batch by batch [default: 2048, on the CPU 64; there other sizes that are not given
    /// are small as well, so that all takes about a minute where nothing else runs]
    #[arg(help_heading = "Data", long, value_name = "N")]
    pub images: Option<usize>,
    /// Measure this many epochs, whatever their noise
    #[arg(help_heading = "Recipe", long, value_name = "N", conflicts_with_all = ["seconds", "noise"])]
    pub epochs: Option<usize>,
    /// Measure no longer than this many seconds, but five epochs at least
    #[arg(long, default_value_t = 60.0, value_name = "S")]
    pub seconds: f64,
    /// Stop when the noise of the median of epochs is below this: half the width of its notch
    /// (1.57 · interquartile range / √n), in percent of the median
    #[arg(long, default_value_t = 0.5, value_name = "PCT")]
    pub noise: f64,
    /// Epochs that are run before and not measured; on a GPU the first two load libraries and
    /// record steps
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub warm_up: usize,
    /// Check that losses are finite every N steps; a check waits for the GPU. Checkpoints are
    /// always checked
    #[arg(help_heading = "Expert", long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=MOST_UNSEEN as i64))]
    pub check_finite: u8,
    #[command(flatten)]
    pub keep: KeepArgs,
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// Measure nothing, but predict what this GPU would take; needs no GPU and no images
    #[arg(long, value_enum, value_name = "GPU", conflicts_with_all = ["data", "epochs", "seconds", "noise", "warm_up", "check_finite", "no_graph", "autotune", "deterministic"])]
    pub model: Option<Model>,
    /// Ops in the table, those that take most of the time; 0 for all
    #[arg(help_heading = "Output", long, default_value_t = 15, value_name = "N")]
    pub top: usize,
    /// Show a report that was measured before, and measure nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "recipe", "data", "images", "epochs", "seconds", "noise", "warm_up", "check_finite", "KeepArgs", "ShapeArgs", "autotune", "deterministic", "no_graph"])]
    pub from: Option<PathBuf>,
    /// Compare with an older report, row by row: SAME, FASTER, SLOWER or UNSURE
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    pub against: Option<PathBuf>,
    /// Exit with 1 if a phase, or an op that takes at least 1 % of the time, is SLOWER than in the
    /// older report, which takes 2 %, and surely by more than this many percent
    #[arg(long, value_name = "PCT", requires = "against")]
    pub fail_above: Option<f64>,
    /// Compare reports of different devices, drivers, recipes or sizes as well
    #[arg(long, requires = "against")]
    pub ignore_device: bool,
    /// Write a page with plots to this file: one HTML file that needs nothing else. A name that
    /// ends in .svg gets the roofline alone
    #[arg(help_heading = "Output", long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Write a traced epoch to this file, for Perfetto or chrome://tracing
    #[arg(help_heading = "Output", long, value_name = "FILE", conflicts_with = "from")]
    pub trace: Option<PathBuf>,
    /// Write phases and ops to this file as CSV
    #[arg(help_heading = "Output", long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Print one line of JSON, which docs/bench.md describes
    #[arg(help_heading = "Output", long)]
    pub json: bool,
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// A GPU that can be modelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Model {
    H100,
    H200,
}
