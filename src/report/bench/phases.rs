//! The rows of phases: how long they took, and what of it the ops account for.

use crate::base::stats::Summary;
use crate::device::{Call, Peaks, Traced, Work};
use crate::report::bench::{PhaseRow, short};

/// What was traced of a phase, a mean of the epochs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Account {
    traced_s: f64,
    ops_s: f64,
    wait_s: f64,
    host_s: f64,
    host_bytes: f64,
    floor_s: f64,
    flops: f64,
}

impl Account {
    /// Sums up the phase `name`, or all phases if it is `epoch`. It took `seconds` in each of the
    /// epochs.
    pub fn of(name: &str, seconds: &[f64], epochs: &[Traced], peaks: &Peaks) -> Self {
        let mut all = Account::default();
        for traced in epochs {
            let inside = |call: &&Call| name == "epoch" || traced.outermost(call) == Some(name);
            for call in traced.calls.iter().filter(inside) {
                all.add(call, peaks);
            }
        }
        let n = epochs.len().max(1) as f64;
        Account {
            traced_s: seconds.iter().sum::<f64>() / n,
            ops_s: all.ops_s / n,
            wait_s: all.wait_s / n,
            host_s: all.host_s / n,
            host_bytes: all.host_bytes / n,
            floor_s: all.floor_s / n,
            flops: all.flops / n,
        }
    }

    fn add(&mut self, call: &Call, peaks: &Peaks) {
        if call.host {
            self.host_s += call.seconds;
            self.host_bytes += call.work.bytes;
        } else if call.work == Work::default() {
            self.wait_s += call.seconds;
        } else {
            self.ops_s += call.seconds;
            self.floor_s += peaks.floor(call.work).seconds;
            self.flops += call.work.flops;
        }
    }
}

impl PhaseRow {
    /// The row of a phase that took `seconds` in each epoch, over `images` images. `on_host`: the
    /// engine is the host, so that it computes nothing while it copies.
    pub fn new(
        name: &str,
        images: usize,
        seconds: &[f64],
        account: Account,
        peaks: &Peaks,
        on_host: bool,
    ) -> Self {
        let summary = Summary::of(seconds);
        let rate = |s: f64| images as f64 / s;
        let Account { traced_s, ops_s, wait_s, host_s, host_bytes, floor_s, flops } = account;
        let taken = ops_s + wait_s + if on_host { host_s } else { 0.0 };
        let of_median = |s: f64| 100.0 * s / summary.median;
        PhaseRow {
            name: name.into(),
            seconds: summary,
            samples_s: seconds.iter().copied().map(short).collect(),
            images_per_s: rate(summary.median),
            slowest: rate(summary.max),
            fastest: rate(summary.min),
            traced_s,
            ops_s,
            wait_s,
            host_s,
            host_bytes,
            rest_s: traced_s - taken,
            floor_s,
            efficiency_percent: of_median(floor_s),
            joules_per_image: None,
            images_per_s_per_watt: None,
            mfu_percent: peaks.tflop_per_s.map(|peak| of_median(flops / (peak * 1e12))),
        }
    }
}

impl PhaseRow {
    /// Adds what an image costs at a mean power of so many watts.
    pub fn at_power(mut self, watts: Option<f64>) -> Self {
        self.joules_per_image = watts.map(|watts| short(watts / self.images_per_s));
        self.images_per_s_per_watt = watts.map(|watts| short(self.images_per_s / watts));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Span;

    #[test]
    fn a_phase_is_summed_up_by_its_quartiles_and_closed_by_what_is_left() {
        let call = |op, span, seconds, bytes, host| Call {
            op,
            span: Some(span),
            work: Work { bytes, flops: 10.0 * bytes, windows: false },
            start: 0.0,
            seconds,
            host,
        };
        let span = |name: &str, parent| Span { name: name.into(), parent };
        let traced = Traced {
            ops: ["a", "wait for images", "host write"].map(String::from).to_vec(),
            calls: vec![
                call(0, 1, 1.0, 1e9, false),
                call(1, 1, 0.25, 0.0, false),
                call(2, 0, 0.125, 2e9, true),
                call(0, 2, 8.0, 1e9, false),
            ],
            spans: vec![span("train", None), span("step", Some(0)), span("labels", None)],
        };
        let peaks = Peaks::known(2.0, 0.1);
        let epochs = [traced.clone(), traced];
        let account = Account::of("train", &[2.5, 1.5], &epochs, &peaks);
        let row = PhaseRow::new("train", 30, &[3.0, 1.0, 2.0], account, &peaks, false);
        assert_eq!((row.images_per_s, row.slowest, row.fastest), (15.0, 10.0, 30.0));
        assert_eq!(
            (row.ops_s, row.wait_s, row.host_s, row.host_bytes, row.rest_s),
            (1.0, 0.25, 0.125, 2e9, 0.75)
        );
        // 1 GB at 2 GB/s in 2 s; 10 GFLOP at 100 GFLOP/s.
        assert_eq!((row.floor_s, row.efficiency_percent), (0.5, 25.0));
        assert!((row.mfu_percent.unwrap() - 5.0).abs() <= 1e-9);
        let costs = row.clone().at_power(Some(300.0));
        assert_eq!((costs.joules_per_image, costs.images_per_s_per_watt), (Some(20.0), Some(0.05)));
        let host = PhaseRow::new("train", 30, &[2.0], account, &peaks, true);
        assert_eq!(host.rest_s, 0.625);
        assert_eq!(Account::of("epoch", &[10.0; 2], &epochs, &peaks).ops_s, 9.0);
    }
}
