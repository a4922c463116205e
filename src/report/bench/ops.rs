//! The rows of ops and of their kinds, from what was traced.

use std::collections::BTreeMap;

use crate::base::stats::Summary;
use crate::device::{Bound, Call, Peaks, Traced, Work};
use crate::report::bench::{KindRow, OpRow, short};

/// The calls of one op on one shape.
#[derive(Default)]
struct Calls {
    /// Microseconds of each call, by epoch.
    epochs: Vec<Vec<f64>>,
    bytes: f64,
    flops: f64,
    /// Microseconds at the floor, by what bounds them: memory, math, latency.
    floors: [f64; 3],
}

/// The place of a bound in [`Calls::floors`].
const BOUNDS: [Bound; 3] = [Bound::Memory, Bound::Math, Bound::Latency];

impl OpRow {
    /// The rows of all ops of some epochs, the one that took longest first. What the host did, and
    /// waits for images, are no ops.
    pub fn all(epochs: &[Traced], peaks: &Peaks) -> Vec<Self> {
        let mut ops: BTreeMap<&str, Calls> = BTreeMap::new();
        for (epoch, traced) in epochs.iter().enumerate() {
            let works = |call: &&Call| !call.host && call.work != Work::default();
            for call in traced.calls.iter().filter(works) {
                ops.entry(&traced.ops[call.op]).or_default().add(epoch, call, peaks);
            }
        }
        let total: f64 = ops.values().map(Calls::total).sum();
        let mut rows: Vec<Self> = ops
            .into_iter()
            .map(|(op, calls)| calls.row(op.to_string(), epochs.len(), total))
            .collect();
        rows.sort_by(|a, b| b.share_percent.total_cmp(&a.share_percent));
        rows
    }

    /// Puts what a model predicts for this op beside its measurement.
    pub fn predict(&mut self, predicted: &[OpRow]) {
        self.predicted_us = predicted.iter().find(|row| row.op == self.op).map(|row| row.mean_us);
    }

    /// The op without its shape.
    pub fn kind(&self) -> &str {
        self.op.split(' ').next().unwrap_or_default()
    }
}

impl Calls {
    fn add(&mut self, epoch: usize, call: &Call, peaks: &Peaks) {
        self.epochs.resize_with(self.epochs.len().max(epoch + 1), Vec::new);
        self.epochs[epoch].push(call.seconds * 1e6);
        self.bytes += call.work.bytes;
        self.flops += call.work.flops;
        let floor = peaks.floor(call.work);
        let bound = BOUNDS.iter().position(|bound| *bound == floor.bound).expect("a bound");
        self.floors[bound] += floor.seconds * 1e6;
    }

    /// Microseconds of all calls.
    fn total(&self) -> f64 {
        self.epochs.iter().flatten().sum()
    }

    fn row(&self, op: String, epochs: usize, total: f64) -> OpRow {
        let samples = self.epochs.concat();
        let n = samples.len() as f64;
        let (mean, floor) = (self.total() / n, self.floors.iter().sum::<f64>() / n);
        let most = (0..3).max_by(|&a, &b| self.floors[a].total_cmp(&self.floors[b]));
        let median = |epoch: &Vec<f64>| short(Summary::of(epoch).median);
        OpRow {
            op,
            calls: samples.len() / epochs,
            us: Summary::of(&samples),
            mean_us: mean,
            epochs_us: self.epochs.iter().filter(|e| !e.is_empty()).map(median).collect(),
            samples_us: samples.into_iter().map(short).collect(),
            predicted_us: None,
            bytes: self.bytes / n,
            flops: self.flops / n,
            intensity: if self.bytes > 0.0 { self.flops / self.bytes } else { 0.0 },
            tflop_per_s: self.flops / n / mean / 1e6,
            gb_per_s: self.bytes / n / mean / 1e3,
            floor_us: floor,
            bound: BOUNDS[most.unwrap_or(0)],
            efficiency_percent: 100.0 * floor / mean,
            share_percent: 100.0 * self.total() / total,
        }
    }
}

impl KindRow {
    /// The rows of all kinds of ops, the one that took longest first.
    pub fn all(ops: &[OpRow]) -> Vec<Self> {
        let mut kinds: BTreeMap<&str, KindRow> = BTreeMap::new();
        for op in ops {
            let row = kinds.entry(op.kind()).or_insert_with(|| KindRow {
                kind: op.kind().to_string(),
                calls: 0,
                seconds: 0.0,
                floor_s: 0.0,
                efficiency_percent: 0.0,
                share_percent: 0.0,
            });
            let calls = op.calls as f64 / 1e6;
            row.calls += op.calls;
            row.seconds += calls * op.mean_us;
            row.floor_s += calls * op.floor_us;
            row.share_percent += op.share_percent;
        }
        let mut rows: Vec<Self> = kinds.into_values().collect();
        rows.iter_mut().for_each(|row| row.efficiency_percent = 100.0 * row.floor_s / row.seconds);
        rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-9 * b, "{a} {b}");
    }

    /// Two epochs of an op with a shape, one without that moves other bytes in each call, and what
    /// the host does.
    fn epochs() -> Vec<Traced> {
        let call = |op, us: f64, bytes, flops| Call {
            op,
            span: None,
            work: Work { bytes, flops, windows: false },
            start: 0.0,
            seconds: us / 1e6,
            host: op == 2,
        };
        [50.0, 60.0]
            .map(|us| Traced {
                ops: ["conv 1×1", "zero", "host write"].map(String::from).to_vec(),
                calls: vec![
                    call(0, us, 1e7, 2e9),
                    call(0, us + 10.0, 1e7, 2e9),
                    call(1, 20.0, 1e6, 0.0),
                    call(1, 20.0, 9e6, 0.0),
                    call(2, 1000.0, 1e9, 0.0),
                ],
                spans: Vec::new(),
            })
            .to_vec()
    }

    #[test]
    fn an_op_is_summed_up_over_its_calls_and_epochs() {
        let rows = OpRow::all(&epochs(), &Peaks::known(1000.0, 100.0));
        let [conv, zero] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((conv.op.as_str(), conv.calls, conv.us.n), ("conv 1×1", 2, 4));
        assert_eq!((conv.us.min, conv.us.median, conv.us.max), (50.0, 60.0, 70.0));
        assert_eq!(conv.epochs_us, [55.0, 65.0]);
        // 10 MB take 10 µs, 2 GFLOP take 20 µs.
        near(conv.floor_us, 20.0);
        near(conv.efficiency_percent, 100.0 * 20.0 / 60.0);
        near(conv.tflop_per_s, 2e9 / 60.0 / 1e6);
        near(conv.share_percent, 75.0);
        assert_eq!((conv.bound, conv.intensity), (Bound::Math, 200.0));
        // The bytes of all calls count, not those of the last.
        near(zero.bytes, 5e6);
        near(zero.floor_us, 5.0);
        near(zero.efficiency_percent, 25.0);
        assert_eq!(zero.bound, Bound::Memory);
    }

    #[test]
    fn kinds_add_up() {
        let mut rows = OpRow::all(&epochs(), &Peaks::known(1000.0, 100.0));
        let other = OpRow { op: "conv 3×3".into(), ..rows[0].clone() };
        rows.push(other);
        let kinds = KindRow::all(&rows);
        assert_eq!((kinds[0].kind.as_str(), kinds[0].calls), ("conv", 4));
        near(kinds[0].seconds, 240e-6);
        near(kinds[0].efficiency_percent, 100.0 / 3.0);
    }
}
