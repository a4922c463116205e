//! Plots as SVG elements for a page of HTML. Colours, fonts and dashes are those of the page's
//! style (`html/style.css`): a plot names classes, so that it is light or dark as the page is.
//!
//! Here are whole charts; `axes` has what they are made of.

mod axes;

use std::fmt::Write;

pub use axes::{Axis, Plot, Scale};

use crate::report::html::escape;

/// The width and the height of a chart of epochs.
const SIZE: (f64, f64) = (460.0, 240.0);
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
    let y = Axis::around("", Scale::Linear, all().map(|point| point.1));
    let mut plot = Plot::new(SIZE, epochs(all().map(|point| point.0)), y);
    for (i, Line { name, points }) in lines.iter().enumerate() {
        plot.line(points, i % STYLES);
        for &(x, y) in points.iter().filter(|_| points.len() <= MARKED) {
            plot.point((x, y), 1.0, i % STYLES, &format!("{name}, epoch {x}: {}{unit}", figure(y)));
        }
    }
    let names: Vec<&str> = lines.iter().map(|line| &*line.name).collect();
    figure_of(title, unit, &plot.finish(title), &names, "line")
}

/// A chart of bars over epochs, each of parts that lie on each other: `bars` are (x, the parts'
/// values), `names` those of the parts.
pub fn stacks(title: &str, unit: &str, names: &[&str], bars: &[(f64, Vec<f64>)]) -> String {
    let top = bars.iter().map(|bar| bar.1.iter().sum()).fold(0.0, f64::max);
    let high = if top > 0.0 { top * 1.06 } else { 1.0 };
    let y = Axis { label: String::new(), low: 0.0, high, scale: Scale::Linear };
    let mut plot = Plot::new(SIZE, epochs(bars.iter().map(|bar| bar.0)), y);
    for (x, parts) in bars {
        let mut under = 0.0;
        for (i, &part) in parts.iter().enumerate().filter(|(_, part)| **part > 0.0) {
            let title = format!("{}, epoch {x}: {}{unit}", names[i], figure(part));
            plot.bar(*x, (under, under + part), i % STYLES, &title);
            under += part;
        }
    }
    figure_of(title, unit, &plot.finish(title), names, "bar")
}

/// The axis of these epochs; of the first alone if there are none.
fn epochs(values: impl Iterator<Item = f64>) -> Axis {
    let range = values.map(|x| (x, x)).reduce(|(low, high), (x, _)| (low.min(x), high.max(x)));
    let (low, high) = range.unwrap_or((1.0, 1.0));
    Axis::epochs(low, high)
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
            r#"<text class="start" transform="translate({x:.1} {y:.1}) rotate(-45)">{name}</text>"#
        );
    }
    for (r, (row, shares)) in rows.iter().zip(shares).enumerate() {
        let y = above + cell * r as f64;
        let (end, below, name) = (left - 6.0, y + cell / 2.0 + 4.0, escape(&short(row)));
        let _ = write!(svg, r#"<text class="end" x="{end:.1}" y="{below:.1}">{name}</text>"#);
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

/// A chart with its title above and its legend below.
fn figure_of(title: &str, unit: &str, svg: &str, names: &[&str], kind: &str) -> String {
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
    format!("<figure><figcaption>{title}{unit}</figcaption>{svg}{key}</figure>")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_mark_for_each_point_inside_of_the_plot() {
        let points = vec![(0.0, 49.5), (1.0, 54.25), (2.0, f64::MAX.ln())];
        let svg = lines("Scores", " %", &[Line { name: "a < b".into(), points }]);
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("a &lt; b, epoch 1: 54.25 %"), "{svg}");
        for part in svg.split("cy=\"").skip(1) {
            let y: f64 = part.split('"').next().unwrap().parse().unwrap();
            assert!((12.0..=200.0).contains(&y), "{svg}");
        }
        // The highest value is the highest mark: y goes down.
        let ys: Vec<f64> = svg
            .split("cy=\"")
            .skip(1)
            .map(|p| p.split('"').next().unwrap().parse().unwrap())
            .collect();
        assert!(ys[0] > ys[1] && ys[1] > ys[2]);
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
