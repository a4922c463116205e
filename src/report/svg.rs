//! Plots as SVG elements for a page of HTML. Colours, fonts and dashes are those of the page's
//! style (`html/style.css`): a plot names classes, so that it is light or dark as the page is.

use std::fmt::Write;

use crate::report::html::escape;

/// The width and the height of a chart, in units of which a letter is 13 high.
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 240.0;
/// The place of the plot in the chart: left, top, right, bottom.
const PLOT: [f64; 4] = [58.0, 12.0, 450.0, 200.0];
/// The number of styles of series in `html/style.css`; then they begin anew.
const STYLES: usize = 7;
/// Above this number of points a line has no marks, which would hide it.
const MARKED: usize = 120;
/// The side of a cell of a heat map without and with numbers, and up to how many columns it has
/// those.
const CELL: f64 = 22.0;
const NUMBERED: f64 = 36.0;
const FEW: usize = 16;

/// A named line through points (x, y), in the order of x.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// A chart of lines over epochs, with axes, a mark at each point, and a legend if there are
/// several. The marks say their values when they are pointed at.
pub fn lines(title: &str, unit: &str, lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| &line.points);
    let (xs, ys) = (range(all().map(|p| p.0)), range(all().map(|p| p.1)));
    let axes = Axes { x: pad(xs, 0.0), y: pad(ys, 0.06) };
    let mut svg = axes.frame(title, &whole_ticks(axes.x));
    for (i, line) in lines.iter().enumerate() {
        let style = i % STYLES;
        let at = |&(x, y): &(f64, f64)| format!("{:.1},{:.1}", axes.x(x), axes.y(y));
        let path: Vec<String> = line.points.iter().map(at).collect();
        let path = path.join(" ");
        let _ = write!(svg, r#"<polyline class="line s{style}" points="{path}"/>"#);
        let marked = line.points.iter().filter(|_| line.points.len() <= MARKED);
        for &(x, y) in marked {
            let (name, value) = (escape(&line.name), figure(y));
            let (cx, cy) = (axes.x(x), axes.y(y));
            let _ = write!(
                svg,
                r#"<circle class="mark s{style}" cx="{cx:.1}" cy="{cy:.1}" r="3.2"><title>{name}, epoch {x}: {value}{unit}</title></circle>"#
            );
        }
    }
    let names: Vec<&str> = lines.iter().map(|line| &*line.name).collect();
    figure_of(title, unit, svg, &names, "line")
}

/// A chart of bars over epochs, each of parts that lie on each other: `bars` are (x, the parts'
/// values), `names` those of the parts.
pub fn stacks(title: &str, unit: &str, names: &[&str], bars: &[(f64, Vec<f64>)]) -> String {
    let top = bars.iter().map(|bar| bar.1.iter().sum()).fold(0.0, f64::max);
    let (lo, hi) = range(bars.iter().map(|bar| bar.0));
    let axes = Axes { x: (lo - 0.6, hi + 0.6), y: (0.0, if top > 0.0 { top * 1.06 } else { 1.0 }) };
    let mut svg = axes.frame(title, &whole_ticks((lo, hi)));
    let width = ((PLOT[2] - PLOT[0]) / (axes.x.1 - axes.x.0) * 0.7).clamp(0.5, 40.0);
    for (x, parts) in bars {
        let mut under = 0.0;
        for (i, &part) in parts.iter().enumerate().filter(|(_, part)| **part > 0.0) {
            let (left, top) = (axes.x(*x) - width / 2.0, axes.y(under + part));
            let (height, style) = (axes.y(under) - top, i % STYLES);
            let (name, value) = (escape(names[i]), figure(part));
            let _ = write!(
                svg,
                r#"<rect class="bar s{style}" x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}"><title>{name}, epoch {x}: {value}{unit}</title></rect>"#
            );
            under += part;
        }
    }
    figure_of(title, unit, svg, names, "bar")
}

/// A table of shares (0 to 1) as a map of cells, the darker the larger; `rows` and `columns` are
/// the names, and a cell is `None` where there is nothing to share. It is as large as it has to be:
/// on a narrow page it scrolls. Few columns have numbers, in percent.
pub fn heat(title: &str, rows: &[&str], columns: &[&str], shares: &[Vec<Option<f64>>]) -> String {
    let numbers = columns.len() <= FEW;
    let cell = if numbers { NUMBERED } else { CELL };
    let longest = |names: &[&str]| {
        names.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(24) as f64 * 7.2 + 12.0
    };
    let (left, above) = (longest(rows), longest(columns) * 0.75 + 8.0);
    let width = left + cell * columns.len() as f64 + longest(columns) * 0.75;
    let height = above + cell * rows.len() as f64 + 4.0;
    let mut svg = String::new();
    for (i, name) in columns.iter().enumerate() {
        let (x, y, name) = (left + cell * (i as f64 + 0.6), above - 6.0, escape(&short(name)));
        let _ = write!(
            svg,
            r#"<text class="tick" transform="translate({x:.1} {y:.1}) rotate(-45)">{name}</text>"#
        );
    }
    for (r, (row, shares)) in rows.iter().zip(shares).enumerate() {
        let y = above + cell * r as f64;
        let (end, below, name) = (left - 6.0, y + cell / 2.0 + 4.0, escape(&short(row)));
        let _ = write!(svg, r#"<text class="tick end" x="{end:.1}" y="{below:.1}">{name}</text>"#);
        for (c, share) in shares.iter().enumerate() {
            let (x, side) = (left + cell * c as f64, cell - 1.0);
            let percent =
                share.map_or("no pixel".into(), |share| format!("{:.1} %", 100.0 * share));
            let (row, column) = (escape(row), escape(columns[c]));
            let dark = if share.is_some_and(|share| share > 0.65) { " dark" } else { "" };
            let _ = write!(
                svg,
                r#"<rect class="cell" x="{x:.1}" y="{y:.1}" width="{side}" height="{side}" style="--share:{:.3}"><title>{row} seen as {column}: {percent}</title></rect>"#,
                share.unwrap_or(0.0)
            );
            if let Some(share) = share.filter(|share| numbers && *share >= 0.005) {
                let middle = x + cell / 2.0;
                let _ = write!(
                    svg,
                    r#"<text class="mid{dark}" x="{middle:.1}" y="{below:.1}">{:.0}</text>"#,
                    100.0 * share
                );
            }
        }
    }
    let title = escape(title);
    format!(
        r#"<div class="wide"><svg class="heat" role="img" aria-label="{title}" viewBox="0 0 {width:.0} {height:.0}" style="width:{width:.0}px">{svg}</svg></div>"#
    )
}

/// A name cut to what has room in a heat map.
fn short(name: &str) -> String {
    if name.chars().count() <= 24 {
        name.into()
    } else {
        name.chars().take(23).chain(['…']).collect()
    }
}

/// The ranges of numbers that a chart shows.
struct Axes {
    x: (f64, f64),
    y: (f64, f64),
}

impl Axes {
    fn x(&self, x: f64) -> f64 {
        PLOT[0] + (x - self.x.0) / (self.x.1 - self.x.0) * (PLOT[2] - PLOT[0])
    }

    fn y(&self, y: f64) -> f64 {
        PLOT[3] - (y - self.y.0) / (self.y.1 - self.y.0) * (PLOT[3] - PLOT[1])
    }

    /// The start of the chart: lines and numbers of both axes.
    fn frame(&self, title: &str, epochs: &[f64]) -> String {
        let [left, _, right, bottom] = PLOT;
        let title = escape(title);
        let mut svg = format!(
            r#"<svg class="chart" role="img" aria-label="{title}" viewBox="0 0 {WIDTH} {HEIGHT}">"#
        );
        let values = ticks(self.y, 5);
        let step = if values.len() > 1 { values[1] - values[0] } else { 1.0 };
        let digits = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
        for value in values {
            let (y, below) = (self.y(value), self.y(value) + 4.5);
            let _ = write!(
                svg,
                r#"<line class="grid" x1="{left}" x2="{right}" y1="{y:.1}" y2="{y:.1}"/><text class="tick end" x="{:.1}" y="{below:.1}">{value:.digits$}</text>"#,
                left - 6.0
            );
        }
        let _ = write!(
            svg,
            r#"<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>"#
        );
        for epoch in epochs {
            let (x, y) = (self.x(*epoch), bottom + 17.0);
            let _ = write!(svg, r#"<text class="tick mid" x="{x:.1}" y="{y:.1}">{epoch}</text>"#);
        }
        let (x, y) = ((left + right) / 2.0, HEIGHT - 5.0);
        svg + &format!(r#"<text class="tick mid" x="{x:.1}" y="{y:.1}">epoch</text>"#)
    }
}

/// A chart with its title above and its legend below.
fn figure_of(title: &str, unit: &str, svg: String, names: &[&str], kind: &str) -> String {
    let (title, unit) = (escape(title), unit.trim());
    let unit = if unit.is_empty() { String::new() } else { format!(" <small>{unit}</small>") };
    let mut key = String::new();
    for (i, name) in names.iter().enumerate().filter(|_| names.len() > 1) {
        let (style, name) = (i % STYLES, escape(name));
        let _ = write!(
            key,
            r#"<li><svg class="key" viewBox="0 0 22 10"><line class="{kind} s{style}" x1="0" x2="22" y1="5" y2="5"/></svg>{name}</li>"#
        );
    }
    let key = if key.is_empty() { key } else { format!("<ul>{key}</ul>") };
    format!("<figure><figcaption>{title}{unit}</figcaption>{svg}</svg>{key}</figure>")
}

/// A number with four digits that count.
pub fn figure(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        v if v >= 0.1 || v == 0.0 => 4,
        _ => return format!("{value:.3e}"),
    };
    format!("{value:.digits$}")
}

/// The least and the largest of the finite values; (0, 1) if there are none.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = values.filter(|v| v.is_finite());
    let (lo, hi) =
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(v), hi.max(v)));
    if lo <= hi { (lo, hi) } else { (0.0, 1.0) }
}

/// A range that is wider by a share at both ends, and has some width in any case.
fn pad((lo, hi): (f64, f64), share: f64) -> (f64, f64) {
    let margin = if hi > lo { (hi - lo) * share } else { lo.abs().max(1.0) * 0.1 };
    (lo - margin, hi + margin)
}

/// About `count` round numbers within a range: multiples of 1, 2 or 5 times a power of ten.
fn ticks((lo, hi): (f64, f64), count: usize) -> Vec<f64> {
    let rough = (hi - lo) / count as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough * 0.999);
    let step = step.unwrap_or(power * 10.0);
    let (first, last) = ((lo / step).ceil() as i64, (hi / step).floor() as i64);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// The ticks of an axis of epochs, which are whole numbers.
fn whole_ticks((lo, hi): (f64, f64)) -> Vec<f64> {
    let mut all = ticks((lo, hi.max(lo + 1.0)), 8);
    all.retain(|t| t.fract() == 0.0 && *t <= hi && *t >= lo);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(ticks((0.0, 10.0), 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks((0.31, 0.84), 5), [0.4, 0.6000000000000001, 0.8].to_vec());
        assert_eq!(whole_ticks((1.0, 2.0)), [1.0, 2.0]);
        assert_eq!(whole_ticks((1.0, 1.0)), [1.0]);
        assert!(whole_ticks((1.0, 300.0)).len() <= 9);
    }

    #[test]
    fn a_line_has_a_mark_for_each_point_inside_of_the_plot() {
        let points = vec![(0.0, 49.5), (1.0, 54.25), (2.0, f64::MAX.ln())];
        let svg = lines("Scores", " %", &[Line { name: "a < b".into(), points }]);
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("a &lt; b, epoch 1: 54.25 %"), "{svg}");
        for part in svg.split("cy=\"").skip(1) {
            let y: f64 = part.split('"').next().unwrap().parse().unwrap();
            assert!((PLOT[1]..=PLOT[3]).contains(&y), "{svg}");
        }
        // The highest value is the highest mark: y goes down.
        let ys: Vec<f64> = svg
            .split("cy=\"")
            .skip(1)
            .map(|p| p.split('"').next().unwrap().parse().unwrap())
            .collect();
        assert!(ys[0] > ys[1] && ys[0] < ys[2] + 1000.0);
        let one = lines("Loss", "", &[Line { name: "loss".into(), points: vec![(1.0, 0.5)] }]);
        assert!(!one.contains("NaN") && !lines("none", "", &[]).contains("NaN"));
    }

    #[test]
    fn stacks_are_as_high_as_their_parts() {
        let bars = [(1.0, vec![1.0, 0.0, 3.0]), (2.0, vec![2.0, 2.0, 0.0])];
        let svg = stacks("Seconds", " s", &["a", "b", "c"], &bars);
        let heights: Vec<f64> = svg
            .split("height=\"")
            .skip(1)
            .map(|p| p.split('"').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(heights.len(), 4);
        assert!((heights[1] - 3.0 * heights[0]).abs() <= 0.2, "{heights:?}");
        assert!((heights[0] + heights[1] - heights[2] - heights[3]).abs() <= 0.2, "{heights:?}");
    }

    #[test]
    fn a_heat_map_has_a_cell_for_each_pair() {
        let shares = [vec![Some(0.25), Some(0.75)], vec![None, None]];
        let svg = heat("Confusion", &["sky", "sea"], &["sky", "sea"], &shares);
        assert_eq!(svg.matches("class=\"cell\"").count(), 4);
        assert!(
            svg.contains("sky seen as sea: 75.0 %") && svg.contains("sea seen as sky: no pixel")
        );
        assert!(svg.contains("--share:0.750"));
    }
}
