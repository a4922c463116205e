//! What is told of the photos: on standard output, in `segments.json`, and on a sheet.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::base::fs::write_atomic;
use crate::base::say::warn;
use crate::base::stats::spread;
use crate::base::{Error, Result};
use crate::cli::args::{SegmentArgs, Switch};
use crate::cli::name::listed;
use crate::cli::paths::text;
use crate::cli::say;
use crate::cli::segment::files::Files;
use crate::cli::segment::network::Segmented;
use crate::cli::segment::photo::Photo;
use crate::eval::Segment;
use crate::net::weights::{self, Tensor, Weights};
use crate::report::contact::{Small, contact};
use crate::report::palette::Colour;
use crate::report::pictures::write_rgb;

/// The most photos on a sheet; of more, some are shown.
const SHOWN: usize = 120;

/// The clusters below `clusters` that some pixel has.
pub fn occurring(labels: &[u16], clusters: usize) -> Vec<usize> {
    let mut occurs = vec![false; clusters];
    for &label in labels {
        if let Some(seen) = occurs.get_mut(usize::from(label)) {
            *seen = true;
        }
    }
    (0..clusters).filter(|&id| occurs[id]).collect()
}

/// Writes the scores of a photo, if they were asked for: one tensor `scores` (h, w, k).
pub fn write_scores(files: &Files, seen: &Segmented, k: usize) -> Result<()> {
    let (Some(path), Some((size, scores))) = (&files.scores, &seen.scores) else { return Ok(()) };
    let tensor = Tensor::from_f32(vec![size.h, size.w, k], scores.clone());
    let metadata = BTreeMap::from([("format".into(), "picie scores".into())]);
    weights::write(path, &Weights { tensors: [("scores".into(), tensor)].into(), metadata })
}

/// The part of pixels that each cluster (K) has, in percent.
fn shares(labels: &[u16], clusters: usize) -> Vec<f64> {
    let mut counts = vec![0usize; clusters];
    labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
    counts.into_iter().map(|n| 100.0 * n as f64 / labels.len().max(1) as f64).collect()
}

/// A share with the digits that matter.
fn rounded(share: f64) -> f64 {
    (share * 1e3).round() / 1e3
}

/// What is told of the photos. None of it stops the others: neither a photo that cannot be read nor
/// a standard output that cannot be written.
pub struct Told<'a> {
    args: &'a SegmentArgs,
    segments: &'a [Segment],
    /// The numbers of the photos that the sheet shows.
    shown: Vec<usize>,
    /// What is on the sheet so far.
    small: Vec<Small>,
    /// The sum of the photos' shares of each cluster (K), in percent.
    shares: Vec<f64>,
    /// What JSON says of each photo that is done, and the same with paths below the folder.
    done: Vec<[Value; 2]>,
    failed: Vec<Value>,
    /// The first failure of standard output.
    said: Result<()>,
}

impl<'a> Told<'a> {
    pub fn new(args: &'a SegmentArgs, segments: &'a [Segment]) -> Self {
        Told {
            args,
            segments,
            shown: Vec::new(),
            small: Vec::new(),
            shares: vec![0.0; segments.len()],
            done: Vec::new(),
            failed: Vec::new(),
            said: Ok(()),
        }
    }

    /// The files that are written about all photos: what is said of them, and the sheet.
    pub fn files(&self) -> [PathBuf; 2] {
        ["segments.json", "sheet.png"].map(|name| self.args.out.join(name))
    }

    /// Says how many photos are to be done.
    pub fn begin(&mut self, photos: usize) {
        self.shown = spread(photos, SHOWN);
    }

    /// Tells of photo number `at`, whose files are written.
    pub fn done(&mut self, at: usize, photo: &Photo, seen: &Segmented) -> Result<()> {
        let Photo { path, width, height, files, .. } = photo;
        if self.shown.contains(&at) {
            let colours: Vec<Colour> = self.segments.iter().map(|s| s.colour).collect();
            let title = path.display().to_string();
            self.small.push(Small::new(title, &seen.picture, &seen.labels, &colours)?);
        }
        let shares = shares(&seen.labels, self.segments.len());
        self.shares.iter_mut().zip(&shares).for_each(|(sum, share)| *sum += share);
        let own: Vec<Value> = (shares.iter().enumerate().filter(|(_, share)| **share > 0.0))
            .map(|(id, share)| json!({ "id": id, "share": rounded(*share) }))
            .collect();
        let cut = occurring(&seen.labels, files.cutouts.len());
        let entry = |place: &dyn Fn(&Path) -> String| {
            let mut entry = json!({
                "photo": text(path), "labels": place(&files.labels),
                "overlay": place(&files.overlay), "width": width, "height": height,
                "segments": own
            });
            if let Some(scores) = &files.scores {
                entry["scores"] = place(scores).into();
            }
            for id in &cut {
                entry["cutouts"][id.to_string()] = place(&files.cutouts[*id]).into();
            }
            entry
        };
        let below = |path: &Path| text(path.strip_prefix(&self.args.out).unwrap_or(path));
        self.done.push([entry(&text), entry(&below)]);
        if !self.args.json && self.said.is_ok() {
            let [path, labels, overlay] =
                [path, &files.labels, &files.overlay].map(|p| p.display());
            self.said = say(format_args!("{path} → {labels}, {overlay}"));
        }
        Ok(())
    }

    /// Tells why a photo is left out.
    pub fn failed(&mut self, path: &Path, e: Error) {
        warn(format_args!("picie: {e}"));
        self.failed.push(json!({ "photo": text(path), "why": e.to_string() }));
    }

    /// What is said of the clusters: number, name, colour, and the mean of the photos' shares.
    fn clusters(&self) -> Vec<Value> {
        let mut clusters = listed(self.segments);
        for (cluster, sum) in clusters.iter_mut().zip(&self.shares) {
            cluster["share"] = rounded(sum / self.done.len().max(1) as f64).into();
        }
        clusters
    }

    /// Writes what is said of the photos that are done, and the sheet of them.
    pub fn write(&self) -> Result<()> {
        if self.done.is_empty() {
            return Ok(());
        }
        let SegmentArgs { checkpoint, size, flip, scales, refine, .. } = self.args;
        let photos: Vec<&Value> = self.done.iter().map(|[_, below]| below).collect();
        let all = json!({
            "checkpoint": text(checkpoint), "size": size, "flip": flip, "scales": scales,
            "refined": *refine == Switch::On,
            "segments": self.clusters(), "photos": photos, "failed": self.failed
        });
        let [path, sheet] = self.files();
        write_atomic(&path, |out| {
            serde_json::to_writer_pretty(&mut *out, &all)?;
            out.write_all(b"\n")
        })?;
        let shown = (0..self.shares.len()).filter(|&id| self.shares[id] > 0.0);
        let shown: Vec<usize> = shown.collect();
        write_rgb(&sheet, &contact(&self.small, &shown, &Segment::legend(self.segments)))
    }

    /// Says what was done. Fails if any photo was left out, or standard output could not be
    /// written.
    pub fn end(self) -> Result<()> {
        let [path, sheet] = self.files();
        let clusters = self.clusters();
        let Told { args, small, done, failed, said, .. } = self;
        let (photos, broken) = (done.len(), failed.len());
        if args.json {
            let photos: Vec<Value> = done.into_iter().map(|[here, _]| here).collect();
            say(json!({
                "photos": photos, "failed": failed, "segments": clusters,
                "file": text(&path), "sheet": text(&sheet)
            }))?;
        }
        said?;
        if photos > 0 && !args.json {
            let of = if small.len() < photos {
                format!(" ({} of them)", small.len())
            } else {
                String::new()
            };
            say(format_args!("{photos} photos: {}, {}{of}", path.display(), sheet.display()))?;
        }
        match broken {
            0 => Ok(()),
            broken => Err(Error::input(
                format!("{broken} of {} photos were left out", photos + broken),
                "see the lines above",
            )),
        }
    }
}
