//! Plots as SVG: axes, lines and points. Colours are those of the page around them, so they follow
//! light and dark.

use std::fmt::Write;

use crate::report::bench::page::escape;

/// An axis: what it shows, and from where to where.
#[derive(Clone, Debug)]
pub struct Axis {
    pub label: String,
    pub low: f64,
    pub high: f64,
    /// Whether equal steps are equal factors.
    pub log: bool,
}

impl Axis {
    /// An axis around `values`, somewhat wider than they are.
    pub fn around(label: &str, log: bool, values: impl Iterator<Item = f64>) -> Self {
        let good = values.filter(|v| v.is_finite() && (!log || *v > 0.0));
        let (low, high) = good
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        let (low, high) = match (low <= high, log) {
            (false, _) => (1.0, 10.0),
            (true, true) => (low / 1.5, high * 1.5),
            (true, false) => {
                let margin = 0.06 * if high > low { high - low } else { high.abs().max(1.0) };
                (low - margin, high + margin)
            }
        };
        Axis { label: label.into(), low, high, log }
    }

    /// The place of `value` between 0 and 1.
    fn place(&self, value: f64) -> f64 {
        let part = if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        part.clamp(0.0, 1.0)
    }

    /// Round values on the axis: powers of ten, or some six steps of 1, 2 or 5.
    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let (first, last) = (self.low.log10().ceil() as i32, self.high.log10().floor() as i32);
            let every = (last - first) / 8 + 1;
            let powers = (first..=last).step_by(every as usize).map(|p| 10f64.powi(p));
            let powers: Vec<f64> = powers.collect();
            if powers.len() > 1 {
                return powers;
            }
        }
        let raw = (self.high - self.low) / 6.0;
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|s| s * power).into_iter().find(|s| *s >= raw);
        let step = step.unwrap_or(raw);
        let first = (self.low / step).ceil() as i64;
        (first..).map(|i| i as f64 * step).take_while(|v| *v <= self.high).collect()
    }
}

/// A plot in the making.
pub struct Plot {
    x: Axis,
    y: Axis,
    marks: String,
}

/// Size of a plot and of its frame, in its own units; a line of text is 12 of them high.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;

impl Plot {
    pub fn new(x: Axis, y: Axis) -> Self {
        Plot { x, y, marks: String::new() }
    }

    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let (across, down) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        (LEFT + across * self.x.place(x), TOP + down * (1.0 - self.y.place(y)))
    }

    /// Draws a line through points, in the colour of a series.
    pub fn line(&mut self, points: &[(f64, f64)], series: usize) {
        let mut path = String::new();
        for &point in points {
            let (x, y) = self.at(point);
            let _ = write!(path, "{x:.1},{y:.1} ");
        }
        let _ = writeln!(
            self.marks,
            "<polyline class=\"line l{series}\" points=\"{}\"/>",
            path.trim_end()
        );
    }

    /// Draws a point as a disc of an area in proportion to `weight` (1: a small one); `title` shows
    /// when it is pointed at.
    pub fn point(&mut self, at: (f64, f64), weight: f64, series: usize, title: &str) {
        let ((x, y), r) = (self.at(at), (9.0 * weight).sqrt().clamp(2.0, 18.0));
        let _ = writeln!(
            self.marks,
            "<circle class=\"f{series}\" fill-opacity=\"0.75\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r:.1}\"><title>{}</title></circle>",
            escape(title)
        );
    }

    /// Writes a word beside a place.
    pub fn word(&mut self, at: (f64, f64), word: &str) {
        let (x, y) = self.at(at);
        let (anchor, shift) = if x > WIDTH / 2.0 { ("end", -6.0) } else { ("start", 6.0) };
        let _ = writeln!(
            self.marks,
            "<text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            x + shift,
            (y - 6.0).max(TOP + 12.0),
            escape(word)
        );
    }

    /// The plot as an `svg` element.
    pub fn finish(self) -> String {
        let label = escape(&format!("{} over {}", self.y.label, self.x.label));
        let mut svg =
            format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">\n");
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in self.x.ticks() {
            let (x, _) = self.at((tick, self.y.low));
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                number(tick)
            );
        }
        for tick in self.y.ticks() {
            let (_, y) = self.at((self.x.low, tick));
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                number(tick)
            );
        }
        let (across, down) = (right - LEFT, bottom - TOP);
        let _ = writeln!(
            svg,
            "<rect class=\"frame\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{across}\" height=\"{down}\"/>"
        );
        svg += &self.marks;
        let _ = writeln!(
            svg,
            "<text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            LEFT + across / 2.0,
            HEIGHT - 8.0,
            escape(&self.x.label)
        );
        let _ = writeln!(
            svg,
            "<text class=\"soft\" transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            TOP + down / 2.0,
            escape(&self.y.label)
        );
        svg + "</svg>\n"
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
        let x = Axis { label: "x".into(), low: 1.0, high: 100.0, log: true };
        let y = Axis { label: "y".into(), low: 0.0, high: 4.0, log: false };
        let mut plot = Plot::new(x, y);
        plot.point((10.0, 1.0), 1.0, 3, "a<b");
        plot.line(&[(1.0, 0.0), (100.0, 4.0)], 0);
        plot.word((100.0, 4.0), "roof");
        let svg = plot.finish();
        // The middle of 58 to 546, and a quarter up from 296 to 12.
        assert!(svg.contains("cx=\"302.0\" cy=\"225.0\""), "{svg}");
        assert!(svg.contains("points=\"58.0,296.0 546.0,12.0\""), "{svg}");
        assert!(svg.contains("<title>a&lt;b</title>") && svg.contains(">roof</text>"), "{svg}");
    }

    #[test]
    fn ticks_are_round_numbers() {
        let axis = |low, high, log| Axis { label: String::new(), low, high, log };
        assert_eq!(axis(0.0, 10.0, false).ticks(), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(axis(0.5, 2000.0, true).ticks(), [1.0, 10.0, 100.0, 1000.0]);
        assert!(axis(3.0, 4.0, true).ticks().len() >= 4, "less than a power of ten");
        let texts = [0.0, 0.001, 0.25, 12.0, 2e4, 3e6].map(number);
        assert_eq!(texts, ["0", "1e-3", "0.25", "12", "20k", "3M"]);
        let around = Axis::around("", true, [0.0, 2.0, f64::NAN, 8.0].into_iter());
        assert!(around.low < 2.0 && around.low > 1.0 && around.high > 8.0);
        assert!(Axis::around("", false, [5.0].into_iter()).low < 5.0);
    }
}
