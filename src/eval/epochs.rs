//! The file `metrics.jsonl` with one line of JSON for each finished epoch, and its repair after a
//! kill.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::base::fs::{sync, write_atomic};
use crate::base::{Error, Result};

/// The main scores of an evaluation, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    pub acc: f64,
    pub miou: f64,
    /// Mean IoU over the classes that occur in the labels.
    pub miou_present: f64,
}

/// The numbers of one epoch of a run. Seconds are wall clock; shares are percent and `None` where
/// the data has no labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochRow {
    /// The number of the epoch, as the trainer counts them.
    pub epoch: usize,
    pub kmeans_s: f64,
    pub labels_s: f64,
    pub train_s: f64,
    pub eval_s: f64,
    /// Training images over the sum of `kmeans_s`, `labels_s` and `train_s`.
    pub images_per_s: f64,
    /// The k-means objective of each view; empty where a method has no k-means.
    pub kmeans_objective: Vec<f64>,
    /// How unequal the clusters are, as a mean over the views: 1 where all are of one size, K where
    /// all pixels are in one.
    pub kmeans_imbalance: Option<f64>,
    /// The share of pixels in the largest cluster, in percent: of pseudo labels, or where a method
    /// has none of the pictures that are shown. The worst of the views. Runs of older versions do
    /// not say.
    #[serde(default)]
    pub largest: Option<f64>,
    /// The number of clusters without a pixel, in the view that has most of them. `None` where
    /// there are no pseudo labels.
    #[serde(default)]
    pub empty: Option<usize>,
    /// The loss: the mean over the steps of the epoch of what they minimised.
    pub loss: f64,
    /// The means of the loss's parts, by name: PiCIE's `loss_within` and `loss_cross`, IIC's
    /// `loss_main` and `loss_auxiliary`.
    #[serde(flatten)]
    pub losses: BTreeMap<String, f64>,
    pub acc: Option<f64>,
    pub miou: Option<f64>,
    pub miou_present: Option<f64>,
    /// The side in pixels of the network's input and of the label maps in evaluation.
    pub eval_size: usize,
    /// The score before any training, such as that of k-means on the untrained network; only in the
    /// first epoch's row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untrained: Option<Score>,
    /// The score of a fresh k-means on images without augmentation, where the recipe asks for it;
    /// only in the last epoch's row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh: Option<Score>,
}

impl EpochRow {
    /// Appends the row to `path` as a line, which is on disk when the call returns.
    pub fn append(&self, path: &Path) -> Result<()> {
        let work = || -> std::io::Result<()> {
            let mut line = serde_json::to_vec(self)?;
            line.push(b'\n');
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            file.write_all(&line)?;
            sync(&file)
        };
        work().map_err(|e| Error::io(path, e))
    }
}

/// Reads all rows of `path`, oldest first. A last line without its line end was torn by a kill and
/// is left out; any other line that is no row is an error that names it.
pub fn read(path: &Path) -> Result<Vec<EpochRow>> {
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    whole_lines(&text).enumerate().map(|(i, line)| parse(path, i, line)).collect()
}

/// As [`read`], but a file that is not there yet has no rows.
pub fn read_or_none(path: &Path) -> Result<Vec<EpochRow>> {
    if path.exists() { read(path) } else { Ok(Vec::new()) }
}

/// Drops the rows of epoch `epoch` and later, and a torn last line; the kept lines keep their
/// bytes. For resuming at the start of `epoch`. A file that is not there yet is left so.
pub fn truncate_from(path: &Path, epoch: usize) -> Result<()> {
    let text = match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(|e| Error::io(path, e))?,
    };
    let mut kept = Vec::with_capacity(text.len());
    for (i, line) in whole_lines(&text).enumerate() {
        if parse(path, i, line)?.epoch < epoch {
            kept.extend_from_slice(line);
        }
    }
    if kept == text { Ok(()) } else { write_atomic(path, |w| w.write_all(&kept)) }
}

fn whole_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n"))
}

fn parse(path: &Path, i: usize, line: &[u8]) -> Result<EpochRow> {
    serde_json::from_slice(line).map_err(|e| {
        let what = format!("line {} is not an epoch's row ({e})", i + 1);
        Error::file(path, what, "remove that line, or start a new run folder")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(epoch: usize) -> EpochRow {
        EpochRow {
            epoch,
            loss: 0.1 + epoch as f64,
            acc: (epoch > 0).then_some(12.5),
            ..EpochRow::default()
        }
    }

    #[test]
    fn rows_come_back_and_carry_the_promised_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        (0..3).for_each(|e| row(e).append(&path).unwrap());
        assert_eq!(read(&path).unwrap(), [row(0), row(1), row(2)]);
        let text = std::fs::read_to_string(&path).unwrap();
        let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        for name in ["epoch", "kmeans_s", "labels_s", "train_s", "eval_s", "images_per_s", "loss"] {
            assert!(first[name].is_number(), "{name}");
        }
        for name in ["acc", "miou", "miou_present"] {
            assert!(first.get(name).is_some_and(|v| v.is_null()), "{name}");
        }
    }

    #[test]
    fn resuming_drops_later_epochs_and_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        truncate_from(&path, 0).unwrap();
        assert!(!path.exists());
        (0..4).for_each(|e| row(e).append(&path).unwrap());
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"{\"epoch\":4,\"km"].concat()).unwrap();
        assert_eq!(read(&path).unwrap().len(), 4);
        truncate_from(&path, 9).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        truncate_from(&path, 2).unwrap();
        assert_eq!(read(&path).unwrap(), [row(0), row(1)]);
        assert!(whole.starts_with(&std::fs::read(&path).unwrap()));
    }

    #[test]
    fn a_foreign_line_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        row(0).append(&path).unwrap();
        std::fs::write(&path, [std::fs::read(&path).unwrap(), b"hello\n".to_vec()].concat())
            .unwrap();
        for text in
            [read(&path).unwrap_err().to_string(), truncate_from(&path, 0).unwrap_err().to_string()]
        {
            assert!(text.contains("metrics.jsonl: line 2 "), "{text}");
        }
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("hello\n"));
    }
}
