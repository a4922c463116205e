//! What `picie bench` measured: a sheet of the device, images/s of each phase, and every op beside
//! its floor.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::device::{Timing, Work};
use crate::report::table::plain;

/// The speed of one phase: median and spread over the measured epochs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhaseRate {
    pub name: &'static str,
    /// The seconds of each epoch, in order.
    pub seconds: Vec<f64>,
    /// Images of the data set over the median of the seconds: each counts once, though both views
    /// of it are computed.
    pub images_per_s: f64,
    /// Images per second in the slowest and in the fastest epoch.
    pub slowest: f64,
    pub fastest: f64,
}

impl PhaseRate {
    pub fn new(name: &'static str, images: usize, seconds: Vec<f64>) -> Self {
        let mut sorted = seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
        let rate = |s: f64| images as f64 / s;
        PhaseRate {
            name,
            seconds,
            images_per_s: rate(median),
            slowest: rate(sorted[n - 1]),
            fastest: rate(sorted[0]),
        }
    }
}

/// A row of the table of ops: one op on one shape, over one epoch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OpRow {
    pub op: String,
    pub calls: usize,
    /// The mean time of a call in microseconds.
    pub us: f64,
    /// What the model of this GPU predicts, where there is one.
    pub predicted_us: Option<f64>,
    pub tflop_per_s: f64,
    pub gb_per_s: f64,
    /// The least time of a call: the larger of bytes over the copy bandwidth and FLOPs over the
    /// peak, where the peak is known.
    pub floor_us: f64,
    pub percent_of_floor: f64,
    /// The share of this op in the time of all ops.
    pub share_percent: f64,
}

/// The peaks of the machine, which bound every op.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Peaks {
    /// The bandwidth of the engine's own copy, measured: bytes read and written.
    pub copy_gb_per_s: f64,
    /// The rate of products, which is known for some GPUs and types.
    pub tflop_per_s: Option<f64>,
}

impl OpRow {
    /// The row of an op that took `seconds` in all its calls and moves these bytes and FLOPs in
    /// one; all ops together took `total` seconds.
    pub fn new(op: String, timing: &Timing, peaks: &Peaks, total: f64) -> Self {
        let Timing { calls, seconds, work: Work { bytes, flops } } = *timing;
        let us = seconds / calls as f64 * 1e6;
        let floor = bytes / (peaks.copy_gb_per_s * 1e3);
        let floor_us = peaks.tflop_per_s.map_or(floor, |peak| floor.max(flops / (peak * 1e6)));
        OpRow {
            op,
            calls,
            us,
            predicted_us: None,
            tflop_per_s: flops / us / 1e6,
            gb_per_s: bytes / us / 1e3,
            floor_us,
            percent_of_floor: 100.0 * floor_us / us,
            share_percent: 100.0 * seconds / total,
        }
    }

    /// The rows of all ops of an epoch, the one that took longest first.
    pub fn all(timings: &BTreeMap<String, Timing>, peaks: &Peaks) -> Vec<Self> {
        let total = timings.values().map(|t| t.seconds).sum();
        let row = |(op, timing): (&String, _)| OpRow::new(op.clone(), timing, peaks, total);
        let mut rows: Vec<Self> = timings.iter().map(row).collect();
        rows.sort_by(|a, b| b.share_percent.total_cmp(&a.share_percent));
        rows
    }

    /// Puts the prediction for this op beside its measurement.
    pub fn predict(&mut self, predicted: &BTreeMap<String, Timing>) {
        let mean = |timing: &Timing| timing.seconds / timing.calls as f64 * 1e6;
        self.predicted_us = predicted.get(&self.op).map(mean);
    }
}

/// A row of the table of kernels: what a model predicts for one kernel, over one epoch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelRow {
    pub kernel: &'static str,
    pub launches: usize,
    /// The mean time of a launch in microseconds.
    pub us: f64,
    /// Seconds of all launches.
    pub seconds: f64,
    /// What bounds most of these seconds.
    pub bound: &'static str,
}

/// Everything that `picie bench` measured.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// The time of the measurement, in UTC.
    pub date: String,
    pub version: &'static str,
    pub commit: &'static str,
    pub engine: String,
    /// What the device says of itself.
    pub device: serde_json::Value,
    pub recipe: crate::recipe::Recipe,
    pub images: usize,
    pub warm_up_epochs: usize,
    pub phases: Vec<PhaseRate>,
    pub peaks: Peaks,
    /// The engines of cuDNN that were chosen, a line each.
    pub choices: Vec<String>,
    /// The ops, the slowest first.
    pub ops: Vec<OpRow>,
    /// The kernels of a prediction, the slowest first; none where ops were measured.
    pub kernels: Vec<KernelRow>,
    /// What a prediction assumes.
    pub assumed: Option<String>,
}

impl BenchReport {
    /// The report as a text of tables.
    pub fn text(&self) -> String {
        let r = &self.recipe;
        let mut text =
            format!("{} · picie {} ({}) · {}\n", self.engine, self.version, self.commit, self.date);
        text += &format!(
            "recipe {}: {} images stored at {}², input {}², batches of {} and {}, {} clusters; {} \
             epochs after {} to warm up\n",
            r.name,
            self.images,
            r.stored,
            r.size,
            r.batch,
            r.batch_cluster,
            r.clusters,
            self.phases[0].seconds.len(),
            self.warm_up_epochs
        );
        let phases = self.phases.iter().map(|p| {
            vec![
                p.name.to_string(),
                format!("{:.1}", p.images_per_s),
                format!("{:.1}", p.slowest),
                format!("{:.1}", p.fastest),
                format!("{:.3}", self.images as f64 / p.images_per_s),
            ]
        });
        let header = ["phase", "images/s\nmedian", "slowest", "fastest", "seconds"];
        text += &format!("{}\n", plain(&header, 2, phases));
        let peak = self.peaks.tflop_per_s.map_or("not known".into(), |p| format!("{p:.0} TFLOP/s"));
        let source = if self.assumed.is_some() { "assumed" } else { "measured" };
        text += &format!(
            "floors: copies of {:.0} GB/s ({source}), products {peak}; bytes are those that must \
             move\n",
            self.peaks.copy_gb_per_s
        );
        if let Some(assumed) = &self.assumed {
            text += &format!("predicted, not measured; {assumed}\n");
            text += &format!("{}\n", plain(&KERNELS, 1, self.kernels.iter().map(KernelRow::cells)));
        }
        let modelled = self.ops.iter().any(|o| o.predicted_us.is_some());
        let ops = self.ops.iter().map(|o| {
            let mut cells = vec![
                o.op.clone(),
                o.calls.to_string(),
                format!("{:.1}", o.us),
                format!("{:.2}", o.tflop_per_s),
                format!("{:.0}", o.gb_per_s),
                format!("{:.1}", o.floor_us),
                format!("{:.0}", o.percent_of_floor),
                format!("{:.1}", o.share_percent),
            ];
            if modelled {
                cells.push(o.predicted_us.map_or(String::new(), |us| format!("{us:.1}")));
            }
            cells
        });
        let mut header = vec![
            "op, one epoch",
            "calls",
            "µs",
            "TFLOP/s",
            "GB/s",
            "floor\nµs",
            "% of\nfloor",
            "% of\ntime",
        ];
        header.extend(modelled.then_some("model\nµs"));
        text + &plain(&header, 1, ops).to_string()
    }
}

/// The header of the table of kernels.
const KERNELS: [&str; 5] = ["kernel, one epoch", "bound by", "launches", "µs", "seconds"];

impl KernelRow {
    fn cells(&self) -> Vec<String> {
        vec![
            self.kernel.to_string(),
            self.bound.to_string(),
            self.launches.to_string(),
            format!("{:.1}", self.us),
            format!("{:.3}", self.seconds),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_summed_up_by_its_median_and_extremes() {
        let p = PhaseRate::new("train", 30, vec![3.0, 1.0, 2.0]);
        assert_eq!((p.images_per_s, p.slowest, p.fastest), (15.0, 10.0, 30.0));
        assert_eq!(PhaseRate::new("train", 6, vec![1.0, 3.0]).images_per_s, 3.0);
    }

    #[test]
    fn an_op_s_floor_is_the_larger_of_bytes_and_products() {
        let peaks = Peaks { copy_gb_per_s: 1000.0, tflop_per_s: Some(100.0) };
        // 2 calls of 50 µs; 10 MB take 10 µs, 2 GFLOP take 20 µs.
        let work = Work { bytes: 1e7, flops: 2e9 };
        let timing = Timing { calls: 2, seconds: 100e-6, work };
        let row = OpRow::new("op".into(), &timing, &peaks, 200e-6);
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b;
        assert!(near(row.us, 50.0) && near(row.floor_us, 20.0) && near(row.percent_of_floor, 40.0));
        assert!(
            near(row.tflop_per_s, 40.0)
                && near(row.gb_per_s, 200.0)
                && near(row.share_percent, 50.0)
        );
        let peaks = Peaks { tflop_per_s: None, ..peaks };
        let bytes_only = OpRow::new("op".into(), &timing, &peaks, 1.0);
        assert!(near(bytes_only.floor_us, 10.0));
    }
}
