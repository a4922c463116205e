//! The report as a text of tables, 80 columns wide.

use crate::device::Bound;
use crate::report::bench::{BenchReport, KernelRow, KindRow, OpRow, PhaseRow};
use crate::report::table::plain;

/// Columns of a terminal.
const WIDTH: usize = 80;

impl BenchReport {
    /// The report, with the `top` ops that take most of the time; 0 for all of them.
    pub fn text(&self, top: usize) -> String {
        let mut lines = self.head();
        lines.push(phase_table(&self.phases));
        if self.assumed.is_none() {
            lines.push(accounts(&self.phases));
        }
        lines.extend(self.state().as_deref().map(wrap));
        let cost = self.phases.last().and_then(|p| p.joules_per_image.zip(p.images_per_s_per_watt));
        lines.extend(cost.map(|(joules, rate)| {
            format!("an epoch takes {joules:.3} J an image: {rate:.3} images/s for a watt")
        }));
        lines.extend(self.limits());
        if let Some(assumed) = &self.assumed {
            lines.push(wrap(&format!("predicted, not measured; {assumed}")));
            lines.push(table(&KERNELS, self.kernels.iter().map(KernelRow::cells).collect()));
        }
        lines.push(table(&KINDS, self.kinds.iter().map(KindRow::cells).collect()));
        lines.push(self.op_table(top));
        lines.extend(self.against.as_ref().map(|against| against.text(top)));
        lines.join("\n")
    }

    fn head(&self) -> Vec<String> {
        let r = &self.recipe;
        let mut lines = vec![
            self.engine.clone(),
            format!("picie {} ({}), {}", self.version, self.commit, self.date),
            wrap(&format!(
                "recipe {}: {} images stored at {}², input {}², batches of {} and {}, {} clusters",
                r.name, self.images, r.stored, r.size, r.batch, r.batch_cluster, r.clusters,
            )),
        ];
        lines.extend(self.sizes.as_deref().map(wrap));
        if self.assumed.is_none() {
            let epochs = self.phases[0].samples_s.len();
            lines.push(wrap(&format!(
                "{epochs} epochs after {} to warm up; {}",
                self.warm_up_epochs, self.stopped
            )));
            let rows =
                self.startup.iter().map(|s| vec![s.what.clone(), format!("{:.2}", s.seconds)]);
            lines.push(table(&["once, in no figure below", "seconds"], rows.collect()));
        }
        lines
    }

    /// What ops are held against.
    fn limits(&self) -> Vec<String> {
        let source = if self.assumed.is_some() { "assumed" } else { "measured" };
        let peaks = &self.peaks;
        let copies = match &peaks.copies[..] {
            [copy] => format!("{:.0} GB/s", copy.gb_per_s),
            copies => copies
                .iter()
                .map(|c| format!("{} {:.0}", size(c.bytes), c.gb_per_s))
                .collect::<Vec<_>>()
                .join(", "),
        };
        let sheet =
            peaks.sheet_gb_per_s.map_or(String::new(), |s| format!(" (data sheet: {s:.0})"));
        let tera =
            |p: Option<f64>| p.map_or("not known".to_string(), |p| format!("{p:.3} TFLOP/s"));
        let windows =
            peaks.windows_tflop_per_s.map(|p| format!(", of 3×3 windows {}", tera(Some(p))));
        let products = peaks.sheet_tflop_per_s.map(|p| format!(" (data sheet: {p:.0})"));
        vec![
            wrap(&format!("limits, {source}: copies in GB/s by bytes moved: {copies}{sheet}")),
            wrap(&format!(
                "products {}{}{}",
                tera(peaks.tflop_per_s),
                products.unwrap_or_default(),
                windows.unwrap_or_default(),
            )),
            wrap(
                "efficiency: the time that these limits allow for the bytes that must move and the \
                 FLOPs that must be computed, over the time taken",
            ),
        ]
    }

    fn op_table(&self, top: usize) -> String {
        let modelled = self.ops.iter().any(|op| op.predicted_us.is_some());
        let shown = if top == 0 { self.ops.len() } else { top.min(self.ops.len()) };
        let last = if modelled { "model\nµs" } else { "bound" };
        let header =
            ["op, one epoch", "calls", "µs\nmedian", "spread\n%", "effic.\n%", "time\n%", last];
        let rows = self.ops[..shown].iter().map(|op| op.cells(modelled)).collect();
        let mut text = table(&header, rows);
        if shown < self.ops.len() {
            let rest: f64 = self.ops[shown..].iter().map(|op| op.share_percent).sum();
            let hidden = self.ops.len() - shown;
            text += &format!("\n{hidden} more take {rest:.1} % of the time: --top 0 shows them");
        }
        text
    }
}

const KERNELS: [&str; 5] = ["kernel, one epoch", "bound by", "launches", "µs", "seconds"];
const KINDS: [&str; 6] =
    ["all shapes, one epoch", "calls", "ms", "floor\nms", "effic.\n%", "time\n%"];

impl KernelRow {
    fn cells(&self) -> Vec<String> {
        vec![
            self.kernel.clone(),
            self.bound.clone(),
            self.launches.to_string(),
            format!("{:.1}", self.us),
            format!("{:.3}", self.seconds),
        ]
    }
}

impl KindRow {
    fn cells(&self) -> Vec<String> {
        vec![
            self.kind.clone(),
            self.calls.to_string(),
            format!("{:.2}", self.seconds * 1e3),
            format!("{:.2}", self.floor_s * 1e3),
            format!("{:.0}", self.efficiency_percent),
            format!("{:.1}", self.share_percent),
        ]
    }
}

impl OpRow {
    fn cells(&self, modelled: bool) -> Vec<String> {
        let last = if modelled {
            self.predicted_us.map_or(String::new(), |us| format!("{us:.1}"))
        } else {
            bound(self.bound).to_string()
        };
        vec![
            self.op.replace(" → ", "→").replace(", ", " "),
            self.calls.to_string(),
            format!("{:.1}", self.us.median),
            format!("{:.0}", 100.0 * (self.us.q3 - self.us.q1) / self.us.median),
            format!("{:.0}", self.efficiency_percent),
            format!("{:.1}", self.share_percent),
            last,
        ]
    }
}

/// What bounds an op, in a word.
pub(super) fn bound(bound: Bound) -> &'static str {
    match bound {
        Bound::Memory => "memory",
        Bound::Math => "math",
        Bound::Latency => "latency",
    }
}

/// A number of bytes with its unit, a power of 1024.
pub(super) fn size(bytes: f64) -> String {
    let units = ["B", "K", "M", "G"];
    let power = ((bytes.log2() / 10.0).floor() as usize).min(3);
    format!("{:.0}{}", bytes / 1024f64.powi(power as i32), units[power])
}

fn phase_table(phases: &[PhaseRow]) -> String {
    let header =
        ["phase", "images/s", "seconds\nmedian", "quartiles", "min", "max", "effic.\n%", "MFU\n%"];
    let rows = phases.iter().map(|p| {
        let s = &p.seconds;
        vec![
            p.name.clone(),
            format!("{:.1}", p.images_per_s),
            format!("{:.3}", s.median),
            format!("{:.3}–{:.3}", s.q1, s.q3),
            format!("{:.3}", s.min),
            format!("{:.3}", s.max),
            format!("{:.0}", p.efficiency_percent),
            p.mfu_percent.map_or("-".into(), |mfu| format!("{mfu:.0}")),
        ]
    });
    table(&header, rows.collect())
}

/// Sum of ops against wall clock.
fn accounts(phases: &[PhaseRow]) -> String {
    let header =
        ["seconds of a timed epoch", "all", "ops", "waits", "rest", "host\ncopies", "GB/s"];
    let rows = phases.iter().map(|p| {
        let seconds = |s: f64| format!("{s:.3}");
        let rate = if p.host_s > 0.0 {
            format!("{:.1}", p.host_bytes / p.host_s / 1e9)
        } else {
            "-".into()
        };
        vec![
            p.name.clone(),
            seconds(p.traced_s),
            seconds(p.ops_s),
            seconds(p.wait_s),
            seconds(p.rest_s),
            seconds(p.host_s),
            rate,
        ]
    });
    table(&header, rows.collect())
}

/// A table whose first column is cut where the table would be wider than a terminal.
pub(super) fn table(header: &[&str], mut rows: Vec<Vec<String>>) -> String {
    let length = |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    let others: usize = (1..header.len())
        .map(|i| {
            1 + rows.iter().map(|row| length(&row[i])).max().unwrap_or(0).max(length(header[i]))
        })
        .sum();
    let room = WIDTH.saturating_sub(others);
    for row in &mut rows {
        if length(&row[0]) > room {
            let cut: String = row[0].chars().take(room.saturating_sub(1)).collect();
            row[0] = cut + "…";
        }
    }
    plain(header, 0, rows.into_iter()).to_string()
}

/// `text` in lines that a terminal holds.
pub(super) fn wrap(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is a line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(format!("  {word}"));
        } else {
            let space = if line.is_empty() { "" } else { " " };
            *line += &format!("{space}{word}");
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_wide_is_cut_and_wrapped() {
        let rows = vec![vec!["x".repeat(100), "1".repeat(20)], vec!["short".into(), "2".into()]];
        let text = table(&["op", "calls"], rows);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains("x… 1111") && text.contains("short"), "{text}");
        let text = wrap(&"word ".repeat(40));
        assert!(text.lines().count() == 3 && text.lines().all(|l| l.chars().count() <= WIDTH));
        assert_eq!([size(8192.0), size(536870912.0), size(100.0)], ["8K", "512M", "100B"]);
    }
}
