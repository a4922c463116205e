//! Event files, which TensorBoard reads: a record for each epoch with its numbers as scalars.
//!
//! A file is records of TFRecord: length (u64), masked CRC-32C of the length, data, masked CRC-32C
//! of the data, all little-endian. The data is a protobuf message `Event` of TensorFlow
//! (`event.proto`, `summary.proto`), of which a few fields are written here.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::base::{Error, Result};
use crate::eval::EpochRow;

/// An event file that grows by a record an epoch. It is created with the first one.
pub struct EventFile {
    folder: PathBuf,
    open: Option<(PathBuf, File)>,
}

impl EventFile {
    /// A new file in `folder`, beside those of earlier processes.
    pub fn new(folder: &Path) -> Self {
        EventFile { folder: folder.to_path_buf(), open: None }
    }

    /// Adds the numbers of an epoch, whose number is the step.
    pub fn add(&mut self, row: &EpochRow) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.open.is_none() {
            let folder = &self.folder;
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
            // TensorBoard takes files with this part in their names, in the order of their names.
            let path = folder.join(format!("events.out.tfevents.{:013}.picie", now.as_millis()));
            let mut options = OpenOptions::new();
            let mut file = options
                .create_new(true)
                .write(true)
                .open(&path)
                .map_err(|e| Error::io(&path, e))?;
            let version = field_bytes(3, b"brain.Event:2");
            let first = record(&[wall_time(now.as_secs_f64()), version].concat());
            file.write_all(&first).map_err(|e| Error::io(&path, e))?;
            self.open = Some((path, file));
        }
        let Some((path, file)) = &mut self.open else { return Ok(()) };
        let values: Vec<u8> = scalars(row)
            .iter()
            .flat_map(|(tag, value)| field_bytes(1, &scalar(tag, *value)))
            .collect();
        let step = [vec![2 << 3], varint(row.epoch as u64)].concat();
        let event = [wall_time(now.as_secs_f64()), step, field_bytes(5, &values)].concat();
        // One write, so that a reader never meets half a record.
        file.write_all(&record(&event)).map_err(|e| Error::io(&*path, e))
    }
}

/// The numbers of an epoch under the tags that they have in TensorBoard.
fn scalars(row: &EpochRow) -> Vec<(String, f64)> {
    let mut all = vec![("loss/loss".to_string(), row.loss)];
    let part = |(name, loss): (&String, &f64)| {
        (format!("loss/{}", name.trim_start_matches("loss_")), *loss)
    };
    all.extend(row.losses.iter().map(part));
    let view = |(view, objective): (usize, &f64)| {
        (format!("k-means/objective of view {}", view + 1), *objective)
    };
    all.extend(row.kmeans_objective.iter().enumerate().map(view));
    let optional = [
        ("scores/accuracy", row.acc),
        ("scores/mIoU", row.miou),
        ("scores/mIoU of classes in labels", row.miou_present),
        ("k-means/imbalance", row.kmeans_imbalance),
    ];
    all.extend(optional.into_iter().filter_map(|(tag, value)| Some((tag.to_string(), value?))));
    let seconds = [
        ("seconds/k-means", row.kmeans_s),
        ("seconds/labels", row.labels_s),
        ("seconds/train", row.train_s),
        ("seconds/evaluate", row.eval_s),
        ("images per second", row.images_per_s),
    ];
    all.extend(seconds.map(|(tag, value)| (tag.to_string(), value)));
    all
}

/// `Summary.Value`: tag (1) and simple_value (2, a float).
fn scalar(tag: &str, value: f64) -> Vec<u8> {
    let value = [vec![2 << 3 | 5], (value as f32).to_le_bytes().to_vec()].concat();
    [field_bytes(1, tag.as_bytes()), value].concat()
}

/// The field `wall_time` (1, a double) of `Event`.
fn wall_time(seconds: f64) -> Vec<u8> {
    [vec![1 << 3 | 1], seconds.to_le_bytes().to_vec()].concat()
}

/// A field of bytes, text or a message.
fn field_bytes(number: u8, bytes: &[u8]) -> Vec<u8> {
    [vec![number << 3 | 2], varint(bytes.len() as u64), bytes.to_vec()].concat()
}

/// A number in groups of 7 bits, the lowest first.
fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n >= 128 {
        bytes.push(n as u8 | 128);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let sums = [masked(&length), masked(data)].map(u32::to_le_bytes);
    [&length, &sums[0][..], data, &sums[1]].concat()
}

/// TFRecord's masked checksum, so that sums of data with sums in them are no special ones.
pub fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// CRC-32C (Castagnoli), bit by bit: a record has some hundred bytes.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc: u32, _| {
            crc >> 1 ^ (0x82F6_3B78 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, appendix B.4, and the usual check value.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!([varint(0), varint(127), varint(300)], [vec![0], vec![127], vec![0xAC, 2]]);
    }
}
