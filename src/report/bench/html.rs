//! The report as a page: what it says first, then plots, then all numbers.

use crate::report::bench::conditions::mark;
use crate::report::bench::text::{bound, size};
use crate::report::bench::{BenchReport, Compared, OpRow};
use crate::report::html::{Bar, alone, bars, cells, escape, legend, page, table};
use crate::report::plot::{Axis, Plot, Scale};

/// Ops in the bars and in the list of what to look at first.
const SHOWN: usize = 24;
const FIRST: usize = 5;
/// Width and height of a plot, which is as wide as `large` in the style lets it be.
const SIZE: (f64, f64) = (560.0, 340.0);

/// A paragraph of text.
fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escape(text))
}

/// A table of texts.
fn plain(header: &[&str], rows: &[Vec<String>]) -> String {
    table(header, rows.iter().map(|row| cells(row)))
}

/// A plot on a page.
fn shown(plot: Plot, title: &str) -> String {
    format!("<div class=\"large\">{}</div>\n", plot.finish(title))
}

impl BenchReport {
    /// The report as one HTML file that needs nothing else.
    pub fn html(&self) -> String {
        let r = &self.recipe;
        let mut lines = vec![
            format!("{}, picie {} ({}), {}", self.engine, self.version, self.commit, self.date),
            format!(
                "recipe {}: {} images stored at {}², input {}², batches of {} and {}, {} clusters",
                r.name, self.images, r.stored, r.size, r.batch, r.batch_cluster, r.clusters
            ),
        ];
        lines.extend(self.sizes.clone());
        lines.extend(self.assumed.as_ref().map(|a| format!("predicted, not measured; {a}")));
        lines.extend(self.state());
        let title = "picie bench";
        let mut html = format!("<h1>{title}</h1>\n");
        html.extend(lines.iter().map(|line| paragraph(line)));
        let mut section = |heading: &str, body: &str| {
            html += &format!("<h2>{}</h2>\n{body}\n", escape(heading));
        };
        section("In short", &self.answers());
        if let Some(against) = &self.against {
            let rows = |rows: &[Compared]| rows.iter().map(Compared::cells).collect::<Vec<_>>();
            let header = ["", "old", "new", "%", "99 % interval", "verdict"];
            let mut body = paragraph(&format!("against {}", against.old));
            if !against.ignored.is_empty() {
                body += &paragraph(&format!("ignored: {}", against.ignored.join("; ")));
            }
            body += &plain(&header, &rows(&against.phases));
            section("Comparison", &(body + &plain(&header, &rows(&against.ops))));
        }
        section("Phases", &self.phase_section());
        section("Where the time goes", &self.accounts());
        let (plot, key) = self.roofline();
        let what = "A disc is an op on one shape; its area grows with its share of the time. Point \
                    at it for its name.";
        section("Roofline", &(paragraph(what) + &shown(plot, "roofline") + &key));
        section("Ops against their floors", &self.op_bars());
        section("Kinds of ops", &self.kind_table());
        section("All ops", &self.all_ops());
        if !self.kernels.is_empty() {
            let row = |k: &super::KernelRow| {
                let us = format!("{:.1}", k.us);
                vec![
                    k.kernel.clone(),
                    k.bound.clone(),
                    k.launches.to_string(),
                    us,
                    format!("{:.4}", k.seconds),
                ]
            };
            let rows: Vec<_> = self.kernels.iter().map(row).collect();
            section("Kernels", &plain(&["kernel", "bound by", "launches", "µs", "seconds"], &rows));
        }
        if !self.choices.is_empty() {
            let rows: Vec<_> = self.choices.iter().map(|choice| vec![choice.clone()]).collect();
            section("Engines of cuDNN", &plain(&["choice"], &rows));
        }
        section("Limits, start and device", &self.sheet());
        page(title, &html)
    }

    /// How fast, how far from the limit, what first, and what was in the way.
    fn answers(&self) -> String {
        let mut text = String::new();
        if let Some(epoch) = self.phases.last() {
            let mfu = epoch
                .mfu_percent
                .map_or(String::new(), |mfu| format!("; {mfu:.0} % of the peak of products (MFU)"));
            text += &paragraph(&format!(
                "{:.1} images/s over whole epochs, {:.0} % of what the limits of this machine allow{mfu}.",
                epoch.images_per_s, epoch.efficiency_percent
            ));
        }
        let excess = |op: &OpRow| op.calls as f64 * (op.mean_us - op.floor_us).max(0.0) / 1e6;
        let mut ops: Vec<&OpRow> = self.ops.iter().collect();
        ops.sort_by(|a, b| excess(b).total_cmp(&excess(a)));
        let all: f64 = self.ops.iter().map(|op| op.calls as f64 * op.mean_us / 1e6).sum();
        let row = |op: &&OpRow| {
            let seconds = excess(op);
            vec![op.op.clone(), format!("{seconds:.4}"), format!("{:.1}", 100.0 * seconds / all)]
        };
        let rows: Vec<_> = ops.iter().take(FIRST).map(row).collect();
        text += &paragraph("What to look at first: the ops that lose most time to their floors.");
        text + &plain(&["op", "seconds an epoch", "% of all ops"], &rows)
    }

    fn phase_section(&self) -> String {
        let rates =
            || self.phases.iter().flat_map(|p| p.samples_s.iter().map(|s| self.images as f64 / s));
        let epochs = self.phases.iter().map(|p| p.samples_s.len()).max().unwrap_or(1);
        let x = Axis::epochs(1.0, epochs as f64);
        let mut plot = Plot::new(SIZE, x, Axis::around("images/s", Scale::Log, rates()));
        for (series, phase) in self.phases.iter().enumerate() {
            let points: Vec<(f64, f64)> = phase
                .samples_s
                .iter()
                .enumerate()
                .map(|(i, s)| (i as f64 + 1.0, self.images as f64 / s))
                .collect();
            plot.line(&points, series);
            for (i, &(at, rate)) in points.iter().enumerate() {
                let marked = self.conditions.get(i).and_then(mark);
                let said = marked.as_deref().map_or(String::new(), |mark| format!(", {mark}"));
                let series = if marked.is_some() { 6 } else { series };
                plot.point(
                    (at, rate),
                    2.0,
                    series,
                    &format!("{}: {rate:.2} images/s{said}", phase.name),
                );
            }
        }
        let names: Vec<(usize, &str)> =
            self.phases.iter().enumerate().map(|(i, p)| (i, p.name.as_str())).collect();
        let row = |p: &super::PhaseRow| {
            let s = &p.seconds;
            let seconds = [s.min, s.q1, s.median, s.q3, s.max].map(|s| format!("{s:.4}"));
            let mut cells = vec![p.name.clone(), format!("{:.2}", p.images_per_s), s.n.to_string()];
            cells.extend(seconds);
            cells.push(format!("{:.1}", p.efficiency_percent));
            cells.push(p.mfu_percent.map_or("-".into(), |mfu| format!("{mfu:.1}")));
            cells.push(p.joules_per_image.map_or("-".into(), |joules| format!("{joules:.3}")));
            cells
        };
        let header = [
            "phase",
            "images/s",
            "n",
            "min s",
            "q1",
            "median",
            "q3",
            "max",
            "efficiency %",
            "MFU %",
            "J/image",
        ];
        let rows: Vec<_> = self.phases.iter().map(row).collect();
        let mut key = names;
        key.push((6, "marked: throttled or shared"));
        shown(plot, "images/s by epoch") + &legend(&key) + &plain(&header, &rows)
    }

    fn accounts(&self) -> String {
        let whole = self.phases.last().map_or(1.0, |p| p.traced_s);
        // A prediction has no copies of its own.
        let on_host = self.device["memory_mib"].is_null() && self.assumed.is_none();
        let row = |p: &super::PhaseRow| {
            let part = |seconds: f64, series, what: &str| {
                (seconds, series, format!("{what}: {seconds:.4} s"))
            };
            let mut parts = vec![
                part(p.floor_s.min(p.ops_s), 2, "ops, at their floors"),
                part(p.ops_s - p.floor_s, 0, "ops, above their floors"),
                part(p.wait_s, 3, "waiting for images"),
            ];
            if on_host {
                parts.push(part(p.host_s, 1, "host copies"));
            }
            parts.push(part(p.rest_s, 6, "rest"));
            Bar { label: p.name.clone(), note: format!("{:.3} s", p.traced_s), parts }
        };
        let rows: Vec<Bar> = self.phases.iter().map(row).collect();
        let key = [
            (2, "ops, at their floors"),
            (0, "ops, above their floors"),
            (3, "waiting for images"),
            (1, "host copies"),
            (6, "gaps and the host's other work"),
        ];
        bars(&rows, whole) + &legend(&key)
    }

    /// The plot of products over intensity, and what its colours mean.
    fn roofline(&self) -> (Plot, String) {
        let peaks = &self.peaks;
        let ops: Vec<&OpRow> = self.ops.iter().filter(|op| op.flops > 0.0).collect();
        let slow = peaks.copy_gb_per_s() / 1e3;
        let fast = peaks.copies.iter().map(|c| c.gb_per_s).fold(0.0, f64::max) / 1e3;
        let tops = [peaks.tflop_per_s, peaks.windows_tflop_per_s];
        let top = tops.iter().flatten().copied().fold(f64::INFINITY, f64::min);
        // From where on memory, and the fastest cache, are no limit any more.
        let ridges = [slow, fast].map(|rate| top / rate);
        let x = ops.iter().map(|op| op.intensity).chain(ridges);
        let x = Axis::around("FLOPs a byte", Scale::Log, x);
        let y = Axis::around(
            "TFLOP/s",
            Scale::Log,
            ops.iter().map(|op| op.tflop_per_s).chain(tops.into_iter().flatten()),
        );
        let (low, high) = (x.low, x.high);
        let mut plot = Plot::new(SIZE, x, y);
        for (top, what) in tops.iter().zip(["1×1 products", "3×3 windows"]) {
            let Some(top) = *top else { continue };
            plot.line(&[(low, top), (high, top)], 3);
            plot.word((high, top), what);
        }
        for (rate, what) in [(slow, "memory"), (fast, "fastest cache")] {
            if rate > 0.0 && top.is_finite() {
                let ridge = (top / rate).clamp(low, high);
                plot.line(&[(low, low * rate), (ridge, ridge * rate)], 6);
                plot.word((low, low * rate), what);
            }
        }
        for op in ops {
            let title = format!(
                "{}: {:.3} TFLOP/s, {:.1} FLOPs a byte, {:.0} % efficiency, {:.1} % of the time",
                op.op, op.tflop_per_s, op.intensity, op.efficiency_percent, op.share_percent
            );
            let series = if op.op.starts_with("conv") { 0 } else { 1 };
            plot.point(
                (op.intensity, op.tflop_per_s),
                1.0 + 4.0 * op.share_percent,
                series,
                &title,
            );
        }
        let key = [(0, "convolutions"), (1, "other ops"), (3, "peak of products"), (6, "copies")];
        (plot, legend(&key))
    }

    /// The roofline as a picture of its own.
    pub fn roofline_picture(&self) -> String {
        alone(&self.roofline().0.finish("roofline"))
    }

    fn op_bars(&self) -> String {
        let total = |op: &OpRow| op.calls as f64 * op.mean_us / 1e3;
        let whole = self.ops.first().map_or(1.0, total);
        let row = |op: &OpRow| {
            let floor = (op.calls as f64 * op.floor_us / 1e3).min(total(op));
            Bar {
                label: op.op.clone(),
                note: format!(
                    "{:.2} ms, {:.0} %, {}",
                    total(op),
                    op.efficiency_percent,
                    bound(op.bound)
                ),
                parts: vec![
                    (floor, 2, format!("floor: {floor:.3} ms")),
                    (total(op) - floor, 0, format!("above it: {:.3} ms", total(op) - floor)),
                ],
            }
        };
        let rows: Vec<Bar> = self.ops.iter().take(SHOWN).map(row).collect();
        let key = [(2, "floor"), (0, "above it")];
        paragraph("Milliseconds of an epoch, efficiency, and what bounds the op.")
            + &legend(&key)
            + &bars(&rows, whole)
    }

    fn kind_table(&self) -> String {
        let row = |k: &super::KindRow| {
            vec![
                k.kind.clone(),
                k.calls.to_string(),
                format!("{:.3}", k.seconds * 1e3),
                format!("{:.3}", k.floor_s * 1e3),
                format!("{:.1}", k.efficiency_percent),
                format!("{:.2}", k.share_percent),
            ]
        };
        let rows: Vec<_> = self.kinds.iter().map(row).collect();
        plain(&["kind", "calls", "ms an epoch", "floor ms", "efficiency %", "time %"], &rows)
    }

    fn all_ops(&self) -> String {
        let row = |op: &OpRow| {
            let mut cells = vec![op.op.clone(), op.calls.to_string()];
            let us = &op.us;
            cells.extend(
                [us.min, us.q1, us.median, us.q3, us.max, op.floor_us].map(|us| format!("{us:.1}")),
            );
            cells.push(op.predicted_us.map_or("-".into(), |us| format!("{us:.1}")));
            cells.push(bound(op.bound).into());
            cells.push(format!("{:.1}", op.efficiency_percent));
            cells.push(format!("{:.2}", op.share_percent));
            cells.push(format!("{:.3}", op.bytes / 1e6));
            cells.push(format!("{:.3}", op.flops / 1e9));
            cells.push(format!("{:.1}", op.gb_per_s));
            cells.push(format!("{:.4}", op.tflop_per_s));
            cells
        };
        let header = [
            "op",
            "calls",
            "min µs",
            "q1",
            "median",
            "q3",
            "max",
            "floor",
            "model",
            "bound",
            "efficiency %",
            "time %",
            "MB",
            "GFLOP",
            "GB/s",
            "TFLOP/s",
        ];
        plain(&header, &self.ops.iter().map(row).collect::<Vec<_>>())
    }

    fn sheet(&self) -> String {
        let copies: Vec<_> = self
            .peaks
            .copies
            .iter()
            .map(|copy| vec![size(copy.bytes), format!("{:.1}", copy.gb_per_s)])
            .collect();
        let start: Vec<_> = self
            .startup
            .iter()
            .map(|s| vec![s.what.clone(), format!("{:.3}", s.seconds)])
            .collect();
        let tera = |value: Option<f64>| value.map_or("not known".into(), |t| format!("{t:.3}"));
        let products = [
            ("1×1 products, TFLOP/s", self.peaks.tflop_per_s),
            ("3×3 windows, TFLOP/s", self.peaks.windows_tflop_per_s),
            ("data sheet, TFLOP/s", self.peaks.sheet_tflop_per_s),
            ("data sheet, GB/s", self.peaks.sheet_gb_per_s),
        ];
        let products: Vec<_> =
            products.iter().map(|(what, v)| vec![what.to_string(), tera(*v)]).collect();
        let facts = self.device.as_object().into_iter().flatten();
        let facts: Vec<_> =
            facts.map(|(name, value)| vec![name.replace('_', " "), value.to_string()]).collect();
        plain(&["copies of bytes", "GB/s"], &copies)
            + &plain(&["peaks", ""], &products)
            + &plain(&["once, in no figure above", "seconds"], &start)
            + &plain(&["device", ""], &facts)
    }
}
