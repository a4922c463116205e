//! The table of a run's epochs.

use comfy_table::{CellAlignment, Table, presets};

use crate::eval::EpochRow;

/// A table with the first column to the left and all others to the right, as numbers are read.
pub(super) fn plain(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(header.to_vec()).add_rows(rows);
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

/// `value` with `digits` behind the point, a dash where there is none.
pub(super) fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_string(), |v| format!("{v:.digits$}"))
}

/// One line per epoch: k-means objective (mean of both views), losses, scores in percent, seconds of each phase.
pub fn epochs(rows: &[EpochRow]) -> String {
    let header = [
        "epoch",
        "k-means",
        "loss",
        "within",
        "cross",
        "acc %",
        "mIoU %",
        "k-means s",
        "labels s",
        "train s",
        "eval s",
        "images/s",
    ];
    let line = |row: &EpochRow| {
        let mut cells = vec![(row.epoch + 1).to_string()];
        let objective = (row.kmeans_objective[0] + row.kmeans_objective[1]) / 2.0;
        cells.extend([objective, row.loss, row.loss_within, row.loss_cross].map(|v| number(Some(v), 4)));
        cells.extend([row.acc, row.miou].map(|v| number(v, 2)));
        let seconds = [row.kmeans_s, row.labels_s, row.train_s, row.eval_s];
        cells.extend(seconds.into_iter().chain([row.images_per_s]).map(|v| number(Some(v), 1)));
        cells
    };
    plain(&header, rows.iter().map(line)).to_string()
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
            ..EpochRow::default()
        };
        let text = epochs(&[row]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        let words = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        let want =
            ["│", "3", "0.5000", "3.5000", "3.2500", "3.7500", "40.12", "-", "1.1", "2.2", "3.3", "4.4", "55.5", "│"];
        assert_eq!(words(lines[3]), want, "{text}");
        // Right-aligned: the number ends where its title does (counted in characters).
        let end = |line: &str, what: &str| line[..line.find(what).unwrap() + what.len()].chars().count();
        for (title, value) in [("within", "3.2500"), ("acc %", "40.12"), ("train s", "3.3 "), ("images/s", "55.5")] {
            assert_eq!(end(lines[1], title), end(lines[3], value.trim_end()), "{text}");
        }
    }
}
