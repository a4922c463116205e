//! The report of a training run as a page: curves, seconds, pictures, scores, and everything that
//! was set.

use std::collections::BTreeMap;

use image::RgbImage;

use crate::eval::EpochRow;
use crate::report::html::{escape, facts, page, picture, table};
use crate::report::palette::Colour;
use crate::report::plot::{Line, figure, heat, lines, stacks};
use crate::report::table::{number, scored_at};
use crate::report::{EvalReport, time};

/// The largest width of a picture in the page, in pixels.
const WIDEST: u32 = 256;

/// What the page of a run shows.
pub struct RunPage {
    /// The name of the run.
    pub name: String,
    /// What became of it so far, such as `finished`.
    pub state: String,
    /// The rows of its epochs.
    pub rows: Vec<EpochRow>,
    /// The scores after the last of these epochs. `None`: the images have no labels.
    pub scores: Option<EvalReport>,
    /// The validation images, each a row of pictures with their titles.
    pub pictures: Vec<Vec<(&'static str, RgbImage)>>,
    /// The names and colours in the pictures.
    pub legend: Vec<(String, Colour)>,
    /// The command line that began the run.
    pub command: String,
    /// Lists of names and values under titles: data, machine, recipe.
    pub facts: Vec<(&'static str, Vec<(String, String)>)>,
}

impl RunPage {
    /// The page as HTML.
    pub fn html(&self) -> String {
        let mut body = format!(
            "<h1>{}</h1>\n<p class=\"lead\">{}</p>\n",
            escape(&self.name),
            escape(&self.state)
        );
        body += &self.tiles();
        if !self.rows.is_empty() {
            body += &format!("<h2>Epochs</h2>\n<div class=\"charts\">{}</div>\n", self.charts());
        }
        body += &self.seen();
        if let Some(scores) = &self.scores {
            body += &confusion(scores);
            body += &classes(scores);
        }
        body += &self.epochs();
        body += &format!(
            "<h2>Command</h2>\n<code class=\"command\">{}</code>\n",
            escape(&self.command)
        );
        for (title, list) in &self.facts {
            body += &format!("<h2>{title}</h2>\n{}\n", facts(list));
        }
        page(&format!("{} · picie", self.name), &body)
    }

    /// The main numbers of the last epoch.
    fn tiles(&self) -> String {
        let Some(row) = self.rows.last() else { return String::new() };
        let percent = |score: Option<f64>| score.map(|s| format!("{s:.2} %"));
        let seconds: f64 = self.rows.iter().map(seconds).sum();
        let tiles = [
            ("mIoU", percent(row.miou)),
            ("accuracy", percent(row.acc)),
            ("loss", Some(figure(row.loss))),
            ("epochs", Some(self.rows.len().to_string())),
            ("images/s in the last epoch", Some(figure(row.images_per_s))),
            ("in all epochs", Some(time(seconds))),
        ];
        let tile = |(name, value): (&str, Option<String>)| {
            value.map(|value| format!("<li><b>{value}</b><span>{name}</span></li>"))
        };
        let tiles: String = tiles.into_iter().filter_map(tile).collect();
        format!("<ul class=\"tiles\">{tiles}</ul>\n")
    }

    /// The curves, and the seconds of each phase.
    fn charts(&self) -> String {
        let line = |name: &str, of: &dyn Fn(&EpochRow) -> Option<f64>| Line {
            name: name.into(),
            points: self.rows.iter().filter_map(|row| Some((row.epoch as f64, of(row)?))).collect(),
        };
        let mut losses = vec![line("loss", &|row| Some(row.loss))];
        let names = self.rows.iter().flat_map(|row| row.losses.keys());
        for name in names.collect::<std::collections::BTreeSet<_>>() {
            let short = name.trim_start_matches("loss_");
            losses.push(line(short, &|row| row.losses.get(name).copied()));
        }
        let mut charts = lines("Loss", "", &losses);
        // Before training is epoch 0.
        let untrained = self.rows.first().and_then(|row| row.untrained);
        let mut score = |title, of: &dyn Fn(&EpochRow) -> Option<f64>, before: Option<f64>| {
            let mut line = line(title, of);
            if line.points.is_empty() {
                return;
            }
            line.points.splice(0..0, before.map(|before| (0.0, before)));
            charts += &lines(title, " %", &[line]);
        };
        score("Accuracy", &|row| row.acc, untrained.map(|score| score.acc));
        score("mIoU", &|row| row.miou, untrained.map(|score| score.miou));
        let views = self.rows.iter().map(|row| row.kmeans_objective.len()).max().unwrap_or(0);
        if views > 0 {
            let view = |view: usize| {
                line(&format!("view {}", view + 1), &|row| row.kmeans_objective.get(view).copied())
            };
            charts += &lines("k-means objective", "", &(0..views).map(view).collect::<Vec<_>>());
            let imbalance = line("imbalance", &|row| row.kmeans_imbalance);
            charts += &lines("Imbalance of clusters", " (1: all of one size)", &[imbalance]);
        }
        let bar = |row: &EpochRow| {
            let parts = vec![row.kmeans_s, row.labels_s, row.train_s, row.eval_s];
            (row.epoch as f64, parts)
        };
        let bars: Vec<_> = self.rows.iter().map(bar).collect();
        charts + &stacks("Seconds", " s", &["k-means", "labels", "train", "evaluate"], &bars)
    }

    /// The validation images with what the network makes of them.
    fn seen(&self) -> String {
        let Some(first) = self.pictures.first() else { return String::new() };
        let titles: String =
            first.iter().map(|(title, _)| format!("<span>{title}</span>")).collect();
        let row = |row: &Vec<(&str, RgbImage)>| {
            let cells = row.iter().map(|(title, image)| picture(image, title, WIDEST));
            format!("<div>{}</div>", cells.collect::<String>())
        };
        let rows: String = self.pictures.iter().map(row).collect();
        let swatch = |(name, [r, g, b]): &(String, Colour)| {
            format!(
                "<li><span class=\"swatch\" style=\"background:rgb({r} {g} {b})\"></span>{}</li>",
                escape(name)
            )
        };
        let legend: String = self.legend.iter().map(swatch).collect();
        format!(
            "<h2>Pictures</h2>\n<div class=\"pictures\"><div class=\"titles\">{titles}</div>\
             <div class=\"titles again\">{titles}</div>{rows}</div>\n<ul class=\"legend\">{legend}</ul>\n"
        )
    }

    /// The table of epochs.
    fn epochs(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let row = |row: &EpochRow| {
            vec![
                row.epoch.to_string(),
                figure(row.loss),
                number(row.acc, 2),
                number(row.miou, 2),
                number(Some(row.kmeans_s), 1),
                number(Some(row.labels_s), 1),
                number(Some(row.train_s), 1),
                number(Some(row.eval_s), 1),
                figure(row.images_per_s),
            ]
        };
        let header = [
            "epoch",
            "loss",
            "accuracy %",
            "mIoU %",
            "k-means s",
            "labels s",
            "train s",
            "evaluate s",
            "images/s",
        ];
        format!("<h2>Numbers</h2>\n{}\n", table(&header, self.rows.iter().map(row)))
    }
}

/// The seconds of all phases of an epoch.
fn seconds(row: &EpochRow) -> f64 {
    row.kmeans_s + row.labels_s + row.train_s + row.eval_s
}

/// The confusion matrix: of the pixels of each class that occurs, the share that is seen as each
/// class, and as none.
fn confusion(scores: &EvalReport) -> String {
    let counted = scores.counted();
    let shown: Vec<usize> = (0..scores.classes).filter(|&class| occurs(scores, class)).collect();
    let unmatched = counted.iter().any(|row| row[scores.classes] > 0);
    let names: Vec<&str> = shown.iter().map(|&class| &*scores.per_class[class].name).collect();
    let mut columns = names.clone();
    columns.extend(unmatched.then_some("no class"));
    let row = |&class: &usize| {
        let all: u64 = counted[class].iter().sum();
        let share = |count: u64| (all > 0).then(|| count as f64 / all as f64);
        let mut row: Vec<_> = shown.iter().map(|&seen| share(counted[class][seen])).collect();
        row.extend(unmatched.then(|| share(counted[class][scores.classes])));
        row
    };
    let shares: Vec<_> = shown.iter().map(row).collect();
    format!(
        "<h2>Confusion</h2>\n<p class=\"lead\">A row is a class of the labels; a cell is the share \
         of its pixels that are seen as the class of the column.</p>\n{}\n",
        heat("confusion matrix", &names, &columns, &shares)
    )
}

/// Whether a class occurs in the labels or in the predictions.
fn occurs(scores: &EvalReport, class: usize) -> bool {
    let score = &scores.per_class[class].score;
    score.labelled + score.predicted > 0
}

/// The table of the classes that occur.
fn classes(scores: &EvalReport) -> String {
    let row = |(class, named): (usize, &crate::report::perclass::NamedClass)| {
        let bar = |value: Option<f64>| {
            let share = value.unwrap_or(0.0);
            format!(
                "{}<span class=\"share\"><i style=\"width:{share:.1}%\"></i></span>",
                number(value, 2)
            )
        };
        let clusters = scores.class_of_cluster.iter().enumerate();
        let clusters = clusters.filter(|(_, of)| **of == Some(class)).map(|(k, _)| k.to_string());
        vec![
            escape(&named.name),
            clusters.collect::<Vec<_>>().join(" "),
            bar(named.score.iou),
            bar(named.score.acc),
            named.score.labelled.to_string(),
            named.score.predicted.to_string(),
        ]
    };
    let absent = (0..scores.classes).filter(|&class| !occurs(scores, class)).count();
    let absent = match absent {
        0 => String::new(),
        n => format!("; {n} of {} classes occur in neither and are left out here", scores.classes),
    };
    let header = ["class", "cluster", "IoU %", "accuracy %", "pixels", "predicted"];
    format!(
        "<h2>Classes</h2>\n<p class=\"lead\">{}; mIoU {:.2} % over all classes, {:.2} % over those \
         in the labels{absent}</p>\n{}\n",
        scored_at(scores.size),
        scores.miou,
        scores.miou_present,
        table(
            &header,
            scores
                .per_class
                .iter()
                .enumerate()
                .filter(|(class, _)| occurs(scores, *class))
                .map(row)
        )
    )
}

/// The numbers of plain data by their names; nested names are joined by points.
pub fn flat(value: &serde_json::Value) -> Vec<(String, String)> {
    fn add(name: &str, value: &serde_json::Value, all: &mut BTreeMap<String, String>) {
        match value {
            serde_json::Value::Object(map) => {
                for (key, value) in map {
                    let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                    add(&name, value, all);
                }
            }
            serde_json::Value::String(text) => drop(all.insert(name.into(), text.clone())),
            serde_json::Value::Null => drop(all.insert(name.into(), "none".into())),
            other => drop(all.insert(name.into(), other.to_string())),
        }
    }
    let mut all = BTreeMap::new();
    add("", value, &mut all);
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{Confusion, hungarian};

    #[test]
    fn a_page_has_its_plots_its_scores_and_no_tag_of_a_name() {
        let m =
            Confusion { classes: 3, clusters: 4, counts: vec![1, 6, 2, 0, 9, 1, 0, 0, 0, 0, 0, 4] };
        let names = ["sky", "<water>", "animal"].map(str::to_string);
        let scores = EvalReport::new(&m, &hungarian(&m), 5, 64, &names, &[]).unwrap();
        let row = |epoch| EpochRow {
            epoch,
            loss: 1.0 / epoch as f64,
            acc: Some(50.0),
            miou: Some(25.0 + epoch as f64),
            kmeans_objective: vec![0.5, 0.25],
            kmeans_imbalance: Some(1.5),
            train_s: 2.0,
            ..EpochRow::default()
        };
        let page = RunPage {
            name: "runs/<i>".into(),
            state: "finished".into(),
            rows: vec![row(1), row(2), row(3)],
            scores: Some(scores),
            pictures: vec![vec![
                ("image", RgbImage::new(8, 8)),
                ("prediction", RgbImage::new(8, 8)),
            ]],
            legend: vec![("<water>".into(), [1, 2, 3])],
            command: "picie train --run 'a & b'".into(),
            facts: vec![("Recipe", flat(&serde_json::json!({"a": {"b": 1, "c": "x"}, "d": null})))],
        };
        let html = page.html();
        for part in [
            "runs/&lt;i&gt;",
            "mIoU, epoch 3: 28.00 %",
            "view 2, epoch 1: 0.2500",
            "&lt;water&gt; seen as sky",
            "seen as no class: 22.2 %",
            "background:rgb(1 2 3)",
            "picie train --run &#39;a &amp; b&#39;",
            "<dt>a.b</dt><dd>1</dd>",
            "<dt>d</dt><dd>none</dd>",
        ] {
            assert!(html.contains(part), "{part} is not in {html}");
        }
        assert!(!html.contains("<i>") && !html.contains("NaN"));
        assert_eq!(html.matches("data:image/png;base64,").count(), 2);
        // Nothing is fetched, and nothing runs.
        for word in ["http:", "https:", "<script", "url(", "@import"] {
            assert!(!html.contains(word), "{word}");
        }
        // Every element that is opened is closed.
        for tag in ["div", "svg", "figure", "table", "ul", "li", "tr", "dl", "p", "h2", "code"] {
            let opened = html.matches(&format!("<{tag} ")).count()
                + html.matches(&format!("<{tag}>")).count();
            assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn a_page_of_a_run_that_has_just_begun_is_whole() {
        let page = RunPage {
            name: "a".into(),
            state: "begun".into(),
            rows: Vec::new(),
            scores: None,
            pictures: Vec::new(),
            legend: Vec::new(),
            command: String::new(),
            facts: Vec::new(),
        };
        assert!(page.html().ends_with("</html>\n"));
    }
}
