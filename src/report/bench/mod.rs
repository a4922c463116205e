//! What `picie bench` measured. `docs/bench.md` describes the fields for readers of the JSON.

mod compared;
pub mod conditions;
mod files;
mod html;
mod ops;
mod phases;
mod text;

pub use compared::{Compared, Comparison, Verdict};
pub use files::trace;
pub use phases::Account;

use serde::{Deserialize, Serialize};

use crate::base::stats::Summary;
use crate::device::{Bound, Peaks, State};
use crate::recipe::Recipe;

/// The version of the JSON: another one where a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// Everything that `picie bench` measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BenchReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The time of the measurement, in UTC.
    pub date: String,
    pub version: String,
    pub commit: String,
    pub engine: String,
    /// What the device says of itself.
    pub device: serde_json::Value,
    pub recipe: Recipe,
    pub images: usize,
    /// Why the sizes are what they are, where picie chose them.
    pub sizes: Option<String>,
    pub warm_up_epochs: usize,
    /// Why no more epochs were measured.
    pub stopped: String,
    /// What came before the first epoch that is measured.
    pub startup: Vec<StartUp>,
    /// The state of the device in each epoch of `phases`; empty where it tells nothing.
    pub conditions: Vec<State>,
    /// The phases of an epoch, and `epoch`, which is all of them.
    pub phases: Vec<PhaseRow>,
    pub peaks: Peaks,
    /// The engines of cuDNN that were chosen, a line each.
    pub choices: Vec<String>,
    /// The ops by name, over all shapes; the slowest first.
    pub kinds: Vec<KindRow>,
    /// The ops by shape, the slowest first.
    pub ops: Vec<OpRow>,
    /// The kernels of a prediction, the slowest first; none where ops were measured.
    pub kernels: Vec<KernelRow>,
    /// What a prediction assumes.
    pub assumed: Option<String>,
    /// The comparison with another report, if one was asked for.
    pub against: Option<Comparison>,
}

/// Seconds of something that happens once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartUp {
    pub what: String,
    pub seconds: f64,
}

/// One phase of the epochs that were measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseRow {
    pub name: String,
    /// Seconds of an epoch's phase, while nothing is traced.
    pub seconds: Summary,
    /// The seconds of each epoch, in order.
    pub samples_s: Vec<f64>,
    /// Images of the data set over the median of the seconds: each counts once, though both views
    /// of it are computed.
    pub images_per_s: f64,
    /// Images per second in the slowest and in the fastest epoch.
    pub slowest: f64,
    pub fastest: f64,
    /// Seconds of an epoch's phase while each op is timed, the mean of the epochs in which that is
    /// done; what follows is of the same epochs.
    pub traced_s: f64,
    /// Seconds that all ops take, in an epoch; `wait_s` and `host_s` are not in it.
    pub ops_s: f64,
    /// Seconds that the engine waits for copies of images.
    pub wait_s: f64,
    /// Seconds that copies keep the host busy, and the bytes of them. On a GPU the host copies
    /// while ops run.
    pub host_s: f64,
    pub host_bytes: f64,
    /// `traced_s` less all that is accounted for: gaps between ops, and the host's other work where
    /// the engine waits for it.
    pub rest_s: f64,
    /// Seconds that all ops would take at their floors.
    pub floor_s: f64,
    /// `floor_s` over the median of the seconds, in percent.
    pub efficiency_percent: f64,
    /// Joules for an image, and images a second for a watt, where the power is known.
    pub joules_per_image: Option<f64>,
    pub images_per_s_per_watt: Option<f64>,
    /// FLOPs of all ops over what the peak of products would compute in the median of the seconds,
    /// in percent.
    pub mfu_percent: Option<f64>,
}

/// All ops of one name, over one epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KindRow {
    pub kind: String,
    pub calls: usize,
    pub seconds: f64,
    pub floor_s: f64,
    pub efficiency_percent: f64,
    pub share_percent: f64,
}

/// One op on one shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpRow {
    pub op: String,
    /// Calls in an epoch.
    pub calls: usize,
    /// Microseconds of a call, over all calls of all epochs that were traced.
    pub us: Summary,
    /// The mean of them.
    pub mean_us: f64,
    /// The microseconds of each call, in order.
    pub samples_us: Vec<f64>,
    /// The median of each epoch's calls: what runs are compared by.
    pub epochs_us: Vec<f64>,
    /// What the model of this GPU predicts for a call, where there is one.
    pub predicted_us: Option<f64>,
    /// Bytes that a call must move and FLOPs that it must compute, means of all calls.
    pub bytes: f64,
    pub flops: f64,
    /// FLOPs over bytes.
    pub intensity: f64,
    pub tflop_per_s: f64,
    pub gb_per_s: f64,
    /// The least time of a call on this engine, a mean, and what bounds it.
    pub floor_us: f64,
    pub bound: Bound,
    /// `floor_us` over `mean_us`, in percent: 100 is as fast as this engine's copies and products.
    pub efficiency_percent: f64,
    /// The share of this op in the time of all ops.
    pub share_percent: f64,
}

/// A row of the table of kernels: what a model predicts for one kernel, over one epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelRow {
    pub kernel: String,
    pub launches: usize,
    /// The mean time of a launch in microseconds.
    pub us: f64,
    /// Seconds of all launches.
    pub seconds: f64,
    /// What bounds most of these seconds.
    pub bound: String,
}

/// `value` with six significant digits, so that files of raw samples stay small.
pub(crate) fn short(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    format!("{value:.5e}").parse().expect("a number")
}
