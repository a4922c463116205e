//! The run folder: what was asked for, who holds it, where things lie.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::fs::{remove_unfinished, write_atomic};
use crate::base::{Error, Result};
use crate::net::weights::Provenance;
use crate::recipe::Recipe;

/// `run.json`: everything that a resumed run must agree on, and what a reader wants to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub recipe: Recipe,
    pub seed: u64,
    pub data: PathBuf,
    /// The layout, as `--dataset` names it; None: detected.
    pub dataset: Option<&'static crate::data::DataLayout>,
    pub split: String,
    pub val_split: String,
    pub classes: crate::data::Classes,
    /// Images used at most; None: all.
    pub limit: Option<usize>,
    /// What the network started from.
    pub start: Provenance,
    pub version: String,
    pub host: Host,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    pub os: String,
    pub arch: String,
    pub threads: usize,
}

impl Host {
    pub fn here() -> Self {
        Host {
            os: std::env::consts::OS.into(),
            arch: std::env::consts::ARCH.into(),
            threads: rayon::current_num_threads(),
        }
    }
}

const LOCK: &str = "run.lock";

/// A run folder that this process alone writes to.
#[derive(Debug)]
pub struct RunFolder {
    pub path: PathBuf,
    /// The folders that were made for it, the innermost first.
    made: Vec<PathBuf>,
    /// Held while the value lives; the system releases it when the process ends, however it ends.
    _lock: File,
}

impl RunFolder {
    /// Creates the folder if need be, and locks it.
    pub fn open(path: &Path) -> Result<Self> {
        let missing = path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists());
        let made = missing.map(Path::to_path_buf).collect();
        std::fs::create_dir_all(path).map_err(|e| Error::io(path, e))?;
        let lock = path.join(LOCK);
        let file = File::create(&lock).map_err(|e| Error::io(&lock, e))?;
        match file.try_lock() {
            Ok(()) => {
                remove_unfinished(path);
                Ok(RunFolder { path: path.to_path_buf(), made, _lock: file })
            }
            Err(TryLockError::WouldBlock) => Err(Error::file(
                path,
                "another process is writing to this run folder",
                "wait for it, or choose another --run",
            )),
            Err(TryLockError::Error(e)) => Err(Error::io(&lock, e)),
        }
    }

    /// A request to stop, in the words of a run that is saved here.
    pub fn kept(&self, e: Error) -> Error {
        let how = format!("continue with: picie train --run {} --resume", self.path.display());
        e.kept("everything so far is saved", how)
    }

    pub fn settings_path(&self) -> PathBuf {
        self.path.join("run.json")
    }

    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// The whole state, to resume from.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join("checkpoint.safetensors")
    }

    /// Weights and centroids after an epoch, to evaluate.
    pub fn epoch(&self, epoch: usize) -> PathBuf {
        self.path.join(format!("epoch-{epoch:02}.safetensors"))
    }

    pub fn pictures(&self) -> PathBuf {
        self.path.join("pictures")
    }

    /// A run begins here.
    pub fn write_settings(&self, settings: &Settings) -> Result<()> {
        write_atomic(&self.settings_path(), |w| {
            serde_json::to_writer_pretty(&mut *w, settings)?;
            w.write_all(b"\n")
        })
    }

    /// What lies where in memory, for the curious.
    pub fn write_plan(&self, text: &str) -> Result<()> {
        write_atomic(&self.path.join("plan.txt"), |w| writeln!(w, "{text}"))
    }

    pub fn read_settings(&self) -> Result<Settings> {
        let path = self.settings_path();
        let text = std::fs::read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::file(
                &self.path,
                "there is no run to resume here",
                "check --run, or leave out --resume",
            ),
            _ => Error::io(&path, e),
        })?;
        serde_json::from_slice(&text).map_err(|e| {
            Error::file(
                &path,
                format!("not the settings of this version of picie ({e})"),
                "start a new --run",
            )
        })
    }
}

impl Drop for RunFolder {
    /// Where no run began, nothing is left behind, so that a corrected command can use the same
    /// folder.
    fn drop(&mut self) {
        if !self.settings_path().exists() {
            let _ = std::fs::remove_file(self.path.join(LOCK));
            // A folder that holds anything stays.
            for folder in &self.made {
                let _ = std::fs::remove_dir(folder);
            }
        }
    }
}
