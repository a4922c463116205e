//! Tables of numbers: the epochs of a run, scores, numbers of clusters.

use comfy_table::{CellAlignment, LineStyle, Table, presets};

use crate::eval::EpochRow;
use crate::eval::epochs::Score;
use crate::method::Candidate;
use crate::report::time;

/// Makes a table with the first column to the left and all others to the right, as numbers are
/// read, `gap` + 1 spaces between them.
pub(super) fn plain(header: &[&str], gap: u16, rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_header(header.to_vec()).add_rows(rows);
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((if i == 0 { 0 } else { gap }, 0));
        column.set_cell_alignment(if i == 0 { CellAlignment::Left } else { CellAlignment::Right });
    }
    table
}

/// Formats `value` with `digits` behind the point, as a dash where there is none.
pub(super) fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_string(), |v| format!("{v:.digits$}"))
}

/// The table of a run's epochs, one line each: k-means objective (mean of the views), losses,
/// scores in percent, seconds of each phase. Without labels the share of the largest cluster and
/// the number of empty ones stand in the place of scores. Epoch 0 is before any training (k-means
/// on the untrained network); `fresh` is a new k-means on the trained network, where the recipe
/// asks for it. The last line says at which size images were evaluated.
pub fn epochs(rows: &[EpochRow]) -> String {
    let clustered = rows.iter().any(|row| !row.kmeans_objective.is_empty());
    let mut parts: Vec<&String> =
        rows.first().map(|row| row.losses.keys().collect()).unwrap_or_default();
    // PiCIE's within before cross, IIC's main before auxiliary.
    parts.reverse();
    type Column<'a> = (String, Box<dyn Fn(&EpochRow) -> String + 'a>);
    let mut columns: Vec<Column> = vec![("epoch".into(), Box::new(|row| row.epoch.to_string()))];
    let mean = |row: &EpochRow| {
        row.kmeans_objective.iter().sum::<f64>() / row.kmeans_objective.len() as f64
    };
    if clustered {
        columns.push(("k-means\nobject.".into(), Box::new(move |row| number(Some(mean(row)), 4))));
    }
    columns.push(("loss".into(), Box::new(|row| number(Some(row.loss), 4))));
    for part in parts {
        let title = part.trim_start_matches("loss_").to_string();
        columns.push((title, Box::new(move |row| number(row.losses.get(part).copied(), 4))));
    }
    let scores = columns.len();
    if rows.iter().any(|row| row.acc.is_some()) {
        columns.push(("acc\n%".into(), Box::new(|row| number(row.acc, 2))));
        columns.push(("mIoU\n%".into(), Box::new(|row| number(row.miou, 2))));
    } else {
        columns.push(("largest\n%".into(), Box::new(|row| number(row.largest, 1))));
        if clustered {
            let empty = |row: &EpochRow| row.empty.map_or("-".into(), |n| n.to_string());
            columns.push(("empty\nclus.".into(), Box::new(empty)));
        }
    }
    if clustered {
        columns.push(("k-means\ns".into(), Box::new(|row| number(Some(row.kmeans_s), 1))));
        columns.push(("labels\ns".into(), Box::new(|row| number(Some(row.labels_s), 1))));
    }
    columns.push(("train\ns".into(), Box::new(|row| number(Some(row.train_s), 1))));
    columns.push(("eval\ns".into(), Box::new(|row| number(Some(row.eval_s), 1))));
    columns.push(("images\n/s".into(), Box::new(|row| number(Some(row.images_per_s), 1))));

    let line = |row: &EpochRow| columns.iter().map(|(_, cell)| cell(row)).collect::<Vec<_>>();
    let only_scores = |name: &str, score: Option<Score>| {
        score.map(|s| {
            let mut cells = vec!["-".to_string(); columns.len()];
            cells[0] = name.to_string();
            (cells[scores], cells[scores + 1]) = (number(Some(s.acc), 2), number(Some(s.miou), 2));
            cells
        })
    };
    let untrained = rows.first().and_then(|row| only_scores("0", row.untrained));
    let fresh = rows.last().and_then(|row| only_scores("fresh", row.fresh));
    let header: Vec<&str> = columns.iter().map(|(title, _)| &**title).collect();
    // NOTE: no gap, so that twelve columns fit into a terminal of 80.
    let table = plain(&header, 0, untrained.into_iter().chain(rows.iter().map(line)).chain(fresh));
    match rows.last() {
        Some(row) if row.acc.is_some() => format!("{table}\n{}", scored_at(row.eval_size)),
        _ => table.to_string(),
    }
}

/// A cluster with more than this share of all pixels, in percent, is a sign of collapse.
const COLLAPSED: f64 = 90.0;

/// The line of an epoch that was just finished, of `epochs` in all: loss, imbalance of clusters and
/// mIoU or, without labels, how pixels spread over clusters, and an estimate of the time that is
/// left of the whole run. It fits a terminal of 80 columns; the table at the end has the rest.
pub fn epoch(row: &EpochRow, epochs: usize) -> String {
    let mut parts = vec![format!("loss {:.4}", row.loss)];
    match row.miou {
        Some(miou) => {
            parts.extend(row.kmeans_imbalance.map(|imbalance| format!("imbalance {imbalance:.1}")));
            parts.push(format!("mIoU {miou:.2} %"));
        }
        None => parts.extend(spread_in_words(row)),
    }
    let seconds = row.kmeans_s + row.labels_s + row.train_s + row.eval_s;
    parts.push(time(seconds));
    let left = epochs.saturating_sub(row.epoch);
    parts.extend((left > 0).then(|| format!("{} left", time(seconds * left as f64))));
    format!("{:18} {}", format!("epoch {} of {epochs}", row.epoch), parts.join(", "))
}

/// How pixels spread over clusters, in words.
fn spread_in_words(row: &EpochRow) -> Option<String> {
    let largest = row.largest?;
    let mut words = format!("largest cluster {largest:.0} %");
    if largest > COLLAPSED {
        words += ": collapsed";
    }
    if let Some(empty) = row.empty.filter(|empty| *empty > 0) {
        words += &format!(", {empty} empty");
    }
    Some(words)
}

/// The table of the numbers of clusters that were tried, the chosen one marked.
pub fn clusters(candidates: &[Candidate], chosen: usize) -> String {
    let row = |c: &Candidate| {
        let mark = if c.clusters == chosen { "chosen" } else { "" };
        vec![
            c.clusters.to_string(),
            number(Some(c.objective), 4),
            number(Some(c.agreement), 3),
            mark.into(),
        ]
    };
    plain(&["clusters", "objective", "agreement", ""], 1, candidates.iter().map(row)).to_string()
}

/// The line below a table of scores that says at which size they were measured; scores are
/// comparable only where it is the same.
pub fn scored_at(side: usize) -> String {
    format!("scores: network input and label maps of {side} × {side} pixels")
}

/// The table of accuracy and mIoU, a line for each row, as mean ± standard deviation where a row
/// has several scores. `what` is the title of the column with the names of the rows.
pub fn scores(what: &str, rows: &[(String, Vec<Score>)]) -> String {
    let lines = rows.iter().map(|(name, scores)| {
        let cell = |of: fn(&Score) -> f64| spread(&scores.iter().map(of).collect::<Vec<_>>(), 2);
        vec![name.clone(), cell(|s| s.acc), cell(|s| s.miou), cell(|s| s.miou_present)]
    });
    plain(&[what, "acc\n%", "mIoU\n%", "mIoU, classes\nin labels %"], 2, lines).to_string()
}

/// Formats a single value, or mean ± standard deviation of several, with `digits` behind the point.
pub(super) fn spread(values: &[f64], digits: usize) -> String {
    let (mean, deviation) = mean_and_deviation(values);
    if values.len() == 1 {
        format!("{mean:.digits$}")
    } else {
        format!("{mean:.digits$} ± {deviation:.digits$}")
    }
}

/// The mean, and the standard deviation of a sample, which is 0 for a single value.
fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    (mean, (squares / (n - 1.0).max(1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_under_its_title() {
        let row = EpochRow {
            epoch: 2,
            kmeans_s: 1.11,
            labels_s: 2.22,
            train_s: 3.33,
            eval_s: 4.44,
            images_per_s: 55.55,
            kmeans_objective: vec![0.25, 0.75],
            kmeans_imbalance: Some(1.25),
            largest: Some(95.5),
            empty: Some(2),
            loss: 3.5,
            losses: [("loss_cross".into(), 3.75), ("loss_within".into(), 3.25)].into(),
            acc: Some(40.125),
            eval_size: 96,
            untrained: Some(Score { acc: 20.5, miou: 10.25, miou_present: 11.0 }),
            fresh: Some(Score { acc: 50.5, miou: 12.25, miou_present: 13.0 }),
            ..EpochRow::default()
        };
        let line = epoch(&EpochRow { miou: Some(31.5), ..row.clone() }, 10);
        assert_eq!(
            line,
            "epoch 2 of 10      loss 3.5000, imbalance 1.2, mIoU 31.50 %, 11 s, 89 s left"
        );
        let unlabelled =
            EpochRow { acc: None, miou: None, untrained: None, fresh: None, ..row.clone() };
        let words = "loss 3.5000, largest cluster 96 %: collapsed, 2 empty, 11 s";
        assert!(epoch(&unlabelled, 10).contains(words), "{}", epoch(&unlabelled, 10));
        let one = EpochRow { largest: Some(40.0), empty: Some(1), ..unlabelled.clone() };
        assert!(epoch(&one, 10).contains("largest cluster 40 %, 1 empty, 11 s"));
        let text = epochs(&[unlabelled]);
        assert!(!text.contains("mIoU") && !text.contains("acc"), "{text}");
        let cells: Vec<&str> = text.lines().nth(4).unwrap().split_whitespace().collect();
        assert_eq!(cells[5..7], ["95.5", "2"], "{text}");
        let text = epochs(&[row]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 9, "{text}");
        assert!(lines[8].contains("96 × 96"), "{text}");
        assert!(lines.iter().all(|l| l.chars().count() <= 80), "{text}");
        let words = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        let want = [
            "2", "0.5000", "3.5000", "3.2500", "3.7500", "40.12", "-", "1.1", "2.2", "3.3", "4.4",
            "55.5",
        ];
        assert_eq!(words(lines[4])[..1], ["0"], "{text}");
        assert_eq!(words(lines[4])[5..7], ["20.50", "10.25"], "{text}");
        assert_eq!(words(lines[5]), want, "{text}");
        assert_eq!(words(lines[6])[5..7], ["50.50", "12.25"], "{text}");
        // Right-aligned: a number ends where its title does.
        let end = |line: &str, what: &str| line.find(what).unwrap() + what.len();
        for (title, value) in
            [("within", "3.2500"), ("acc", "40.12"), ("train", "3.3"), ("images", "55.5")]
        {
            assert_eq!(end(lines[1], title), end(lines[5], &format!(" {value}")), "{text}");
        }
    }

    #[test]
    fn several_scores_are_mean_and_deviation() {
        let score = |acc| Score { acc, miou: acc / 2.0, miou_present: acc };
        let rows = [
            ("1".to_string(), vec![score(10.0), score(20.0), score(30.0)]),
            ("1.5".into(), vec![score(7.25)]),
        ];
        let text = scores("lambda", &rows);
        let words = |of: &str| {
            text.lines().find(|l| l.starts_with(of)).unwrap().split_whitespace().collect::<Vec<_>>()
        };
        assert_eq!(
            words("1 ")[1..],
            ["20.00", "±", "10.00", "10.00", "±", "5.00", "20.00", "±", "10.00"]
        );
        assert_eq!(words("1.5")[1..], ["7.25", "3.62", "7.25"]);
    }
}
