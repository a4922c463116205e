//! The folder of a run: its files, its settings, and the lock that keeps other processes out.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::base::fs::{is_one_of, remove_unfinished, write_atomic};
use crate::base::say::{self, quoted, warn};
use crate::base::{Error, Result, memory};
use crate::data::Fingerprint;
use crate::device::Engine;
use crate::net::weights::Provenance;
use crate::recipe::Recipe;

/// The settings of a run, stored in `run.json`: everything that must be the same when it is
/// resumed, and more for readers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The hyperparameters.
    pub recipe: Recipe,
    /// The seed of all random draws.
    pub seed: u64,
    /// The folder of the data set.
    pub data: PathBuf,
    /// The layout of the data set's files, as `--dataset` names it. `None`: detected.
    pub dataset: Option<&'static crate::data::DataLayout>,
    /// The split to train on.
    pub split: String,
    /// The split to evaluate on.
    pub val_split: String,
    /// The classes of the labels.
    pub classes: crate::data::Classes,
    /// Largest number of images to use. `None`: all.
    pub limit: Option<usize>,
    /// Whether images are turned upright as their EXIF orientation says.
    #[serde(default = "upright")]
    pub exif: bool,
    /// The images that are learned from and those that are looked at, once they were read. Runs of
    /// older versions do not say.
    #[serde(default)]
    pub images: Option<[Fingerprint; 2]>,
    /// The weights that the network started from.
    pub start: Provenance,
    /// The version of this program.
    pub version: String,
    /// The machine.
    pub host: Host,
    /// The start of the run.
    #[serde(default)]
    pub begun: Begun,
    /// What computed last. Runs of older versions do not say.
    #[serde(default)]
    pub engine: Option<Computed>,
    /// The seconds that the run took so far, all of its starts together; written when it ends or is
    /// stopped.
    #[serde(default)]
    pub seconds: f64,
}

/// What a run computed with, for readers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Computed {
    /// The name of the device.
    pub device: String,
    /// The element type of activations.
    pub precision: String,
}

impl Computed {
    /// What this engine is.
    pub fn by(dev: &dyn Engine) -> Self {
        Computed {
            device: dev.describe()["name"].as_str().unwrap_or_default().into(),
            precision: dev.dtype().name().into(),
        }
    }
}

/// What files of older versions do not say: images were turned upright.
pub(super) fn upright() -> bool {
    true
}

impl Settings {
    /// Fails if a run that goes on would learn from other images, by their names, than those that
    /// it began with, or look at others.
    pub fn check_images(&self, now: &[Fingerprint; 2]) -> Result<()> {
        for (what, was, now) in self
            .images
            .iter()
            .flat_map(|was| [("images", &was[0], &now[0]), ("validation images", &was[1], &now[1])])
        {
            if !was.same_names(now) {
                let what = format!(
                    "these are other {what} than the run began with ({} then, {} now)",
                    was.images, now.images
                );
                return Err(Error::file(&self.data, what, "bring them back, or start a new --run"));
            }
        }
        Ok(())
    }
}

/// When and how a run was started, for readers. Runs of older versions do not say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    /// The time, in UTC.
    pub date: String,
    /// The command line, as a shell takes it.
    pub command: String,
    /// The commit that this program was built from.
    pub commit: String,
}

impl Begun {
    /// This process, now.
    pub fn now() -> Self {
        Begun {
            date: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
            command: say::command_line(),
            commit: env!("PICIE_COMMIT").into(),
        }
    }
}

/// The machine that a run was started on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Its operating system.
    pub os: String,
    /// Its processor's architecture.
    pub arch: String,
    /// Number of threads that compute.
    pub threads: usize,
}

impl Host {
    /// This machine.
    pub fn here() -> Self {
        Host {
            os: std::env::consts::OS.into(),
            arch: std::env::consts::ARCH.into(),
            threads: rayon::current_num_threads(),
        }
    }
}

/// The name of the lock file.
const LOCK: &str = "run.lock";

/// The folder of a run, locked so that only this process writes to it.
#[derive(Debug)]
pub struct RunFolder {
    /// The path of the folder.
    pub path: PathBuf,
    /// The number of newest files of epochs that are kept. `None`: all are.
    pub keep: Option<usize>,
    /// The folders that were created for it, the innermost first.
    made: Vec<PathBuf>,
    /// The lock, which is held while this value lives. The system releases it when the process
    /// ends, however it ends.
    _lock: File,
}

impl RunFolder {
    /// Creates the folder if need be, and locks it. Fails if another process holds it. On a file
    /// system that has no locks it is used without, and that is said.
    pub fn open(path: &Path) -> Result<Self> {
        let missing = path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists());
        let made = missing.map(Path::to_path_buf).collect();
        std::fs::create_dir_all(path).map_err(|e| Error::io(path, e))?;
        let lock = path.join(LOCK);
        let file = File::create(&lock).map_err(|e| Error::io(&lock, e))?;
        let lacking = [Errno::NOLCK, Errno::NOSYS, Errno::OPNOTSUPP, Errno::INVAL, Errno::BADF];
        let locked = match file.try_lock() {
            Err(TryLockError::Error(e)) if is_one_of(&e, &lacking) => {
                warn(format_args!(
                    "{}: this file system has no locks ({e}); let no other process write to this folder",
                    path.display()
                ));
                Ok(())
            }
            locked => locked,
        };
        match locked {
            Ok(()) => {
                remove_unfinished(path);
                Ok(RunFolder { path: path.to_path_buf(), keep: None, made, _lock: file })
            }
            Err(TryLockError::WouldBlock) => Err(Error::file(
                path,
                "another process is writing to this run folder",
                "wait for it, or choose another --run",
            )),
            Err(TryLockError::Error(e)) => Err(Error::io(&lock, e)),
        }
    }

    /// Whether a file is the lock of a run.
    pub fn is_lock(path: &Path) -> bool {
        path.file_name().is_some_and(|name| name == LOCK)
    }

    /// If `e` is a request to stop, adds that the run is saved here and how to continue it.
    pub fn kept(&self, e: Error) -> Error {
        let how = format!("continue with: picie train --run {} --resume", quoted(&self.path));
        e.kept("everything so far is saved", how)
    }

    /// The path of the settings.
    pub fn settings_path(&self) -> PathBuf {
        self.path.join("run.json")
    }

    /// The path of the table of epochs, with one line of JSON for each.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// The path of the checkpoint, from which a run is resumed.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join("checkpoint.safetensors")
    }

    /// The path of the weights and centroids after an epoch, which can be evaluated.
    pub fn epoch(&self, epoch: usize) -> PathBuf {
        self.path.join(format!("epoch-{epoch:02}.safetensors"))
    }

    /// Removes the files of epochs that are no longer kept, once that of `epoch` and the checkpoint
    /// are written.
    pub fn forget_before(&self, epoch: usize) -> Result<()> {
        let Some(keep) = self.keep else { return Ok(()) };
        for old in (1..=epoch.saturating_sub(keep)).rev() {
            let path = self.epoch(old);
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io(path, e)),
                _ => {}
            }
        }
        Ok(())
    }

    /// The path of the table of epochs, as it is printed.
    pub fn table(&self) -> PathBuf {
        self.path.join("table.txt")
    }

    /// The path of the report.
    pub fn report(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// The path of the folder of event files, for TensorBoard.
    pub fn events(&self) -> PathBuf {
        self.path.join("tensorboard")
    }

    /// The path of the folder of pictures.
    pub fn pictures(&self) -> PathBuf {
        self.path.join("pictures")
    }

    /// Fails if there is no room for files of `all` bytes together, of which the largest is a
    /// checkpoint of `largest` bytes.
    pub fn check_room(&self, largest: u64, all: u64) -> Result<()> {
        let (place, mib) = (&self.path, |bytes: u64| bytes.div_ceil(1 << 20));
        if let Some(most) = memory::largest_file().filter(|&most| most < largest) {
            let (takes, most) = (mib(largest), most >> 20);
            let what = format!("a checkpoint takes {takes} MiB, and files may have {most} MiB");
            return Err(Error::file(
                place,
                what,
                "lift the limit on the size of files (ulimit -f)",
            ));
        }
        // A file system that does not say what it has, or that it has nothing at all, is written to
        // all the same.
        let disk = rustix::fs::statvfs(place).ok().filter(|disk| disk.f_blocks > 0);
        let free = disk.map_or(u64::MAX, |disk| disk.f_bavail * disk.f_frsize);
        if free < all {
            let (takes, free) = (mib(all), free >> 20);
            let what = format!(
                "checkpoints and the files of all epochs take {takes} MiB, and {free} MiB are free"
            );
            let remedy = "free some space, choose another --run or fewer --epochs";
            return Err(Error::file(place, what, remedy));
        }
        Ok(())
    }

    /// Writes the settings, with which a run begins.
    pub fn write_settings(&self, settings: &Settings) -> Result<()> {
        write_atomic(&self.settings_path(), |w| {
            serde_json::to_writer_pretty(&mut *w, settings)?;
            w.write_all(b"\n")
        })
    }

    /// Writes the plan of memory, for people to read.
    pub fn write_plan(&self, text: &str) -> Result<()> {
        write_atomic(&self.path.join("plan.txt"), |w| writeln!(w, "{text}"))
    }

    /// Reads the settings of a run that is to be resumed. Fails if there are none, or if another
    /// version wrote them.
    pub fn read_settings(&self) -> Result<Settings> {
        let path = self.settings_path();
        let text = std::fs::read(&path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::file(
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
    /// Leaves nothing behind if no run began, so that a corrected command can use the same folder.
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
