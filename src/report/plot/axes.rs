//! A plot in the making: two axes, and lines, discs, bars and words between them.

use std::fmt::Write;

use crate::report::html::escape;

/// How numbers lie on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Equal steps are equal differences.
    Linear,
    /// Equal steps are equal factors.
    Log,
    /// As linear, of whole numbers, such as epochs.
    Whole,
}

/// An axis: what it shows (empty: it has no label), and from where to where.
#[derive(Clone, Debug)]
pub struct Axis {
    pub label: String,
    pub low: f64,
    pub high: f64,
    pub scale: Scale,
}

impl Axis {
    /// An axis around `values`, somewhat wider than they are. Those that it cannot show count for
    /// nothing.
    pub fn around(label: &str, scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let good = values.filter(|v| v.is_finite() && (scale != Scale::Log || *v > 0.0));
        let (low, high) = good
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        let (low, high) = match (low <= high, scale) {
            (false, _) => (1.0, 10.0),
            (true, Scale::Log) => (low / 1.5, high * 1.5),
            (true, _) => {
                let margin = 0.06 * if high > low { high - low } else { high.abs().max(1.0) };
                (low - margin, high + margin)
            }
        };
        Axis { label: label.into(), low, high, scale }
    }

    /// An axis from `low` to `high` of epochs, with room at its ends.
    pub fn epochs(low: f64, high: f64) -> Self {
        Axis { label: "epoch".into(), low: low - 0.6, high: high + 0.6, scale: Scale::Whole }
    }

    /// The place of `value` between 0 and 1.
    fn place(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Log => (value / self.low).ln() / (self.high / self.low).ln(),
            _ => (value - self.low) / (self.high - self.low),
        };
        part.clamp(0.0, 1.0)
    }

    /// Round values on the axis: powers of ten, or some five steps of 1, 2 or 5.
    fn ticks(&self) -> Vec<f64> {
        if self.scale == Scale::Log {
            let (first, last) = (self.low.log10().ceil() as i32, self.high.log10().floor() as i32);
            let every = (last - first) / 8 + 1;
            let powers = (first..=last).step_by(every as usize).map(|p| 10f64.powi(p));
            let powers: Vec<f64> = powers.collect();
            if powers.len() > 1 {
                return powers;
            }
        }
        let raw = (self.high - self.low) / 5.0;
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|s| s * power).into_iter().find(|s| *s >= raw);
        let step = match self.scale {
            Scale::Whole => step.unwrap_or(raw).max(1.0),
            _ => step.unwrap_or(raw),
        };
        let first = (self.low / step).ceil() as i64;
        (first..).map(|i| i as f64 * step).take_while(|v| *v <= self.high).collect()
    }
}

/// A plot in the making.
pub struct Plot {
    /// Width and height, in units of which a letter is 13 high.
    size: (f64, f64),
    x: Axis,
    y: Axis,
    marks: String,
}

/// What lies around a plot: numbers and labels.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;

impl Plot {
    pub fn new(size: (f64, f64), x: Axis, y: Axis) -> Self {
        Plot { size, x, y, marks: String::new() }
    }

    /// Where a point lies.
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let (across, down) = (self.size.0 - LEFT - RIGHT, self.size.1 - TOP - BOTTOM);
        (LEFT + across * self.x.place(x), TOP + down * (1.0 - self.y.place(y)))
    }

    /// Draws a line through points, in the style of a series.
    pub fn line(&mut self, points: &[(f64, f64)], series: usize) {
        let at = |&point| {
            let (x, y) = self.at(point);
            format!("{x:.1},{y:.1}")
        };
        let path: Vec<String> = points.iter().map(at).collect();
        let path = path.join(" ");
        let _ = writeln!(self.marks, r#"<polyline class="line s{series}" points="{path}"/>"#);
    }

    /// Draws a point as a disc of an area in proportion to `weight` (1: a small one); `title` shows
    /// when it is pointed at.
    pub fn point(&mut self, at: (f64, f64), weight: f64, series: usize, title: &str) {
        let ((x, y), r) = (self.at(at), (9.0 * weight).sqrt().clamp(2.0, 18.0));
        let title = escape(title);
        let _ = writeln!(
            self.marks,
            r#"<circle class="mark s{series}" cx="{x:.1}" cy="{y:.1}" r="{r:.1}"><title>{title}</title></circle>"#
        );
    }

    /// Draws a bar at x from one y to another; a bar takes 0.7 of a step of the x axis at most.
    pub fn bar(&mut self, x: f64, (low, high): (f64, f64), series: usize, title: &str) {
        let step = (self.size.0 - LEFT - RIGHT) / (self.x.high - self.x.low);
        let width = (0.7 * step).clamp(0.5, 40.0);
        let ((middle, top), (_, bottom)) = (self.at((x, high)), self.at((x, low)));
        let (left, height, title) = (middle - width / 2.0, bottom - top, escape(title));
        let _ = writeln!(
            self.marks,
            r#"<rect class="bar s{series}" x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}"><title>{title}</title></rect>"#
        );
    }

    /// Writes a word beside a place.
    pub fn word(&mut self, at: (f64, f64), word: &str) {
        let (x, y) = self.at(at);
        let (anchor, shift) = if x > self.size.0 / 2.0 { ("end", -6.0) } else { ("start", 6.0) };
        let (x, y, word) = (x + shift, (y - 6.0).max(TOP + 12.0), escape(word));
        let _ =
            writeln!(self.marks, r#"<text class="{anchor}" x="{x:.1}" y="{y:.1}">{word}</text>"#);
    }

    /// The plot as an `svg` element, which is called `title`.
    pub fn finish(self, title: &str) -> String {
        let ((width, height), title) = (self.size, escape(title));
        let (right, bottom) = (width - RIGHT, height - BOTTOM);
        let mut svg = format!(
            r#"<svg class="chart" role="img" aria-label="{title}" viewBox="0 0 {width} {height}">"#
        );
        for tick in self.x.ticks() {
            let ((x, _), below, tick) = (self.at((tick, self.y.low)), bottom + 17.0, number(tick));
            let _ = writeln!(
                svg,
                r#"<path class="grid" d="M{x:.1} {TOP}V{bottom}"/><text class="mid" x="{x:.1}" y="{below}">{tick}</text>"#
            );
        }
        for tick in self.y.ticks() {
            let ((_, y), before, tick) = (self.at((self.x.low, tick)), LEFT - 6.0, number(tick));
            let _ = writeln!(
                svg,
                r#"<path class="grid" d="M{LEFT} {y:.1}H{right}"/><text class="end" x="{before}" y="{:.1}">{tick}</text>"#,
                y + 4.5
            );
        }
        let _ = writeln!(svg, r#"<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>"#);
        svg += &self.marks;
        let ((x, y), label) = (((LEFT + right) / 2.0, height - 5.0), escape(&self.x.label));
        let _ = writeln!(svg, r#"<text class="mid" x="{x:.1}" y="{y:.1}">{label}</text>"#);
        if !self.y.label.is_empty() {
            let (middle, label) = ((TOP + bottom) / 2.0, escape(&self.y.label));
            let _ = writeln!(
                svg,
                r#"<text class="mid" transform="translate(14 {middle:.1}) rotate(-90)">{label}</text>"#
            );
        }
        svg + "</svg>"
    }
}

/// A tick's number, in as few letters as it needs.
fn number(value: f64) -> String {
    let size = value.abs();
    let short = |v: f64| {
        let text = format!("{v:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    };
    match size {
        0.0 => "0".into(),
        _ if size >= 1e9 => short(value / 1e9) + "G",
        _ if size >= 1e6 => short(value / 1e6) + "M",
        _ if size >= 1e4 => short(value / 1e3) + "k",
        _ if size < 1e-2 => format!("{value:.0e}"),
        _ => short(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_lie_where_the_axes_say() {
        let x = Axis { label: "x".into(), low: 1.0, high: 100.0, scale: Scale::Log };
        let y = Axis { label: "y".into(), low: 0.0, high: 4.0, scale: Scale::Linear };
        let mut plot = Plot::new((468.0, 252.0), x, y);
        plot.point((10.0, 1.0), 1.0, 3, "a<b");
        plot.line(&[(1.0, 0.0), (100.0, 4.0)], 0);
        plot.word((100.0, 4.0), "roof");
        plot.bar(10.0, (1.0, 3.0), 2, "");
        let svg = plot.finish("roof over x");
        // The middle of 58 to 458, and a quarter up from 212 to 12.
        assert!(svg.contains(r#"cx="258.0" cy="162.0""#), "{svg}");
        assert!(svg.contains(r#"points="58.0,212.0 458.0,12.0""#), "{svg}");
        assert!(svg.contains(r#"y="62.0" width="2.8" height="100.0""#), "{svg}");
        assert!(svg.contains("<title>a&lt;b</title>") && svg.contains(">roof</text>"), "{svg}");
    }

    #[test]
    fn ticks_are_round_numbers() {
        let axis = |low, high, scale| Axis { label: String::new(), low, high, scale };
        let (linear, log) = (Scale::Linear, Scale::Log);
        assert_eq!(axis(0.0, 10.0, linear).ticks(), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(axis(0.5, 2000.0, log).ticks(), [1.0, 10.0, 100.0, 1000.0]);
        assert!(axis(3.0, 4.0, log).ticks().len() >= 4, "less than a power of ten");
        let texts = [0.0, 0.001, 0.25, 3.0 * 0.2, 12.0, 2e4, 3e6].map(number);
        assert_eq!(texts, ["0", "1e-3", "0.25", "0.6", "12", "20k", "3M"]);
        assert_eq!(Axis::epochs(1.0, 2.0).ticks(), [1.0, 2.0]);
        assert_eq!(Axis::epochs(1.0, 1.0).ticks(), [1.0]);
        assert!(Axis::epochs(1.0, 300.0).ticks().len() <= 9);
        let around = Axis::around("", log, [0.0, 2.0, f64::NAN, 8.0].into_iter());
        assert!(around.low < 2.0 && around.low > 1.0 && around.high > 8.0);
        assert!(Axis::around("", linear, [5.0].into_iter()).low < 5.0);
    }
}
