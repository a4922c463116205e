//! The table of a run's epochs.

use comfy_table::{CellAlignment, LineStyle, Table, presets};

use crate::eval::EpochRow;
use crate::eval::record::Score;

/// A table with the first column to the left and all others to the right, as numbers are read, `gap` + 1 spaces
/// between them.
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

/// `value` with `digits` behind the point, a dash where there is none.
pub(super) fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_string(), |v| format!("{v:.digits$}"))
}

/// One line per epoch: k-means objective (mean of both views), losses, scores in percent, seconds of each phase. Epoch 0 is
/// k-means on the untrained network; `fresh` a new k-means on the trained one, where the recipe asks for it.
pub fn epochs(rows: &[EpochRow]) -> String {
    let header =
        "epoch|k-means\nobject.|loss|within|cross|acc\n%|mIoU\n%|k-means\ns|labels\ns|train\ns|eval\ns|images\n/s";
    let header: Vec<&str> = header.split('|').collect();
    let line = |row: &EpochRow| {
        let mut cells = vec![row.epoch.to_string()];
        let objective = (row.kmeans_objective[0] + row.kmeans_objective[1]) / 2.0;
        cells.extend([objective, row.loss, row.loss_within, row.loss_cross].map(|v| number(Some(v), 4)));
        cells.extend([row.acc, row.miou].map(|v| number(v, 2)));
        let seconds = [row.kmeans_s, row.labels_s, row.train_s, row.eval_s];
        cells.extend(seconds.into_iter().chain([row.images_per_s]).map(|v| number(Some(v), 1)));
        cells
    };
    let only_scores = |name: &str, score: Option<Score>| {
        score.map(|s| {
            let mut cells = vec![name.to_string()];
            cells.extend(["-"; 4].map(String::from));
            cells.extend([s.acc, s.miou].map(|v| number(Some(v), 2)));
            cells.extend(["-"; 5].map(String::from));
            cells
        })
    };
    let untrained = rows.first().and_then(|row| only_scores("0", row.untrained));
    let fresh = rows.last().and_then(|row| only_scores("fresh", row.fresh));
    // NOTE: no gap, so that twelve columns fit into a terminal of 80.
    plain(&header, 0, untrained.into_iter().chain(rows.iter().map(line)).chain(fresh)).to_string()
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
            kmeans_objective: [0.25, 0.75],
            loss: 3.5,
            loss_within: 3.25,
            loss_cross: 3.75,
            acc: Some(40.125),
            untrained: Some(Score { acc: 20.5, miou: 10.25, miou_present: 11.0 }),
            fresh: Some(Score { acc: 50.5, miou: 12.25, miou_present: 13.0 }),
            ..EpochRow::default()
        };
        let text = epochs(&[row]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 8, "{text}");
        assert!(lines.iter().all(|l| l.chars().count() <= 80), "{text}");
        let words = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        let want = ["2", "0.5000", "3.5000", "3.2500", "3.7500", "40.12", "-", "1.1", "2.2", "3.3", "4.4", "55.5"];
        assert_eq!(words(lines[4])[..1], ["0"], "{text}");
        assert_eq!(words(lines[4])[5..7], ["20.50", "10.25"], "{text}");
        assert_eq!(words(lines[5]), want, "{text}");
        assert_eq!(words(lines[6])[5..7], ["50.50", "12.25"], "{text}");
        // Right-aligned: a number ends where its title does.
        let end = |line: &str, what: &str| line.find(what).unwrap() + what.len();
        for (title, value) in [("within", "3.2500"), ("acc", "40.12"), ("train", "3.3"), ("images", "55.5")] {
            assert_eq!(end(lines[1], title), end(lines[5], &format!(" {value}")), "{text}");
        }
    }
}
