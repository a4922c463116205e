//! The binary, run as a user runs it: what it prints, how it exits, what it leaves on disk.
//!
//! Every command runs in a temporary folder with its own home and cache, so nothing of the user's
//! is read or touched.

mod backbones;
mod bad_checkpoints;
mod bad_data;
mod bad_gpu;
mod bad_runs;
mod baselines;
mod bench;
mod cache;
mod cuda;
mod engines;
mod eval;
mod export;
#[cfg(target_os = "linux")]
mod gauge;
mod given;
mod help;
mod info;
mod look;
mod model;
mod name;
mod own_labels;
mod photos;
mod place;
mod recluster;
mod record;
mod report;
mod resume;
mod segment;
#[cfg(target_os = "linux")]
mod signals;
mod start;
mod train;
mod words;

pub use place::{Place, files, scenes, trained};

/// Small enough for a run within a second: 6 images make 3 training steps and 2 batches of k-means.
pub const TINY: &str = "--size 32 --stored 64 --batch 2 --batch-cluster 4 --clusters 9 --epochs 2 --eval-size 32 --init-batches 1 --kmeans-iters 3";

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    #[track_caller]
    pub fn succeeds(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// The line that says why the command failed, as it must: the last one, after `picie: `.
    #[track_caller]
    pub fn fails(self) -> String {
        assert_eq!(self.code, Some(1), "{self:#?}");
        let line = self.err.lines().last().unwrap_or_default();
        let line = line.strip_prefix("picie: ").unwrap_or_else(|| panic!("{self:#?}"));
        assert_eq!(self.err.matches("picie: ").count(), 1, "{self:#?}");
        line.to_string()
    }
}

/// Fails unless `text` holds each of `parts`.
#[track_caller]
pub fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}
